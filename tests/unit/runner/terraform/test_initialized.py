from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.runner.terraform.engine import Engine, EngineError, deadline_in
from reconciler.runner.terraform.initialized import (
    BACKEND,
    DATA,
    LONGEST,
    MODULES,
    Block,
    ForeignError,
    Initialized,
    clear,
    lay_out,
    links_of,
    shape_of,
    take_up,
)
from tests.kit.workbench import FILES, REQUIRE_FILES, SECONDS, UNIT, Workbench, any_engine, bench, pin
from tests.provider import mirror

__all__ = ["any_engine", "bench"]

MODULE = (
    REQUIRE_FILES
    + """\
variable "a" { type = string }
module "deep" {
  source = "./deep"
  a      = var.a
}
resource "files_file" "this" {
  path    = "x"
  content = var.a
}
output "o" { value = module.deep.o }
"""
)
DEEP = 'variable "a" { type = string }\nresource "terraform_data" "y" { input = var.a }\noutput "o" { value = terraform_data.y.output }\n'


def block(made: Workbench) -> Block:
    return made.kept.block(UNIT, made.work)


def links(made: Workbench) -> dict[Path, Path]:
    assert made.mirror is not None
    return links_of(made.pin, made.engine.registry, made.mirror)


def taken(made: Workbench) -> Initialized | None:
    return take_up(made.work, block(made), links(made), made.tree)


@pytest.fixture
def began(bench: Workbench) -> Workbench:
    """In its folder `init` was run."""
    bench.module(MODULE)
    deep = bench.tree / bench.pin.path / "deep"
    deep.mkdir()
    (deep / "main.tf").write_text(DEEP)
    bench.open(bench.spec(a="1")).init(deadline_in(SECONDS))
    return bench


def neighbour(made: Workbench, name: str = "neighbour") -> Workbench:
    """Another unit with the same module and engine, in a folder and with a state of its own; the written root."""
    other = replace(made, folder=made.folder / name)
    other.folder.mkdir()
    shutil.copytree(made.tree, other.tree)
    return other


def test_what_is_laid_out_is_as_good_as_an_init(began: Workbench) -> None:
    """The same plan and the same state, by the same engine, with a provider and with a module in the module."""
    left = taken(began)
    assert left is not None
    talk = began.open(began.spec(a="1"))
    with_init = talk.plan(deadline_in(SECONDS))
    shutil.rmtree(began.work)

    talk = began.open(began.spec(a="1"))
    lay_out(left, began.work, block(began), links(began))
    without = talk.plan(deadline_in(SECONDS))

    assert without.changed
    varies = {"timestamp", "errored"}
    assert {k: v for k, v in without.json.items() if k not in varies} == {
        k: v for k, v in with_init.json.items() if k not in varies
    }
    assert talk.apply(deadline_in(SECONDS)).failure is None
    began.bring_back()
    assert began.outputs() == {"o": "1"}


def test_a_unit_reads_and_writes_its_own_state_only(began: Workbench) -> None:
    """What was taken up from one unit's folder is laid out in another's, and the first has a state by then."""
    left = taken(began)
    assert left is not None
    assert began.apply(began.spec(a="1")).failure is None
    its = (began.folder / "states" / f"{UNIT}.tfstate").read_bytes(), (began.work / "unit.tfstate").read_bytes()

    other = neighbour(began)
    left = Initialized(json.loads(json.dumps(left.modules).replace(str(began.tree), str(other.tree))), left.backend)
    talk = other.open(other.spec(a="2"))
    lay_out(left, other.work, block(other), links(other))
    assert str(began.work) not in (other.work / DATA / BACKEND).read_text()
    planned = talk.plan(deadline_in(SECONDS))
    actions = [one["change"]["actions"] for one in planned.json["resource_changes"]]
    assert actions == [["create"]] * 2
    assert talk.apply(deadline_in(SECONDS)).failure is None
    other.bring_back()

    assert other.outputs() == {"o": "2"}
    assert (
        (began.folder / "states" / f"{UNIT}.tfstate").read_bytes(),
        (began.work / "unit.tfstate").read_bytes(),
    ) == its


