from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, PassError
from reconciler.git import mirror
from reconciler.git.command import Git, Patience, Remote
from reconciler.git.head import CommitProver, Head
from reconciler.git.source import EnvironmentsSource
from reconciler.model import Commit
from reconciler.trust import PROVING, Unproven
from tests.kit.gitrepo import Memory, RepoBuilder, loosen


class World:
    """One repository, its mirror, and what was accepted of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = RepoBuilder.create(folder / "repo.git")
        self.genesis = self.repo.commit({"environments/prod/a.yaml": "1"})
        self.memory = Memory()

    def source(
        self,
        genesis: Commit | None = None,
        *,
        required: bool = True,
        provers: tuple[CommitProver, ...] = (),
        patience: Patience | None = None,
    ) -> EnvironmentsSource:
        return EnvironmentsSource(
            Remote(self.repo.url),
            "main",
            self.folder / "mirror",
            self.memory,
            genesis=genesis or (self.genesis if required else None),
            genesis_required=required,
            provers=provers,
            patience=patience,
            allow_file=True,
        )

    def accept(self, source: EnvironmentsSource) -> Head:
        head = source.poll()
        source.accept(head)
        return head


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def refused(source: EnvironmentsSource) -> str:
    with pytest.raises(PassError) as error:
        source.poll()
    return error.value.reason


def test_the_genesis_itself_is_the_first_head(world: World) -> None:
    head = world.source().poll()
    assert head == Head(world.genesis, (), datetime(2023, 11, 14, 22, 14, 20, tzinfo=UTC), world.genesis)


def test_the_first_head_brings_every_commit_since_the_genesis(world: World) -> None:
    chain = tuple(world.repo.commit({"a": f"{number}"}) for number in range(3))
    head = world.source().poll()
    assert (head.commit, head.chain, head.since) == (chain[-1], chain, world.genesis)


def test_a_poll_saves_nothing_and_accept_does(world: World) -> None:
    source = world.source()
    head = source.poll()
    assert world.memory.commit is None
    source.accept(head)
    assert world.memory.commit == world.genesis


def test_without_a_genesis_trust_needs_signatures_off(world: World) -> None:
    with pytest.raises(ConfigError, match="genesis is missing"):
        EnvironmentsSource(Remote("/x"), "main", world.folder, world.memory, genesis=None)


def test_trust_on_first_use_begins_at_the_head(world: World) -> None:
    new = world.repo.commit({"a": "2"})
    head = world.source(required=False).poll()
    assert (head.commit, head.chain, head.since) == (new, (new,), None)


@pytest.mark.parametrize("genesis", ["main", "abc", "A" * 40])
def test_a_genesis_that_is_no_commit_id_is_a_config_error(world: World, genesis: str) -> None:
    with pytest.raises(ConfigError, match="genesis"):
        world.source(Commit(genesis))


def test_a_branch_that_means_something_to_git_is_a_config_error(world: World) -> None:
    with pytest.raises(ConfigError, match="branch"):
        EnvironmentsSource(Remote("/x"), "+main:x", world.folder, world.memory, genesis=world.genesis)


def test_a_genesis_that_the_branch_lacks_is_refused(world: World) -> None:
    other = world.repo.commit_tree(world.repo.tree({}), "elsewhere")
    assert refused(world.source(other)) == "HistoryRewritten"
    assert refused(world.source(Commit("1" * 40))) == "HistoryRewritten"


def test_a_genesis_on_a_merged_side_branch_is_not_on_the_chain(world: World) -> None:
    world.repo.branch_off("side")
    side = world.repo.commit({"b": "1"}, branch="side")
    world.repo.commit({"c": "1"})
    world.repo.merge("side")
    assert refused(world.source(side)) == "HistoryRewritten"


def test_each_poll_brings_what_is_new_on_the_first_parent_chain(world: World) -> None:
    source = world.source()
    world.accept(source)
    world.repo.branch_off("feature")
    world.repo.commit({"b": "1"}, branch="feature")
    direct = world.repo.commit({"c": "1"})
    merge = world.repo.merge("feature")
    head = source.poll()
    assert (head.commit, head.chain, head.since) == (merge, (direct, merge), world.genesis)


def test_what_was_not_accepted_is_judged_again(world: World) -> None:
    source = world.source()
    world.accept(source)
    first = world.repo.commit({"b": "1"})
    assert source.poll().chain == (first,)
    second = world.repo.commit({"b": "2"})
    assert source.poll().chain == (first, second)


def test_nothing_new_is_an_empty_chain(world: World) -> None:
    source = world.source()
    world.accept(source)
    assert source.poll() == Head(world.genesis, (), datetime(2023, 11, 14, 22, 14, 20, tzinfo=UTC), world.genesis)


def test_a_forced_push_is_refused_at_every_poll(world: World) -> None:
    source = world.source()
    world.repo.commit({"b": "1"})
    accepted = world.accept(source)
    world.repo.point("main", world.genesis)
    assert refused(source) == "HistoryRolledBack"
    world.repo.commit({"b": "other"})
    assert [refused(source) for _ in range(3)] == ["HistoryRewritten"] * 3
    assert world.memory.commit == accepted.commit


def test_a_fresh_mirror_does_not_forget_what_was_accepted(world: World) -> None:
    world.repo.commit({"b": "1"})
    world.accept(world.source())
    (world.folder / "mirror/current").unlink()
    world.repo.point("main", world.genesis)
    world.repo.commit({"b": "other"})
    assert refused(world.source()) == "HistoryRewritten"


def test_an_older_head_after_a_fresh_mirror_is_refused(world: World) -> None:
    world.repo.commit({"b": "1"})
    world.accept(world.source())
    (world.folder / "mirror/current").unlink()
    world.repo.point("main", world.genesis)
    assert refused(world.source()) == "HistoryRolledBack"


def test_a_merge_that_makes_the_accepted_head_its_second_parent_is_refused(world: World) -> None:
    source = world.source()
    accepted = world.repo.commit({"b": "1"})
    world.accept(source)
    stranger = world.repo.commit_tree(world.repo.tree({}), "stranger", (world.genesis,))
    world.repo.point("main", world.repo.commit_tree(world.repo.tree({}), "swap", (stranger, accepted)))
    assert refused(source) == "HistoryRewritten"


def test_a_mirror_that_lost_the_accepted_head_is_replaced_and_not_called_rewritten(world: World) -> None:
    source = world.source()
    accepted = world.repo.commit({"b": "1"})
    world.accept(source)
    new = world.repo.commit({"b": "2"})
    source.poll()
    loosen(source.git.folder)
    (source.git.folder / "objects" / accepted[:2] / accepted[2:]).unlink()
    assert source.poll().chain == (new,)


def test_another_head_accepted_meanwhile_is_not_overwritten(world: World) -> None:
    source = world.source()
    world.accept(source)
    world.repo.commit({"b": "1"})
    stale = source.poll()
    world.repo.commit({"b": "2"})
    newer = world.accept(source)
    with pytest.raises(PassError) as error:
        source.accept(stale)
    assert error.value.reason == "HeadMoved"
    assert world.memory.commit == newer.commit
    source.accept(newer)


def test_every_new_commit_is_proven_and_the_genesis_is_not(world: World) -> None:
    class Prover:
        def __init__(self) -> None:
            self.seen: list[Commit] = []
            self.begun: list[Head] = []
            self.upheld: list[tuple[Commit, Commit]] = []

        def begin(self, head: Head) -> None:
            self.begun.append(head)

        def uphold(self, git: Git, base: Commit, accepted: Commit) -> None:
            self.upheld.append((base, accepted))

        def prove(self, git: Git, commit: Commit) -> None:
            assert git.run("cat-file", "-t", operands=(commit,)) == b"commit\n"
            self.seen.append(commit)

    prover = Prover()
    chain = [world.repo.commit({"b": f"{number}"}) for number in range(2)]
    source = world.source(provers=(prover,))
    first = world.accept(source)
    second = source.poll()
    assert prover.seen == chain
    assert prover.begun == [first, second]  # also where nothing is new
    assert prover.upheld == [(world.genesis, first.commit)]


def test_a_long_chain_is_proven_by_several_looks_and_each_goes_on_where_the_last_one_ended(world: World) -> None:
    class Slow:
        def begin(self, head: Head) -> None: ...

        def uphold(self, git: Git, base: Commit, accepted: Commit) -> None: ...

        def prove(self, git: Git, commit: Commit) -> None:
            proven.append(commit)

    proven: list[Commit] = []
    chain = [world.repo.commit({"b": f"{number}"}) for number in range(4)]
    source = world.source(provers=(Slow(),), patience=Patience(proving=-1.0))
    for number, commit in enumerate(chain):
        head = world.accept(source)
        assert (head.commit, head.chain) == (commit, (commit,))
        left = len(chain) - number - 1
        message = f"{left} commits are still to be proven; the next look goes on"
        assert head.unproven == (Unproven(chain[number + 1], PROVING, message, chain[-1]) if left else None)
    assert proven == chain
    assert world.source(patience=Patience()).poll().commit == chain[-1]


def test_a_commit_without_proof_holds(world: World) -> None:
    class Nobody:
        def begin(self, head: Head) -> None:
            assert not head.chain or head.commit == head.chain[-1]

        def uphold(self, git: Git, base: Commit, accepted: Commit) -> None:
            assert (base, accepted) == (world.genesis, world.genesis)

        def prove(self, git: Git, commit: Commit) -> None:
            raise PassError("SignatureInvalid", f"{commit}: unsigned: sign it")

    source = world.source(provers=(Nobody(),))
    world.accept(source)  # the genesis is trusted by configuration
    unsigned = world.repo.commit({"b": "1"})
    tip = world.repo.commit({"b": "2"})
    head = source.poll()
    assert (head.commit, head.chain) == (world.genesis, ())
    assert head.unproven == Unproven(unsigned, "SignatureInvalid", f"{unsigned}: unsigned: sign it", tip)


def test_ancestors_on_the_first_parent_chain(world: World) -> None:
    source = world.source()
    world.repo.branch_off("side")
    side = world.repo.commit({"b": "1"}, branch="side")
    direct = world.repo.commit({"c": "1"})
    merge = world.repo.merge("side")
    source.poll()
    related = source.is_ancestor_on_first_parent
    assert related(world.genesis, merge)
    assert related(direct, merge)
    assert related(merge, merge)
    assert not related(side, merge)
    assert not related(merge, direct)
    assert not related(Commit("1" * 40), merge)
    assert not related(Commit("1" * 40), Commit("1" * 40))


def test_a_commit_can_be_read(world: World) -> None:
    source = world.source()
    new = world.repo.commit({"environments/prod/b.yaml": "22", "README": "x"})
    source.poll()
    entries = list(source.read_tree(new, "environments"))
    assert [entry.path for entry in entries] == ["environments/prod/a.yaml", "environments/prod/b.yaml"]
    assert list(source.read_blobs([entry.blob_id for entry in entries]).values()) == [b"1", b"22"]
    assert [c.path for c in source.changed_paths(world.genesis, new, "environments")] == ["environments/prod/b.yaml"]


def test_a_blob_that_cannot_be_read_lets_the_next_poll_replace_the_mirror(world: World) -> None:
    source = world.source()
    source.poll()
    blob = world.repo.blob("1")
    loosen(source.git.folder)
    (source.git.folder / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(PassError) as error:
        source.read_blobs([blob])
    assert error.value.reason == "ObjectMissing"
    source.poll()
    assert source.read_blobs([blob]) == {blob: b"1"}


def test_a_date_beyond_the_calendar_is_no_crash(world: World) -> None:
    tree = world.repo.tree({})
    who = "Ada <ada@example.org> 999999999999999 +0000"
    text = f"tree {tree}\nparent {world.genesis}\nauthor {who}\ncommitter {who}\n\nlate\n"
    commit = world.repo.git("hash-object", "-w", "-t", "commit", "--stdin", stdin=text.encode())
    world.repo.point("main", Commit(commit))
    assert world.source().poll().committed_at.year == 9999


def counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a git first on the path that writes each call down and then is the real one."""
    calls = folder / "calls"
    stand_in = folder / "bin" / "git"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\nfor word in "$@"; do case "$word" in fetch|ls-remote|rev-*|gc|fsck|cat-file) echo "$word" >> {calls};; esac; done\n'
        'exec /usr/bin/env PATH="${PATH#*:}" git "$@"\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    return calls


