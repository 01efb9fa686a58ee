from __future__ import annotations

import pytest

from reconciler.desired.lock import MOST_TOLD, LockFile, missing_lock, newest, ordered, parse_lock, read_lock
from reconciler.desired.strict import FILE_LIMIT, LOCK_LIMIT
from reconciler.errors import Place
from reconciler.model import Commit, Digest, Lock, Pin, Problem, ProviderPin

PATH = "catalog-lock.yaml"
COMMIT = Commit("0f3c" * 10)
DIGEST = Digest("sha256:" + "ab" * 32)

GOOD = f"""\
lock_version: 1
modules:
  acme/vpc:
    path: modules/vpc
    versions:
      "1.4.2":
        ref: v1.4.2
        commit: {COMMIT}
        digest: {DIGEST}
        providers:
          hashicorp/random: {{version: 3.1.0, hashes: {{registry.terraform.io: ["h1:abc="]}}}}
          hashicorp/aws:
            version: 5.100.0
            hashes: {{registry.opentofu.org: ["zh:def", "h1:x"], registry.terraform.io: ["h1:y"]}}
        yanked: it deletes things
      "1.4.10":
        ref: v1.4.10
        commit: {COMMIT}
        digest: {DIGEST}
  acme/dns: {{path: dns, versions: {{}}}}
"""


def pin(version: str, *, yanked: str | None = None) -> Pin:
    return Pin("acme/vpc", version, "modules/vpc", f"v{version}", COMMIT, DIGEST, (), yanked)


def test_a_whole_lock() -> None:
    providers = (
        ProviderPin(
            "hashicorp/aws",
            "5.100.0",
            {"registry.opentofu.org": ("zh:def", "h1:x"), "registry.terraform.io": ("h1:y",)},
        ),
        ProviderPin("hashicorp/random", "3.1.0", {"registry.terraform.io": ("h1:abc=",)}),
    )
    old = Pin("acme/vpc", "1.4.2", "modules/vpc", "v1.4.2", COMMIT, DIGEST, providers, "it deletes things")
    expected = Lock({"acme/vpc": {"1.4.2": old, "1.4.10": pin("1.4.10")}, "acme/dns": {}})
    assert parse_lock(PATH, GOOD.encode()) == expected
    assert read_lock(PATH, GOOD.encode()) == LockFile(expected)


def test_an_empty_lock() -> None:
    assert parse_lock(PATH, b"lock_version: 1\n") == Lock()


def test_the_lock_may_be_larger_than_an_entry() -> None:
    assert isinstance(parse_lock(PATH, GOOD.encode() + b"#" * FILE_LIMIT), Lock)
    assert parse_lock(PATH, b"#" * (LOCK_LIMIT + 1)) == [
        Problem(Place(PATH), "LockInvalid", f"the file has {LOCK_LIMIT + 1} bytes and may have {LOCK_LIMIT}; split it")
    ]


def test_a_broken_version_is_a_problem_of_that_version_only() -> None:
    text = GOOD.replace(f"ref: v1.4.10\n        commit: {COMMIT}", "ref: v1.4.10\n        commit: 0f3c")
    found = read_lock(PATH, text.encode())
    problem = Problem(
        Place(PATH, 18, 17),
        "LockInvalid",
        'modules.acme/vpc.versions.1.4.10.commit: "0f3c" is not a commit (40 hexadecimal digits)',
    )
    assert found.problems == (problem,)
    assert found.broken == {("acme/vpc", "1.4.10"): problem}
    assert found.unreadable is None
    assert list(found.lock.modules["acme/vpc"]) == ["1.4.2"]
    assert list(found.lock.modules) == ["acme/vpc", "acme/dns"]
    assert parse_lock(PATH, text.encode()) == [problem]


@pytest.mark.parametrize("version", ["true", "1.0"])
def test_the_version_of_the_format_is_a_whole_number(version: str) -> None:
    found = read_lock(PATH, GOOD.replace("lock_version: 1", f"lock_version: {version}").encode())
    assert [str(one) for one in found.problems] == [
        f"{PATH}:1:15: lock_version: the version of a lock is the whole number 1; write it so"
    ]


