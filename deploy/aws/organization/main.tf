# By which nobody but the pipeline and break-glass writes in the protected accounts, whatever an account's own policies say. Applied in the
# organization's management account, which such a policy itself does not bind.
variable "name" {
  description = "The installation, as in the other modules."
  type        = string
  default     = "reconciler"
}

variable "targets" {
  description = "Accounts or organizational units that the policy is attached to; none: it is made, and binds nobody yet."
  type        = set(string)
}

variable "writers" {
  description = "Patterns of ARNs of those who may write there: `writers` of each account module."
  type        = list(string)
}

variable "installers" {
  description = "Patterns of ARNs of the roles that apply these modules. They write as well, and alone change what guards the accounts."
  type        = list(string)
}

variable "tags" {
  description = "On what is made."
  type        = map(string)
  default     = {}
}

module "reads" {
  source = "../reads"
}

data "aws_iam_policy_document" "this" {
  statement {
    sid         = "OnlyThePipelineWrites"
    effect      = "Deny"
    not_actions = module.reads.harmless
    resources   = ["*"]
    condition {
      test     = "ArnNotLike"
      variable = "aws:PrincipalArn"
      values   = sort(distinct(concat(var.writers, var.installers)))
    }
  }
  statement {
    sid       = "WhatGuardsStays"
    effect    = "Deny"
    actions   = ["cloudtrail:DeleteTrail", "cloudtrail:StopLogging", "organizations:LeaveOrganization"]
    resources = ["*"]
    condition {
      test     = "ArnNotLike"
      variable = "aws:PrincipalArn"
      values   = var.installers
    }
  }
}

resource "aws_organizations_policy" "this" {
  name        = "${var.name}-only-path"
  description = "Nobody but the pipeline and break-glass writes"
  type        = "SERVICE_CONTROL_POLICY"
  content     = data.aws_iam_policy_document.this.minified_json
  tags        = merge(var.tags, { "reconciler:installation" = var.name })

  lifecycle {
    precondition {
      condition     = length(data.aws_iam_policy_document.this.minified_json) <= 5120
      error_message = "A service control policy has at most 5,120 characters: give fewer, wider patterns as writers."
    }
  }
}

resource "aws_organizations_policy_attachment" "this" {
  for_each  = var.targets
  policy_id = aws_organizations_policy.this.id
  target_id = each.value
}

output "policy_id" {
  description = "The policy."
  value       = aws_organizations_policy.this.id
}
