"""`reconciler promote` in a real work tree: the entry is changed on a branch, and nothing leaves it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from reconciler.cli import main
from reconciler.cli.validate import read
from reconciler.config.fields import Forge
from reconciler.forge.pages import opening_page, pull_page

BRANCH = "promote-acme-service-1.1.0-to-prod"
STAGE, PROD = "environments/stage/service-web.yaml", "environments/prod/service-web.yaml"
API = "environments/prod/service-api.yaml"


def git(tree: Path, *words: str) -> str:
    said = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *said, *words], cwd=tree, check=True, capture_output=True, text=True).stdout.rstrip()


@pytest.fixture
def work(tree: Path) -> Path:
    """The worked example in git, where stage runs a newer version than prod."""
    for file in (tree / "environments/stage").glob("*.yaml"):
        file.write_text(
            file.read_text().replace('module: acme/service\nversion: "1.0.0"', 'module: acme/service\nversion: "1.1.0"')
        )
    for path, version in ((STAGE, "1.1.0"), (PROD, "1.0.0")):
        lines = (tree / path).read_text().splitlines()
        text = [f'version: "{version}"   # of the lock' if line.startswith("version:") else line for line in lines]
        (tree / path).write_text("\n".join(text) + "\n")
    git(tree, "init", "--quiet", "--initial-branch=main")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "-m", "First")
    return tree


@pytest.mark.parametrize(
    ("what", "paths"), [(["stage/service-web"], [PROD]), (["acme/service", "--from", "stage"], [API, PROD])]
)
def test_a_version_goes_to_the_next_environment_on_a_branch(
    work: Path, what: list[str], paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    head, before = git(work, "rev-parse", "main"), (work / PROD).read_text()
    assert main(["promote", *what, "--to", "prod"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"git add -- {' '.join(paths)}",
        "git commit -S -m 'Promote acme/service 1.1.0 to prod'",
        f"git push --set-upstream origin {BRANCH}:{BRANCH}",
    ]
    assert f"{PROD}: 1.0.0 -> 1.1.0" in err
    assert (work / PROD).read_text() == before.replace('"1.0.0"   # of', '"1.1.0"   # of')
    assert git(work, "diff", "--name-only").split() == paths
    assert git(work, "branch", "--show-current") == BRANCH
    assert git(work, "rev-parse", "main") == head == git(work, "rev-parse", "HEAD")
    assert not read(work).problems


def test_a_forge_and_programs_are_told_where_it_is_opened(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = work.parent / "reconciler.yaml"
    config.write_text(
        "environments_repo: {url: 'git@github.com:acme/environments.git', branch: main, signatures: off,\n"
        "  forge: {kind: github, repository: acme/environments, token_file: token}}\n"
        "store: {path: s.db}\nexecutor: {local: {socket: s}}\n"
    )
    assert main(["promote", "stage/service-web", "--to", "prod", "--config", str(config), "-o", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["page"] == f"https://github.com/acme/environments/compare/main...{BRANCH}?expand=1"
    assert said["units"] == [{"unit": "prod/service-web", "from": "1.0.0", "to": "1.1.0", "path": PROD}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage/service-web", "--to", "nowhere"], "there is no environment nowhere here; write one of"),
        (["stage/nothing", "--to", "prod"], "neither a unit here nor a module"),
        (["acme/service", "--to", "prod", "--from", "nowhere"], "nowhere does not use it; name the unit"),
        (["prod/service-web", "--to", "stage"], "which is newer than 1.0.0; a downgrade is written by hand"),
        (["stage/service-web", "--to", "prod", "--branch", "main"], "main is the protected branch"),
        (["stage/service-web", "--to", "prod", "--branch", "-x"], "git switch"),
    ],
)
def test_what_cannot_be_promoted_is_told_and_changes_nothing(
    work: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["promote", *words]) == 1
    assert said in capsys.readouterr().err
    assert (git(work, "status", "--porcelain"), git(work, "branch", "--show-current")) == ("", "main")


def test_work_in_progress_and_a_branch_that_is_there_are_left_alone(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(work, "branch", BRANCH)
    assert main(["promote", "stage/service-web", "--to", "prod"]) == 1
    assert "already exists" in capsys.readouterr().err
    (work / PROD).write_text((work / PROD).read_text() + "# mine\n")
    assert main(["promote", "stage/service-web", "--to", "prod", "--branch", "other"]) == 1
    assert "hold changes of yours" in capsys.readouterr().err
    assert (work / PROD).read_text().endswith("# mine\n")
    assert git(work, "branch", "--show-current") == "main"


def test_what_is_there_already_needs_nothing(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["promote", "stage/service-web", "--to", "stage"]) == 0
    assert "Nothing to do: stage/service-web uses acme/service 1.1.0 already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("forge", "page", "opens"),
    [
        ({"kind": "github", "repository": "acme/env"}, "https://github.com/acme/env/pull/7",
         "https://github.com/acme/env/compare/main...a%2Fb?expand=1"),
        ({"kind": "github", "repository": "acme/env", "url": "https://git.example.com/api/v3"},
         "https://git.example.com/acme/env/pull/7", "https://git.example.com/acme/env/compare/main...a%2Fb?expand=1"),
        ({"kind": "gitlab", "repository": "acme/infra/env"}, "https://gitlab.com/acme/infra/env/-/merge_requests/7",
         "https://gitlab.com/acme/infra/env/-/merge_requests/new?merge_request%5Bsource_branch%5D=a%2Fb&merge_request%5Btarget_branch%5D=main"),
        ({"kind": "gitea", "repository": "acme/env", "url": "https://git.example.com/"},
         "https://git.example.com/acme/env/pulls/7", "https://git.example.com/acme/env/compare/main...a%2Fb"),
    ],
)  # fmt: skip
def test_the_pages_of_each_forge(forge: dict[str, str], page: str, opens: str) -> None:
    found = TypeAdapter(Forge).validate_python({**forge, "token_file": "/t"})
    assert pull_page(found, 7) == page
    assert opening_page(found, "a/b", "main") == opens
