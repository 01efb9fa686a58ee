from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.problems import FORMATS
from reconciler.cli.schema import command as schema
from reconciler.cli.schema import published
from reconciler.cli.validate import command as validate
from reconciler.config import SCHEMAS
from reconciler.desired.strict import LOCK_LIMIT
from reconciler.errors import Place
from reconciler.model import Problem, UnitId

ROOT = Path(__file__).parents[3]
LOCK = f"""\
lock_version: 1
modules:
  acme/vpc:
    path: vpc
    versions:
      "1.4.1": {{ref: v1, commit: {"a" * 40}, digest: "sha256:{"1" * 64}"}}
      "1.4.2": {{ref: v2, commit: {"b" * 40}, digest: "sha256:{"2" * 64}"}}
"""
SOUND = {
    "catalog-lock.yaml": LOCK,
    "environments/prod/environment.yaml": "class: protected\n",
    "environments/prod/network.yaml": 'module: acme/vpc\nversion: "1.4.2"\n',
    "environments/README.md": "# hello\n",
}
BROKEN = {
    **SOUND,
    "environments/prod/network.yaml": 'module: acme/vpc\nversion: "1.4"\n',
    "environments/prod/app.yaml": 'module: acme/vpc\nversion: "1.4.1"\ninputs:\n  a: x ${{ nework.id }}\n',
    "environments/prod/queue.yml": "",
}
TOLD = [
    'environments/prod/app.yaml:4:8: there is no unit prod/nework; did you mean "prod/network"?',
    "environments/prod/network.yaml:2:10: version 1.4 is not in catalog-lock.yaml; acme/vpc has 1.4.1, 1.4.2",
    "environments/prod/queue.yml: rename it to .yaml",
]

UNVETTED = "modules were not vetted: say --catalog NAME=FOLDER or --config FILE\n"


def tree(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def run(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(validate, [str(folder), *options])


def test_a_sound_tree(tmp_path: Path) -> None:
    result = run(tree(tmp_path, SOUND))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{UNVETTED}1 unit, 1 environment, 0 problems\n")


def test_every_problem_is_told_with_its_place(tmp_path: Path) -> None:
    result = run(tree(tmp_path, BROKEN))
    assert (result.exit_code, result.stdout.splitlines()) == (1, TOLD)
    assert result.stderr == f"{UNVETTED}0 units, 1 environment, 3 problems\n"


def test_the_current_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree(tmp_path, BROKEN))
    assert CliRunner().invoke(validate, []).stdout.splitlines() == TOLD


def test_a_folder_that_is_something_else(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path} has neither environments/ nor catalog-lock.yaml; name the environments repository\n"
    )


def test_branches_of_sandboxes_are_taken_to_exist(tmp_path: Path) -> None:
    more = {
        "environments/box/environment.yaml": "class: sandbox\n",
        "environments/box/x.yaml": "module: acme/vpc\nref: b\n",
    }
    assert run(tree(tmp_path, {**SOUND, **more})).exit_code == 0


def test_what_is_no_plain_file_is_a_problem(tmp_path: Path) -> None:
    folder = tree(tmp_path / "repository", SOUND)
    secret = tmp_path / "secret.yaml"
    secret.write_text("module: [")
    prod = folder / "environments/prod"
    (prod / "link.yaml").symlink_to(secret)
    (prod / "folder").symlink_to(tmp_path)
    (prod / "notes.md").symlink_to(secret)
    (prod / "network.yaml").chmod(0o755)
    os.mkfifo(prod / "pipe.yaml")
    (folder / "catalog-lock.yaml").rename(tmp_path / "lock")
    (folder / "catalog-lock.yaml").symlink_to(tmp_path / "gone")
    assert run(folder).stdout.splitlines() == [
        "catalog-lock.yaml: a symbolic link is never followed; put the file itself here",
        "environments/prod/folder: a symbolic link is never followed; put the file itself here",
        "environments/prod/link.yaml: a symbolic link is never followed; put the file itself here",
        "environments/prod/network.yaml: the file is executable; take that away (chmod -x)",
        "environments/prod/pipe.yaml: this is no file; remove it",
    ]


def test_names_and_sizes_that_nobody_expects(tmp_path: Path) -> None:
    folder = tree(tmp_path, {**SOUND, "environments/prod/a\nb.yaml": "", "environments/prod/big.yaml": b"#" * 70_000})
    (folder / os.fsdecode(b"environments/prod/\xff.yaml")).touch()
    (folder / "catalog-lock.yaml").write_bytes(b"#" * (LOCK_LIMIT + 5))
    lines = run(folder).stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "catalog-lock.yaml",
        "environments/prod/\\udcff.yaml",
        "environments/prod/a\\u000ab.yaml",
        "environments/prod/big.yaml",
    ]
    assert lines[0].endswith(f"the file has {LOCK_LIMIT + 1} bytes and may have {LOCK_LIMIT}; split it")


