"""The worked example: its catalog deploys, its releases follow each other in place, its entries fit their modules."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kit.terraform import Terraform
from tests.provider.log import calls, doubled

REPOSITORY = Path(__file__).resolve().parents[2]
CATALOG = REPOSITORY / "reconciler/demo/catalog"
ENVIRONMENTS = REPOSITORY / "environments"
RELEASES = ("v1.0.0", "v1.1.0")

SOURCES = sorted(CATALOG.rglob("*.tf"))
ENTRIES = sorted(set(ENVIRONMENTS.rglob("*.yaml")) - set(ENVIRONMENTS.rglob("environment.yaml")))

CHAIN = """
terraform {
  required_providers {
    files = {
      source = "reconciler/files"
    }
  }
}
module "network" {
  source = "./catalog/modules/network"
  name   = "main"
  cidr   = "10.0.0.0/16"
}
module "cluster" {
  source     = "./catalog/modules/cluster"
  name       = "prod"
  network_id = module.network.id
  subnet_ids = module.network.subnet_ids
  node_count = 3
}
module "service" {
  source        = "./catalog/modules/service"
  name          = "web"
  network_id    = module.network.id
  cluster_id    = module.cluster.id
  zone          = module.network.zones[0].name
  node          = module.cluster.nodes[0].name
  image         = "registry.example.com/web:1.0.0"
  join_token    = module.cluster.join_token
  password      = "correct horse battery"
  artifacts_url = module.bucket.url
}
module "bucket" {
  source = "./catalog/modules/bucket"
  name   = "prod-artifacts"
}
output "dsn" {
  value     = module.service.dsn
  sensitive = true
}
"""


def release(folder: Path, version: str) -> Path:
    """The catalog's tree at a release: each folder lies over the ones before it."""
    for earlier in RELEASES[: RELEASES.index(version) + 1]:
        shutil.copytree(CATALOG / earlier, folder, dirs_exist_ok=True)
    return folder


@pytest.mark.e2e
def test_the_catalog_deploys_and_its_next_release_changes_in_place(terraform: Terraform) -> None:
    catalog = terraform.folder / "catalog"
    release(catalog, "v1.0.0")
    terraform.write(CHAIN)
    terraform.init()

    said = terraform.apply()

    assert "correct horse" not in said
    assert not terraform.differs()
    token = (terraform.root / "clusters/prod/join-token").read_text()
    assert token not in said
    assert sorted(path.name for path in (terraform.root / "clusters/prod/nodes").iterdir()) == [
        "prod-0.json",
        "prod-1.json",
        "prod-2.json",
    ]

    release(catalog, "v1.1.0")

    assert terraform.planned() == {
        "module.bucket.files_file.bucket": ["update"],
        'module.network.files_file.subnet["a"]': ["update"],
        'module.network.files_file.subnet["b"]': ["update"],
        "module.service.files_file.service": ["update"],
    }
    terraform.apply()
    assert not terraform.differs()
    assert (terraform.root / "clusters/prod/join-token").read_text() == token
    assert len(calls(terraform.root, op="create", outcome="created")) == 11
    assert doubled(terraform.root) == []


@pytest.mark.e2e
def test_a_wrong_input_is_refused_by_the_module(terraform: Terraform) -> None:
    release(terraform.folder / "catalog", "v1.1.0")
    terraform.write(CHAIN.replace("10.0.0.0/16", "10.0.0.0/28").replace("node_count = 3", "node_count = 99"))
    terraform.init()

    said = re.sub(r"\s+", " ", terraform.apply(expect=1))

    assert "cidr is an IPv4 range of at least a /24" in said
    assert "node_count is a whole number from 1 to 9" in said


@pytest.mark.e2e
def test_the_catalog_is_formatted(terraform: Terraform) -> None:
    assert terraform.run("fmt", "-check", "-recursive", str(CATALOG)) == ""


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(CATALOG).as_posix())
def test_a_module_holds_nothing_that_an_audit_refuses(source: Path) -> None:
    text = source.read_text()

    assert not re.search(
        r"^\s*(provider|backend|cloud|provisioner|data|import|moved|removed)\b.*\{", text, re.MULTILINE
    )
    for variable in re.findall(r'^variable "\w+" \{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL):
        assert "type  " in variable
        assert "validation {" in variable
        assert "description" in variable


@pytest.mark.parametrize("release_name", RELEASES)
def test_modules_with_resources_constrain_their_providers(release_name: str, tmp_path: Path) -> None:
    for main in release(tmp_path, release_name).rglob("main.tf"):
        if 'resource "' in main.read_text():
            assert 'version = "~> 1.0"' in (main.parent / "versions.tf").read_text()
        assert (main.parent / "README.md").read_text().startswith(f"# {main.parent.name}\n")


def names(tree: Path, module: str, block: str) -> dict[str, str]:
    """Name -> body of every `variable` or `output` of a module."""
    found: dict[str, str] = {}
    for source in (tree / "modules" / module).glob("*.tf"):
        found |= re.findall(rf'^{block} "(\w+)" \{{\n(.*?)^\}}', source.read_text(), re.MULTILINE | re.DOTALL)
    return found


def references(value: Any) -> Iterator[tuple[str, str]]:
    """(unit, output) of every reference in an input."""
    for text in re.findall(r"\$\{\{ (\S+) \}\}", str(value)):
        unit, _, output = text.partition(".")
        if unit != "secret":
            yield unit, re.split(r"[.\[]", output)[0]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda path: path.relative_to(ENVIRONMENTS).as_posix())
def test_an_entry_gives_its_module_what_it_asks_for(entry: Path, tmp_path: Path) -> None:
    written = yaml.safe_load(entry.read_text())
    tree = release(tmp_path, f"v{written['version']}")
    variables = names(tree, written["module"].removeprefix("acme/"), "variable")
    required = {name for name, body in variables.items() if not re.search(r"^  default\b", body, re.MULTILINE)}

    assert required <= set(written["inputs"]) <= set(variables)
    for unit, output in references(written["inputs"]):
        folder = ENVIRONMENTS if unit.startswith("/") else entry.parent
        other = yaml.safe_load((folder / f"{unit.strip('/')}.yaml").read_text())
        assert output in names(tree, other["module"].removeprefix("acme/"), "output")


def test_stage_and_prod_have_the_same_shape() -> None:
    def shape(environment: str) -> dict[str, tuple[str, set[str]]]:
        entries = {path.name: yaml.safe_load(path.read_text()) for path in (ENVIRONMENTS / environment).glob("*.yaml")}
        return {name: (entry.get("module", ""), set(entry.get("inputs", {}))) for name, entry in entries.items()}

    assert shape("stage") == shape("prod")
