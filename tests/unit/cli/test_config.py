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
    assert shown["http"] == {"listen": "127.0.0.1:8080", "hosts": [], "tokens": []}
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


RUNNER = f"""
environments_repo: {{url: "https://git.example/e.git", genesis: {"ab" * 20}, signatures: off}}
catalog_repos: {{acme: {{url: "https://git.example/c.git"}}}}
memory: {{path: memory}}
allow:
  - {{operations: [plan, apply], folders: ["environments/dev/**"]}}
  - {{operations: [plan], folders: ["environments/prod/**"], modules: ["acme/*"]}}
  - {{operations: [plan], refs: pulls, folders: ["environments/**"]}}
engine: auto
environments: {{dev: {{class: sandbox, backend: {{local: {{path: states}}}}}}}}
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["dev/a"], 0, "apply of environments/dev/a.yaml is allowed."),
        (["environments/dev/b/a.yaml", "--operation", "plan"], 0, "plan of environments/dev/b/a.yaml is allowed."),
        (["prod/a"], 3, "folders where apply is allowed: environments/dev/**."),
        (
            ["prod/a", "--operation", "plan", "--module", "acme/vpc"],
            0,
            "plan of acme/vpc at environments/prod/a.yaml is all",
        ),
        (["prod/a", "--operation", "plan", "--module", "x/vpc"], 3, "modules for which plan is allowed there: acme/*."),
        (
            ["prod/a", "--operation", "plan", "--pulls"],
            0,
            "plan of pull requests for environments/prod/a.yaml is allowed.",
        ),
        (["prod/a", "--pulls"], 3, "folders where apply of pull requests is allowed: none."),
        (["environments/prod/environment.yaml"], 64, "is no unit and no file of one"),
        (["../etc/passwd"], 64, "is no unit and no file of one"),
    ],
)
def test_the_allow_list_answers(
    words: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runner.yaml"
    path.write_text(RUNNER)
    assert main(["runner", "describe", *words, "--config", str(path)]) == code
    out = capsys.readouterr()
    assert said in out.out + out.err
    if code in (0, 3):
        assert main(["runner", "describe", *words, "--config", str(path), "-o", "json"]) == code
        assert json.loads(capsys.readouterr().out) == {"allowed": code == 0, "message": out.out.strip()}
