# What CloudTrail sees, from the rules of each account (account/trail.tf), for the controller's `out_of_band`.
resource "aws_sqs_queue" "trail" {
  name                       = "${var.name}-trail"
  message_retention_seconds  = 1209600
  visibility_timeout_seconds = 120
  receive_wait_time_seconds  = 20
  sqs_managed_sse_enabled    = true
  tags                       = local.tags
}

data "aws_iam_policy_document" "queue" {
  statement {
    sid       = "OnlyByTls"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [aws_sqs_queue.trail.arn]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
  dynamic "statement" {
    for_each = length(var.rules) > 0 ? [1] : []
    content {
      sid       = "Rules"
      actions   = ["sqs:SendMessage"]
      resources = [aws_sqs_queue.trail.arn]
      principals {
        type        = "Service"
        identifiers = ["events.amazonaws.com"]
      }
      condition {
        test     = "ArnEquals"
        variable = "aws:SourceArn"
        values   = var.rules
      }
    }
  }
  dynamic "statement" {
    for_each = length(var.senders) > 0 ? [1] : []
    content {
      sid       = "RulesOfOtherAccounts"
      actions   = ["sqs:SendMessage"]
      resources = [aws_sqs_queue.trail.arn]
      principals {
        type        = "AWS"
        identifiers = var.senders
      }
    }
  }
}

resource "aws_sqs_queue_policy" "trail" {
  queue_url = aws_sqs_queue.trail.id
  policy    = data.aws_iam_policy_document.queue.json
}
