# The controller: a service of ECS in private subnets, whose role reaches no environment.
data "aws_iam_policy_document" "controller" {
  statement {
    sid     = "Store"
    actions = ["dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:ConditionCheckItem"]
    resources = [
      aws_dynamodb_table.this.arn,
      "${aws_dynamodb_table.this.arn}/index/by-unit",
    ]
  }

  statement {
    sid       = "StartJobs"
    actions   = ["ecs:RunTask"]
    resources = [for one in [for kind, task in aws_ecs_task_definition.task : task if kind != "keeper"] : "${one.arn_without_revision}:*"]
    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [aws_ecs_cluster.this.arn]
    }
  }
  statement {
    sid       = "NobodyLooksIntoThem"
    effect    = "Deny"
    actions   = ["ecs:RunTask"]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "ecs:enable-execute-command"
      values   = ["true"]
    }
  }
  statement {
    sid       = "WatchJobs"
    actions   = ["ecs:DescribeTasks", "ecs:StopTask"]
    resources = [local.tasks_arn]
  }
  statement {
    sid       = "OfTheRolesOfJobs"
    actions   = ["iam:PassRole"]
    resources = concat([for kind, one in aws_iam_role.task : one.arn if kind != "keeper"], [aws_iam_role.execution["runner"].arn])
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }

  statement {
    sid       = "ReadSpool"
    actions   = ["s3:GetObject"]
    resources = ["${local.spool_arn}/*"]
  }
  statement {
    sid     = "Ask"
    actions = ["s3:PutObject"]
    resources = [
      "${local.spool_arn}/jobs/*/job.json",
      "${local.spool_arn}/jobs/*/cancel",
      "${local.spool_arn}/lead.json",
      "${local.spool_arn}/queue/*",
    ]
  }
  statement {
    sid       = "ListSpool"
    actions   = ["s3:ListBucket"]
    resources = [module.spool.arn]
  }
  statement {
    sid       = "SpoolKey"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.shared.arn]
  }

  statement {
    sid       = "OutOfBand"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage"]
    resources = [aws_sqs_queue.trail.arn]
  }
  dynamic "statement" {
    for_each = length(local.topics) > 0 ? [1] : []
    content {
      sid       = "Notify"
      actions   = ["sns:Publish"]
      resources = local.topics
    }
  }

  # By which an admin comes to the socket of `pause` and `break-glass`: ECS Exec, into the container beside the controller.
  statement {
    sid       = "Exec"
    actions   = ["ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel"]
    resources = ["*"]
  }
  statement {
    sid       = "ExecLog"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.this["exec"].arn}:*"]
  }
  statement {
    sid       = "ExecLogGroups"
    actions   = ["logs:DescribeLogGroups"]
    resources = ["*"]
  }
}

resource "aws_iam_role" "controller" {
  name               = "${var.name}-controller"
  description        = "The controller: no right in any environment"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
  tags               = local.tags
}

resource "aws_iam_role_policy" "controller" {
  name   = "own"
  role   = aws_iam_role.controller.id
  policy = data.aws_iam_policy_document.controller.json
}

locals {
  tasks_arn = "arn:${local.partition}:ecs:${local.region}:${local.account}:task/${aws_ecs_cluster.this.name}/*"
  spool_arn = "${module.spool.arn}/${local.spool_prefix}"
  topics    = [for one in try(var.settings.notify, []) : one.sns.topic if can(one.sns.topic)]

  controller_folders = [
    { volume = "state", path = local.controller.folder, mode = "0700" },
    { volume = "run", path = local.controller.run, mode = "0750" },
    { volume = "config", path = "/etc/reconciler", mode = "0700" },
    { volume = "secrets", path = "/run/secrets", mode = "0700" },
    { volume = "tmp", path = "/tmp", mode = "1777" },
  ]
  controller_secrets = { for number, name in sort(keys(var.controller_secrets)) : name => "SECRET_${number}" }

  # In the order of a container that ECS gives back, or each plan would show a change.
  mounts = { for plane, folders in { controller = local.controller_folders, job = local.job_folders } : plane =>
    [for one in folders : { sourceVolume = one.volume, containerPath = one.path, readOnly = false }]
  }
  logs = { for group in ["controller", "job", "keeper"] : group => {
    logDriver = "awslogs"
    options   = { awslogs-group = aws_cloudwatch_log_group.this[group].name, awslogs-region = local.region, awslogs-stream-prefix = group }
  } }
  no_capabilities = { capabilities = { add = [], drop = ["ALL"] }, initProcessEnabled = true }
}

