"""The audit beside a real engine: what it lets pass the engine takes, and what it refuses the engine would have done."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reconciler.vetting import vet
from tests.kit.hostile_modules import CASES, Tree, files

pytestmark = pytest.mark.e2e

# What the twins name and do not declare. The providers that they use otherwise are not at hand here.
DECLARED = "".join(
    f'variable "{name}" {{\n  type    = any\n  default = {{}}\n}}\n' for name in ("x", "o", "path", "at")
)
ELSEWHERE = ("aws", "null_resource", "a_b", "core::", "enabled")
# Twins that show the audit's own bounds, or that engines refuse for another reason: a name, an attribute, a bare file.
NOT_WHOLE = frozenset(
    (
        "provisioner-dynamic", "provisioner-json", "provisioner-json-lists", "lifecycle-action", "lifecycle-forgets", "tofu-file",
        "tofu-beside-tf", "tofu-json", "path-cwd", "path-index", "file-json", "hidden-path-module", "template-reads", "long",
        "template-computed", "import", "removed-provisioner", "unknown-function", "uuid", "timestamp", "data-http",
        "provider-shadows-builtin", "names-override.tofu", "unknown-namespace", "fileset-computed",
    )
)  # fmt: skip


def whole(tree: Tree) -> bool:
    text = "".join(content if isinstance(content, str) else content.decode("latin-1") for content in tree.values())
    return not any(word in text.lower() for word in ELSEWHERE)


def write(folder: Path, tree: Tree) -> None:
    for path, (_, content) in files(tree).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def run(engine: Path, folder: Path, *words: str) -> str:
    done = subprocess.run([engine, *words, "-no-color"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_engine_takes_every_twin(engine: Path, tmp_path: Path) -> None:
    chosen = [case for case in CASES if case.name not in NOT_WHOLE and whole(case.twin)]
    calls = {}
    for number, case in enumerate(chosen):
        write(tmp_path / f"t{number}", {**case.twin, "declared.tf": DECLARED, "/x": "text"})
        calls[f"m{number}"] = {"source": f"./t{number}/modules/m"}
    (tmp_path / "main.tf.json").write_text(json.dumps({"module": calls}))
    assert len(chosen) > 60
    run(engine, tmp_path, "init")
    run(engine, tmp_path, "validate")


SECRET = "the host's own"
READS = {
    "a value called path hides path.module": '[for path in [{ module = "HERE" }] : file("${path.module}/secret")][0]',
    "a namespace": 'core::file("HERE/secret")',
    "blanks and comments before the parenthesis": 'file /* harmless */ \t ("HERE/secret")',
    "a template in a string": '"${file("HERE/secret")}"',
    "escapes in the path": 'file("HERE/\\u0073ecret")',
    "a heredoc that ends where nobody looks": '<<E\n${file("HERE/secret")}\nE\u00a0',
    "a pattern that climbs": '[for f in fileset(path.module, "../../../../secret*") : file("${path.module}/${f}")][0]',
    "text that is run as a template": 'templatefile("${path.module}/x.tpl", {})',
    "a path that leaves the tree": 'file("${path.module}/../../../../secret")',
}


@pytest.mark.parametrize("how", READS)
def test_the_engine_would_have_read_the_host(engine: Path, tmp_path: Path, how: str) -> None:
    (tmp_path / "secret").write_text(SECRET)
    text = f'output "x" {{\n  value = {READS[how]}\n}}\n'.replace("HERE", str(tmp_path))
    tree = {"main.tf": text, "x.tpl": f'${{file("{tmp_path}/secret")}}'}
    assert told(engine, tmp_path / "a" / "b", tree).strip() == SECRET
    found = vet(files(tree), "modules/m")
    assert found
    assert {one.path for one in found} <= {"modules/m/main.tf", "modules/m/x.tpl"}


def test_the_engine_would_have_read_the_host_from_json(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    text = '{"//": "harmless", "output": {"x": {"value": "\\u0024{file(\\"HERE/secret\\")}"}}}'
    tree = {"main.tf.json": text.replace("HERE", str(tmp_path))}
    assert told(engine, tmp_path / "a" / "b", tree) == SECRET
    assert [one.rule for one in vet(files(tree), "modules/m")] == ["file-path"]


@pytest.mark.parametrize("label", ['"local-exec"', "local-exec", '"local\\u002dexec"'])
def test_the_engine_would_have_run_a_command(engine: Path, tmp_path: Path, label: str) -> None:
    text = f'resource "terraform_data" "x" {{\n  provisioner {label} {{\n    command = "touch {tmp_path}/ran"\n  }}\n}}\noutput "x" {{\n  value = 1\n}}\n'
    assert told(engine, tmp_path / "a" / "b", {"main.tf": text}) == 1
    assert (tmp_path / "ran").exists()
    (found,) = vet(files({"main.tf": text}), "modules/m")
    assert (found.rule, found.line) == ("ambiguous-syntax" if "\\" in label else "local-exec", 2)


def told(engine: Path, folder: Path, tree: Tree) -> Any:
    """The module's output after a real apply."""
    write(folder, tree)
    root = {"module": {"m": {"source": "./modules/m"}}, "output": {"x": {"value": "${module.m.x}"}}}
    (folder / "main.tf.json").write_text(json.dumps(root))
    run(engine, folder, "init")
    run(engine, folder, "apply", "-auto-approve")
    return json.loads(run(engine, folder, "output", "-json"))["x"]["value"]
