# In each further region of an account, us-east-1 first, where global services tell what was done: what writes there, and who takes the break-glass
# role, is sent to the bus of the account's own region, whose rules know what to do with it.
variable "name" {
  description = "The installation, as in the other modules."
  type        = string
  default     = "reconciler"
}

variable "home" {
  description = "The region of the account module."
  type        = string
}

variable "tags" {
  description = "On everything that is made."
  type        = map(string)
  default     = {}
}

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  bus       = "arn:${local.partition}:events:${var.home}:${local.account}:event-bus/default"
  tags      = merge(var.tags, { "reconciler:installation" = var.name })

  rules = {
    writes = { state = "ENABLED", detail = { "readOnly" = [false] } }
    break-glass = { state = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS", detail = {
      "eventSource"       = ["sts.amazonaws.com"]
      "eventName"         = ["AssumeRole"]
      "requestParameters" = { "roleArn" = ["arn:${local.partition}:iam::${local.account}:role/${var.name}-break-glass"] }
    } }
  }
}

data "aws_iam_policy_document" "trust" {
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

data "aws_iam_policy_document" "this" {
  statement {
    sid       = "Send"
    actions   = ["events:PutEvents"]
    resources = [local.bus]
  }
}

resource "aws_iam_role" "this" {
  name               = "${var.name}-forward-${data.aws_region.this.name}"
  description        = "Sends what CloudTrail sees in this region to ${var.home}"
  assume_role_policy = data.aws_iam_policy_document.trust.json
  tags               = local.tags
}

resource "aws_iam_role_policy" "this" {
  name   = "own"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.this.json
}

resource "aws_cloudwatch_event_rule" "this" {
  for_each      = local.rules
  name          = "${var.name}-${each.key}"
  description   = "To ${var.home}"
  state         = each.value.state
  event_pattern = jsonencode({ "detail-type" = ["AWS API Call via CloudTrail"], "detail" = each.value.detail })
  tags          = local.tags
}

resource "aws_cloudwatch_event_target" "this" {
  for_each = local.rules
  rule     = aws_cloudwatch_event_rule.this[each.key].name
  arn      = local.bus
  role_arn = aws_iam_role.this.arn
}

output "writers" {
  description = "For the organization module: the role by which rules send."
  value       = [aws_iam_role.this.arn]
}
