"""Providers enter once, proven by the lock, and every job installs from there: with a real registry, a real engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.demo.example import LOCK
from reconciler.demo.playground import Playground
from reconciler.desired.lock import parse_lock
from reconciler.errors import HeldError, UnitError
from reconciler.lockfile import with_pin
from reconciler.model import Commit, Lock, Operation, Pin, ProviderPin, Result
from reconciler.runner.host import Host
from reconciler.runner.supply import Fetch, supply
from reconciler.runner.terraform.depot import Depot
from reconciler.runner.terraform.packages import Wanted, this_platform, unpacked
from tests.kit import plane
from tests.kit.registry import Registry, packed, registry, zh
from tests.provider import mirror

pytestmark = pytest.mark.e2e

MODULE = """\
terraform {
  required_providers {
    files = { source = "%s" }
  }
}
variable "text" { type = string }
resource "files_file" "page" {
  path    = var.text
  content = var.text
}
"""
ENTRY = 'module: acme/page\nversion: "1.0.0"\ninputs: {text: "%s"}\n'


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Registry]:
    with registry(tmp_path / "registry") as made:
        yield made


class Site:
    """A host whose engine is a script that notes what it is asked."""

    def __init__(self, folder: Path, engine: Path, source: str, env: dict[str, str], given: Path | None) -> None:
        self.engine = plane.NotedEngine(folder, engine)
        releases = {"v1.0.0": {"modules/page/main.tf": MODULE % source}}
        runner: dict[str, Any] = {
            "engine": self.engine.config(),
            "provider_mirror": {"path": str(given)} if given else None,
            "environments": {"prod": {"env": env}},
        }
        entries = {f"{plane.PROD}/{name}.yaml": ENTRY % name for name in ("a", "b")}
        self.ground = Playground.create(folder / "ground", {**plane.ENVIRONMENT, **entries}, releases, runner=runner)
        self.jobs = 0

    def pin(self) -> Pin:
        lock = parse_lock(LOCK, self.ground.read(LOCK).encode())
        assert isinstance(lock, Lock)
        return lock.modules["acme/page"]["1.0.0"]

    def lock(self, *providers: ProviderPin) -> Commit:
        pin = replace(self.pin(), providers=providers)
        return self.ground.merge({LOCK: with_pin(LOCK, self.ground.read(LOCK), pin, replaces=True)}, "Providers")

    def run(self, unit: str = "prod/a", host: Host | None = None) -> Result:
        self.jobs += 1
        host = host or plane.open_host(self.ground)
        (host.memory.folder / "fetched").unlink(missing_ok=True)
        return plane.carry_out(host, plane.job(unit, self.ground.environments.head, self.jobs))

    def own(self) -> Path:
        """The runner's own mirror."""
        return self.ground.folder / "runner" / "work" / "providers"


@pytest.fixture
def site(tmp_path: Path, engine: Path) -> Callable[..., Site]:
    def make(source: str, given: Path | None = None, **env: str) -> Site:
        return Site(tmp_path, engine, source, env, given)

    return make


def pinned(source: str, *hashes: str, hosts: tuple[str, ...] = ()) -> ProviderPin:
    return ProviderPin(source, mirror.VERSION, dict.fromkeys(hosts or (source.partition("/")[0],), hashes))


@pytest.fixture(params=["h1", "zh"])
def filled(request: pytest.FixtureRequest, served: Registry, site: Callable[..., Site]) -> Site:
    """A host without a mirror, and a lock with one kind of hash."""
    made = site(served.source, SSL_CERT_FILE=str(served.ca_file))
    made.lock(pinned(served.source, mirror.h1(mirror.PACKAGE) if request.param == "h1" else zh(served.archive)))
    return made


def test_the_first_job_fetches_and_every_other_installs_from_there(filled: Site, served: Registry) -> None:
    one, other = filled.run(), filled.run("prod/b")
    assert [(r.reason, r.message) for r in (one, other)] == [("Applied", "1 objects changed.")] * 2
    assert served.downloads() == 1
    assert [".filling-" in folder for folder in filled.engine.inits()] == [
        True,
        False,
    ]  # one to fetch, and none for the second job

    package = filled.own() / served.source / mirror.VERSION / this_platform()
    assert [oct(path.stat().st_mode & 0o777) for path in (package, package / mirror.LAUNCHER)] == ["0o555", "0o555"]
    assert [path.name for path in filled.own().iterdir()] == [served.host]  # nothing is left of the fetch


def test_what_was_changed_in_the_mirror_is_never_run(filled: Site, served: Registry, tmp_path: Path) -> None:
    assert filled.run().reason == "Applied"
    program = filled.own() / served.source / mirror.VERSION / this_platform() / mirror.LAUNCHER
    program.chmod(0o755)
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/owned\n")
    program.chmod(0o555)

    assert filled.run("prod/b").reason == "Applied"
    assert served.downloads() == 2
    assert not (tmp_path / "owned").exists()
    (aside,) = filled.own().glob(".quarantine-*")
    assert "owned" in (aside / mirror.LAUNCHER).read_text()


