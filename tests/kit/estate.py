"""States that others made, as a plain Terraform leaves them; and a larger one that a plain Terraform really makes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.kit.modules import NEEDS_FILES
from tests.kit.terraform import provider_env, write_cli_config

BUILTIN = 'provider["terraform.io/builtin/terraform"]'
OLD = "99999999-aaaa-bbbb-cccc-000000000000"  # a lineage


def noted(text: str = "one", *, name: str = "this", key: str = "old-id") -> dict[str, Any]:
    """An object of a state: what the module `note` makes, before it was one."""
    value = {"value": text, "type": "string"}
    attributes = {"id": key, "input": value, "output": value, "triggers_replace": None}
    instance = {"schema_version": 0, "attributes": attributes, "sensitive_attributes": []}
    return {
        "mode": "managed", "type": "terraform_data", "name": name, "provider": BUILTIN, "instances": [instance],
    }  # fmt: skip


def old_state(*resources: Mapping[str, Any], serial: int = 7, lineage: str = OLD, version: str = "1.5.0") -> bytes:
    """A state file with the output of the module `note`; of one object, if none is given."""
    document = {
        "version": 4,
        "terraform_version": version,
        "serial": serial,
        "lineage": lineage,
        "outputs": {"id": {"value": "one", "type": "string"}},
        "resources": list(resources) or [noted()],
        "check_results": None,
    }
    return json.dumps(document, indent=2).encode()


INNER = (
    NEEDS_FILES
    + """\
resource "terraform_data" "rule" {
  count = 5
  input = 1 / (count.index + 3)
}
resource "files_file" "subnet" {
  for_each   = toset(["a", "b", "c", "d.e"])
  path       = "net/${each.key}"
  content    = "subnet"
  depends_on = [terraform_data.rule]
}
"""
)


def estate(inner: str) -> str:
    """Thirty objects; nine of them in the module at the path `inner`."""
    return (
        NEEDS_FILES
        + f"""\
module "net" {{
  source = "{inner}"
}}
resource "terraform_data" "task" {{
  count            = 10
  input            = "task ${{count.index}}"
  triggers_replace = [count.index / 3]
}}
resource "files_file" "page" {{
  for_each   = toset([for n in range(10) : "page ${{n}}"])
  path       = "pages/${{each.key}}"
  content    = "a page"
  depends_on = [module.net]
}}
resource "terraform_data" "all" {{
  input = [for page in files_file.page : page.id]
}}
output "pages" {{
  value = terraform_data.all.output
}}
"""
    )


RELEASE = {"modules/estate/main.tf": estate("../inner"), "modules/inner/main.tf": INNER}


def plain(folder: Path, mirror: Path, world: Path, engine: Path) -> Path:
    """Make the estate as people do without a reconciler; its state file."""
    (folder / "inner").mkdir(parents=True)
    (folder / "main.tf").write_text(estate("./inner"), encoding="utf-8")
    (folder / "inner" / "main.tf").write_text(INNER, encoding="utf-8")
    config = write_cli_config(folder / "engine.tfrc", mirror)
    env = {"TF_CLI_CONFIG_FILE": str(config), "PATH": os.environ["PATH"], **provider_env(world)}
    for words in (["init"], ["apply", "-auto-approve"]):
        said = subprocess.run(
            [engine, *words, "-input=false", "-no-color"],
            cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert said.returncode == 0, said.stderr
    return folder / "terraform.tfstate"


def identities(raw: bytes) -> dict[str, object]:
    """Address inside the module -> everything that a state has of the object."""
    found: dict[str, object] = {}
    for group in json.loads(raw)["resources"]:
        base = ".".join(part for part in (group.get("module"), group["type"], group["name"]) if part)
        for one in group["instances"]:
            name = f"{base}[{json.dumps(one['index_key'])}]" if "index_key" in one else base
            found[name.removeprefix("module.unit.")] = one["attributes"]
    return found
