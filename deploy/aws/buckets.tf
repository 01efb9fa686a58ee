# The spool, in which the planes meet, and the runner's memory, which is the runner's alone.
module "spool" {
  source      = "./bucket"
  name        = "${var.name}-spool-${local.unique}"
  kms_key_arn = aws_kms_key.shared.arn
  versions    = false
  expires     = { prefix = "${local.spool_prefix}/jobs/", days = 90 } # jobs are forgotten, never who leads
  old_days    = var.retention_days
  tags        = local.tags
}

module "memory" {
  source      = "./bucket"
  name        = "${var.name}-memory-${local.unique}"
  kms_key_arn = aws_kms_key.memory.arn
  old_days    = var.retention_days
  statements  = data.aws_iam_policy_document.memory.json
  tags        = local.tags
}

locals {
  memory_readers = [for one in aws_iam_role.task : one.arn]
}

data "aws_iam_policy_document" "memory" {
  statement {
    sid       = "TheRunnersAlone"
    effect    = "Deny"
    actions   = ["s3:GetObject*", "s3:PutObject*", "s3:DeleteObject*", "s3:RestoreObject", "s3:ReplicateObject", "s3:AbortMultipartUpload"]
    resources = ["${module.memory.arn}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "ArnNotEquals"
      variable = "aws:PrincipalArn"
      values   = local.memory_readers
    }
  }

  # What was read is what is written over: only the stamp of the last look is written whatever is there.
  statement {
    sid           = "OnlyOnACondition"
    effect        = "Deny"
    actions       = ["s3:PutObject"]
    not_resources = ["${module.memory.arn}/${local.memory_prefix}/*looked"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Null"
      variable = "s3:if-match"
      values   = ["true"]
    }
    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["true"]
    }
  }

  # A record of the audit log is made where there is none, and stays.
  statement {
    sid       = "RecordsAreNew"
    effect    = "Deny"
    actions   = ["s3:PutObject"]
    resources = ["${module.memory.arn}/${local.memory_prefix}/audit/*.jsonl"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["true"]
    }
  }

  statement {
    sid       = "NothingOfThePastGoes"
    effect    = "Deny"
    actions   = ["s3:DeleteObject"]
    resources = ["${module.memory.arn}/${local.memory_prefix}/audit/*.jsonl"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
  }

  statement {
    sid       = "NoVersionGoes"
    effect    = "Deny"
    actions   = ["s3:DeleteObjectVersion"]
    resources = ["${module.memory.arn}/*"]
    principals {
      type        = "AWS"
      identifiers = local.memory_readers
    }
  }
}
