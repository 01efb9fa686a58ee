"""`reconciler new`: what it writes, and that `validate` takes it once it is filled in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.cli import main
from reconciler.cli.validate import read
from reconciler.demo.example import lock_of
from reconciler.demo.forge import Forge

MODULE = """
variable "name" {
  type        = string
  description = "Whose it is.\\nA \\u202e second line: {x} # \\"quoted\\""
}
variable "sizes" {
  type = map(object({
    cpu = number
    gib = optional(number, 4)
  }))
  description = <<-EOT
    How large each is,
    by name.
  EOT
}
variable "token" {
  type      = string
  sensitive = true
}
variable "replicas" {
  type    = number
  default = 2
}
variable "labels" {
  default = { team = "x", cost = [1, 2] }
}
output "x" { value = 1 }
"""


def released(tmp_path: Path, files: dict[str, str]) -> Path:
    """A work tree whose lock has acme/thing 1.0.0 with these files; its catalog is catalog.git beside it."""
    forge = Forge.create(tmp_path / "catalog.git")
    releases = {"v1.0.0": {f"modules/thing/{name}": text for name, text in files.items()}}
    forge.commit(releases["v1.0.0"], "Release")
    forge.tag("v1.0.0")
    work = tmp_path / "work"
    (work / "environments/dev").mkdir(parents=True)
    (work / "environments/dev/environment.yaml").write_text("class: protected\n")
    (work / "catalog-lock.yaml").write_text(lock_of(forge, releases, "acme"))
    return work


def new(work: Path, entry: str, module: str, *words: str) -> int:
    catalog = f"acme={work.parent / 'catalog.git'}"
    return main(
        ["new", entry, "--module", module, "--lock", str(work / "catalog-lock.yaml"), "--catalog", catalog, *words]
    )


def test_what_is_required_is_named_until_it_is_filled_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = released(tmp_path, {"main.tf": MODULE})
    assert new(work, "dev/net/hub", "thing@v1.0.0") == 0
    done = capsys.readouterr()
    assert done.out == "environments/dev/net/hub.yaml\n"
    assert "Fill in: name, sizes, token;" in done.err
    file = work / "environments/dev/net/hub.yaml"
    assert file.read_text() == (
        'module: acme/thing\nversion: "1.0.0"\ninputs:\n'
        '  # string: Whose it is.\\nA \\u202e second line: {x} # \\"quoted\\"\n'
        "  name:\n"
        "  # map(object({cpu = number, gib = optional(number, 4)})): How large each is, by name.\n"
        "  sizes:\n"
        "  # string, sensitive: ${{ secret.NAME }}\n"
        "  token:\n"
        "  # number\n"
        "  # replicas: 2\n"
        "  # any\n"
        '  # labels: # by default {team = "x", cost = [1, 2]}\n'
    )
    (problem, *_) = read(work).problems
    assert (str(problem.place), problem.message[:20]) == ("environments/dev/net/hub.yaml:5:8", "the value is missing")
    filled = file.read_text().replace("  name:\n", "  name: ada\n").replace("  sizes:\n", "  sizes: {a: {cpu: 1}}\n")
    file.write_text(
        filled.replace("  token:\n", "  token: ${{ secret.token }}\n").replace("  # replicas", "  replicas")
    )
    desired = read(work)
    assert (desired.problems, list(desired.units)) == ((), ["dev/net/hub"])


def test_it_never_overwrites_and_follows_no_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = released(tmp_path, {"main.tf": 'variable "a" { default = null }\n'})
    assert new(work, "environments/dev/a.yaml", "acme/thing", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["required"] == []
    assert read(work).problems == ()
    (work / "environments/dev/a.yaml").write_text("mine")
    assert new(work, "dev/a", "acme/thing") == 1
    assert (work / "environments/dev/a.yaml").read_text() == "mine"
    (work / "environments/dev/elsewhere").symlink_to(tmp_path)
    assert new(work, "dev/elsewhere/b", "acme/thing") == 1
    assert not (tmp_path / "b.yaml").exists()
    said = capsys.readouterr().err
    assert "nothing was written" in said
    assert "remove that link" in said


def test_aliases_of_providers_are_to_be_chosen(tmp_path: Path) -> None:
    needs = 'terraform {\n required_providers {\n aws = {\n source = "hashicorp/aws"\n configuration_aliases = [aws.far]\n }\n }\n}\n'
    work = released(tmp_path, {"main.tf": needs})
    assert new(work, "dev/a", "thing") == 0
    text = (work / "environments/dev/a.yaml").read_text()
    assert text.endswith("providers:    # the module's names -> the environment's\n  aws.far:\n")


@pytest.mark.parametrize(
    ("entry", "module", "code", "said"),
    [
        ("prod/a", "thing", 1, "environments/prod/environment.yaml is not there"),
        ("dev/A", "thing", 64, "is no entry: write prod/network"),
        ("dev/../../x", "thing", 64, "is no entry: write prod/network"),
        ("dev/environment", "thing", 64, "is no entry: write prod/network"),
        ("dev/a", "other", 1, "other is no module of the lock: write acme/thing"),
        ("dev/a", "thing@2.0.0", 1, "acme/thing@2.0.0 is not in the lock, which has 1.0.0"),
    ],
)
def test_what_cannot_be_is_said_with_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: str, module: str, code: int, said: str
) -> None:
    work = released(tmp_path, {"main.tf": 'variable "a" {}\n'})
    assert new(work, entry, module) == code
    assert said in capsys.readouterr().err
    assert [path.name for path in (work / "environments").rglob("*.yaml")] == ["environment.yaml"]


def test_a_yanked_version_is_put_to_no_new_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = released(tmp_path, {"main.tf": 'variable "a" {}\n'})
    lock = work / "catalog-lock.yaml"
    lock.write_text(lock.read_text().replace("        ref:", "        yanked: it leaks\n        ref:"))
    assert new(work, "dev/a", "thing@1.0.0") == 1
    assert "not put to new use (it leaks)" in capsys.readouterr().err
