data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

module "reads" {
  source = "../reads"
}

locals {
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  region    = data.aws_region.this.name
  tags      = merge(var.tags, { "reconciler:installation" = var.name })
  iam       = "arn:${local.partition}:iam::${local.account}"
  unique    = "${local.account}-${local.region}"

  plan_names  = { for name in keys(var.environments) : name => "${var.name}-${name}-plan" }
  apply_names = { for name in keys(var.environments) : name => "${var.name}-${name}-apply" }
  emergency   = "${var.name}-break-glass"

  # By their names, for policies: what guards a bucket can not wait for the whole of it.
  state_names = { for name in keys(var.environments) : name => "${var.name}-states-${name}-${local.unique}" }
  states      = { for name, bucket in local.state_names : name => "arn:${local.partition}:s3:::${bucket}" }
}
