"""A house whose processes die, or fail, where they are told to, while changes are merged; and what must hold after each."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from reconciler import wire
from reconciler.demo import playground
from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground
from reconciler.errors import PassError
from tests.crash.launcher import EVERY, Order
from tests.crash.points import Point
from tests.kit.forks import ForkServer, Plane
from tests.kit.house import ASKING, House, Json
from tests.kit.modules import excused
from tests.kit.proof import leftovers, wrongs
from tests.kit.wishes import CATALOG, Wish, files_of, wrong_objects, wrong_outputs, wrong_world
from tests.provider.log import doubled

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = "prod"
SETTINGS: Files = {f"environments/{ENVIRONMENT}/environment.yaml": "class: protected\ndrift_interval: 24h\n"}
CONTROLLER = {"environments_repo": {"poll_interval": "5s"}}
BESIDES: tuple[tuple[str, ...], ...] = ((), (), ("controller",), ("runner",), ("controller", "runner"))
TRIES = 4  # changes that a point may take to be reached
CONVERGES = 180.0  # seconds
PACE = 0.04  # seconds between two looks at what costs next to nothing to look at
ASK_EVERY = 0.25  # seconds between two questions
ORDERS = "orders.json"
LASTS = 1.0  # seconds that a lasting fault lasts
NOTHING = ("nobody", "nothing")  # an order that nobody carries out


class Cast:
    """The units of the house, and the small changes that are made to them, drawn by a seed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._born = 0
        self.net = Wish(ENVIRONMENT, "net", "object", "net", "net 0")
        self.up = Wish(ENVIRONMENT, "up", "note", "up", "up 0")
        self.down = Wish(ENVIRONMENT, "down", "note", "down", "down 0", reads=self.up)
        self.side = Wish(ENVIRONMENT, "side", "note", "side", "side 0")
        self.extra: list[Wish] = []
        self.gone: list[Wish] = []
        self.lost: Counter[str] = Counter()  # objects that an admin removed, by path

    @property
    def wishes(self) -> list[Wish]:
        return [self.net, self.up, self.down, self.side, *self.extra]

    def make(self, kind: str) -> Files:
        """A change of this kind; what was destroyed before loses its file with it."""
        files: dict[str, str | bytes | None] = {}
        for wish in [w for w in self.extra if w.absent]:
            files[wish.file] = None
            self.extra.remove(wish)
            self.gone.append(wish)
        return {**files, **getattr(self, f"_{kind}")()}

    def _change(self) -> Files:
        return self._say(self.side)

    def _anew(self) -> Files:
        """Where nothing is kept of any `init`: see `FallingHouse._play`."""
        return self._change()

    def _upstream(self) -> Files:
        return self._say(self.up)

    def _object(self) -> Files:
        return self._say(self.net)

    def _say(self, wish: Wish) -> Files:
        wish.text = f"{wish.path} {self.rng.getrandbits(40):x}"
        return files_of([wish])

    def _create(self) -> Files:
        return self._bear("note")

    def _birth(self) -> Files:
        return self._bear("object")

    def _bear(self, kind: str) -> Files:
        self._born += 1
        made = Wish(ENVIRONMENT, f"u{self._born}", kind, f"o{self._born}", f"text {self._born}")
        self.extra.append(made)
        return files_of([made])

    def _destroy(self) -> Files:
        """One that was created before; where there is none, it is created first."""
        if not self.extra:
            return self._create()
        self.extra[0].absent, self.extra[0].moved_from = True, None
        return files_of(self.extra[:1])

    def _rename(self) -> Files:
        self._born += 1
        before, self.side.moved_from, self.side.name = self.side.file, self.side.name, f"side{self._born}"
        return {before: None, **files_of([self.side])}


@dataclass(frozen=True, slots=True)
class Fallen:
    """One fall: where, in the midst of which change, who was killed besides, which planes died, and how long all of it took."""

    point: str
    kind: str
    nth: int
    how: str
    besides: tuple[str, ...]
    tries: int
    deaths: dict[str, int]
    seconds: float


