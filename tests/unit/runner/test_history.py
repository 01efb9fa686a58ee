from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground
from reconciler.durable import FileLock, write_atomic
from reconciler.errors import HeldError, PassError
from reconciler.git.head import Head, OtherHistory
from reconciler.model import Allowances, Commit, Operation, UnitId
from reconciler.runner.allowances import open_now
from reconciler.runner.history import FRESH, History
from reconciler.runner.host import Host
from reconciler.runner.memory import Anew, Memory, Trust
from tests.kit.gitrepo import RepoBuilder
from tests.kit.plane import NOW, PROD, ground, note, open_host
from tests.kit.terraform import until

APP = UnitId("prod/app")
TWO = note(more="allow_destroy: 2\n")
PLAN, APPLY = Operation.PLAN, Operation.APPLY


@dataclass(frozen=True, slots=True)
class Place:
    ground: Playground
    host: Host

    @property
    def history(self) -> History:
        return self.host.history

    @property
    def trust(self) -> Trust:
        return self.host.memory.trust()

    def merge(self, **files: str | None) -> Commit:
        """Merge entries of prod, by name."""
        changes: Files = {f"{PROD}/{name}.yaml": text for name, text in files.items()}
        return self.ground.merge(changes)

    def accept(self, commit: Commit | None = None) -> None:
        """Have the runner accept what is there now."""
        self.history.newest(commit or self.ground.environments.head, PLAN)

    def open(self, unit: UnitId = APP) -> Allowances:
        """The allowances that are open just after they were accepted."""
        allowed = self.trust.allowances.get(unit)
        accepted = max(allowed.opened.values(), default=NOW) if allowed else NOW
        return open_now(allowed, accepted)

    def age(self) -> None:
        """The last fetch was a while ago."""
        long_ago = time.time() - 2 * FRESH
        os.utime(self.host.memory.folder / "fetched", (long_ago, long_ago))

    def cut(self) -> None:
        """The repository cannot be reached any more."""
        self.ground.environments.folder.rename(self.ground.folder / "away")


def open_place(made: Playground) -> Place:
    return Place(made, open_host(made))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = ground(tmp_path, {"app": TWO})
    yield open_place(made)
    made.close()


# --- the first boot


def test_trust_starts_at_the_genesis_whose_lines_open_nothing(place: Place) -> None:
    assert place.history.known() is None
    head = place.ground.environments.head
    desired = place.history.newest(head, APPLY)
    assert (desired.commit, place.trust.commit) == (head, head)
    assert list(desired.units) == [APP]
    assert place.trust.allowances[APP].seen == Allowances(destroy=2)
    assert place.open() == Allowances()


def test_every_commit_after_the_genesis_counts_at_the_first_boot(place: Place) -> None:
    place.merge(other=note(more="replace: [terraform_data.this]\n"))
    place.merge(app=note(more="allow_destroy: 3\n"))
    place.accept()
    assert place.open() == Allowances(destroy=3)
    assert place.open(UnitId("prod/other")) == Allowances(replace=("terraform_data.this",))


def test_without_a_genesis_it_starts_at_the_head_and_nothing_is_open(tmp_path: Path) -> None:
    made = ground(tmp_path, {"app": TWO}, environments_repo={"genesis": None})
    place = open_place(made)
    place.merge(app=note(more="allow_destroy: 3\n"))
    place.accept()
    assert place.trust.allowances[APP].seen == Allowances(destroy=3)
    assert place.open() == Allowances()
    place.accept(place.merge(app=note(more="allow_destroy: 4\n")))
    assert place.open() == Allowances(destroy=4)


def test_a_branch_that_does_not_have_the_genesis_is_not_begun_with(tmp_path: Path) -> None:
    made = ground(tmp_path, {"app": TWO}, environments_repo={"genesis": "0" * 40})
    place = open_place(made)
    with pytest.raises(PassError, match="does not have the configured genesis") as refused:
        place.accept()
    assert refused.value.reason == "HistoryRewritten"
    assert place.trust == Trust()


# --- the allowances


def test_what_was_taken_out_and_put_back_between_two_looks_is_open(place: Place) -> None:
    place.accept()
    place.merge(app=note())
    place.merge(app=TWO)
    place.accept()
    assert place.open() == Allowances(destroy=2)


def test_what_changes_beside_the_line_opens_nothing(place: Place) -> None:
    place.accept()
    place.accept(place.merge(app=TWO.replace("one", "two"), other=note()))
    assert place.open() == Allowances()
    assert UnitId("prod/other") not in place.trust.allowances


