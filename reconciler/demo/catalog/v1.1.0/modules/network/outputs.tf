output "id" {
  description = "The network."
  value       = files_file.network.id
}

output "cidr" {
  description = "Its addresses."
  value       = var.cidr
}

output "subnet_ids" {
  description = "The subnets, in the order of the zones."
  value       = [for zone in var.zones : files_file.subnet[zone].id]
}

output "zones" {
  description = "What each zone holds."
  value = [for zone in var.zones : {
    name      = zone
    subnet_id = files_file.subnet[zone].id
    cidr      = local.cidrs[zone]
    tier      = var.tier
  }]
}
