variable "name" {
  description = "Name of the node."
  type        = string

  validation {
    condition     = can(regex("-[0-9]$", var.name))
    error_message = "name ends with the number of the node."
  }
}

variable "folder" {
  description = "Where the cluster's objects live."
  type        = string

  validation {
    condition     = startswith(var.folder, "clusters/")
    error_message = "folder is that of a cluster."
  }
}

variable "subnet_id" {
  description = "The subnet it stands in."
  type        = string

  validation {
    condition     = strcontains(var.subnet_id, "/subnets/")
    error_message = "subnet_id is the id of a subnet."
  }
}

variable "join_token" {
  description = "Lets it join the cluster."
  type        = string
  sensitive   = true

  validation {
    condition     = length(var.join_token) == 64
    error_message = "join_token is a SHA-256 in hexadecimal."
  }
}

resource "files_file" "node" {
  path    = "${var.folder}/nodes/${var.name}.json"
  content = jsonencode({ name = var.name, subnet = var.subnet_id, joined_with = nonsensitive(substr(sha256(var.join_token), 0, 8)) })
}

output "node" {
  description = "The node."
  value       = { name = var.name, id = files_file.node.id, subnet_id = var.subnet_id }
}
