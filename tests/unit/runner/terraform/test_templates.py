from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.model import Json
from reconciler.runner.terraform import templates
from reconciler.runner.terraform.initialized import Initialized
from reconciler.runner.terraform.templates import MOST, NOTED, UNUSED, Templates

LEFT = Initialized({"Modules": [{"Key": "", "Source": "", "Dir": "."}]}, {"version": 3, "backend": {"hash": 0}})


def sealed(key: str) -> Callable[[Json], str]:
    return lambda value: hashlib.sha256(f"{key}{json.dumps(value, sort_keys=True)}".encode()).hexdigest()[:32]


@pytest.fixture
def made(tmp_path: Path) -> Templates:
    return Templates(tmp_path / "kept", sealed("ours"))


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "kept").iterdir())


def test_what_is_kept_is_found_under_its_name_only(made: Templates, tmp_path: Path) -> None:
    name = made.name("a", {"b": 1})
    assert made.name("a", {"b": 2}) != name
    assert made.find(name) is None
    made.keep(name, LEFT)
    assert made.find(name) == LEFT
    assert made.find(made.name("other")) is None
    (file,) = files(tmp_path)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)

    made.drop(name)
    assert made.find(name) is None
    made.drop(name)


def test_under_another_name_it_is_nothing(made: Templates, tmp_path: Path) -> None:
    one, other = made.name("prod"), made.name("stage")
    made.keep(one, LEFT)
    (file,) = files(tmp_path)
    file.rename(file.with_name(f"{other}.json"))
    assert made.find(other) is None
    assert Templates(tmp_path / "kept", sealed("theirs")).find(one) is None


def test_by_another_s_seal_it_is_nothing(made: Templates, tmp_path: Path) -> None:
    name = made.name("prod")
    Templates(tmp_path / "kept", sealed("theirs")).keep(name, LEFT)
    assert made.find(name) is None


def test_a_damaged_one_is_nothing_and_is_made_anew(made: Templates, tmp_path: Path) -> None:
    name = made.name("prod")
    made.keep(name, LEFT)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place])
        assert made.find(name) is None, place
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert made.find(name) in (None, LEFT), place  # a space between two words may be another one
    for strange in (b"[]", b"null", b'{"kept": 1, "seal": 2}', b"[" * 100_000, b"\xff"):
        file.write_bytes(strange)
        assert made.find(name) is None
    made.keep(name, LEFT)
    assert made.find(name) == LEFT


def test_their_number_is_bounded_and_the_oldest_go(
    made: Templates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "MOST", 5)
    names = [made.name(number) for number in range(8)]
    now = time.time()
    for number, name in enumerate(names):
        made.keep(name, LEFT)
        os.utime(tmp_path / "kept" / f"{name}.json", (now - 100 + number, now - 100 + number))
    made.keep(made.name("last"), LEFT)
    assert [made.find(name) is not None for name in names] == [False] * 4 + [True] * 4
    assert MOST * 100_000 < 1 << 30  # with modules of modules a hundred KB each


def test_what_nobody_uses_goes_and_use_is_noted(made: Templates, tmp_path: Path) -> None:
    used, unused = made.name("used"), made.name("unused")
    for name in (used, unused):
        made.keep(name, LEFT)
    for name in (used, unused):
        old = time.time() - UNUSED - 60
        os.utime(tmp_path / "kept" / f"{name}.json", (old, old))
    assert made.find(used) == LEFT  # as it is still there
    made.keep(made.name("last"), LEFT)
    assert (made.find(used), made.find(unused)) == (LEFT, None)

    recently = time.time() - NOTED / 2
    os.utime(tmp_path / "kept" / f"{used}.json", (recently, recently))
    made.find(used)
    assert (tmp_path / "kept" / f"{used}.json").stat().st_mtime == pytest.approx(recently, abs=1)


def test_a_disk_without_room_stops_nobody(made: Templates, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file is in its place")
    made.keep(made.name("x"), LEFT)
    assert made.find(made.name("x")) is None


def keep_and_find(folder: Path, seed: int, rounds: int) -> None:
    """Ends with 1 where anything but a whole one, or nothing, was found."""
    draw, mine = random.Random(seed), Templates(folder, sealed("ours"))  # noqa: S311 - no secret
    for _ in range(rounds):
        name = mine.name(draw.randrange(4))
        if (chance := draw.random()) < 0.4:
            mine.keep(name, LEFT)
        elif chance < 0.6:
            mine.drop(name)
        if mine.find(name) not in (None, LEFT):
            os._exit(1)
    os._exit(0)


def test_many_processes_share_a_folder(made: Templates, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    several = [context.Process(target=keep_and_find, args=(tmp_path / "kept", seed, 150)) for seed in range(4)]
    for one in several:
        one.start()
    for one in several:
        one.join(60)
    assert [one.exitcode for one in several] == [0] * 4


def test_who_is_killed_leaves_a_whole_one_or_none(made: Templates, tmp_path: Path) -> None:
    """At 60 random moments; what it left half written goes when it is old enough that nobody can be at it."""
    draw, context = random.Random(8), multiprocessing.get_context("fork")  # noqa: S311 - no secret
    for seed in range(60):
        one = context.Process(target=keep_and_find, args=(tmp_path / "kept", seed, 10_000))
        one.start()
        time.sleep(draw.random() * 0.02)
        assert one.pid is not None
        os.kill(one.pid, signal.SIGKILL)
        one.join(60)
        assert one.exitcode == -signal.SIGKILL
        for number in range(4):
            assert made.find(made.name(number)) in (None, LEFT)
    for path in files(tmp_path):
        os.utime(path, (time.time() - 7200,) * 2)
    made.keep(made.name("last"), LEFT)
    assert all(path.suffix == ".json" for path in files(tmp_path))
