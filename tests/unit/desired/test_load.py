from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from reconciler.desired import load
from reconciler.desired.entries import parse_entry as parsed
from reconciler.desired.load import Loader
from reconciler.desired.paths import LOCK_PATH
from reconciler.desired.policy import policy_of
from reconciler.desired.strict import FILE_LIMIT, LOCK_LIMIT
from reconciler.errors import Place
from reconciler.model import Commit, Desired, Digest, Limits, Pin, Policy, Problem, UnitId

LOCK = f"""\
lock_version: 1
modules:
  acme/vpc:
    path: vpc
    versions:
      "1.0.0": {{ref: v1, commit: {"a" * 40}, digest: "sha256:{"1" * 64}"}}
"""
ENTRY = 'module: acme/vpc\nversion: "1.0.0"\n'


class Repository:
    """Files by path; remembers which contents were asked for."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = dict(files)
        self.loader = Loader()
        self.read_: list[str] = []
        self.branches: dict[tuple[str, str], Pin] = {}
        self.before: dict[str, Policy | None] = {}

    def load(self, *problems: Problem, commit: str = "c") -> Desired:
        self.read_ = []
        blobs = {path: f"blob of {text}" for path, text in self.files.items()}
        return self.loader.load(Commit(commit * 40), blobs, self._read, problems, refs=self._refs, before=self.before)

    def _read(self, ids: Iterable[str]) -> Mapping[str, bytes]:
        self.read_ = sorted(ids)
        return {one: one.removeprefix("blob of ").encode() for one in self.read_}

    def _refs(self, names: frozenset[tuple[str, str]]) -> Mapping[tuple[str, str], Pin]:
        return {name: self.branches[name] for name in names if name in self.branches}


def repository(**more: str) -> Repository:
    files = {
        "catalog-lock.yaml": LOCK,
        "environments/prod/environment.yaml": "class: protected\n",
        "environments/prod/network.yaml": ENTRY,
        "environments/prod/app.yaml": ENTRY + "inputs: {id: '${{ network.id }}'}\n",
        "environments/README.md": "# Environments\n",
        "docs/notes.txt": "...",
    }
    return Repository({**files, **more})


def test_a_commit() -> None:
    found = repository().load()
    assert (found.commit, found.problems, found.order) == ("c" * 40, (), ("prod/network", "prod/app"))
    assert list(found.environments) == ["prod"]


def test_only_what_means_something_is_read() -> None:
    repo = repository()
    repo.load()
    assert len(repo.read_) == 4
    assert not any("Environments" in one or "..." in one for one in repo.read_)


def test_only_what_changed_is_read() -> None:
    repo = repository()
    first = repo.load()
    assert repo.load(commit="d").units is first.units
    assert repo.read_ == []
    repo.files["environments/prod/app.yaml"] += "allow_destroy: 1\n"
    second = repo.load(commit="e")
    assert repo.read_ == ["blob of " + repo.files["environments/prod/app.yaml"]]
    assert second.units[UnitId("prod/network")] is first.units[UnitId("prod/network")]
    assert second.units[UnitId("prod/app")].entry.allowances.destroy == 1
    assert second == Repository(repo.files).load(commit="e")


def test_a_file_that_goes_and_comes_back_is_read_again() -> None:
    repo = repository()
    first = repo.load()
    gone = repo.files.pop("environments/prod/network.yaml")
    assert [str(one) for one in repo.load().problems] == [
        "environments/prod/app.yaml:3:15: there is no unit prod/network; correct the name, or add its entry"
    ]
    assert repo.read_ == []
    repo.files["environments/prod/network.yaml"] = gone
    assert repo.load() == first
    assert repo.read_ == ["blob of " + gone]


def test_a_path_that_cannot_be_breaks_the_unit_that_it_would_be() -> None:
    repo = repository(**{"environments/prod/queue.yml": ENTRY, "environments/prod/X.yaml": ENTRY})
    found = repo.load()
    assert [str(one) for one in found.problems] == [
        (
            'environments/prod/X.yaml: "X" is no name for a folder or an entry; write it in lower-case letters, digits, - '
            "and _ (at most 63, none of - and _ first)"
        ),
        "environments/prod/queue.yml: rename it to .yaml",
    ]
    assert list(found.broken) == ["prod/queue"]
    assert len(repo.read_) == 4


def test_what_the_tree_says_of_itself() -> None:
    repo = repository()
    del repo.files["environments/prod/network.yaml"]
    link = Problem(Place("environments/prod/network.yaml"), "PathInvalid", "a symbolic link")
    named = Problem(Place("environments/x"), "PathInvalid", "strange", UnitId("prod/named"))
    found = repo.load(link, named)
    assert found.broken[UnitId("prod/network")].message == "a symbolic link"
    assert found.broken[UnitId("prod/named")] is named
    assert list(found.units) == ["prod/app"]
    assert len(repo.load().problems) == 1


def test_broken_files() -> None:
    repo = repository(**{"environments/prod/app.yaml": "[", "environments/stage/environment.yaml": "class: x\n"})
    repo.files["catalog-lock.yaml"] = LOCK.replace("ref: v1", "ref: -v1")
    found = repo.load()
    assert [problem.reason for problem in found.problems] == [
        "LockInvalid",
        "YamlInvalid",
        "CatalogPinMissing",
        "SchemaInvalid",
    ]
    assert set(found.broken) == {"prod/app", "prod/network"}


def test_without_a_lock() -> None:
    repo = repository()
    del repo.files["catalog-lock.yaml"]
    (problem,) = repo.load().problems
    assert str(problem.place) == "catalog-lock.yaml"


def test_a_branch_is_looked_up_at_every_load() -> None:
    repo = repository(**{"environments/box/environment.yaml": "class: sandbox\n",
                         "environments/box/x.yaml": "module: acme/vpc\nref: mine\n"})  # fmt: skip
    assert [problem.reason for problem in repo.load().problems] == ["RefMissing"]
    for letter in "de":
        commit = Commit(letter * 40)
        repo.branches["acme/vpc", "mine"] = Pin("", "", "", "", commit, Digest("sha256:" + letter * 64))
        assert repo.load().units[UnitId("box/x")].pin.commit == commit
        assert repo.read_ == []


def test_without_anyone_to_ask_branches_are_missing() -> None:
    files = {"catalog-lock.yaml": LOCK, "environments/box/environment.yaml": "class: sandbox\n",
             "environments/box/x.yaml": "module: acme/vpc\nref: mine\n"}  # fmt: skip
    found = Loader().load(Commit("c" * 40), {path: path for path in files},
                          lambda ids: {one: files[one].encode() for one in ids})  # fmt: skip
    assert [problem.reason for problem in found.problems] == ["RefMissing"]


def test_an_empty_repository() -> None:
    assert Repository({}).load() == Desired(Commit("c" * 40))


def test_a_file_in_which_a_bug_is_found_is_broken_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = parsed

    def parse_entry(path: str, data: bytes) -> object:
        if path.endswith("/app.yaml"):
            raise RecursionError("too deep")
        return real(path, data)

    monkeypatch.setattr(load, "parse_entry", parse_entry)
    found = repository().load()
    assert list(found.units) == ["prod/network"]
    problem = found.broken[UnitId("prod/app")]
    assert (problem.reason, problem.place.path) == ("InternalError", "environments/prod/app.yaml")
    assert "RecursionError at test_load.py:" in problem.message


def test_without_a_lock_that_can_be_read_there_is_nothing_to_go_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "read_lock", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        repository().load()


def test_a_merge_is_judged_by_what_was_in_force_before_it() -> None:
    loose = "class: protected\nlimits: {destroy: 5, recreate: 9}\n"
    site = repository(**{"environments/prod/environment.yaml": loose})
    assert site.load().environments["prod"].limits == Limits(destroy=5, recreate=9)
    site.before = {"prod": None}  # it is new: what is not written is in force until the next merge
    new = site.load(commit="d").environments["prod"]
    assert new.limits == Limits()
    site.files["docs/notes.txt"] = "another merge, which the same file outlives"
    again = site.load(commit="e").environments["prod"]
    assert again is new
    site.before = {"prod": replace(policy_of(new), limits=Limits(destroy=2, recreate=9))}
    assert site.load(commit="f").environments["prod"].limits == Limits(destroy=2, recreate=9)


def test_what_might_become_of_a_commit_is_worked_out_beside_it() -> None:
    site = repository()
    now = site.load()
    blobs = {path: f"blob of {text}" for path, text in site.files.items()} | {"environments/prod/more.yaml": "new"}
    asked: list[str] = []

    def read(ids: Iterable[str]) -> Mapping[str, bytes]:
        asked.extend(ids)
        return dict.fromkeys(asked, ENTRY.encode())

    fork = site.loader.fork()
    assert fork.lock is site.loader.lock
    assert "prod/more" in fork.load(Commit("d" * 40), blobs, read).units
    assert asked == ["new"]  # all else was known
    assert site.load() == now


def test_the_lock_of_the_last_commit() -> None:
    site = repository()
    site.load()
    assert "acme/vpc" in site.loader.lock.lock.modules
    del site.files[LOCK_PATH]
    site.load()
    assert site.loader.lock.unreadable is not None


def test_how_large_a_file_may_be() -> None:
    paths = (LOCK_PATH, "environments/prod/network.yaml", "environments/prod/environment.yaml", "docs/picture.png")
    assert [*map(load.most_bytes, paths)] == [LOCK_LIMIT, FILE_LIMIT, FILE_LIMIT, float("inf")]
