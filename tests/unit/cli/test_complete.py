"""The shell's completion, `status --watch`, and the line that undoes: against a served installation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from reconciler.actual.ledger import HeadAccepted, Paused
from reconciler.cli import cli, main
from reconciler.model import UnitId
from tests.kit.sample import HEAD, desired, pause, unit
from tests.kit.served import Served, serve


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = serve(tmp_path)
    served.installation.desired = desired(unit("prod/network"), unit("prod/app"), unit("stage/network"))
    served.installation.store.append(HeadAccepted(HEAD))
    with served.stack:
        yield served


def completed(words: list[str], incomplete: str) -> list[str]:
    return [item.value for item in ShellComplete(cli, {}, "reconciler", "_X").get_completions(words, incomplete)]


def test_names_of_units_and_scopes_come_from_the_daemon(served: Served) -> None:
    where = ["--server", served.server]
    assert completed(["explain", *where], "prod/") == ["prod/app", "prod/network"]
    assert completed(["status", *where], "") == ["all", "prod", "stage", "prod/app", "prod/network", "stage/network"]
    assert completed(["status", *where], "sta") == ["stage", "stage/network"]


def test_without_a_daemon_nothing_is_known_and_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert completed(["diff", "--server", "http://127.0.0.1:1"], "prod") == []
    assert completed(["status", "--server", "http://127.0.0.1:1"], "a") == ["all"]
    assert capsys.readouterr() == ("", "")


def test_commands_are_completed_without_importing_them() -> None:
    assert completed([], "pa") == ["pause"]
    words = {**os.environ, "_RECONCILER_COMPLETE": "bash_complete", "COMP_WORDS": "reconciler ca", "COMP_CWORD": "1"}
    code = "import sys; from reconciler.cli import main\ntry: main([])\nfinally: print('reconciler.cli.catalog' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=words, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["plain,catalog", "False"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_RECONCILER_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit):
        main([])
    assert f"_RECONCILER_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_watching_shows_what_changes_until_ctrl_c(served: Served) -> None:
    argv = [sys.executable, "-m", "reconciler", "status", "prod", "--watch", "-o", "json", "--server", served.server]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert ([one["unit"] for one in first["units"]], first["pauses"]) == (["prod/app", "prod/network"], [])
        served.installation.store.append(Paused(pause("prod")))
        second = json.loads(watching.stdout.readline())
        assert [one["scope"] for one in second["pauses"]] == ["prod"]
        watching.send_signal(signal.SIGINT)
        assert watching.communicate(timeout=60) == ("", "")
    assert watching.returncode == 0


def test_a_daemon_that_is_away_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    from reconciler.cli.ask import Silent
    from reconciler.cli.status import _again

    def nobody() -> tuple[dict[str, object], list[dict[str, object]]]:
        raise Silent("the daemon does not answer")

    before = _again(nobody, None, as_json=False)
    assert _again(nobody, before, as_json=False) == before == "the daemon does not answer"
    assert capsys.readouterr().err == "the daemon does not answer\n"


def test_explain_has_the_exact_revert(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    served.installation.undo[UnitId("prod/app")] = f"git revert -m 1 {HEAD}"
    words = ["explain", "--server", served.server]
    assert main([*words, "prod/app"]) == 0
    assert f"To undo:      git revert -m 1 {HEAD} - what" in capsys.readouterr().out
    assert main([*words, "prod/app", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["undo"] == f"git revert -m 1 {HEAD}"
    assert main([*words, "prod/network"]) == 0
    assert "To undo" not in capsys.readouterr().out
    served.installation.silent = True
    assert main([*words, "prod/app"]) == 0
    assert "To undo" not in capsys.readouterr().out
