"""Every link from the lock to the bytes, broken one at a time: each job is refused before any `init`, and its neighbour goes on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.demo.example import LOCK
from reconciler.demo.playground import Playground
from reconciler.desired.lock import parse_lock
from reconciler.git.catalog import digest_of
from reconciler.git.tree import FILE
from reconciler.lockfile import with_pin
from reconciler.model import Commit, Lock, Pin, Result, UnitId
from reconciler.runner.host import Host
from reconciler.runner.terraform.packages import this_platform
from tests.kit import plane
from tests.kit.signing import NOON, SshKeys
from tests.provider import mirror

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

PAGE = """\
terraform {
  required_providers {
    files = { source = "reconciler/files" }
  }
}
variable "text" { type = string }
resource "files_file" "page" {
  path    = var.text
  content = "%s"
}
"""
NOTE = plane.NOTE
RELEASES: Mapping[str, Any] = {
    "v1.0.0": {"modules/page/main.tf": PAGE % "one", "modules/note/main.tf": NOTE},
    "v1.1.0": {"modules/page/main.tf": PAGE % "two"},
}
ENTRY = 'module: acme/page\nversion: "%s"\ninputs: {text: page}\n'


class Site:
    """A host, a unit `prod/page` that is attacked, and a unit `prod/other` that has nothing to do with it."""

    def __init__(self, folder: Path, engine: Path, **catalog: Any) -> None:
        self.folder, self.engine = folder, plane.NotedEngine(folder, engine)
        runner: dict[str, Any] = {"engine": self.engine.config(), "catalog_repos": {"acme": catalog}}
        entries = {f"{plane.PROD}/page.yaml": ENTRY % "1.1.0", f"{plane.PROD}/other.yaml": plane.note()}
        self.ground = Playground.create(folder / "ground", {**plane.ENVIRONMENT, **entries}, RELEASES, runner=runner)
        self.host: Host = plane.open_host(self.ground)
        self.jobs = 0

    def run(self, unit: str = "prod/page") -> Result:
        self.jobs += 1
        (self.host.memory.folder / "fetched").unlink(missing_ok=True)
        return plane.carry_out(self.host, plane.job(unit, self.ground.environments.head, self.jobs))

    def refused(self) -> tuple[str, str]:
        """The reason and message of a job that came to no command of the engine, and whose neighbour is well."""
        before = self.engine.commands()
        result = self.run()
        assert self.engine.commands() == before, result
        assert result.applied is None
        assert result.outcome.value in {"Held", "Failed"}
        return result.reason, result.message

    def others_go_on(self) -> None:
        result = self.run("prod/other")
        assert result.outcome.value == "Succeeded", result

    def pin(self, version: str = "1.1.0") -> Pin:
        lock = parse_lock(LOCK, self.ground.read(LOCK).encode())
        assert isinstance(lock, Lock)
        return lock.modules["acme/page"][version]

    def relock(self, **words: Any) -> None:
        """The pin of 1.1.0 says something else from now on."""
        pin = replace(self.pin(), **words)
        self.ground.merge({LOCK: with_pin(LOCK, self.ground.read(LOCK), pin, replaces=True)}, "Lock")

    def digest(self, commit: Commit) -> Any:
        names = subprocess.run(
            ["git", f"--git-dir={self.ground.catalog.folder}", "ls-tree", "-r", "--name-only", commit],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        return digest_of({name: (FILE, self.blob(commit, name)) for name in names})

    def blob(self, commit: Commit, name: str) -> bytes:
        words = ["git", f"--git-dir={self.ground.catalog.folder}", "show", f"{commit}:{name}"]
        return subprocess.run(words, capture_output=True, check=True).stdout

    def entry(self, version: str, more: str = "") -> None:
        self.ground.merge({f"{plane.PROD}/page.yaml": ENTRY % version + more}, "Entry")


@pytest.fixture
def site(tmp_path: Path, engine: Path) -> Site:
    return Site(tmp_path, engine)


def test_as_it_should_be(site: Site) -> None:
    assert site.run().reason == "Applied"
    site.others_go_on()
    assert len(site.engine.inits()) == 2
    remembered = site.host.memory.unit(UnitId("prod/page"))
    assert remembered.engine is not None
    assert remembered.engine.sha256 == site.engine.sha256()
    assert remembered.release is not None
    assert (remembered.release.module, remembered.release.version) == ("acme/page", "1.1.0")


# --- the catalog


def flipped_lock_digest(site: Site) -> None:
    digest = site.pin().digest
    site.relock(digest=digest[:-1] + ("0" if digest[-1] != "0" else "1"))


def commit_of_a_fork(site: Site) -> None:
    """The server has it, a branch of it was even fetched, and its digest is right."""
    stray = site.ground.catalog.commit({"modules/page/main.tf": PAGE % "evil"}, "A fork's", branch="fork")
    site.host.history._branch.catalogs._repository("acme/page").fetch_branch("fork")
    site.relock(commit=stray, digest=site.digest(stray))


def nested_source(site: Site) -> None:
    """Merged, locked with its true digest, by somebody who did not use `catalog add`."""
    call = 'module "x" {\n  source = "git::https://git.example.com/acme/other.git?ref=main"\n}\n'
    evil = site.ground.catalog.commit({"modules/page/more.tf": call}, "Nested")
    site.relock(commit=evil, digest=site.digest(evil))


def rewritten_branch(site: Site) -> None:
    """The branch no longer contains what was accepted; the new pin's commit is on the new branch."""
    site.others_go_on()
    first = site.ground.catalog.at("v1.0.0")
    site.ground.catalog.point("main", first)
    evil = site.ground.catalog.commit({"modules/page/main.tf": PAGE % "evil"}, "Another history")
    site.relock(commit=evil, digest=site.digest(evil))