def test_a_poll_without_change_is_one_question(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.accept(world.source())
    calls = counted(world.folder, monkeypatch)
    source = world.source()
    source.poll()  # the date of the head is read once
    calls.unlink()
    for _ in range(3):
        source.poll()
    assert calls.read_text().split() == ["ls-remote"] * 3


def test_of_many_branches_only_the_one_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.accept(world.source())
    for number in range(2):
        world.repo.git("update-ref", f"refs/heads/other-{number}", world.genesis)
    monkeypatch.setattr(mirror, "_MOST_HEADS", 2)
    calls = counted(world.folder, monkeypatch)
    source = world.source()
    source.poll()
    calls.unlink()
    for _ in range(2):
        assert source.poll().commit == world.genesis
    assert calls.read_text().split() == ["fetch"] * 2


def test_a_branch_whose_name_ends_like_ours_is_not_ours(world: World) -> None:
    source = world.source()
    world.accept(source)
    world.repo.git("update-ref", "refs/heads/x/refs/heads/main", world.genesis)
    new = world.repo.commit({"a": "2"})
    assert source.poll().commit == new


def test_hundreds_of_polls_leave_descriptors_and_children_flat(world: World) -> None:
    source = world.source()
    world.accept(source)

    def held() -> tuple[int, int]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return len(list(Path("/proc/self/fd").iterdir())), len(children)

    source.poll()
    before = held()
    for number in range(300):
        if number % 50 == 0:
            world.repo.commit({"b": f"{number}"})
            entries = source.read_tree(world.accept(source).commit)
            next(entries)  # an abandoned stream counts too
            del entries
        source.poll()
    assert held() == before


def test_the_newest_change_of_an_entry_is_taken_back_as_what_it_is(world: World) -> None:
    world.repo.branch_off("change")
    world.repo.commit({"environments/prod/a.yaml": "2"}, branch="change")
    merged = world.repo.merge("change")
    squashed = world.repo.commit({"environments/prod/b.yaml": "1"})
    source = world.source()
    head = world.accept(source).commit
    assert source.undoing(head, "environments/prod/a.yaml") == f"git revert -m 1 {merged}"
    assert source.undoing(head, "environments/prod/b.yaml") == f"git revert {squashed}"
    assert source.undoing(merged, "environments/prod/b.yaml") is None
