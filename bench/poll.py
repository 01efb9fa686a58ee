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


def rows(folder: Path, rounds: int) -> Iterator[Row]:
    """Over https, in turns."""
    here = folder / "poll"
    here.mkdir()
    forge = Forge.create(here / "environments.git")
    forge.commit({"environments/prod/environment.yaml": "class: protected\n"}, "First")
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

        source.poll()
        look()
        rounds_of = [(_spent(source.poll), _spent(look)) for _ in range(rounds)]
    for number, what in enumerate(
        ("a poll without change / git ls-remote --heads", "  CPU of that, with the server's git")
    ):
        pairs = [(1000 * ours[number], 1000 * theirs[number]) for ours, theirs in rounds_of]
        yield compared(what, "" if number else "<= 1.10", pairs, "ms", most=None if number else 1.10)


def _git_processes() -> float:
    """CPU seconds of every process that has been waited for, the server's git among them: the same for both sides."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and CPU seconds of this thread and of git."""
    before, used = _git_processes(), time.thread_time()
    seconds = wall(work)
    return seconds, _git_processes() - before + time.thread_time() - used
