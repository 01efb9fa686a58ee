# Jobs: for each environment a task that plans and one that applies, each with a role of its own; one that only describes the runner; and the
# keeper, by which an admin stops the runner itself.
locals {
  job_folders = [
    { volume = "work", path = local.runner.folder, mode = "0700" },
    { volume = "secrets", path = "/run/secrets", mode = "0700" },
    { volume = "tmp", path = "/tmp", mode = "1777" },
  ]
  runner_secrets = { for number, name in sort(keys(var.runner_secrets)) : name => "SECRET_${number}" }

  # What a task of the runner starts: an entry point, which nobody can change who may only start it.
  runner_containers = { for kind, words in { job = ["task", "--config", "/etc/reconciler-runner/runner.yaml"], keeper = [] } : kind => [
    {
      name                   = "reconciler"
      image                  = var.images.runner
      essential              = true
      entryPoint             = concat(["/opt/reconciler/bin/python", "-I", "-m", "reconciler", "runner"], words)
      user                   = "${local.runner.user}:${local.runner.user}"
      stopTimeout            = 120
      readonlyRootFilesystem = true
      linuxParameters        = local.no_capabilities
      mountPoints            = local.mounts.job
      dependsOn              = [{ containerName = "prepare", condition = "SUCCESS" }]
      logConfiguration       = local.logs[kind]
    },
    {
      name       = "prepare"
      image      = var.images.runner
      essential  = false
      entryPoint = ["/opt/reconciler/bin/python", "-I", "-c", file("${path.module}/prepare.py"), local.prepare_job]
      user       = "0"
      # Whoever may start the task may set this container's variables, and so give it other secrets; not other words.
      readonlyRootFilesystem = true
      mountPoints            = local.mounts.job
      secrets                = [for name, variable in local.runner_secrets : { name = variable, valueFrom = var.runner_secrets[name] }]
      logConfiguration       = local.logs[kind]
    },
  ] }
  prepare_job = jsonencode({
    folders = { for one in local.job_folders : one.path => [local.runner.user, one.mode] }
    texts   = {}
    secrets = { for name, variable in local.runner_secrets : "/run/secrets/${name}" => [local.runner.user, variable] }
  })
}

# --- what every task of the runner needs

data "aws_iam_policy_document" "memory_of_runner" {
  statement {
    sid       = "Memory"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    resources = ["${module.memory.arn}/${local.memory_prefix}/*"]
  }
  statement {
    sid       = "ListMemory"
    actions   = ["s3:ListBucket"]
    resources = [module.memory.arn]
  }
  statement {
    sid       = "MemoryKey"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.memory.arn]
  }
}

data "aws_iam_policy_document" "spool_of_runner" {
  source_policy_documents = [data.aws_iam_policy_document.memory_of_runner.json]

  statement {
    sid       = "ReadSpool"
    actions   = ["s3:GetObject"]
    resources = ["${local.spool_arn}/*"]
  }
  statement {
    sid     = "Answer"
    actions = ["s3:PutObject"]
    resources = [
      "${local.spool_arn}/jobs/*/task.json",
      "${local.spool_arn}/jobs/*/phases",
      "${local.spool_arn}/jobs/*/log/*",
      "${local.spool_arn}/jobs/*/died",
      "${local.spool_arn}/jobs/*/result.json",
      "${local.spool_arn}/facts.json",
    ]
  }
  statement {
    sid       = "TakeDown"
    actions   = ["s3:DeleteObject"]
    resources = ["${local.spool_arn}/queue/*"]
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
  # Whether the holder of a unit's lock is dead.
  statement {
    sid       = "WhoLives"
    actions   = ["ecs:DescribeTasks"]
    resources = [local.tasks_arn]
  }
}

# --- jobs

data "aws_iam_policy_document" "job" {
  for_each                = local.kinds
  source_policy_documents = [data.aws_iam_policy_document.spool_of_runner.json]

  statement {
    sid     = "Become"
    actions = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
    resources = concat(
      local.looked_into[each.value.environment],
      each.value.operation == "apply" ? [local.apply_roles[each.value.environment]] : [],
    )
  }
}

# --- the tasks. `describe` is what the runner is without a job: the memory and the spool, and no environment; an environment without definitions of
# its own would get it. By the keeper an admin does `runner pause`, `resume`, `accept-history` and `settle` on the memory.

locals {
  tasks = merge(
    { for kind, one in local.kinds : kind => { containers = "job", description = "Jobs that ${one.operation} in ${one.environment}" } },
    {
      describe = { containers = "job", description = "Says what the runner is; no right in any environment" }
      keeper   = { containers = "keeper", description = "The runner's own pause, and what else admins do to its memory" }
    },
  )
  may = merge(
    { for kind, one in data.aws_iam_policy_document.job : kind => one.json },
    { describe = data.aws_iam_policy_document.spool_of_runner.json, keeper = data.aws_iam_policy_document.memory_of_runner.json },
  )
}

resource "aws_iam_role" "task" {
  for_each           = local.tasks
  name               = "${var.name}-${each.key}-task"
  description        = each.value.description
  assume_role_policy = data.aws_iam_policy_document.tasks.json
  tags               = local.tags
}

resource "aws_iam_role_policy" "task" {
  for_each = local.tasks
  name     = "own"
  role     = aws_iam_role.task[each.key].id
  policy   = local.may[each.key]
}

resource "aws_ecs_task_definition" "task" {
  for_each                 = local.tasks
  family                   = "${var.name}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.size.job.cpu
  memory                   = var.size.job.memory
  execution_role_arn       = aws_iam_role.execution["runner"].arn
  task_role_arn            = aws_iam_role.task[each.key].arn
  container_definitions    = jsonencode(local.runner_containers[each.value.containers])
  tags                     = local.tags

  dynamic "volume" {
    for_each = local.job_folders
    content {
      name = volume.value.volume
    }
  }
}
