"""A folder in one file, and a folder that is emptied whatever was left in it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from reconciler.runner.warm.parcel import empty, pack, unpack


def test_what_is_packed_is_unpacked(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "a" / "b").mkdir(parents=True)
    there.mkdir()
    (here / "a" / "file").write_bytes(b"one\n\x00two")
    (here / "z").write_bytes(b"")
    (here / "link").symlink_to("/nowhere/else")
    for left_out in ("plan.out", "plan.err"):
        (here / left_out).write_text("x")
    (here / "tmp").mkdir()
    packed = io.BytesIO()
    pack(here, packed, without=frozenset({".out", ".err", "tmp"}))
    packed.seek(0)
    unpack(packed, there)
    assert sorted(path.relative_to(there).as_posix() for path in there.rglob("*")) == [
        "a",
        "a/b",
        "a/file",
        "link",
        "z",
    ]
    assert (there / "a" / "file").read_bytes() == b"one\n\x00two"
    assert os.fspath((there / "link").readlink()) == "/nowhere/else"


def test_a_folder_is_emptied_and_no_link_is_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    for made in (outside, folder / "tmp" / "deep", folder / "closed", folder / "own"):
        made.mkdir(parents=True)
    for file in (outside / "kept", folder / "tmp" / "deep" / "x", folder / "closed" / "y", folder / "own" / "socket"):
        file.write_text("x")
    (folder / "link").symlink_to(outside)
    (folder / "closed").chmod(0)
    empty(folder, frozenset({"tmp"}), (folder / "own").stat().st_ino)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == ["own", "own/socket", "tmp"]
    assert (outside / "kept").exists()


def test_a_link_in_the_place_of_a_folder_that_is_kept_goes(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "tmp").symlink_to(tmp_path)
    (tmp_path / "kept").write_text("x")
    empty(folder, frozenset({"tmp"}))
    assert (list(folder.iterdir()), (tmp_path / "kept").exists()) == ([], True)


@pytest.mark.parametrize("missing", [1, 5])
def test_a_parcel_that_is_cut_is_refused(tmp_path: Path, missing: int) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "file").write_text("content")
    packed = io.BytesIO()
    pack(here, packed)
    with pytest.raises(EOFError):
        unpack(io.BytesIO(packed.getvalue()[:-missing]), there)
