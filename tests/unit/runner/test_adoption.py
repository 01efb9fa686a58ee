"""A state that others made becomes a unit's: from where, when, and once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler.demo.playground import Playground
from reconciler.model import Operation, Outcome, Presence, Result, StateMark, UnitId
from reconciler.runner import adoption
from reconciler.runner.audit.chain import read as decode
from reconciler.runner.audit.verify import segments_of
from reconciler.runner.host import Host
from reconciler.runner.memory import Adopted, UnitMemory
from tests.kit.aws import ACCOUNT, BUCKET, REGION, prod, serving
from tests.kit.estate import OLD, identities, noted, old_state
from tests.kit.plane import PROD, applied, carry_out, ground, job, note, open_host, put, remembered, state

APP, OTHER = UnitId("prod/app"), UnitId("prod/other")
TAKEN = StateMark(OLD, 8)


@dataclass(frozen=True, slots=True)
class Place:
    """A host with an entry prod/app that adopts the state at `source`, which has what the entry asks for."""

    ground: Playground
    host: Host
    source: Path

    def app(self, text: str = "one", more: str = "", source: object = None) -> str:
        return note(text, f"adopt: {{state: {source or self.source}}}\n{more}")

    def runs(self, number: int = 1, *, operation: Operation = Operation.APPLY, unit: str = APP) -> Result:
        return carry_out(self.host, job(unit, self.ground.environments.head, number, operation=operation))

    def records(self) -> list[Any]:
        lines = [line for _, data in segments_of(Path(self.host.record.cabinet.place)) for line in data.splitlines()]
        return [record.body for record in map(decode, lines) if record.kind == "state"]

    @property
    def memory(self) -> UnitMemory:
        return self.host.memory.unit(APP)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    source = tmp_path / "old" / "terraform.tfstate"
    put(source, old_state())
    adopt = {"environments": {"prod": {"adopt": [{"local": {"path": str(source.parent)}}]}}}
    made = ground(tmp_path, {}, **adopt)
    found = Place(made, open_host(made), source)
    made.merge({f"{PROD}/app.yaml": found.app()})
    yield found
    made.close()


# --- the straight line


def test_a_state_is_adopted_and_nothing_else_happens(place: Place) -> None:
    before = place.source.read_bytes()
    planned = place.runs(1, operation=Operation.PLAN)
    assert (planned.outcome, planned.reason) == (Outcome.SUCCEEDED, "Planned")
    assert planned.message == f"1 objects of {place.source} would be adopted; 0 objects would change."
    assert not place.ground.state(APP).exists()
    assert place.memory == UnitMemory(APP)

    done = place.runs(2)
    assert (done.outcome, done.reason) == (Outcome.SUCCEEDED, "Adopted"), done.message
    assert done.plan is not None
    assert done.plan.changes == ()
    assert done.message == f"{place.source} is adopted; 0 objects changed."
    kept = place.ground.state(APP).read_bytes()
    assert identities(kept) == identities(before)
    assert json.loads(kept)["resources"][0]["module"] == "module.unit"
    assert (place.memory.mark, place.memory.adopted and place.memory.adopted.found) == (TAKEN, StateMark(OLD, 7))
    assert place.source.read_bytes() == before
    (record,) = place.records()
    assert (record["change"], record["before"], record["adopted_from"]) == ("adopted", None, str(place.source))
    assert record["origin"]["plan"]

    # The line may stay; so may what it names, or go.
    place.source.unlink()
    assert place.runs(3).reason == "InSync"
    assert place.ground.state(APP).read_bytes() == kept
    place.ground.merge({f"{PROD}/app.yaml": note()})
    assert place.runs(4).reason == "InSync"


def test_what_the_plan_changes_besides_is_applied_in_the_same_job(place: Place) -> None:
    place.ground.merge({f"{PROD}/app.yaml": place.app("two")})
    done = place.runs()
    assert (done.reason, done.message) == ("Adopted", f"{place.source} is adopted; 1 objects changed.")
    assert done.plan is not None
    assert [change.actions for change in done.plan.changes] == [("update",)]
    assert [one["change"] for one in place.records()] == ["adopted", "applied"]
    (found,) = identities(place.ground.state(APP).read_bytes()).values()
    assert isinstance(found, dict)
    assert (found["id"], found["input"]["value"]) == ("old-id", "two")


def test_what_was_let_go_may_be_adopted_again(place: Place) -> None:
    assert place.runs(1).reason == "Adopted"
    place.ground.merge({f"{PROD}/app.yaml": place.app(more="state: forgotten\n")})
    assert place.runs(2).reason == "Forgotten"
    assert place.memory.adopted is None
    place.ground.merge({f"{PROD}/app.yaml": place.app()})
    assert place.runs(3).reason == "Adopted"


# --- what is held


EXTRA = noted("gone", name="extra", key="extra-id")


@pytest.mark.parametrize("more", ["", "allow_destroy: 5\n"])
def test_a_first_plan_that_destroys_is_held_whatever_is_allowed(place: Place, more: str) -> None:
    place.source.write_bytes(old_state(noted(), EXTRA))
    place.ground.merge({f"{PROD}/app.yaml": place.app(more=more)})
    held = place.runs()
    assert (held.outcome, held.reason) == (Outcome.HELD, "AdoptionDestroys")
    assert "module.unit.terraform_data.extra" in held.message
    assert str(place.source) in held.message
    assert not place.ground.state(APP).exists()
    assert (place.memory.mark, place.memory.adopted, place.records()) == (None, None, [])


def test_a_first_plan_that_replaces_is_held(place: Place) -> None:
    broken = noted()
    broken["instances"][0]["status"] = "tainted"
    place.source.write_bytes(old_state(broken))
    held = place.runs()
    assert (held.reason, held.outcome) == ("AdoptionDestroys", Outcome.HELD)
    assert "module.unit.terraform_data.this" in held.message


def test_what_drifts_apart_right_after_it_was_written_is_held_too(place: Place) -> None:
    """Written and not yet in order: killed there, the next job's plan is still the first one."""
    put(place.ground.state(APP), old_state(noted(), EXTRA, lineage=OLD))
    adopted = Adopted(str(place.source), StateMark(OLD, 6), StateMark(OLD, 7), "")
    place.host.memory.save(UnitMemory(APP, mark=StateMark(OLD, 7), adopted=adopted))
    raw = json.loads(place.ground.state(APP).read_bytes())
    for one in raw["resources"]:
        one["module"] = "module.unit"
    put(place.ground.state(APP), json.dumps(raw).encode())
    place.ground.merge({f"{PROD}/app.yaml": place.app(more="allow_destroy: 5\n")})
    assert place.runs().reason == "AdoptionDestroys"