def another_provider_hash(site: Site) -> None:
    (provider,) = site.pin().providers
    site.relock(providers=(replace(provider, hashes=dict.fromkeys(provider.hashes, ("h1:" + "A" * 43 + "=",))),))


def hashes_of_another_registry(site: Site) -> None:
    (provider,) = site.pin().providers
    site.relock(providers=(replace(provider, hashes={"registry.example.com": (mirror.h1(mirror.PACKAGE),)}),))


def no_provider(site: Site) -> None:
    site.relock(providers=())


def swapped_provider(site: Site) -> None:
    place = site.ground.folder / "providers" / site.host.engine.registry / "reconciler/files" / mirror.VERSION
    program = place / this_platform() / mirror.LAUNCHER
    program.write_text(program.read_text().replace("exec", "#exe"))


def yanked(site: Site) -> None:
    text = site.ground.read(LOCK)
    at = text.index("ref: v1.1.0", text.index("acme/page:"))
    site.ground.merge({LOCK: f"{text[:at]}yanked: it leaks\n        {text[at:]}"}, "Yank")


ATTACKS: list[tuple[Callable[[Site], None], str]] = [
    (flipped_lock_digest, "CatalogDigestMismatch"),
    (commit_of_a_fork, "CatalogUnreachable"),
    (nested_source, "ModuleRefused"),
    (rewritten_branch, "CatalogRewritten"),
    (another_provider_hash, "ProviderHashMismatch"),
    (hashes_of_another_registry, "ProviderNotLocked"),
    (no_provider, "ModuleRefused"),
    (swapped_provider, "ProviderHashMismatch"),
    (yanked, "Yanked"),
]


