"""What both planes make of a branch, whatever is done to it: each verdict is declared before the topology is built."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.kit.gitrepo import RepoBuilder, loosen
from tests.kit.signing import NOON, SshKeys
from tests.kit.topology import DAY, Seen, Stage

REWRITTEN, ROLLED_BACK, MISSING, REVOKED = (
    "HistoryRewritten",
    "HistoryRolledBack",
    "BranchMissing",
    "SignatureRevoked",
)
Story = Iterator[None]  # what happens; at each pause both planes look


@dataclass(frozen=True)
class Topology:
    """One story and what both planes shall say at each of its pauses."""

    klass: str
    name: str
    verdicts: tuple[Seen, ...]
    story: Callable[[Stage], Story]
    signed: bool = False

    def __str__(self) -> str:
        return f"{self.klass}: {self.name}"


TOPOLOGIES: list[Topology] = []


def topology(
    klass: str, name: str, *verdicts: Seen, signed: bool = False
) -> Callable[[Callable[[Stage], Story]], Callable[[Stage], Story]]:
    """Declare the verdicts of the story below."""

    def declared(story: Callable[[Stage], Story]) -> Callable[[Stage], Story]:
        TOPOLOGIES.append(Topology(klass, name, verdicts, story, signed))
        return story

    return declared


START = Seen("genesis")


# --- the branch grows


def _linear(count: int, at_once: int) -> None:
    ends = [*range(at_once, count, at_once), count]

    @topology("linear", f"{count} commits, {at_once} at once", START, *(Seen(f"c-{end}") for end in ends))
    def story(stage: Stage) -> Story:
        yield
        stage.scene.chain("c", "genesis", count)
        for end in ends:
            stage.scene.push(f"c-{end}")
            yield


for _count, _at_once in ((1, 1), (4, 1), (5, 2), (60, 60)):
    _linear(_count, _at_once)


def _merged(side: int, before: int) -> None:
    @topology("merge without fast-forward", f"{side} commits aside, {before} direct", START, Seen("m"))
    def story(stage: Stage) -> Story:
        yield
        direct = stage.scene.chain("d", "genesis", before) if before else "genesis"
        stage.scene.commit("m", direct, stage.scene.chain("s", "genesis", side))
        stage.scene.push("m")
        yield


for _side, _before in ((1, 0), (3, 0), (2, 2)):
    _merged(_side, _before)


def _fast_forward(count: int) -> None:
    @topology("merge by fast-forward", f"{count} commits of the branch", START, Seen(f"s-{count}"))
    def story(stage: Stage) -> Story:
        yield
        stage.scene.push(stage.scene.chain("s", "genesis", count))
        yield


for _count in (1, 3):
    _fast_forward(_count)


def _octopus(arms: int) -> None:
    @topology("octopus", f"{arms} arms", START, Seen("m"))
    def story(stage: Stage) -> Story:
        yield
        sides = [stage.scene.chain(f"s{arm}", "genesis", 1) for arm in range(arms)]
        stage.scene.commit("m", "genesis", *sides)
        stage.scene.push("m")
        yield


for _arms in (2, 4):
    _octopus(_arms)


@topology("evil merge", "files of neither side", START, Seen("m"))
def _evil(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("s", "genesis", tree=scene.files("side"))
    scene.commit("m", "genesis", "s", tree=scene.files("of neither"))
    scene.push("m")
    yield


@topology("criss-cross", "both merged each other, and the branch goes on", START, Seen("a"), Seen("m"))
def _criss_cross(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("a", "genesis")
    scene.commit("b", "genesis")
    scene.push("a")
    yield
    scene.commit("b2", "b", "a")
    scene.commit("a2", "a", "b")
    scene.commit("m", "a2", "b2")
    scene.push("m")
    yield


@topology("criss-cross", "the other one takes the branch's place", START, Seen("a2"), Seen("a2", REWRITTEN))
def _criss_cross_swapped(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("a", "genesis")
    scene.commit("b", "genesis")
    scene.commit("a2", "a", "b")
    scene.push("a2")
    yield
    scene.commit("b2", "b", "a")
    scene.commit("m", "b2", "a2")
    scene.push("m")
    yield


@topology("dates", "each commit older than its parent", START, Seen("c3"))
def _dates(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("c1", "genesis", at=NOON - DAY)
    scene.commit("c2", "c1", at=NOON - 2 * DAY)
    scene.commit("c3", "c2", at=0)
    scene.push("c3")
    yield


@topology("dates", "a rewrite that is dated before and after everything", START, Seen("c1"), Seen("c1", REWRITTEN))
def _dates_rewritten(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.push(scene.commit("c1", "genesis") and "c1")
    yield
    scene.commit("x1", "genesis", at=0)
    scene.commit("x2", "x1", at=4_000_000_000)
    scene.push("x2")
    yield


# --- foxtrots


def _foxtrot(position: int, more: int) -> None:
    @topology(
        "foxtrot",
        f"the accepted head as parent {position}, {more} commits later",
        START,
        Seen("a"),
        Seen("a", REWRITTEN),
    )
    def story(stage: Stage) -> Story:
        yield
        scene = stage.scene
        scene.commit("a", "genesis")
        scene.push("a")
        yield
        sides = [scene.chain(f"s{number}", "genesis", 1) for number in range(position - 1)]
        scene.commit("m", *sides, "a")
        scene.push(scene.chain("n", "m", more) if more else "m")
        yield


for _position, _more in ((2, 0), (2, 2), (3, 0)):
    _foxtrot(_position, _more)


# --- the server shows something older


def _rollback(back: int) -> None:
    older = f"c-{5 - back}" if back < 5 else "genesis"

    @topology(
        "rollback", f"by {back}, and the server catches up", START, Seen("c-5"), Seen("c-5", ROLLED_BACK), Seen("c-6")
    )
    def story(stage: Stage) -> Story:
        yield
        scene = stage.scene
        scene.chain("c", "genesis", 6)
        scene.push("c-5")
        yield
        scene.push(older)
        yield
        scene.push("c-6")
        yield


for _back in (1, 2, 3, 5):
    _rollback(_back)


@topology("rollback", "by a whole merge", START, Seen("m"), Seen("m", ROLLED_BACK), Seen("m"))
def _rollback_merge(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("s", "genesis")
    scene.commit("m", "genesis", "s")
    scene.push("m")
    yield
    scene.push("genesis")
    yield
    scene.push("m")
    yield


@topology("rollback", "to the side of a merge, which is no older head", START, Seen("m"), Seen("m", REWRITTEN))
def _rollback_side(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("s", "genesis")
    scene.commit("m", "genesis", "s")
    scene.push("m")
    yield
    scene.push("s")
    yield


@topology(
    "rollback",
    "and something else is built on it",
    START, Seen("c-3"), Seen("c-3", ROLLED_BACK), Seen("c-3", REWRITTEN), Seen("c-3", REWRITTEN),
)  # fmt: skip
def _rollback_built_on(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.push(scene.chain("c", "genesis", 3))
    yield
    scene.push("c-1")
    yield
    scene.commit("x", "c-1")
    scene.push("x")
    yield
    scene.push("c-3")
    yield


@topology("rollback", "with the mirrors lost", START, Seen("c-3"), Seen("c-3", ROLLED_BACK), Seen("c-3"))
def _rollback_without_mirror(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.push(scene.chain("c", "genesis", 3))
    yield
    scene.push("c-1")
    stage.lose_mirrors()
    yield
    scene.push("c-3")
    yield


# --- the branch is another one


def _diverged(depth: int, length: int) -> None:
    @topology(
        "diverged",
        f"{depth} commits taken away, {length} put there",
        START, Seen("c-4"), Seen("c-4", REWRITTEN), Seen("c-4", REWRITTEN),
    )  # fmt: skip
    def story(stage: Stage) -> Story:
        yield
        scene = stage.scene
        scene.push(scene.chain("c", "genesis", 4))
        yield
        scene.push(scene.chain("x", f"c-{4 - depth}" if depth < 4 else "genesis", length))
        yield
        scene.push(scene.chain("y", f"x-{length}", 1))
        yield


for _depth, _length in ((1, 1), (1, 5), (3, 2), (4, 6)):
    _diverged(_depth, _length)


@topology("amended", "the same files under another commit", START, Seen("a"), Seen("a", REWRITTEN))
def _amended(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("a", "genesis")
    scene.push("a")
    yield
    scene.commit("a2", "genesis")
    scene.push("a2")
    yield


def _unrelated(merged: bool) -> None:
    name = "that merges the accepted head" if merged else "that knows nothing of it"

    @topology("unrelated root", name, START, Seen("a"), Seen("a", REWRITTEN))
    def story(stage: Stage) -> Story:
        yield
        scene = stage.scene
        scene.commit("a", "genesis")
        scene.push("a")
        yield
        scene.commit("root")
        scene.commit("x", "root", *(["a"] if merged else []))
        scene.push("x")
        yield


for _is_merged in (False, True):
    _unrelated(_is_merged)


@topology("unrelated root", "in place of the genesis, before anything was accepted", Seen("None"), START)
def _no_genesis(stage: Stage) -> Story:
    stage.scene.commit("root")
    stage.scene.push("root")
    yield
    assert stage.errors() == [REWRITTEN] * 2
    stage.scene.push("genesis")
    yield


@topology(
    "put back",
    "a rewrite stays one",
    START,
    Seen("a"),
    Seen("a", REWRITTEN),
    Seen("a", REWRITTEN),
    Seen("a", REWRITTEN),
)
def _put_back(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("a", "genesis")
    scene.push("a")
    yield
    scene.commit("x", "genesis")
    scene.push("x")
    yield
    scene.push("a")
    yield
    scene.commit("b", "a")
    scene.push("b")
    yield


@topology("put back", "between two looks, so that nobody has seen it", START, Seen("a"), Seen("b"))
def _put_back_unseen(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("a", "genesis")
    scene.push("a")
    yield
    scene.commit("x", "genesis")
    scene.push("x")
    scene.commit("b", "a")
    scene.push("b")
    yield


# --- an admin accepts another history


@topology("accept-history", "of a rewrite", START, Seen("a-2", REWRITTEN), Seen("x-2"), Seen("y"), Seen("y", REWRITTEN))
def _accepted(stage: Stage) -> Story:
    scene = stage.scene
    yield
    scene.push(scene.chain("a", "genesis", 2))
    stage_looks(stage)
    scene.push(scene.chain("x", "a-1", 2))
    yield
    stage.accept("a-2", "x-2")
    yield
    scene.commit("y", "x-2")
    scene.push("y")
    yield
    scene.push("a-2")  # the history of before is none any more
    yield


@topology("accept-history", "of a branch that was put back", START, Seen("a", REWRITTEN), Seen("b"))
def _accepted_put_back(stage: Stage) -> Story:
    scene = stage.scene
    yield
    scene.commit("a", "genesis")
    scene.push("a")
    stage_looks(stage)
    scene.commit("x", "genesis")
    scene.push("x")
    yield
    scene.commit("b", "a")
    scene.push("b")
    stage.accept("a", "b")
    yield


@topology("accept-history", "of a rollback", START, Seen("a-3", ROLLED_BACK), Seen("a-1"), Seen("x"))
def _accepted_rollback(stage: Stage) -> Story:
    scene = stage.scene
    yield
    scene.push(scene.chain("a", "genesis", 3))
    stage_looks(stage)
    scene.push("a-1")
    yield
    stage.accept("a-3", "a-1")
    yield
    scene.commit("x", "a-1")
    scene.push("x")
    yield


@topology("accept-history", "of a foxtrot, and of an unrelated root", START, Seen("m"), Seen("root"))
def _accepted_others(stage: Stage) -> Story:
    scene = stage.scene
    yield
    scene.commit("a", "genesis")
    scene.push("a")
    stage_looks(stage)
    scene.commit("s", "genesis")
    scene.commit("m", "s", "a")
    scene.push("m")
    stage.accept("a", "m")
    yield
    scene.commit("root")
    scene.push("root")
    stage.accept("m", "root")
    yield


@topology("accept-history", "with the mirrors lost", START, Seen("x"))
def _accepted_without_mirror(stage: Stage) -> Story:
    scene = stage.scene
    yield
    scene.commit("a", "genesis")
    scene.push("a")
    stage_looks(stage)
    scene.commit("x", "genesis")
    scene.push("x")
    scene.repo.git("reflog", "expire", "--expire=now", "--all")
    scene.repo.git("gc", "--quiet", "--prune=now")  # the server has forgotten the accepted head too
    stage.lose_mirrors()
    stage.accept("a", "x")
    yield


@topology("accept-history", "with other words than are so", START, Seen("a", REWRITTEN))
def _accepted_wrongly(stage: Stage) -> Story:
    scene = stage.scene
    yield
    scene.commit("a", "genesis")
    scene.push("a")
    stage_looks(stage)
    scene.commit("x", "genesis")
    scene.commit("y", "x")
    scene.push("y")
    assert stage.refused("genesis", "y") == {("HeadMoved", "a")}
    assert stage.refused("a", "x") == {("HeadMoved", "y")}
    yield


def stage_looks(stage: Stage) -> None:
    """A look whose verdict another topology declares."""
    for plane in stage.planes:
        plane.look()


# --- the branch is gone


def _deleted(name: str, at: str, verdict: Seen, then: Seen) -> None:
    @topology("deleted", f"and made anew {name}", START, Seen("c-2"), Seen("c-2", MISSING), verdict, then)
    def story(stage: Stage) -> Story:
        yield
        scene = stage.scene
        scene.chain("c", "genesis", 3)
        scene.commit("x", "c-1")
        scene.push("c-2")
        yield
        scene.delete()
        yield
        scene.push(at)
        yield
        scene.push("c-3")
        yield


_deleted("at the accepted head", "c-2", Seen("c-2"), Seen("c-3"))
_deleted("at a descendant", "c-3", Seen("c-3"), Seen("c-3"))
_deleted("at an older head", "c-1", Seen("c-2", ROLLED_BACK), Seen("c-3"))
_deleted("elsewhere", "x", Seen("c-2", REWRITTEN), Seen("c-2", REWRITTEN))


@topology("deleted", "after a rewrite, which stays one", START, Seen("a", REWRITTEN), Seen("a", REWRITTEN))
def _deleted_after(stage: Stage) -> Story:
    scene = stage.scene
    yield
    scene.commit("a", "genesis")
    scene.push("a")
    stage_looks(stage)
    scene.commit("x", "genesis")
    scene.push("x")
    yield
    scene.delete()
    yield


@topology("deleted", "before anything was accepted", Seen("None"), START)
def _deleted_first(stage: Stage) -> Story:
    stage.scene.delete()
    yield
    assert stage.errors() == [MISSING] * 2
    stage.scene.push("genesis")
    yield


# --- what the ratchet has not accepted is none of its business


@topology("rewritten before it was accepted", "fetched, and then another child", START, Seen("b"))
def _unaccepted(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("a", "genesis")
    scene.push("a")
    stage.fetch_only()
    scene.commit("b", "genesis")
    scene.push("b")
    yield


@topology("rewritten before it was accepted", "fetched, and then taken back", START, START)
def _unaccepted_back(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.push(scene.chain("a", "genesis", 3))
    stage.fetch_only()
    scene.push("genesis")
    yield


@topology(
    "rewritten before it was accepted", "as it was not signed",
    START, Seen("genesis", None, ("a", "SignatureMissing")), Seen("b"), signed=True,
)  # fmt: skip
def _unaccepted_unsigned(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("a", "genesis", by=None)
    scene.push("a")
    yield
    scene.commit("b", "genesis")
    scene.push("b")
    yield


# --- what a server or a mirror only pretends


@topology("replace refs on the server", "a rewrite that pretends to descend", START, Seen("a"), Seen("a", REWRITTEN))
def _replaced(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("a", "genesis")
    scene.push("a")
    yield
    scene.commit("x", "genesis")
    scene.commit("like-x", "a")
    scene.repo.git("replace", scene.names["x"], scene.names["like-x"])
    scene.push("x")
    yield


@topology("grafts on the server", "a rewrite that pretends to descend", START, Seen("a"), Seen("a", REWRITTEN))
def _grafted(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("a", "genesis")
    scene.push("a")
    yield
    scene.commit("x", "genesis")
    (scene.repo.folder / "info").mkdir(exist_ok=True)
    (scene.repo.folder / "info" / "grafts").write_text(f"{scene.names['x']} {scene.names['a']}\n")
    scene.push("x")
    yield


@topology("shallow server", "that hides what came since", START, Seen("c-1"), Seen("c-1"), Seen("c-4"))
def _shallow(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.chain("c", "genesis", 4)
    scene.push("c-1")
    yield
    scene.push("c-4")
    (scene.repo.folder / "shallow").write_text(f"{scene.names['c-3']}\n")
    yield
    assert stage.errors() == ["ServerShallow"] * 2
    (scene.repo.folder / "shallow").unlink()
    yield


@topology("shallow server", "that pretends to end at the accepted head", START, Seen("c-1"), Seen("c-2"))
def _shallow_below(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.chain("c", "genesis", 2)
    scene.push("c-1")
    yield
    scene.push("c-2")
    (scene.repo.folder / "shallow").write_text(f"{scene.names['c-1']}\n")
    yield


@topology("no commit", "the branch is a tag", START, Seen("a"), Seen("a"), Seen("b"))
def _tagged(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("a", "genesis")
    scene.commit("b", "a")
    scene.push("a")
    yield
    scene.repo.tag("v1", scene.names["b"], annotated=True)
    tag = scene.repo.git("rev-parse", "refs/tags/v1")
    (scene.repo.folder / "refs" / "heads" / "main").write_text(f"{tag}\n")
    yield
    assert stage.errors() == ["ObjectRefused"] * 2
    (scene.repo.folder / "refs" / "heads" / "main").write_text(f"{scene.names['b']}\n")
    yield


def _mirror(name: str, change: Callable[[Stage, Path], None]) -> None:
    """Whatever is done to a mirror is no rewrite, and lowers nothing."""

    @topology("mirror", name, START, Seen("c-2"), Seen("c-2"), Seen("c-3"))
    def story(stage: Stage) -> Story:
        yield
        scene = stage.scene
        scene.chain("c", "genesis", 3)
        scene.push("c-2")
        yield
        stage.mirrors(lambda mirror: change(stage, mirror))
        yield
        scene.push("c-3")
        yield


def _point(mirror: Path, commit: str) -> None:
    (mirror / "current" / "refs" / "reconciler" / "head").write_text(f"{commit}\n")


def _lose(stage: Stage, mirror: Path, name: str) -> None:
    current = (mirror / "current").resolve()
    loosen(current)
    commit = stage.scene.names[name]
    (current / "objects" / commit[:2] / commit[2:]).unlink()


def _other_repository(stage: Stage, mirror: Path) -> None:
    other = RepoBuilder.create(mirror.parent / "other.git")
    other.commit({"a": "1"})
    current = (mirror / "current").resolve()
    shutil.rmtree(current)
    shutil.copytree(other.folder, current)
    (current / "refs" / "reconciler").mkdir()
    _point(mirror, str(other.head()))


def _old_copy(stage: Stage, mirror: Path) -> None:
    current = (mirror / "current").resolve()
    shutil.rmtree(current)
    fresh = RepoBuilder.create(current)
    fresh.git("fetch", "--quiet", stage.scene.repo.url, f"{stage.scene.names['genesis']}:refs/reconciler/head")


def _pretend(mirror: Path, file: str, text: str) -> None:
    path = mirror / "current" / file
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)


def _without_link(_stage: Stage, mirror: Path) -> None:
    (mirror / "current").unlink()


def _pack(_stage: Stage, mirror: Path) -> None:
    RepoBuilder((mirror / "current").resolve()).git("pack-refs", "--all")


_mirror("is gone", lambda _, mirror: shutil.rmtree(mirror))
_mirror("has no link to what is in force", _without_link)
_mirror("has an older ref", lambda stage, mirror: _point(mirror, stage.scene.names["genesis"]))
_mirror("has a ref to nothing", lambda _, mirror: _point(mirror, "1" * 40))
_mirror("has a ref that is no id", lambda _, mirror: _point(mirror, "ref: refs/heads/x"))
_mirror("has no ref", lambda _, mirror: (mirror / "current/refs/reconciler/head").unlink())
_mirror("lost the accepted head", lambda stage, mirror: _lose(stage, mirror, "c-2"))
_mirror("lost a commit before it", lambda stage, mirror: _lose(stage, mirror, "c-1"))
_mirror("was restored from an old copy", _old_copy)
_mirror("is another repository's", _other_repository)
_mirror("was packed by hand", _pack)
_mirror("was made shallow", lambda stage, mirror: _pretend(mirror, "shallow", f"{stage.scene.names['c-2']}\n"))
_mirror(
    "has grafts",
    lambda stage, mirror: _pretend(mirror, "info/grafts", f"{stage.scene.names['c-2']}\n{stage.scene.names['c-3']}\n"),
)
_mirror(
    "has replace refs",
    lambda stage, mirror: _pretend(
        mirror, f"refs/replace/{stage.scene.names['c-2']}", f"{stage.scene.names['genesis']}\n"
    ),
)


@topology(
    "mirror", "is lost while the branch is rewritten", START, Seen("a"), Seen("a", REWRITTEN), Seen("a", REWRITTEN)
)
def _mirror_and_rewrite(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("a", "genesis")
    scene.push("a")
    yield
    scene.commit("x", "genesis")
    scene.push("x")
    stage.lose_mirrors()
    yield
    scene.push("a")
    yield


@topology("mirror", "pretends that a rewrite descends", START, Seen("a"), Seen("a", REWRITTEN))
def _mirror_pretends(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("a", "genesis")
    scene.push("a")
    yield
    scene.commit("x", "genesis")
    scene.push("x")
    graft = f"{scene.names['x']} {scene.names['a']}\n"
    stage.mirrors(lambda mirror: _pretend(mirror, "info/grafts", graft))
    yield


# --- signatures


def _one(klass: str, name: str, reason: str | None, **commit: object) -> None:
    """One commit on the genesis, and one on that."""
    verdict = Seen("next") if reason is None else Seen("genesis", None, ("one", reason))

    @topology(klass, name, START, verdict, signed=True)
    def story(stage: Stage) -> Story:
        yield
        scene = stage.scene
        scene.commit("one", "genesis", **commit)  # type: ignore[arg-type]
        scene.commit("next", "one", at=max(NOON + DAY, int(str(commit.get("at", 0))) % 2_000_000_000))
        scene.push("next")
        yield


_one("signed", "by an allowed key", None)
_one("unsigned", "at the start of the chain", "SignatureMissing", by=None)
_one("unknown signer", "a key that nobody lists", "SignerUnknown", by="eve")
_one("tampered", "after it was signed", "SignatureInvalid", tampered=True)
_one("namespace", "a signature for files", "SignatureInvalid", namespace="file")
_one("date before its parent", "by a day", "DateInvalid", at=NOON - DAY)
_one("date in the future", "in 2096", "DateInvalid", at=4_000_000_000)


def _unsigned(place: int, count: int) -> None:
    """The longest proven part of the chain counts."""
    stands = f"c{place - 1}" if place > 1 else "genesis"

    @topology(
        "unsigned in the chain",
        f"commit {place} of {count}",
        START, Seen(stands, None, (f"c{place}", "SignatureMissing")), Seen(stands, None, (f"c{place}", "SignatureMissing")),
        signed=True,
    )  # fmt: skip
    def story(stage: Stage) -> Story:
        yield
        scene = stage.scene
        for number in range(1, count + 1):
            parent = f"c{number - 1}" if number > 1 else "genesis"
            scene.commit(f"c{number}", parent, by=None if number == place else "ada")
        scene.push(f"c{count}")
        yield
        scene.commit("more", f"c{count}")
        scene.push("more")
        yield


for _place, _count in ((2, 3), (3, 3), (1, 4)):
    _unsigned(_place, _count)


@topology("unsigned aside", "only second parents", START, Seen("m"), signed=True)
def _aside(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("m", "genesis", scene.chain("s", "genesis", 3, by=None))
    scene.push("m")
    yield


@topology("unsigned merge", "of signed sides", START, Seen("genesis", None, ("m", "SignatureMissing")), signed=True)
def _merge_unsigned(stage: Stage) -> Story:
    yield
    scene = stage.scene
    scene.commit("m", "genesis", scene.chain("s", "genesis", 1), by=None)
    scene.push("m")
    yield


@topology(
    "expired key", "and a commit after its end", START, Seen("genesis", None, ("a", "SignerUnknown")), signed=True
)
def _expired(stage: Stage) -> Story:
    yield
    stage.scene.allowed("ada", options=f'valid-before="{_day(NOON - DAY)}"')
    stage.scene.commit("a", "genesis")
    stage.scene.push("a")
    yield


@topology(
    "key not yet valid", "and a commit before it", START, Seen("genesis", None, ("a", "SignerUnknown")), signed=True
)
def _not_yet(stage: Stage) -> Story:
    yield
    stage.scene.allowed("ada", options=f'valid-after="{_day(NOON + 10 * DAY)}"')
    stage.scene.commit("a", "genesis")
    stage.scene.push("a")
    yield


@topology("expired key", "what was proven before stays so", START, Seen("a"), Seen("b"), signed=True)
def _rotated(stage: Stage) -> Story:
    yield
    stage.scene.commit("a", "genesis")
    stage.scene.push("a")
    yield
    stage.scene.allowed("eve")
    stage.scene.commit("b", "a", by="eve")
    stage.scene.push("b")
    yield


@topology("revoked key", "before the commit came", START, Seen("genesis", None, ("a", "SignerRevoked")), signed=True)
def _revoked(stage: Stage) -> Story:
    yield
    stage.scene.revoke("ada")
    stage.scene.commit("a", "genesis")
    stage.scene.push("a")
    yield


@topology(
    "revoked key", "of a commit that was accepted, until an admin accepts what was merged since",
    START, Seen("a"), Seen("a", REVOKED), Seen("b"), signed=True,
)  # fmt: skip
def _revoked_later(stage: Stage) -> Story:
    scene = stage.scene
    scene.allowed("ada", "eve")
    yield
    scene.commit("a", "genesis")
    scene.push("a")
    yield
    scene.revoke("ada")
    scene.commit("b", "a", by="eve")
    scene.push("b")
    yield
    stage.accept("a", "b")
    yield


@topology(
    "rewritten and unsigned", "is not accepted by an admin either", START, Seen("a", REWRITTEN), Seen("y"), signed=True
)
def _rewritten_unsigned(stage: Stage) -> Story:
    scene = stage.scene
    yield
    scene.commit("a", "genesis")
    scene.push("a")
    stage_looks(stage)
    scene.commit("x1", "genesis")
    scene.commit("x2", "x1", by=None)
    scene.commit("x3", "x2")
    scene.push("x3")
    assert stage.refused("a", "x3") == {("SignatureMissing", "x2")}
    yield
    scene.commit("y", "x1")
    scene.push("y")
    stage.accept("a", "y")
    yield


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dZ")


# --- the judge


def test_there_are_enough_of_them() -> None:
    classes = Counter(topology.klass for topology in TOPOLOGIES)
    assert len(TOPOLOGIES) >= 50
    assert len(classes) >= 15
    assert len({str(topology) for topology in TOPOLOGIES}) == len(TOPOLOGIES)


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=str)
def test_both_planes_say_what_was_declared(topology: Topology, tmp_path: Path, ssh_keys: SshKeys) -> None:
    stage = Stage.open(tmp_path, ssh_keys if topology.signed else None)
    said = [[plane.look() for plane in stage.planes] for _ in topology.story(stage)]
    assert said == [[verdict] * 2 for verdict in topology.verdicts]