@pytest.mark.parametrize(
    ("known", "there", "words"),
    [
        (remembered(APP), state(1), "has a state of its own, and a unit has one"),
        (
            remembered(APP, adopted=Adopted("/elsewhere", TAKEN, TAKEN, "")),
            state(1),
            "has a state adopted from /elsewhere, and a unit has one",
        ),
        (UnitMemory(APP), state(1), "has a state already that its adoption did not write"),
    ],
)
def test_a_unit_that_has_a_state_adopts_none(place: Place, known: UnitMemory, there: bytes, words: str) -> None:
    place.host.memory.save(known)
    put(place.ground.state(APP), there)
    held = place.runs()
    assert (held.outcome, held.reason) == (Outcome.HELD, "AdoptConflict" if known.mark else "MemoryLost")
    if known.mark:
        assert words in held.message
    assert place.ground.state(APP).read_bytes() == there
    assert place.memory == known


def test_a_state_that_came_meanwhile_is_not_overwritten(place: Place) -> None:
    place.host.memory.save(remembered(OTHER))
    put(place.ground.state(OTHER), state(1))
    put(place.ground.state(APP), state(3, lineage="somebody's"))
    held = place.runs()
    assert (held.outcome, held.reason) == (Outcome.HELD, "AdoptConflict")
    assert "its adoption did not write" in held.message
    assert place.ground.state(APP).read_bytes() == state(3, lineage="somebody's")
    assert place.memory.adopted is None


def test_one_state_has_one_owner(place: Place) -> None:
    copy = place.source.with_name("copy.tfstate")
    assert place.runs(1).reason == "Adopted"
    put(copy, place.source.read_bytes())
    place.ground.merge({f"{PROD}/app.yaml": note(), f"{PROD}/other.yaml": place.app(source=copy)})
    held = place.runs(2, unit=OTHER)
    assert (held.outcome, held.reason) == (Outcome.HELD, "AdoptConflict")
    assert f"is the state of {APP} already" in held.message
    assert not place.ground.state(OTHER).exists()


