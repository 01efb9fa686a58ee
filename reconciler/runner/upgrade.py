"""The version of the runner's memory: what a newer program does to an older one's, and what an older one refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from reconciler.durable import FileLock, write_atomic
from reconciler.errors import HeldError, PassError

NAME = "version"


def _write_it_down(folder: Path) -> None:
    """Version 1 is what there was before there were versions, and says so."""


def _suspect(_folder: Path) -> None:
    """Version 2 remembers what applies that died may have made: a program that does not know that would apply over it."""


# The step at n brings version n to n + 1. It may be repeated after a crash, and jobs of the program before may still run:
# it takes the locks of what it rewrites.
MIGRATIONS: tuple[Callable[[Path], None], ...] = (_write_it_down, _suspect)


def bring_up_to_date(folder: Path, migrations: Sequence[Callable[[Path], None]] = MIGRATIONS) -> None:
    """Make the memory in the folder one of this program's version; a new one is from its first moment.

    Raises:
        HeldError: "MemoryTooNew". PassError: "FileCorrupt".
    """
    known = len(migrations)
    if _known(folder, known) == known:
        return
    with FileLock(folder / f"{NAME}.lock"):
        for number in range(_known(folder, known), known):
            migrations[number](folder)
            write_atomic(folder / NAME, b"%d\n" % (number + 1))


def version_of(folder: Path) -> int:
    """The version of a memory; 0 of one from before there were versions. Raises PassError "FileCorrupt"."""
    try:
        text = (folder / NAME).read_text().strip()
    except FileNotFoundError:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise PassError(
            "FileCorrupt", f"{folder / NAME}: not a number; something else wrote it: restore it from a backup"
        )
    return int(text)


def _known(folder: Path, known: int) -> int:
    version = version_of(folder)
    if version > known:
        raise too_new(folder, f"memory version {version}, this one knows {known}")
    return version


def too_new(place: Path, what: str) -> HeldError:
    """A newer program wrote it: an older one would go on as if what it does not know were not there."""
    return HeldError(
        "MemoryTooNew",
        f"{place}: written by a newer reconciler ({what}); install that version again on the runner's host, or restore the "
        "backup from before the upgrade (`reconciler restore`).",
    )
