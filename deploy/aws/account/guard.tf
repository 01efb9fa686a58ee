# Three boundaries, each the most that somebody may do whatever their policies say: of applies, of the roles that applies make, of people.
locals {
  # What guards the account. Names, not resources: what is made by hand under such a name is guarded as well.
  guarded_roles = concat(
    ["${local.iam}:role/${local.emergency}", "${local.iam}:role/${var.name}-closer", "${local.iam}:role/${var.name}-developer", "${local.iam}:role/${var.name}-events"],
    [for one in values(local.plan_names) : "${local.iam}:role/${one}"],
    [for one in values(local.apply_names) : "${local.iam}:role/${one}"],
  )
  guarded_policies = ["${local.iam}:policy/${var.name}-boundary-*"]
  guarded_rules    = ["arn:${local.partition}:events:*:${local.account}:rule/${var.name}-*"]
  guarded_topics   = ["arn:${local.partition}:sns:*:${local.account}:${var.name}-*"]
  guarded_alarms   = ["arn:${local.partition}:cloudwatch:*:${local.account}:alarm:${var.name}-*"]
  guarded_buckets  = ["arn:${local.partition}:s3:::${var.name}-*"]
  guarded_objects  = [for one in ["trail", "spool", "memory"] : "arn:${local.partition}:s3:::${var.name}-${one}-*/*"]
  # What the module above this one makes, where it is in the same account.
  installation = [
    "arn:${local.partition}:dynamodb:*:${local.account}:table/${var.name}",
    "arn:${local.partition}:dynamodb:*:${local.account}:table/${var.name}/*",
    "arn:${local.partition}:ecs:*:${local.account}:cluster/${var.name}",
    "arn:${local.partition}:ecs:*:${local.account}:service/${var.name}/*",
    "arn:${local.partition}:ecs:*:${local.account}:task/${var.name}/*",
    "arn:${local.partition}:ecs:*:${local.account}:task-definition/${var.name}-*",
    "arn:${local.partition}:logs:*:${local.account}:log-group:/${var.name}/*",
    "arn:${local.partition}:sqs:*:${local.account}:${var.name}-trail",
  ]

  workloads = ["${local.iam}:role/workload/*", "${local.iam}:policy/workload/*", "${local.iam}:instance-profile/workload/*"]

  iam_writes = [
    "iam:Add*", "iam:Attach*", "iam:Change*", "iam:Create*", "iam:Deactivate*", "iam:Delete*", "iam:Detach*", "iam:Disable*", "iam:Enable*",
    "iam:PassRole", "iam:Put*", "iam:Remove*", "iam:Reset*", "iam:Resync*", "iam:Set*", "iam:Tag*", "iam:Untag*", "iam:Update*", "iam:Upload*",
  ]
  bucket_writes = [
    "s3:DeleteBucket*", "s3:PutBucket*", "s3:PutEncryptionConfiguration", "s3:PutLifecycleConfiguration", "s3:PutReplicationConfiguration",
    "s3:PutObjectLockConfiguration", "s3:BypassGovernanceRetention",
  ]
}

