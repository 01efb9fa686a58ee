# For the day on which the pipeline is what is broken: a person with MFA, for an hour, seen by everybody. It works with the daemon dead.
data "aws_iam_policy_document" "emergency_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "AWS"
      identifiers = var.emergency
    }
    condition {
      test     = "Bool"
      variable = "aws:MultiFactorAuthPresent"
      values   = ["true"]
    }
    condition {
      test     = "NumericLessThan"
      variable = "aws:MultiFactorAuthAge"
      values   = ["3600"]
    }
  }
}

resource "aws_iam_role" "emergency" {
  name                 = local.emergency
  description          = "Break glass: everything but what guards the account, for an hour; everybody is told"
  assume_role_policy   = data.aws_iam_policy_document.emergency_trust.json
  max_session_duration = 3600
  permissions_boundary = aws_iam_policy.boundary["pipeline"].arn
  tags                 = local.tags
}

resource "aws_iam_role_policy" "emergency" {
  name   = "own"
  role   = aws_iam_role.emergency.id
  policy = data.aws_iam_policy_document.everything.json
}

# Closes what is open: sessions that were given before this moment may do nothing any more. Whoever closes in a hurry writes a policy of another
# name (the closer's role, below), which the next apply leaves as it is.
data "aws_iam_policy_document" "closed" {
  statement {
    sid       = "Closed"
    effect    = "Deny"
    actions   = ["*"]
    resources = ["*"]
    condition {
      test     = "DateLessThan"
      variable = "aws:TokenIssueTime"
      values   = [var.closed_before]
    }
  }
}

resource "aws_iam_role_policy" "closed" {
  name   = "closed"
  role   = aws_iam_role.emergency.id
  policy = data.aws_iam_policy_document.closed.json
}

# --- who closes: one right, on one role. What the role may do at most its boundary says, which this right does not reach.

data "aws_iam_policy_document" "closer_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "AWS"
      identifiers = var.admins
    }
    condition {
      test     = "Bool"
      variable = "aws:MultiFactorAuthPresent"
      values   = ["true"]
    }
  }
}

data "aws_iam_policy_document" "closer" {
  statement {
    sid       = "Close"
    actions   = ["iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies", "iam:PutRolePolicy"]
    resources = [aws_iam_role.emergency.arn]
  }
}

resource "aws_iam_role" "closer" {
  name                 = "${var.name}-closer"
  description          = "Ends all sessions of the break-glass role"
  assume_role_policy   = data.aws_iam_policy_document.closer_trust.json
  max_session_duration = 3600
  tags                 = local.tags
}

resource "aws_iam_role_policy" "closer" {
  name   = "own"
  role   = aws_iam_role.closer.id
  policy = data.aws_iam_policy_document.closer.json
}

# --- who is told

resource "aws_sns_topic" "alarm" {
  name = "${var.name}-break-glass"
  tags = local.tags
}

data "aws_iam_policy_document" "alarm" {
  statement {
    sid       = "Rule"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarm.arn]
    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.emergency.arn]
    }
  }
  statement {
    sid       = "Alarm"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarm.arn]
    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_sns_topic_policy" "alarm" {
  arn    = aws_sns_topic.alarm.arn
  policy = data.aws_iam_policy_document.alarm.json
}

resource "aws_sns_topic_subscription" "email" {
  for_each  = toset(var.alarm_emails)
  topic_arn = aws_sns_topic.alarm.arn
  protocol  = "email"
  endpoint  = each.value
}

# Whoever takes the role, and whoever tries and may not: AssumeRole reads, as CloudTrail has it, and a rule sees what reads only in this state.
resource "aws_cloudwatch_event_rule" "emergency" {
  name        = "${var.name}-break-glass"
  description = "The break-glass role is taken, or somebody tries"
  state       = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
  event_pattern = jsonencode({
    "detail-type" = ["AWS API Call via CloudTrail"]
    "detail" = {
      "eventSource"       = ["sts.amazonaws.com"]
      "eventName"         = ["AssumeRole"]
      "requestParameters" = { "roleArn" = [aws_iam_role.emergency.arn] }
    }
  })
  tags = local.tags
}

resource "aws_cloudwatch_event_target" "emergency" {
  for_each = merge({ own = aws_sns_topic.alarm.arn }, { for number, arn in var.alarm_topics : "other-${number}" => arn })
  rule     = aws_cloudwatch_event_rule.emergency.name
  arn      = each.value
}

# The same as an alarm, which stays red for an hour and can be looked at.
resource "aws_cloudwatch_metric_alarm" "emergency" {
  alarm_name          = "${var.name}-break-glass"
  alarm_description   = "The break-glass role was taken within the last hour"
  namespace           = "AWS/Events"
  metric_name         = "MatchedEvents"
  dimensions          = { RuleName = aws_cloudwatch_event_rule.emergency.name }
  statistic           = "Sum"
  period              = 3600
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = concat([aws_sns_topic.alarm.arn], var.alarm_topics)
  tags                = local.tags
}
