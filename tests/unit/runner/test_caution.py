"""A memory that was put back to a backup: what it cannot know counts against the change."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.branch.protected import ProtectedBranch
from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground
from reconciler.errors import HeldError
from reconciler.git.head import Head
from reconciler.model import Allowances, Commit, Desired, Hold, Operation, Presence, ReviewMode, StateMark, UnitId
from reconciler.runner import caution, checks, claims
from reconciler.runner.access.sts import NOBODY
from reconciler.runner.allowances import Allowed
from reconciler.runner.history import FRESH
from reconciler.runner.host import Host, Hosted
from reconciler.runner.memory import Release, UnitMemory
from reconciler.runner.progress import Progress
from reconciler.runner.restored import Restored
from reconciler.runner.settling import settle
from reconciler.runner.terraform.creation import Creation
from reconciler.trust import Unproven
from tests.kit.plane import LINEAGE, NOW, PROD, applied, ground, job, note, open_host, put, remembered, state

APP, NET, NEW = UnitId("prod/app"), UnitId("prod/net"), UnitId("prod/new")
AT = datetime(2026, 11, 25, tzinfo=UTC)


@dataclass
class Place:
    """A host of prod whose memory was just put back to a backup of its first accepted head."""

    ground: Playground
    host: Host

    @property
    def hosted(self) -> Hosted:
        return self.host.environment("prod", Operation.APPLY)

    def accept(self) -> Desired:
        """Look at the branch again."""
        stamp = self.host.memory.folder / "fetched"
        if stamp.exists():
            long_ago = time.time() - 2 * FRESH
            os.utime(stamp, (long_ago, long_ago))
        return self.host.history.newest(self.ground.environments.head, Operation.PLAN)

    def merge(self, **files: str | None) -> Commit:
        changes: Files = {f"{PROD}/{name}.yaml": text for name, text in files.items()}
        return self.ground.merge(changes)

    def state(self, unit: UnitId, lineage: str) -> None:
        put(self.ground.state(unit), state(4, lineage=lineage))

    def known(self, unit: UnitId) -> UnitMemory:
        return caution.since_restored(self.host, self.hosted, self.host.memory.unit(unit))

    def opened(self) -> set[str]:
        return set(self.host.memory.trust().allowances.get(APP, Allowed()).opened)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = ground(tmp_path, {"app": note(), "net": note(), "gone": note(more="state: absent\n")})
    place = Place(made, open_host(made))
    place.accept()
    claims.ensure(place.host, place.hosted)
    memory = place.host.memory
    memory.save_trust(replace(memory.trust(), closed=True))
    memory.save_restored(Restored(AT, "abc", NOW, memory.trust().commit))
    yield place
    made.close()


# --- allowances


def allowing(number: int) -> str:
    return note(more=f"allow_destroy: {number}\n")


def test_what_was_merged_before_the_first_look_opens_nothing_and_what_follows_does(place: Place) -> None:
    place.merge(app=allowing(2))
    place.accept()
    assert place.opened() == set()
    assert place.host.memory.trust().allowances[APP].seen == Allowances(destroy=2)
    place.merge(app=allowing(3))
    place.accept()
    assert place.opened() == {"destroy"}


def test_where_nothing_was_merged_before_it_the_next_merge_opens(place: Place) -> None:
    place.accept()
    place.merge(app=allowing(2))
    place.accept()
    assert place.opened() == {"destroy"}


def test_what_the_branch_had_at_the_first_look_opens_nothing_though_it_is_proven_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = place.merge(net=note("two")), place.merge(app=allowing(2))
    source = _branch(place).source
    with monkeypatch.context() as patch:  # as while the forge does not answer for the second
        real = source.poll
        waiting = Unproven(second, "ForgeUnreachable", "later", second)
        patch.setattr(source, "poll", lambda: _only(real(), first, waiting))
        place.host.history.newest(first, Operation.PLAN)
    trust = place.host.memory.trust()
    assert (trust.commit, trust.closed, trust.closed_until) == (first, True, second)
    place.accept()
    trust = place.host.memory.trust()
    assert (trust.commit, trust.closed, trust.closed_until) == (second, False, None)
    assert place.opened() == set()
    place.merge(app=allowing(3))
    place.accept()
    assert place.opened() == {"destroy"}


def test_what_ends_by_itself_does_not_move_it(place: Place) -> None:
    memory = place.host.memory
    memory.save_trust(replace(memory.trust(), frozen=Hold("BranchMissing", "it was gone", plans=True), frozen_at=NOW))
    place.accept()
    trust = memory.trust()
    assert (trust.frozen, trust.closed, trust.closed_until) == (None, True, trust.commit)


def _branch(place: Place) -> ProtectedBranch:
    return place.host.history._branch


def _only(head: Head, commit: Commit, waiting: Unproven) -> Head:
    return replace(head, commit=commit, chain=head.chain[: head.chain.index(commit) + 1], unproven=waiting)


# --- states


def test_a_state_that_came_about_since_is_the_memorys_own(place: Place) -> None:
    place.state(NEW, "since")
    assert place.known(NEW).mark == StateMark("since", 4)
    checks.state_is_ours(place.known(NEW), place.hosted.backend.read(NEW))
    place.state(NET, "later")  # after the first look nothing is taken for granted any more
    with pytest.raises(HeldError, match="never wrote"):
        checks.state_is_ours(place.known(NET), place.hosted.backend.read(NET))


def test_a_unit_that_was_let_go_and_made_anew_has_another_state(place: Place) -> None:
    place.host.memory.save(remembered(APP))
    place.state(APP, "since")
    assert place.known(APP).mark == StateMark("since", 4)
    assert place.known(APP).applied == applied()


def test_what_the_memory_knows_stays_what_it_knows(place: Place) -> None:
    place.host.memory.save(remembered(APP, mark=StateMark(LINEAGE, 9)))
    place.state(APP, LINEAGE)
    with pytest.raises(HeldError, match="serial is 4, and 9 was left there"):
        checks.state_is_ours(place.known(APP), place.hosted.backend.read(APP))


def test_without_a_claim_of_its_own_no_state_is(place: Place) -> None:
    place.state(NEW, "since")
    place.ground.state(APP).with_name(".reconciler.json").write_text(
        '{"installation": "other", "memory": "another", "at": "2026-11-24T10:00:00Z"}'
    )
    assert place.known(NEW).mark is None


def test_a_memory_that_was_never_restored_takes_nothing_over(place: Place) -> None:
    (place.host.memory.folder / "restored.json").unlink()
    place.state(NEW, "since")
    assert place.known(NEW) == UnitMemory(NEW)


def test_a_state_that_moved_since_reads_under_its_new_name_alone(place: Place) -> None:
    reader = remembered("prod/reader", mark=StateMark("moved", 1), applied=applied(reads=frozenset({NET})))
    place.host.memory.save(reader)
    place.state(NEW, "moved")
    assert place.known(NEW).mark == StateMark("moved", 4)
    assert place.host.memory.unit(reader.unit).moved_to == NEW
    gone = place.accept().units[UnitId("prod/gone")]
    checks.still_unread(place.host.memory, replace(gone, id=NET))


# --- what reads what


def test_nothing_goes_until_all_that_may_read_it_was_looked_at(place: Place) -> None:
    desired = place.accept()
    gone, memory = desired.units[UnitId("prod/gone")], place.host.memory
    memory.save(remembered(APP))
    with pytest.raises(
        HeldError, match=r"looked at prod/app, prod/net, which may read prod/gone; .*reconcile prod"
    ) as held:
        caution.none_doubted(place.host, place.hosted, gone, desired)
    assert held.value.reason == "StillReferenced"
    for unit in (APP, NET):
        memory.save(remembered(unit, applied=applied(at=AT + timedelta(seconds=1))))
    caution.none_doubted(place.host, place.hosted, gone, desired)
    memory.save(remembered(NET, applied=applied(at=AT)))
    with pytest.raises(HeldError, match="looked at prod/net, which"):
        caution.none_doubted(place.host, place.hosted, gone, desired)
    assert gone.presence is Presence.ABSENT
    caution.none_doubted(place.host, place.hosted, desired.units[APP], desired)
    (memory.folder / "restored.json").unlink()
    caution.none_doubted(place.host, place.hosted, gone, desired)


# --- versions


def test_a_version_that_was_named_since_counts_as_the_one_before(place: Place) -> None:
    place.host.memory.save(remembered(APP, release=Release("acme", "modules/note", "acme/note", "1.0.0")))
    place.merge(app=note().replace("1.0.0", "1.3.0"))
    place.merge(app=note().replace("1.0.0", "1.2.0"))
    place.merge(app="module: [")
    place.merge(app=note("two"))
    desired = place.accept()
    unit, memory = desired.units[APP], place.host.memory.unit(APP)
    doubted = caution.newest_release(place.host, unit, memory, desired.commit)
    with pytest.raises(HeldError, match=r"1\.0\.0 is older than 1\.3\.0"):
        checks.no_downgrade(unit, doubted, Allowances())
    checks.no_downgrade(unit, doubted, Allowances(downgrade=True))
    sure = replace(memory, applied=applied(at=AT + timedelta(seconds=1)))
    assert caution.newest_release(place.host, unit, sure, desired.commit) == sure


# --- reviews


def test_what_pull_requests_brought_needs_the_review_that_was_forgotten(place: Place) -> None:
    place.merge(app=note("two"))
    desired = place.accept()
    unit, memory = desired.units[APP], remembered(APP)

    def mode(seen: UnitMemory = memory, *, shown: bool = False) -> ReviewMode:
        return caution.review_mode(place.host, unit, seen, desired.commit, shown=shown)

    assert mode() is ReviewMode.WHEN_AVAILABLE  # no pull request brought anything
    place.host.history.pull_of = lambda _: 7
    assert mode() is ReviewMode.REQUIRED
    assert mode(shown=True) is ReviewMode.WHEN_AVAILABLE
    assert mode(replace(memory, applied=applied(at=AT + timedelta(seconds=1)))) is ReviewMode.WHEN_AVAILABLE
    (place.host.memory.folder / "restored.json").unlink()
    assert mode() is ReviewMode.WHEN_AVAILABLE


# --- what nobody remembers


VPC = Creation("module.unit.aws_vpc.this", "aws_vpc", "hashicorp/aws", tagged=True)
THING = Creation("module.unit.thing.this", "thing", "acme/things")


def test_what_an_apply_makes_is_looked_for_once_first(place: Place) -> None:
    desired = place.accept()
    unit, memory = desired.units[APP], place.host.memory

    def look(*makes: Creation) -> UnitMemory:
        progress = Progress(job(APP, desired.commit), NOW)
        known = memory.unit(APP)
        return caution.nothing_left(place.host, place.hosted, unit, known, makes, progress, NOBODY)

    memory.save(remembered(APP))
    assert look(THING).suspicion is None  # nobody can look for it
    with pytest.raises(
        HeldError, match=r"could not be looked up: no region is known; .*runner settle prod/app"
    ) as held:
        look(VPC, THING)
    assert held.value.reason == "Uncertain"
    suspicion = memory.unit(APP).suspicion
    assert suspicion is not None
    assert (suspicion.suspects, suspicion.since) == ((VPC,), NOW)
    settle(memory, APP)
    assert look(VPC).suspicion is None
    restored = memory.restored()
    assert restored is not None
    assert restored.searched == {APP}


def test_it_is_not_where_the_memory_knows_better(place: Place) -> None:
    desired = place.accept()
    unit = desired.units[APP]
    sure = remembered(APP, applied=applied(at=AT + timedelta(seconds=1)))
    progress = Progress(job(APP, desired.commit), NOW)
    assert caution.nothing_left(place.host, place.hosted, unit, sure, (VPC,), progress, NOBODY) is sure
