"""A catalog of one module and a real engine: everything that a conversation needs but the runner around it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.model import Commit, Digest, Pin, ProviderPin, UnitId
from reconciler.runner.terraform.engine import ApplyResult, Conversation, Engine, PlanResult, deadline_in, find_engine
from reconciler.runner.terraform.module import read_module
from reconciler.runner.terraform.rescue import bring_back
from reconciler.runner.terraform.state import Backend, LocalBackend, State
from reconciler.runner.terraform.workspace import RootSpec, Value, write_root
from tests.kit.terraform import provider_env
from tests.provider import mirror

UNIT = UnitId("prod/app")
SECONDS = 60.0
FILES = ProviderPin("reconciler/files", mirror.VERSION, dict.fromkeys(mirror.HOSTS, (mirror.h1(mirror.PACKAGE),)))
REQUIRE_FILES = 'terraform {\n  required_providers {\n    files = { source = "reconciler/files" }\n  }\n}\n'


def pin(*providers: ProviderPin, path: str = "modules/app") -> Pin:
    return Pin("acme/app", "1.0.0", path, "v1.0.0", Commit("0" * 40), Digest("sha256:" + "0" * 64), providers)


@dataclass
class Workbench:
    """One unit's module, state and workspace."""

    engine: Engine
    folder: Path
    mirror: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    pin: Pin = field(default_factory=pin)
    options: dict[str, Any] = field(default_factory=dict)
    backend: Backend | None = None
    stopped: set[str] = field(default_factory=set)  # steps that shall come to their end

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def cloud(self) -> Path:
        return self.folder / "cloud"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def kept(self) -> Backend:
        return self.backend or LocalBackend(self.folder / "states")

    @property
    def variables(self) -> dict[str, str]:
        """What the engine sees."""
        return {**provider_env(self.cloud), **self.env}

    def module(self, source: str) -> None:
        """What the module is from now on."""
        home = self.tree / self.pin.path
        home.mkdir(parents=True, exist_ok=True)
        (home / "main.tf").write_text(source, encoding="utf-8")

    def spec(self, **inputs: Any) -> RootSpec:
        values = {name: value if isinstance(value, Value) else Value(value) for name, value in inputs.items()}
        made = RootSpec(
            UNIT, "test", self.pin, self.engine.registry, read_module(self.tree / self.pin.path, self.engine.product), values,
            backend=self.kept.block(UNIT, self.work),
        )  # fmt: skip
        return replace(made, **self.options)

    def open(self, spec: RootSpec | None = None, **options: Any) -> Conversation:
        """A conversation in a written root, with the unit's state in its place."""
        self.cloud.mkdir(exist_ok=True)
        write_root(self.work, spec or self.spec(), self.tree)
        self.kept.bring(UNIT, self.work)
        stop = self.stopped.__contains__
        return Conversation(
            self.engine, self.work, self.variables, self.log, provider_mirror=self.mirror, stop=stop, **options
        )

    def plan(self, spec: RootSpec | None = None, **options: Any) -> tuple[Conversation, PlanResult]:
        talk = self.open(spec)
        talk.init(deadline_in(SECONDS))
        return talk, talk.plan(deadline_in(SECONDS), **options)

    def apply(self, spec: RootSpec | None = None, **options: Any) -> ApplyResult:
        """Plan, apply what was planned, keep the state."""
        talk, _ = self.plan(spec, **options)
        result = talk.apply(deadline_in(SECONDS))
        self.bring_back()
        return result

    def bring_back(self) -> None:
        """Keep what the engine left."""
        kept = self.kept.read(UNIT)
        bring_back(self.kept, UNIT, self.work, kept.mark if kept else None)

    def state(self) -> State:
        state = self.kept.read(UNIT)
        assert state is not None
        return state

    def outputs(self) -> dict[str, Any]:
        return {name: value.value for name, value in self.state().outputs.items()}

    def root(self) -> dict[str, Any]:
        return dict(json.loads((self.work / "main.tf.json").read_bytes()))


def apply_while(talk: Conversation, happens: Callable[[], None], **options: Any) -> ApplyResult:
    """Apply what was planned; meanwhile something happens, in a thread of its own."""
    watcher = threading.Thread(target=happens)
    watcher.start()
    result = talk.apply(deadline_in(SECONDS), **options)
    watcher.join()
    return result


@pytest.fixture(scope="session", params=["auto", "embedded"])
def any_engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The engine on PATH, and Terraform from the wheel."""
    return find_engine(request.param, None, None, tmp_path_factory.mktemp("launcher"))


@pytest.fixture
def bench(any_engine: Engine, provider_mirror: Path, tmp_path: Path) -> Workbench:
    """A workbench with the provider of files at hand."""
    return Workbench(any_engine, tmp_path, provider_mirror, pin=pin(FILES))
