# Of each environment, the role that its plans take and the one that its applies take; nobody but its jobs may.
data "aws_iam_policy_document" "trust" {
  for_each = merge(
    { for name, one in var.environments : "${name}-plan" => one.jobs.plan },
    { for name, one in var.environments : "${name}-apply" => one.jobs.apply },
  )
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
    principals {
      type        = "AWS"
      identifiers = each.value
    }
    # So each call in the trail names the installation and the commit.
    condition {
      test     = "StringLike"
      variable = "sts:SourceIdentity"
      values   = ["${var.name}@*"]
    }
  }
}

data "aws_iam_policy_document" "states_key" {
  statement {
    sid       = "StatesKey"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.states.arn]
  }
}

data "aws_iam_policy_document" "secrets" {
  for_each = var.environments
  dynamic "statement" {
    for_each = length(each.value.secrets) > 0 ? [1] : []
    content {
      sid       = "Secrets"
      actions   = ["secretsmanager:GetSecretValue", "ssm:GetParameter"]
      resources = each.value.secrets
    }
  }
  dynamic "statement" {
    for_each = length(each.value.secret_keys) > 0 ? [1] : []
    content {
      sid       = "SecretsKeys"
      actions   = ["kms:Decrypt"]
      resources = each.value.secret_keys
    }
  }
}

# --- plans: look at everything; of the states read, and the lock, which the runner itself takes

data "aws_iam_policy_document" "plan" {
  for_each                = var.environments
  source_policy_documents = [data.aws_iam_policy_document.people.json, data.aws_iam_policy_document.states_key.json, data.aws_iam_policy_document.secrets[each.key].json]

  statement {
    sid       = "ReadStates"
    actions   = ["s3:GetObject"]
    resources = ["${local.states[each.key]}/*"]
  }
  statement {
    sid       = "ListStates"
    actions   = ["s3:ListBucket"]
    resources = [local.states[each.key]]
  }
  statement {
    sid       = "Lock"
    actions   = ["s3:PutObject", "s3:DeleteObject"]
    resources = ["${local.states[each.key]}/*.tflock"]
  }
}

resource "aws_iam_role" "plan" {
  for_each           = var.environments
  name               = local.plan_names[each.key]
  description        = "Plans of ${each.key}: looks, and changes nothing"
  assume_role_policy = data.aws_iam_policy_document.trust["${each.key}-plan"].json
  tags               = local.tags
}

resource "aws_iam_role_policy" "plan" {
  for_each = var.environments
  name     = "own"
  role     = aws_iam_role.plan[each.key].id
  policy   = data.aws_iam_policy_document.plan[each.key].json
}

resource "aws_iam_role_policy_attachment" "plan" {
  for_each   = merge([for name, one in var.environments : { for arn in one.plan_policies : "${name} ${arn}" => { name = name, arn = arn } }]...)
  role       = aws_iam_role.plan[each.value.name].name
  policy_arn = each.value.arn
}

# --- applies: everything but what guards the account, and of the states the environment's own

data "aws_iam_policy_document" "apply" {
  for_each                = var.environments
  source_policy_documents = [data.aws_iam_policy_document.secrets[each.key].json]

  statement {
    sid           = "WhatModulesDo"
    actions       = ["*"]
    not_resources = flatten([for one in local.states : [one, "${one}/*"]])
  }
  statement {
    sid       = "States"
    actions   = ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:DeleteObject"]
    resources = ["${local.states[each.key]}/*"]
  }
  statement {
    sid       = "ListStates"
    actions   = ["s3:ListBucket", "s3:GetBucket*"]
    resources = [local.states[each.key]]
  }
}

resource "aws_iam_role" "apply" {
  for_each             = var.environments
  name                 = local.apply_names[each.key]
  description          = "Applies of ${each.key}: the only one that writes there"
  assume_role_policy   = data.aws_iam_policy_document.trust["${each.key}-apply"].json
  permissions_boundary = aws_iam_policy.boundary["pipeline"].arn
  tags                 = local.tags
}

resource "aws_iam_role_policy" "apply" {
  for_each = var.environments
  name     = "own"
  role     = aws_iam_role.apply[each.key].id
  policy   = data.aws_iam_policy_document.apply[each.key].json
}

resource "aws_iam_role_policy_attachment" "apply" {
  for_each   = merge([for name, one in var.environments : { for arn in one.apply_policies : "${name} ${arn}" => { name = name, arn = arn } }]...)
  role       = aws_iam_role.apply[each.value.name].name
  policy_arn = each.value.arn
}

# --- people look

data "aws_iam_policy_document" "developer_trust" {
  count = length(var.developers) > 0 ? 1 : 0
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "AWS"
      identifiers = var.developers
    }
  }
}

resource "aws_iam_role" "developer" {
  count                = length(var.developers) > 0 ? 1 : 0
  name                 = "${var.name}-developer"
  description          = "Looks at everything but secrets, states and contents"
  assume_role_policy   = data.aws_iam_policy_document.developer_trust[0].json
  permissions_boundary = aws_iam_policy.boundary["people"].arn
  tags                 = local.tags
}

resource "aws_iam_role_policy" "developer" {
  count  = length(var.developers) > 0 ? 1 : 0
  name   = "own"
  role   = aws_iam_role.developer[0].id
  policy = data.aws_iam_policy_document.people.json
}
