output "id" {
  description = "The bucket."
  value       = files_file.bucket.id
}

output "url" {
  description = "Where its objects are read."
  value       = "https://${var.name}.bucket.example.com"
}
