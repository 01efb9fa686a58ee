from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from reconciler.cli import main
from reconciler.config import load_controller, load_runner
from reconciler.forge.github import Parameters, _of_ruleset, _said


@pytest.fixture(autouse=True)
def person(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody whose git knows their name."""
    settings = tmp_path_factory.mktemp("home") / "gitconfig"
    settings.write_text("[user]\nname = Ada\nemail = ada@example.com\n")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("HOME", str(settings.parent))
    settings.rename(settings.with_name(".gitconfig"))


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def made(folder: Path, *words: str) -> None:
    assert main(["init", str(folder), *words]) == 0


def test_what_it_writes_is_accepted_by_everything_that_reads_it(tmp_path: Path) -> None:
    place = tmp_path / "environments"
    made(place, "--example-catalog", str(tmp_path / "catalog"))
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(place)])
    assert ended.value.code == 0
    controller, runner = load_controller(place / "host/reconciler.yaml"), load_runner(place / "host/runner.yaml")
    head = git(place, "rev-parse", "main")
    assert controller.environments_repo.genesis == runner.environments_repo.genesis == head
    assert controller.environments_repo.url == runner.environments_repo.url == str(place)
    assert controller.local.socket == runner.socket_path
    assert controller.catalog_repos["example"].url == runner.catalog_repos["example"].url == str(tmp_path / "catalog")
    assert git(tmp_path / "catalog", "rev-parse", "v1.0.0") == git(tmp_path / "catalog", "rev-parse", "main")


def test_the_hosts_files_are_in_no_commit_and_for_their_owner_alone(tmp_path: Path) -> None:
    made(tmp_path / "e")
    assert git(tmp_path / "e", "status", "--porcelain") == ""
    assert not [path for path in git(tmp_path / "e", "ls-files").splitlines() if path.startswith("host/")]
    assert (tmp_path / "e/host").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "e/host").iterdir()} == {0o600}


def test_the_editor_finds_the_schema_of_every_file(tmp_path: Path) -> None:
    made(tmp_path / "e")
    for path in ("environments/dev/environment.yaml", "catalog-lock.yaml", "host/reconciler.yaml", "host/runner.yaml"):
        said = (tmp_path / "e" / path).read_text().splitlines()[0]
        schema = said.removeprefix("# yaml-language-server: $schema=")
        assert json.loads((tmp_path / "e" / path).parent.joinpath(schema).read_text())["$schema"]


def test_nothing_is_ever_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "e"
    place.mkdir()
    (place / "CODEOWNERS").write_text("mine")
    (place / ".gitignore").write_text("")
    (place / "catalog-lock.yaml").symlink_to("nowhere")
    assert main(["init", str(place), "-o", "json"]) == 0
    said = capsys.readouterr()
    done = {one["path"]: one["written"] for one in json.loads(said.out)["files"]}
    assert [path for path, new in done.items() if not new] == ["CODEOWNERS", ".gitignore", "catalog-lock.yaml"]
    assert (place / "CODEOWNERS").read_text() == "mine"
    assert not (place / "nowhere").exists()
    assert "add the line /host/" in said.err
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    made(place)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_a_repository_with_commits_gets_files_and_no_commit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=trunk")
    git(tmp_path, "remote", "add", "origin", "git@git.example.com:acme/environments.git")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message=first")
    assert main(["init", str(tmp_path)]) == 1
    assert "no branch main: say --branch" in capsys.readouterr().err
    made(tmp_path, "--branch", "trunk", "--forge", "gitlab")
    assert "git status" in capsys.readouterr().err
    assert git(tmp_path, "rev-list", "--count", "trunk") == "1"
    assert (tmp_path / ".gitlab-ci.yml").exists()
    found = load_controller(tmp_path / "host/reconciler.yaml").environments_repo
    assert (found.url, found.branch) == ("git@git.example.com:acme/environments.git", "trunk")
    assert found.signatures != "off"


def test_what_cannot_be_is_said_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(tmp_path, "init", "--quiet")
    assert main(["init", str(tmp_path / "inside")]) == 1
    assert "name a folder outside of it" in capsys.readouterr().err
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-else")
    elsewhere.mkdir()
    (tmp_path / "schemas").symlink_to(elsewhere)
    assert main(["init", str(tmp_path)]) == 1
    assert "remove that link" in capsys.readouterr().err
    assert not list(elsewhere.iterdir())
    assert main(["init", str(elsewhere), "--url", "https://ada:secret@git.example.com/e.git"]) == 1
    said = capsys.readouterr().err
    assert "token_file" in said
    assert "secret" not in said


def test_a_git_that_does_not_know_who_commits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Path(os.environ["HOME"], ".gitconfig")
    known = settings.read_text()
    settings.write_text("[user]\nuseConfigOnly = true\n")
    assert main(["init", str(tmp_path / "e")]) == 1
    assert "git commit" in capsys.readouterr().err
    settings.write_text(known)
    made(tmp_path / "e")
    assert git(tmp_path / "e", "log", "--format=%an") == "Ada"


def test_the_ruleset_makes_every_rule_hold_that_is_looked_at(tmp_path: Path) -> None:
    made(tmp_path / "e", "--branch", "trunk")
    ruleset = json.loads((tmp_path / "e/forge/ruleset.json").read_text())
    assert (ruleset["target"], ruleset["enforcement"]) == ("branch", "active")
    assert ruleset["conditions"]["ref_name"]["include"] == ["refs/heads/trunk"]
    kinds = {one["type"]: Parameters.model_validate(one.get("parameters", {})) for one in ruleset["rules"]}
    said = _said([_of_ruleset(kinds, not ruleset["bypass_actors"])], 1, "trunk", signed=True)
    assert {rule for rule, (holds, _) in said.items() if not holds} == set()


def test_the_check_runs_what_the_ruleset_waits_for(tmp_path: Path) -> None:
    made(tmp_path / "e")
    rules = {one["type"]: one for one in json.loads((tmp_path / "e/forge/ruleset.json").read_text())["rules"]}
    (wanted,) = rules["required_status_checks"]["parameters"]["required_status_checks"]
    jobs = yaml.safe_load((tmp_path / "e/.github/workflows/validate.yaml").read_text())["jobs"]
    assert jobs[wanted["context"]]["steps"][-1]["run"].startswith("reconciler validate")
    (hooks,) = yaml.safe_load((tmp_path / "e/.pre-commit-config.yaml").read_text())["repos"]
    assert hooks["hooks"][0]["entry"] == "reconciler validate"
