locals {
  fargate = {
    cluster         = aws_ecs_cluster.this.name
    region          = local.region
    spool           = "s3://${module.spool.id}/${local.spool_prefix}"
    tasks           = { plan = "${var.name}-describe", apply = "${var.name}-describe" }
    environments    = { for name in keys(var.environments) : name => { plan = "${var.name}-${name}-plan", apply = "${var.name}-${name}-apply" } }
    subnets         = local.subnets
    security_groups = [aws_security_group.job.id]
    workers         = var.workers.all
    per_environment = var.workers.per_environment
  }

  reconciler_yaml = yamlencode(merge(var.settings, {
    installation = var.name
    store        = { dynamodb = { table = aws_dynamodb_table.this.name, region = local.region, folder = local.controller.folder } }
    executor     = { fargate = local.fargate }
    admin        = { socket = "${local.controller.run}/admin.sock", users = ["root"] }
    out_of_band = {
      queue_url   = aws_sqs_queue.trail.url
      region      = local.region
      accounts    = { for account in local.accounts : account => [for name, one in var.environments : name if one.account_id == account] }
      allowed     = concat(values(local.apply_roles), ["arn:${local.partition}:iam::*:role/aws-service-role/*"], var.allowed)
      break_glass = local.emergency
    }
  }))
}

output "reconciler_yaml" {
  description = "The controller's configuration, which the service has already."
  value       = local.reconciler_yaml
}

output "runner" {
  description = "What runner.yaml says of this installation, without `environments`, which the account modules know: see the README for how to put the two together."
  value = merge(var.runner_settings, {
    installation = var.name
    memory       = { s3 = { bucket = module.memory.id, region = local.region, prefix = local.memory_prefix, kms_key_id = aws_kms_key.memory.arn } }
    work         = local.runner.folder
    task         = { spool = local.fargate.spool, region = local.region }
  })
}

output "jobs" {
  description = "For the account modules: environment -> who may take the role of its plans, and that of its applies."
  value = { for name in keys(var.environments) : name => {
    plan = concat(
      [aws_iam_role.task["${name}-plan"].arn, aws_iam_role.task["${name}-apply"].arn],
      flatten([for other in var.environments[name].readable_by : [for operation in ["plan", "apply"] : aws_iam_role.task["${other}-${operation}"].arn] if contains(keys(var.environments), other)]),
    )
    apply = [aws_iam_role.task["${name}-apply"].arn]
  } }
}

output "queue_arn" {
  description = "For the account modules: where their rules send what CloudTrail sees."
  # By its name, which is known before it is there: the account module decides by it who sends.
  value      = "arn:${local.partition}:sqs:${local.region}:${local.account}:${var.name}-trail"
  depends_on = [aws_sqs_queue.trail]
}

output "roles" {
  description = "ARNs of the roles of this account."
  value = {
    controller = aws_iam_role.controller.arn
    jobs       = { for kind in keys(local.kinds) : kind => aws_iam_role.task[kind].arn }
    describe   = aws_iam_role.task["describe"].arn
    keeper     = aws_iam_role.task["keeper"].arn
    admin      = aws_iam_role.admin.arn
    ci         = one(aws_iam_role.ci[*].arn)
  }
}

output "cluster" {
  description = "The cluster, in which admins find the controller's task."
  value       = aws_ecs_cluster.this.name
}

output "network" {
  description = "Where the planes are: for load balancers, and for the keeper's tasks."
  value       = { vpc_id = local.vpc, subnet_ids = local.subnets, controller_security_group = aws_security_group.controller.id, job_security_group = aws_security_group.job.id }
}

output "writers" {
  description = "For the organization module, where this account is bound by its policy, too."
  value       = concat([for one in aws_iam_role.task : one.arn], [for one in aws_iam_role.execution : one.arn], [aws_iam_role.controller.arn, aws_iam_role.admin.arn])
}
