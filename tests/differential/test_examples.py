"""The worked example's modules come to the same by each rung: made, upgraded, changed, looked at, destroyed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reconciler.demo.example import releases
from reconciler.runner.terraform.binary import find_engine
from tests.kit.generated import Files, Step
from tests.kit.rungs import Rung, compare, worker
from tests.kit.workbench import FILES, Workbench, pin

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

# What each is given, and what is changed of that.
EXAMPLES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "network": ({"name": "main", "cidr": "10.10.0.0/16", "zones": ["a", "b"]}, {"zones": ["a", "c"]}),
    "cluster": (
        {"name": "dev", "network_id": "networks/main", "subnet_ids": ["networks/main/subnets/a", "networks/main/subnets/b"], "node_count": 2},
        {"node_count": 1},
    ),
    "service": (
        {
            "name": "api", "network_id": "networks/main", "cluster_id": "clusters/dev", "zone": "a", "node": "dev-0",
            "image": "registry.example.com/api:2.3.1", "join_token": "a" * 64, "password": "correct horse",
        },
        {"image": "registry.example.com/api:2.4.0", "replicas": 2},
    ),
    "bucket": ({"name": "scratch"}, {"versioning": False}),
}  # fmt: skip


@pytest.fixture(scope="module")
def rungs(tmp_path_factory: pytest.TempPathFactory, provider_mirror: Path) -> Iterator[list[Rung]]:
    """The first one is who says what is right."""
    folder = tmp_path_factory.mktemp("launcher")
    native, embedded = (find_engine(kind, None, None, folder) for kind in ("auto", "embedded"))
    with worker(native, folder, provider_mirror) as warm:
        yield [
            Rung("native", lambda place: Workbench(native, place, provider_mirror)),
            Rung("embedded", lambda place: Workbench(embedded, place, provider_mirror)),
            warm,
        ]


@pytest.mark.parametrize("module", EXAMPLES)
def test_each_rung_makes_the_same_of_an_example(module: str, rungs: list[Rung], tmp_path: Path) -> None:
    first, second = _trees()
    given, changed = EXAMPLES[module]
    told = [Step(first, given), Step(second, given), Step(second, {**given, **changed})]
    again = [*((one, False) for one in told), (told[-1], False), (told[-1], True)]
    own = [replace(one, bench=partial(_bench, one, module)) for one in rungs]
    assert compare(own, tmp_path, again) == ([], [])


def _bench(rung: Rung, module: str, folder: Path) -> Workbench:
    bench = rung.bench(folder)
    bench.pin = pin(FILES, path=f"modules/{module}")
    return bench


def _trees() -> tuple[Files, Files]:
    """The catalog at each of its releases."""
    first, second = releases().values()
    return _texts(first), _texts({**first, **second})


def _texts(tree: Mapping[str, bytes]) -> Files:
    return {path: content.decode() for path, content in tree.items()}
