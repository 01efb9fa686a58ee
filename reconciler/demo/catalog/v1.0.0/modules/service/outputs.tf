output "id" {
  description = "The service."
  value       = files_file.service.id
}

output "url" {
  description = "Where it answers."
  value       = local.url
}

output "dsn" {
  description = "How to reach its database."
  value       = local.dsn
  sensitive   = true
}
