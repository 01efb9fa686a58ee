"""`catalog outdated`, and the recipe of docs/renovate.md carried out by its own words."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from reconciler.cli import main
from reconciler.demo.forge import Forge
from reconciler.desired.lock import parse_lock
from reconciler.model import Lock
from tests.kit.signing import NOON, SshKeys

PAGE = (Path(__file__).parents[3] / "docs/renovate.md").read_text()


class Outdated:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, dict[tuple[str, str, str | None, str | None], list[str]]]:
        code = main(["catalog", "outdated", "-o", "json", *words])
        rows = json.loads(self._capsys.readouterr().out)
        return code, {(r["kind"], r["module"], r["version"], r["newest"]): r["units"] for r in rows}

    def text(self, *words: str) -> tuple[int, str, str]:
        code = main(["catalog", "outdated", *words])
        out, err = self._capsys.readouterr()
        return code, out, err


@pytest.fixture
def outdated(capsys: pytest.CaptureFixture[str]) -> Outdated:
    return Outdated(capsys)


def use(tree: Path, version: str) -> None:
    """Every entry uses this version."""
    for path in (tree / "environments").rglob("*.yaml"):
        path.write_text(re.sub(r'^version: ".*"', f'version: "{version}"', path.read_text(), flags=re.MULTILINE))


def test_entries_behind_the_lock(tree: Path, outdated: Outdated) -> None:
    code, rows = outdated()
    assert code == 2
    assert rows["entry", "acme/network", "1.0.0", "1.1.0"] == ["prod/network", "stage/network"]
    assert {kind for kind, *_ in rows} == {"entry"}

    use(tree, "1.1.0")
    assert outdated() == (0, {})
    assert outdated.text()[:2] == (0, "")
    assert "The catalogs were not asked" in outdated.text()[2]


def test_yanked_and_missing_versions(tree: Path, outdated: Outdated) -> None:
    lock = tree / "catalog-lock.yaml"
    text = lock.read_text()
    at = text.index("ref: v1.1.0", text.index("acme/network:"))
    lock.write_text(f"{text[:at]}yanked: it leaks\n        {text[at:]}")
    use(tree, "1.1.0")
    code, rows = outdated()
    assert (code, list(rows)) == (2, [("yanked", "acme/network", "1.1.0", "1.0.0")])
    code, out, _ = outdated.text()
    assert code == 2
    assert re.search(r"^yanked +acme/network +1\.1\.0 +1\.0\.0 +dev/network, .*: it leaks$", out, re.MULTILINE)

    use(tree, "3.0.0")
    kinds = {kind for kind, *_ in outdated()[1]}
    assert kinds == {"missing"}


def test_releases_that_the_lock_does_not_have(tree: Path, catalog: Forge, outdated: Outdated) -> None:
    use(tree, "1.1.0")
    where = ("--catalog", f"acme={catalog.url}")
    assert outdated(*where) == (0, {})

    catalog.tag("v1.2.0")
    catalog.tag("network/v1.3.0")
    catalog.tag("v2.0.0-rc.1")
    catalog.tag("v1.0.5")  # older than what the lock has
    catalog.tag("vNext")
    catalog.tag("v9.0.0", catalog.commit({"x": "y"}, "Never merged", branch="fork"))
    code, rows = outdated(*where)
    assert code == 2
    assert set(rows) == {
        ("release", f"acme/{name}", "1.1.0", "1.3.0" if name == "network" else "1.2.0")
        for name in ("bucket", "cluster", "network", "service")
    }
    assert ("release", "acme/bucket", "1.1.0", "2.0.0-rc.1") in outdated(*where, "--prereleases")[1]

    catalog.tag("v1.4.0", catalog.commit(dict.fromkeys(catalog.paths("modules/bucket")), "Gone"))
    assert ("release", "acme/bucket", "1.1.0", "1.2.0") in outdated(*where)[1]  # it is not there any more at v1.4.0
    assert ("release", "acme/cluster", "1.1.0", "1.4.0") in outdated(*where)[1]


# --- signed tags, where the configuration says so


def signed_tag(catalog: Forge, keys: SshKeys, name: str, key: str) -> None:
    payload = f"object {catalog.head}\ntype commit\ntag {name}\ntagger A <a@example.org> {NOON} +0000\n\nx\n".encode()
    made = subprocess.run(
        ["git", f"--git-dir={catalog.folder}", "hash-object", "-w", "-t", "tag", "--stdin"],
        input=payload + keys[key].sign(payload), capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    subprocess.run(["git", f"--git-dir={catalog.folder}", "update-ref", f"refs/tags/{name}", made], check=True)


def test_add_and_verify_want_signed_tags(
    tmp_path: Path,
    tree: Path,
    catalog: Forge,
    ssh_keys: SshKeys,
    capsys: pytest.CaptureFixture[str],
    engine: Path,
    provider_mirror: Path,
) -> None:
    allowed, config, lock = tmp_path / "allowed", tmp_path / "reconciler.yaml", tmp_path / "work/catalog-lock.yaml"
    allowed.write_text(ssh_keys["release"].line())
    config.write_text(f"""\
