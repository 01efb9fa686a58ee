"""Room on the host's disks: looked at before a job plans and again before it applies, since a disk that fills meanwhile costs states."""

from __future__ import annotations

import os
from pathlib import Path

from reconciler.errors import UnitError
from reconciler.runner.host import Host, Hosted
from reconciler.runner.spool import JobFolder
from reconciler.runner.terraform.state import State

TIMES = 4  # the state: the engine's copy, the one before, the kept one, and what the engine prints at worst


def enough(host: Host, hosted: Hosted, folder: JobFolder, state: State | None) -> None:
    """Go on only where there is room for all that the job may write.

    Raises:
        UnitError: "DiskFull": there is less.
    """
    least = host.config.least_room * 2**20 + TIMES * (len(state.raw) if state else 0)
    states = host.config.environments[hosted.name].backend.local
    for what, place in (
        ("the jobs' workspaces", folder.path),
        ("the runner's memory", host.memory.folder),
        *((("the states", _existing(states.path)),) if states else ()),
    ):
        found = os.statvfs(place)
        free = found.f_bavail * found.f_frsize
        if free < least:
            short = f"{place} ({what}) has {free >> 20:,} MiB left, and a job of this unit needs {-(-least >> 20):,}"
            how = "Make room there: old job folders whose logs nobody needs, other programs' files; or lower `least_room` in runner.yaml"
            raise UnitError(
                "DiskFull", f"Nothing was begun: {short}. {how}. It is tried again by itself.", transient=True
            )


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())
