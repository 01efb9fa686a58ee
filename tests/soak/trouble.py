"""What goes wrong while people work: each trouble begins, and most end by themselves a while later."""

from __future__ import annotations

import heapq
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from reconciler import wire
from reconciler.errors import PassError
from tests.kit.house import House
from tests.kit.proof import processes_in, state_of
from tests.soak.fleet import ENVIRONMENTS, Fleet

Undo = Callable[[], None]
HOLDING = 5.0  # seconds that anything lasts at the most
PACE = 0.1  # seconds between two looks at whether they have
ENDS = 600.0  # seconds for both planes to end in order: dozens of applies end first


class Trouble:
    """Draws troubles by a seed, does them to a house, and takes back what is due."""

    def __init__(self, house: House, fleet: Fleet, rng: random.Random) -> None:
        self._house, self._fleet, self._rng = house, fleet, rng
        self._due: list[tuple[float, int, Undo]] = []
        self._order = count()
        self.counted: Counter[str] = Counter()
        self.deleted: Counter[str] = Counter()  # objects that somebody took away, by path
        self.meddled: set[tuple[str, str]] = set()  # objects, with the text that they had
        self.stopped: set[str] = set()

    # --- when

    def cause(self, settled: set[str], *, planes: bool) -> str | None:
        """One trouble; its name. `planes`: these may be killed and restarted too."""
        steps = [(20, self.meddle), (14, self.kill_job), (10, self.kill_engine), (8, self.freeze_plane)]
        steps += [(8, self.freeze_job), (10, self.git_away), (8, self.pause)]
        steps += [(10, self.kill_planes), (5, self.restart)] if planes else []
        (step,) = self._rng.choices([step for _, step in steps], [weight for weight, _ in steps])
        if not step(settled):
            return None
        self.counted[step.__name__] += 1
        return step.__name__

    def undo(self, *, everything: bool = False) -> None:
        """Take back what is due."""
        while self._due and (everything or self._due[0][0] <= time.monotonic()):
            heapq.heappop(self._due)[2]()

    def _later(self, undo: Undo) -> None:
        heapq.heappush(self._due, (time.monotonic() + self._rng.uniform(0.2, HOLDING), next(self._order), undo))

    # --- what

    def meddle(self, settled: set[str]) -> bool:
        """Somebody changes or removes an object by hand; the same one twice would be a `PerpetualDiff`."""
        wish = self._fleet.pick(
            lambda w: w.kind == "object" and w.unit in settled and (w.path, w.text) not in self.meddled
        )
        if wish is None:
            return False
        self.meddled.add((wish.path, wish.text))
        path = self._house.ground.world / wish.path
        if self._rng.random() < 0.3:
            self.deleted[wish.path] += 1
            path.unlink(missing_ok=True)
        else:
            path.write_text(f"meddled {self._rng.random()}", encoding="utf-8")
        return True

    def kill_job(self, settled: set[str]) -> bool:
        jobs = self._jobs()
        return bool(jobs) and _signal(self._rng.choice(jobs), signal.SIGKILL)

    def kill_engine(self, settled: set[str]) -> bool:
        """Never one that may be creating something: what it made then, no state knows; that is another test's."""
        safe = [pid for pid in self._engines() if self._made_before(pid)]
        if not safe:
            return False
        with suppress(ProcessLookupError):
            os.killpg(self._rng.choice(safe), signal.SIGKILL)
        return True

    def freeze_job(self, settled: set[str]) -> bool:
        found = [*self._jobs(), *self._engines()]
        if not found:
            return False
        pid = self._rng.choice(found)

        def goes_on() -> None:
            _signal(pid, signal.SIGCONT)

        self._later(goes_on)
        return _signal(pid, signal.SIGSTOP)

    def freeze_plane(self, settled: set[str]) -> bool:
        name = self._rng.choice(("controller", "runner"))
        process = getattr(self._house, name)
        if name in self.stopped:
            return False
        process.send_signal(signal.SIGSTOP)
        self.stopped.add(name)

        def goes_on() -> None:
            process.send_signal(signal.SIGCONT)
            self.stopped.discard(name)

        self._later(goes_on)
        return True

    def git_away(self, settled: set[str]) -> bool:
        forge = self._rng.choice((self._house.ground.environments, self._house.ground.catalog))
        away = forge.folder.with_suffix(".away")
        if away.exists():
            return False
        forge.folder.rename(away)

        def is_back() -> None:
            away.rename(forge.folder)

        self._later(is_back)
        return True

    @property
    def merging(self) -> bool:
        """Whether the forge is there to merge anything."""
        return self._house.ground.environments.folder.exists()

    def pause(self, settled: set[str]) -> bool:
        """A pause that somebody ends, or that ends by itself."""
        if "controller" in self.stopped:
            return False
        wish = self._fleet.pick(lambda _: True)
        scope = self._rng.choice([*ENVIRONMENTS, *([wish.unit] if wish else [])])
        until = datetime.now(UTC) + timedelta(seconds=HOLDING * 2)
        self.admin("pause", scope, reason="soak", until=until.isoformat())

        def resume() -> None:
            controller = self._house.controller
            if "controller" in self.stopped or controller is None or controller.poll() is not None:
                return
            try:
                self.admin("resume", scope)
            except PassError as error:
                if error.reason == "RunnerUnavailable":  # it is just ending
                    return
                if "is not paused" not in str(error):  # it ended by itself, where a restart took that long
                    raise

        if self._rng.random() < 0.5:
            self._later(resume)
        return True

    def kill_planes(self, settled: set[str]) -> bool:
        if self.stopped:
            return False
        for name in self._rng.choice((("controller",), ("runner",), ("controller", "runner"))):
            self._house.kill(name)
        self._house.start()
        return True

    def restart(self, settled: set[str]) -> bool:
        """Both end in order, as for an upgrade. What is frozen, or away, comes back meanwhile: they wait for their applies."""
        if self.stopped:
            return False
        planes = [plane for plane in (self._house.controller, self._house.runner) if plane is not None]
        for plane in planes:
            plane.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + ENDS
        while any(plane.poll() is None for plane in planes) and time.monotonic() < deadline:
            self.undo()
            time.sleep(PACE)
        self._house.stop()
        self._house.start()
        return True

    def admin(self, action: str, scope: str, **more: str) -> None:
        """Ask as somebody with a shell does."""
        wire.ask(self._house.ground.runtime / "admin.sock", {"action": action, "scope": scope, **more}, timeout=60)

    # --- whom

    @property
    def _spool(self) -> Path:
        return self._house.ground.folder / "runner" / "spool"

    def _jobs(self) -> list[int]:
        assert self._house.runner is not None
        pid = self._house.runner.pid
        with suppress(OSError):
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def _engines(self) -> list[int]:
        """The leaders of groups: an engine leads its own."""
        found = []
        for pid in processes_in(self._spool):
            with suppress(ProcessLookupError):
                if os.getpgid(pid) == pid:
                    found.append(pid)
        return found

    def _made_before(self, pid: int) -> bool:
        """Whether all that the engine's unit ever creates is in a state."""
        try:
            folder = Path(f"/proc/{pid}/cwd").readlink().relative_to(self._spool).parts[0]
            unit = wire.unpack((self._spool / folder / "job.json").read_bytes())["unit"]
            return bool(state_of(self._house.ground.state(str(unit)))["resources"])
        except (OSError, ValueError, KeyError):
            return False


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
