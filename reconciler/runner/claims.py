"""Whose states these are: the claim that a runner leaves in each backend before it applies anything there.

A memory that is lost, or a second installation that was given the same backend by mistake, finds a claim that is not its
own, or states that it knows nothing of, and then nothing is applied in that environment until an admin has decided.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from reconciler import codec
from reconciler.durable import write_atomic
from reconciler.errors import HeldError, UnitError
from reconciler.model import Operation, UnitId
from reconciler.runner.host import Host, Hosted
from reconciler.runner.memory import UnitMemory

LOST = "MemoryLost"
LOOK_AGAIN = 3600.0  # seconds for which a claim that was read counts: an admin may have given the states to another


@dataclass(frozen=True, slots=True)
class Claim:
    """Who applies here: the installation, its memory (a name that follows from the memory's key), and since when."""

    installation: str
    memory: str
    at: datetime


def ensure(host: Host, hosted: Hosted) -> None:
    """Right before an apply: the states of the environment are this memory's, and the backend says so.

    The claim is written before the first apply. Killed in between, the next job finds its own claim.

    Raises:
        HeldError: "MemoryLost": they are not, or nobody can say.
        UnitError: "StateUnavailable": the backend does not answer.
    """
    stamp = host.memory.folder / "claims" / hosted.name
    with suppress(FileNotFoundError):
        if stamp.read_text() == host.run and 0 <= time.time() - stamp.stat().st_mtime < LOOK_AGAIN:
            return
    if held := lost(host, hosted):
        raise held
    if hosted.backend.claim(hosted.name) is None:
        hosted.backend.write_claim(hosted.name, _mine(host), anew=True)
        if held := lost(host, hosted):  # somebody else was faster
            raise held
    stamp.parent.mkdir(exist_ok=True, mode=0o700)
    write_atomic(stamp, host.run.encode(), durable=False)


def lost(host: Host, hosted: Hosted) -> HeldError | None:
    """Why the states cannot be this memory's. Writes nothing."""
    raw = hosted.backend.claim(hosted.name)
    if raw is None:
        return (
            None
            if _known(host, hosted)
            else _held(hosted, f"there are states of {hosted.name} that this memory never saw")
        )
    try:
        found = codec.decode(Claim, raw)
    except ValueError:
        return _held(hosted, f"the claim on the states of {hosted.name} cannot be read")
    if found.memory == host.memory.name:
        return None
    whose = (
        f"the installation {found.installation!r}"
        if found.installation != host.config.installation
        else "another memory"
    )
    return _held(hosted, f"the states of {hosted.name} belong to {whose} since {found.at:%Y-%m-%d %H:%M UTC}")


def claim(host: Host, environment: str) -> tuple[UnitId, ...]:
    """Make the environment's states this memory's, as an admin says whose old one is gone. May be repeated.

    Answers with the units whose states were taken over as they are; what was applied to each is planned afresh, and no allowance of
    before is open. Nothing happens where they are this memory's already.

    Raises:
        HeldError: the host does not list the environment.
        UnitError: a state cannot be read, or a job of its unit is running.
    """
    hosted = host.environment(environment, Operation.APPLY)
    if hosted.backend.claim(environment) is not None and lost(host, hosted) is None:
        return ()
    host.history.close(environment)
    taken = tuple(_take_over(host, hosted))
    hosted.backend.write_claim(environment, _mine(host), anew=False)
    return taken


def _take_over(host: Host, hosted: Hosted) -> Iterator[UnitId]:
    for unit in hosted.backend.units(hosted.name):
        with host.memory.unit_lock(unit):
            state, known = hosted.backend.read(unit), host.memory.unit(unit)
            if state is not None and known.mark is None and known.moved_to is None:
                host.memory.save(UnitMemory(unit, mark=state.mark))
                yield unit


def _known(host: Host, hosted: Hosted) -> bool:
    """Whether there are no states, or this memory left one of them there: an older version made no claims."""
    units = hosted.backend.units(hosted.name)
    return not units or any(_left(host, hosted, unit) for unit in units)


def _left(host: Host, hosted: Hosted, unit: UnitId) -> bool:
    mark = host.memory.unit(unit).mark
    with suppress(UnitError):
        state = hosted.backend.read(unit) if mark else None
        return state is not None and mark is not None and state.mark.lineage == mark.lineage
    return False


def _mine(host: Host) -> bytes:
    return codec.encode(Claim(host.config.installation, host.memory.name, datetime.now(UTC)))


def _held(hosted: Hosted, what: str) -> HeldError:
    remedy = (
        "Is it the right backend? Then bring this runner's memory back from its backup; if that is really gone, and no "
        f"other runner applies there, run `reconciler runner claim {hosted.name}` on its host"
    )
    return HeldError(LOST, f"Nothing is applied in {hosted.name}: {what}. {remedy}.")
