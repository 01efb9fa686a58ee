"""Warm workers beside processes: on the builtin provider, on the real AWS provider before a server that answers as AWS does, and a pass of looks.

The workers are those of the product, started and lent by its broker, cleaned between two jobs, and warm before the clock starts; beside them stands what
people run (`init`, `plan`, `show`, `apply`), or the product's own job without workers.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench import aws
from bench.deploy import WORKERS, by_xargs, write_roots
from bench.row import Row, compared
from reconciler.config import load_runner
from reconciler.config.runner import Warm
from reconciler.demo.example import LOCK
from reconciler.demo.playground import Playground
from reconciler.model import Job, JobId, Operation, UnitId
from reconciler.runner.host import Host
from reconciler.runner.jail.egress import Egress, endpoints_of
from reconciler.runner.job import run_job
from reconciler.runner.terraform.binary import Engine
from reconciler.runner.terraform.engine import Conversation, deadline_in, lasting_environment
from reconciler.runner.terraform.initialized import Initialized, lay_out, take_up
from reconciler.runner.terraform.packages import program_in, unpacked, wanted
from reconciler.runner.terraform.workspace import VALUES_FILE, trust_packages, write_root
from reconciler.runner.warm.beside import Beside, open_warmth
from reconciler.runner.warm.loan import Loan, Seat
from reconciler.runner.warm.spec import Spec
from reconciler.runner.warmly import BACKEND, CONFIGURED
from tests.kit import warm
from tests.kit.aws import REGION, Aws, locked, provider_pin, serving
from tests.kit.graph import Graph
from tests.kit.modules import entry, environment, release
from tests.kit.workbench import UNIT, Workbench

LOOKS = 8  # units in a pass
MODULES = {"Modules": [{"Key": "", "Source": "", "Dir": "."}, {"Key": "unit", "Source": "./module", "Dir": "module"}]}


def rows(folder: Path, engine: Engine, graph: Graph, rounds: int) -> Iterator[Row]:
    """In turns. No row where there are no workers."""
    if sys.platform != "linux" or engine.product != "terraform":
        sys.stderr.write("warm: not measured: it takes Linux and Terraform\n")
        return
    here = folder / "warm"
    here.mkdir()
    yield from _builtin(here / "builtin", engine, graph, rounds)
    mirror = aws.mirror()
    if mirror is None:
        sys.stderr.write("warm: no row with the AWS provider, which is not here\n")
        return
    with serving() as server:
        yield from _one_unit(here / "aws", engine, mirror, server, rounds)
        yield from _passes(here / "looks", mirror, server, rounds)


@contextmanager
def _pool(folder: Path, engine: Engine) -> Iterator[Beside]:
    """A broker as a runner has one, without a sandbox: with one worker more than are used at a time, since one is being cleaned."""
    config = Warm(**warm.config(library=str(warm.library()), workers=WORKERS + 1, jobs=100_000, memory=8192))
    beside = Beside(open_warmth(config, engine, None, folder / "workers"))
    beside.start(lambda: None)
    try:
        yield beside
    finally:
        beside.finish()


def _lent(beside: Beside, spec: Spec) -> Loan:
    assert beside.door is not None
    ends = time.monotonic() + aws.SECONDS
    while (loan := beside.door.ask(spec, "bench")) is None:
        assert time.monotonic() < ends, "no worker"
        time.sleep(0.001)
    return loan


# --- the builtin provider


def _builtin(folder: Path, engine: Engine, graph: Graph, rounds: int) -> Iterator[Row]:
    folder.mkdir()
    units, rates = len(list(graph.links())), []
    spec = Spec(("bench",), (), folder, folder, lasting_environment({}), Egress())
    with _pool(folder, engine) as beside:
        for number in range(rounds):
            here = folder / str(number)
            here.mkdir()
            theirs, _ = by_xargs(here, engine, graph)
            roots = _laid_out(here / "warm", graph)
            _at_once([partial(_warmed, beside, spec)] * (WORKERS + 1))
            began = time.perf_counter()
            halves = [roots[part::WORKERS] for part in range(WORKERS)]
            _at_once([partial(_applied, beside, spec, engine, half) for half in halves])
            rates.append((units / (time.perf_counter() - began), units / theirs))
            shutil.rmtree(here)
    what = f"{units} units, builtin provider, {WORKERS} at a time: workers alone / xargs -P{WORKERS}"
    yield compared(what, ">= 5", rates, "units/s", least=5)


def _warmed(beside: Beside, spec: Spec) -> None:
    """Two at once, so that there are two workers."""
    loan = _lent(beside, spec)
    time.sleep(1.0)
    loan.back(whole=True)


def _laid_out(folder: Path, graph: Graph) -> list[Path]:
    roots = write_roots(folder, graph)
    for root in roots:
        (root / "module").symlink_to(folder / "module")
        text = (root / "main.tf.json").read_text().replace('"../module"', '"./module"')
        (root / "main.tf.json").write_text(json.dumps({"terraform": {"backend": BACKEND}, **json.loads(text)}))
        (root / VALUES_FILE).write_text("{}")
    return roots


def _applied(beside: Beside, spec: Spec, engine: Engine, roots: list[Path]) -> None:
    """As `init`, `plan`, `show` and `apply` of each."""
    for root in roots:
        lay_out(Initialized(MODULES, CONFIGURED), root, BACKEND, {})
        loan = _lent(beside, spec)
        talk = Conversation(engine, root, {}, root / "log", jail=Seat(loan, root))
        assert talk.plan(deadline_in(aws.SECONDS)).changed
        assert talk.apply(deadline_in(aws.SECONDS)).failure is None
        loan.back(whole=True)


def _at_once(works: list[Callable[[], object]]) -> None:
    """Each in a process of its own."""
    pids = []
    for work in works:
        if (pid := os.fork()) == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)


# --- one unit on the AWS provider


@dataclass(frozen=True, slots=True)
class _Rung:
    """Workers of one kind, and what they are to reach."""

    name: str
    spec: Spec
    quiet: float
    change: float


def _one_unit(folder: Path, engine: Engine, mirror: Path, server: Aws, rounds: int) -> Iterator[Row]:
    bench = aws.workbench(folder, engine, mirror, server)
    left = take_up(bench.work, bench.kept.block(UNIT, bench.work), aws.links(bench), bench.tree)
    assert left is not None
    quiet: dict[str, list[tuple[float, float]]] = {}
    changed: dict[str, list[tuple[float, float]]] = {}
    rungs = _rungs(bench, mirror, server)
    text, numbers = "0", itertools.count(1)
    with _pool(folder, engine) as beside:
        for rung in rungs:
            _seconds(bench, text, left, beside, rung.spec)
        for _ in range(rounds):
            plain = 1000 * aws.by_hand(bench, text)[0]
            for rung in rungs:
                quiet.setdefault(rung.name, []).append((1000 * _seconds(bench, text, left, beside, rung.spec), plain))
            text = str(next(numbers))
            plain = 1000 * aws.by_hand(bench, text, changes=True)[0]
            for rung in rungs:
                text = str(next(numbers))
                spent = 1000 * _seconds(bench, text, left, beside, rung.spec, changes=True)
                changed.setdefault(rung.name, []).append((spent, plain))
    for rung in rungs:
        name = f"AWS, nothing to change: {rung.name} / init + plan"
        yield compared(name, f"<= {rung.quiet}", quiet[rung.name], "ms", most=rung.quiet)
    for rung in rungs:
        name = f"AWS, a change: {rung.name} / init + plan + show + apply"
        yield compared(name, f"<= {rung.change}", changed[rung.name], "ms", most=rung.change)


def _rungs(bench: Workbench, mirror: Path, server: Aws) -> list[_Rung]:
    env = lasting_environment(bench.variables)
    egress = Egress(tuple(endpoints_of({"AWS_ENDPOINT_URL": server.endpoint})))
    (needed,) = (wanted(one, bench.engine.registry) for one in bench.pin.providers)
    program = program_in(unpacked(mirror, needed), needed)
    alone = Spec(("bench",), (str(needed),), mirror, bench.tree, env, egress)
    owned = replace(alone, owned={f"{needed.host}/{needed.source}": str(program)})
    return [_Rung("a worker", alone, 0.30, 0.20), _Rung("with its own provider", owned, 0.12, 0.08)]


def _seconds(
    bench: Workbench, text: str, left: Initialized, beside: Beside, spec: Spec, *, changes: bool = False
) -> float:
    """As a job would have it, from the written root on; with the cleaning up."""
    shutil.rmtree(bench.work)
    bench.open(bench.spec(text=text))
    write_root(bench.work, replace(bench.spec(text=text), backend=BACKEND), bench.tree)
    began = time.perf_counter()
    lay_out(Initialized(left.modules, CONFIGURED), bench.work, BACKEND, aws.links(bench))
    trust_packages(bench.work, bench.pin, bench.engine.registry)
    loan = _lent(beside, spec)
    talk = Conversation(bench.engine, bench.work, bench.variables, bench.log, jail=Seat(loan, bench.work))
    assert talk.plan(deadline_in(aws.SECONDS)).changed is changes
    if changes:
        assert talk.apply(deadline_in(aws.SECONDS)).failure is None
    loan.back(whole=True)
    spent = time.perf_counter() - began
    if changes:
        bench.bring_back()
    return spent


# --- a pass of looks


def _passes(folder: Path, mirror: Path, server: Aws, rounds: int) -> Iterator[Row]:
    """Jobs as the runner's service forks them, two at a time, for units that are all in order."""
    folder.mkdir()
    ground = _ground(folder, mirror, server)
    ways = {
        "native": None,
        "workers": Warm(**warm.config(jobs=100_000, memory=8192)),
        "workers with their own providers": Warm(
            **warm.config(jobs=100_000, memory=8192, own_providers=["hashicorp/aws"])
        ),
    }
    config = load_runner(ground.runner_config)
    hosts = {name: Host(config.model_copy(update={"warm": way})) for name, way in ways.items()}
    rates: dict[str, list[float]] = {name: [] for name in hosts}
    with _brokers(list(hosts.values())):
        for name in ("native", *hosts, *hosts):  # deployed first, and then each worker is warm
            _look(ground, hosts[name])
        for _ in range(rounds):
            for name, host in hosts.items():
                rates[name].append(LOOKS / _look(ground, host))
    ground.destroy()
    for name, least in zip(list(hosts)[1:], (3.5, 8.0), strict=True):
        what = f"AWS, {LOOKS} units in order looked at by jobs in the strict jail, {WORKERS} at a time: {name} / none"
        yield compared(what, f">= {least}", list(zip(rates[name], rates["native"], strict=True)), "jobs/s", least=least)


