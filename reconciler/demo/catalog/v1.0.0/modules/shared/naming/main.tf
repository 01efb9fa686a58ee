# One way to name things, so that a path tells what is whose. Makes nothing.

variable "kind" {
  description = "Plural of what is named, such as networks."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+s$", var.kind))
    error_message = "kind is a plural in lower case, such as networks."
  }
}

variable "name" {
  description = "Name of the thing."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.name))
    error_message = "name begins with a letter and has at most 31 of a-z, 0-9 and the hyphen."
  }
}

output "folder" {
  description = "Where the thing's objects live."
  value       = "${var.kind}/${var.name}"
}
