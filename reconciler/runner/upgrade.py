"""The version of the runner's memory: what a newer program does to an older one's, and what an older one refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from reconciler.cabinet import Cabinet, again, cabinet_of
from reconciler.errors import HeldError, PassError

NAME = "version"


def _write_it_down(_memory: Cabinet) -> None:
    """Version 1 is what there was before there were versions, and says so."""


def _suspect(_memory: Cabinet) -> None:
    """Version 2 remembers what applies that died may have made: a program that does not know that would apply over it."""


# The step at n brings version n to n + 1. It may be repeated after a crash, and jobs of the program before may still run:
# it takes the locks of what it rewrites.
MIGRATIONS: tuple[Callable[[Cabinet], None], ...] = (_write_it_down, _suspect)


def bring_up_to_date(place: Path | Cabinet, migrations: Sequence[Callable[[Cabinet], None]] = MIGRATIONS) -> None:
    """Make the memory there one of this program's version; a new one is from its first moment.

    Raises:
        HeldError: "MemoryTooNew". PassError: "FileCorrupt".
    """
    known, memory = len(migrations), cabinet_of(place)
    if _known(memory, known) != known:
        again(lambda: _migrate(memory, migrations))


def _migrate(memory: Cabinet, migrations: Sequence[Callable[[Cabinet], None]]) -> None:
    with memory.exclusive(f"{NAME}.lock", NAME):
        for number in range(_known(memory, len(migrations)), len(migrations)):
            migrations[number](memory)
            memory.write(NAME, b"%d\n" % (number + 1))


def version_of(place: Path | Cabinet) -> int:
    """The version of a memory; 0 of one from before there were versions. Raises PassError "FileCorrupt"."""
    memory = cabinet_of(place)
    raw = memory.read(NAME)
    if raw is None:
        return 0
    text = raw.strip()
    if not text.isdigit():
        raise PassError(
            "FileCorrupt", f"{memory.place}/{NAME}: not a number; something else wrote it: restore it from a backup"
        )
    return int(text)


def _known(memory: Cabinet, known: int) -> int:
    version = version_of(memory)
    if version > known:
        raise too_new(memory.place, f"memory version {version}, this one knows {known}")
    return version


def too_new(place: str, what: str) -> HeldError:
    """A newer program wrote it: an older one would go on as if what it does not know were not there."""
    return HeldError(
        "MemoryTooNew",
        f"{place}: written by a newer reconciler ({what}); install that version again on the runner's host, or restore the "
        "backup from before the upgrade (`reconciler restore`).",
    )
