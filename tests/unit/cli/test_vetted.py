"""The audit in `catalog add` and in `validate`, over real repositories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.cli import main
from reconciler.config import load_controller
from reconciler.demo import example
from reconciler.demo.forge import Forge
from reconciler.git.catalog import CatalogRepo
from reconciler.git.command import Remote
from reconciler.git.pinned import CatalogStore
from reconciler.lockfile import with_pin
from reconciler.model import Pin

RUNS = 'resource "terraform_data" "x" {\n  provisioner "local-exec" {\n    command = "true"\n  }\n}\n'
TOLD = "modules/a/main.tf:2:3: local-exec: provisioner 'local-exec'"
EXCUSED = '{module: acme/a@1.0.0, rule: local-exec, reason: "looked at by Ann"}'


@pytest.fixture
def catalog(tmp_path: Path) -> Forge:
    forge = Forge.create(tmp_path / "catalog.git")
    forge.commit({"modules/a/main.tf": RUNS, "modules/b/main.tf": 'output "x" {\n  value = 1\n}\n'}, "A")
    forge.tag("v1.0.0")
    return forge


@pytest.fixture
def work(tmp_path: Path, catalog: Forge, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work tree whose lock has both modules."""
    folder = tmp_path / "work"
    (folder / "environments").mkdir(parents=True)
    (folder / "catalog-lock.yaml").write_text(lock(catalog))
    monkeypatch.chdir(folder)
    return folder


def lock(catalog: Forge) -> str:
    repository = opened(catalog, catalog.folder.parent / "mirror.git")
    text = ""
    for name in ("a", "b"):
        pinned = repository.pin(f"modules/{name}", "v1.0.0")
        pin = Pin(f"acme/{name}", "1.0.0", pinned.path, pinned.ref, pinned.commit, pinned.digest)
        text = with_pin("catalog-lock.yaml", text, pin)
    return text


def opened(catalog: Forge, mirror: Path) -> CatalogRepo:
    repository = CatalogRepo(Remote(catalog.url), "main", mirror, allow_file=True)
    repository.update()
    return repository


def config(folder: Path, catalog: Forge, exceptions: str = "") -> Path:
    path = folder / "reconciler.yaml"
    path.write_text(f"""\
environments_repo: {{url: https://git.example.com/e.git, signatures: off}}
catalog_repos:
  acme: {{url: "{catalog.url}", allow_file: true, exceptions: [{exceptions}]}}
store: {{path: state/db}}
executor: {{local: {{socket: runner.sock}}}}
""")
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str, str]:
    try:
        code: object = main(words)
    except SystemExit as ended:
        code = ended.code
    return code, *capsys.readouterr()


def test_a_module_that_is_refused_is_not_locked(
    catalog: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "catalog-lock.yaml"
    words = ("catalog", "add", "acme/a@1.0.0", "--catalog", f"acme={catalog.url}", "--lock", str(written))
    code, out, err = run(capsys, *words)
    assert (code, out.startswith(TOLD), written.exists()) == (1, True, False)
    assert "acme/a 1.0.0 is not locked: 1 thing" in err

    code, out, _ = run(capsys, *words, "-o", "json")
    found = json.loads(out)
    assert (code, found["changed"], [one["rule"] for one in found["findings"]]) == (1, False, ["local-exec"])
    assert {"path", "line", "column", "message"} <= found["findings"][0].keys()


def test_validate_vets_every_version_of_the_lock_from_a_local_clone(
    catalog: Forge, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "validate", "--catalog", f"acme={catalog.folder}")
    assert code == 1
    (line,) = out.splitlines()
    assert line.startswith("catalog-lock.yaml:8:7: acme/a 1.0.0: ")
    assert TOLD in line

    code, out, _ = run(capsys, "validate", "--catalog", f"acme={catalog.folder}", "-o", "json")
    assert [problem["reason"] for problem in json.loads(out)] == ["ModuleRefused"]


def test_validate_uses_what_the_daemon_fetched_and_asks_no_network(
    catalog: Forge, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, catalog)
    code, out, err = run(capsys, "validate", "--config", str(path))
    assert (code, out) == (0, "")
    assert "acme/a 1.0.0 could not be vetted" in err
    assert "say --catalog acme=FOLDER" in err

    repository = opened(catalog, tmp_path / "again.git")
    pinned = repository.pin("modules/a", "v1.0.0")
    CatalogStore(load_controller(path).work_path / "catalog").open(pinned.digest, repository, pinned.commit)
    catalog.folder.rename(tmp_path / "away.git")
    code, out, err = run(capsys, "validate", "--config", str(path))
    assert (code, TOLD in out, "could not be vetted" in err) == (1, True, False)


def test_an_exception_of_the_host_lets_a_version_pass_and_an_idle_one_is_told(
    catalog: Forge, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    idle = '{module: acme/b@1.0.0, rule: connection, reason: "long ago"}'
    path = config(tmp_path, catalog, f"{EXCUSED}, {idle}")
    code, out, err = run(capsys, "validate", "--config", str(path), "--catalog", f"acme={catalog.folder}")
    assert (code, out) == (0, "")
    assert "The exception connection of acme/b@1.0.0 meets nothing: take it out" in err


def test_the_worked_example_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forge = Forge.create(tmp_path / "catalog.git")
    example.release(forge, example.releases())
    entries: Mapping[str, bytes] = example.entries()
    for path, content in entries.items():
        (tmp_path / "work" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "work" / path).write_bytes(content)
    code, out, err = run(capsys, "validate", str(tmp_path / "work"), "--catalog", f"acme={forge.folder}")
    assert (code, out) == (0, "")
    assert "could not be vetted" not in err