@contextmanager
def _brokers(hosts: list[Host]) -> Iterator[None]:
    found = [Beside(host.warmth) for host in hosts]
    for host, beside in zip(hosts, found, strict=True):
        beside.start(lambda: None)
        host.door = beside.door
    try:
        yield
    finally:
        for beside in found:
            beside.finish()


def _ground(folder: Path, mirror: Path, server: Aws) -> Playground:
    """A host and units on AWS."""
    catalog = {"v1.0.0": release(note=aws.MODULE)}
    env = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": server.endpoint}
    files = {
        "environments/prod/environment.yaml": environment(providers={"aws": {"region": REGION, **aws.SKIPS}}),
        LOCK: locked(folder, catalog, provider_pin(mirror)),
        **{f"environments/prod/n{n}.yaml": entry("note", {"text": "x", "name": f"/n/{n}"}) for n in range(LOOKS)},
    }
    runner = {
        "provider_mirror": {"path": str(mirror)}, "environments": {"prod": {"env": env}}, "sandbox": {"tier": "strict"},
    }  # fmt: skip
    return Playground.create(folder / "ground", files, catalog, runner=runner)


def _look(ground: Playground, host: Host) -> float:
    """A job for every unit; seconds."""
    head, began, running = ground.environments.head, time.perf_counter(), 0
    (host.memory.folder / "fetched").unlink(missing_ok=True)
    host.warm(UnitId("prod/n0"))
    for number in range(LOOKS):
        if running == WORKERS:
            assert os.wait()[1] == 0
            running -= 1
        job = Job(JobId(f"look-{time.monotonic_ns()}"), Operation.APPLY, UnitId(f"prod/n{number}"), head, 1)
        _forked(host, job)
        running += 1
    while running:
        assert os.wait()[1] == 0
        running -= 1
    return time.perf_counter() - began


def _forked(host: Host, job: Job) -> None:
    folder = host.spool.job(job.id)
    lock = folder.create(job)
    assert lock is not None
    if os.fork() == 0:
        run_job(host, job, folder, lock)
        os._exit(0)
    lock.release()
