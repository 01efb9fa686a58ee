variable "name" {
  description = "Name of the service."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.name))
    error_message = "name begins with a letter and has at most 31 of a-z, 0-9 and the hyphen."
  }
}

variable "network_id" {
  description = "The network it answers in."
  type        = string

  validation {
    condition     = startswith(var.network_id, "networks/")
    error_message = "network_id is the id of a network."
  }
}

variable "cluster_id" {
  description = "The cluster it runs on."
  type        = string

  validation {
    condition     = startswith(var.cluster_id, "clusters/")
    error_message = "cluster_id is the id of a cluster."
  }
}

variable "zone" {
  description = "Zone of its first replica."
  type        = string

  validation {
    condition     = length(var.zone) > 0
    error_message = "zone is the name of a zone."
  }
}

variable "node" {
  description = "Node of its first replica."
  type        = string

  validation {
    condition     = length(var.node) > 0
    error_message = "node is the name of a node."
  }
}

variable "image" {
  description = "What it runs."
  type        = string

  validation {
    condition     = can(regex("[:@][A-Za-z0-9:._-]+$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image carries a tag or a digest, and latest is neither."
  }
}

variable "replicas" {
  description = "How many of it run."
  type        = number
  default     = 1

  validation {
    condition     = var.replicas >= 1 && var.replicas <= 20 && floor(var.replicas) == var.replicas
    error_message = "replicas is a whole number from 1 to 20."
  }
}

variable "join_token" {
  description = "Lets it join the cluster."
  type        = string
  sensitive   = true

  validation {
    condition     = length(var.join_token) == 64
    error_message = "join_token is the output of the same name of a cluster."
  }
}

variable "password" {
  description = "Of its database."
  type        = string
  sensitive   = true

  validation {
    condition     = length(var.password) >= 12
    error_message = "password has at least 12 characters."
  }
}

variable "backend_url" {
  description = "The service that it calls."
  type        = string
  default     = null

  validation {
    condition     = var.backend_url == null || try(startswith(var.backend_url, "https://"), false)
    error_message = "backend_url begins with https://."
  }
}

variable "artifacts_url" {
  description = "The bucket that it reads."
  type        = string
  default     = null

  validation {
    condition     = var.artifacts_url == null || try(startswith(var.artifacts_url, "https://"), false)
    error_message = "artifacts_url begins with https://."
  }
}

variable "health_path" {
  description = "What tells that it is well."
  type        = string
  default     = "/healthz"

  validation {
    condition     = startswith(var.health_path, "/")
    error_message = "health_path begins with a slash."
  }
}
