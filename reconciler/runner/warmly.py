"""A plan by a warm worker, of what most probably needs no change: a unit for which nothing was merged, and that is looked at.

The worker plans from a copy of the state, with the credentials for plans. If it finds nothing to change, that is what the job goes on with. Whatever else
comes of it counts for nothing, and the engine plans as if there were no workers: a change is only ever judged and applied as that sees it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.durable import open_plain, write_atomic
from reconciler.errors import HeldError, ReconcilerError, SupersededError, UnitError
from reconciler.model import Operation, Pin, UnitId
from reconciler.runner.access.endpoint import Endpoint
from reconciler.runner.host import Host, Hosted
from reconciler.runner.spool import JobFolder
from reconciler.runner.supply import Supply
from reconciler.runner.terraform.engine import (
    Conversation,
    EngineError,
    PlanResult,
    SensitiveOutputs,
    lasting_environment,
)
from reconciler.runner.terraform.initialized import Initialized, lay_out, links_of
from reconciler.runner.terraform.packages import Wanted, program_in, unpacked, wanted
from reconciler.runner.terraform.state import WORK_STATE
from reconciler.runner.terraform.workspace import trust_packages
from reconciler.runner.warm.loan import Loan, Seat
from reconciler.runner.warm.spec import Spec

FOLDER = "warm"  # in the job's own work, and removed with it if not before
BACKEND: Mapping[str, Any] = {"local": {"path": WORK_STATE}}
# What `init` leaves of such a backend (measured, 1.11.4 and 1.15.5); see `initialized`.
CONFIGURED = {
    "version": 3,
    "backend": {"type": "local", "config": {"path": WORK_STATE, "workspace_dir": None}, "hash": 0},
}
UNOWNABLE = {"AWS_CA_BUNDLE"}  # with it the AWS provider fails when it is configured for the second time (measured)
PART = 0.5  # of the time that is left for the plan: the engine needs the rest if a worker hangs
LONGEST_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Warmly:
    """Of one job, whose code was merged."""

    host: Host
    hosted: Hosted
    folder: JobFolder
    supply: Supply
    pin: Pin
    tree: Path
    stored_as: UnitId
    mask: Callable[[str], str]
    learn: Callable[[frozenset[str]], None]

    def plan(
        self, write: Callable[[Path, Mapping[str, Any]], object], left: str, state: bytes | None, deadline: float
    ) -> PlanResult | None:
        """The plan, if it changes nothing; None: whatever it is, the engine is to make it.

        `write` writes the root into a folder, with this backend; `left` names what an `init` in such a root left.

        Raises:
            SensitiveOutputs: mark them, and plan again. SupersededError: the job was cancelled.
        """
        template = self.host.templates.find(left)
        hosted = self._for_plans()
        if template is None or hosted is None:
            return None
        loan = self._asked(hosted)
        if loan is None:
            return None
        with self._prepared() as work:
            write(work, BACKEND)
            lay_out(
                Initialized(template.modules, CONFIGURED),
                work,
                BACKEND,
                links_of(self.pin, self.host.engine.registry, self.supply.mirror),
            )
            if self.supply.trusted:
                trust_packages(work, self.supply.pin, self.host.engine.registry)
            if state is not None:
                write_atomic(work / WORK_STATE, state, durable=False)
            return self._planned(loan, hosted, work, deadline)

    def _for_plans(self) -> Hosted | None:
        """The environment with its credentials for plans: a worker never gets others. None: it has none."""
        host, name = self.host, self.hosted.name
        listed = host.config.environments[name]
        if host.door is None or host.warmth is None or listed.warm == "none" or not host.warmth.usable():
            return None
        if listed.credentials.plan is None and listed.credentials.apply is not None:
            return None
        if self.hosted.operation is Operation.PLAN:
            return self.hosted
        try:
            return host.environment(name, Operation.PLAN, self.hosted.errand)
        except (HeldError, UnitError):
            return None

    def _asked(self, hosted: Hosted) -> Loan | None:
        assert self.host.door is not None  # noqa: S101 - looked at a moment ago
        self.learn(hosted.secrets)
        return self.host.door.ask(self._spec(hosted), self.pin.digest)

    def _spec(self, hosted: Hosted) -> Spec:
        needed = [wanted(one, self.host.engine.registry) for one in self.supply.pin.providers]
        return Spec(
            environment=(hosted.name, hosted.part.klass.value, hosted.part.digest, hosted.operation.value),
            providers=tuple(sorted(f"{one} {' '.join(sorted(one.hashes))}" for one in needed)),
            mirror=self.supply.mirror,
            trees=self.tree.parent,
            env=lasting_environment(hosted.variables),
            egress=self.host.egress(hosted),
            owned=self._owned(needed, hosted),
            fetches=hosted.access.fetch is not None,
        )

    def _owned(self, needed: list[Wanted], hosted: Hosted) -> dict[str, str]:
        """The programs that a worker shall keep running: proven by this very job, where nobody else can put others in their place."""
        assert self.host.warmth is not None  # noqa: S101 - looked at a moment ago
        if not self.supply.trusted or UNOWNABLE & hosted.variables.keys():
            return {}
        own = [one for one in needed if one.source in self.host.warmth.own_providers]
        programs = {f"{one.host}/{one.source}": program_in(unpacked(self.supply.mirror, one), one) for one in own}
        return {address: str(program) for address, program in programs.items() if program}

    @contextmanager
    def _prepared(self) -> Iterator[Path]:
        work = self.folder.work / FOLDER
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _planned(self, loan: Loan, hosted: Hosted, work: Path, deadline: float) -> PlanResult | None:
        seat, whole, why, changes = Seat(loan, work), False, "", False
        try:
            with self._handing_out(loan, hosted) as mask:
                found = self._conversation(seat, hosted, work, mask).plan(_sooner(deadline))
            whole, changes = seat.whole, found.changed
            why = (
                "" if changes or self._is_quiet(work) else "it said neither that there is something to do nor that not"
            )
        except (SensitiveOutputs, SupersededError):
            whole = seat.whole
            raise
        except (ReconcilerError, OSError, ValueError) as error:
            whole, why = isinstance(error, EngineError) and seat.whole, str(error) or type(error).__name__
        finally:
            loan.back(whole=whole, why=self._shown(why), changes=changes)
        if not why and not changes:
            return found
        self._say("The worker's plan counts for nothing; the engine plans.")
        return None

    def _shown(self, why: str) -> str:
        """For the runner's own log."""
        return self.mask(why).splitlines()[0][:200] if why else ""

    @contextmanager
    def _handing_out(self, loan: Loan, hosted: Hosted) -> Iterator[Callable[[str], str]]:
        """Keys of this job, for as long as it has the worker, and what hides them. Raises HeldError, UnitError: there are none."""
        keys = hosted.keys(self.stored_as) if loan.desk else None
        if keys is None:
            yield self.mask
            return
        endpoint = Endpoint(keys, loan.desk)

        def hide(text: str) -> str:
            self.learn(endpoint.handed_out())
            return self.mask(text)

        try:
            endpoint.start()
            yield hide
        finally:
            endpoint.close()

    def _conversation(self, seat: Seat, hosted: Hosted, work: Path, mask: Callable[[str], str]) -> Conversation:
        return Conversation(
            self.host.engine, work, hosted.variables, self.folder.log, provider_mirror=self.supply.mirror,
            mask=mask, jail=seat, note=work / "engine.json", stop=lambda _step: self.folder.told(),
        )  # fmt: skip

    def _is_quiet(self, work: Path) -> bool:
        assert self.host.warmth is not None  # noqa: S101 - there was a worker
        return says_nothing_to_do(work / "plan.out", self.host.warmth.version)

    def _say(self, text: str) -> None:
        with self.folder.log.open("ab") as log:
            log.write(f"{text}\n".encode())


def says_nothing_to_do(output: Path, version: str) -> bool:
    """Whether it is what Terraform of that version says of a plan with nothing to do: its version first, one summary, all of it 0."""
    with open_plain(output) as said:
        lines = [_message(line) for line in iter(lambda: said.readline(LONGEST_LINE), b"")]
    summaries = [
        one["changes"] for one in lines if one.get("type") == "change_summary" and isinstance(one.get("changes"), dict)
    ]
    if not lines or lines[0].get("terraform") != version or len(summaries) != 1:
        return False
    counted = {name: value for name, value in summaries[0].items() if name != "operation"}
    return summaries[0].get("operation") == "plan" and bool(counted) and not any(counted.values())


def _message(line: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _sooner(deadline: float) -> float:
    now = time.monotonic()
    return now + PART * (deadline - now)