data "aws_iam_policy_document" "guard" {
  statement {
    sid     = "TheTrail"
    effect  = "Deny"
    actions = ["cloudtrail:DeleteTrail", "cloudtrail:PutEventSelectors", "cloudtrail:StopLogging", "cloudtrail:UpdateTrail"]
    # Any trail: one that the organization makes has a name of its own.
    resources = ["*"]
  }
  statement {
    sid       = "TheRules"
    effect    = "Deny"
    actions   = ["events:DeleteRule", "events:DisableRule", "events:PutRule", "events:PutTargets", "events:RemoveTargets"]
    resources = local.guarded_rules
  }
  statement {
    sid       = "TheAlarm"
    effect    = "Deny"
    actions   = ["cloudwatch:DeleteAlarms", "cloudwatch:DisableAlarmActions", "cloudwatch:PutMetricAlarm", "cloudwatch:SetAlarmState"]
    resources = local.guarded_alarms
  }
  statement {
    sid       = "TheTopic"
    effect    = "Deny"
    actions   = ["sns:AddPermission", "sns:DeleteTopic", "sns:RemovePermission", "sns:SetTopicAttributes", "sns:Unsubscribe"]
    resources = local.guarded_topics
  }
  statement {
    sid       = "TheBuckets"
    effect    = "Deny"
    actions   = local.bucket_writes
    resources = local.guarded_buckets
  }
  statement {
    sid       = "WhatIsInThem"
    effect    = "Deny"
    actions   = ["s3:DeleteObject*", "s3:GetObject*", "s3:PutObject*"]
    resources = local.guarded_objects
  }
  statement {
    sid       = "TheInstallation"
    effect    = "Deny"
    actions   = ["dynamodb:*", "ecs:*", "logs:*", "sqs:*"]
    resources = local.installation
  }
  statement {
    sid       = "TheKeys"
    effect    = "Deny"
    actions   = ["kms:CreateGrant", "kms:DisableKey*", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:UpdateAlias", "kms:DeleteAlias"]
    resources = ["*"]
    condition {
      test     = "ForAnyValue:StringLike"
      variable = "kms:ResourceAliases"
      values   = ["alias/${var.name}-*"]
    }
  }
  statement {
    sid       = "NorWhatTheyOpen"
    effect    = "Deny"
    actions   = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
    resources = ["*"]
    condition {
      test     = "ForAnyValue:StringLike"
      variable = "kms:ResourceAliases"
      values   = ["alias/${var.name}-memory", "alias/${var.name}-shared"]
    }
  }
  # A way past session policies: an access point has a policy of its own.
  statement {
    sid       = "NoOtherWay"
    effect    = "Deny"
    actions   = ["account:*", "organizations:*", "s3:CreateAccessPoint*", "s3:PutAccessPoint*"]
    resources = ["*"]
  }
  statement {
    sid           = "OnlyWorkloadsInIam"
    effect        = "Deny"
    actions       = local.iam_writes
    not_resources = concat(local.workloads, ["${local.iam}:role/aws-service-role/*"])
  }
  # A role that is made has the boundary of those, and keeps it.
  statement {
    sid       = "WorkloadsAreBounded"
    effect    = "Deny"
    actions   = ["iam:CreateRole", "iam:PutRolePermissionsBoundary"]
    resources = ["*"]
    condition {
      test     = "StringNotEquals"
      variable = "iam:PermissionsBoundary"
      values   = ["${local.iam}:policy/${var.name}-boundary-workload"]
    }
  }
  statement {
    sid       = "AndStaySo"
    effect    = "Deny"
    actions   = ["iam:DeleteRolePermissionsBoundary"]
    resources = ["*"]
  }
}

data "aws_iam_policy_document" "everything" {
  statement {
    sid       = "AtMost"
    actions   = ["*"]
    resources = ["*"]
  }
}

# Of applies, and of the break-glass role.
data "aws_iam_policy_document" "pipeline" {
  source_policy_documents = [data.aws_iam_policy_document.everything.json, data.aws_iam_policy_document.guard.json]
}

# Of roles that applies make: what an application has. It comes to no state, and takes no role of the pipeline's.
data "aws_iam_policy_document" "workload" {
  source_policy_documents = [data.aws_iam_policy_document.everything.json, data.aws_iam_policy_document.guard.json]
  statement {
    sid       = "NoStates"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = flatten([for one in local.states : [one, "${one}/*"]])
  }
  statement {
    sid       = "NoRoleOfOurs"
    effect    = "Deny"
    actions   = ["sts:AssumeRole"]
    resources = local.guarded_roles
  }
  statement {
    sid       = "NoIam"
    effect    = "Deny"
    actions   = [for one in local.iam_writes : one if one != "iam:PassRole"]
    resources = ["*"]
  }
}

data "aws_iam_policy_document" "people" {
  statement {
    sid       = "Look"
    actions   = module.reads.reads
    resources = ["*"]
  }
}

resource "aws_iam_policy" "boundary" {
  for_each    = toset(["pipeline", "workload", "people"])
  name        = "${var.name}-boundary-${each.key}"
  description = "The most that ${each.key == "people" ? "people" : each.key == "workload" ? "roles that applies make" : "applies, and break-glass,"} may do"
  policy = {
    pipeline = data.aws_iam_policy_document.pipeline.json
    workload = data.aws_iam_policy_document.workload.json
    people   = data.aws_iam_policy_document.people.json
  }[each.key]
  tags = local.tags
}
