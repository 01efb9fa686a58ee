# What changes nothing, service by service: the policies of people and of plans allow it, and the organization's policy denies everybody else all
# the rest. A service that is not here is closed to both. Not here are reads of what is secret: values of secrets, parameters, objects, items,
# messages, logs' lines, and Decrypt.
locals {
  verbs = {
    "Get,List,Describe" = [
      "acm", "apigateway", "application-autoscaling", "autoscaling", "backup", "budgets", "cloudformation", "cloudfront", "cloudtrail", "cloudwatch",
      "codebuild", "codepipeline", "cognito-idp", "config", "ec2", "ecr", "ecs", "eks", "elasticache", "elasticfilesystem", "elasticloadbalancing",
      "es", "events", "firehose", "glue", "guardduty", "health", "iam", "kafka", "lambda", "organizations", "pipes", "ram", "rds", "route53",
      "scheduler", "securityhub", "servicequotas", "shield", "sns", "sts", "support", "tag", "wafv2",
    ]
    "List,Describe" = ["athena", "dynamodb", "kinesis", "kms", "redshift", "secretsmanager", "ssm", "states"]
  }
  more = [
    "ce:Get*", "cloudtrail:LookupEvents", "dynamodb:GetResourcePolicy", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "logs:Describe*",
    "logs:ListTags*", "s3:GetAccelerateConfiguration", "s3:GetAccountPublicAccessBlock", "s3:GetAnalyticsConfiguration", "s3:GetBucket*",
    "s3:GetEncryptionConfiguration", "s3:GetIntelligentTieringConfiguration", "s3:GetInventoryConfiguration", "s3:GetLifecycleConfiguration",
    "s3:GetMetricsConfiguration", "s3:GetReplicationConfiguration", "s3:List*", "secretsmanager:GetResourcePolicy", "sqs:GetQueueAttributes",
    "sqs:GetQueueUrl", "sqs:List*",
  ]
  # Of what the policy of an organization denies these are left out, too: they change nothing, and each account's own policies say who may.
  harmless = [
    "dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan", "kms:Decrypt", "logs:Get*", "logs:FilterLogEvents",
    "logs:StartQuery", "logs:StopQuery", "s3:GetObject*", "secretsmanager:GetSecretValue", "ssm:Get*", "sts:AssumeRole*", "sts:SetSourceIdentity",
    "sts:TagSession",
  ]
  reads = sort(concat(local.more, flatten([for verbs, services in local.verbs : [for pair in setproduct(services, split(",", verbs)) : "${pair[0]}:${pair[1]}*"]])))
}

output "reads" {
  description = "Actions that change nothing, and show no secret that is kept as one."
  value       = local.reads
}

output "harmless" {
  description = "Actions that change nothing, with those that show secrets, and those by which roles are taken."
  value       = sort(concat(local.reads, local.harmless))
}
