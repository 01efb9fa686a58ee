# Nothing listens to the outside: planes are in private subnets, and go out by a NAT gateway to git and the forge, by endpoints to S3 and DynamoDB.
data "aws_availability_zones" "this" {
  count = var.network == null && length(var.zones) == 0 ? 1 : 0
  state = "available"
}

locals {
  made    = var.network == null ? 1 : 0
  zones   = var.network != null ? [] : length(var.zones) > 0 ? var.zones : slice(data.aws_availability_zones.this[0].names, 0, 2)
  vpc     = var.network != null ? var.network.vpc_id : aws_vpc.this[0].id
  subnets = var.network != null ? var.network.subnet_ids : [for zone in local.zones : aws_subnet.private[zone].id]
}

resource "aws_vpc" "this" {
  count                = local.made
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = merge(local.tags, { Name = var.name })
}

resource "aws_subnet" "private" {
  for_each          = { for number, zone in local.zones : zone => number }
  vpc_id            = aws_vpc.this[0].id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.cidr, 2, each.value)
  tags              = merge(local.tags, { Name = "${var.name}-private-${each.key}" })
}

resource "aws_subnet" "public" {
  count             = local.made
  vpc_id            = aws_vpc.this[0].id
  availability_zone = local.zones[0]
  cidr_block        = cidrsubnet(var.cidr, 4, 15)
  tags              = merge(local.tags, { Name = "${var.name}-public" })
}

resource "aws_internet_gateway" "this" {
  count  = local.made
  vpc_id = aws_vpc.this[0].id
  tags   = merge(local.tags, { Name = var.name })
}

resource "aws_eip" "nat" {
  count      = local.made
  domain     = "vpc"
  tags       = merge(local.tags, { Name = "${var.name}-nat" })
  depends_on = [aws_internet_gateway.this]
}

resource "aws_nat_gateway" "this" {
  count         = local.made
  allocation_id = aws_eip.nat[0].id
  subnet_id     = aws_subnet.public[0].id
  tags          = merge(local.tags, { Name = var.name })
}

resource "aws_route_table" "public" {
  count  = local.made
  vpc_id = aws_vpc.this[0].id
  tags   = merge(local.tags, { Name = "${var.name}-public" })
}

resource "aws_route" "public" {
  count                  = local.made
  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  count          = local.made
  route_table_id = aws_route_table.public[0].id
  subnet_id      = aws_subnet.public[0].id
}

resource "aws_route_table" "private" {
  count  = local.made
  vpc_id = aws_vpc.this[0].id
  tags   = merge(local.tags, { Name = "${var.name}-private" })
}

resource "aws_route" "private" {
  count                  = local.made
  route_table_id         = aws_route_table.private[0].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[0].id
}

resource "aws_route_table_association" "private" {
  for_each       = aws_subnet.private
  route_table_id = aws_route_table.private[0].id
  subnet_id      = each.value.id
}

resource "aws_vpc_endpoint" "gateway" {
  for_each          = var.network == null ? toset(["s3", "dynamodb"]) : toset([])
  vpc_id            = aws_vpc.this[0].id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${local.region}.${each.value}"
  route_table_ids   = [aws_route_table.private[0].id]
  tags              = merge(local.tags, { Name = "${var.name}-${each.value}" })
}

resource "aws_security_group" "controller" {
  name        = "${var.name}-controller"
  description = "The controller: out to git, the forge and AWS"
  vpc_id      = local.vpc
  tags        = merge(local.tags, { Name = "${var.name}-controller" })
}

resource "aws_security_group" "job" {
  name        = "${var.name}-job"
  description = "Tasks of jobs: out to git, the forge and AWS; nobody comes in"
  vpc_id      = local.vpc
  tags        = merge(local.tags, { Name = "${var.name}-job" })
}

resource "aws_vpc_security_group_egress_rule" "out" {
  for_each = { for pair in setproduct(["controller", "job"], distinct(concat([443], var.git_ports))) :
    "${pair[0]}-${pair[1]}" => { group = pair[0] == "job" ? aws_security_group.job.id : aws_security_group.controller.id, port = pair[1] }
  }
  security_group_id = each.value.group
  description       = "git, the forge and AWS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}

resource "aws_vpc_security_group_ingress_rule" "listener" {
  for_each = merge([for name, one in var.listeners : {
    for cidr in one.cidrs : "${name}-${cidr}" => { name = name, port = one.port, cidr = cidr }
  }]...)
  security_group_id = aws_security_group.controller.id
  description       = each.value.name
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}
