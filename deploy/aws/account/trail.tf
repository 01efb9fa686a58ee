# What happens in the account, for the controller's `out_of_band`: CloudTrail -> the default bus -> the installation's queue.
module "trail" {
  count      = var.trail ? 1 : 0
  source     = "../bucket"
  name       = "${var.name}-trail-${local.unique}"
  expires    = { prefix = "", days = var.retention_days }
  old_days   = 30
  statements = data.aws_iam_policy_document.trail[0].json
  tags       = local.tags
}

locals {
  trail_arn = "arn:${local.partition}:cloudtrail:${local.region}:${local.account}:trail/${var.name}"
  queue     = { account = split(":", var.queue_arn)[4], region = split(":", var.queue_arn)[3] }
  elsewhere = local.queue.account != local.account
}

data "aws_iam_policy_document" "trail" {
  count = var.trail ? 1 : 0
  statement {
    sid       = "Look"
    actions   = ["s3:GetBucketAcl"]
    resources = [module.trail[0].arn]
    principals {
      type        = "Service"
      identifiers = ["cloudtrail.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [local.trail_arn]
    }
  }
  statement {
    sid       = "Write"
    actions   = ["s3:PutObject"]
    resources = ["${module.trail[0].arn}/AWSLogs/${local.account}/*"]
    principals {
      type        = "Service"
      identifiers = ["cloudtrail.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "s3:x-amz-acl"
      values   = ["bucket-owner-full-control"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [local.trail_arn]
    }
  }
}

resource "aws_cloudtrail" "this" {
  count                         = var.trail ? 1 : 0
  name                          = var.name
  s3_bucket_name                = module.trail[0].id
  is_multi_region_trail         = true
  include_global_service_events = true
  enable_log_file_validation    = true
  tags                          = local.tags
  depends_on                    = [module.trail] # and its policy
}

resource "aws_cloudwatch_event_rule" "writes" {
  name        = "${var.name}-writes"
  description = "Every call that writes, for the controller's out_of_band"
  event_pattern = jsonencode({
    "detail-type" = ["AWS API Call via CloudTrail"]
    "detail"      = { "readOnly" = [false] }
  })
  tags = local.tags
}

resource "aws_cloudwatch_event_target" "writes" {
  rule     = aws_cloudwatch_event_rule.writes.name
  arn      = var.queue_arn
  role_arn = local.elsewhere ? aws_iam_role.events[0].arn : null
}

# Into a queue of another account a rule sends by a role.
data "aws_iam_policy_document" "events_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

data "aws_iam_policy_document" "events" {
  statement {
    sid       = "Send"
    actions   = ["sqs:SendMessage"]
    resources = [var.queue_arn]
  }
}

resource "aws_iam_role" "events" {
  count              = local.elsewhere ? 1 : 0
  name               = "${var.name}-events"
  description        = "Sends what CloudTrail sees to the installation's queue"
  assume_role_policy = data.aws_iam_policy_document.events_trust.json
  tags               = local.tags
}

resource "aws_iam_role_policy" "events" {
  count  = local.elsewhere ? 1 : 0
  name   = "own"
  role   = aws_iam_role.events[0].id
  policy = data.aws_iam_policy_document.events.json
}
