"""Where heads of the audit log are kept out of the runner's reach: a file that only grows, on another host.

An anchor only ever gets more heads. Whoever rewrites the log cannot take back what it said of it before. `s3.py` has the
other kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from reconciler import codec
from reconciler.errors import PassError
from reconciler.runner.audit.chain import Head

LONGEST_LINE = 1024  # bytes
LOOK_BACK = 64 * 1024  # bytes at the file's end that a writer compares with what it is about to say


@dataclass(frozen=True, slots=True)
class Anchored:
    """A head as an anchor has it. `place` says where, for people."""

    count: int
    hash: str
    at: datetime
    place: str

    @property
    def head(self) -> Head:
        """The head."""
        return Head(self.count, self.hash)


@dataclass(frozen=True, slots=True)
class Said:
    """A line of a file anchor."""

    at: datetime
    count: int
    hash: str


@dataclass(frozen=True, slots=True)
class Heads:
    """All that an anchor says. `unreadable`: places of what is no head, such as a line that a crash tore."""

    heads: tuple[Anchored, ...]
    unreadable: tuple[str, ...] = ()


class Anchor(Protocol):
    """A place that keeps heads."""

    def put(self, head: Head, at: datetime) -> None:
        """Keep the head; durable when this returns, and repeatable.

        Raises:
            PassError: "AnchorUnreachable"; "AnchorDisagrees": it has a head that this log never had.
        """

    def heads(self) -> Heads:
        """Every head that it has.

        Raises:
            PassError: "AnchorUnreachable".
        """


@dataclass(frozen=True, slots=True)
class FileAnchor:
    """A file of lines, on another host's mount. It is opened for appending only: `chattr +a` there is welcome."""

    path: Path

    def put(self, head: Head, at: datetime) -> None:
        """See `Anchor`. After a torn line a new one is begun."""
        try:
            newest, whole = self._newest()
            if newest is not None and newest.head == head:
                return
            _agree(newest, head)
            line = codec.encode(Said(at, head.count, head.hash)) + b"\n"
            self._append(line if whole else b"\n" + line)
        except OSError as error:
            raise _unreachable(str(self.path), error) from error

    def heads(self) -> Heads:
        """See `Anchor`."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise _unreachable(str(self.path), error) from error
        found = [(f"{self.path}:{number}", _said(line)) for number, line in _lines(data)]
        heads = tuple(Anchored(said.count, said.hash, said.at, place) for place, said in found if said)
        return Heads(heads, tuple(place for place, said in found if said is None))

    def _newest(self) -> tuple[Anchored | None, bool]:
        """The head with most records near the end, and whether the file ends with a whole line."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - LOOK_BACK, 0))
                data = file.read()
        except FileNotFoundError:
            return None, True
        said = [one for _, line in _lines(data) if (one := _said(line)) is not None]
        top = max(said, key=lambda one: one.count, default=None)
        newest = Anchored(top.count, top.hash, top.at, str(self.path)) if top else None
        return newest, not data or data.endswith(b"\n")

    def _append(self, line: bytes) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.write(handle, line)  # a short one is a torn line, and the next one follows it
            os.fsync(handle)
        finally:
            os.close(handle)


def disagrees(place: str, what: str) -> PassError:
    """The anchor has what this log never had: one of the two was replaced."""
    return PassError(
        "AnchorDisagrees",
        f"{place}: {what}. The audit log here is older than what it was, or another one: run `reconciler audit verify`, keep "
        "both as evidence, and bring back the log that verifies.",
    )


def _agree(newest: Anchored | None, head: Head) -> None:
    if newest is not None and newest.count > head.count:
        raise disagrees(newest.place, f"it has a head of {newest.count} records, and the log has {head.count}")
    if newest is not None and newest.count == head.count:
        raise disagrees(newest.place, f"its head of {newest.count} records has another hash than the log's")


def _unreachable(place: str, error: Exception) -> PassError:
    return PassError("AnchorUnreachable", f"{place}: the audit log's anchor does not answer: {error}.")


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(data.split(b"\n"), 1) if line)


def _said(line: bytes) -> Said | None:
    """What a line says; None: it is no whole head."""
    if len(line) > LONGEST_LINE:
        return None
    try:
        said = codec.decode(Said, line)
    except ValueError:
        return None
    good = said.count > 0 and len(said.hash) == 64 and said.at.tzinfo is not None
    return said if good else None
