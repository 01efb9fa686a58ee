"""A folder with everything that the daemon meets in production, on one machine: repositories, states, secrets, a cloud.

catalog.git, environments.git    the forge's bare repositories; environments.git refuses pushes to main
work/                            a working clone of the environments
merge                            what the forge's merge button does
reconciler.yaml, runner.yaml     the two planes' configurations
world/                           the real objects, and `calls.log` with every call of the provider
providers/ secrets/ states/      the runner's host
controller/ runner/ logs/        what the planes keep
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import socket
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reconciler.demo import example
from reconciler.demo.example import LOCK, Releases
from reconciler.demo.forge import Files, Forge, git
from reconciler.errors import ConfigError
from reconciler.model import Commit

CATALOG_NAME = "acme"
INTERPRETER = sys.executable  # runs the provider of files
LONGEST_SOCKET = 100  # bytes: the system's limit is 108, macOS's 104
PASSWORD = "correct horse battery staple"  # noqa: S105 - of a database that is a file

_SECRET = re.compile(r"\$\{\{\s*secret\.([A-Za-z_][A-Za-z0-9_-]*)")
_ELSEWHERE = re.compile(r"\$\{\{\s*/([a-z0-9][a-z0-9_-]*)/")


@dataclass(frozen=True, slots=True)
class Playground:
    """One such folder. `runtime` holds the sockets: the folder's own `run`, or a short one where its path is long."""

    folder: Path
    runtime: Path
    catalog: Forge
    environments: Forge

    @classmethod
    def create(
        cls,
        folder: Path,
        entries: Files | None = None,
        catalog: Releases | None = None,
        *,
        controller: Mapping[str, Any] | None = None,
        runner: Mapping[str, Any] | None = None,
    ) -> Playground:
        """Build a playground in a folder that is empty or missing.

        `entries` are the first commit's files and `catalog` the releases (tag -> what it changes); both default to the
        worked example. Entries without a lock get one with every module of every release. `controller` and `runner`
        are laid over the two configurations, mapping by mapping; a None removes.

        Raises:
            ConfigError: the folder holds something already.
        """
        folder = folder.resolve()
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty: name another folder, or remove it")
        folder.mkdir(parents=True, exist_ok=True)
        made = cls.at(folder)
        made.runtime.mkdir(mode=0o700, exist_ok=True)
        made._build(entries, catalog)  # noqa: SLF001 - its own
        made._configure(controller or {}, runner or {})  # noqa: SLF001 - its own
        return made

    @classmethod
    def at(cls, folder: Path) -> Playground:
        """The playground in a folder, built before or about to be."""
        folder = folder.resolve()
        return cls(folder, _runtime(folder), Forge(folder / "catalog.git"), Forge(folder / "environments.git"))

    # --- where things are

    @property
    def controller_config(self) -> Path:
        """The controller's configuration."""
        return self.folder / "reconciler.yaml"

    @property
    def runner_config(self) -> Path:
        """The runner's configuration."""
        return self.folder / "runner.yaml"

    @property
    def world(self) -> Path:
        """The real objects: `<region>/<path>`."""
        return self.folder / "world"

    @property
    def clone(self) -> Path:
        """The working clone."""
        return self.folder / "work"

    @property
    def logs(self) -> Path:
        """What the processes print."""
        return self.folder / "logs"

    @property
    def address(self) -> str:
        """The controller's HTTP interface."""
        config = yaml.safe_load(self.controller_config.read_text(encoding="utf-8"))
        return f"http://{config['http']['listen']}"

    def state(self, unit: str) -> Path:
        """A unit's local state file."""
        return self.folder / "states" / f"{unit}.tfstate"

    # --- what people do

    def merge(self, files: Files, message: str = "A change") -> Commit:
        """Merge a reviewed pull request with these changes; None removes a file."""
        return self.environments.merge(files, message)

    def commit_direct(self, files: Files, message: str = "A commit without a merge") -> Commit:
        """Commit onto the protected branch itself, as a forge without protection would let someone."""
        return self.environments.commit(files, message)

    def read(self, path: str) -> str:
        """A file of the protected branch."""
        return self.environments.show(path) + "\n"

    def edit(self, path: str, old: str, new: str, message: str = "An edit") -> Commit:
        """Merge a file with some text replaced. Raises ConfigError if the text is not in it."""
        text = self.read(path)
        if old not in text:
            raise ConfigError(f"{path} does not contain {old!r}")
        return self.merge({path: text.replace(old, new)}, message)

    def close(self) -> None:
        """Remove what lies outside the folder."""
        if self.runtime.parent != self.folder:
            shutil.rmtree(self.runtime, ignore_errors=True)

    def destroy(self) -> None:
        """Remove everything. The planes must have ended."""
        self.close()
        for inner, _, _ in os.walk(self.folder):  # pinned trees are read-only
            Path(inner).chmod(0o700)
        shutil.rmtree(self.folder)

    # --- how it is made

    def _build(self, entries: Files | None, catalog: Releases | None) -> None:
        Forge.create(self.catalog.folder)
        Forge.create(self.environments.folder, protected=True)
        releases = example.releases() if catalog is None else catalog
        example.release(self.catalog, releases)
        files: dict[str, str | bytes | None] = {**(example.entries() if entries is None else entries)}
        if LOCK not in files:
            files[LOCK] = example.lock_of(self.catalog, releases, CATALOG_NAME)
        self.environments.commit(files, "The first environments")
        example.build_mirror(self.folder / "providers")
        for name in ("world", "logs", "secrets", "states", "controller", "runner"):
            (self.folder / name).mkdir(mode=0o700)
        git(self.folder, "clone", "--quiet", str(self.environments.folder), str(self.clone))
        _identify(self.clone)
        script = self.folder / "merge"
        script.write_text(self.environments.merge_script(), encoding="utf-8")
        script.chmod(0o755)

    def _configure(self, controller: Mapping[str, Any], runner: Mapping[str, Any]) -> None:
        repositories = {
            "environments_repo": {
                "url": self.environments.url, "branch": "main", "genesis": self.environments.head,
                "signatures": "off", "allow_file": True,
            },
            "catalog_repos": {
                CATALOG_NAME: {"url": self.catalog.url, "branch": "main", "tags": "v*", "allow_file": True},
            },
        }  # fmt: skip
        self._write(self.controller_config, "controller", repositories | self._controller(), controller)
        self._write(self.runner_config, "runner", repositories | self._runner(), runner)

    def _controller(self) -> dict[str, Any]:
        return {
            "store": {"path": str(self.folder / "controller" / "reconciler.db")},
            "executor": {"local": {"socket": str(self.runtime / "runner.sock"), "workers": 4, "per_environment": 2}},
            "http": {"listen": f"127.0.0.1:{free_port()}"},
            "admin": {"socket": str(self.runtime / "admin.sock"), "users": [_user()]},
        }

    def _runner(self) -> dict[str, Any]:
        return {
            "memory": {"path": str(self.folder / "runner")},
            "socket": str(self.runtime / "runner.sock"),
            "allow": [{"operations": ["plan", "apply"], "refs": "merged", "folders": ["environments/**"]}],
            "engine": "auto",
            "provider_mirror": {"path": str(self.folder / "providers")},
            "environments": self._environments(),
        }

    def _environments(self) -> dict[str, Any]:
        """What the host knows of each environment of the first commit: as its entries need it, and no more."""
        texts: dict[str, list[str]] = {}
        for path in self.environments.paths("environments/"):
            texts.setdefault(path.split("/")[1], []).append(self.read(path))
        return {name: self._environment(name, texts) for name in texts}

    def _environment(self, name: str, texts: Mapping[str, list[str]]) -> dict[str, Any]:
        settings = yaml.safe_load(self.read(f"environments/{name}/environment.yaml"))
        readers = [
            other for other, found in texts.items() if other != name and name in _ELSEWHERE.findall("".join(found))
        ]
        secrets = sorted(set(_SECRET.findall("".join(texts[name]))))
        found = {
            "class": settings["class"],
            "backend": {"local": {"path": str(self.folder / "states")}},
            "readable_by": sorted(readers),
            "secrets": {secret: {"file": str(self._secret(name, secret))} for secret in secrets},
            "env": {"FILES_PYTHON": INTERPRETER, "FILES_ROOT": str(self.world)},
        }
        return {field: value for field, value in found.items() if value}

    def _secret(self, environment: str, name: str) -> Path:
        path = self.folder / "secrets" / environment / name
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.write_text(f"{environment} {PASSWORD}", encoding="utf-8")
        path.chmod(0o600)
        return path

    def _write(self, path: Path, schema: str, config: Mapping[str, Any], over: Mapping[str, Any]) -> None:
        head = f"# Made by `reconciler demo`. `reconciler schema {schema}` describes every field.\n"
        path.write_text(head + yaml.safe_dump(laid_over(config, over), sort_keys=False), encoding="utf-8")
        path.chmod(0o600)


def laid_over(config: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with another laid over it, mapping by mapping; None removes."""
    merged = dict(config)
    for name, value in over.items():
        inner = merged.get(name)
        merged[name] = laid_over(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return {name: value for name, value in merged.items() if value is not None}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _user() -> str:
    """Who plays, as the daemon names whoever talks to its socket."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user that has no name
        return str(os.getuid())


def _identify(clone: Path) -> None:
    """A name for commits in the clone, where the person at the keyboard has not told git theirs."""
    git(clone, "config", "user.name", "Ada")
    git(clone, "config", "user.email", "ada@example.com")


def _runtime(folder: Path) -> Path:
    """Where sockets are: their paths are limited to about a hundred bytes."""
    inside = folder / "run"
    if len(os.fsencode(inside / "runner.sock")) <= LONGEST_SOCKET:
        return inside
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    short = Path("/tmp", f"reconciler-{os.getuid()}-{digest}")  # noqa: S108 - made 0700, and its owner is checked
    if short.exists() and (short.lstat().st_uid != os.getuid() or not stat.S_ISDIR(short.lstat().st_mode)):
        raise ConfigError(f"{short} belongs to somebody else: name a folder with a shorter path")
    return short
