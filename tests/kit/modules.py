"""Tiny modules for end-to-end stories, and entries that use them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reconciler.demo.example import Releases

NEEDS_FILES = 'terraform {\n  required_providers {\n    files = { source = "reconciler/files" }\n  }\n}\n'


def strings(*names: str) -> str:
    """The declarations of variables that are strings."""
    return "".join(f'variable "{name}" {{\n  type = string\n}}\n' for name in names)


# Nothing real: what goes in comes out, through a resource and so through the state.
DATA = """\
variable "value" {
  type = any
}
variable "keep" {
  type    = string
  default = ""
}
resource "terraform_data" "this" {
  input            = var.value
  triggers_replace = var.keep
}
output "value" {
  value = terraform_data.this.output
}
output "constant" {
  value = "always the same"
}
output "id" {
  value = terraform_data.this.id
}
"""

TYPED = """\
variable "names" {
  type = list(string)
}
variable "ports" {
  type = map(number)
}
variable "count_of" {
  type = number
}
variable "on" {
  type = bool
}
variable "greeting" {
  type = string
}
resource "terraform_data" "this" {
  input = jsonencode([var.names, var.ports, var.count_of, var.on, var.greeting])
}
output "all" {
  value = terraform_data.this.output
}
"""

FILE = (
    NEEDS_FILES
    + strings("path", "content")
    + """\
resource "files_file" "this" {
  path    = var.path
  content = var.content
}
output "path" {
  value = files_file.this.id
}
output "content" {
  value = files_file.this.content
}
"""
)

FILES = (
    NEEDS_FILES
    + """\
variable "paths" {
  type = list(string)
}
resource "files_file" "this" {
  for_each = toset(var.paths)
  path     = each.value
  content  = "x"
}
"""
)

SECRET = (
    NEEDS_FILES
    + strings("path", "secret")
    + """\
resource "files_file" "this" {
  path           = var.path
  secret_content = var.secret
}
output "token" {
  value     = files_file.this.secret_content
  sensitive = true
}
"""
)

FLAKY = (
    NEEDS_FILES
    + strings("path", "content")
    + """\
variable "broken" {
  type    = string
  default = "outage"
}
resource "files_file" "first" {
  path    = "${var.path}/first"
  content = "there"
}
resource "files_flaky" "second" {
  path        = "${var.path}/second"
  content     = var.content
  fails_while = var.broken
  partial     = true
  depends_on  = [files_file.first]
}
output "path" {
  value = files_flaky.second.id
}
"""
)

SLOW = (
    NEEDS_FILES
    + strings("path", "content")
    + """\
resource "files_slow" "this" {
  path    = var.path
  content = var.content
  seconds = 60
  until   = "go"
}
"""
)

RESTLESS = (
    NEEDS_FILES
    + strings("path")
    + """\
resource "files_restless" "this" {
  path    = var.path
  content = "calm"
}
"""
)


# Refuses what its author thought of; everything else fails in the middle of things.
PICKY = """\
variable "value" {
  type = string
  validation {
    condition     = var.value != "odd"
    error_message = "Nothing odd, please."
  }
}
resource "terraform_data" "this" {
  input = var.value
  lifecycle {
    precondition {
      condition     = var.value != "bad"
      error_message = "The value is bad; take a good one."
    }
  }
}
"""


def release(**modules: str) -> dict[str, str]:
    """A commit of the catalog with these modules, by name."""
    return {f"modules/{name}/main.tf": text for name, text in modules.items()}


CATALOG: Releases = {
    "v1.0.0": release(
        data=DATA,
        typed=TYPED,
        file=FILE,
        files=FILES,
        secret=SECRET,
        flaky=FLAKY,
        slow=SLOW,
        restless=RESTLESS,
        picky=PICKY,
    ),
}


def entry(module: str, inputs: Mapping[str, object] | None = None, *, version: str = "1.0.0", **fields: Any) -> str:
    """An entry's file: YAML is JSON too. `fields` are the entry's others."""
    return json.dumps({"module": f"acme/{module}", "version": version, "inputs": inputs or {}, **fields}, indent=1)


def environment(**fields: object) -> str:
    """An environment.yaml; protected, and not looked at for drift while a test runs, unless the fields say so."""
    return json.dumps({"class": "protected", "drift_interval": "1h", **fields}, indent=1)


def data(value: object, **fields: Any) -> str:
    """An entry of the module that hands on what it gets."""
    return entry("data", {"value": value}, **fields)


def excused(module: str, rule: str = "local-exec", *, version: str = "1.0.0", catalog: str = "acme") -> dict[str, Any]:
    """What a runner.yaml has to say, over what stands in it, to let a module of these tests pass the audit."""
    one = {"module": f"{catalog}/{module}@{version}", "rule": rule, "reason": "the test needs a provisioner"}
    return {"catalog_repos": {catalog: {"exceptions": [one]}}}
