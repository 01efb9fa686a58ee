resource "aws_cloudwatch_log_group" "this" {
  for_each          = toset(["controller", "job", "keeper", "exec"])
  name              = "/${var.name}/${each.key}"
  retention_in_days = var.retention_days
  kms_key_id        = aws_kms_key.shared.arn
  tags              = local.tags
}

resource "aws_ecs_cluster" "this" {
  name = var.name
  tags = local.tags

  # What an admin types into the controller's task is kept.
  configuration {
    execute_command_configuration {
      logging = "OVERRIDE"
      log_configuration {
        cloud_watch_log_group_name = aws_cloudwatch_log_group.this["exec"].name
      }
    }
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

data "aws_iam_policy_document" "tasks" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

# --- what ECS itself needs to start a plane's containers: one role for each plane, so that neither is given the other's secrets

locals {
  execution = {
    controller = { groups = ["controller"], secrets = var.controller_secrets }
    runner     = { groups = ["job", "keeper"], secrets = var.runner_secrets }
  }
}

data "aws_iam_policy_document" "execution" {
  for_each = local.execution

  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = [for one in each.value.groups : "${aws_cloudwatch_log_group.this[one].arn}:*"]
  }
  dynamic "statement" {
    for_each = length(var.repositories) > 0 ? [1] : []
    content {
      sid       = "Registry"
      actions   = ["ecr:GetAuthorizationToken"]
      resources = ["*"]
    }
  }
  dynamic "statement" {
    for_each = length(var.repositories) > 0 ? [1] : []
    content {
      sid       = "Images"
      actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      resources = var.repositories
    }
  }
  dynamic "statement" {
    for_each = length(each.value.secrets) > 0 ? [1] : []
    content {
      sid       = "Secrets"
      actions   = ["secretsmanager:GetSecretValue", "ssm:GetParameters"]
      resources = values(each.value.secrets)
    }
  }
  dynamic "statement" {
    for_each = length(each.value.secrets) > 0 && length(var.secret_keys) > 0 ? [1] : []
    content {
      sid       = "SecretsKeys"
      actions   = ["kms:Decrypt"]
      resources = var.secret_keys
    }
  }
}

resource "aws_iam_role" "execution" {
  for_each           = local.execution
  name               = "${var.name}-${each.key}-execution"
  description        = "What ECS needs to start the ${each.key}'s containers"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
  tags               = local.tags
}

resource "aws_iam_role_policy" "execution" {
  for_each = local.execution
  name     = "own"
  role     = aws_iam_role.execution[each.key].id
  policy   = data.aws_iam_policy_document.execution[each.key].json
}
