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

resource "aws_s3_bucket" "states" {
  for_each = var.environments
  bucket   = "${var.name}-states-${each.key}-${local.unique}"
  tags     = local.tags
}

resource "aws_s3_bucket_versioning" "states" {
  for_each = var.environments
  bucket   = aws_s3_bucket.states[each.key].id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "states" {
  for_each = var.environments
  bucket   = aws_s3_bucket.states[each.key].id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.states.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "states" {
  for_each                = var.environments
  bucket                  = aws_s3_bucket.states[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "states" {
  for_each = var.environments
  bucket   = aws_s3_bucket.states[each.key].id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "states" {
  for_each   = var.environments
  bucket     = aws_s3_bucket.states[each.key].id
  depends_on = [aws_s3_bucket_versioning.states]
  rule {
    id     = "old"
    status = "Enabled"
    filter {
      prefix = ""
    }
    noncurrent_version_expiration {
      noncurrent_days = var.retention_days
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

data "aws_iam_policy_document" "states" {
  for_each = var.environments

  statement {
    sid       = "OnlyByTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.states[each.key].arn, "${aws_s3_bucket.states[each.key].arn}/*"]
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
  statement {
    sid       = "TheEnvironmentsOwn"
    effect    = "Deny"
    actions   = ["s3:GetObject*", "s3:PutObject*", "s3:DeleteObject*", "s3:RestoreObject", "s3:ReplicateObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.states[each.key].arn}/*"]
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
    resources = ["${aws_s3_bucket.states[each.key].arn}/*"]
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
    resources = ["${aws_s3_bucket.states[each.key].arn}/*"]
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
    resources = ["${aws_s3_bucket.states[each.key].arn}/*"]
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

resource "aws_s3_bucket_policy" "states" {
  for_each   = var.environments
  bucket     = aws_s3_bucket.states[each.key].id
  policy     = data.aws_iam_policy_document.states[each.key].json
  depends_on = [aws_s3_bucket_public_access_block.states]
}
