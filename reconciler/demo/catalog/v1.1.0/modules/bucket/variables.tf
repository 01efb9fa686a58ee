variable "name" {
  description = "Name of the bucket."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.name))
    error_message = "name has 3 to 63 of a-z, 0-9 and the hyphen, and no hyphen at either end."
  }
}

variable "versioning" {
  description = "Keep what is overwritten?"
  type        = bool
  default     = true
  nullable    = false

  validation {
    condition     = var.versioning || !startswith(var.name, "prod-")
    error_message = "Buckets of prod keep what is overwritten."
  }
}

variable "retention_days" {
  description = "How long what was overwritten is kept."
  type        = number
  default     = 30

  validation {
    condition     = var.retention_days >= 0 && var.retention_days <= 3650
    error_message = "retention_days is a number from 0 to 3650."
  }
}
