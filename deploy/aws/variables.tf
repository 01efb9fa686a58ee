variable "name" {
  description = "The installation: begins the name of everything that is made, and stands in runner.yaml as `installation`."
  type        = string
  default     = "reconciler"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "3 to 20 lower-case letters, digits and hyphens."
  }
}

variable "environments" {
  description = <<-EOT
    The environments whose jobs run here. `account_id`: whose `account` module makes the roles of its plans and applies. `readable_by`: the
    environments that may read its outputs, as in runner.yaml.
  EOT
  type = map(object({
    account_id  = string
    class       = optional(string, "protected")
    readable_by = optional(list(string), [])
  }))
  validation {
    condition     = length(var.environments) > 0 && alltrue([for name in keys(var.environments) : can(regex("^[a-z][a-z0-9-]{0,15}$", name))])
    error_message = "At least one environment, each of at most 16 lower-case letters, digits and hyphens."
  }
}

variable "images" {
  description = "The two planes' images, each pinned by its digest (REPOSITORY@sha256:...)."
  type        = object({ controller = string, runner = string })
  validation {
    condition     = alltrue([for one in values(var.images) : can(regex("@sha256:[0-9a-f]{64}$", one))])
    error_message = "Name each image by its digest: REPOSITORY@sha256:..."
  }
}

variable "repositories" {
  description = "ARNs of the ECR repositories that the images are in; none, if they are elsewhere."
  type        = list(string)
  default     = []
}

variable "daemons" {
  description = "How many controllers run: 2 are a leader and a standby, 0 is for the time before the runner's image is made."
  type        = number
  default     = 2
}

variable "settings" {
  description = <<-EOT
    reconciler.yaml without what this module knows (installation, store, executor, admin, out_of_band): environments_repo, catalog_repos, http,
    trigger, notify, reports.
  EOT
  type        = any
}

variable "runner_settings" {
  description = <<-EOT
    runner.yaml without what this module knows (installation, memory, work, task, environments): environments_repo, catalog_repos, allow,
    engine, provider_mirror, audit, sandbox.
  EOT
  type        = any
}

variable "controller_secrets" {
  description = "Name of a file in /run/secrets -> ARN of a secret of Secrets Manager or a parameter of SSM: tokens, keys, certificates."
  type        = map(string)
  default     = {}
}

variable "runner_secrets" {
  description = "The same for the runner's tasks. None of them should be one of the controller's."
  type        = map(string)
  default     = {}
}

variable "secret_keys" {
  description = "ARNs of the KMS keys that these secrets are encrypted with, where they are your own."
  type        = list(string)
  default     = []
}

variable "size" {
  description = "Of a controller's and of a job's task: units of CPU (1024 is one), MiB."
  type = object({
    controller = optional(object({ cpu = optional(number, 1024), memory = optional(number, 2048) }), {})
    job        = optional(object({ cpu = optional(number, 1024), memory = optional(number, 4096) }), {})
  })
  default = {}
}

variable "workers" {
  description = "Tasks at a time: in all, and in one environment."
  type        = object({ all = optional(number, 10), per_environment = optional(number, 5) })
  default     = {}
}

variable "network" {
  description = <<-EOT
    A network of yours, with private subnets that reach the forge, the catalogs and AWS. If not given, one is made: private subnets in
    `zones`, one public with a NAT gateway, endpoints for S3 and DynamoDB.
  EOT
  type        = object({ vpc_id = string, subnet_ids = list(string) })
  default     = null
}

variable "cidr" {
  description = "Of the network that is made: at most a /22."
  type        = string
  default     = "10.64.0.0/20"
}

variable "zones" {
  description = "Availability zones of the network that is made."
  type        = list(string)
  default     = []
}

variable "git_ports" {
  description = "Ports that planes may reach on any host, besides 443: 22 for git over ssh."
  type        = list(number)
  default     = [22]
}

variable "listeners" {
  description = "Ports that the controller's settings listen on beyond the loopback (http, trigger), with who may connect, and the target group of a load balancer."
  type = map(object({
    port             = number
    cidrs            = list(string)
    target_group_arn = optional(string)
  }))
  default = {}
}

variable "ci" {
  description = <<-EOT
    Pipelines that have an identity of AWS and no OIDC token of their own: who may take the CI role, which may read this one secret, the client
    certificate by which the controller's `trigger` knows them. With OIDC tokens none of it is needed.
  EOT
  type        = object({ principals = list(string), secret_arn = string })
  default     = null
}

variable "admins" {
  description = "ARNs of users, or roles, that may take the admin role, with MFA."
  type        = list(string)
}

variable "rules" {
  description = "ARNs of the EventBridge rules that send what CloudTrail sees: `rule_arn` of each account module."
  type        = list(string)
  default     = []
}

variable "senders" {
  description = "ARNs of the roles by which rules of other accounts send: `sender_arn` of each account module of another account."
  type        = list(string)
  default     = []
}

variable "allowed" {
  description = "Further principals whose writes are no alarm, as `out_of_band.allowed` has them."
  type        = list(string)
  default     = []
}

variable "retention_days" {
  description = "How long logs, and older versions of what is in buckets, are kept."
  type        = number
  default     = 365
}

variable "deletion_protection" {
  description = "Of the table. To destroy an installation: apply it with false, empty the buckets, destroy."
  type        = bool
  default     = true
}

variable "tags" {
  description = "On everything that is made."
  type        = map(string)
  default     = {}
}