def test_an_entry_that_goes_takes_its_lines_along_and_one_that_breaks_does_not(place: Place) -> None:
    place.accept(place.merge(app=note(more="allow_destroy: 3\n"), b=TWO))
    place.history.spend(UnitId("prod/b"), place.trust.allowances[UnitId("prod/b")].opened)
    place.accept(place.merge(app=None, b="inputs: [allow_destroy\n"))
    assert list(place.trust.allowances) == ["prod/b"]
    place.accept(place.merge(b=TWO))  # mended, and nothing opens that was spent
    assert place.open(UnitId("prod/b")) == Allowances()


def test_a_renamed_entry_opens_nothing_that_was_spent(place: Place) -> None:
    place.accept(place.merge(app=note(more="allow_destroy: 3\n")))
    place.history.spend(APP, place.trust.allowances[APP].opened)
    place.accept(place.merge(app=None, c=note(more="allow_destroy: 3\nmoved_from: app\n")))
    assert place.open(UnitId("prod/c")) == Allowances()
    assert list(place.trust.allowances) == ["prod/c"]


def test_a_rewritten_branch_stays_so_while_the_server_does_not_answer(place: Place) -> None:
    first = place.ground.environments.head
    good = place.merge(app=note("two"))
    place.accept(good)
    place.ground.environments.point("main", first)
    place.merge(app=note("three"))
    place.age()
    with pytest.raises(HeldError) as held:
        place.history.newest(good, APPLY)
    assert held.value.reason == "HistoryRewritten"
    place.cut()
    with pytest.raises(HeldError) as still:
        place.history.newest(good, APPLY)
    assert still.value.reason == "HistoryRewritten"
    assert place.history.newest(good, Operation.PLAN).commit == good


def test_a_verdict_that_the_disk_did_not_take_stands_when_the_branch_is_put_back_first(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = place.ground.environments.head
    good = place.merge(app=note("two"))
    place.accept(good)
    place.ground.environments.point("main", first)
    place.merge(app=note("three"))
    place.age()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Memory, "save_trust", full)
        with pytest.raises(OSError, match="No space left"):
            place.history.newest(good, APPLY)
    place.ground.environments.point("main", good)
    place.age()
    again = open_place(place.ground)  # another process
    assert again.trust.frozen is not None
    assert f"accept-history {good} NEW" in again.trust.frozen.message
    told = again.host.facts().trust
    assert told is not None
    assert (told.frozen, told.frozen_at is None, told.unproven) == ("HistoryRewritten", False, "")
    with pytest.raises(HeldError) as held:
        again.history.newest(good, APPLY)
    assert held.value.reason == "HistoryRewritten"
    assert again.history.newest(good, PLAN).commit == good
    assert f"accept-history {good} {good}" in again.trust.frozen.message  # in words, by now
    said = Anew(good, good, "who did it is known", "ada", NOW)
    again.history.accept_history(said, lambda _: None)
    assert again.trust.frozen is None


def test_a_file_that_is_no_entry_says_nothing(place: Place) -> None:
    place.accept(place.ground.merge({f"{PROD}/environment.yaml": "class: protected\n# allow_\n", "allow_.yaml": TWO}))
    assert set(place.trust.allowances) == {APP}


def test_spending_closes_them_and_waits_for_no_fetch(place: Place) -> None:
    place.accept(place.merge(app=note(more="allow_destroy: 3\n"), b=TWO))
    head = place.trust.commit
    with FileLock(place.host.memory.folder / "fetch.lock"):
        place.history.spend(APP, place.trust.allowances[APP].opened)
        place.history.spend(UnitId("prod/none"), place.trust.allowances[APP].opened)
    assert place.open() == Allowances()
    assert place.open(UnitId("prod/b")) == Allowances(destroy=2)
    assert place.trust.commit == head


# --- the ratchet


def test_a_rewritten_branch_is_planned_at_and_not_applied(place: Place) -> None:
    place.accept(place.merge(app=note("two")))
    before = place.trust
    last = before.commit
    assert last is not None
    rogue = RepoBuilder(place.ground.environments.folder)
    place.ground.environments.point("main", rogue.commit_tree(rogue.git("rev-parse", f"{last}^{{tree}}"), "forged"))
    place.age()
    with pytest.raises(HeldError, match="find out who rewrote the branch") as held:
        place.history.newest(last, APPLY)
    assert held.value.reason == "HistoryRewritten"
    assert place.history.newest(last, PLAN).commit == last
    assert replace(place.trust, frozen=None, frozen_at=None) == before


