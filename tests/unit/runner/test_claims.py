from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler import codec
from reconciler.demo.playground import Playground
from reconciler.errors import HeldError, UnitError
from reconciler.model import Operation, Outcome, StateMark, UnitId
from reconciler.runner import claims
from reconciler.runner.claims import LOOK_AGAIN, Claim
from reconciler.runner.host import Host
from reconciler.runner.memory import UnitMemory
from reconciler.runner.terraform.state import LocalBackend
from tests.kit.plane import LINEAGE, NOW, carry_out, ground, job, note, open_host, put, remembered, state

APP, NET = UnitId("prod/app"), UnitId("prod/deep/net")


@dataclass
class Place:
    """A host of prod, and its backend looked at from behind."""

    ground: Playground
    host: Host

    @property
    def path(self) -> Path:
        return self.ground.state(APP).with_name(".reconciler.json")

    def ensure(self) -> None:
        claims.ensure(self.host, self.host.environment("prod", Operation.APPLY))

    def held(self) -> str:
        with pytest.raises(HeldError) as held:
            self.ensure()
        assert held.value.reason == "MemoryLost"
        return str(held.value)

    def claim(self) -> Claim:
        return codec.decode(Claim, self.path.read_bytes())

    def begin_again(self) -> None:
        """The runner's process is another one."""
        self.host = open_host(self.ground)

    def forget(self) -> None:
        """The runner's memory is gone."""
        (self.ground.folder / "runner").rename(self.ground.folder / f"gone-{time.monotonic_ns()}")
        (self.ground.folder / "runner").mkdir(mode=0o700)
        self.begin_again()

    def age(self) -> None:
        """The claim was read a while ago."""
        then = time.time() - 2 * LOOK_AGAIN
        os.utime(self.host.memory.folder / "claims" / "prod", (then, then))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = ground(tmp_path, {"app": note()})
    yield Place(made, open_host(made))
    made.close()


def test_the_first_apply_claims_and_every_later_one_finds_its_own(place: Place) -> None:
    place.ensure()
    found = place.claim()
    assert found.installation == "reconciler"
    assert found.memory == place.host.memory.seal("whose states these are")
    assert place.path.stat().st_mode & 0o777 == 0o600
    place.begin_again()
    place.ensure()
    assert place.claim() == found


def test_it_is_read_once_per_process_and_again_after_a_while(place: Place) -> None:
    place.ensure()
    place.path.write_text("{}")
    place.ensure()
    place.age()
    assert "cannot be read" in place.held()
    place.path.unlink()
    place.ensure()
    place.path.write_text("{}")
    place.begin_again()
    assert "cannot be read" in place.held()


def test_killed_right_after_the_claim_was_written(place: Place) -> None:
    place.ensure()
    (place.host.memory.folder / "claims" / "prod").unlink()
    place.ensure()


def test_an_empty_memory_on_a_host_that_has_applied_is_held(place: Place) -> None:
    place.ensure()
    place.forget()
    said = place.held()
    assert said.startswith("Nothing is applied in prod: the states of prod belong to another memory since ")
    assert "bring this runner's memory back from its backup" in said
    assert said.endswith("run `reconciler runner claim prod` on its host.")
    assert not (place.host.memory.folder / "claims").exists()


def test_another_installation_with_the_same_backend_is_held(place: Place, tmp_path: Path) -> None:
    place.ensure()
    states = str(place.ground.folder / "states")
    other = ground(
        tmp_path / "other",
        {"app": note()},
        installation="other",
        environments={"prod": {"backend": {"local": {"path": states}}}},
    )
    second = Place(other, open_host(other))
    assert "belong to the installation 'reconciler'" in second.held()
    place.begin_again()
    place.ensure()


def test_states_without_a_claim_are_an_empty_memorys_only_if_there_are_none(place: Place) -> None:
    put(place.ground.state(APP), state())
    assert "there are states of prod that this memory never saw" in place.held()
    assert not place.path.exists()
    # That some job had nothing to do is no proof that the states are known.
    place.host.memory.save(UnitMemory(NET))
    place.host.memory.save(remembered(APP, mark=StateMark("another", 1)))
    place.held()
    place.host.memory.save(remembered(APP))
    place.ensure()  # an older version left the state, and made no claims


def test_a_state_that_cannot_be_read_proves_nothing(place: Place) -> None:
    put(place.ground.state(APP), b"no state")
    place.host.memory.save(remembered(APP))
    place.held()