def test_of_many_mistakes_the_first_are_told_and_every_broken_version_is_known() -> None:
    versions = "".join(f'      "2.0.{number}": {{}}\n' for number in range(MOST_TOLD))
    found = read_lock(PATH, GOOD.replace("  acme/dns", versions + "  acme/dns").encode())
    assert len(found.problems) == MOST_TOLD
    assert len(found.broken) == MOST_TOLD


def test_a_version_that_is_none_is_broken_alone() -> None:
    found = read_lock(PATH, GOOD.replace('"1.4.10"', "'1.4'").encode())
    assert [str(one) for one in found.problems] == [
        'catalog-lock.yaml:16:7: modules.acme/vpc.versions.1.4: "1.4" is not a version like 1.4.2'
    ]
    assert set(found.broken) == {("acme/vpc", "1.4")}
    assert list(found.lock.modules["acme/vpc"]) == ["1.4.2"]


def test_a_broken_module_is_a_problem_of_that_module_only() -> None:
    text = GOOD.replace("path: modules/vpc", "path: ../vpc\n    commit: x").replace("ref: v1.4.10", "ref: -x")
    found = read_lock(PATH, text.encode())
    assert [str(one) for one in found.problems] == [
        'catalog-lock.yaml:4:11: modules.acme/vpc.path: "../vpc" is not a folder',
        'catalog-lock.yaml:5:5: unknown field "commit"; known are path, versions',
        'catalog-lock.yaml:18:14: modules.acme/vpc.versions.1.4.10.ref: "-x" is not a branch or tag',
    ]
    assert set(found.broken) == {("acme/vpc", ""), ("acme/vpc", "1.4.10")}
    assert found.lock == Lock({"acme/dns": {}})


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("modules: {}\n", ['catalog-lock.yaml:1:1: the field "lock_version" is missing; add it']),
        ("lock_version: 2\n", ["catalog-lock.yaml:1:15: lock_version: expected 1, not the number 2"]),
        ("lock_version: 1\nmodules: []\n", ["catalog-lock.yaml:2:10: modules: expected a mapping, not a list"]),
        (
            "lock_version: 2\nmodule: {}\nmodules: {vpc: 1}\n",
            [
                "catalog-lock.yaml:1:15: lock_version: expected 1, not the number 2",
                'catalog-lock.yaml:2:1: unknown field "module"; did you mean "modules"?',
                'catalog-lock.yaml:3:11: modules.vpc: "vpc" is not <catalog repository>/<module>',
                "catalog-lock.yaml:3:16: modules.vpc: expected a mapping, not the number 1",
            ],
        ),
        ("a: 1\na: 2\n", ['catalog-lock.yaml:2:1: "a" stands here a second time, after line 1; keep one of the two']),
    ],
)
def test_a_lock_that_nothing_can_be_read_of(text: str, problems: list[str]) -> None:
    found = read_lock(PATH, text.encode())
    assert [str(one) for one in found.problems] == problems
    assert {one.reason for one in found.problems} == {"LockInvalid"}
    assert found.unreadable in found.problems
    assert found.lock == Lock()


def test_a_provider_without_hashes_is_broken() -> None:
    text = GOOD.replace('{registry.terraform.io: ["h1:abc="]}', "{registry.terraform.io: []}")
    (problem,) = read_lock(PATH, text.encode()).problems
    name = "modules.acme/vpc.versions.1.4.2.providers.hashicorp/random.hashes.registry.terraform.io"
    assert str(problem) == f"catalog-lock.yaml:11:78: {name}: expected at least one, and this is empty"


def test_the_order_of_versions_is_that_of_releases() -> None:
    versions = {one: pin(one) for one in ("1.10.0", "1.9.0", "2.0.0-rc.1", "2.0.0", "1.9.0+b")}
    assert ordered(versions) == ["1.9.0", "1.9.0+b", "1.10.0", "2.0.0-rc.1", "2.0.0"]
    assert newest(versions) == pin("2.0.0")
    versions["2.0.0"] = pin("2.0.0", yanked="no")
    assert newest(versions) == pin("2.0.0-rc.1")
    assert newest({"1.0.0": pin("1.0.0", yanked="no")}) is None


def test_a_tree_without_a_lock() -> None:
    found = missing_lock(PATH)
    assert found.lock == Lock()
    assert str(found.unreadable) == (
        "catalog-lock.yaml: there is no lock; `reconciler catalog add <module>@<version>` writes it"
    )
