"""What a module reaches: the folders that it calls, and the providers that all of them use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import HeldError, UnitError
from reconciler.model import Digest
from reconciler.runner.supply import check_allowed, check_locked
from reconciler.runner.terraform.closure import cached_needs, needs
from tests.kit import facts as make
from tests.kit.workbench import FILES


def tree(folder: Path, **files: str) -> Path:
    """Files by name, `__` for a slash and `_tf` or `_json` at the end."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".tf.json").replace("_tf", ".tf")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


NAMED = 'terraform {\n  required_providers {\n    %s = { source = "%s" }\n  }\n}\n'


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"m__a_tf": ""}, set()),
        ({"m__a_tf": NAMED % ("x", "acme/x")}, {"acme/x"}),
        ({"m__a_tf": NAMED % ("x", "registry.terraform.io/Acme/X")}, {"acme/x"}),
        ({"m__a_tf": NAMED % ("x", "r.example.com/acme/x")}, {"r.example.com/acme/x"}),
        ({"m__a_tf": 'resource "random_id" "x" {}\n'}, {"hashicorp/random"}),
        ({"m__a_tf": 'data "http" "x" {}\n'}, {"hashicorp/http"}),
        ({"m__a_tf": 'ephemeral "tls_x" "x" {}\n'}, {"hashicorp/tls"}),
        ({"m__a_tf": 'resource "terraform_data" "x" {}\n'}, set()),
        ({"m__a_tf": 'resource "x_y" "x" {}\n' + NAMED % ("x", "acme/x")}, {"acme/x"}),
        ({"m__a_tf": 'resource "x_y" "x" {\n  provider = other.west\n}\n'}, {"hashicorp/other"}),
        ({"m__a_tf": 'provider "null" {}\n'}, {"hashicorp/null"}),
        ({"m__a_tf": NAMED % ("x", "x")}, {"hashicorp/x"}),
        ({"m__a_tf": 'check "c" {\n  data "http" "x" {}\n}\n'}, {"hashicorp/http"}),
        ({"m__a_json": '{"resource": {"x_y": {"a": {"provider": "z.b"}, "c": {}}}}'}, {"hashicorp/z", "hashicorp/x"}),
        ({"m__a_tf": 'module "n" {\n  source = "../n"\n}\n', "n__b_tf": 'resource "null_resource" "x" {}\n', "o__c_tf": NAMED % ("x", "acme/x")}, {"hashicorp/null"}),
        ({"m__a_tf": 'module "n" {\n  source = "./n"\n}\n', "m__n__b_tf": 'module "up" {\n  source = "../"\n}\n' + NAMED % ("x", "acme/x")}, {"acme/x"}),
    ],
)  # fmt: skip
def test_what_is_needed(files: dict[str, str], expected: set[str], tmp_path: Path) -> None:
    assert needs(tree(tmp_path, **files), "m", "terraform") == expected


def test_each_engine_needs_what_its_own_files_use(tmp_path: Path) -> None:
    made = tree(tmp_path, m__a_tf='resource "x_y" "a" {}\n')
    (made / "m/a.tofu").write_text('resource "z_y" "a" {}\n')
    assert needs(made, "m", "terraform") == {"hashicorp/x"}
    assert needs(made, "m", "tofu") == {"hashicorp/z"}


@pytest.mark.parametrize("source", ["git::https://x/y?ref=main", "acme/x/aws", "../../out", "./gone", "/etc", ""])
def test_modules_from_elsewhere(source: str, tmp_path: Path) -> None:
    with pytest.raises(UnitError, match=r"m/a\.tf calls (the|a) module") as caught:
        needs(tree(tmp_path / "t", m__a_tf=f'module "x" {{\n  source = "{source}"\n}}\n'), "m", "terraform")
    assert caught.value.reason == "CatalogModuleRemote"


def test_it_is_read_once_for_a_digest(tmp_path: Path) -> None:
    made, digest = tree(tmp_path / "t", m__a_tf=NAMED % ("x", "acme/x")), Digest("sha256:" + "1" * 64)
    assert cached_needs(tmp_path / "cache", digest, "m", made, "terraform") == {"acme/x"}
    (made / "m/a.tf").write_text("{")
    assert cached_needs(tmp_path / "cache", digest, "m", made, "terraform") == {"acme/x"}
    with pytest.raises(UnitError, match="is not valid"):
        cached_needs(tmp_path / "cache", Digest("sha256:" + "2" * 64), "m", made, "terraform")


def test_what_is_used_is_locked_and_allowed() -> None:
    pin = replace(make.pin(), providers=(FILES,))
    check_locked(pin, frozenset({"reconciler/files"}))
    with pytest.raises(HeldError, match="pins no version of hashicorp/null, which") as caught:
        check_locked(pin, frozenset({"reconciler/files", "hashicorp/null"}))
    assert caught.value.reason == "ProviderNotLocked"
    check_allowed(pin, [])
    check_allowed(pin, ["reconciler/files"])
    with pytest.raises(HeldError, match=r"allow_providers in runner\.yaml has hashicorp/aws"):
        check_allowed(pin, ["hashicorp/aws"])
