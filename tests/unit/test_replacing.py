from __future__ import annotations

from pathlib import Path

import pytest

from reconciler import replacing
from reconciler.errors import PassError


def old(folder: Path) -> None:
    (folder / "units").mkdir(parents=True)
    (folder / "units" / "a").write_text("old")
    for name in ("key", "gone", "stays"):
        (folder / name).write_text("old")


def test_the_names_are_replaced_and_what_was_there_is_beside_it(tmp_path: Path) -> None:
    old(tmp_path)
    new = replacing.begin(tmp_path)
    (new / "units").mkdir()
    (new / "units" / "b").write_text("new")
    (new / "key").write_text("new")
    (new / "left over").write_text("not meant")
    replacing.check_whole(tmp_path)
    replacing.mean(tmp_path, ["units", "key", "gone", "never"], "abc")
    with pytest.raises(PassError, match="Run the same `reconciler restore` again") as caught:
        replacing.check_whole(tmp_path)
    assert caught.value.reason == "RestoreUnfinished"
    assert replacing.meant(tmp_path) == "abc"
    aside = replacing.finish(tmp_path)
    assert aside is not None
    assert aside.stat().st_mode & 0o777 == 0o700
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["key", "stays", "units", aside.name])
    assert sorted(p.name for p in aside.iterdir()) == ["gone", "key", "units"]
    assert (aside / "units" / "a").read_text() == "old"
    assert (tmp_path / "units" / "b").read_text() == "new"
    assert (tmp_path / "stays").read_text() == "old"
    assert replacing.meant(tmp_path) is None
    replacing.check_whole(tmp_path)


def test_in_an_empty_folder_nothing_is_put_aside(tmp_path: Path) -> None:
    new = replacing.begin(tmp_path / "m")
    (new / "key").write_text("new")
    replacing.mean(tmp_path / "m", ["key"], "abc")
    assert replacing.finish(tmp_path / "m") is None
    assert [p.name for p in (tmp_path / "m").iterdir()] == ["key"]


def test_what_was_not_meant_is_forgotten(tmp_path: Path) -> None:
    old(tmp_path)
    (replacing.begin(tmp_path) / "key").write_text("new")
    replacing.abandon(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gone", "key", "stays", "units"]
    (replacing.begin(tmp_path) / "key").write_text("new")
    assert list(replacing.begin(tmp_path).iterdir()) == []
