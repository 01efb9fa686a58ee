"""Thousands of real units through a first deploy, a restart, a merge, a look at all, and another version of the module that all use.

`python -m tests.scale.play --help`. With real Terraform on the builtin provider, or on the AWS provider before a server that answers as AWS does.
What it costs and holds is reported for each part as JSON; what must hold, at any size, fails the run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.cli.ask import tell
from reconciler.demo.example import LOCK
from reconciler.demo.playground import Playground
from tests.kit.aws import ACCOUNT, Aws, locked, prod, provider_pin, serving
from tests.kit.house import House, Json
from tests.scale.estate import ENVIRONMENTS, Estate
from tests.scale.gauge import Follower, cost, held

CONTROLLER: Json = {
    "environments_repo": {"poll_interval": "10s"},
    "executor": {"local": {"workers": 2, "job_memory": 128}},
}
PACE = 0.5  # seconds between two looks at the journal
WORD = 30.0  # seconds between two words of how far it is
PATIENCE = 600.0  # seconds in which some job has to end
CHANGED = 100  # of so many units one is changed by the merge
MOST_TOLD = 10


@dataclass(slots=True)
class Scale:
    """One run of it. `cloud`: the server in the place of AWS, if it is on that."""

    house: House
    estate: Estate
    cloud: Aws | None = None
    parts: dict[str, Json] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def play(self) -> Json:
        """All parts; the report."""
        units = [*self.estate.members]
        with self._part("deploy", units) as follower:
            self.house.start()
            self._until(lambda: len(follower.ended) == len(units), follower)
        self._in_order("deploy", follower)
        with self._part("restart", []) as follower:
            self.house.stop()
            self.house.start()
            self._merge({"README.md": "Nothing of the units.\n"}, follower)
        with self._part("merge", self._changed()) as follower:
            self._merge(self.estate.change(self._changed(), label="other"), follower)
            self._until(lambda: len(follower.ended) == len(self._changed()), follower)
        with self._part("look", units) as follower:
            tell(self.house.ground.runtime / "admin.sock", "reconcile", "all")
            self._until(lambda: len(follower.ended) == len(units), follower)
        with self._part("module", units) as follower:
            self._merge(self.estate.change(units, version="1.1.0"), follower)
            self._until(lambda: len(follower.ended) == len(units), follower)
        self._in_order("module", follower)
        return self._report()

    def _changed(self) -> list[str]:
        leaves = self.estate.leaves()
        return leaves[:: max(CHANGED, 1)] or leaves[:1]

    # --- one part

    @contextmanager
    def _part(self, name: str, units: list[str]) -> Iterator[Follower]:
        """Measure it; each of these units has to have had one job in it, which succeeded, and no other one any."""
        follower = self._follower()
        before = cost(self.house) if self.house.runner is not None else None
        began = time.monotonic()
        yield follower
        self._until(lambda: follower.idle, follower)
        seconds, now = time.monotonic() - began, cost(self.house)
        spent = now if before is None or name == "restart" else now.since(before)
        per = max(len(units), 1)
        self.parts[name] = {
            "seconds": round(seconds, 1),
            "jobs": follower.started.total(),
            "ended": dict(follower.reasons),
            "cpu_s": {part: round(getattr(spent, part), 2) for part in ("controller", "runner", "jobs")},
            "cpu_ms_per_unit": {
                part: round(1000 * getattr(spent, part) / per, 1) for part in ("controller", "runner", "jobs")
            },
            **held(self.house),
        }
        self._each_once(name, units, follower)
        print(f"{name}: {json.dumps(self.parts[name])}", file=sys.stderr, flush=True)  # noqa: T201 - a program

    def _each_once(self, name: str, units: list[str], follower: Follower) -> None:
        wanted, got = dict.fromkeys(units, 1), dict(follower.started)
        off = sorted(unit for unit in {*wanted, *got} if wanted.get(unit, 0) != got.get(unit, 0))
        self.wrong += [f"{name}: {unit} had {got.get(unit, 0)} jobs, and not {wanted.get(unit, 0)}" for unit in off]
        failed = {reason: n for reason, n in follower.reasons.items() if not reason.startswith("Succeeded ")}
        self.wrong += [f"{name}: {n} jobs ended as {reason}" for reason, n in failed.items()]
        said = {"look": "Succeeded InSync"}.get(name, "Succeeded Applied")
        if units and follower.reasons[said] != len(units):
            self.wrong.append(f"{name}: {follower.reasons[said]} jobs ended as {said}, and not {len(units)}")

    def _in_order(self, name: str, follower: Follower) -> None:
        """Who reads was started after what it reads."""
        places = {unit: place for place, unit in enumerate(follower.order)}
        for unit, one in self.estate.members.items():
            if one.reads is not None and places.get(unit, 0) <= places.get(one.reads, 0):
                self.wrong.append(f"{name}: {unit} was started before {one.reads}")

    def _follower(self) -> Follower:
        path = self.house.ground.folder / "controller" / "reconciler.db"
        found = Follower(path)
        if path.exists():
            found.begin()
        return found

    def _merge(self, files: dict[str, str], follower: Follower) -> None:
        """Merge, and wait until it was decided what that means."""
        head = self.house.ground.merge(files)
        self._until(lambda: head in follower.heads, follower)
        self.house.until(
            lambda: self.house.get("/api/v1/status")["resolved"] == head, "the merge is resolved", PATIENCE
        )
        self.house.until(lambda: self._passed(head), "it is decided what it means", PATIENCE)

    def _passed(self, head: str) -> bool:
        """Whether all that it changes has begun: who waits for nobody has ended or waits for its turn."""
        found = self.house.get(f"/api/v1/commits/{head}")
        status = self.house.get("/api/v1/status")
        return bool(found["accepted"]) and (not found["waiting"] or bool(status["running"] or status["queued"]))

    def _until(self, holds: Callable[[], bool], follower: Follower) -> None:
        """Look until it is so. Fails when for long no job ends, or a plane does."""
        last, seen, said = time.monotonic(), -1, time.monotonic()
        while True:
            if follower.path.exists():
                follower.read()
            if holds():
                return
            if follower.ended.total() != seen:
                seen, last = follower.ended.total(), time.monotonic()
            if time.monotonic() - last > PATIENCE:
                raise SystemExit(f"no job has ended for {PATIENCE} s\n{self.house.tails()}")
            if time.monotonic() - said > WORD:
                said = time.monotonic()
                print(f"  {seen} jobs have ended", file=sys.stderr, flush=True)  # noqa: T201 - a program
            time.sleep(PACE)  # a poll, not a wait: the deadline is the wait

    # --- at the end

    def _report(self) -> Json:
        statuses = [one for one in self.house.units() if (one["sync"], one["health"]) != ("Synced", "Healthy")]
        self.wrong += [f"{one['unit']} is {one['sync']} {one['health']} {one['reason']}" for one in statuses]
        for unit, value in self.estate.values().items():
            outputs = json.loads(self.house.ground.state(unit).read_text())["outputs"]
            if outputs["value"]["value"] != value:
                self.wrong.append(f"the output of {unit} is {outputs['value']['value']!r}, and not {value!r}")
        self._look_at_the_cloud()
        jobs = Follower(self.house.ground.folder / "controller" / "reconciler.db")
        jobs.read()
        if jobs.started.total() != (known := sum(part["jobs"] for part in self.parts.values())):
            self.wrong.append(f"{jobs.started.total() - known} jobs were started between the parts")
        total = sum(part["seconds"] for part in self.parts.values())
        told = {"units": len(self.estate.members), "provider": "aws" if self.cloud else "builtin"}
        more = len(self.wrong) - MOST_TOLD
        wrong = [*self.wrong[:MOST_TOLD], *([f"and {more} more"] if more > 0 else [])]
        return {**told, "seconds": round(total, 1), "parts": self.parts, "wrong": wrong}

    def _look_at_the_cloud(self) -> None:
        """Each parameter has the value of its unit, and was written once for each change of it."""
        if self.cloud is None:
            return
        ssm, changed = self.cloud.client("ssm"), {*self._changed()}
        for unit, value in self.estate.values().items():
            found = ssm.get_parameter(Name=f"/{unit}")["Parameter"]
            wanted = 3 if unit in changed else 2
            if (found["Value"], found["Version"]) != (value, wanted):
                self.wrong.append(f"/{unit} was written {found['Version']} times, and is {found['Value']!r}")


def run(units: int, folder: Path, mirror: Path | None = None) -> Json:
    """Play it in an empty folder, on the AWS provider of that mirror if there is one; the report."""
    estate = Estate.of(units, aws=mirror is not None)
    if mirror is None:
        return _play(estate, folder, estate.files(), {}, None)
    with serving() as cloud:
        folder.mkdir(parents=True, exist_ok=True)
        lock = {LOCK: locked(folder, estate.releases, provider_pin(mirror))}
        said = prod(cloud, ACCOUNT, plan=(folder / "plan.env", "plan-key"), apply=(folder / "apply.env", "apply-key"))
        del said["backend"]
        hosted = {name: deepcopy(said) for name in ENVIRONMENTS}  # one object thrice would be an alias in YAML
        runner = {"provider_mirror": {"path": str(mirror)}, "environments": hosted}
        return _play(estate, folder / "house", estate.files() | lock, runner, cloud)


def _play(estate: Estate, folder: Path, files: dict[str, str], runner: Json, cloud: Aws | None) -> Json:
    ground = Playground.create(folder, files, estate.releases, controller=CONTROLLER, runner=runner)
    house = House(ground)
    try:
        return Scale(house, estate, cloud).play()
    finally:
        house.stop(PATIENCE)
        ground.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scale.play")
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument("--aws", type=Path, help="play it on the AWS provider of this mirror")
    parser.add_argument("--report", type=Path, help="where the report goes, besides stdout")
    told = parser.parse_args()
    os.nice(5)  # whoever works on this machine comes first
    with tempfile.TemporaryDirectory(prefix="scale-", ignore_cleanup_errors=True) as folder:
        report = run(told.units, Path(folder) / "house", told.aws)
    text = json.dumps(report)
    if told.report:
        told.report.write_text(text + "\n", encoding="utf-8")
    print(text)  # noqa: T201 - a program
    sys.exit(1 if report["wrong"] else 0)


if __name__ == "__main__":
    main()
