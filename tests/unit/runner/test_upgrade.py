from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.cabinet import Cabinet
from reconciler.errors import HeldError, PassError
from reconciler.git.proofs import Proofs
from reconciler.model import Commit, StateMark, UnitId
from reconciler.runner import upgrade
from reconciler.runner.memory import EngineMark, Memory, Release, UnitMemory
from reconciler.runner.record import Recorder
from reconciler.runner.reviews import Reviews
from reconciler.runner.upgrade import MIGRATIONS, bring_up_to_date, version_of
from tests.kit.before import memory_of

HEAD = Commit("4b1d" * 10)
UNIT = UnitId("prod/net/hub")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    memory_of(0, tmp_path / "m")
    return tmp_path / "m"


def test_a_memory_from_before_there_were_versions_opens_with_all_that_is_in_it(folder: Path) -> None:
    assert version_of(folder) == 0
    memory = Memory(folder)
    assert version_of(folder) == len(MIGRATIONS)
    trust = memory.trust()
    assert trust.commit == HEAD
    assert trust.allowances[UNIT].opened.keys() == {"destroy"}
    assert trust.anew is not None
    one = memory.unit(UNIT)
    assert one.mark == StateMark("1f0c", 7)
    assert one.applying is not None
    assert one.engine == EngineMark("tofu", "1.12.3", "ab" * 32)
    assert list(memory.units()) == [UnitMemory(UnitId("prod/bare")), one]
    assert memory.fence() == 41
    assert memory.paused() == "maintenance"
    assert memory.sealed_secret("prod", "db_password", {"ssm": "/db"}) == "found"


@pytest.mark.parametrize("later", [(), (lambda _: None,)])
def test_a_memory_of_version_2_opens_with_all_that_is_in_it(
    later: tuple[Callable[[Cabinet], None], ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes after version 2: this program reads it as it was written, and so does one with a further step."""
    memory_of(2, tmp_path)
    assert version_of(tmp_path) == 2
    monkeypatch.setattr(upgrade, "MIGRATIONS", (*MIGRATIONS, *later))
    bring_up_to_date(tmp_path, upgrade.MIGRATIONS)
    assert version_of(tmp_path) == len(upgrade.MIGRATIONS)
    (tmp_path / "version").write_text(f"{len(MIGRATIONS)}\n")  # the further step changed nothing
    memory = Memory(tmp_path)
    assert (memory.trust().closed, memory.trust().closed_until) == (True, Commit("5c2e" * 10))
    one = memory.unit(UNIT)
    assert one.suspicion is not None
    assert [(made.type, made.tagged, made.region, made.name) for made in one.suspicion.suspects] == [
        ("aws_vpc", True, "eu-west-1", ""),
        ("thing", False, "", "t"),
    ]
    assert one.applying is not None
    assert (one.applying.creates, one.applying.boot) == (one.suspicion.suspects, "b00t")
    assert one.release == Release("acme", "modules/net", "acme/net", "1.2.0")
    assert memory.fence() == 41


def test_what_lies_in_it_besides_is_read_as_well(folder: Path) -> None:
    memory = Memory(folder)
    [review] = Reviews(memory.folder / "reviews").of(UNIT)
    assert review.follows
    scope = Reviews(memory.folder / "reviews").scope(7)
    assert scope is not None
    assert scope.units == {UNIT}
    recorder = Recorder(memory.folder / "audit")
    assert recorder.log.mark().count == 4
    with recorder.log.writing() as log:
        assert log.append("event", {}) == 5
    proof = Proofs(memory.folder / "proofs").get(HEAD)
    assert proof is not None
    assert proof.approvers == ("ann",)
    assert Proofs(memory.folder / "proofs").version() == 3


def test_a_new_memory_has_its_version_from_the_beginning(tmp_path: Path) -> None:
    Memory(tmp_path / "m")
    assert (tmp_path / "m" / "version").read_text() == f"{len(MIGRATIONS)}\n"


def test_a_program_refuses_the_memory_of_the_next_one(folder: Path) -> None:
    def forget_the_pause(where: Cabinet) -> None:
        where.delete("pause")

    bring_up_to_date(folder, (*MIGRATIONS, forget_the_pause))
    assert not (folder / "pause").exists()
    with pytest.raises(HeldError, match=r"newer reconciler.*install that version again") as caught:
        Memory(folder)
    assert caught.value.reason == "MemoryTooNew"
    assert version_of(folder) == len(MIGRATIONS) + 1


def test_a_step_that_fails_is_done_again(folder: Path) -> None:
    def fail(_: Cabinet) -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        bring_up_to_date(folder, (*MIGRATIONS, fail))
    assert version_of(folder) == len(MIGRATIONS)
    done: list[Cabinet] = []
    bring_up_to_date(folder, (*MIGRATIONS, done.append))
    assert [one.place for one in done] == [str(folder)]


def test_a_version_that_is_none_is_refused(folder: Path) -> None:
    (folder / "version").write_text("one")
    with pytest.raises(PassError, match="not a number"):
        Memory(folder)


@pytest.mark.parametrize("name", ["trust.json", "units/prod/net/hub.json"])
def test_a_file_with_a_field_of_a_newer_version_is_refused(folder: Path, name: str) -> None:
    told = json.loads((folder / name).read_bytes())
    (folder / name).write_text(json.dumps({**told, "imported": None}))
    memory = Memory(folder)
    with pytest.raises(HeldError, match="the field imported of") as caught:
        (memory.trust() if name == "trust.json" else memory.unit(UNIT))
    assert caught.value.reason == "MemoryTooNew"