class FallingHouse(House):
    """A house in which processes fall one after the other, and whatever is dead is started again."""

    server: ForkServer
    cast: Cast
    rng: random.Random
    number: int
    deaths: Counter[str]

    @property
    def orders(self) -> Path:
        return self.ground.folder / ORDERS

    def clock(self, name: str) -> Path:
        """By how much the clock of a plane is wrong; where there is no such file at its start, it is the host's."""
        return self.ground.folder / f"clock.{name}"

    def _spawn(self, name: str, *words: str) -> Plane:
        told = {"role": name, "orders": str(self.orders), "clock": str(self.clock(name))}
        return self.server.start(
            words, self.ground.logs / f"{name}.log", first="tests.crash.launcher:prepare", told=told
        )

    def begin(self) -> None:
        """The first deploy, in which nobody falls."""
        self.start()
        self.synced()

    # --- one fall

    def fall(self, point: Point, how: str = "die") -> Fallen:
        """Let a process fall at the point during a change that gets there; return when everything is well again.

        `how`: see `Order`. What fails by an error fails once, or for a second, by the seed.
        """
        began = time.monotonic()
        for tries in range(TRIES):
            kind = self.rng.choice(point.kinds)
            nth = 1 + self.rng.randrange(point.times) if tries == 0 else 1
            besides = self.rng.choice(BESIDES) if how == "die" else ()
            order = self._order(point.role, point.name, nth, how, lasting=how != "die" and self.rng.random() < 0.5)
            self._play(kind, order, besides)
            if order.carried_out(self.orders).exists():
                self._order(*NOTHING)
                self.verify_soon()
                if how != "die":
                    self.until(lambda: self.tells(order), f"somebody tells of {order}")  # noqa: B023 - called at once
                return Fallen(str(point), kind, nth, how, besides, tries, dict(self.deaths), time.monotonic() - began)
        pytest.fail(f"{point} was not reached by {TRIES} changes ({', '.join(point.kinds)})")

    def fault(self, point: Point, how: str) -> Fallen:
        """The same with an error instead of a death; `disk` is one of a disk's."""
        return self.fall(point, self.rng.choice(("ENOSPC", "EIO")) if how == "disk" else how)

    def _play(self, kind: str, order: Order, besides: tuple[str, ...]) -> None:
        """Merge the change, do what follows from the order, and wait until all is well."""
        self.deaths.clear()
        if kind == "anew":
            for kept in (self.ground.folder / "runner" / "initialized").glob("*.json"):
                kept.unlink()
        commit = self.ground.merge(self.cast.make(kind), kind)
        deadline, asks, lifts = time.monotonic() + CONVERGES, 0.0, None
        while (now := time.monotonic()) < deadline:
            if lifts is None and order.carried_out(self.orders).exists():
                lifts = now + LASTS
                self._kill(besides)
            elif lifts is not None and order.lasting and now >= lifts:
                self._order(*NOTHING)
            self.revive(order.carried_out(self.orders).exists)
            if now >= asks:
                asks = now + ASK_EVERY
                if self.in_order(commit):
                    return
                self._look_after_uncertain()
            time.sleep(PACE)  # a poll, not a wait: the deadline is the wait
        pytest.fail(f"{kind} did not converge in {CONVERGES} s after {order}, besides {besides}\n{self.tails()}")

    def _look_after_uncertain(self) -> None:
        """Do what a person does who is told `Uncertain`: look, delete what no state knows, and say so."""
        with suppress(httpx.HTTPError, KeyError, json.JSONDecodeError, PassError):
            # While a job of it works, the unit shows what held it before: whoever deletes then deletes what that job made.
            for unit in [u["unit"] for u in self.units() if (u["reason"], u["phase"]) == ("Uncertain", "Held")]:
                (wish,) = (w for w in self.cast.wishes if w.unit == unit)
                assert f"reconciler runner settle {unit} --reason" in self.unit(unit)["message"]
                thing = self.ground.world / wish.path
                if thing.exists():
                    thing.unlink()
                    self.cast.lost[wish.path] += 1
                config = ("--config", str(self.ground.runner_config))
                settled = self.command("runner", "settle", unit, "--reason", "looked, and deleted it", *config)
                # Refused while a job of the unit looks, or once none of it is suspected: then the next look here is another.
                if settled.returncode == 0:
                    wire.ask(self.ground.runtime / "admin.sock", {"action": "reconcile", "scope": unit})

    def _order(self, role: str, point: str, nth: int = 1, how: str = "die", *, lasting: bool = False) -> Order:
        self.number += 1
        order = Order(self.number, role, point, nth, how, lasting)
        order.write(self.orders)
        return order

    def _kill(self, names: tuple[str, ...]) -> None:
        for name in names:
            process: Plane = getattr(self, name)
            process.kill()
            process.wait(CONVERGES)

    def in_order(self, commit: str) -> bool:
        """Whether the commit is carried out, as far as the controller says."""
        with suppress(httpx.HTTPError, KeyError, json.JSONDecodeError):
            found = ASKING.get(f"{self.address}/api/v1/commits/{commit}").json()
            if found["accepted"] and not found["waiting"]:
                return all((u["sync"], u["health"]) == ("Synced", "Healthy") for u in self.units())
        return False

    def revive(self, fallen: Callable[[], bool]) -> None:
        """Start again what died; nothing may have died by itself, nor twice. `fallen` is asked after a death was seen."""
        for name, words in (
            ("runner", ("runner", "serve", "--config", str(self.ground.runner_config))),
            ("controller", ("run", "--config", str(self.ground.controller_config))),
        ):
            process: Plane | None = getattr(self, name)
            if process is not None and process.poll() is not None:
                self.deaths[name] += 1
                if not fallen() or self.deaths[name] > 2:
                    pytest.fail(f"the {name} died, and not by us\n{self.tails()}")
                setattr(self, name, self._spawn(name, *words))

    def tells(self, order: Order) -> bool:
        """Whether the error stands in a log, or in what became of a job or of a poll."""
        folder, word = self.ground.folder, order.word.encode()
        told = [*self.ground.logs.glob("*.log"), *(folder / "controller").glob("*.db*")]
        return any(word in path.read_bytes() for path in [*told, *(folder / "runner" / "spool").glob("*/result.json")])

    # --- counting

    def count(self, kind: str) -> Counter[str]:
        """How often a change of the kind gets to each point when nobody falls."""
        order = self._order("nobody", EVERY)
        self._play(kind, order, ())
        self._order(*NOTHING)
        return Counter(order.tally(self.orders).read_text(encoding="utf-8").splitlines())

    # --- what must hold

    def verify_soon(self) -> None:
        """After each fall: nothing was made twice, and everybody gives what is wanted."""
        wrong = [*(f"created twice: {path}" for path in doubled(self.ground.world))]
        wrong += [*wrong_outputs(self.ground, self.cast.wishes), *wrong_objects(self.ground, self.cast.wishes)]
        assert wrong == [], f"{wrong}\n{self.tails()}"

    def check(self) -> list[str]:
        """At the end: everything exists once, nobody lost or doubled a state, nothing is left behind."""
        self.until(lambda: {*leftovers(self.ground)} <= {"still locked: service.lock"}, "no job runs any more")
        self.stop()
        wishes = self.cast.wishes
        world = wrong_world(self.ground, wishes, self.cast.gone, self.cast.lost)
        return [*wrongs(self.ground, (w.unit for w in wishes if not w.absent)), *world]


