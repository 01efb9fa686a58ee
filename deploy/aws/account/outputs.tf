output "runner_environments" {
  description = "What runner.yaml says under `environments` of those of this account."
  value = { for name in keys(var.environments) : name => merge({
    class               = var.class
    backend             = { s3 = { bucket = module.states[name].id, region = local.region, kms_key_id = aws_kms_key.states.arn } }
    allowed_account_ids = [local.account]
    credentials = {
      plan  = { assume_role = aws_iam_role.plan[name].arn }
      apply = { assume_role = aws_iam_role.apply[name].arn }
    }
  }, try(var.runner_environments[name], {})) }
}

output "rule_arn" {
  description = "For `rules` of the module above."
  value       = aws_cloudwatch_event_rule.writes.arn
}

output "sender_arn" {
  description = "For `senders` of the module above; null where the queue is in this account."
  value       = one(aws_iam_role.events[*].arn)
}

output "roles" {
  description = "ARNs of the roles of this account."
  value = {
    plan        = { for name, one in aws_iam_role.plan : name => one.arn }
    apply       = { for name, one in aws_iam_role.apply : name => one.arn }
    break_glass = aws_iam_role.emergency.arn
    closer      = aws_iam_role.closer.arn
    developer   = one(aws_iam_role.developer[*].arn)
  }
}

output "boundaries" {
  description = "ARNs of the boundaries: `workload` is what each role that a module makes must have, `people` what people's own roles should have."
  value       = { for name, one in aws_iam_policy.boundary : name => one.arn }
}

output "writers" {
  description = "For the organization module: patterns of those who may write in this account."
  value       = concat([for one in aws_iam_role.apply : one.arn], [aws_iam_role.emergency.arn, aws_iam_role.closer.arn], [for one in aws_iam_role.events : one.arn], ["${local.iam}:role/workload/*"])
}
