"""What both planes make of a branch, whatever is done to it. A step is a verdict, and what is done before both planes look."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.kit.gitrepo import RepoBuilder, loosen
from tests.kit.signing import NOON, SshKeys
from tests.kit.topologies import (
    MISSING,
    REWRITTEN,
    Topology,
    accept,
    accepted,
    allow,
    delete,
    fetch_only,
    lose_mirrors,
    make,
    mirrors,
    mirrors_say,
    missing,
    nothing,
    push,
    refused,
    replace,
    revoke,
    revoked,
    rewritten,
    rolled_back,
    server_forgets,
    server_says,
    server_says_no_more,
    tag,
    topology,
    unproven,
)
from tests.kit.topology import DAY, Stage

A, X = accepted("a", push("a: genesis")), rewritten("a", push("x: genesis"))  # how many of them begin


def day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dZ")


GROWS = [
    *(
        topology(
            "linear", f"{count} commits, {at_once} at once",
            *(accepted(f"c-{end}", push(f"c-{end}")) for end in (*range(at_once, count, at_once), count)),
            start=accepted("genesis", make(f"c*{count}: genesis")),
        )
        for count, at_once in ((1, 1), (4, 1), (5, 2), (60, 60))
    ),
    *(
        topology(
            "merge without fast-forward", f"{side} commits aside, {before} direct",
            accepted("m", push(f"d*{before}: genesis", f"s*{side}: genesis", f"m: d-{before} s-{side}")),
        )
        for side, before in ((1, 0), (3, 0), (2, 2))
    ),
    *(
        topology(
            "merge by fast-forward", f"{count} commits of the branch",
            accepted(f"s-{count}", push(f"s*{count}: genesis")),
        )
        for count in (1, 3)
    ),
    topology("octopus", "2 arms", accepted("m", push("s0: genesis", "s1: genesis", "m: genesis s0 s1"))),
    topology(
        "octopus", "4 arms",
        accepted("m", push(*(f"s{arm}: genesis" for arm in range(4)), "m: genesis s0 s1 s2 s3")),
    ),
    topology(
        "evil merge", "files of neither side",
        accepted("m", make("s: genesis", files="side"), push("m: genesis s", files="of neither")),
    ),
    topology(
        "criss-cross", "both merged each other, and the branch goes on",
        accepted("a", make("a: genesis", "b: genesis"), push("a")),
        accepted("m", push("b2: b a", "a2: a b", "m: a2 b2")),
    ),
    topology(
        "criss-cross", "the other one takes the branch's place",
        accepted("a2", push("a: genesis", "b: genesis", "a2: a b")),
        rewritten("a2", push("b2: b a", "m: b2 a2")),
    ),
    topology(
        "dates", "each commit older than its parent",
        accepted("c3", make("c1: genesis", at=NOON - DAY), make("c2: c1", at=NOON - 2 * DAY), push("c3: c2", at=0)),
    ),
    topology(
        "dates", "a rewrite that is dated before and after everything",
        A,
        rewritten("a", make("x1: genesis", at=0), push("x2: x1", at=4_000_000_000)),
    ),
]  # fmt: skip

FOXTROTS = [
    topology(
        "foxtrot", f"the accepted head as parent {position}, {more} commits later",
        A,
        rewritten("a", make("s1: genesis", "s2: genesis"), push(f"m: {sides} a", f"n*{more}: m")),
    )
    for position, more, sides in ((2, 0, "s1"), (2, 2, "s1"), (3, 0, "s1 s2"))
]  # fmt: skip

SHOWS_SOMETHING_OLDER = [
    *(
        topology(
            "rollback", f"by {back}, and the server catches up",
            accepted("c-5", push("c*6: genesis", "c-5")),
            rolled_back("c-5", push(f"c-{5 - back}")),
            accepted("c-6", push("c-6")),
        )
        for back in (1, 2, 3, 5)
    ),
    topology(
        "rollback", "by a whole merge",
        accepted("m", push("s: genesis", "m: genesis s")),
        rolled_back("m", push("genesis")),
        accepted("m", push("m")),
    ),
    topology(
        "rollback", "to the side of a merge, which is no older head",
        accepted("m", push("s: genesis", "m: genesis s")),
        rewritten("m", push("s")),
    ),
    topology(
        "rollback", "and something else is built on it",
        accepted("c-3", push("c*3: genesis")),
        rolled_back("c-3", push("c-1")),
        rewritten("c-3", push("x: c-1")),
        rewritten("c-3", push("c-3")),
    ),
    topology(
        "rollback", "with the mirrors lost",
        accepted("c-3", push("c*3: genesis")),
        rolled_back("c-3", push("c-1"), lose_mirrors),
        accepted("c-3", push("c-3")),
    ),
]  # fmt: skip

IS_ANOTHER = [
    *(
        topology(
            "diverged", f"{depth} commits taken away, {length} put there",
            accepted("c-4", push("c*4: genesis")),
            rewritten("c-4", push(f"x*{length}: c-{4 - depth}")),
            rewritten("c-4", push(f"y: x-{length}")),
        )
        for depth, length in ((1, 1), (1, 5), (3, 2), (4, 6))
    ),
    topology("amended", "the same files under another commit", A, rewritten("a", push("a2: genesis"))),
    topology("unrelated root", "that knows nothing of it", A, rewritten("a", push("root:", "x: root"))),
    topology("unrelated root", "that merges the accepted head", A, rewritten("a", push("root:", "x: root a"))),
    topology(
        "unrelated root", "in place of the genesis, before anything was accepted",
        accepted("genesis", push("genesis")),
        start=nothing(REWRITTEN, push("root:")),
    ),
    topology("put back", "a rewrite stays one", A, X, rewritten("a", push("a")), rewritten("a", push("b: a"))),
    topology(
        "put back", "between two looks, so that nobody has seen it",
        A,
        accepted("b", push("x: genesis"), push("b: a")),
    ),
]  # fmt: skip

AN_ADMIN_ACCEPTS = [
    topology(
        "accept-history", "of a rewrite",
        accepted("a-2", push("a*2: genesis")),
        rewritten("a-2", push("x*2: a-1")),
        accepted("x-2", accept("a-2", "x-2")),
        accepted("y", push("y: x-2")),
        rewritten("y", push("a-2")),  # the history of before is none any more
    ),
    topology("accept-history", "of a branch that was put back", A, X, accepted("b", push("b: a"), accept("a", "b"))),
    topology(
        "accept-history", "of a rollback",
        accepted("a-3", push("a*3: genesis")),
        rolled_back("a-3", push("a-1")),
        accepted("a-1", accept("a-3", "a-1")),
        accepted("x", push("x: a-1")),
    ),
    topology(
        "accept-history", "of a foxtrot, and of an unrelated root",
        A,
        accepted("m", push("s: genesis", "m: s a"), accept("a", "m")),
        accepted("root", push("root:"), accept("m", "root")),
    ),
    topology(
        "accept-history", "with the mirrors lost",
        A,
        accepted("x", push("x: genesis"), server_forgets, lose_mirrors, accept("a", "x")),
    ),
    topology(
        "accept-history", "with other words than are so",
        A,
        rewritten(
            "a",
            push("x: genesis", "y: x"),
            refused("genesis", "y", "HeadMoved", "a"),
            refused("a", "x", "HeadMoved", "y"),
        ),
    ),
]  # fmt: skip

IS_GONE = [
    *(
        topology(
            "deleted", f"and made anew {name}",
            accepted("c-2", push("c*3: genesis", "x: c-1", "c-2")),
            missing("c-2", delete),
            made_anew,
            then,
        )
        for name, made_anew, then in (
            ("at the accepted head", accepted("c-2", push("c-2")), accepted("c-3", push("c-3"))),
            ("at a descendant", accepted("c-3", push("c-3")), accepted("c-3", push("c-3"))),
            ("at an older head", rolled_back("c-2", push("c-1")), accepted("c-3", push("c-3"))),
            ("elsewhere", rewritten("c-2", push("x")), rewritten("c-2", push("c-3"))),
        )
    ),
    topology("deleted", "after a rewrite, which stays one", A, X, rewritten("a", delete)),
    topology(
        "deleted", "before anything was accepted",
        accepted("genesis", push("genesis")),
        start=nothing(MISSING, delete),
    ),
]  # fmt: skip

NOT_ACCEPTED = [  # what the ratchet has not accepted is none of its business
    topology(
        "rewritten before it was accepted", "fetched, and then another child",
        accepted("b", push("a: genesis"), fetch_only, push("b: genesis")),
    ),
    topology(
        "rewritten before it was accepted", "fetched, and then taken back",
        accepted("genesis", push("a*3: genesis"), fetch_only, push("genesis")),
    ),
    topology(
        "rewritten before it was accepted", "as it was not signed",
        unproven("genesis", "a", "SignatureMissing", push("a: genesis", by=None)),
        accepted("b", push("b: genesis")),
        signed=True,
    ),
]  # fmt: skip

THE_SERVER_PRETENDS = [
    topology(
        "replace refs on the server", "a rewrite that pretends to descend",
        A,
        rewritten("a", make("x: genesis", "like-x: a"), replace("x", "like-x"), push("x")),
    ),
    topology(
        "grafts on the server", "a rewrite that pretends to descend",
        A,
        rewritten("a", make("x: genesis"), server_says("info/grafts", "{x} {a}"), push("x")),
    ),
    topology(
        "shallow server", "that hides what came since",
        accepted("c-1", push("c*4: genesis", "c-1")),
        accepted("c-1", push("c-4"), server_says("shallow", "{c-3}"), error="ServerShallow"),
        accepted("c-4", server_says_no_more("shallow")),
    ),
    topology(
        "shallow server", "that pretends to end at the accepted head",
        accepted("c-1", push("c*2: genesis", "c-1")),
        accepted("c-2", push("c-2"), server_says("shallow", "{c-1}")),
    ),
    topology(
        "no commit", "the branch is a tag",
        accepted("a", push("a: genesis", "b: a", "a")),
        accepted("a", tag("v1", "b"), server_says("refs/heads/main", "{v1}"), error="ObjectRefused"),
        accepted("b", server_says("refs/heads/main", "{b}")),
    ),
]  # fmt: skip


def lost(name: str, stage: Stage, mirror: Path) -> None:
    current = (mirror / "current").resolve()
    loosen(current)
    commit = stage.scene.names[name]
    (current / "objects" / commit[:2] / commit[2:]).unlink()


def another_repository(stage: Stage, mirror: Path) -> None:
    other = RepoBuilder.create(mirror.parent / "other.git")
    other.commit({"a": "1"})
    current = (mirror / "current").resolve()
    shutil.rmtree(current)
    shutil.copytree(other.folder, current)
    head = current / "refs" / "reconciler" / "head"
    head.parent.mkdir()
    head.write_text(f"{other.head()}\n")


def old_copy(stage: Stage, mirror: Path) -> None:
    current = (mirror / "current").resolve()
    shutil.rmtree(current)
    fresh = RepoBuilder.create(current)
    fresh.git("fetch", "--quiet", stage.scene.repo.url, f"{stage.scene.names['genesis']}:refs/reconciler/head")


HEAD = "refs/reconciler/head"
MIRRORS = [  # whatever is done to a mirror is no rewrite, and lowers nothing
    *(
        topology(
            "mirror", name,
            accepted("c-2", push("c*3: genesis", "c-2")),
            accepted("c-2", done),
            accepted("c-3", push("c-3")),
        )
        for name, done in (
            ("is gone", lose_mirrors),
            ("has no link to what is in force", mirrors(lambda _, mirror: (mirror / "current").unlink())),
            ("has an older ref", mirrors_say(HEAD, "{genesis}")),
            ("has a ref to nothing", mirrors_say(HEAD, "1" * 40)),
            ("has a ref that is no id", mirrors_say(HEAD, "ref: refs/heads/x")),
            ("has no ref", mirrors(lambda _, mirror: (mirror / "current" / HEAD).unlink())),
            ("lost the accepted head", mirrors(lambda stage, mirror: lost("c-2", stage, mirror))),
            ("lost a commit before it", mirrors(lambda stage, mirror: lost("c-1", stage, mirror))),
            ("was restored from an old copy", mirrors(old_copy)),
            ("is another repository's", mirrors(another_repository)),
            (
                "was packed by hand",
                mirrors(lambda _, mirror: RepoBuilder((mirror / "current").resolve()).git("pack-refs", "--all")),
            ),
            ("was made shallow", mirrors_say("shallow", "{c-2}")),
            ("has grafts", mirrors_say("info/grafts", "{c-2}\n{c-3}")),
            ("has replace refs", mirrors_say("refs/replace/{c-2}", "{genesis}")),
        )
    ),
    topology(
        "mirror", "is lost while the branch is rewritten",
        A,
        rewritten("a", push("x: genesis"), lose_mirrors),
        rewritten("a", push("a")),
    ),
    topology(
        "mirror", "pretends that a rewrite descends",
        A,
        rewritten("a", push("x: genesis"), mirrors_say("info/grafts", "{x} {a}")),
    ),
]  # fmt: skip

NEXT = push("next: one", at=NOON + DAY)  # what comes after the one that is looked at
SIGNATURES = [
    topology("signed", "by an allowed key", accepted("next", make("one: genesis"), NEXT), signed=True),
    *(
        topology(klass, name, unproven("genesis", "one", reason, one, NEXT), signed=True)
        for klass, name, reason, one in (
            ("unsigned", "at the start of the chain", "SignatureMissing", make("one: genesis", by=None)),
            ("unknown signer", "a key that nobody lists", "SignerUnknown", make("one: genesis", by="eve")),
            ("tampered", "after it was signed", "SignatureInvalid", make("one: genesis", tampered=True)),
            ("namespace", "a signature for files", "SignatureInvalid", make("one: genesis", namespace="file")),
            ("date before its parent", "by a day", "DateInvalid", make("one: genesis", at=NOON - DAY)),
            ("date in the future", "in 2096", "DateInvalid", make("one: genesis", at=4_000_000_000)),
        )
    ),
    *(
        topology(  # the longest proven part of the chain counts
            "unsigned in the chain", f"commit {place} of {count}",
            unproven(
                stands, "bad", "SignatureMissing",
                make(f"c*{place - 1}: genesis"), make(f"bad: c-{place - 1}", by=None), push(f"d*{count - place}: bad"),
            ),
            unproven(stands, "bad", "SignatureMissing", push(f"more: d-{count - place}")),
            signed=True,
        )
        for place, count, stands in ((2, 3, "c-1"), (3, 3, "c-2"), (1, 4, "genesis"))
    ),
    topology(
        "unsigned aside", "only second parents",
        accepted("m", make("s*3: genesis", by=None), push("m: genesis s-3")),
        signed=True,
    ),
    topology(
        "unsigned merge", "of signed sides",
        unproven("genesis", "m", "SignatureMissing", make("s: genesis"), push("m: genesis s", by=None)),
        signed=True,
    ),
    topology(
        "expired key", "and a commit after its end",
        unproven(
            "genesis", "a", "SignerUnknown",
            allow("ada", options=f'valid-before="{day(NOON - DAY)}"'), push("a: genesis"),
        ),
        signed=True,
    ),
    topology(
        "key not yet valid", "and a commit before it",
        unproven(
            "genesis", "a", "SignerUnknown",
            allow("ada", options=f'valid-after="{day(NOON + 10 * DAY)}"'), push("a: genesis"),
        ),
        signed=True,
    ),
    topology(
        "expired key", "what was proven before stays so",
        A,
        accepted("b", allow("eve"), push("b: a", by="eve")),
        signed=True,
    ),
    topology(
        "revoked key", "before the commit came",
        unproven("genesis", "a", "SignerRevoked", revoke("ada"), push("a: genesis")),
        signed=True,
    ),
    topology(
        "revoked key", "of a commit that was accepted, until an admin accepts what was merged since",
        A,
        revoked("a", revoke("ada"), push("b: a", by="eve")),
        accepted("b", accept("a", "b")),
        start=accepted("genesis", allow("ada", "eve")),
        signed=True,
    ),
    topology(
        "rewritten and unsigned", "is not accepted by an admin either",
        A,
        rewritten(
            "a",
            make("x1: genesis"), make("x2: x1", by=None), push("x3: x2"),
            refused("a", "x3", "SignatureMissing", "x2"),
        ),
        accepted("y", push("y: x1"), accept("a", "y")),
        signed=True,
    ),
]  # fmt: skip

TOPOLOGIES = [
    *GROWS, *FOXTROTS, *SHOWS_SOMETHING_OLDER, *IS_ANOTHER, *AN_ADMIN_ACCEPTS, *IS_GONE,
    *NOT_ACCEPTED, *THE_SERVER_PRETENDS, *MIRRORS, *SIGNATURES,
]  # fmt: skip


def test_none_of_them_is_missing() -> None:
    assert len({str(topology) for topology in TOPOLOGIES}) == len(TOPOLOGIES) == 91
    assert len(Counter(topology.klass for topology in TOPOLOGIES)) == 35


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=str)
def test_both_planes_say_what_was_declared(topology: Topology, tmp_path: Path, ssh_keys: SshKeys) -> None:
    stage = Stage.open(tmp_path, ssh_keys if topology.signed else None)
    for step in topology.steps:
        for act in step.acts:
            act(stage)
        assert [plane.look() for plane in stage.planes] == [step.verdict] * 2
        assert step.error is None or stage.errors() == [step.error] * 2
