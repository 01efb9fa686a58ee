"""How often a job on Fargate asks S3: `python -m bench.s3`, counted by a server that answers as S3 does.

A look that finds nothing, an apply, and what each second of a long one takes, of the spool and of the runner's memory.
docs/operations.md and docs/capacity.md have its numbers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.kit.aws import serving
from tests.kit.counted import Asked, billed, counting
from tests.kit.ecs import KEYS, MEMORY_BUCKET, SPOOL_BUCKET
from tests.kit.fargatehouse import FargateHouse, fargate_house
from tests.kit.modules import CATALOG, entry, environment
from tests.kit.story import ask, at, env, made, results

LONG = 60.0  # seconds of an apply that are counted
PATIENCE = 300.0


def main() -> None:
    """Play the jobs, and print what each asked for."""
    os.environ |= KEYS
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name, serving() as aws:
        aws.reset()
        with counting() as asked, fargate_house(Path(name) / "h", aws, _entries("one"), CATALOG, shared=True) as home:
            (home.ground.world / "go").touch()
            home.start()
            home.synced(patience=PATIENCE)
            _play(home, asked)


def _entries(content: str) -> dict[str, str]:
    return {
        env("prod"): environment(),
        at("prod/app"): entry("file", {"path": "app", "content": content}),
        at("prod/long"): entry("slow", {"path": "long", "content": "one"}),
    }


def _play(home: FargateHouse, asked: list[Asked]) -> None:
    _told("a look that finds nothing", _job(home, asked, "prod/app", lambda: ask(home, "reconcile", "prod/app")))
    _told("an apply", _job(home, asked, "prod/app", lambda: home.ground.merge(_entries("two"))))
    first = len(asked)
    time.sleep(LONG)
    _told("a controller without a job, a minute", asked[first:])
    (home.ground.world / "go").unlink()
    home.agent.holds = True
    home.ground.merge({at("prod/long"): entry("slow", {"path": "long", "content": "two"})})
    home.until(lambda: home.cloud.tasks[-1].last_status == "PROVISIONING", "its task is asked for", PATIENCE)
    first = len(asked)
    time.sleep(LONG)
    _told("a minute of a task that starts", asked[first:])
    home.agent.holds = False
    home.until(lambda: made(home, "update", "waiting"), "the long one applies", PATIENCE)
    first = len(asked)
    time.sleep(LONG)
    _told("a minute of an apply", asked[first:])
    (home.ground.world / "go").touch()
    home.synced(patience=PATIENCE)


def _job(home: FargateHouse, asked: list[Asked], unit: str, begin: Callable[[], object]) -> Sequence[Asked]:
    """What is asked for from then on until the unit's next job has ended, and its task."""
    before, first = len(results(home, unit)), len(asked)
    began = time.monotonic()
    begin()
    home.until(lambda: len(results(home, unit)) > before, f"a job of {unit} ends", PATIENCE)
    home.until(lambda: not home.agent.running, "its task ends", PATIENCE)
    sys.stderr.write(f"{time.monotonic() - began:.1f} s\n")
    return asked[first:]


def _told(what: str, asked: Sequence[Asked]) -> None:
    of = {"memory": MEMORY_BUCKET, "spool": SPOOL_BUCKET}
    found = {name: billed([one for one in asked if one.bucket == bucket]) for name, bucket in of.items()}
    sys.stdout.write(f"{json.dumps({what: found})}\n")
    for (bucket, verb, name), times in sorted(Counter(map(_kind, asked)).items()):
        sys.stderr.write(f"    {times:4} {verb:6} {bucket}/{name}\n")


def _kind(one: Asked) -> tuple[str, str, str]:
    """What it was for, whatever job, unit or part it was."""
    parts = one.key.removeprefix("prod/").split("/")
    name = "log/*" if "log" in parts else parts[-1] if parts[0] == "jobs" else "/".join(parts[:1])
    return one.bucket, one.verb, name


if __name__ == "__main__":
    main()
