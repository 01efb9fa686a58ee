# A bucket of states for each environment: versions, one key, and none but the environment's own roles and the break-glass role. States are locked in
# the bucket itself, by <unit>.tfstate.tflock, written on the condition that there is none.
data "aws_iam_policy_document" "key" {
  statement {
    sid       = "ByIam"
    actions   = ["kms:*"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["${local.iam}:root"]
    }
  }
}

resource "aws_kms_key" "states" {
  description         = "${var.name}: states of Terraform"
  enable_key_rotation = true
  policy              = data.aws_iam_policy_document.key.json
  tags                = local.tags
}

resource "aws_kms_alias" "states" {
  name          = "alias/${var.name}-states"
  target_key_id = aws_kms_key.states.key_id
}

module "states" {
  for_each    = var.environments
  source      = "../bucket"
  name        = local.state_names[each.key]
  kms_key_arn = aws_kms_key.states.arn
  old_days    = var.retention_days
  statements  = data.aws_iam_policy_document.states[each.key].json
  tags        = local.tags
}

data "aws_iam_policy_document" "states" {
  for_each = var.environments

  statement {
    sid       = "TheEnvironmentsOwn"
    effect    = "Deny"
    actions   = ["s3:GetObject*", "s3:PutObject*", "s3:DeleteObject*", "s3:RestoreObject", "s3:ReplicateObject", "s3:AbortMultipartUpload"]
    resources = ["${local.states[each.key]}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "ArnNotEquals"
      variable = "aws:PrincipalArn"
      values   = [aws_iam_role.plan[each.key].arn, aws_iam_role.apply[each.key].arn, aws_iam_role.emergency.arn]
    }
  }
  statement {
    sid       = "NoVersionGoes"
    effect    = "Deny"
    actions   = ["s3:DeleteObjectVersion"]
    resources = ["${local.states[each.key]}/*"]
    principals {
      type        = "AWS"
      identifiers = [aws_iam_role.plan[each.key].arn, aws_iam_role.apply[each.key].arn]
    }
  }
  # The environment's key, or the bucket's default, which is the same: no other key, and no state in a cipher of S3's own.
  statement {
    sid       = "OneKey"
    effect    = "Deny"
    actions   = ["s3:PutObject"]
    resources = ["${local.states[each.key]}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Null"
      variable = "s3:x-amz-server-side-encryption"
      values   = ["false"]
    }
    condition {
      test     = "StringNotEquals"
      variable = "s3:x-amz-server-side-encryption"
      values   = ["aws:kms"]
    }
  }
  statement {
    sid       = "NoOtherKey"
    effect    = "Deny"
    actions   = ["s3:PutObject"]
    resources = ["${local.states[each.key]}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Null"
      variable = "s3:x-amz-server-side-encryption-aws-kms-key-id"
      values   = ["false"]
    }
    condition {
      test     = "StringNotEquals"
      variable = "s3:x-amz-server-side-encryption-aws-kms-key-id"
      values   = [aws_kms_key.states.arn]
    }
  }
}
