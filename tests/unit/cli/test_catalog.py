"""`catalog verify`, `ls` and `show` over real catalogs: what is wrong is told with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.cli import main
from reconciler.demo.forge import Forge

Run = Callable[..., "Done"]


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> object:
        return json.loads(self.out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*words: str) -> Done:
        code = main(words)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return ran


def edit(tree: Path, pattern: str, new: str, *, version: str = "1.0.0") -> str:
    """Change one line of acme/network's version in the lock, and say where it is."""
    lock = tree / "catalog-lock.yaml"
    text = lock.read_text()
    start = text.index(f'"{version}"', text.index("acme/network:"))
    found = re.compile(pattern).search(text, start)
    assert found
    lock.write_text(text[: found.start()] + new + text[found.end() :])
    return f"catalog-lock.yaml:{text.count(chr(10), 0, found.start()) + 1}:"


def test_the_committed_lock_is_true(run: Run, tree: Path, catalog: Forge) -> None:
    done = run("catalog", "verify", "--catalog", f"acme={catalog.url}")
    assert (done.code, done.out) == (0, "")
    assert done.err == "8 versions checked, 0 problems\n"


def test_a_moved_tag_is_told_with_its_line(run: Run, tree: Path, catalog: Forge) -> None:
    before = catalog.at("v1.1.0")
    moved = catalog.commit({"README.md": "other"}, "Other")
    catalog.tag("v1.1.0", moved)

    done = run("catalog", "verify", "acme/network", "--catalog", f"acme={catalog.folder}")

    assert done.code == 1
    line = (tree / "catalog-lock.yaml").read_text().splitlines().index('      "1.1.0":', 60) + 2
    assert done.out == (
        f"catalog-lock.yaml:{line}:14: acme/network 1.1.0: the tag v1.1.0 is {moved}, the lock says {before}: find out "
        "who moved the tag and put it back\n"
    )
    assert done.err == "2 versions checked, 1 problems\n"


def test_a_tag_that_is_gone(run: Run, tree: Path, catalog: Forge) -> None:
    place = edit(tree, "ref: v1.0.0", "ref: v0.9.0")
    done = run("catalog", "verify", "acme/network@1.0.0", "--catalog", f"acme={catalog.folder}")
    assert done.code == 1
    assert done.out.startswith(place)
    assert "has no tag v0.9.0; its newest tags: v1.0.0, v1.1.0." in done.out


def test_a_commit_that_was_never_merged(run: Run, tree: Path, catalog: Forge) -> None:
    fork = catalog.commit({"modules/network/main.tf": "# evil"}, "A fork's", branch="fork")
    catalog.tag("v1.0.0-fork", fork)
    place = edit(tree, 'commit: "[0-9a-f]+"', f'commit: "{fork}"')
    edit(tree, "ref: v1.0.0", "ref: v1.0.0-fork")

    done = run("catalog", "verify", "--catalog", f"acme={catalog.folder}", "-o", "json")

    assert done.code == 1
    (problem,) = json.loads(done.out)
    assert (problem["path"], problem["reason"]) == ("catalog-lock.yaml", "CatalogUnreachable")
    assert f"catalog-lock.yaml:{problem['line']}:" == place
    assert f"the protected branch does not contain {fork}" in problem["message"]
    assert "reconciler catalog add acme/network@1.0.0 --replace" in problem["message"]


def test_a_digest_that_is_wrong(run: Run, tree: Path, catalog: Forge) -> None:
    place = edit(tree, "digest: sha256:[0-9a-f]{64}", f"digest: sha256:{'0' * 64}")
    done = run("catalog", "verify", "--catalog", f"acme={catalog.folder}")
    assert done.code == 1
    assert done.out.startswith(place)
    assert "has the digest sha256:f7bb40e0" in done.out
    assert len(done.out.splitlines()) == 1


def test_a_folder_without_a_module(run: Run, tree: Path, catalog: Forge) -> None:
    lock = tree / "catalog-lock.yaml"
    lock.write_text(lock.read_text().replace("path: modules/network", "path: modules/nowhere"))
    done = run("catalog", "verify", "--catalog", f"acme={catalog.folder}")
    assert done.code == 1
    assert len(done.out.splitlines()) == 2
    assert re.match(
        r"catalog-lock.yaml:\d+:11: acme/network 1.0.0: .* has no Terraform files in 'modules/nowhere'", done.out
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            (),
            "where the catalog acme is, is not known (known: none): say --catalog acme=URL, or --config reconciler.yaml",
        ),
        (("--catalog", "other=/nowhere"), "where the catalog acme is, is not known (known: other)"),
        (("--catalog", "acme=/nowhere"), "nowhere"),
    ],
)
def test_a_catalog_that_cannot_be_asked(run: Run, tree: Path, words: tuple[str, ...], said: str) -> None:
    done = run("catalog", "verify", *words)
    assert done.code == 1
    assert done.out.count("\n") == 4  # once for each module
    assert said in done.out


