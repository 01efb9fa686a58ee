variable "name" {
  description = "Name of the cluster."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.name))
    error_message = "name begins with a letter and has at most 31 of a-z, 0-9 and the hyphen."
  }
}

variable "network_id" {
  description = "The network it lives in."
  type        = string

  validation {
    condition     = startswith(var.network_id, "networks/")
    error_message = "network_id is the id of a network."
  }
}

variable "subnet_ids" {
  description = "Subnets over which the nodes are spread."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids holds at least one subnet."
  }
}

variable "node_count" {
  description = "How many nodes."
  type        = number
  default     = 2

  validation {
    condition     = var.node_count >= 1 && var.node_count <= 9 && floor(var.node_count) == var.node_count
    error_message = "node_count is a whole number from 1 to 9."
  }
}