def test_json(tmp_path: Path) -> None:
    first = json.loads(run(tree(tmp_path, BROKEN), "-o", "json").stdout)[0]
    assert first == {
        "path": "environments/prod/app.yaml",
        "line": 4,
        "column": 8,
        "reason": "ReferenceMissing",
        "message": 'there is no unit prod/nework; did you mean "prod/network"?',
        "unit": "prod/app",
    }


def test_an_empty_answer_is_still_an_answer_for_a_program(tmp_path: Path) -> None:
    folder = tree(tmp_path, SOUND)
    assert json.loads(run(folder, "-o", "json").stdout) == []
    assert json.loads(run(folder, "-o", "gitlab").stdout) == []
    assert json.loads(run(folder, "-o", "sarif").stdout)["runs"][0]["results"] == []
    assert run(folder, "-o", "github").stdout == ""


def test_github(tmp_path: Path) -> None:
    assert run(tree(tmp_path, BROKEN), "-o", "github").stdout.splitlines() == [
        (
            "::error file=environments/prod/app.yaml,line=4,col=8,title=ReferenceMissing::"
            'there is no unit prod/nework; did you mean "prod/network"?'
        ),
        (
            "::error file=environments/prod/network.yaml,line=2,col=10,title=CatalogPinMissing::"
            "version 1.4 is not in catalog-lock.yaml; acme/vpc has 1.4.1, 1.4.2"
        ),
        "::error file=environments/prod/queue.yml,title=PathInvalid::rename it to .yaml",
    ]


def test_a_message_cannot_speak_to_github() -> None:
    problem = Problem(Place("a,b:c%\r"), "X", "50%\n::set-output name=x::y\r")
    assert FORMATS["github"]([problem]) == ("::error file=a%2Cb%3Ac%25%0D,title=X::50%25%0A::set-output name=x::y%0D")


def test_gitlab(tmp_path: Path) -> None:
    found = json.loads(run(tree(tmp_path, BROKEN), "-o", "gitlab").stdout)
    assert [one["location"] for one in found] == [
        {"path": "environments/prod/app.yaml", "lines": {"begin": 4}},
        {"path": "environments/prod/network.yaml", "lines": {"begin": 2}},
        {"path": "environments/prod/queue.yml", "lines": {"begin": 1}},
    ]
    assert {(one["severity"], len(one["fingerprint"])) for one in found} == {("blocker", 64)}
    assert found[2]["check_name"] == "PathInvalid"
    assert found[2]["description"] == "rename it to .yaml"


def test_a_fingerprint_stays_where_lines_move() -> None:
    def fingerprint(problem: Problem) -> Any:
        return json.loads(FORMATS["gitlab"]([problem]))[0]["fingerprint"]

    here = Problem(Place("a", 1, 1), "X", "m", UnitId("p/a"))
    assert fingerprint(here) == fingerprint(Problem(Place("a", 9, 2), "X", "m"))
    assert fingerprint(here) != fingerprint(Problem(Place("a", 1, 1), "X", "n"))


def test_sarif(tmp_path: Path) -> None:
    log = json.loads(run(tree(tmp_path, {**BROKEN, "environments/prod/a b.yaml": ""}), "-o", "sarif").stdout)
    assert (log["version"], log["$schema"]) == ("2.1.0", "https://json.schemastore.org/sarif-2.1.0.json")
    (one,) = log["runs"]
    rules = [rule["id"] for rule in one["tool"]["driver"]["rules"]]
    assert rules == ["CatalogPinMissing", "PathInvalid", "ReferenceMissing"]
    assert all(rules[found["ruleIndex"]] == found["ruleId"] for found in one["results"])
    assert {found["level"] for found in one["results"]} == {"error"}
    places = [found["locations"][0]["physicalLocation"] for found in one["results"]]
    assert places[:2] == [
        {"artifactLocation": {"uri": "environments/prod/a%20b.yaml"}},
        {
            "artifactLocation": {"uri": "environments/prod/app.yaml"},
            "region": {"startLine": 4, "startColumn": 8},
        },
    ]
    assert all(found["message"]["text"] and found["partialFingerprints"] for found in one["results"])


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_the_published_schemas_are_those_of_the_models(name: str) -> None:
    result = CliRunner().invoke(schema, [name])
    assert (result.exit_code, result.stdout) == (0, published(name))
    assert (ROOT / "schemas" / f"{name}.schema.json").read_text() == published(name)


def test_a_schema_of_something_else() -> None:
    assert CliRunner().invoke(schema, ["other"]).exit_code == 2
