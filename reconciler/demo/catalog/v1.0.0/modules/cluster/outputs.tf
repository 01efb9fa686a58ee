output "id" {
  description = "The cluster."
  value       = files_file.cluster.id
}

output "endpoint" {
  description = "Where its API answers."
  value       = "https://${var.name}.cluster.example.com"
}

output "nodes" {
  description = "The nodes."
  value       = module.node[*].node
}

output "join_token" {
  description = "Lets a workload join."
  value       = files_file.join_token.secret_content
  sensitive   = true
}