resource "aws_ecs_task_definition" "controller" {
  family                   = "${var.name}-controller"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.size.controller.cpu
  memory                   = var.size.controller.memory
  execution_role_arn       = aws_iam_role.execution["controller"].arn
  task_role_arn            = aws_iam_role.controller.arn
  tags                     = local.tags

  dynamic "volume" {
    for_each = local.controller_folders
    content {
      name = volume.value.volume
    }
  }

  container_definitions = jsonencode([
    {
      name       = "controller"
      image      = var.images.controller
      essential  = true
      entryPoint = ["/opt/reconciler/bin/reconciler", "run", "--config", "/etc/reconciler/reconciler.yaml"]
      user       = "${local.controller.user}:${local.controller.user}"
      # SIGTERM ends the controller at once: jobs run on in their tasks, and are found again.
      stopTimeout            = 30
      readonlyRootFilesystem = true
      linuxParameters        = local.no_capabilities
      mountPoints            = local.mounts.controller
      portMappings           = [for name in sort(keys(var.listeners)) : { containerPort = var.listeners[name].port, hostPort = var.listeners[name].port, protocol = "tcp" }]
      dependsOn              = [{ containerName = "prepare", condition = "SUCCESS" }]
      logConfiguration       = local.logs.controller
    },
    {
      # Where ECS Exec leads: the agent needs a root that it can write to, which the controller's is not. The sessions are root's, who is `admin.users`.
      name             = "admin"
      image            = var.images.controller
      essential        = false
      entryPoint       = ["/opt/reconciler/bin/python", "-I", "-c", "import signal; signal.sigwait({signal.SIGTERM})"]
      user             = "0"
      linuxParameters  = { initProcessEnabled = true }
      environment      = [{ name = "RECONCILER_ADMIN_SOCKET", value = "${local.controller.run}/admin.sock" }]
      mountPoints      = [for one in local.mounts.controller : one if contains(["config", "run"], one.sourceVolume)]
      dependsOn        = [{ containerName = "prepare", condition = "SUCCESS" }]
      logConfiguration = local.logs.controller
    },
    {
      name       = "prepare"
      image      = var.images.controller
      essential  = false
      entryPoint = ["/opt/reconciler/bin/python", "-I", "-c", file("${path.module}/prepare.py")]
      command = [jsonencode({
        folders = { for one in local.controller_folders : one.path => [local.controller.user, one.mode] }
        texts   = { "/etc/reconciler/reconciler.yaml" = [local.controller.user, local.reconciler_yaml] }
        secrets = { for name, variable in local.controller_secrets : "/run/secrets/${name}" => [local.controller.user, variable] }
      })]
      user                   = "0"
      readonlyRootFilesystem = true
      mountPoints            = local.mounts.controller
      secrets                = [for name, variable in local.controller_secrets : { name = variable, valueFrom = var.controller_secrets[name] }]
      logConfiguration       = local.logs.controller
    },
  ])
}

resource "aws_ecs_service" "controller" {
  name            = "controller"
  cluster         = aws_ecs_cluster.this.arn
  task_definition = aws_ecs_task_definition.controller.arn
  desired_count   = var.daemons
  launch_type     = "FARGATE"
  propagate_tags  = "SERVICE"
  tags            = local.tags

  enable_execute_command             = true
  deployment_minimum_healthy_percent = 50
  deployment_maximum_percent         = 200

  # A version that does not start is taken back.
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = local.subnets
    security_groups  = [aws_security_group.controller.id]
    assign_public_ip = false
  }

  dynamic "load_balancer" {
    for_each = { for name, one in var.listeners : name => one if one.target_group_arn != null }
    content {
      target_group_arn = load_balancer.value.target_group_arn
      container_name   = "controller"
      container_port   = load_balancer.value.port
    }
  }

  depends_on = [aws_iam_role_policy.controller, aws_iam_role_policy.execution]
}
