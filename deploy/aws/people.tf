# --- pipelines that have no token of an OIDC issuer: they may read the certificate by which the trigger knows them, and nothing else

data "aws_iam_policy_document" "ci_trust" {
  count = var.ci == null ? 0 : 1
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "AWS"
      identifiers = var.ci.principals
    }
  }
}

data "aws_iam_policy_document" "ci" {
  count = var.ci == null ? 0 : 1
  statement {
    sid       = "Certificate"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [var.ci.secret_arn]
  }
  dynamic "statement" {
    for_each = length(var.secret_keys) > 0 ? [1] : []
    content {
      sid       = "CertificatesKey"
      actions   = ["kms:Decrypt"]
      resources = var.secret_keys
      condition {
        test     = "StringEquals"
        variable = "kms:EncryptionContext:SecretARN"
        values   = [var.ci.secret_arn]
      }
    }
  }
}

resource "aws_iam_role" "ci" {
  count                = var.ci == null ? 0 : 1
  name                 = "${var.name}-ci"
  description          = "Wakes the controller, by the certificate that it may read"
  assume_role_policy   = data.aws_iam_policy_document.ci_trust[0].json
  max_session_duration = 3600
  tags                 = local.tags
}

resource "aws_iam_role_policy" "ci" {
  count  = var.ci == null ? 0 : 1
  name   = "own"
  role   = aws_iam_role.ci[0].id
  policy = data.aws_iam_policy_document.ci[0].json
}

# --- admins: into the container beside the controller, and the runner's own pause

data "aws_iam_policy_document" "admin_trust" {
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

data "aws_iam_policy_document" "admin" {
  statement {
    sid       = "FindTheController"
    actions   = ["ecs:ListTasks"]
    resources = ["*"]
    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [aws_ecs_cluster.this.arn]
    }
  }
  statement {
    sid       = "LookAtTasks"
    actions   = ["ecs:DescribeTasks"]
    resources = [local.tasks_arn]
  }
  statement {
    sid       = "Enter"
    actions   = ["ecs:ExecuteCommand"]
    resources = [aws_ecs_cluster.this.arn, local.tasks_arn]
    condition {
      test     = "StringEquals"
      variable = "ecs:container-name"
      values   = ["admin"]
    }
  }
  statement {
    sid       = "PauseTheRunner"
    actions   = ["ecs:RunTask"]
    resources = ["${aws_ecs_task_definition.task["keeper"].arn_without_revision}:*"]
    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [aws_ecs_cluster.this.arn]
    }
  }
  # A job's role must not be put under the keeper's words by an override.
  statement {
    sid       = "OfTheKeepersRoles"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.task["keeper"].arn, aws_iam_role.execution["runner"].arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }
  statement {
    sid       = "ReadWhatItSays"
    actions   = ["logs:GetLogEvents", "logs:FilterLogEvents", "logs:DescribeLogStreams"]
    resources = [for one in ["controller", "job", "keeper"] : "${aws_cloudwatch_log_group.this[one].arn}:*"]
  }
}

resource "aws_iam_role" "admin" {
  name                 = "${var.name}-admin"
  description          = "Pauses, and says that people work by hand; grants nobody a right"
  assume_role_policy   = data.aws_iam_policy_document.admin_trust.json
  max_session_duration = 3600
  tags                 = local.tags
}

resource "aws_iam_role_policy" "admin" {
  name   = "own"
  role   = aws_iam_role.admin.id
  policy = data.aws_iam_policy_document.admin.json
}
