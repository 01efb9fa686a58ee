module "naming" {
  source = "../shared/naming"

  kind = "networks"
  name = var.name
}

locals {
  cidrs = { for index, zone in var.zones : zone => cidrsubnet(var.cidr, 4, index) }
}

resource "files_file" "network" {
  path    = "${module.naming.folder}/network.json"
  content = jsonencode({ name = var.name, cidr = var.cidr })
}

resource "files_file" "subnet" {
  for_each = local.cidrs

  path    = "${module.naming.folder}/subnets/${each.key}.json"
  content = jsonencode({ network = files_file.network.id, zone = each.key, cidr = each.value, tier = var.tier })
}
