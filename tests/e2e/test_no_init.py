"""A job runs `init` only where no earlier one of its shape has: by the commands of a real engine, in the runner and through both planes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.model import Result
from reconciler.runner.host import Host
from reconciler.runner.terraform.initialized import Initialized
from tests.kit import plane
from tests.kit.graph import CATALOG, Graph
from tests.kit.house import house
from tests.kit.terraform import static_engine

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

WHOLE = ["init", "plan", "show", "apply"]
SPARED = WHOLE[1:]


class Site:
    """A host with the units a, b and c of one module, and an engine that notes its commands."""

    def __init__(self, folder: Path, engine: Path) -> None:
        self.engine = plane.NotedEngine(folder, engine)
        entries = {name: plane.note(name) for name in "abc"}
        self.ground = plane.ground(folder, entries, engine=self.engine.config())
        self.host: Host = plane.open_host(self.ground)
        self.jobs = 0

    def run(self, name: str) -> Result:
        self.jobs += 1
        (self.host.memory.folder / "fetched").unlink(missing_ok=True)
        return plane.carry_out(self.host, plane.job(f"prod/{name}", self.ground.environments.head, self.jobs))

    def commands(self, name: str, reason: str = "Applied") -> list[str]:
        """What a job of the unit has the engine do, one after another."""
        before = len(self.engine.commands())
        result = self.run(name)
        assert result.reason == reason, result
        return [word for _, word in self.engine.commands()[before:]]

    def note(self, name: str) -> Any:
        """What the unit's state says that was noted."""
        state = json.loads((self.ground.folder / "states" / f"prod/{name}.tfstate").read_bytes())
        return state["outputs"]["id"]["value"]

    @property
    def kept(self) -> list[Path]:
        return sorted((self.host.memory.folder / "initialized").glob("*.json"))

    def configure(self, change: Callable[[Any], None]) -> None:
        config = yaml.safe_load(self.ground.runner_config.read_text())
        change(config)
        self.ground.runner_config.write_text(yaml.safe_dump(config))
        self.host = plane.open_host(self.ground)


@pytest.fixture
def site(tmp_path: Path, engine: Path) -> Site:
    return Site(tmp_path, engine)


def test_the_first_of_a_shape_runs_init_and_no_other_does(site: Site) -> None:
    assert site.commands("a") == WHOLE
    assert site.commands("b") == SPARED
    assert site.commands("a", "InSync") == ["plan"]
    assert len(site.kept) == 1
    assert (site.note("a"), site.note("b")) == ("a", "b")
    # After a restart, too.
    site.host = plane.open_host(site.ground)
    assert site.commands("c") == SPARED
    assert [site.note(name) for name in "abc"] == ["a", "b", "c"]


def test_a_damaged_one_is_made_anew(site: Site) -> None:
    assert site.commands("a") == WHOLE
    (file,) = site.kept
    file.write_bytes(file.read_bytes().replace(b"unit", b"xnit"))
    assert site.commands("b") == WHOLE
    assert site.commands("c") == SPARED


def test_an_engine_that_does_not_go_on_with_it_gets_its_init(site: Site) -> None:
    """As after a change of engines that nobody foresaw: what is kept has our own seal, and is of no use."""
    assert site.commands("a") == WHOLE
    (file,) = site.kept
    left = site.host.templates.find(file.stem)
    assert left is not None
    modules = json.loads(json.dumps(left.modules).replace("./catalog/modules", "./catalog/others"))
    site.host.templates.keep(file.stem, Initialized(modules, left.backend))
    assert site.commands("b") == ["plan", *WHOLE]
    assert site.commands("c") == SPARED
    assert (site.note("b"), site.note("c")) == ("b", "c")


def test_what_is_kept_for_another_backend_is_not_used(site: Site) -> None:
    assert site.commands("a") == WHOLE
    (file,) = site.kept
    left = site.host.templates.find(file.stem)
    assert left is not None
    backend = json.loads(json.dumps(left.backend).replace('"workspace_dir": null', '"workspace_dir": "/elsewhere"'))
    assert backend != left.backend
    site.host.templates.keep(file.stem, replace(left, backend=backend))
    assert site.commands("b") == WHOLE
    assert site.commands("c") == SPARED


def test_another_word_of_the_host_begins_anew(site: Site) -> None:
    assert site.commands("a") == WHOLE
    site.configure(lambda config: config["environments"]["prod"]["env"].update(MORE="1"))
    assert site.commands("b") == WHOLE
    assert site.commands("c") == SPARED


def test_another_engine_begins_anew(site: Site) -> None:
    assert site.commands("a") == WHOLE
    site.engine.file.write_text(site.engine.file.read_text() + "\n# another\n")
    site.configure(lambda config: config.update(engine=site.engine.config()))
    assert site.commands("b") == WHOLE


def test_another_wrapper_begins_anew(site: Site) -> None:
    """Where an `init` could go otherwise, though it is the same module: a root that imports something."""
    assert site.commands("a") == WHOLE
    site.ground.merge(
        {
            f"{plane.PROD}/b.yaml": plane.note(
                "b", "import: {terraform_data.this: 11111111-aaaa-bbbb-cccc-222222222222}\n"
            )
        },
        "Import",
    )
    assert site.commands("b")[0] == "init"


def test_through_both_planes(tmp_path: Path, engine: Path) -> None:
    """Twelve units, two at a time: at most as many run `init` as could begin before the first had ended."""
    noted = plane.NotedEngine(tmp_path, engine)
    graph = Graph(chains=2, length=3, leaves=6)
    local = {"executor": {"local": {"workers": 2, "per_environment": 2}}}
    with house(tmp_path / "h", graph.files(), CATALOG, controller=local, runner={"engine": noted.config()}) as home:
        home.start()
        home.synced(patience=120)
        states = {f"prod/{link.name}" for link in graph.links()}
        found = home.ground.folder / "states"
        assert {p.relative_to(found).as_posix().removesuffix(".tfstate") for p in found.rglob("*.tfstate")} == states
        values = {
            name: json.loads((found / f"{name}.tfstate").read_bytes())["outputs"]["value"]["value"] for name in states
        }
        assert values["prod/chain-1-2"] == "c1p1/c1p2"  # each read its own, and its upstream's
        assert values["prod/leaf-3"] == "/hub/leaf3"
    words = [word for _, word in noted.commands()]
    assert [words.count(word) for word in SPARED] == [12] * 3
    assert 1 <= words.count("init") <= 6  # with and without upstream, cut or not: three shapes, two at a time


@pytest.mark.usefixtures("engine")
def test_in_the_strict_jail(tmp_path: Path) -> None:
    """Where a job's engine is another user: what it left is taken up, and what is laid out is given to the next one."""
    static_engine()
    made = plane.ground(tmp_path, {name: plane.note(name) for name in "ab"}, sandbox={"tier": "strict"})
    host = plane.open_host(made)
    logs = []
    for number, name in enumerate("ab", 1):
        asked = plane.job(f"prod/{name}", made.environments.head, number)
        result = plane.carry_out(host, asked)
        assert result.reason == "Applied", result
        logs.append(host.spool.job(asked.id).log.read_text())
    assert ["Initializing the backend" in log for log in logs] == [True, False]
    (file,) = (host.memory.folder / "initialized").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert file.stat().st_uid == host.memory.folder.stat().st_uid
