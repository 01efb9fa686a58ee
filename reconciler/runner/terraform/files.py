"""The files of a module's folder that an engine reads, as blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reconciler.errors import UnitError
from reconciler.vetting.bodies import Block
from reconciler.vetting.facts import FILE_BYTES
from reconciler.vetting.names import read_by
from reconciler.vetting.reading import Unreadable, read


def module_files(folder: Path, product: str, place: str = "") -> Iterator[tuple[str, Block]]:
    """(name, content) of each file that this engine (`Engine.product`) reads in the folder; `place` begins each name.

    Raises:
        UnitError: "ModuleInvalid", with file and line.
    """
    there = (file.name for file in folder.iterdir() if file.is_file()) if folder.is_dir() else ()
    for name in read_by(product, there):
        with (folder / name).open("rb") as file:
            data = file.read(FILE_BYTES + 1)
        try:
            yield f"{place}{name}", read(name, data)
        except Unreadable as error:
            raise UnitError(
                "ModuleInvalid",
                f"{place}{name}:{error.line}:{error.column} of the module is not valid: {error}. Mend the module and "
                "lock a new version of it.",
            ) from error