def deadly(script: Path, orders: Path) -> dict[str, str]:
    """Variables of an environment in which the provider's processes, and its engine, look at the orders. Writes the script."""
    script.write_text(
        f'#!/bin/sh\nexec "{playground.INTERPRETER}" -B "{ROOT}/tests/crash/provider.py" "$@"\n', encoding="ascii"
    )
    script.chmod(0o755)
    return {"FILES_PYTHON": str(script), "ORDERS": str(orders)}


@contextmanager
def falling_house(folder: Path, server: ForkServer, rng: random.Random) -> Iterator[FallingHouse]:
    """A house in which nothing runs yet; at its end nothing runs any more."""
    people = Cast(rng)
    variables = deadly(folder.with_name(f"{folder.name}-python"), folder.resolve() / ORDERS)
    runner = {**excused("note"), "environments": {ENVIRONMENT: {"env": variables}}}
    with house_of(people, folder, server, CONTROLLER, runner) as house:
        yield house


@contextmanager
def house_of(
    people: Cast, folder: Path, server: ForkServer, controller: Json, runner: Json, settings: Files = SETTINGS
) -> Iterator[FallingHouse]:
    """The same, with other configurations."""
    entries = {**settings, **files_of(people.wishes)}
    ground = Playground.create(folder, entries, CATALOG, controller=controller, runner=runner)
    house = FallingHouse(ground)
    house.server, house.cast, house.rng, house.number, house.deaths = server, people, people.rng, 0, Counter()
    try:
        yield house
    finally:
        for name in ("controller", "runner"):
            house.kill(name)
        ground.close()
