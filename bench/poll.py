"""A poll that finds nothing new, beside the least that git can do to find that out."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.row import Row, compared, wall
from bench.sample import AcceptedInMemory
from reconciler.demo.forge import Forge
from reconciler.git.remote import Remote
from reconciler.git.source import EnvironmentsSource
from tests.kit.gitserver import HttpsServer, running

MORE_REFS = 20_000


def rows(folder: Path, rounds: int) -> Iterator[Row]:
    """Over https, in turns: of a repository with one branch, and of one that has a ref for each of many pull requests, too."""
    for more, most in ((0, 1.10), (MORE_REFS, 1.15)):
        here = folder / f"poll-{more}"
        here.mkdir()
        of, goal = f", {more:,} more refs" if more else "", f"<= {most:.2f}"
        looks, spent = _measured(here, more, rounds)
        yield compared(f"a poll without change{of} / git ls-remote --heads", goal, looks, "ms", most=most)
        yield compared("  CPU of that, with the server's git", goal, spent, "ms", most=most)


Pair = tuple[float, float]
Pairs = list[Pair]


def _measured(here: Path, more: int, rounds: int) -> tuple[Pairs, Pairs]:
    """Ours and git's: milliseconds of the clock, and of the CPU."""
    forge = Forge.create(here / "environments.git")
    forge.commit({"environments/prod/environment.yaml": "class: protected\n"}, "First")
    _ask_for_pulls(forge, more)
    server = HttpsServer(here / "server", here)
    with running(server):
        url = server.url(forge.folder)
        remote = Remote(url, ca_file=str(server.ca_file))
        source = EnvironmentsSource(
            remote, "main", here / "mirror", AcceptedInMemory(), genesis=None, genesis_required=False
        )
        # With the same settings: without them git reads the system's certificates, and that takes longer than all else.
        asked = source.git._argv("ls-remote", ("--heads",), (url, "refs/heads/main"), ())  # noqa: SLF001
        env = source.git.environment()

        def look() -> None:
            subprocess.run(asked, env=env, cwd="/", check=True, capture_output=True)

        source.accept(source.poll())
        source.poll()  # the date of the head is read once
        look()
        rounds_of = [_in_turns(source.poll, look, number) for number in range(rounds)]
    clock, cpu = ([(1000 * ours[n], 1000 * theirs[n]) for ours, theirs in rounds_of] for n in (0, 1))
    return clock, cpu


def _ask_for_pulls(forge: Forge, count: int) -> None:
    """A packed ref for each of so many pull requests, as forges show them."""
    if count:
        refs = "".join(f"{forge.head} refs/pull/{number:06d}/head\n" for number in range(count))
        packed = forge.folder / "packed-refs"
        packed.write_text(f"# pack-refs with: peeled fully-peeled sorted \n{refs}", encoding="ascii")


def _in_turns(ours: Callable[[], object], theirs: Callable[[], object], number: int) -> tuple[Pair, Pair]:
    """Whoever goes second may find the machine warmer: they change places each time."""
    if number % 2:
        second = _spent(theirs)
        return _spent(ours), second
    return _spent(ours), _spent(theirs)


def _git_processes() -> float:
    """CPU seconds of every process that has been waited for, the server's git among them: the same for both sides."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _spent(work: Callable[[], object]) -> Pair:
    """Seconds, and CPU seconds of this thread and of git."""
    before, used = _git_processes(), time.thread_time()
    seconds = wall(work)
    return seconds, _git_processes() - before + time.thread_time() - used
