resource "files_file" "bucket" {
  path    = "buckets/${var.name}.json"
  content = jsonencode({ name = var.name, versioning = var.versioning })
}