@pytest.mark.parametrize("written", [True, False])
def test_an_adoption_that_died_elsewhere_counts_once_it_was_written(place: Place, *, written: bool) -> None:
    dead = Adopted("/elsewhere", StateMark(OLD, 7), TAKEN, "")
    place.host.memory.save(UnitMemory(OTHER, adopted=dead))
    if written:
        place.host.memory.save(remembered("prod/some"))
        put(place.ground.state(UnitId("prod/some")), state(1))
        put(place.ground.state(OTHER), old_state())
    done = place.runs()
    assert (done.reason, place.ground.state(APP).exists()) == (
        ("AdoptConflict", False) if written else ("Adopted", True)
    )


def test_two_entries_of_one_state_are_both_refused(place: Place) -> None:
    place.ground.merge({f"{PROD}/other.yaml": place.app()})
    held = place.runs()
    assert (held.outcome, held.reason) == (Outcome.HELD, "AdoptInvalid")
    assert f"{OTHER} adopts the same state" in held.message


def test_a_state_that_changes_after_its_plan_is_not_adopted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = adoption.read, []

    def read(*words: Any) -> Any:
        found = real(*words)
        asked.append(found)
        place.source.write_bytes(old_state(serial=8))
        return found

    monkeypatch.setattr(adoption, "read", read)
    failed = place.runs()
    assert (failed.outcome, failed.reason, failed.transient) == (Outcome.FAILED, "AdoptChanged", True)
    assert len(asked) == 2
    assert not place.ground.state(APP).exists()
    assert place.memory.adopted is None


@pytest.mark.parametrize(
    ("raw", "reason", "words"),
    [
        (old_state(version="99.0.0"), "EngineOlder", "99.0.0"),
        (b'{"version": 3}', "AdoptInvalid", "format 3"),
        (b"\x00\x01", "AdoptInvalid", "no Terraform state"),
        (b'{"encrypted_data": "x"}', "AdoptInvalid", "no Terraform state"),
        (old_state().replace(b'"provider":', b'"other":'), "AdoptInvalid", "cannot be read as a state (KeyError"),
        (old_state(dict(noted(), instances=[])), "AdoptInvalid", "has no objects"),
        (old_state(dict(noted(), module="module.unit")), "AdoptInvalid", "use `moved_from`"),
        (old_state(dict(noted(), instances=[{"attributes": float("nan")}])), "AdoptInvalid", "NaN"),
    ],
)  # fmt: skip
def test_what_cannot_be_adopted(place: Place, raw: bytes, reason: str, words: str) -> None:
    place.source.write_bytes(raw)
    held = place.runs()
    assert (held.outcome, held.reason) == (Outcome.HELD, reason)
    assert words in held.message
    assert not place.ground.state(APP).exists()


def test_a_state_that_somebody_is_changing_waits(place: Place) -> None:
    lock = place.source.with_name(".terraform.tfstate.lock.info")
    lock.touch()
    failed = place.runs(1)
    assert (failed.outcome, failed.reason, failed.transient) == (Outcome.FAILED, "AdoptLocked", True)
    lock.unlink()
    assert place.runs(2).reason == "Adopted"


# --- where it may come from


def test_only_what_the_host_lists_is_read(place: Place) -> None:
    elsewhere = place.source.parents[1] / "secret" / "x.tfstate"
    put(elsewhere, old_state())
    link, pipe = place.source.with_name("link"), place.source.with_name("pipe")
    link.symlink_to(elsewhere)
    os.mkfifo(pipe)
    cases: tuple[tuple[object, str], ...] = (
        (elsewhere, "AdoptNotAllowed"),
        (link, "AdoptNotAllowed"),
        ("/nowhere/at/all", "AdoptNotAllowed"),
        ("s3://bucket/key", "AdoptNotAllowed"),
        (place.source.with_name("missing"), "AdoptUnavailable"),
        (place.source.parent, "AdoptUnavailable"),
        (pipe, "AdoptUnavailable"),
    )
    for number, (source, reason) in enumerate(cases):
        place.ground.merge({f"{PROD}/app.yaml": place.app(source=source)})
        said = place.runs(number)
        assert said.reason == reason, (source, said.message)
    assert not place.ground.state(APP).exists()


