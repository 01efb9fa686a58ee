"""The controller's eye on the branch: what it journals, in which order, and how often it says so."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from reconciler.branch.protected import open_branch
from reconciler.controller.daemon import SystemClock
from reconciler.controller.poller import AcceptedInStore, Poller
from reconciler.errors import PassError
from reconciler.logs import open_log
from reconciler.model import Hold, Ledger
from reconciler.observe import Observer
from reconciler.runner.history import History
from reconciler.runner.memory import Memory
from reconciler.store.sqlite import SqliteStore
from reconciler.trust import REWRITTEN, ROLLED_BACK
from tests.kit.signing import SshKeys
from tests.kit.topology import Seen, Stage


@dataclass
class Office:
    """One controller over a scene, in one process."""

    stage: Stage
    store: SqliteStore
    poller: Poller
    observer: Observer
    woken: list[str]

    def counted(self, reason: str) -> float:
        value = self.observer.registry.get_sample_value(
            "reconciler_commits_rejected_total", {"repository": "environments", "reason": reason}
        )
        return value or 0.0

    @property
    def unverified(self) -> float | None:
        return self.observer.registry.get_sample_value("reconciler_unverified_head", {"repository": "environments"})

    @property
    def ledger(self) -> Ledger:
        return self.store.ledger()

    def actions(self) -> list[str]:
        """What was journaled, oldest first."""
        return [event.action for event in reversed(self.store.history("all", 100))]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    yield from _office(Stage.open(tmp_path))


@pytest.fixture
def signed(tmp_path: Path, ssh_keys: SshKeys) -> Iterator[Office]:
    yield from _office(Stage.open(tmp_path, ssh_keys))


def _office(stage: Stage) -> Iterator[Office]:
    clock, woken = SystemClock(), list[str]()
    config = stage.planes[0].controller()
    observer = Observer("test", open_log(io.StringIO(), as_json=True), clock.now, ["environments"])
    with closing(SqliteStore(config.store_path, clock)) as store:
        branch = open_branch(config, AcceptedInStore(store))
        poller = Poller(branch, store, observer, lambda: woken.append("now"), clock)
        yield Office(stage, store, poller, observer, woken)


def test_a_new_head_is_journaled_with_its_chain_and_trust_starts_at_the_genesis(office: Office) -> None:
    office.stage.scene.push(office.stage.scene.chain("c", "genesis", 2))
    office.poller.poll()
    names = office.stage.scene.names
    (accepted,) = office.store.history("all", 10)
    assert accepted.body == {
        "commit": names["c-2"], "chain": [names["c-1"], names["c-2"]], "since": names["genesis"],
    }  # fmt: skip
    assert office.ledger.base == names["genesis"]
    assert office.woken


def test_a_verdict_is_journaled_once_counted_once_and_keeps_its_beginning(office: Office) -> None:
    scene = office.stage.scene
    scene.push(scene.chain("c", "genesis", 2))
    office.poller.poll()
    scene.push("c-1")
    office.poller.poll()
    began = office.ledger.frozen_at
    for _ in range(3):
        office.poller.poll()
    assert office.actions() == ["head-accepted", "frozen"]
    assert (office.counted(ROLLED_BACK), office.ledger.frozen_at) == (1, began)
    scene.push("genesis")
    office.poller.poll()
    assert office.actions() == ["head-accepted", "frozen", "frozen"]  # the message has another commit
    assert (office.counted(ROLLED_BACK), office.ledger.frozen_at) == (2, began)
    scene.push("c-2")
    office.poller.poll()
    assert office.actions()[3:] == ["thawed"]
    assert (office.ledger.frozen, office.ledger.frozen_at) == (None, None)
    assert office.poller.error is None


def test_a_rewrite_says_what_to_run_and_says_anew_when_the_branch_was_put_back(office: Office) -> None:
    scene = office.stage.scene
    office.poller.poll()
    scene.push(scene.chain("a", "genesis", 1))
    office.poller.poll()
    scene.commit("x", "genesis")
    scene.push("x")
    office.poller.poll()
    old, new = scene.names["a-1"], scene.names["x"]
    first = office.ledger.frozen
    assert first is not None
    assert first.plans
    assert f"`reconciler accept-history {old} {new} --reason R`" in first.message
    assert f"`reconciler runner accept-history {old} {new} --reason R`" in first.message
    began = office.ledger.frozen_at
    scene.push("a-1")
    office.poller.poll()
    again = office.ledger.frozen
    assert again is not None
    assert f"`reconciler accept-history {old} {old} --reason R`" in again.message
    assert (again.reason, office.ledger.frozen_at, office.ledger.head) == (REWRITTEN, began, old)
    assert office.poller.error is None  # the poll itself was good


def test_a_verdict_that_the_disk_did_not_take_stands_when_the_branch_is_put_back_first(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, poller = office.stage.scene, office.poller
    scene.push(scene.chain("a", "genesis", 1))
    poller.poll()
    assert poller.latest() is not None
    scene.commit("x", "genesis")
    scene.push("x")

    def full(*_: object, **__: object) -> None:
        raise PassError("StoreFull", "make room")

    with monkeypatch.context() as patch:
        patch.setattr(office.store, "append", full)
        for back in (False, True):
            if back:
                scene.push("a-1")
            poller.poll()
            assert poller.latest() is None  # nothing is begun
            frozen = poller.standing().frozen
            assert frozen is not None
            assert (frozen.reason, office.ledger.frozen) == (REWRITTEN, None)
            assert poller.error is not None
            assert poller.error.reason == "StoreFull"
            assert "find out who rewrote the branch" in str(poller.error)
            assert "make room" in str(poller.error)
    poller.poll()
    assert office.ledger.frozen is not None
    assert office.ledger.frozen.reason == REWRITTEN
    assert poller.latest() is not None
    assert poller.error is None


def test_accepting_a_history_is_one_event_with_its_actor(office: Office) -> None:
    scene = office.stage.scene
    scene.push(scene.chain("a", "genesis", 2))
    office.poller.poll()
    scene.push(scene.chain("x", "a-1", 2))
    office.poller.poll()
    done = office.poller.accept_history(scene.names["a-2"], scene.names["x-2"], "who rewrote it is known", "ada")
    (event,) = office.store.history("all", 1)
    assert (event.action, event.actor, event.body["reason"]) == ("history-accepted", "ada", "who rewrote it is known")
    assert done.chain == (scene.names["x-1"], scene.names["x-2"])
    assert done.abandoned == (scene.names["a-2"],)
    ledger = office.ledger
    assert (ledger.head, ledger.base, ledger.frozen, ledger.frozen_at) == (scene.names["x-2"],) * 2 + (None, None)
    assert [office.store.accepted(scene.names[name]) for name in ("a-1", "a-2", "x-1", "x-2")] == [
        True,
        False,
        True,
        True,
    ]
    latest = office.poller.latest()
    assert latest is not None
    assert latest.commit == scene.names["x-2"]


def test_what_is_not_proven_is_told_and_counted_once(signed: Office) -> None:
    scene = signed.stage.scene
    scene.commit("one", "genesis")
    scene.commit("two", "one", by=None)
    scene.commit("three", "two")
    scene.push("three")
    for _ in range(3):
        signed.poller.poll()
    assert signed.counted("SignatureMissing") == 1
    assert signed.unverified == 1
    standing = signed.poller.standing()
    assert standing.accepted_head == scene.names["one"]
    assert standing.seen is not None
    assert standing.seen.unproven is not None
    assert (standing.seen.unproven.commit, standing.seen.unproven.head) == (scene.names["two"], scene.names["three"])
    assert signed.ledger.frozen is None
    scene.commit("other", "one")
    scene.push("other")
    signed.poller.poll()
    assert signed.unverified == 0
    assert signed.ledger.head == scene.names["other"]


def test_an_outage_neither_freezes_nor_thaws(office: Office) -> None:
    scene = office.stage.scene
    scene.push(scene.chain("c", "genesis", 1))
    office.poller.poll()
    scene.repo.folder.rename(scene.folder / "away")
    office.poller.poll()
    assert office.poller.error is not None
    assert office.ledger.frozen is None
    (scene.folder / "away").rename(scene.repo.folder)
    scene.delete()
    office.poller.poll()
    frozen = office.ledger.frozen
    assert frozen is not None
    scene.repo.folder.rename(scene.folder / "away")
    office.poller.poll()
    assert office.ledger.frozen == frozen


# --- kill -9 between any two lines

DIED = -signal.SIGKILL


def killed_at(owner: type, name: str, *, after: bool, doing: Callable[[], object]) -> None:
    """Do it in a child that is killed right before or after the first call of `owner.name`."""
    child = os.fork()
    if child == 0:
        real = getattr(owner, name)

        def dying(*args: object, **words: object) -> None:
            if after:
                real(*args, **words)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, dying)
        try:
            doing()
        finally:
            os._exit(7)  # it never came there
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == DIED


def rewritten(stage: Stage) -> None:
    """Both planes have seen that `x` took the place of `a`."""
    scene = stage.scene
    scene.commit("a", "genesis")
    scene.push("a")
    assert [plane.look() for plane in stage.planes] == [Seen("a")] * 2
    scene.commit("x", "genesis")
    scene.push("x")
    assert [plane.look() for plane in stage.planes] == [Seen("a", REWRITTEN)] * 2


ACCEPTING = [
    (0, SqliteStore, "append", False, False),
    (0, SqliteStore, "append", True, True),
    (0, Poller, "_mean", False, True),
    (1, Memory, "save_trust", False, False),
    (1, Memory, "save_trust", True, True),
    (1, History, "_note_seen", False, True),
]


@pytest.mark.parametrize(("plane", "owner", "name", "after", "done"), ACCEPTING)
def test_accept_history_is_done_or_not_done_when_it_is_killed(
    tmp_path: Path, plane: int, owner: type, name: str, after: bool, done: bool
) -> None:
    stage = Stage.open(tmp_path)
    rewritten(stage)
    one = stage.planes[plane]
    killed_at(owner, name, after=after, doing=lambda: one.accept("a", "x"))
    assert one.look() == (Seen("x") if done else Seen("a", REWRITTEN))
    if not done:
        assert one.accept("a", "x") == Seen("x")
    stage.scene.commit("y", "x")
    stage.scene.push("y")
    assert one.look() == Seen("y")


LOOKING = [
    (0, SqliteStore, "append", False),
    (0, SqliteStore, "append", True),
    (1, Memory, "save_trust", False),
    (1, Memory, "save_trust", True),
]


@pytest.mark.parametrize(("plane", "owner", "name", "after"), LOOKING)
def test_a_verdict_and_an_acceptance_survive_a_death_at_any_line(
    tmp_path: Path, plane: int, owner: type, name: str, after: bool
) -> None:
    stage = Stage.open(tmp_path)
    one, scene = stage.planes[plane], stage.scene
    one.look()
    scene.commit("a", "genesis")
    scene.push("a")
    killed_at(owner, name, after=after, doing=one.look)
    assert one.look() == Seen("a")
    scene.commit("x", "genesis")
    scene.push("x")
    killed_at(owner, name, after=after, doing=one.look)
    scene.push("x" if not after else "a")  # once the verdict is on disk it stands, whatever the branch does
    assert one.look() == Seen("a", REWRITTEN)


def test_two_jobs_race_and_both_stand_at_the_same_head(tmp_path: Path) -> None:
    stage = Stage.open(tmp_path)
    runner = stage.planes[1]
    runner.look()
    scene = stage.scene
    scene.push(scene.chain("c", "genesis", 3))
    child = os.fork()
    if child == 0:
        os._exit(0 if runner.look() == Seen("c-3") else 1)
    assert runner.look() == Seen("c-3")
    assert os.waitpid(child, 0)[1] == 0


def test_a_freeze_gives_way_to_a_rewrite_only(tmp_path: Path) -> None:
    stage = Stage.open(tmp_path)
    rewritten(stage)
    stage.scene.delete()
    for plane in stage.planes:
        assert plane.look() == Seen("a", REWRITTEN)
        assert plane.error is not None


def test_a_hold_keeps_its_words_when_it_is_read_back(tmp_path: Path) -> None:
    stage = Stage.open(tmp_path)
    rewritten(stage)
    memory = Memory(stage.planes[1].runner().memory_path)
    trust = memory.trust()
    memory.save_trust(replace(trust, frozen=Hold(REWRITTEN, "as it was", plans=True)))
    history = History(memory, lambda accepted: open_branch(stage.planes[1].runner(), accepted))
    assert history.standing().frozen == Hold(REWRITTEN, "as it was", plans=True)


def test_accept_history_refuses_what_is_not_so_and_changes_nothing(office: Office) -> None:
    scene = office.stage.scene
    scene.push(scene.chain("a", "genesis", 1))
    office.poller.poll()
    with pytest.raises(PassError, match="the accepted head here is") as refused:
        office.poller.accept_history(scene.names["genesis"], scene.names["a-1"], "r", "ada")
    assert refused.value.reason == "HeadMoved"
    with pytest.raises(PassError, match="the branch's head is"):
        office.poller.accept_history(scene.names["a-1"], scene.names["genesis"], "r", "ada")
    assert office.actions() == ["head-accepted"]


def test_a_disk_that_takes_nothing_is_a_poll_that_failed_and_says_so(signed: Office) -> None:
    """It is neither a success nor an exception out of the thread; an admin who asks meanwhile gets an answer, too."""
    scene, poller = signed.stage.scene, signed.poller
    poller.poll()
    assert poller.error is None
    proofs = signed.stage.planes[0].controller().store_path.parent / "proofs"
    aside = proofs.rename(proofs.with_name("aside"))
    proofs.write_text("in the way")  # refuses every write below it, also of root
    scene.push(scene.chain("c", "genesis", 1))
    poller.poll()
    assert poller.error is not None
    assert (poller.error.reason, "proofs" in str(poller.error)) == ("DiskFault", True)
    with pytest.raises(PassError) as refused:
        poller.accept_history(scene.names["genesis"], scene.names["c-1"], "why", "ada")
    assert refused.value.reason == "DiskFault"
    assert signed.ledger.head == scene.names["genesis"]
    proofs.unlink()
    aside.rename(proofs)
    poller.poll()
    assert (poller.error, signed.ledger.head) == (None, scene.names["c-1"])
