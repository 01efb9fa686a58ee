"""What the table and the fuzzers found, each in its smallest form: none of it may come back."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.branch.before import changed_since
from reconciler.branch.protected import Catalogs, ProtectedBranch
from reconciler.desired import strict
from reconciler.desired.document import Document
from reconciler.desired.entries import parse_entry
from reconciler.desired.load import Loader
from reconciler.desired.lock import MOST_TOLD, read_lock
from reconciler.desired.paths import classify
from reconciler.desired.strict import VALUES_LIMIT
from reconciler.errors import ConfigError, PassError, Place, UnitError
from reconciler.forge.github import Review
from reconciler.git.head import Head as BranchHead
from reconciler.git.remote import Remote
from reconciler.git.source import EnvironmentsSource
from reconciler.git.tree import TOO_LARGE, TreeLimits
from reconciler.model import Commit, Desired, Entry, Problem, UnitId
from reconciler.runner.audit.chain import Head, follow, link
from reconciler.runner.audit.verify import verify
from reconciler.runner.folding import Folding
from reconciler.runner.memory import Trust
from reconciler.runner.terraform.plan import parse_plan, take_in
from reconciler.runner.terraform.state import parse_state
from reconciler.runner.terraform.transcript import Transcript
from tests.hostile.site import ENTRY, ENTRY_PATH, ENVIRONMENT_PATH, LOCK, LOCK_PATH, load
from tests.kit.gitrepo import Memory, RepoBuilder
from tests.kit.stopwatch import beside, within
from tests.kit.written import Written

DEEP = b"[" * 200_000 + b"]" * 200_000


class Site:
    """A real repository, and the branch over it as both planes read it."""

    def __init__(self, folder: Path) -> None:
        self.repo = RepoBuilder.create(folder / "environments.git")
        self.repo.commit({ENVIRONMENT_PATH: "class: protected\n", LOCK_PATH: LOCK, ENTRY_PATH: ENTRY})
        self.source = EnvironmentsSource(
            Remote(self.repo.url), "main", folder / "mirror", Memory(),
            genesis=None, genesis_required=False, allow_file=True,
        )  # fmt: skip
        self.branch = ProtectedBranch(self.source, Catalogs({}, folder / "trees"))

    def look(self) -> Desired:
        head = self.source.poll()
        self.source.accept(head)
        return self.branch.load(head.commit)

    def bomb(self) -> Commit:
        """Ten to the ninth files, in a few hundred bytes."""
        tree = self.repo.raw_tree(("100644", b"f.yaml", self.repo.blob("x")))
        for _ in range(9):
            tree = self.repo.raw_tree(*(("40000", b"%d" % number, tree) for number in range(10)))
        head = self.repo.head()
        assert head
        kept = self.repo.git("rev-parse", f"{head}:environments/prod")
        inner = self.repo.raw_tree(("40000", b"bomb", tree), ("40000", b"prod", kept))
        commit = self.repo.commit_tree(self.repo.raw_tree(("40000", b"environments", inner)), "bomb", (head,))
        self.repo.point("main", commit)
        return commit

    def mend(self, good: Commit, files: dict[str, str]) -> Commit:
        """A commit on top of whatever the head is, with the files of a good one, and these."""
        head = self.repo.head()
        assert head
        entries = {path: ("100644", self.repo.blob(text)) for path, text in files.items()}
        return self.repo.record(entries, "mended", parents=(head,), base=good)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_file_that_is_too_large_breaks_itself_alone_and_is_not_read(site: Site) -> None:
    site.repo.commit(
        {"environments/prod/large.yaml": b"a" * (9 << 20), "environments/prod/README.md": b"a" * (1 << 20)}
    )
    found = site.look()
    (problem,) = found.problems
    assert str(problem) == ("environments/prod/large.yaml: the file has 9437184 bytes and may have 65536; split it")
    assert set(found.units) == {UnitId("prod/network")}
    assert set(found.broken) == {UnitId("prod/large")}


def test_after_a_commit_that_is_too_large_the_last_good_one_stays_and_the_next_good_one_goes_on(site: Site) -> None:
    good = site.look()
    site.bomb()
    with pytest.raises(PassError) as error:
        site.look()
    assert error.value.reason == TOO_LARGE
    assert not (site.source.git.folder.parent / "suspected").exists()  # or each poll would look at every object
    assert site.branch.load(good.commit) is good
    site.mend(good.commit, {"environments/prod/more.yaml": ENTRY})
    found = site.look()
    assert set(found.units) == {UnitId("prod/network"), UnitId("prod/more")}
    assert not found.problems


def test_the_runner_s_allowances_pass_over_a_commit_that_is_too_large(site: Site) -> None:
    first = site.look().commit
    bomb = site.bomb()
    mended = site.mend(first, {ENTRY_PATH: ENTRY + "allow_destroy: 2\n"})
    for chain in ((bomb, mended), (mended,)):
        site.source.poll()
        before = Trust(first if len(chain) == 2 else bomb, {})
        trust = Folding(site.source).after(before, BranchHead(mended, chain, site.source.poll().committed_at, first))
        assert trust.commit == mended
        assert trust.allowances[UnitId("prod/network")].seen.destroy == 2


def test_a_commit_too_large_is_compared_with_nothing(site: Site) -> None:
    first, bomb = site.look().commit, site.bomb()
    site.source.poll()
    with pytest.raises(PassError) as error:
        changed_since(site.source, first, bomb)
    assert error.value.reason == TOO_LARGE
    assert TreeLimits().total <= 128 << 20


def test_ten_thousand_mistakes_of_one_entry_are_told_within_within() -> None:
    dangling = "".join(f"${{{{a{number:04x}.b}}}}" for number in range(4500))
    for more in (f"inputs:\n  a: '{dangling}'\n", "depends_on:\n" + "".join(f"- a{n:04x}\n" for n in range(7000))):
        with within(), beside(256):
            found = load({ENTRY_PATH: (ENTRY + more).encode()})
        assert len(found.problems) == 50
        assert all(problem.place.path == ENTRY_PATH and problem.place.line for problem in found.problems)


def test_the_places_of_many_references_are_found_in_one_go() -> None:
    text = f"{ENTRY}inputs:\n  a: '{'${{ a.b }}' * 3}'\n  b: >-\n    x ${{{{ c.d }}}}\n    $${{{{ ${{{{ e.f }}}}\n"
    entry = parse_entry(ENTRY_PATH, text.encode())
    assert isinstance(entry, Entry)
    assert entry.places["/prod/a.b"] == Place(ENTRY_PATH, 4, 7)
    assert entry.places["/prod/c.d"] == Place(ENTRY_PATH, 6, 7)
    assert entry.places["/prod/e.f"] == Place(ENTRY_PATH, 7, 10)


@pytest.mark.parametrize("text", [b"a: 1\n", b"- a\n", b"- {}\n", b"- []\n"])
def test_a_lock_of_eight_megabytes_is_bounded_by_what_is_in_it(text: bytes) -> None:
    with within(), beside(256):
        found = read_lock(LOCK_PATH, b"lock_version: 1\nmodules:\n" + text * ((8 << 20) // len(text) - 20))
    assert found.unreadable
    assert found.unreadable.place.path == LOCK_PATH


def test_a_lock_with_thousands_of_mistakes_keeps_none_of_the_broken_ones() -> None:
    versions = "".join(f'      "1.1.{number}": {{}}\n' for number in range(1000))
    found = read_lock(LOCK_PATH, (LOCK + versions).encode())
    assert len(found.problems) == MOST_TOLD
    assert set(found.lock.modules["acme/vpc"]) == {"1.0.0"}
    assert len(found.broken) == 1000
    assert isinstance(strict.parse("f", b"a: [" + b"1," * (VALUES_LIMIT - 3) + b"1]", 8 << 20), Document)


def test_json_of_the_engine_that_is_nested_or_of_other_types() -> None:
    for raw in (DEEP, b'{"version": 4, "lineage": ' + DEEP + b"}"):
        with pytest.raises(UnitError) as error:
            parse_state(raw)
        assert error.value.reason == "StateInvalid"
    for raw in (DEEP, b"[]", b"{", b'{"resource_changes": [{"change": 1}]}', b'{"resource_drift": [{}]}'):
        with pytest.raises(UnitError) as invalid:
            take_in(parse_plan(raw), b"key")
        assert invalid.value.reason == "PlanInvalid"


def test_a_line_of_the_engine_that_only_looks_like_a_diagnostic(tmp_path: Path) -> None:
    output, errors, log = tmp_path / "out", tmp_path / "err", io.BytesIO()
    odd = [
        {"type": "diagnostic", "diagnostic": one}
        for one in ("x", [1], {"range": [1]}, {"severity": 5}, {"range": {"start": 1}})
    ]
    output.write_bytes(b"\n".join([*(json.dumps(one).encode() for one in odd), b'{"a":' + DEEP + b"}"]))
    errors.write_bytes(b"")
    said = Transcript(Written(output), log, str, [])
    said.finish(Written(errors), 1)
    assert [one.severity for one in said.diagnostics] == ["error"]  # what a command said in plain text
    assert log.getvalue().count(b"\n") == len(odd) + 1


@pytest.mark.parametrize("kind", [{}, [], None, 1, True, "other"])
def test_a_line_of_the_engine_whose_type_is_no_word(kind: object, tmp_path: Path) -> None:
    (tmp_path / "out").write_text(json.dumps({"type": kind, "@message": "hello"}) + "\n")
    (tmp_path / "err").write_bytes(b"")
    log = io.BytesIO()
    read = Transcript(Written(tmp_path / "out"), log, str, [])
    read.finish(Written(tmp_path / "err"), 0)
    assert log.getvalue() == b"hello\n"
    assert read.messages == []


def test_a_line_with_a_hash_that_fits_is_no_record_for_that() -> None:
    whole = link(Head(), datetime(2026, 1, 1, tzinfo=UTC), "e", {"a": 1})
    broken = whole.replace(b'{"a":1}', b'{"a":1')
    text = broken[: broken.index(b',"hash"')]
    line = text + b',"hash":"%b"}' % hashlib.sha256(text).hexdigest().encode()
    assert follow(Head(), line).count == 1
    found = verify([("000000000001.jsonl", line + b"\n")])
    assert found.head == Head()
    assert str(found.wrong).startswith("000000000001.jsonl: record 1 is no record: ")


def test_a_moment_without_a_zone_is_no_answer_of_a_forge() -> None:
    review = {"id": 1, "user": None, "state": "APPROVED", "commit_id": None, "submitted_at": "2026-01-01T00:00:00"}
    with pytest.raises(ValueError, match="timezone"):
        Review.model_validate_json(json.dumps(review))
    assert Review.model_validate_json(json.dumps(review | {"submitted_at": "2026-01-01T00:00:00Z"})).submitted_at


def test_what_a_load_could_not_finish_is_not_half_remembered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    good = site.look()
    later = site.repo.commit({ENTRY_PATH: None, "environments/prod/other.yaml": ENTRY})
    site.source.poll()

    def fail(_: Commit) -> None:
        raise PassError("GitFailed", "gone")

    with monkeypatch.context() as patch:
        patch.setattr(site.branch, "_before", fail)
        with pytest.raises(PassError):
            site.branch.load(later)
    loaded: Loader = site.branch._loader
    monkeypatch.setattr(site.branch, "_settled", None)
    assert set(site.branch.load(good.commit).units) == set(good.units)
    assert loaded is site.branch._loader


def test_a_name_that_is_no_text_can_be_told() -> None:
    found = classify("environments/\udccd.yaml")
    assert isinstance(found, Problem)
    assert str(found).isascii()


@pytest.mark.parametrize("url", ["-host:path", "-x@host:path", "ssh://-oProxyCommand=x/y", "ssh://-x@host/y"])
def test_no_host_is_an_option_of_ssh(url: str) -> None:
    with pytest.raises(ConfigError):
        Remote(url)


def test_what_equals_one_is_not_the_version_of_a_lock() -> None:
    for one in ("true", "1.0"):
        assert read_lock(LOCK_PATH, LOCK.replace("lock_version: 1", f"lock_version: {one}").encode()).unreadable
