"""What a module declares, read from its files in either syntax."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import UnitError
from reconciler.model import Digest
from reconciler.runner.terraform.module import ModuleInterface, Variable, cached_module, read_module

DIGEST = Digest("sha256:" + "a" * 64)

SOURCE = """\
terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source                = "registry.terraform.io/hashicorp/AWS"
      version               = ">= 5.0"
      configuration_aliases = [aws.peer, aws.other]
    }
    mine   = { source = "example.com/acme/mine" }
    legacy = "~> 2.0"
  }
}

# variable "commented" {}
variable "name" {
  type        = string
  description = <<-EOT
    variable "fake" {}
  EOT
  validation {
    condition     = can(regex("^[a-z\\"]+$", var.name))
    error_message = "not ${var.name} %{if true}x%{endif}"
  }
}
variable "shape" {
  type      = object({ a = optional(string, "x"), b = list(map(number)) })
  default   = null
  sensitive = true
}
variable "plain" {}

locals {
  one = { for k, v in var.shape : k => v if v != null }
  two = var.name == "a" ? one(aws_vpc.a[*].id) : provider::aws::arn_parse("x")
}
output "id" { value = local.one }
output "secret" {
  value     = "x"
  sensitive = true
}
output "gone" {
  value     = "x"
  ephemeral = true
}
"""


def test_hcl_module(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text(SOURCE)
    (tmp_path / "notes.txt").write_text("not terraform {")
    interface = read_module(tmp_path, "terraform")
    assert interface.variables == {
        "name": Variable("string", required=True, sensitive=False),
        "shape": Variable('object({a = optional(string, "x"), b = list(map(number))})', False, True),
        "plain": Variable(None, required=True, sensitive=False),
    }
    assert interface.outputs == {"id": False, "secret": True}
    assert interface.providers == {
        "aws": "hashicorp/aws",
        "aws.peer": "hashicorp/aws",
        "aws.other": "hashicorp/aws",
        "mine": "example.com/acme/mine",
        "legacy": "hashicorp/legacy",
    }


def test_json_module_adds_to_the_hcl_one(tmp_path: Path) -> None:
    (tmp_path / "a.tf").write_text('variable "x" {}\n')
    (tmp_path / "b.tf.json").write_text(
        '{\n "variable": {\n  "y": {"type": "number", "default": 1}\n },\n "output": [{"o": {"value": 1, "sensitive": true}}]\n}'
    )
    assert read_module(tmp_path, "terraform") == ModuleInterface(
        {"x": Variable(None, True, False), "y": Variable("number", False, False)}, {"o": True}, {}
    )


@pytest.mark.parametrize(
    ("name", "source", "place"),
    [
        ("main.tf", 'variable "x" {\n  type =\n}\n', "main.tf:2"),
        ("main.tf.json", '{\n "variable": }\n', "main.tf.json:2"),
        ("main.tf.json", "[1]", "main.tf.json:1"),
        ("main.tf.json", "{}{}", "main.tf.json:1"),
        ("main.tf", "x" * (512 << 10), "main.tf:1"),
        ("main.tf", "\ufeff\x00", "main.tf"),
    ],
)
def test_what_does_not_parse_is_told_with_its_place(tmp_path: Path, name: str, source: str, place: str) -> None:
    (tmp_path / name).write_text(source)
    with pytest.raises(UnitError) as refused:
        read_module(tmp_path, "terraform")
    assert refused.value.reason == "ModuleInvalid"
    assert str(refused.value).startswith(place)


@pytest.mark.parametrize(
    ("product", "variables"), [("terraform", {"a", "b", "json"}), ("tofu", {"a_of_tofu", "b", "json_of_tofu", "own"})]
)
def test_it_reads_the_files_that_the_engine_reads(tmp_path: Path, product: str, variables: set[str]) -> None:
    files = {
        "a.tf": "a", "a.tofu": "a_of_tofu", "b.tf": "b", "own.tofu": "own", ".hidden.tf": "hidden", "c.tf.json": "json",
        "c.tofu.json": "json_of_tofu",
    }  # fmt: skip
    for file, name in files.items():
        text = f'{{"variable": {{"{name}": {{}}}}}}' if file.endswith(".json") else f'variable "{name}" {{}}\n'
        (tmp_path / file).write_text(text)
    (tmp_path / "folder.tf").mkdir()
    assert read_module(tmp_path, product).variables.keys() == variables
    for one in ("terraform", "tofu"):
        cached_module(tmp_path / "cache", DIGEST, ".", tmp_path, one)
    assert cached_module(tmp_path / "cache", DIGEST, ".", tmp_path, product).variables.keys() == variables


def test_words_of_json_and_of_several_lines(tmp_path: Path) -> None:
    (tmp_path / "a.tf").write_text(
        'variable "x" {\n  sensitive = "true"\n  type = object({ # why\n    a = string\n    b = optional(map(number), {})\n  })\n}\nvariable "z" {\n  sensitive = !true\n}\n'
    )
    (tmp_path / "b.tf.json").write_text(
        '{"variable": {"y": {"type": "set(string)", "default": null, "sensitive": true}}, "terraform": {"required_providers": '
        '{"aws": {"source": "aws", "configuration_aliases": ["aws.peer"]}}}, "output": {"o": {"value": 1, "sensitive": "${true}"}}}'
    )
    assert read_module(tmp_path, "terraform") == ModuleInterface(
        {
            "x": Variable("object({a = string, b = optional(map(number), {})})", True, True),
            "y": Variable("set(string)", False, True),
            "z": Variable(None, True, False),
        },
        {"o": True},
        {"aws": "hashicorp/aws", "aws.peer": "hashicorp/aws"},
    )


def test_cache_answers_without_the_module(tmp_path: Path) -> None:
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "main.tf").write_text(SOURCE)
    first = cached_module(tmp_path / "cache", DIGEST, "modules/vpc", folder, "terraform")
    (folder / "main.tf").unlink()
    assert cached_module(tmp_path / "cache", DIGEST, "modules/vpc", folder, "terraform") == first
    assert cached_module(tmp_path / "cache", DIGEST, "modules/other", folder, "terraform") == ModuleInterface(
        {}, {}, {}
    )


def test_broken_cache_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text('variable "x" {}\n')
    first = cached_module(tmp_path / "cache", DIGEST, ".", tmp_path, "terraform")
    (sidecar,) = (tmp_path / "cache").iterdir()
    sidecar.write_text('{"variables": {"x": {"typo": 1}}}')
    assert cached_module(tmp_path / "cache", DIGEST, ".", tmp_path, "terraform") == first
