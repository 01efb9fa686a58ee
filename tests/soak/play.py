"""A house of hundreds of units, hours of merges, drift and faults, and whether it is what it was. `python -m tests.soak.play --help`.

Storm: everything happens, the planes are killed and restarted too. Then a steady part, in which the planes live on and are
measured: the first third of it warms them up, and in the rest they must not grow. At the end everything is taken back and
mended, has to converge, and what must hold is looked for on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from reconciler.demo.playground import Playground
from reconciler.errors import PassError
from tests.kit.house import House, Json
from tests.kit.modules import excused
from tests.kit.proof import leftovers, wrongs
from tests.kit.wishes import wrong_objects, wrong_world
from tests.provider.log import doubled
from tests.soak.fleet import ENVIRONMENTS, RELEASES, Fleet
from tests.soak.gauge import Sample, growth, look
from tests.soak.trouble import ENDS, Trouble

STORM, WARM = 0.4, 0.6  # of the time: until when the planes are killed too, and until when they warm up
LOOK = 1.0  # seconds between two looks at what a process holds
GROWTH = 1.05  # of a process's own memory, at the most
MORE = {"descriptors": 0, "threads": 1}  # a pool's last thread begins when so many first ask at once
PACE = 0.1  # seconds between two looks at the clock


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how many and how fast. `merge` and `trouble`: seconds between two, on average; `drift`: as an entry says it."""

    seconds: float
    units: int
    seed: int
    merge: float
    trouble: float
    drift: str
    patience: float  # seconds for the convergence at the end


@dataclass(slots=True)
class Soak:
    """One run of it."""

    plan: Plan
    house: House
    fleet: Fleet
    trouble: Trouble
    rng: random.Random
    merges: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[Sample]] = field(default_factory=lambda: {"controller": [], "runner": []})
    began: float = 0.0

    def play(self) -> Json:
        """All of it; what was found out. Fails when a plane dies by itself, or something does not converge."""
        self.house.start()
        self.began = time.monotonic()
        self._live()
        self._take_back()
        self._converge()
        report = self._report()
        self.house.stop(ENDS)
        ground, wishes = self.house.ground, self.fleet.wishes
        world = wrong_world(ground, wishes, self.fleet.gone, self.trouble.deleted)
        return report | {"wrong": [*wrongs(ground, [w.unit for w in wishes]), *world, *self._tracebacks()]}

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self.began

    # --- while it lasts

    def _live(self) -> None:
        next_merge = next_trouble = next_look = next_word = 0.0
        while (now := self._elapsed) < self.plan.seconds:
            self.trouble.undo()
            self._check_alive()
            if now >= next_merge:
                next_merge = now + self.rng.expovariate(1 / self.plan.merge)
                self._merge()
            if now >= next_trouble:
                next_trouble = now + self.rng.expovariate(1 / self.plan.trouble)
                self.trouble.cause(self._settled(), planes=now < STORM * self.plan.seconds)
            if now >= next_look:
                next_look = now + LOOK
                self._look(now)
            if now >= next_word:
                next_word = now + 60
                self._say(now)
            time.sleep(PACE)  # of this clock; nobody is waited for

    def _merge(self) -> None:
        if not self.trouble.merging:
            return
        drawn = self.fleet.next(self._settled())
        if drawn is not None:
            self.merges[drawn[0]] += 1
            self.house.ground.merge(drawn[1], f"{drawn[0]} {sum(self.merges.values())}")

    def _settled(self) -> set[str]:
        """The units that are in order at the newest commit; nobody, while that cannot be said."""
        if "controller" in self.trouble.stopped or not self.trouble.merging:
            return set()
        with suppress(httpx.HTTPError):
            if self.house.get("/api/v1/status")["resolved"] == self.house.ground.environments.head:
                return {u["unit"] for u in self.house.units() if (u["sync"], u["health"]) == ("Synced", "Healthy")}
        return set()

    def _check_alive(self) -> None:
        for name in ("controller", "runner"):
            process = getattr(self.house, name)
            if process is None or process.poll() is not None:
                raise SystemExit(f"the {name} died, and not by us\n{self.house.tails()}")

    def _look(self, now: float) -> None:
        for name, samples in self.samples.items():
            samples.append(look(getattr(self.house, name).pid, now))

    def _say(self, now: float) -> None:
        held = {n: (s[-1].memory, s[-1].descriptors) for n, s in self.samples.items() if s}
        faults = sum(self.trouble.counted.values())
        line = f"{now:6.0f} s  {sum(self.merges.values())} merges  {faults} troubles  {held}"
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - a program
        if twice := doubled(self.house.ground.world):
            raise SystemExit(f"created twice: {twice}")

    # --- the end

    def _take_back(self) -> None:
        """No more faults; what is broken is mended, what was meddled with is looked at."""
        self.trouble.undo(everything=True)
        mended = self.fleet.mend(set(), everything=True)
        if mended:
            self.house.ground.merge(mended, "The last mend")
        self._until_admin("resume", "all")

    def _converge(self) -> None:
        self.house.synced(patience=self.plan.patience)
        if absent := self.fleet.remove({w.unit for w in self.fleet.wishes}):
            self.house.ground.merge(absent, "The last removal")
            self.house.synced(patience=self.plan.patience)
        meddled = {path for path, _ in self.trouble.meddled}
        for wish in self.fleet.wishes:
            if wish.path in meddled:
                self._until_admin("reconcile", wish.unit)
        self.house.until(
            lambda: not any(wrong_objects(self.house.ground, self.fleet.wishes)),
            "drift is put back",
            self.plan.patience,
        )
        self.house.synced(patience=self.plan.patience)
        self.house.until(self._idle, "no job runs any more", 120)

    def _idle(self) -> bool:
        """Whether the service itself is all that lives."""
        return {*leftovers(self.house.ground)} <= {"still locked: service.lock"}

    def _until_admin(self, action: str, scope: str) -> None:
        def done() -> bool:
            try:
                self.trouble.admin(action, scope)
            except PassError as error:
                return "paus" in str(error) and action == "resume"  # nothing is paused
            return True

        self.house.until(done, f"{action} {scope}")

    # --- what was found out

    def _tracebacks(self) -> list[str]:
        logs = sorted(self.house.ground.logs.glob("*.log"))
        return [
            f"{log.name}: a traceback" for log in logs if "Traceback (most recent" in log.read_text(errors="replace")
        ]

    def _report(self) -> Json:
        begin, end = WARM * self.plan.seconds, self.plan.seconds
        found = {name: growth(samples, begin, end) for name, samples in self.samples.items()}
        events = self.house.get("/api/v1/history?limit=1")["events"]
        return {
            "seed": self.plan.seed,
            "seconds": round(self._elapsed),
            "units": len(self.fleet.wishes),
            "merges": dict(self.merges),
            "troubles": dict(self.trouble.counted),
            "events": events[0]["seq"] if events else 0,
            "measured_seconds": round(end - begin),
            "held": found,
            "grown": {n: round(w["after"]["memory"] / w["before"]["memory"] - 1, 4) for n, w in found.items()},
        }


