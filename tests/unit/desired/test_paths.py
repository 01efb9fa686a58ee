from __future__ import annotations

import pytest

from reconciler.desired.paths import (
    EntryPath,
    EnvironmentPath,
    LockPath,
    classify,
    entry_path,
    environment_path,
    unit_of,
)
from reconciler.errors import Place
from reconciler.model import Problem, UnitId

RULE = "write it in lower-case letters, digits, - and _ (at most 63, none of - and _ first)"
ONLY = "only .yaml files belong under environments/; move it elsewhere, or rename it to .yaml"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("catalog-lock.yaml", LockPath()),
        ("environments/prod/environment.yaml", EnvironmentPath("prod")),
        ("environments/prod/network.yaml", EntryPath(UnitId("prod/network"))),
        ("environments/prod/a/b-c_1/network.yaml", EntryPath(UnitId("prod/a/b-c_1/network"))),
        ("README.md", None),
        (".github/workflows/x.yaml", None),
        ("sub/catalog-lock.yaml", None),
        ("environments/README", None),
        ("environments/prod/readme.txt", None),
        ("environments/prod/notes.md", None),
        ("environments/prod/.gitkeep", None),
        ("environments/CODEOWNERS", None),
    ],
)
def test_what_a_path_means(path: str, kind: object) -> None:
    assert classify(path) == kind


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("environments/prod/network.yml", "rename it to .yaml"),
        ("environments/prod/network.tf", ONLY),
        ("environments/prod/network", ONLY),
        ("environments/prod/README.json", ONLY),
        ("environments/network.yaml",
         "an entry belongs to an environment; move it to environments/<environment>/network.yaml"),
        ("environments/Prod/network.yaml", f'"Prod" is no name for a folder or an entry; {RULE}'),
        ("environments/prod/../x.yaml", f'".." is no name for a folder or an entry; {RULE}'),
        ("environments/prod//x.yaml", f'"" is no name for a folder or an entry; {RULE}'),
        ("environments/prod/a.b.yaml", f'"a.b" is no name for a folder or an entry; {RULE}'),
        ("environments/prod/x\n.yaml", f'"x\\u000a" is no name for a folder or an entry; {RULE}'),
        ("environments/prod/README.yaml", f'"README" is no name for a folder or an entry; {RULE}'),
        ("environments/prod/secret.yaml", '"secret" is reserved, an entry cannot be called so; rename it'),
        ("environments/prod/a/environment.yaml", '"environment" is reserved, an entry cannot be called so; rename it'),
        ("environments/all/environment.yaml", '"all" is reserved; rename it'),
        (f"environments/prod/{'a' * 60}/{'b' * 60}/{'c' * 60}/{'d' * 60}.yaml",
         "the entry's id has 248 characters and may have 200; shorten it"),
    ],
)  # fmt: skip
def test_what_a_path_may_not_be(path: str, message: str) -> None:
    assert classify(path) == Problem(Place(path.replace("\n", "\\u000a")), "PathInvalid", message)


def test_the_unit_that_a_file_would_be() -> None:
    assert unit_of("environments/prod/network.yml") == "prod/network"
    assert unit_of("environments/prod/network.yaml") == "prod/network"
    assert unit_of("environments/prod/environment.yml") is None
    assert unit_of("environments/prod/X.yml") is None


def test_where_things_are_written() -> None:
    assert entry_path(UnitId("prod/net/hub")) == "environments/prod/net/hub.yaml"
    assert environment_path("prod") == "environments/prod/environment.yaml"