@pytest.mark.parametrize(("attack", "reason"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_each_is_refused_before_init_and_others_go_on(site: Site, attack: Callable[[Site], None], reason: str) -> None:
    attack(site)
    found, message = site.refused()
    assert found == reason, message
    assert len(message) > 40
    site.others_go_on()


def test_a_byte_in_the_store_is_put_right_before_anything_reads_it(site: Site) -> None:
    assert site.run().reason == "Applied"
    store = site.ground.folder / "runner" / "work" / "catalog" / site.pin().digest.removeprefix("sha256:")
    file = store / "modules/page/main.tf"
    file.chmod(0o644)
    file.write_text(PAGE % "owned")
    file.chmod(0o444)
    assert site.run().reason == "InSync"  # written afresh from the catalog; what was changed lies aside
    assert "owned" not in file.read_text()

    file.chmod(0o644)
    file.write_text(PAGE % "owned")
    file.chmod(0o444)
    shutil.rmtree(site.ground.folder / "runner" / "work" / "catalog-acme.git")
    shutil.rmtree(site.ground.catalog.folder)  # nothing to write it afresh from
    reason, message = site.refused()
    assert reason not in {"InSync", "Applied"}
    assert message


def test_a_moved_tag_changes_nothing(site: Site) -> None:
    moved = site.ground.catalog.commit({"modules/page/main.tf": PAGE % "evil"}, "Evil")
    site.ground.catalog.tag("v1.1.0", moved)
    assert site.run().reason == "Applied"
    assert (site.ground.world / "page").read_text() == "two"


def test_an_engine_that_was_exchanged(site: Site) -> None:
    assert site.run().reason == "Applied"
    text = site.engine.file.read_text()
    site.engine.file.write_text(text + "# another\n")
    reason, message = site.refused()
    assert reason == "EngineChanged"
    assert "write engine.version and engine.sha256 in runner.yaml" in message
    site.engine.file.write_text(text)  # the same bytes again
    assert site.run().reason == "InSync"


def test_an_engine_of_another_kind_goes_on_only_where_the_host_says_so(site: Site) -> None:
    assert site.run().reason == "Applied"
    memory = site.host.memory
    unit = memory.unit(UnitId("prod/page"))
    assert unit.engine is not None
    memory.save(replace(unit, engine=replace(unit.engine, product="tofu")))
    reason, message = site.refused()
    assert reason == "EngineSwitched"
    assert "accepts_states_of: [tofu " in message
    site.others_go_on()

    config = site.ground.runner_config
    config.write_text(config.read_text().replace("engine:\n", "engine:\n  accepts_states_of: [tofu]\n"))
    site.host = plane.open_host(site.ground)
    assert site.run().reason == "InSync"


def test_a_downgrade_needs_its_line(site: Site) -> None:
    assert site.run().reason == "Applied"
    site.entry("1.0.0")
    assert site.refused()[0] == "Downgrade"

    # The same version by another name of the module, in the same folder of the catalog.
    pin = replace(site.pin("1.0.0"), module="acme/renamed")
    site.ground.merge({LOCK: with_pin(LOCK, site.ground.read(LOCK), pin)}, "Renamed")
    site.ground.merge({f"{plane.PROD}/page.yaml": (ENTRY % "1.0.0").replace("acme/page", "acme/renamed")}, "Renamed")
    assert site.refused()[0] == "Downgrade"
    site.others_go_on()

    # By a new name of the unit.
    site.ground.merge(
        {f"{plane.PROD}/page.yaml": None, f"{plane.PROD}/new.yaml": ENTRY % "1.0.0" + "moved_from: page\n"}, "Moved"
    )
    before = site.engine.commands()
    assert site.run("prod/new").reason == "Downgrade"
    assert site.engine.commands() == before
    site.ground.merge(
        {f"{plane.PROD}/new.yaml": ENTRY % "1.0.0" + "moved_from: page\nallow_downgrade: true\n"}, "Meant"
    )
    assert site.run("prod/new").reason == "Applied"


def test_what_runs_by_a_yanked_version_stays_and_may_go(site: Site) -> None:
    assert site.run().reason == "Applied"
    yanked(site)
    assert site.run().reason == "InSync"
    site.entry("1.1.0", "state: absent\nallow_destroy: 1\n")
    assert site.run().reason == "Applied"
    site.entry("1.1.0")
    assert site.refused()[0] == "Yanked"  # making it again would be a new use


def test_signed_tags(tmp_path: Path, engine: Path, ssh_keys: SshKeys) -> None:
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(ssh_keys["release"].line())
    site = Site(tmp_path, engine, allowed_signers=str(allowed))
    assert site.refused()[0] == "CatalogTagInvalid"  # a plain tag

    for tag, key in (("v1.1.0", "mallory"), ("v1.1.0", "release")):
        commit = site.pin().commit
        text = f"object {commit}\ntype commit\ntag {tag}\ntagger A <a@example.org> {NOON} +0000\n\nx\n".encode()
        git = ["git", f"--git-dir={site.ground.catalog.folder}"]
        data = text + ssh_keys[key].sign(text)
        words = [*git, "hash-object", "-w", "-t", "tag", "--stdin"]
        made = subprocess.run(words, input=data, capture_output=True, check=True).stdout.decode().strip()
        subprocess.run([*git, "update-ref", f"refs/tags/{tag}", made], check=True)
        shutil.rmtree(
            site.ground.folder / "runner" / "work" / "catalog-acme.git"
        )  # the mirror keeps a tag as it saw it first
        if key == "mallory":
            assert site.refused()[0] == "SignerUnknown"
    assert site.run().reason == "Applied"