def test_the_engine_compares_the_backend_itself(began: Workbench) -> None:
    """The second pair of eyes: were another unit's state written down as this one's, then no engine would go on.

    That is so because no digest stands beside it: with one it takes what stands there.
    """
    left = taken(began)
    assert left is not None
    other = neighbour(began)
    talk = other.open(other.spec(a="2"))
    lay_out(left, other.work, block(other), links(other))
    file = other.work / DATA / BACKEND
    document = json.loads(file.read_text())
    assert document["backend"]["hash"] == 0
    document["backend"]["config"]["path"] = str(began.work / "unit.tfstate")
    file.write_text(json.dumps(document))

    with pytest.raises(EngineError, match="init"):
        talk.plan(deadline_in(SECONDS))
    assert not (other.work / "tfplan").exists()


# --- what is not taken up


def linked_elsewhere(data: Path) -> None:
    (link,) = (path for path in data.rglob("*") if path.is_symlink())
    target = link.readlink()
    link.unlink()
    link.symlink_to(target.parent)


def copied(data: Path) -> None:
    (link,) = (path for path in data.rglob("*") if path.is_symlink())
    target = link.readlink()
    link.unlink()
    shutil.copytree(target, link)


def edited(file: Path, change: Callable[[Any], None]) -> Callable[[Path], None]:
    def edit(data: Path) -> None:
        document = json.loads((data / file).read_bytes())
        change(document)
        (data / file).write_text(json.dumps(document))

    return edit


def replaced(file: Path, text: str) -> Callable[[Path], None]:
    def write(data: Path) -> None:
        (data / file).write_text(text)

    return write


def as_a_link(data: Path) -> None:
    (data / MODULES).rename(data.parent / "modules.json")
    (data / MODULES).symlink_to(data.parent / "modules.json")


def as_a_pipe(data: Path) -> None:
    (data / BACKEND).unlink()
    os.mkfifo(data / BACKEND)


def all_a_link(data: Path) -> None:
    data.rename(data.parent / "elsewhere")
    data.symlink_to(data.parent / "elsewhere")


@pytest.mark.parametrize(
    "change",
    [
        linked_elsewhere,
        copied,
        as_a_link,
        as_a_pipe,
        all_a_link,
        shutil.rmtree,
        lambda data: (data / BACKEND).unlink(),
        lambda data: (data / "environment").write_text("other"),
        lambda data: (data / "modules" / "more").write_text(""),
        replaced(MODULES, "{"),
        replaced(MODULES, "[]"),
        replaced(MODULES, "[" * 100_000),
        replaced(MODULES, json.dumps({"Modules": [], "more": "x" * LONGEST})),
        edited(MODULES, lambda d: d["Modules"][1].update(Dir="/etc")),
        edited(MODULES, lambda d: d["Modules"][1].update(Dir="../catalog")),
        edited(MODULES, lambda d: d["Modules"][1].update(Dir=d["Modules"][1]["Dir"] + "/../../../..")),
        edited(MODULES, lambda d: d["Modules"][1].update(Dir=1)),
        edited(MODULES, lambda d: d["Modules"][1].update(Version="1.0.0")),
        edited(MODULES, lambda d: d["Modules"][0].update(Dir="/etc")),
        edited(MODULES, lambda d: d.update(More=1)),
        edited(BACKEND, lambda d: d["backend"]["config"].update(path="/elsewhere/unit.tfstate")),
        edited(BACKEND, lambda d: d["backend"]["config"].update(workspace_dir="/elsewhere")),
        edited(BACKEND, lambda d: d["backend"].update(type="s3")),
        edited(BACKEND, lambda d: d["backend"].update(more={})),
        edited(BACKEND, lambda d: d.update(version=4)),
        edited(BACKEND, lambda d: d.update(resources=[])),
        edited(BACKEND, lambda d: d.update(backend=None)),
    ],
)  # fmt: skip
def test_what_is_not_as_a_real_init_leaves_it_is_not_taken_up(began: Workbench, change: Callable[[Path], None]) -> None:
    assert taken(began) is not None
    change(began.work / DATA)
    assert taken(began) is None


