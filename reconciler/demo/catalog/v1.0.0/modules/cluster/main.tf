module "naming" {
  source = "../shared/naming"

  kind = "clusters"
  name = var.name
}

resource "files_file" "cluster" {
  path    = "${module.naming.folder}/cluster.json"
  content = jsonencode({ name = var.name, network = var.network_id })
}

# Whoever holds it may join a node, so it is a secret from the moment it exists.
resource "files_file" "join_token" {
  path           = "${module.naming.folder}/join-token"
  secret_content = sensitive(sha256("${files_file.cluster.id}/${files_file.cluster.sha256}"))
}

module "node" {
  source = "./modules/node"
  count  = var.node_count

  name       = "${var.name}-${count.index}"
  folder     = module.naming.folder
  subnet_id  = var.subnet_ids[count.index % length(var.subnet_ids)]
  join_token = files_file.join_token.secret_content
}
