variable "name" {
  description = "Name of the network."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.name))
    error_message = "name begins with a letter and has at most 31 of a-z, 0-9 and the hyphen."
  }
}

variable "cidr" {
  description = "Addresses of the network; each zone gets a sixteenth."
  type        = string

  validation {
    condition     = can(cidrsubnet(var.cidr, 4, 15)) && try(tonumber(split("/", var.cidr)[1]) <= 24, false)
    error_message = "cidr is an IPv4 range of at least a /24, such as 10.0.0.0/16."
  }
}

variable "zones" {
  description = "Zones that get a subnet."
  type        = list(string)
  default     = ["a", "b"]

  validation {
    condition     = length(var.zones) >= 1 && length(var.zones) <= 16 && length(distinct(var.zones)) == length(var.zones)
    error_message = "zones holds one to sixteen zones, each once."
  }
}