@pytest.mark.parametrize("fresh", [True, False])
def test_a_commit_that_is_not_on_the_branch_is_not_run(fresh: bool, place: Place) -> None:
    place.accept()
    aside = place.ground.environments.commit({f"{PROD}/app.yaml": note("evil")}, "not merged", branch="aside")
    for commit in (aside, Commit("a" * 40)):
        if not fresh:
            place.age()
        with pytest.raises(HeldError, match=f"{commit[:12]} is not on the protected branch's accepted history") as held:
            place.history.newest(commit, APPLY)
        assert held.value.reason == "CommitNotAccepted"


def test_the_heads_that_were_merged_are_the_second_parents_of_what_came_in_between(place: Place) -> None:
    first = place.ground.environments.head
    repo = RepoBuilder(place.ground.environments.folder)
    tree = repo.git("rev-parse", f"{first}^{{tree}}")
    side = repo.commit_tree(tree, "side", (first,))
    merge = repo.commit_tree(tree, "merge", (first, repo.commit_tree(tree, "later", (side,))))
    squashed = repo.commit_tree(tree, "squashed", (merge,))
    repo.point("main", squashed)
    place.accept(squashed)
    (head,) = place.history.heads_since(first, squashed)
    assert repo.git("rev-parse", f"{head}^") == side
    assert place.history.heads_since(merge, squashed) == place.history.heads_since(squashed, first) == frozenset()


def test_the_second_parent_of_a_merge_is_not_the_branch(place: Place) -> None:
    head = place.merge(app=note("two"))
    place.accept()
    second = place.ground.environments.at(f"{head}^2")
    with pytest.raises(HeldError, match="only merged commits are run"):
        place.history.newest(second, APPLY)


def test_an_older_commit_is_run_at_the_newest_head(place: Place) -> None:
    old = place.ground.environments.head
    head = place.merge(app=note("two"))
    assert place.history.newest(old, APPLY).commit == head


def test_a_rewrite_ends_only_when_an_admin_accepts_another_history(place: Place) -> None:
    old = place.merge(app=note(more="allow_destroy: 3\n"))
    place.accept(old)
    assert place.open() == Allowances(destroy=3)
    forge = place.ground.environments
    forge.point("main", forge.at(f"{old}^1"))
    new = place.merge(app=note(more="allow_destroy: 4\n"), b=TWO)
    place.age()
    with pytest.raises(HeldError, match=f"accept-history {old} {new}") as held:
        place.history.newest(old, APPLY)
    assert held.value.reason == "HistoryRewritten"
    began = place.trust.frozen_at
    told: list[OtherHistory] = []

    def record(found: OtherHistory) -> None:
        assert place.trust.commit == old  # first it is written down, then it is so
        told.append(found)

    said = Anew(old, new, "known", "ann", NOW)
    place.history.accept_history(said, record)
    assert [(found.chain, found.abandoned) for found in told] == [((new,), (old,))]
    trust = place.trust
    assert (trust.commit, trust.base, trust.frozen, trust.anew) == (new, new, None, said)
    assert began is not None
    assert trust.recent[-1] == new
    assert old not in trust.recent
    assert trust.allowances[APP].seen == Allowances(destroy=4)
    assert (place.open(), place.open(UnitId("prod/b"))) == (Allowances(), Allowances())
    assert place.history.newest(new, APPLY).commit == new
    with pytest.raises(HeldError) as refused:
        place.history.newest(old, APPLY)
    assert refused.value.reason == "CommitNotAccepted"


def test_a_runner_that_remembers_nothing_is_told_where_to_start_by_the_genesis(place: Place) -> None:
    genesis = place.ground.environments.head
    new = place.merge(app=note(more="allow_destroy: 3\n"))
    with pytest.raises(PassError, match=f"the accepted head here is {genesis}"):
        place.history.accept_history(Anew(new, new, "r", "ann", NOW), lambda _: None)
    assert place.trust == Trust()
    place.history.accept_history(Anew(genesis, new, "r", "ann", NOW), lambda _: None)
    assert (place.trust.commit, place.open()) == (new, Allowances())


def test_a_branch_that_is_gone_holds_applies_until_it_is_back(place: Place) -> None:
    head = place.merge(app=note("two"))
    place.accept(head)
    forge = place.ground.environments
    forge.point("aside", head)
    RepoBuilder(forge.folder).git("update-ref", "-d", "refs/heads/main")
    place.age()
    with pytest.raises(HeldError) as held:
        place.history.newest(head, APPLY)
    assert held.value.reason == "BranchMissing"
    assert place.history.newest(head, PLAN).commit == head
    forge.point("main", head)
    assert place.history.newest(head, APPLY).commit == head
    assert (place.trust.frozen, place.trust.frozen_at) == (None, None)


