"""The same step of the same unit by several ways to run an engine; what each of them makes of it must be equal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reconciler.config.runner import Warm
from reconciler.errors import UnitError
from reconciler.model import PlanSummary
from reconciler.runner.terraform.binary import Engine
from reconciler.runner.terraform.engine import (
    Conversation,
    EngineError,
    SensitiveOutputs,
    deadline_in,
    lasting_environment,
)
from reconciler.runner.terraform.plan import take_in
from reconciler.runner.terraform.state import parse_state
from reconciler.runner.terraform.workspace import RootSpec, write_root
from reconciler.runner.warm.beside import Beside, open_warmth
from reconciler.runner.warm.loan import Loan, Seat
from reconciler.runner.warm.spec import Spec
from reconciler.runner.warmly import BACKEND
from tests.kit import warm
from tests.kit.generated import Step
from tests.kit.terraform import provider_env, until
from tests.kit.workbench import SECONDS, UNIT, Workbench, pin

KEY = b"the same for all"
NEWER = "identity_schema_version"  # of each object, since Terraform 1.12; engines before it pass it over
TRIES = 2  # the second one is for outputs that turn out to be sensitive


@dataclass(frozen=True, slots=True)
class Rung:
    """A way to run an engine. `bench` is a place for one unit in a folder; `talk` opens a conversation there, as `Workbench.open` does."""

    name: str
    bench: Callable[[Path], Workbench]
    talk: Callable[[Workbench, Any], Conversation] = Workbench.open
    readied: bool = False  # by `talk`


@dataclass(frozen=True, slots=True)
class Made:
    """What a rung made of a step.

    `refused`: by which command and for what, where it failed. `state` is without what is not the unit's: who wrote it, how often, what only a newer
    engine writes (`NEWER`), and ids drawn at random, which are numbered in the order of their objects.
    """

    refused: tuple[str, ...]
    summary: PlanSummary | None
    drifted: frozenset[str]
    secrets: frozenset[str]
    state: Any
    world: Mapping[str, bytes]  # what there is besides states
    left: bytes | None  # the state as it is

    def differs(self, other: Made) -> list[str]:
        """In what, for people; empty: they are the same."""
        parts = ("refused", "summary", "drifted", "secrets", "state", "world")
        return [line for name in parts for line in differences(getattr(self, name), getattr(other, name), name)]


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Where two values of JSON's shapes differ, as far as a person wants to read it."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            yield from differences(one.get(name), other.get(name), f"{place}.{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            yield from differences(mine, theirs, f"{place}[{number}]")
    elif one != other:
        yield f"{place or 'it'}: {one!r} != {other!r}"


def compare(rungs: Sequence[Rung], folder: Path, told: Iterable[tuple[Step, bool]]) -> tuple[list[str], list[str]]:
    """In which step (the second of each pair: to destroy) which rung makes something else of it than the first; and what was refused.

    Each step goes on from what another rung has left of the one before.
    """
    found: list[str] = []
    refused: list[str] = []
    state, world = None, None
    for number, (step, destroy) in enumerate(told):
        made = [make(rung, folder / f"{number}-{rung.name}", step, state, world, destroy=destroy) for rung in rungs]
        for rung, one in zip(rungs, made, strict=True):
            found += [f"step {number}, {rung.name}: {line}" for line in made[0].differs(one)]
        refused += [f"step {number}: {word}" for word in made[0].refused]
        chosen = number % len(rungs)
        state, world = made[chosen].left, folder / f"{number}-{rungs[chosen].name}" / "cloud"
    return found, refused


def make(
    rung: Rung, folder: Path, step: Step, before: bytes | None, world: Path | None = None, *, destroy: bool = False
) -> Made:
    """Plan and apply the step in a folder that is the rung's own, from this state, in a copy of this world."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bench = rung.bench(folder)
    write(bench, step.files)
    if world is not None:
        shutil.copytree(world, bench.cloud)
    if before is not None:
        bench.kept.put(UNIT, parse_state(before), None)
    refused: tuple[str, ...] = ()
    summary, drifted, secrets = None, frozenset[str](), frozenset[str]()
    try:
        talk, found = _planned(rung, bench, step.inputs, destroy)
        summary, drifted, secrets = found.summary, found.drifted, found.secrets
        if summary.changes or summary.outputs_changed:
            if failure := talk.apply(deadline_in(SECONDS)).failure:
                refused = _said("apply", failure)
            bench.bring_back()
    except EngineError as error:
        refused = _said("plan", error)
    except UnitError as error:
        refused = (error.reason,)
    kept = bench.kept.read(UNIT)
    there = {str(path.relative_to(bench.cloud)): path.read_bytes() for path in _things(bench.cloud)}
    state, left = (plain(kept.raw), kept.raw) if kept else (None, None)
    return Made(refused, summary, drifted, secrets, state, there, left)