def test_where_catalogs_are_comes_from_the_daemons_configuration(
    run: Run, tree: Path, catalog: Forge, tmp_path: Path
) -> None:
    config = tmp_path / "reconciler.yaml"
    config.write_text(f"""\
environments_repo: {{url: https://git.example.com/e.git, signatures: off}}
catalog_repos:
  acme: {{url: "{catalog.url}", allow_file: true}}
store: {{path: db}}
executor: {{local: {{socket: runner.sock}}}}
""")
    assert run("catalog", "verify", "--config", str(config)).code == 0


def test_ls_knows_who_uses_what(run: Run, tree: Path) -> None:
    edit(tree, "ref: v1.1.0", "yanked: drops packets\n        ref: v1.1.0", version="1.1.0")
    (tree / "environments/dev/broken.yaml").write_text("module: [\n")
    rows = run("catalog", "ls", "-o", "json").json()
    assert isinstance(rows, list)
    found = {(row["module"], row["version"]): (row["used_by"], row["yanked"]) for row in rows}
    assert found["acme/network", "1.0.0"] == (["prod/network", "stage/network"], None)
    assert found["acme/network", "1.1.0"] == (["dev/network"], "drops packets")
    assert len(found) == 8

    done = run("catalog", "ls")
    assert re.search(r"^acme/network +1\.1\.0 +40ea0eeb6f8b +drops packets +dev/network$", done.out, re.MULTILINE)


def test_show_tells_what_a_module_asks_for(run: Run, tree: Path, catalog: Forge) -> None:
    shown = run("catalog", "show", "acme/service@1.0.0", "--catalog", f"acme={catalog.folder}", "-o", "json").json()
    assert isinstance(shown, dict)
    inputs = {found["name"]: found for found in shown["inputs"]}
    assert inputs["password"] == {"name": "password", "type": "string", "required": True, "sensitive": True}
    assert not inputs["replicas"]["required"]
    assert "health_path" not in inputs
    assert {"name": "dsn", "sensitive": True} in shown["outputs"]
    assert [found["source"] for found in shown["providers"]] == ["reconciler/files"]
    assert shown["used_by"] == ["prod/service-api", "prod/service-web", "stage/service-api", "stage/service-web"]

    newest = run("catalog", "show", "acme/service", "--catalog", f"acme={catalog.folder}")
    assert "acme/service 1.1.0" in newest.out
    assert re.search(r"^password +string +yes +yes$", newest.out, re.MULTILINE)
    assert re.search(r"^dsn +yes$", newest.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("show", "acme/service@9.9.9"), 1, "acme/service@9.9.9 is not in the lock, which has 1.0.0, 1.1.0"),
        (("show", "acme/nothing"), 1, "acme/nothing is not in the lock, which has acme/bucket, acme/cluster"),
        (("show", "service"), 64, "a module is <catalog>/<name>"),
        (("add", "acme/service"), 64, "say which version: MODULE@VERSION"),
        (
            ("ls", "--lock", "nowhere.yaml"),
            1,
            "nowhere.yaml: No such file or directory: go to the root of the environments",
        ),
        (("verify", "--catalog", "acme"), 64, "write NAME=URL"),
        (("verify", "--catalog", "acme=ftp://x"), 1, "--catalog acme: no repository's address; write https://"),
        (("verify", "--catalog", "acme=https://me:pass@x/y"), 1, "put the token into token_file"),
    ],
)
def test_wrong_words(run: Run, tree: Path, words: tuple[str, ...], code: int, said: str) -> None:
    done = run("catalog", *words)
    assert done.code == code
    assert said in re.sub(r"\s+", " ", done.out + done.err)


def test_a_broken_lock_is_told_whole(run: Run, tree: Path) -> None:
    place = edit(tree, "ref: v1.0.0", "reff: v1.0.0")
    done = run("catalog", "ls")
    assert done.code == 1
    assert f'{place}9: unknown field "reff"; did you mean "ref"?' in done.err