def test_the_apply_itself_looks_once_more(place: Place) -> None:
    """A job that began before the branch was rewritten does not apply after it."""
    head = place.merge(app=note("two"))
    assert place.history.newest(head, APPLY).commit == head
    forge = place.ground.environments
    forge.point("main", forge.at(f"{head}^1"))
    place.merge(app=note("three"))
    with pytest.raises(HeldError) as held:
        place.history.newest(head, APPLY, since=time.time())
    assert held.value.reason == "HistoryRewritten"


# --- what is fresh enough


def test_a_fetch_of_a_moment_ago_suffices_where_it_has_the_commit(place: Place) -> None:
    place.accept()
    first = place.ground.environments.head
    later = place.merge(app=note("two"))
    assert place.history.newest(first, APPLY).commit == first
    assert place.history.newest(later, APPLY).commit == later


def test_an_older_one_does_not(place: Place) -> None:
    place.accept()
    later = place.merge(app=note("two"))
    place.age()
    assert place.history.newest(place.ground.environments.at("main~1"), APPLY).commit == later


def test_a_clock_that_was_set_back_makes_nothing_fresh_for_ever(place: Place) -> None:
    place.accept()
    later = place.merge(app=note("two"))
    ahead = time.time() + 3600
    os.utime(place.host.memory.folder / "fetched", (ahead, ahead))
    assert place.history.newest(place.ground.environments.at("main~1"), APPLY).commit == later


def test_an_outage_holds_new_commits_only(place: Place) -> None:
    place.accept()
    head = place.ground.environments.head
    place.cut()
    place.age()
    assert place.history.newest(head, APPLY).commit == head
    with pytest.raises(PassError, match=r"environments\.git"):
        place.history.newest(Commit("a" * 40), APPLY)
    known = place.history.known()
    assert known is not None
    assert known.commit == head


@pytest.mark.parametrize("left", [b"", b"\0" * 60, b'{"at": "20'])
def test_what_a_loss_of_power_left_of_the_last_look_is_none_and_is_written_anew(left: bytes, place: Place) -> None:
    place.accept()
    head, folder = place.ground.environments.head, place.host.memory.folder
    for name in ("seen.json", "fetched"):
        (folder / name).write_bytes(left)
    assert place.history.standing().seen is None
    assert place.history.newest(head, APPLY).commit == head
    assert place.history.standing().seen is not None
    fetched = int((folder / "fetched").read_bytes())
    assert place.history.newest(head, APPLY).commit == head
    assert int((folder / "fetched").read_bytes()) == fetched  # a moment ago: not once more


def test_who_waits_for_a_fetch_takes_what_it_got(place: Place) -> None:
    place.accept()
    head = place.ground.environments.head
    place.age()
    got: list[Commit] = []
    with FileLock(place.host.memory.folder / "fetch.lock"):
        waiting = threading.Thread(target=lambda: got.append(place.history.newest(head, APPLY).commit))
        waiting.start()
        until(lambda: waits(place.host.memory.folder / "fetch.lock"), "it waits")
        place.cut()  # nobody can fetch after this one
        (place.host.memory.folder / "fetched").write_text(str(time.time_ns()))
    waiting.join()
    assert got == [head]


def test_a_look_that_began_before_an_apply_checks_again_is_not_its_last_look(place: Place) -> None:
    """It proves commits at a slow forge for minutes; what was merged meanwhile it has not seen."""
    place.accept()
    head = place.ground.environments.head
    source, looking = place.history._branch.source, place.history
    poll, asked, later = source.poll, list[float](), list[Commit]()

    def slow() -> Head:
        found = poll()
        asked.append(time.time())  # here another job is about to apply
        later.append(place.merge(app=note("a revert")))
        return found

    source.poll = slow  # type: ignore[method-assign]
    place.age()
    assert looking.newest(head, APPLY).commit == head
    assert open_host(place.ground).history.newest(head, APPLY, since=asked[0]).commit == later[0]


def test_who_waits_for_a_fetch_that_fails_does_not_try_again(place: Place) -> None:
    failed: list[str] = []

    def ask() -> None:
        try:
            place.accept()
        except PassError as error:
            failed.append(error.reason)

    with FileLock(place.host.memory.folder / "fetch.lock"):
        waiting = threading.Thread(target=ask)
        waiting.start()
        until(lambda: waits(place.host.memory.folder / "fetch.lock"), "it waits")
        write_atomic(place.host.memory.folder / "fetch-failed", json.dumps(["GitTimeout", "It hung."]).encode())
    waiting.join()
    assert failed == ["GitTimeout"]  # although it would answer now
    place.accept()
    assert place.trust.commit == place.ground.environments.head


def waits(lock: Path) -> bool:
    """Whether somebody of this process has the lock's file open besides its holder."""
    opened = [one.resolve() for one in Path("/proc/self/fd").iterdir()]
    return opened.count(lock.resolve()) > 1
