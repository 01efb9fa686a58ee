"""The lease on a store: whose it is, until when its holder may act, and from when on another may take over.

Nobody compares the clocks of two hosts. The holder counts its time from before it renewed, on a clock that goes on while
the host sleeps; whoever waits counts from after it saw the last renewal, on one that stands still then. So the one has
always stopped before the other begins, by `MARGIN` even where their clocks do not go equally fast.
"""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import PassError
from reconciler.ports import Term
from reconciler.store.migrations import MIGRATIONS, version_of

TTL = 15.0  # seconds
MARGIN = 0.2  # of the time to live; a holder has stopped so much before another may begin
STANDBY = "Standby"
LEASE_LOST = "LeaseLost"


class Steady:
    """Seconds that nobody sets: they only grow. Of two clocks, each side takes the one that errs on the safe side."""

    def holding(self) -> float:
        """For a holder: sleep of the host counts."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def waiting(self) -> float:
        """For whoever waits: sleep of the host does not count."""
        return time.monotonic()


def new_holder() -> str:
    """A name for this process that no other ever has, and that tells a person where it runs."""
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"


@dataclass(slots=True)
class Waiting:
    """What whoever waits has seen of the holder. A term that is renewed is another one each time."""

    seen: Term | None = None
    since: float = 0.0

    def is_over(self, term: Term, before: float, after: float) -> bool:
        """Whether the term was not renewed for its whole time to live. `before` and `after` reading it: the time."""
        if term != self.seen:
            self.seen, self.since = term, after
            return False
        return before - self.since >= term.ttl

    def lets(self, term: Term, before: float, after: float, *, free: bool) -> bool:
        """Whether one may take over from the term. `free`: the system's lock is free, so whoever held it is dead."""
        return term.free or (term.proof and free) or self.is_over(term, before, after)


def read(db: sqlite3.Connection) -> Term:
    """Who leads. The store is of this program's version."""
    holder, fence, ttl, beat, proof = db.execute("SELECT holder, fence, ttl, beat, proof FROM lease").fetchone()
    return Term(holder, fence, ttl, beat, bool(proof))


def write(db: sqlite3.Connection, term: Term) -> None:
    """Replace it: inside the transaction that read whose place it takes."""
    new = (term.holder, term.fence, term.ttl, term.beat, term.proof)
    db.execute("UPDATE lease SET holder = ?, fence = ?, ttl = ?, beat = ?, proof = ?", new)


def free(db: sqlite3.Connection) -> None:
    """Nobody leads a copy. Of an older version there is nothing to say."""
    if version_of(db) == len(MIGRATIONS):
        db.execute("UPDATE lease SET holder = ''")


def holds_without_proof(path: Path) -> bool:
    """Whether somebody may lead the store though its lock is free: one that took over from a stopped leader."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            term = read(db) if version_of(db) == len(MIGRATIONS) else None
    except sqlite3.Error:  # there is none, or none that anybody could lead
        return False
    return term is not None and not term.free and not term.proof


def standing_by(path: Path | str, term: Term | None) -> PassError:
    """This process may not write: somebody else leads, or may."""
    if term is None or term.free:
        return PassError(STANDBY, f"{path}: this daemon stands by, and nobody leads yet: it takes over by itself soon.")
    return PassError(
        STANDBY,
        f"{path}: this daemon stands by; {term.holder} (host/process/start) leads: ask the daemon there. This one takes over "
        f"by itself when that one ends, or has not been heard of for {term.ttl:g} s.",
    )


def lost(path: Path | str, fence: int, term: Term) -> PassError:
    """Another process has taken over from this one."""
    by = f"{term.holder or 'another'} has taken over with fence {term.fence}"
    return PassError(
        LEASE_LOST,
        f"{path}: {by}; this process had {fence}, and did not renew its lease in time: it was stopped, or its host or "
        "store stood still. It ends, and wrote nothing since; started again it stands by.",
    )


def replaced(path: Path) -> PassError:
    """Somebody put another file in the store's place."""
    return PassError(
        LEASE_LOST,
        f"{path}: another file was put there while this process led the one before. It ends; what it wrote since is in the file "
        "that was moved away. Stop every daemon before a store is replaced, as `reconciler restore` does.",
    )


def overdue(path: Path, ttl: float) -> PassError:
    """This process may lead still, and cannot know."""
    return PassError(
        "LeaseOverdue",
        f"{path}: the lease could not be renewed for {ttl * (1 - MARGIN):g} s, so nothing is begun until it is: look at the "
        "health and the room of the store's disk. It is tried again by itself.",
    )
