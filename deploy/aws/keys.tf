# Two keys: what both planes meet in, and what is the runner's alone. IAM says who may use them; no key policy gives anybody a way past it.
data "aws_iam_policy_document" "key" {
  statement {
    sid       = "ByIam"
    actions   = ["kms:*"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${local.account}:root"]
    }
  }
}

data "aws_iam_policy_document" "shared_key" {
  source_policy_documents = [data.aws_iam_policy_document.key.json]
  statement {
    sid       = "Logs"
    actions   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
    resources = ["*"]
    principals {
      type        = "Service"
      identifiers = ["logs.${local.region}.amazonaws.com"]
    }
    condition {
      test     = "ArnLike"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values   = ["arn:${local.partition}:logs:${local.region}:${local.account}:log-group:/${var.name}/*"]
    }
  }
}

resource "aws_kms_key" "shared" {
  description         = "${var.name}: the spool and the logs"
  enable_key_rotation = true
  policy              = data.aws_iam_policy_document.shared_key.json
  tags                = local.tags
}

resource "aws_kms_alias" "shared" {
  name          = "alias/${var.name}-shared"
  target_key_id = aws_kms_key.shared.key_id
}

resource "aws_kms_key" "memory" {
  description         = "${var.name}: the runner's memory"
  enable_key_rotation = true
  policy              = data.aws_iam_policy_document.key.json
  tags                = local.tags
}

resource "aws_kms_alias" "memory" {
  name          = "alias/${var.name}-memory"
  target_key_id = aws_kms_key.memory.key_id
}