environments_repo: {{url: https://git.example.com/e.git, signatures: off}}
catalog_repos:
  acme: {{url: "{catalog.url}", allow_file: true, allowed_signers: "{allowed}"}}
store: {{path: db}}
executor: {{local: {{socket: runner.sock}}}}
""")
    add = [
        "catalog",
        "add",
        "--config",
        str(config),
        "--engine",
        str(engine),
        "--provider-mirror",
        str(provider_mirror),
    ]
    for version, key in (("1.2.0", "release"), ("1.3.0", "mallory")):
        signed_tag(catalog, ssh_keys, f"v{version}", key)
    before = lock.read_text()
    assert main([*add, "acme/bucket@1.3.0"]) == 1
    assert "which nobody on this host's list has" in capsys.readouterr().err
    assert lock.read_text() == before
    assert main([*add, "acme/bucket@1.2.0"]) == 0
    assert main(["catalog", "verify", "--config", str(config), "acme/bucket@1.2.0"]) == 0
    capsys.readouterr()

    elsewhere = ["--catalog", f"acme={catalog.url}"]  # the host's word on who signs holds for a copy too
    for where in ([], elsewhere):
        assert main(["catalog", "verify", "--config", str(config), *where, "-o", "json", "acme/bucket@1.1.0"]) == 1
        (problem,) = json.loads(capsys.readouterr().out)
        assert problem["reason"] == "CatalogTagInvalid"
        assert "is a plain one" in problem["message"]


# --- docs/renovate.md


def validated() -> object:
    """The exit code of `validate`."""
    with pytest.raises(SystemExit) as ended:
        main(["validate"])
    return ended.value.code


def expressions() -> list[str]:
    """The page's regular expressions, in Python's words."""
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    (manager,) = json.loads(block)["customManagers"]
    return [found.replace("(?<", "(?P<") for found in manager["matchStrings"]]


def test_the_page_s_expressions_find_every_entry(tree: Path) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    (manager,) = json.loads(block)["customManagers"]
    (pattern,) = (p.strip("/") for p in manager["managerFilePatterns"])
    (expression,) = expressions()
    found = set()
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        if re.search(pattern, path.relative_to(tree).as_posix()):
            found |= {(m["depName"], m["currentValue"]) for m in re.finditer(expression, path.read_text())}
    lock = parse_lock("catalog-lock.yaml", (tree / "catalog-lock.yaml").read_bytes())
    assert isinstance(lock, Lock)
    modules = set(
        re.findall(
            r"^module: acme/(\S+)\nversion: \"([^\"]+)\"",
            "\n".join(p.read_text() for p in (tree / "environments").rglob("*.yaml")),
            re.MULTILINE,
        )
    )
    assert found == modules
    assert len(found) > 4
    assert {f"acme/{name}" for name, _ in found} == set(lock.modules)
    version = manager["extractVersionTemplate"].replace("(?<", "(?P<")
    assert [re.match(version, tag)["version"] for tag in ("v1.0.0", "v1.1.0-rc.1")] == ["1.0.0", "1.1.0-rc.1"]  # type: ignore[index]


def test_the_page_s_steps_lock_what_renovate_wrote(
    tmp_path: Path, tree: Path, catalog: Forge, engine: Path, provider_mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As CI would: Renovate's change of an entry, `outdated` for what is missing, `add` for each, and then it validates."""
    catalog.tag("v1.2.0")
    (expression,) = expressions()
    path = tree / "environments/stage/network.yaml"
    text = path.read_text()
    match = re.search(expression, text)
    assert match
    start, end = match.span("currentValue")
    path.write_text(f"{text[:start]}1.2.0{text[end:]}")
    assert validated() == 1
    capsys.readouterr()

    assert main(["catalog", "outdated", "-o", "json"]) == 2
    rows = json.loads(capsys.readouterr().out)
    missing = sorted({f"{row['module']}@{row['version']}" for row in rows if row["kind"] == "missing"})
    assert missing == ["acme/network@1.2.0"]
    where = ("--catalog", f"acme={catalog.url}", "--engine", str(engine), "--provider-mirror", str(provider_mirror))
    assert [main(["catalog", "add", wanted, *where]) for wanted in missing] == [0]
    assert validated() == 0
    lock = parse_lock("catalog-lock.yaml", (tree / "catalog-lock.yaml").read_bytes())
    assert isinstance(lock, Lock)
    assert set(lock.modules["acme/network"]) == {"1.0.0", "1.1.0", "1.2.0"}
    assert lock.modules["acme/network"]["1.2.0"].commit == catalog.head
