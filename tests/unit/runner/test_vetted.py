"""The audit in the runner: before the engine, remembered, with the host's own exceptions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.config import CatalogRepo
from reconciler.demo.playground import Playground
from reconciler.errors import HeldError
from reconciler.git.ondisk import TreeOnDisk
from reconciler.model import Commit, Digest, Outcome, Pin, ProviderPin
from reconciler.runner.vetted import check_vetted
from tests.kit.modules import excused
from tests.kit.plane import ENVIRONMENT, PROD, carry_out, job, open_host

RUNS = 'resource "terraform_data" "x" {\n  provisioner "local-exec" {\n    command = "touch ran"\n  }\n}\n'
AWS = 'resource "aws_vpc" "x" {\n}\n'
PIN = Pin("acme/app", "1.0.0", "modules/app", "v1.0.0", Commit("0" * 40), Digest("sha256:" + "0" * 64))


def catalogs(*exceptions: dict[str, str], allow: tuple[str, ...] = ()) -> dict[str, CatalogRepo]:
    made: Any = {"url": "https://git.example.com/c.git", "exceptions": list(exceptions), "allow_providers": list(allow)}
    return {"acme": CatalogRepo.model_validate(made)}


def exception(version: str = "1.0.0", rule: str = "local-exec", **more: str) -> dict[str, str]:
    return {"module": f"acme/app@{version}", "rule": rule, "reason": "looked at", **more}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree" / "modules" / "app"
    folder.mkdir(parents=True)
    (folder / "main.tf").write_text(RUNS)
    return tmp_path / "tree"


def test_a_module_is_held_with_what_was_found_and_what_to_do(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(HeldError) as raised:
        check_vetted(PIN, tree, catalogs(), tmp_path / "memory")
    assert raised.value.reason == "ModuleRefused"
    told = str(raised.value).splitlines()
    assert told[0] == "acme/app 1.0.0 has what a vetted module must not have."
    assert told[1].startswith("modules/app/main.tf:2:3: local-exec: ")
    assert "acme/app@1.0.0 in catalog_repos.*.exceptions" in told[-1]


@pytest.mark.parametrize(
    ("given", "passes"),
    [
        (exception(), True),
        (exception(path="modules/app/main.tf"), True),
        (exception(path="modules/app/other.tf"), False),
        (exception(version="1.0.1"), False),
        (exception(rule="remote-exec"), False),
        (exception() | {"module": "acme/other@1.0.0"}, False),
    ],
)
def test_an_exception_is_for_one_version_one_rule_and_one_file(
    tree: Path, tmp_path: Path, given: dict[str, str], passes: bool
) -> None:
    try:
        check_vetted(PIN, tree, catalogs(given), tmp_path / "memory")
    except HeldError:
        assert not passes
    else:
        assert passes


def test_a_branch_of_a_sandbox_has_no_exceptions(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(HeldError, match="local-exec"):
        check_vetted(replace(PIN, floating=True), tree, catalogs(exception()), tmp_path / "memory")


def test_providers_must_be_in_the_pin_and_in_the_hosts_list(tree: Path, tmp_path: Path) -> None:
    (tree / "modules/app/main.tf").write_text(AWS)
    pinned = replace(PIN, providers=(ProviderPin("hashicorp/aws", "5.0.0", {}),))
    for allow in ((), ("registry.opentofu.org/hashicorp/aws",)):
        check_vetted(pinned, tree, catalogs(allow=allow), tmp_path / "memory")
    for pin, allow in ((pinned, ("hashicorp/random",)), (PIN, ("hashicorp/aws",))):
        with pytest.raises(HeldError, match="provider: hashicorp/aws is not listed"):
            check_vetted(pin, tree, catalogs(allow=allow), tmp_path / "memory")


def test_a_verdict_is_remembered_and_a_damaged_memory_asks_again(tree: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    with pytest.raises(HeldError):
        check_vetted(PIN, tree, catalogs(), memory)
    (tree / "modules/app/main.tf").unlink()  # the digest says that this cannot be: so nobody looks
    with pytest.raises(HeldError, match="local-exec"):
        check_vetted(PIN, tree, catalogs(), memory)
    check_vetted(PIN, tree, catalogs(exception()), memory)  # what is remembered are findings, not what passed
    (sidecar,) = memory.iterdir()
    for damage in (b"", b"{}x", b"[[1]]", b"3"):
        sidecar.write_bytes(damage)
        with pytest.raises(HeldError, match="there is no module in this folder"):
            check_vetted(PIN, tree, catalogs(exception()), memory)


def test_nothing_starts_for_a_module_that_is_refused(tmp_path: Path) -> None:
    entries = {**ENVIRONMENT, f"{PROD}/app.yaml": 'module: acme/app\nversion: "1.0.0"\n'}
    made = Playground.create(tmp_path / "ground", entries, {"v1.0.0": {"modules/app/main.tf": RUNS}})
    result = carry_out(open_host(made), job("prod/app", made.environments.head))
    assert (result.outcome, result.reason, result.plan) == (Outcome.HELD, "ModuleRefused", None)
    assert not [*made.folder.rglob("init.out"), *made.folder.rglob("ran")]
    made.close()


def test_describe_shows_the_exceptions(tmp_path: Path) -> None:
    made = Playground.create(
        tmp_path / "ground", ENVIRONMENT, {"v1.0.0": {"modules/app/main.tf": RUNS}}, runner=excused("app")
    )
    shown = open_host(made).about()["exceptions"]
    assert shown == [{"module": "acme/app@1.0.0", "rule": "local-exec", "reason": "the test needs a provisioner"}]
    made.close()


def test_a_tree_on_disk_is_told_as_git_has_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.tf").write_text("12345")
    (tmp_path / "run").write_text("")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "link").symlink_to("a")
    tree = TreeOnDisk(tmp_path, 3)
    assert {path: tree[path] for path in tree} == {
        "a/b.tf": ("100644", b"123"),
        "run": ("100755", b""),
        "link": ("120777", b""),
    }
    assert len(tree) == 3
    assert "a/../run" not in tree