def test_of_two_that_begin_at_once_one_is_held(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    write = LocalBackend.write_claim

    def slower(self: LocalBackend, environment: str, claim: bytes, *, anew: bool) -> None:
        put(place.path, codec.encode(Claim("faster", "its memory", NOW)))
        write(self, environment, claim, anew=anew)

    monkeypatch.setattr(LocalBackend, "write_claim", slower)
    assert "belong to the installation 'faster'" in place.held()
    assert place.claim().installation == "faster"


# --- the way out


def test_an_admin_takes_the_states_over_as_they_are(place: Place) -> None:
    place.ensure()
    put(place.ground.state(APP), state(7))
    put(place.ground.state(NET), state(3))
    put(place.ground.state("stage/app"), state(3))
    place.forget()
    place.held()
    assert claims.claim(place.host, "prod") == (APP, NET)
    assert place.host.memory.unit(APP) == UnitMemory(APP, mark=StateMark(LINEAGE, 7))
    place.ensure()
    # Once more, nothing happens: a state that is put there later is not taken over.
    put(place.ground.state("prod/planted"), state(1))
    assert claims.claim(place.host, "prod") == ()
    assert place.host.memory.unit(UnitId("prod/planted")).mark is None


@pytest.mark.parametrize("looked", [False, True])
def test_what_was_allowed_and_spent_before_is_not_open_once_more(looked: bool, place: Place) -> None:
    head = place.ground.merge({"environments/prod/app.yaml": note(more="allow_destroy: 3\n")})
    assert carry_out(place.host, job(APP, head)).reason == "Applied"
    place.host.history.spend(APP, place.host.memory.trust().allowances[APP].opened)
    place.forget()
    if looked:
        assert carry_out(place.host, job(APP, head, 2)).reason == "MemoryLost"
    claims.claim(place.host, "prod")
    assert carry_out(place.host, job(APP, head, 3)).reason == "InSync"
    allowed = place.host.memory.trust().allowances[APP]
    assert (allowed.seen.destroy, allowed.opened) == (3, {})
    newer = place.ground.merge({"environments/prod/app.yaml": note(more="allow_destroy: 2\n")})
    place.host.history.newest(newer, Operation.APPLY, since=time.time())
    assert list(place.host.memory.trust().allowances[APP].opened) == ["destroy"]


def test_killed_in_the_middle_of_it(place: Place) -> None:
    place.ensure()
    put(place.ground.state(APP), state(7))
    put(place.ground.state(NET), b"no state")
    place.forget()
    with pytest.raises(UnitError):
        claims.claim(place.host, "prod")
    place.held()
    put(place.ground.state(NET), state(3))
    assert claims.claim(place.host, "prod") == (NET,)
    place.ensure()


def test_what_is_remembered_is_not_taken_for_what_is_there(place: Place) -> None:
    put(place.ground.state(APP), state(7))
    put(place.path, b"{}")
    place.host.memory.save(remembered(APP, mark=StateMark("another", 9)))
    place.host.memory.save(remembered(NET, mark=None, moved_to=APP))
    put(place.ground.state(NET), state(1))
    assert claims.claim(place.host, "prod") == ()
    assert place.host.memory.unit(APP).mark == StateMark("another", 9)


# --- in a job


def test_a_job_with_an_empty_memory_is_held_and_says_why(place: Place) -> None:
    head = place.ground.environments.head
    assert carry_out(place.host, job(APP, head)).outcome is Outcome.SUCCEEDED
    assert place.claim().memory == place.host.memory.seal("whose states these are")
    kept = place.ground.state(APP).read_bytes()
    place.forget()
    for number, operation in enumerate(Operation):
        result = carry_out(place.host, job(APP, head, number, operation=operation))
        assert (result.outcome, result.reason) == (Outcome.HELD, "MemoryLost")
    new = place.ground.merge({"environments/prod/new.yaml": note("new")})
    planned = carry_out(place.host, job("prod/new", new, 3, operation=Operation.PLAN))
    assert (planned.outcome, planned.reason) == (Outcome.SUCCEEDED, "Planned")
    held = carry_out(place.host, job("prod/new", new, 4))
    assert (held.outcome, held.reason) == (Outcome.HELD, "MemoryLost")
    assert held.plan is not None
    assert not place.ground.state("prod/new").exists()
    assert place.ground.state(APP).read_bytes() == kept
    claims.claim(place.host, "prod")
    assert carry_out(place.host, job(APP, new, 5)).reason == "InSync"
    assert carry_out(place.host, job("prod/new", new, 6)).reason == "Applied"
