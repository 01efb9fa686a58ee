"""A daemon that has nothing to do, polled again and again; says what that costs. `python -m tests.kit.idle CONFIG WARM POLLS`.

A process of its own, so that its memory is its own. Each poll is asked for as a push to a repository of this host asks
for it, each is followed by a pass of the loop, and now and then somebody scrapes the metrics.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from reconciler import __version__
from reconciler.config import load_controller
from reconciler.controller.daemon import Daemon
from reconciler.controller.poller import REPOSITORY
from reconciler.logs import open_log
from reconciler.observe import Observer

SCRAPE_EVERY = 20  # polls
WINDOW = 200  # polls at either end in which memory is looked at
PATIENCE = 60.0  # seconds for one poll
LIBC = ctypes.CDLL(None)


class Counting(Observer):
    """An observer that lets one wait for a poll, and for a pass."""

    def __init__(self) -> None:
        super().__init__(__version__, open_log(as_json=True), lambda: datetime.now(UTC), (REPOSITORY,))
        self.poll_ended, self.pass_ended = threading.Event(), threading.Event()

    def polled(self, repository: str, ok: bool, seconds: float, message: str = "") -> None:
        super().polled(repository, ok, seconds, message)
        assert ok, message
        self.poll_ended.set()

    def beat(self) -> None:
        super().beat()
        self.pass_ended.set()


def measure() -> dict[str, int]:
    """Memory of its own in KiB, open descriptors and threads, when nothing is going on.

    Its own: pages of files come and go with what the machine's other processes need, and one swapped out is still held.
    What the allocator has free is handed back first: how much it keeps for later depends on what happened to be at the
    end of its heaps, and says nothing of what the daemon keeps.
    """
    gc.collect()
    LIBC.malloc_trim(0)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "memory": sum(int(status[name].split()[0]) for name in ("RssAnon", "VmSwap")),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
    }


def until(event: threading.Event, ask: Callable[[], None]) -> None:
    """Ask for it until it happens: the very first time nobody may listen yet."""
    for _ in range(int(PATIENCE)):
        ask()
        if event.wait(1.0):
            return
    raise TimeoutError("the daemon does not do what it is asked to")


def push(ref: Path) -> None:
    """Put the branch where it is, as a push does it."""
    lock = ref.with_name(f"{ref.name}.lock")
    lock.write_bytes(ref.read_bytes())
    lock.replace(ref)


def drive(daemon: Daemon, observer: Counting, ref: Path, address: str, polls: int) -> dict[str, int]:
    """Poll and pass so many times, and measure now and then; of each number it is the least that counts.

    What a scrape or a pass needs for a moment comes and goes (pieces of megabytes, a connection and its thread), and is
    no leak: what leaks is there in the least as well.
    """
    found: list[dict[str, int]] = []
    for number in range(polls):
        observer.poll_ended.clear()
        until(observer.poll_ended, lambda: push(ref))
        observer.pass_ended.clear()
        until(observer.pass_ended, daemon.wake)
        if number % SCRAPE_EVERY == 0:
            # A client of the kind that loads authorities each time would show as megabytes that come and go.
            with urlopen(f"{address}/metrics", timeout=PATIENCE) as answer:  # noqa: S310
                answer.read()
        if number % SCRAPE_EVERY == SCRAPE_EVERY // 2:  # the server may hold what was scraped for a moment longer
            found.append(measure())
    return {name: min(one[name] for one in found) for name in found[0]}


def main() -> None:
    path, warm, polls = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    config = load_controller(path)
    observer = Counting()
    daemon = Daemon(config, path, observer)
    ref = Path(urlsplit(config.environments_repo.url).path) / "refs/heads" / config.environments_repo.branch
    where: list[tuple[str, int]] = []
    failed: list[BaseException] = []

    def play() -> None:
        try:
            address = "http://{}:{}".format(*where[0])
            drive(daemon, observer, ref, address, warm)
            journaled = daemon.store.verify()
            before = drive(daemon, observer, ref, address, WINDOW)
            drive(daemon, observer, ref, address, polls - 2 * WINDOW)
            after = drive(daemon, observer, ref, address, WINDOW)
            found = {"before": before, "after": after, "written": daemon.store.verify() - journaled}
            sys.stdout.write(json.dumps(found))
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            daemon.stop()

    player = threading.Thread(target=play, name="player")

    def ready(address: tuple[str, int]) -> None:
        where.append(address)
        player.start()

    daemon.run(ready)
    player.join()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
