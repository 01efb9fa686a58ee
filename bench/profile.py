"""`python -m bench.profile job docs/profile-job.svg`: where the CPU of a first deploy goes, from the fork of its job to the job's end.

Its own Python is sampled; the engine's and git's processes are a box each. What the sampler itself takes is left out.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.flame import Sampler, Stack, write_svg
from bench.job import World, world
from reconciler.git.command import Git
from reconciler.model import Job, Result
from reconciler.runner.forked import fork
from reconciler.runner.job import run_job
from reconciler.runner.terraform import engine
from reconciler.runner.terraform.process import Command

Spent = dict[Stack, float]


def main() -> int:
    """Profile, and write the graph."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("what", choices=("job",))
    parser.add_argument("svg", type=Path)
    parser.add_argument("--units", type=int, default=1_000)
    parser.add_argument("--jobs", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="profile-", ignore_cleanup_errors=True) as folder:
        spent = of_jobs(Path(folder), options.units, options.jobs)
    whole = sum(spent.values())
    title = f"One job of a first deploy: {whole:.0f} ms of CPU; the mean of {options.jobs}, in a repository of {options.units:,} units"
    write_svg(options.svg, title, spent, "ms")
    for name, share in sorted(_top(spent).items(), key=lambda pair: -pair[1]):
        sys.stdout.write(f"{share:7.1f} ms  {name}\n")
    return 0


def of_jobs(folder: Path, units: int, jobs: int) -> Spent:
    """Milliseconds of CPU for one job, by where they went."""
    total: Spent = {}
    with world(folder, units, jobs) as place:
        for job in place.leaves:
            for stack, seconds in _of_one(place, job).items():
                total[stack] = total.get(stack, 0.0) + 1000 * seconds / jobs
    return total


def _of_one(place: World, job: Job) -> Spent:
    ours, theirs = os.pipe()
    used = time.process_time()
    folder = place.host.spool.job(job.id)
    lock = folder.create(job)
    assert lock is not None
    place.host.warm(job.unit)
    readied = time.process_time()
    pid = fork(partial(_carry_out, partial(run_job, place.host, job, folder, lock), theirs))
    forked = time.process_time()
    lock.release()
    os.close(theirs)
    with os.fdopen(ours, "rb") as said:
        inside: Spent = pickle.load(said)  # noqa: S301 - our own child's
    _, status, whole = os.wait4(pid, 0)
    assert status == 0
    result = folder.state()
    assert isinstance(result, Result), result
    rest = whole.ru_utime + whole.ru_stime - sum(inside.values())
    found: Spent = {("the service", "readying it"): readied - used, ("the service", "fork"): forked - readied}
    return found | inside | {("its process", "begin and end"): max(0.0, rest)}


def _carry_out(work: Callable[[], None], told: int) -> None:
    """In the job's process: do it, and tell what it took."""
    with _children() as children, Sampler() as sampler:
        work()
    own = {("its process", *_from_the_job(stack)): seconds for stack, seconds in sampler.stacks.items()}
    with os.fdopen(told, "wb") as out:
        pickle.dump(own | children, out)


def _from_the_job(stack: Stack) -> Stack:
    """Without what is below the job's own function."""
    names = [name.rpartition(".")[2] for name in stack]
    return stack[names.index("run_job") + 1 :] if "run_job" in names else stack


@contextmanager
def _children() -> Iterator[Spent]:
    """CPU of the engine's and of git's processes, by command."""
    found: Spent = {}

    def ended(name: str, before: float) -> None:
        stack = (name.partition(" ")[0], name)
        found[stack] = found.get(stack, 0.0) + _waited_for() - before

    class Counted(Command):
        """A command of the engine's."""

        def __init__(self, argv: Any, *arguments: Any, **options: Any) -> None:
            self._name, self._before = f"terraform {argv[1]}", _waited_for()
            super().__init__(argv, *arguments, **options)

        def wait(self, *arguments: Any) -> Any:
            """See `Command`."""
            try:
                return super().wait(*arguments)
            finally:
                ended(self._name, self._before)

    ask = Git.ask

    def counted(git: Git, command: str, *arguments: Any, **options: Any) -> Any:
        before = _waited_for()
        try:
            return ask(git, command, *arguments, **options)
        finally:
            ended(f"git {command}", before)

    engine.Command, Git.ask = Counted, counted  # type: ignore[attr-defined,assignment,method-assign] # only a stopwatch may
    yield found


def _waited_for() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _top(spent: Spent) -> Spent:
    found: Spent = {}
    for stack, share in spent.items():
        name = (" / ".join(stack[:2]),)
        found[name] = found.get(name, 0.0) + share
    return {name: share for name, share in found.items() if share >= 0.1}


if __name__ == "__main__":
    sys.exit(main())
