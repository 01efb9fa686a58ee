# A bucket as all of ours are: private, its owner's, over TLS alone, and let go of by age. What else guards it, its own statements say.
variable "name" {
  description = "Of the bucket."
  type        = string
}

variable "kms_key_arn" {
  description = "The key of its objects; S3's own, where none is given."
  type        = string
  default     = null
}

variable "versions" {
  description = "Whether what is written over or deleted is kept."
  type        = bool
  default     = true
}

variable "expires" {
  description = "What is deleted by age: objects below `prefix` after so many days."
  type        = object({ prefix = string, days = number })
  default     = null
}

variable "old_days" {
  description = "How long a version is kept after it was replaced."
  type        = number
}

variable "statements" {
  description = "A policy document whose statements count besides."
  type        = string
  default     = null
}

variable "tags" {
  description = "Of the bucket."
  type        = map(string)
}

resource "aws_s3_bucket" "this" {
  bucket = var.name
  tags   = var.tags
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id
  versioning_configuration {
    status = var.versions ? "Enabled" : "Suspended"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    bucket_key_enabled = var.kms_key_arn != null
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn != null ? "aws:kms" : "AES256"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket     = aws_s3_bucket.this.id
  depends_on = [aws_s3_bucket_versioning.this]

  rule {
    id     = "old"
    status = "Enabled"
    filter {
      prefix = var.expires == null ? "" : var.expires.prefix
    }
    dynamic "expiration" {
      for_each = var.expires[*]
      content {
        days = expiration.value.days
      }
    }
    noncurrent_version_expiration {
      noncurrent_days = var.old_days
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

data "aws_iam_policy_document" "this" {
  source_policy_documents = var.statements[*]

  statement {
    sid       = "OnlyByTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.this.arn, "${aws_s3_bucket.this.arn}/*"]
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
}

resource "aws_s3_bucket_policy" "this" {
  bucket     = aws_s3_bucket.this.id
  policy     = data.aws_iam_policy_document.this.json
  depends_on = [aws_s3_bucket_public_access_block.this]
}

output "id" {
  description = "The bucket's name."
  value       = aws_s3_bucket.this.id
}

output "arn" {
  description = "Of the bucket."
  value       = aws_s3_bucket.this.arn
}