def test_nothing_of_this_runner_is_adopted(tmp_path: Path) -> None:
    made = ground(tmp_path, {}, environments={"prod": {"adopt": [{"local": {"path": str(tmp_path)}}]}})
    place = Place(made, open_host(made), made.state(OTHER))
    place.host.memory.save(remembered(OTHER))
    put(place.source, old_state())
    spool = place.host.memory.folder / "spool" / "x" / "unit.tfstate"
    put(spool, old_state())
    try:
        for number, source in enumerate((place.source, spool)):
            made.merge({f"{PROD}/app.yaml": place.app(source=source)})
            held = place.runs(number)
            assert (held.outcome, held.reason) == (Outcome.HELD, "AdoptNotAllowed")
            assert "nothing is adopted from there" in held.message
    finally:
        made.close()


def test_from_a_bucket_into_a_bucket(tmp_path: Path) -> None:
    with serving() as aws:
        aws.reset()
        aws.put({"old/net/a.tfstate": old_state(), "older/a": old_state(), "prod/other.tfstate": state(1)})
        place = {"bucket": BUCKET, "region": REGION, "use_path_style": True}
        keys = {name: (tmp_path / name, "secret") for name in ("plan", "apply")}
        adopt = [{"s3": {**place, "prefix": prefix}} for prefix in ("old/", "prod", "locked")]
        made = ground(tmp_path, {}, environments={"prod": {**prod(aws, ACCOUNT, **keys), "adopt": adopt}})
        it = Place(made, open_host(made), Path())
        it.host.memory.save(remembered(OTHER))
        aws.put({"locked": old_state(), "locked.tflock": b"{}"})
        wrong = {
            "older/a": "AdoptNotAllowed",
            "prod/other.tfstate": "AdoptNotAllowed",
            "locked": "AdoptLocked",
            "old/missing": "AdoptUnavailable",
            "old/net/a.tfstate": "Adopted",
        }
        try:
            for number, (key, reason) in enumerate(wrong.items()):
                made.merge({f"{PROD}/app.yaml": it.app(source=f"s3://{BUCKET}/{key}")})
                said = it.runs(number)
                assert said.reason == reason, said.message
        finally:
            made.close()
        objects = aws.contents()
        assert objects["old/net/a.tfstate"] == old_state()
        assert identities(objects["prod/app.tfstate"]) == identities(old_state())
        assert "prod/app.tfstate.tflock" not in objects


# --- killed


def killed_at(place: Place, number: int, when: Callable[[Path], bool], *, before: bool) -> None:
    """Run the job in a process that kills itself before, or right after, it puts such a file in place."""
    child = os.fork()
    if not child:
        real = os.replace

        def replace(source: Any, target: Any) -> None:
            wanted = when(Path(target))
            if wanted and before:
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, target)
            if wanted:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace  # type: ignore[assignment]
        try:
            place.runs(number)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it came to its end"


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("file", ["units/prod/app.json", "states/prod/app.tfstate", "audit/last/prod%app"])
def test_an_adoption_that_is_killed_comes_to_its_end_once(place: Place, file: str, *, before: bool) -> None:
    killed_at(place, 1, lambda target: str(target).endswith(file), before=before)
    done = place.runs(2)
    assert (done.outcome, done.reason) == (Outcome.SUCCEEDED, "Adopted"), done.message
    assert [one["change"] for one in place.records()] == ["adopted"]
    assert place.memory.mark == TAKEN
    assert identities(place.ground.state(APP).read_bytes()) == identities(place.source.read_bytes())


def test_an_adoption_that_was_written_is_finished_without_its_source_or_its_line(place: Place) -> None:
    killed_at(place, 1, lambda target: target.name == "app.tfstate", before=False)
    place.source.unlink()
    place.ground.merge({f"{PROD}/app.yaml": note()})
    assert place.runs(2).reason == "Adopted"
    assert [one["change"] for one in place.records()] == ["adopted"]


def test_the_line_means_nothing_where_the_unit_goes() -> None:
    class Going:
        presence = Presence.ABSENT

        class entry:  # noqa: N801
            adopt = "/a"

    unit: Any = Going()
    assert adoption.wanted(unit, UnitMemory(APP)) is None
    assert adoption.unsettled(unit, UnitMemory(APP, adopted=Adopted("/a", TAKEN, TAKEN, ""))) is None
    unit.presence = Presence.PRESENT
    taken = UnitMemory(APP, applied=applied(presence=Presence.FORGOTTEN), adopted=Adopted("/a", TAKEN, TAKEN, ""))
    assert adoption.unsettled(unit, taken) == "/a"