def failures(report: Json) -> list[str]:
    """What does not hold."""
    found = list(report["wrong"])
    for name, window in report["held"].items():
        before, after = window["before"], window["after"]
        if after["memory"] > GROWTH * before["memory"]:
            found.append(f"the {name} grew from {before['memory']} to {after['memory']} KiB")
        found += [
            f"the {name} has more {w}: {before[w]}, {after[w]}"
            for w, more in MORE.items()
            if after[w] > before[w] + more
        ]
    return found


def run(plan: Plan, folder: Path) -> Json:
    """Play it in an empty folder, and return the report."""
    rng = random.Random(plan.seed)  # noqa: S311 - a story, not a secret
    fleet = Fleet(random.Random(rng.random()), plan.units)  # noqa: S311 - as above
    settings = f"class: protected\ndrift_interval: {plan.drift}\n"
    entries = {**fleet.first(), **{f"environments/{name}/environment.yaml": settings for name in ENVIRONMENTS}}
    ground = Playground.create(folder, entries, RELEASES, controller=CONTROLLER, runner=_excused())
    house = House(ground)
    try:
        return Soak(plan, house, fleet, Trouble(house, fleet, random.Random(rng.random())), rng).play()  # noqa: S311
    finally:
        for name in ("controller", "runner"):
            house.kill(name)
        ground.close()


CONTROLLER: Json = {"environments_repo": {"poll_interval": "2s"}, "executor": {"local": {"workers": 2}}}


def _excused() -> Json:
    """The audit of modules lets the notes pass, in every version."""
    versions = [tag.removeprefix("v") for tag in RELEASES]
    rules = [excused("note", version=version)["catalog_repos"]["acme"]["exceptions"][0] for version in versions]
    return {"catalog_repos": {"acme": {"exceptions": rules}}}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.play")
    parser.add_argument("--seconds", type=float, default=7200.0)
    parser.add_argument("--units", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--merge", type=float, default=5.0, help="seconds between two merges")
    parser.add_argument("--trouble", type=float, default=4.0, help="seconds between two troubles")
    parser.add_argument("--drift", default="10m", help="how often each unit is looked at")
    parser.add_argument("--report", type=Path, help="where the report goes, besides stdout")
    told = parser.parse_args()
    os.nice(5)  # whoever works on this machine comes first
    plan = Plan(told.seconds, told.units, told.seed, told.merge, told.trouble, told.drift, 1800)
    print(f"soak: seed {plan.seed}", file=sys.stderr, flush=True)  # noqa: T201 - a program
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        report = run(plan, Path(folder) / "house")
    failed = failures(report)
    text = json.dumps(report | {"failed": failed})
    if told.report:
        told.report.write_text(text + "\n", encoding="utf-8")
    print(text)  # noqa: T201 - a program
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
