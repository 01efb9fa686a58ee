"""One plan, and one change, with the real AWS provider, before a server that answers as AWS does: as a job does it, beside plain commands.

Plain is what people run in a fresh checkout: `init` from a mirror, `plan`; and for a change `show -json` and `apply` as well, since a plan that
somebody reads first is what is compared. The server, the pin's hashes and the written root are made before the clock starts.
"""

from __future__ import annotations

import itertools
import logging
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.row import Row, compared
from reconciler.runner.terraform.binary import Engine
from reconciler.runner.terraform.engine import CLI_CONFIG, Conversation, deadline_in
from reconciler.runner.terraform.initialized import Initialized, lay_out, links_of, take_up
from reconciler.runner.terraform.workspace import VALUES_FILE, trust_packages
from tests.kit.aws import NEEDS_AWS, REGION, Aws, provider_pin, serving
from tests.kit.terraform import AWS_VARIABLE, has_aws, implied_mirrors
from tests.kit.workbench import UNIT, Workbench, pin

SECONDS = 600.0
MODULE = (
    NEEDS_AWS
    + """\
variable "text" { type = string }
variable "name" { default = "/note" }
resource "aws_vpc" "this" {
  cidr_block = "10.1.0.0/16"
}
resource "aws_ssm_parameter" "this" {
  name  = var.name
  type  = "String"
  value = var.text
}
"""
)
SKIPS = {"skip_credentials_validation": True, "skip_requesting_account_id": True, "skip_metadata_api_check": True}
Spent = tuple[float, float]  # seconds, and seconds of CPU


def rows(folder: Path, engine: Engine, rounds: int) -> Iterator[Row]:
    """In turns. No row where the provider is not here, or packed: nothing is downloaded for this."""
    found = mirror()
    if found is None or engine.product != "terraform":
        sys.stderr.write(f"aws: not measured: it takes Terraform, and {AWS_VARIABLE} with the AWS provider\n")
        return
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # each request is a line otherwise
    with serving() as server:
        yield from _measured(workbench(folder / "aws", engine, found, server), rounds)


def mirror() -> Path | None:
    """A mirror with the AWS provider, if there is one here."""
    named = os.environ.get(AWS_VARIABLE)
    return next((one for one in ([Path(named)] if named else implied_mirrors()) if has_aws(one)), None)


def workbench(folder: Path, engine: Engine, found: Path, server: Aws) -> Workbench:
    """A unit that was applied once."""
    bench = Workbench(
        engine, folder, found, pin=pin(provider_pin(found)),
        env={"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": server.endpoint},
        options={"providers": {"aws": {"region": REGION, **SKIPS}}},
    )  # fmt: skip
    bench.folder.mkdir()
    bench.module(MODULE)
    assert bench.apply(bench.spec(text="0")).failure is None
    return bench


def _measured(bench: Workbench, rounds: int) -> Iterator[Row]:
    left = take_up(bench.work, bench.kept.block(UNIT, bench.work), links(bench), bench.tree)
    assert left is not None
    warm, once, changed = [], [], []
    text, numbers = "0", itertools.count(1)
    for _ in range(rounds):
        plain = by_hand(bench, text)
        warm.append((_ours(bench, text, left, once=False), plain))
        once.append((_ours(bench, text, left, once=True), plain))
        text = str(next(numbers))
        there = by_hand(bench, text, changes=True)
        text = str(next(numbers))
        changed.append((_ours(bench, text, left, once=True, changes=True), there))
    yield from _pair("AWS, nothing to change: a laid out folder / init + plan", warm)
    yield from _pair("  and the provider verified once", once)
    yield from _pair("AWS, a change: laid out, verified once / init + plan + show + apply", changed)


def _pair(name: str, pairs: list[tuple[Spent, Spent]]) -> Iterator[Row]:
    wall, cpu = ([(1000 * ours[n], 1000 * theirs[n]) for ours, theirs in pairs] for n in (0, 1))
    yield compared(name, "", wall, "ms")
    yield compared("  CPU of that", "", cpu, "ms")


def links(bench: Workbench) -> dict[Path, Path]:
    assert bench.mirror is not None
    return links_of(bench.pin, bench.engine.registry, bench.mirror)


def _opened(bench: Workbench, text: str) -> Conversation:
    """A fresh root, with the state in its place."""
    shutil.rmtree(bench.work)
    return bench.open(bench.spec(text=text))


def _spent(work: Callable[[], object]) -> Spent:
    """CPU of the programs that it starts, and not of the server, which is a thread of this one."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def by_hand(bench: Workbench, text: str, *, changes: bool = False) -> Spent:
    """With what the engine has by default, but for the mirror."""
    _opened(bench, text)
    (bench.work / "tmp").mkdir(exist_ok=True)
    env = {
        **bench.env,
        "TF_CLI_CONFIG_FILE": str(bench.work / CLI_CONFIG),
        "CHECKPOINT_DISABLE": "1",
        "HOME": str(bench.work),
    }
    told = ["plan", "-input=false", f"-var-file={VALUES_FILE}", "-out=tfplan"]
    steps = [["init", "-input=false"], told]
    steps += [["show", "-json", "tfplan"], ["apply", "-input=false", "tfplan"]] if changes else []

    def run() -> None:
        for step in steps:
            subprocess.run([bench.engine.binary, *step], cwd=bench.work, env=env, stdout=subprocess.DEVNULL, check=True)

    spent = _spent(run)
    if changes:
        bench.bring_back()
    return spent


def _ours(bench: Workbench, text: str, left: Initialized, *, once: bool, changes: bool = False) -> Spent:
    """As a job does."""
    talk = _opened(bench, text)

    def run() -> None:
        lay_out(left, bench.work, bench.kept.block(UNIT, bench.work), links(bench))
        if once:
            trust_packages(bench.work, bench.pin, bench.engine.registry)
        assert talk.plan(deadline_in(SECONDS)).changed is changes
        if changes:
            assert talk.apply(deadline_in(SECONDS)).failure is None

    spent = _spent(run)
    if changes:
        bench.bring_back()
    return spent
