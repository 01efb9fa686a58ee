"""Trees that are hostile, in real repositories: made without a look by git, fetched, judged and read as both planes do."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.branch.protected import Catalogs, ProtectedBranch
from reconciler.errors import PassError, UnitError
from reconciler.git.catalog import CatalogRepo
from reconciler.git.remote import Remote
from reconciler.git.source import EnvironmentsSource
from reconciler.model import Commit
from tests.hostile.site import ENTRY, ENTRY_PATH, ENVIRONMENT_PATH, LOCK, LOCK_PATH
from tests.hostile.table import Judge, Refusal, Trait, tells, these, trait
from tests.kit.gitrepo import Memory, RepoBuilder

Entry = tuple[str, bytes, str]  # mode, name, object id
Build = Callable[[RepoBuilder, str], list[Entry]]  # what stands beside the good entry, whose blob is given

Row = tuple[str, tuple[str, ...], list[Build]]

FSCK = "ObjectRefused"
UNTAKEN = (FSCK, "GitUnreachable")  # git did not even take the objects: nothing can be built on them
OUT = (*UNTAKEN, "TreeTooLarge")
PLAIN = "100644"
SITE = {ENVIRONMENT_PATH: "class: protected\n", LOCK_PATH: LOCK, ENTRY_PATH: ENTRY}
CATALOG = {"modules/a/main.tf": ENTRY, ENTRY_PATH: ENTRY}
WHOLE = bool(os.environ.get("RECONCILER_TEST_HOSTILE_WHOLE"))  # else of the largest only a sample


@dataclass(frozen=True, slots=True)
class Standing:
    """A repository whose head is the hostile commit, on top of a good one, and where its mirror goes."""

    repo: RepoBuilder
    good: Commit
    bad: Commit
    place: Path
    names: tuple[bytes, ...]  # of what stands beside the good entry


def trees(folder: Path) -> tuple[Trait, ...]:
    """Every class of hostile trees; each case is a repository of its own in `folder`."""
    rows = [_row(row, environments, _standing(folder, SITE)) for row in ROWS]
    return (*rows, *(_row(row, catalogs, _standing(folder, CATALOG)) for row in IN_CATALOGS))


def _row(row: Row, judge: Judge, ready: Callable[[Build], Standing]) -> Trait:
    name, reasons, builds = row
    place = "file://" if reasons == ("GitUnreachable",) else ("environments/prod/", "object ")  # the server's own fault
    one = trait(name, judge, these(*builds), lambda _repo, blob: [(PLAIN, b"other.yaml", blob)], place, *reasons)
    return replace(one, ready=ready)


def _standing(folder: Path, files: dict[str, str]) -> Callable[[Build], Standing]:
    def ready(build: Build) -> Standing:
        place = folder / secrets.token_hex(8)
        repo = RepoBuilder.create(place / "repo.git")
        good = repo.commit(files)
        names: list[bytes] = []

        def noted(repo: RepoBuilder, blob: str) -> list[Entry]:
            made = build(repo, blob)
            names.extend(name.removeprefix(b"!") for _, name, _ in made)
            return made

        return Standing(repo, good, commit_with(repo, noted, good), place, tuple(names))

    return ready


def environments(given: Standing) -> list[Refusal]:
    """The good commit, then the hostile one on top, then a good one again: what each of them means."""
    repo, good, bad = given.repo, given.good, given.bad
    repo.point("main", good)
    source = EnvironmentsSource(
        Remote(repo.url), "main", given.place / "mirror", Memory(), genesis=None, genesis_required=False, allow_file=True
    )  # fmt: skip
    branch = ProtectedBranch(source, Catalogs({}, given.place / "trees"))
    before = branch.load(_polled(source))
    repo.point("main", bad)
    refused = _refused(branch, source)
    if any(one.reason in OUT for one in refused):  # all of it stays out, and the last good one in
        assert branch.load(good) is before
    parent = good if any(one.reason in UNTAKEN for one in refused) else bad
    repo.point("main", repo.commit_tree(repo.git("rev-parse", f"{good}^{{tree}}"), "mended", (parent,)))
    assert branch.load(_polled(source)).units.keys() == before.units.keys()
    return [_placed(given, one) for one in refused]


def catalogs(given: Standing) -> list[Refusal]:
    """The same trees in a catalog: one file that is odd refuses all of it."""
    catalog = CatalogRepo(Remote(given.repo.url), "main", given.place / "mirror", allow_file=True)
    try:
        catalog.update()
        catalog.contents(given.bad)
    except (PassError, UnitError) as error:
        return [_placed(given, Refusal(error.reason, given.repo.url, str(error)))]
    return []


def _placed(given: Standing, refused: Refusal) -> Refusal:
    """Where a person is sent: to the path in the tree; or, of what git itself did not take, to the object."""
    if refused.reason in UNTAKEN:
        found = re.search(r"object [0-9a-f]{40}", refused.message)
        return replace(refused, place=found[0]) if found else refused
    said = f"{refused.place} {refused.message}"
    told = any(tells(said, f"environments/prod/{name.decode('latin-1')}") for name in given.names)
    return replace(refused, place=said[said.find("environments/prod/") :] if told else "elsewhere")


def _polled(source: EnvironmentsSource) -> Commit:
    head = source.poll()
    source.accept(head)
    return head.commit


def _refused(branch: ProtectedBranch, source: EnvironmentsSource) -> list[Refusal]:
    try:
        found = branch.load(_polled(source))
    except PassError as error:
        return [Refusal(error.reason, source.git.where, str(error))]
    return [Refusal(one.reason, str(one.place), one.message) for one in found.problems]


def commit_with(repo: RepoBuilder, build: Build, good: Commit) -> Commit:
    """A commit whose environments/prod has the good files, and what is built."""
    kept: list[Entry] = []
    for line in repo.git("ls-tree", f"{good}:environments/prod").splitlines():
        mode, _, oid, name = line.split(None, 3)
        kept.append((mode, name.encode(), oid))
    made = build(repo, repo.blob(ENTRY))
    entries = made if any(name.startswith(b"!") for _, name, _ in made) else sorted([*kept, *made], key=_order)
    prod = repo.raw_tree(*((mode, name.removeprefix(b"!"), oid) for mode, name, oid in entries))
    inner = repo.raw_tree(("40000", b"prod", prod))
    lines = [line.split(None, 3) for line in repo.git("ls-tree", good).splitlines()]
    top = [(mode.lstrip("0"), name.encode(), inner if name == "environments" else oid) for mode, _, oid, name in lines]
    commit = repo.commit_tree(repo.raw_tree(*top), "hostile", (good,))
    repo.point("main", commit)
    return commit


def _order(entry: Entry) -> bytes:
    return entry[1] + (b"/" if entry[0] == "40000" else b"")


def _one(name: bytes, mode: str = PLAIN) -> Build:
    return lambda _repo, blob: [(mode, name, blob)]


def _link(target: str, name: bytes = b"link.yaml") -> Build:
    return lambda repo, _: [("120000", name, repo.blob(target))]


def _below(name: bytes, inner: bytes = b"x.yaml") -> Build:
    return lambda repo, blob: [("40000", name, repo.raw_tree((PLAIN, inner, blob)))]


def _deep(depth: int) -> Build:
    def build(repo: RepoBuilder, blob: str) -> list[Entry]:
        tree = repo.raw_tree((PLAIN, b"x.yaml", blob))
        for _ in range(depth):
            tree = _written(repo, b"40000 a\0" + bytes.fromhex(tree))
        return [("40000", b"deep", tree)]

    return build


def _written(repo: RepoBuilder, data: bytes) -> str:
    """A tree as a loose object, without a process for each."""
    raw = b"tree %d\0" % len(data) + data
    oid = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
    file = repo.folder / "objects" / oid[:2] / oid[2:]
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(zlib.compress(raw, 1))
    return oid


def _bomb(width: int, depth: int) -> Build:
    def build(repo: RepoBuilder, blob: str) -> list[Entry]:
        tree = repo.raw_tree(*((PLAIN, b"%06d.yaml" % number, blob) for number in range(width)))
        for _ in range(depth):
            tree = repo.raw_tree(*(("40000", b"%d" % number, tree) for number in range(10)))
        return [("40000", b"bomb", tree)]

    return build


def _large(size: int) -> Build:
    return lambda repo, _: [(PLAIN, b"large.yaml", repo.blob(b"#" * size))]


def _whole(*builds: Build) -> tuple[Build, ...]:
    return builds if WHOLE else ()


PATH = ("PathInvalid",)
ROWS: list[Row] = [
    ("symbolic links", PATH, [_link(one) for one in ("/etc/passwd", "../stage/x.yaml", "network.yaml", "link.yaml", ".git/config", "x" * 4000)]),
    ("symbolic links to folders", PATH, [_link(one, b"folder") for one in ("/", "..", ".", "../..")]),
    ("submodules", PATH, [lambda _r, _b: [("160000", b"sub", "1" * 40)], lambda _r, _b: [("160000", b"sub.yaml", "f" * 40)]]),
    ("programs", PATH, [_one(b"run.yaml", "100755"), _one(b"zz.yaml", "100755")]),
    ("modes that git does not write", (*PATH, FSCK), [_one(b"a.yaml", one) for one in ("107777", "0100644", "100711")]),
    ("names with line ends", PATH, [_one(b"a\nb.yaml"), _one(b"\n.yaml"), _one(b"a\r.yaml"), _below(b"a\nb")]),
    ("names with backslashes and quotes", PATH, [_one(b"a\\b.yaml"), _one(b"a\\..\\b.yaml"), _one(b'a"b.yaml'), _one(b"\\\\host.yaml")]),
    ("names in no encoding", PATH, [_one(b"\xff\xfe.yaml"), _one(b"a\x80.yaml"), _one(b"\xc0\xaf.yaml"), _below(b"\xed\xa0\x80")]),
    ("names that reach a terminal", PATH, [_one(b"\x1b[31m.yaml"), _one(b"a\x07.yaml"), _one("\u202e.yaml".encode()), _one(b"\x7f.yaml")]),
    ("names in other letters", PATH, [_one("é.yaml".encode()), _one("а.yaml".encode()), _one("e\u0301.yaml".encode()), _one(b"Network.yaml")]),
    ("names of five thousand characters", PATH, [_one(b"a" * 5000 + b".yaml"), _below(b"b" * 5000), _one(b"c" * 390 + b".yaml")]),
    ("three thousand folders", PATH, [_deep(250), _deep(3000)]),
    ("cases that collide", PATH, [_one(b"NETWORK.yaml"), _one(b"Network.yaml"), _one(b"network.YAML"), _below(b"NETWORK")]),
    ("folders of git", (*PATH, FSCK), [_below(one) for one in (b".git", b".GIT", b".Git", b"git~1", b".g\xe2\x80\x8cit", b".git ", b".git.", b".git::$INDEX")]),
    ("dots as names", (*PATH, FSCK), [_below(one) for one in (b".", b"..")] + [_one(b".."), _one(b".")]),
    ("trailing dots and blanks", PATH, [_one(b"a.yaml."), _one(b"a.yaml "), _below(b"a."), _below(b"a ")]),
    ("names that a system reserves", PATH, [_one(b"CON"), _one(b"con.txt"), _one(b"a:b.yaml"), _one(b"NUL.yaml")]),
    ("names with a slash", (*PATH, FSCK), [_one(b"a/b.yaml"), _one(b"../x.yaml"), _one(b"/etc.yaml")]),
    ("one name twice", (FSCK,), [lambda _r, b: [(PLAIN, b"a.yaml", b), (PLAIN, b"a.yaml", b)], lambda r, b: [(PLAIN, b"a.yaml", b), (PLAIN, b"a.yaml", r.blob("x"))],
        lambda r, b: [(PLAIN, b"a", b), ("40000", b"a", r.raw_tree((PLAIN, b"x.yaml", b)))]]),
    ("names out of order", (FSCK,), [lambda _r, b: [(PLAIN, b"!z.yaml", b), (PLAIN, b"!a.yaml", b)]]),
    ("ids of nothing", ("GitUnreachable",), [lambda _r, _b: [(PLAIN, b"a.yaml", "0" * 40)]]),
    ("a bomb of trees", ("TreeTooLarge",), [_bomb(10, 8), *_whole(_bomb(10, 5), _bomb(1000, 3))]),
    ("hundreds of thousands of files", ("TreeTooLarge",), [_bomb(160_000, 0), *_whole(_bomb(300_000, 0))]),
    ("a huge file", ("YamlInvalid", "TreeTooLarge"), [_large(70_000), _large(9 << 20), *_whole(_large(140 << 20))]),
    ("another ending", PATH, [_one(b"a.yml"), _one(b"a.tf"), _one(b"terraform.tfvars"), _one(b"a.json")]),
]  # fmt: skip

REFUSED = ("CatalogTreeRefused", FSCK)
IN_CATALOGS: list[Row] = [
    ("catalogs with links", REFUSED, [_link("/etc/passwd"), _link("..", b"folder"), _link("main.tf")]),
    ("catalogs with submodules", REFUSED, [lambda _r, _b: [("160000", b"sub", "1" * 40)]]),
    ("catalogs with odd names", REFUSED, [_one(b"a\nb"), _one(b"a\\b"), _one(b"\xff"), _one(b"\x1b"), _one("é".encode()), _below(b".GIT"), _below(b"..")]),
    ("catalogs without end", REFUSED, [_bomb(10, 8), _bomb(25_000, 0), _one(b"a" * 5000), *_whole(_deep(3000), _large(140 << 20))]),
]  # fmt: skip
