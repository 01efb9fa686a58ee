variable "name" {
  description = "The installation, as in the module above this one."
  type        = string
  default     = "reconciler"
}

variable "environments" {
  description = <<-EOT
    The environments whose objects are in this account. `jobs`: who may take the roles, `jobs[ENVIRONMENT]` of the module above. `secrets`: ARNs of
    the secrets and parameters that its units read. `plan_policies`, `apply_policies`: policies beside what is given here.
  EOT
  type = map(object({
    jobs           = object({ plan = list(string), apply = list(string) })
    secrets        = optional(list(string), [])
    secret_keys    = optional(list(string), [])
    plan_policies  = optional(list(string), [])
    apply_policies = optional(list(string), [])
  }))
}

variable "runner_environments" {
  description = "What else runner.yaml shall say of an environment (max_destroy, readable_by, secrets, egress, ...)."
  type        = any
  default     = {}
}

variable "class" {
  description = "The class of the environments, as in environment.yaml."
  type        = string
  default     = "protected"
}

variable "queue_arn" {
  description = "Where what CloudTrail sees is sent: `queue_arn` of the module above."
  type        = string
}

variable "developers" {
  description = "ARNs of users, or roles, that may look at this account; none: no such role is made."
  type        = list(string)
  default     = []
}

variable "emergency" {
  description = "ARNs of the people's users that may take the break-glass role, for an hour, with MFA. A role cannot: one role that takes another shows no MFA."
  type        = list(string)
}

variable "admins" {
  description = "ARNs of users that may end all sessions of the break-glass role, with MFA."
  type        = list(string)
}


variable "closed_before" {
  description = "Sessions of the break-glass role that began before this moment may do nothing (2026-11-30T12:00:00Z)."
  type        = string
  default     = "2020-01-01T00:00:00Z"
  validation {
    condition     = can(regex("^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$", var.closed_before))
    error_message = "Write a moment in UTC: 2026-11-30T12:00:00Z."
  }
}

variable "alarm_topics" {
  description = "Further topics of SNS that are told when the break-glass role is taken."
  type        = list(string)
  default     = []
}

variable "alarm_emails" {
  description = "Addresses that are told by mail, once they have confirmed it."
  type        = list(string)
  default     = []
}

variable "trail" {
  description = "Make a trail. Where the organization has one that logs management events, reads too, that one does."
  type        = bool
  default     = true
}


variable "retention_days" {
  description = "How long older versions of states, and the trail, are kept."
  type        = number
  default     = 365
}

variable "tags" {
  description = "On everything that is made."
  type        = map(string)
  default     = {}
}
