# One account, one protected environment. Further accounts: a provider and an `account` module for each.
terraform {
  required_version = ">= 1.10"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.90, < 6.0"
    }
  }
}

provider "aws" {
  region = var.region
}

# Global services tell what was done in us-east-1.
provider "aws" {
  alias  = "global"
  region = "us-east-1"
}

variable "region" {
  type    = string
  default = "eu-west-1"
}

variable "account_id" {
  type = string
}

variable "images" {
  type = object({ controller = string, runner = string })
}

variable "people" {
  description = "ARNs of users: who looks, who pauses, who breaks the glass; and the role that applies this."
  type        = object({ developers = list(string), admins = list(string), emergency = list(string), installers = list(string) })
}

variable "ci" {
  type    = object({ principals = list(string), secret_arn = string })
  default = null
}

variable "secrets" {
  description = "Files of each plane -> ARNs of their secrets: `forge-token` of both, `trigger.crt`, `trigger.key` and `clients.crt` of the controller."
  type        = object({ controller = map(string), runner = map(string) })
}

variable "daemons" {
  type    = number
  default = 2
}

variable "deletion_protection" {
  type    = bool
  default = true
}

variable "organization_targets" {
  description = "Accounts or units that the organization's policy binds; needs this to be its management account, or the module to be applied there."
  type        = set(string)
  default     = []
}

locals {
  environments_repo = {
    url     = "https://github.com/acme/environments.git"
    branch  = "main"
    genesis = "0123456789abcdef0123456789abcdef01234567"
    # The file that the secret below becomes.
    token_file = "/run/secrets/forge-token"
    signatures = "off"
    forge      = { kind = "github", repository = "acme/environments", token_file = "/run/secrets/forge-token", min_approvals = 1 }
  }
  catalog_repos = {
    acme = { url = "https://github.com/acme/service-catalog.git", branch = "main", token_file = "/run/secrets/forge-token", allow_providers = ["hashicorp/aws"] }
  }
}

module "reconciler" {
  source = "../"

  environments        = { prod = { account_id = var.account_id } }
  images              = var.images
  daemons             = var.daemons
  controller_secrets  = var.secrets.controller
  runner_secrets      = var.secrets.runner
  admins              = var.people.admins
  ci                  = var.ci
  rules               = [module.prod.rule_arn]
  deletion_protection = var.deletion_protection

  settings = {
    environments_repo = local.environments_repo
    catalog_repos     = local.catalog_repos
    trigger = {
      listen  = "0.0.0.0:8081"
      tls     = { cert_file = "/run/secrets/trigger.crt", key_file = "/run/secrets/trigger.key", client_ca_file = "/run/secrets/clients.crt" }
      clients = [{ name = "ci", san = "ci.acme.example", scopes = ["prod"] }]
    }
  }
  listeners = { trigger = { port = 8081, cidrs = ["10.0.0.0/8"] } }
  runner_settings = {
    environments_repo = local.environments_repo
    catalog_repos     = local.catalog_repos
    allow             = [{ operations = ["plan", "apply"], folders = ["environments/prod/**"] }]
    engine            = { binary = "/usr/local/bin/terraform", version = "1.11.4", sha256 = "sha256:0000000000000000000000000000000000000000000000000000000000000000" }
    sandbox           = { tier = "task" }
  }
}

module "prod" {
  source = "../account"

  environments        = { prod = { jobs = module.reconciler.jobs["prod"] } }
  runner_environments = { prod = { max_destroy = 10, egress = ["*.${var.region}.amazonaws.com:443"] } }
  queue_arn           = module.reconciler.queue_arn
  developers          = var.people.developers
  admins              = var.people.admins
  emergency           = var.people.emergency
}

module "global" {
  source    = "../forward"
  providers = { aws = aws.global }
  home      = var.region
}

module "organization" {
  source = "../organization"
  count  = length(var.organization_targets) > 0 ? 1 : 0

  targets    = var.organization_targets
  writers    = concat(module.prod.writers, module.reconciler.writers, module.global.writers)
  installers = var.people.installers
}

output "reconciler_yaml" {
  description = "What the controller's tasks are given."
  value       = module.reconciler.reconciler_yaml
}

output "runner_yaml" {
  description = "For the runner's image: /etc/reconciler-runner/runner.yaml."
  value       = yamlencode(merge(module.reconciler.runner, { environments = module.prod.runner_environments }))
}

output "roles" {
  value = merge(module.reconciler.roles, module.prod.roles)
}

output "network" {
  value = module.reconciler.network
}

output "boundaries" {
  value = module.prod.boundaries
}
