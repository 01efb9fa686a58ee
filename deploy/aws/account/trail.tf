# What happens in the account, for the controller's `out_of_band`: CloudTrail -> the default bus -> the installation's queue.
resource "aws_s3_bucket" "trail" {
  count  = var.trail ? 1 : 0
  bucket = "${var.name}-trail-${local.unique}"
  tags   = local.tags
}

resource "aws_s3_bucket_public_access_block" "trail" {
  count                   = var.trail ? 1 : 0
  bucket                  = aws_s3_bucket.trail[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "trail" {
  count  = var.trail ? 1 : 0
  bucket = aws_s3_bucket.trail[0].id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "trail" {
  count      = var.trail ? 1 : 0
  bucket     = aws_s3_bucket.trail[0].id
  depends_on = [aws_s3_bucket_versioning.trail]
  rule {
    id     = "old"
    status = "Enabled"
    filter {
      prefix = ""
    }
    expiration {
      days = var.retention_days
    }
    noncurrent_version_expiration {
      noncurrent_days = 30
    }
  }
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
    resources = [aws_s3_bucket.trail[0].arn]
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
    resources = ["${aws_s3_bucket.trail[0].arn}/AWSLogs/${local.account}/*"]
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

resource "aws_s3_bucket_policy" "trail" {
  count      = var.trail ? 1 : 0
  bucket     = aws_s3_bucket.trail[0].id
  policy     = data.aws_iam_policy_document.trail[0].json
  depends_on = [aws_s3_bucket_public_access_block.trail]
}

resource "aws_cloudtrail" "this" {
  count                         = var.trail ? 1 : 0
  name                          = var.name
  s3_bucket_name                = aws_s3_bucket.trail[0].id
  is_multi_region_trail         = true
  include_global_service_events = true
  enable_log_file_validation    = true
  tags                          = local.tags
  depends_on                    = [aws_s3_bucket_policy.trail]
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
