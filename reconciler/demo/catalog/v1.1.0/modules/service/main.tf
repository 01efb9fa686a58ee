module "naming" {
  source = "../shared/naming"

  kind = "services"
  name = var.name
}

locals {
  url = "https://${var.name}.example.com"
  dsn = "postgres://${var.name}:${var.password}@${var.zone}.db.example.com/${var.name}"
}

resource "files_file" "service" {
  path = "${module.naming.folder}/service.json"
  content = jsonencode({
    name      = var.name
    network   = var.network_id
    cluster   = var.cluster_id
    node      = var.node
    zone      = var.zone
    image     = var.image
    replicas  = var.replicas
    backend   = var.backend_url
    artifacts = var.artifacts_url
    health    = var.health_path
  })
}

resource "files_file" "credentials" {
  path           = "${module.naming.folder}/credentials.json"
  secret_content = jsonencode({ dsn = local.dsn, join_token = var.join_token })
}
