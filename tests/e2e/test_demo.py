"""The demo as people start it: the whole story, Ctrl-C, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.terraform import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).resolve().parents[2]
STORY_SECONDS = 240  # on a machine that does much else; alone it takes half a minute


@contextmanager
def demo(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`reconciler demo --dir FOLDER ...`, its output in `out.txt` beside the folder."""
    argv = [sys.executable, "-m", "reconciler", "demo", "--dir", str(folder), *words]
    with folder.with_name("out.txt").open("w") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(120)


def shown(folder: Path) -> str:
    return folder.with_name("out.txt").read_text()


def processes(folder: Path) -> list[str]:
    """Every process that was started for the folder, or works in it."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            command, cwd = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode(), str((proc / "cwd").readlink())
        except OSError:
            continue  # it ended meanwhile
        if str(folder) in command or cwd.startswith(str(folder)):
            found.append(f"{proc.name} {command}")
    return found


def run(folder: Path, *words: str, expect: int = 0) -> str:
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}  # where the package is not installed
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_the_whole_story(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    with demo(place, "--check") as process:
        code = process.wait(STORY_SECONDS)
    assert code == 0, shown(place)
    assert shown(place).count("✓") == 9
    assert processes(place) == []


def test_what_the_guide_says_works_and_ctrl_c_ends_everything(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    with demo(place) as process:
        until(lambda: "Ctrl-C ends everything" in shown(place) or process.poll() is not None, "the guide", seconds=120)
        assert process.poll() is None, shown(place)
        clone = place / "work"
        run(clone, "git", "switch", "-c", "more-web")
        run(clone, "perl", "-pi", "-e", "s/replicas: 1/replicas: 2/", "environments/dev/service-web.yaml")
        run(clone, "git", "commit", "-am", "Two replicas of web in dev")
        run(clone, "git", "push", "origin", "more-web")
        assert "merged more-web into main" in run(clone, "../merge", "more-web")
        service = place / "world/eu-west-1/dev/services/web-dev-a/service.json"
        until(lambda: '"replicas":2' in service.read_text(), "two replicas", seconds=60)
        assert "dev/service-web" in run(clone, "../reconciler", "status", "dev")
        assert "no branch nothing was pushed" in run(clone, "../merge", "nothing", expect=1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        assert process.wait(120) == 0, shown(place)
    assert processes(place) == []
    assert re.search(r"dev/service-web +Applied", shown(place))


def test_a_failure_shows_the_log_and_leaves_no_process(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    with demo(place) as process:
        until(lambda: "Both planes run" in shown(place), "both planes", seconds=60)
        (daemon,) = [found for found in processes(place) if " run --config" in found]
        os.kill(int(daemon.split()[0]), signal.SIGTERM)
        assert process.wait(120) == 1
    assert "the daemon ended with code 0" in shown(place)
    assert "reconciler.log" in shown(place)
    assert processes(place) == []


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    place.mkdir()
    (place / "precious").touch()
    with demo(place, "--check") as process:
        assert process.wait(60) == 1
    assert f"{place} is not empty: name another folder, or remove it" in shown(place)
    assert [path.name for path in place.iterdir()] == ["precious"]
