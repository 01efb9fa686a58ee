data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  region    = data.aws_region.this.name
  tags      = merge(var.tags, { "reconciler:installation" = var.name })
  unique    = "${local.account}-${local.region}"

  # Who is who, by name: the account modules make these roles, and name the tasks' roles in turn, so neither waits for the other.
  plan_roles  = { for name, one in var.environments : name => "arn:${local.partition}:iam::${one.account_id}:role/${var.name}-${name}-plan" }
  apply_roles = { for name, one in var.environments : name => "arn:${local.partition}:iam::${one.account_id}:role/${var.name}-${name}-apply" }
  emergency   = distinct([for one in var.environments : "arn:${local.partition}:iam::${one.account_id}:role/${var.name}-break-glass"])
  accounts    = distinct([for one in var.environments : one.account_id])

  # A task plans or applies, in one environment.
  kinds = merge(flatten([for name in keys(var.environments) : [
    { "${name}-plan" = { environment = name, operation = "plan" } },
    { "${name}-apply" = { environment = name, operation = "apply" } },
  ]])...)

  # Jobs look with the plan role, those that apply too: into other environments' states, where these let them, and for what an apply left.
  looked_into = { for name in keys(var.environments) : name => concat(
    [local.plan_roles[name]],
    [for other, one in var.environments : local.plan_roles[other] if other != name && contains(one.readable_by, name)],
  ) }

  spool_prefix  = "spool"
  memory_prefix = "memory"
  controller    = { user = 10001, folder = "/var/lib/reconciler", run = "/run/reconciler" }
  runner        = { user = 10002, folder = "/var/lib/reconciler-runner" }
}
