"""Put a set of names in a folder in place of what is there: all of them or, until it is meant, none.

    <folder>/.restore/new/     what shall be there, whole and on disk before anything is moved
    <folder>/.restore/go.json  which names: from this file's first moment on it is meant
    <folder>/replaced-<when>/  what was there

A crash before `go.json` leaves the old names, one after it some of either; then nothing opens the folder (`check_whole`) until
`finish`, which may be repeated, has put the rest in place. Only renames inside one folder: it may be a mount, or somebody else's
folder's child. What was there is moved aside, never removed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from reconciler.durable import sync_folder, write_atomic
from reconciler.errors import PassError

_PLACE = ".restore"


def check_whole(folder: Path) -> None:
    """Raises PassError "RestoreUnfinished": a restore was interrupted when some of the names were in place."""
    if _go(folder).exists():
        raise PassError(
            "RestoreUnfinished",
            f"{folder}: a restore of it was interrupted when some files were the old ones and some the new. Run the same "
            "`reconciler restore` again: it finishes that first; nothing is lost.",
        )


def under_way(folder: Path) -> bool:
    """Whether a restore of the folder has begun; also one that was interrupted before it was meant."""
    return (folder / _PLACE).exists()


def begin(folder: Path) -> Path:
    """An empty folder to put the new names in. What an attempt left that was not meant yet is removed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(folder / _PLACE, ignore_errors=True)
    (folder / _PLACE).mkdir(mode=0o700)
    new = folder / _PLACE / "new"
    new.mkdir(mode=0o700)
    return new


def abandon(folder: Path) -> None:
    """Remove what was begun and not meant yet."""
    if not _go(folder).exists():
        shutil.rmtree(folder / _PLACE, ignore_errors=True)


def mean(folder: Path, names: Iterable[str], source: str) -> None:
    """From now on `names` are replaced: by what is new under that name, or by nothing. `source` says by what; for `meant`."""
    new = folder / _PLACE / "new"
    _sync_all(new)
    sync_folder(folder / _PLACE)
    sync_folder(folder)
    aside = f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    told = {name: (new / name).exists() for name in sorted(names)}
    write_atomic(_go(folder), json.dumps({"source": source, "aside": aside, "names": told}).encode())


def meant(folder: Path) -> str | None:
    """By what the folder's names are to be replaced, where that was not finished; None: nothing is to be done."""
    try:
        return str(json.loads(_go(folder).read_bytes())["source"])
    except FileNotFoundError:
        return None


def finish(folder: Path) -> Path | None:
    """Put in place what was meant; may be repeated. Answers where the old is now; None: there was nothing."""
    told = json.loads(_go(folder).read_bytes())
    aside, new = folder / told["aside"], folder / _PLACE / "new"
    for name, has_new in told["names"].items():
        if has_new and not os.path.lexists(new / name):
            continue  # it is in place
        if os.path.lexists(folder / name):
            aside.mkdir(mode=0o700, exist_ok=True)
            (folder / name).rename(aside / name)
        if has_new:
            (new / name).rename(folder / name)
    if aside.exists():
        sync_folder(aside)
    sync_folder(folder)
    _go(folder).unlink()
    sync_folder(folder / _PLACE)
    shutil.rmtree(folder / _PLACE, ignore_errors=True)
    return aside if aside.exists() else None


def _go(folder: Path) -> Path:
    return folder / _PLACE / "go.json"


def _sync_all(folder: Path) -> None:
    """Make every name below the folder durable; what the files hold is already."""
    for place, _, _ in os.walk(folder):
        sync_folder(Path(place))
