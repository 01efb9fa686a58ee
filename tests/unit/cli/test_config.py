from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.cli import main

CONTROLLER = """
environments_repo:
  url: https://git.example/environments.git
  branch: main
  signatures: off
catalog_repos:
  acme: {url: https://git.example/catalog.git, branch: main, tags: "v*"}
store: {path: /var/lib/reconciler/reconciler.db}
executor: {local: {socket: /run/reconciler/runner.sock}}
"""


def test_the_configuration_in_force_has_its_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "reconciler.yaml"
    path.write_text(CONTROLLER)
    assert main(["config", "show", "--config", str(path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["http"] == {"listen": "127.0.0.1:8080"}
    assert shown["environments_repo"]["branch"] == "main"


def test_a_mistake_is_said_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "reconciler.yaml"
    path.write_text(CONTROLLER + "nonsense: 1\n")
    assert main(["config", "show", "--config", str(path)]) == 1
    assert f"{path}:10:1" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--config", "a", "--runner", "b"]])
def test_it_is_one_file_at_a_time(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", *words]) == 64
    assert "say which file" in capsys.readouterr().err