def test_a_provider_that_was_not_proven_is_not_taken_up(began: Workbench) -> None:
    assert began.mirror is not None
    assert take_up(began.work, block(began), {}, began.tree) is None
    two = pin(FILES, replace(FILES, source="reconciler/other"))
    more = links_of(two, began.engine.registry, began.mirror)
    assert len(more) == 2
    assert take_up(began.work, block(began), more, began.tree) is None


# --- what is not laid out

S3: Block = {
    "s3": {"bucket": "b", "key": "prod/a.tfstate", "region": "r", "endpoints": {"s3": "http://x"}, "encrypt": True}
}
KEPT: dict[str, Any] = {
    "version": 3,
    "terraform_version": "1.11.4",
    "backend": {
        "type": "s3",
        "config": {
            "bucket": "b",
            "key": "?",
            "region": "r",
            "endpoints": {"s3": "http://x", "sts": None},
            "encrypt": True,
            "assume_role": None,
            "allowed_account_ids": None,
        },
        "hash": 0,
    },
}


def with_config(**config: Any) -> dict[str, Any]:
    return {**KEPT, "backend": {**KEPT["backend"], "config": {**KEPT["backend"]["config"], **config}}}


def test_the_key_is_the_unit_s_and_all_else_as_it_was(tmp_path: Path) -> None:
    lay_out(Initialized({"Modules": []}, KEPT), tmp_path, S3, {})
    document = json.loads((tmp_path / DATA / BACKEND).read_bytes())
    assert document == with_config(key="prod/a.tfstate")
    assert (tmp_path / DATA / BACKEND).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "kept",
    [
        with_config(bucket="other"),
        with_config(region=None),
        with_config(endpoints={"s3": "http://y", "sts": None}),
        with_config(endpoints={"s3": "http://x", "sts": "http://y"}),
        with_config(endpoints=None),
        with_config(encrypt=None),
        with_config(encrypt="true"),
        with_config(encrypt=1),
        with_config(assume_role={"role_arn": "arn"}),
        with_config(allowed_account_ids=["1"]),
        with_config(workspace_key_prefix="other"),
        {**KEPT, "backend": {**KEPT["backend"], "type": "local"}},
        {**KEPT, "backend": {**KEPT["backend"], "config": None}},
        {**KEPT, "version": 4},
        {},
        None,
        [],
    ],
)  # fmt: skip
def test_another_backend_is_not_laid_out(kept: Any, tmp_path: Path) -> None:
    with pytest.raises(ForeignError):
        lay_out(Initialized({"Modules": []}, kept), tmp_path, S3, {})
    assert list(tmp_path.iterdir()) == []


def test_units_of_one_environment_have_one_shape() -> None:
    assert shape_of(S3) == shape_of({"s3": {**S3["s3"], "key": "prod/b.tfstate"}})
    assert shape_of(S3) != shape_of({"s3": {**S3["s3"], "bucket": "other"}})
    with pytest.raises(KeyError):
        shape_of({"consul": {"path": "x"}})


def test_what_was_there_before_goes(tmp_path: Path) -> None:
    """A link that leads out of the folder goes, and not what it leads to."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    work = tmp_path / "work"
    (work / DATA / "providers").mkdir(parents=True)
    (work / DATA / "providers" / "link").symlink_to(tmp_path / "outside")
    lay_out(Initialized({"Modules": []}, KEPT), work, S3, {})
    assert sorted(path.name for path in (work / DATA).iterdir()) == ["modules", "terraform.tfstate"]
    clear(work)
    assert not (work / DATA).exists()
    assert (tmp_path / "outside" / "kept").exists()


def test_the_package_is_where_the_engine_looks(any_engine: Engine, tmp_path: Path) -> None:
    (found,) = links_of(pin(FILES), any_engine.registry, tmp_path).items()
    place = f"{any_engine.registry}/reconciler/files/{mirror.VERSION}/{mirror.this_platform()}"
    assert found == (Path("providers", place), tmp_path / place)