def _planned(rung: Rung, bench: Workbench, inputs: Mapping[str, Any], destroy: bool) -> tuple[Conversation, Any]:
    sensitive: frozenset[str] = frozenset()
    for _ in range(TRIES):
        bench.options["sensitive_outputs"] = sensitive
        talk = rung.talk(bench, bench.spec(**inputs))
        if not rung.readied:
            talk.init(deadline_in(SECONDS))
        try:
            return talk, take_in(talk.plan(deadline_in(SECONDS), destroy=destroy).json, KEY)
        except SensitiveOutputs as found:
            sensitive = frozenset(found.names)
    raise AssertionError(f"{sensitive} were marked, and that was not enough")


def _things(cloud: Path) -> list[Path]:
    """All but the log of who did what, when."""
    return [path for path in cloud.rglob("*") if path.is_file() and path.name != "calls.log"]


def write(bench: Workbench, files: Mapping[str, str]) -> None:
    """The tree as it is from now on."""
    for path, text in files.items():
        (bench.tree / path).parent.mkdir(parents=True, exist_ok=True)
        (bench.tree / path).write_text(text, encoding="utf-8")


def plain(raw: bytes) -> Any:
    """A state that can be compared with another rung's."""
    state = json.loads(raw)
    for name in ("terraform_version", "serial", "lineage"):
        state.pop(name)
    for resource in state["resources"]:
        for instance in resource["instances"]:
            instance.pop(NEWER, None)
            if marked := instance.get("sensitive_attributes"):
                instance["sensitive_attributes"] = sorted(marked, key=json.dumps)  # in any order
    checks = state.get("check_results") or []  # in any order
    for one in checks:
        one["objects"] = sorted(one["objects"] or [], key=lambda found: str(found["object_addr"]))
    state["check_results"] = sorted(checks, key=lambda one: str(one["config_addr"]))
    text = json.dumps(state, sort_keys=True)
    for number, drawn in enumerate(_ids(state)):
        text = text.replace(drawn, f"id-{number}")
    return json.loads(text)


def _ids(state: Mapping[str, Any]) -> list[str]:
    found = [
        instance["attributes"]["id"]
        for resource in state["resources"]
        if resource["type"] == "terraform_data"
        for instance in resource["instances"]
    ]
    return list(dict.fromkeys(found))


def _said(command: str, error: EngineError) -> tuple[str, ...]:
    return (command, *sorted(one.summary for one in error.errors))


@contextmanager
def worker(engine: Engine, folder: Path, mirror: Path | None = None) -> Iterator[Rung]:
    """Plan and apply in a warm worker, as a job has one; `engine` only readies the folder. All that is planned lies below `folder`."""
    now = folder / "now"  # the cloud of whoever has a worker: that keeps the variables that it was started with
    env = provider_env(now)
    warmth = open_warmth(Warm(**warm.config(jobs=40)), engine, None, folder / "warm")
    beside = Beside(warmth)
    beside.start(lambda: None)
    assert beside.door is not None
    spec = Spec(("prod",), (), mirror or folder, folder, lasting_environment(env))
    beside.door.ask(spec, "first")  # for one that asks once, none is made
    lent: list[Loan] = []

    def talk(bench: Workbench, root: RootSpec) -> Conversation:
        while lent:
            lent.pop().back(whole=True)
        loan = until(lambda: beside.door and beside.door.ask(spec, str(bench.folder)), "there is a worker")
        lent.append(loan)
        bench.cloud.mkdir(exist_ok=True)
        now.unlink(missing_ok=True)
        now.symlink_to(bench.cloud)
        write_root(bench.work, replace(root, backend=BACKEND), bench.tree)
        bench.kept.bring(UNIT, bench.work)
        Conversation(engine, bench.work, env, bench.log, provider_mirror=mirror).init(deadline_in(SECONDS))
        return Conversation(engine, bench.work, env, bench.log, provider_mirror=mirror, jail=Seat(loan, bench.work))

    try:
        yield Rung("worker", lambda place: Workbench(engine, place, mirror, pin=pin()), talk, readied=True)
    finally:
        while lent:
            lent.pop().back(whole=True)
        beside.finish()