def test_another_package_from_the_registry_is_refused(filled: Site, served: Registry) -> None:
    served.archive = packed(extra="evil")
    result = filled.run()
    assert (result.outcome.value, result.reason) == ("Failed", "ProviderFetchFailed")
    assert "match" in result.message
    assert not list(filled.own().rglob(mirror.LAUNCHER))
    assert all(".filling-" in folder for folder in filled.engine.inits())


def test_two_jobs_at_once_fetch_once(filled: Site, served: Registry) -> None:
    host = plane.open_host(filled.ground)
    (wanted,) = (
        Wanted(served.host, "reconciler/files", p.version, frozenset(p.hashes[served.host]))
        for p in filled.pin().providers
    )
    env = {"SSL_CERT_FILE": str(served.ca_file)}
    found: list[str] = []

    def provide(number: int) -> None:
        fetch = Fetch(host, env, filled.ground.folder / f"log-{number}")
        found.append(Depot(filled.own(), host.memory.folder / "providers", fetch).provide(wanted))

    threads = [threading.Thread(target=provide, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert found == [mirror.h1(mirror.PACKAGE)] * 4
    assert served.downloads() == 1


def test_a_fetch_that_dies_half_way_leaves_nothing(filled: Site, served: Registry) -> None:
    """As on a full disk: no file grows beyond a block or two. Then the same host has room again."""
    host = plane.open_host(filled.ground)
    (provider,) = filled.pin().providers
    wanted = Wanted(served.host, "reconciler/files", provider.version, frozenset(provider.hashes[served.host]))
    env = {"SSL_CERT_FILE": str(served.ca_file)}
    cramped = filled.engine.file.read_text().replace("exec ", "ulimit -f 1\nexec ")
    filled.engine.file.write_text(cramped)
    depot = Depot(filled.own(), host.memory.folder / "providers", Fetch(host, env, filled.ground.folder / "log"))
    with pytest.raises(UnitError) as caught:
        depot.provide(wanted)
    assert caught.value.reason == "ProviderFetchFailed"
    assert list(filled.own().iterdir()) == []

    # One that was killed between any two steps leaves a folder that nobody holds.
    left = filled.own() / ".filling-0123456789ab" / "deep"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    left.chmod(0o555)
    filled.engine.file.write_text(cramped.replace("ulimit -f 1\n", ""))
    assert depot.provide(wanted) == mirror.h1(mirror.PACKAGE)
    assert not left.exists()


# --- a mirror that the host names, and what the lock says


@pytest.fixture
def given(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    mirror.build(folder)
    return folder


def test_a_mirror_of_the_hosts_is_read_once_and_again_when_it_looks_different(
    site: Callable[..., Site], given: Path
) -> None:
    made = site("reconciler/files", given)
    made.lock(pinned("reconciler/files", mirror.h1(mirror.PACKAGE), hosts=mirror.HOSTS))
    host = plane.open_host(made.ground)
    assert made.run(host=host).reason == "Applied"
    marks = list((host.memory.folder / "providers").glob("*.json"))
    assert len(marks) == 1
    program = given / host.engine.registry / "reconciler/files" / mirror.VERSION / this_platform() / mirror.LAUNCHER
    before = made.engine.commands()
    program.write_text(program.read_text().replace("exec", "#exe"))  # a swapped binary of the same size

    result = made.run("prod/b", host)
    assert (result.outcome.value, result.reason) == ("Held", "ProviderHashMismatch")
    assert "catalog-lock.yaml has no such hash of it: find out which of the two was changed" in result.message
    assert made.engine.commands() == before


@pytest.mark.parametrize(
    ("providers", "reason", "said"),
    [
        ((pinned("reconciler/files", "h1:" + "A" * 43 + "=", hosts=mirror.HOSTS),), "ProviderHashMismatch", "find out which of the two"),
        ((pinned("reconciler/files", mirror.h1(mirror.PACKAGE), hosts=("registry.example.com",)),), "ProviderNotLocked", "no hashes of reconciler/files 1.0.0 from registry."),
        ((replace(pinned("reconciler/files", mirror.h1(mirror.PACKAGE), hosts=mirror.HOSTS), version="1.0.1"),), "ProviderMissing", "leave provider_mirror out"),
        ((pinned("reconciler/files", mirror.h1(mirror.PACKAGE), hosts=mirror.HOSTS), pinned("evil/other", "h1:x", hosts=mirror.HOSTS)), "ProviderNotAllowed", "uses evil/other; catalog_repos.acme.allow_providers in runner.yaml has reconciler/files"),
    ],
)  # fmt: skip
def test_a_lock_that_is_not_the_whole_truth_starts_no_engine(
    providers: tuple[ProviderPin, ...], reason: str, said: str, site: Callable[..., Site], given: Path
) -> None:
    made = site("reconciler/files", given)
    config = made.ground.runner_config
    config.write_text(
        config.read_text().replace(
            "    branch: main\n    tags: v*\n",
            "    branch: main\n    tags: v*\n    allow_providers: [reconciler/files]\n",
        )
    )
    assert "allow_providers" in config.read_text()
    made.lock(*providers)
    result = made.run()
    assert (result.outcome.value, result.reason) == ("Held", reason)
    assert said in result.message
    assert made.engine.commands() == []


def test_a_hash_that_another_pin_brought_does_not_count(filled: Site, served: Registry) -> None:
    """The package is there, proven by one pin; another pin of the same version with other hashes is held."""
    assert filled.run().reason == "Applied"
    filled.lock(pinned(served.source, "zh:" + "0" * 64))
    before = filled.engine.commands()
    result = filled.run("prod/b")
    assert (result.outcome.value, result.reason) == ("Held", "ProviderHashMismatch")
    assert filled.engine.commands() == before


def test_an_archive_in_the_hosts_mirror(tmp_path: Path) -> None:
    wanted = Wanted("registry.terraform.io", "reconciler/files", mirror.VERSION, frozenset({zh(packed())}))
    folder = tmp_path / "mirror" / wanted.host / wanted.source
    folder.mkdir(parents=True)
    archive = folder / f"terraform-provider-files_{mirror.VERSION}_{this_platform()}.zip"
    archive.write_bytes(packed())
    depot = Depot(tmp_path / "mirror", tmp_path / "marks", None)
    assert depot.provide(wanted) == mirror.h1(mirror.PACKAGE)
    assert depot.provide(replace(wanted, hashes=frozenset({mirror.h1(mirror.PACKAGE)})))

    beside = unpacked(tmp_path / "mirror", wanted)  # an engine may take either: both must be right
    beside.mkdir(parents=True)
    (beside / mirror.LAUNCHER).write_text("evil")
    with pytest.raises(HeldError, match="no such hash"):
        depot.provide(wanted)
    archive.write_bytes(b"no archive")
    with pytest.raises(HeldError):
        depot.provide(wanted)


# --- who reads a package again


def words(engine: plane.NotedEngine) -> list[str]:
    return [word for _, word in engine.commands()]


def test_a_package_that_is_swapped_after_the_plan_is_not_applied_with(site: Callable[..., Site], given: Path) -> None:
    """By the engine itself: behind its back, when it has shown the plan."""
    made = site("reconciler/files", given)
    made.lock(pinned("reconciler/files", mirror.h1(mirror.PACKAGE), hosts=mirror.HOSTS))
    host = plane.open_host(made.ground)
    program = given / host.engine.registry / "reconciler/files" / mirror.VERSION / this_platform() / mirror.LAUNCHER
    script = made.engine.file.read_text()
    start = script.splitlines()[-1].removeprefix("exec ")
    swap = f'if [ "$1" = show ]; then {start}; code=$?; echo "#" >> {program}; exit $code; fi'
    made.engine.file.write_text(script.replace("exec ", f"{swap}\nexec "))
    config = made.ground.runner_config
    config.write_text(config.read_text().replace(host.engine.sha256, made.engine.sha256()))

    result = made.run()

    assert (result.outcome.value, result.reason) == ("Held", "ProviderHashMismatch")
    assert words(made.engine)[0] == "init"
    assert "apply" not in words(made.engine)
    assert not (made.ground.world / "a").exists()


@pytest.mark.usefixtures("engine")
def test_who_reads_packages_again(given: Path, tmp_path: Path) -> None:
    """The engine, unless jobs are in a jail and nobody but us and root could have changed one since."""
    releases = {"v1.0.0": {"modules/page/main.tf": MODULE % "reconciler/files"}}
    entries = {**plane.ENVIRONMENT, f"{plane.PROD}/a.yaml": ENTRY % "a"}

    def trusted(folder: str, **runner: Any) -> bool:
        words = {"provider_mirror": {"path": str(given)}, **runner}
        made = Playground.create(tmp_path / folder, entries, releases, runner=words)
        host = plane.open_host(made)
        lock = parse_lock(LOCK, made.read(LOCK).encode())
        assert isinstance(lock, Lock)
        pin = replace(
            lock.modules["acme/page"]["1.0.0"],
            providers=(pinned("reconciler/files", mirror.h1(mirror.PACKAGE), hosts=mirror.HOSTS),),
        )
        host.history.newest(made.environments.head, Operation.PLAN)
        found = supply(host, pin, host.history.tree(pin), {}, tmp_path / "log")
        found.check()
        return found.trusted

    strict = {"sandbox": {"tier": "strict"}}
    assert not trusted("none")
    assert trusted("jailed", **strict)
    assert trusted("once", **strict, providers={"verify": "once"})
    assert not trusted("always", **strict, providers={"verify": "every_command"})
    for package in given.glob("registry.*/reconciler/files/*/*"):
        package.chmod(0o777)
    assert not trusted("writable", **strict)
