"""A server's branch that anything may happen to, and both planes that look at it: their real code over real git and disks.

Commits are put together from their parts, so that a topology is what it says; each has a name in the scene.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict, Unpack

from reconciler.branch.protected import open_branch
from reconciler.config import ControllerConfig, RunnerConfig
from reconciler.controller.daemon import SystemClock
from reconciler.controller.poller import AcceptedInStore, Poller
from reconciler.errors import HeldError, PassError
from reconciler.logs import open_log
from reconciler.model import Commit, Operation
from reconciler.observe import Observer
from reconciler.runner.history import History
from reconciler.runner.memory import Anew, Memory
from reconciler.store.sqlite import SqliteStore
from reconciler.trust import Standing
from tests.kit.gitrepo import RepoBuilder
from tests.kit.signing import NOON, SshKeys, payload, with_signature, write

MINUTE, DAY = 60, 86_400
SETTINGS = "environments/prod/environment.yaml"


@dataclass(frozen=True)
class Seen:
    """How a plane stands after a look: the commit it is at, what froze it, and the first commit that it has no proof for."""

    at: str
    frozen: str | None = None
    unproven: tuple[str, str] | None = None  # name, reason


class CommitOptions(TypedDict, total=False):
    """What is special about a commit."""

    by: str | None  # whose key signs it, where keys are on: ada's
    at: int  # its date: a minute after the one made before
    files: str  # other files than the genesis has, told apart by this text
    namespace: str  # what the signature is for: git
    tampered: bool  # changed after it was signed


class Scene:
    """The server. `main` is the protected branch; `genesis` its first commit, at which both planes start."""

    def __init__(self, folder: Path, keys: SshKeys | None = None) -> None:
        """`keys`: signatures are on, `ada` may sign; without, they are off."""
        self.folder, self.keys = folder, keys
        self.repo = RepoBuilder.create(folder / "server.git")
        self.names: dict[str, Commit] = {}
        self._trees: dict[str | None, str] = {}
        self._minutes = 0
        self.allowed(*(["ada"] if keys else []))
        self.commit("genesis", by="ada")
        self.push("genesis")

    # --- commits

    def commit(self, name: str, *parents: str, **options: Unpack[CommitOptions]) -> Commit:
        """A commit on these parents, by their names; signed where keys are on."""
        self._minutes += 1
        data = payload(
            tuple(self.names[parent] for parent in parents),
            at=options.get("at", NOON + MINUTE * self._minutes),
            message=name,
            tree=self._tree(options.get("files")),
        )
        by = options.get("by", "ada")
        if self.keys is not None and by is not None:
            signature = self.keys[by].sign(data, options.get("namespace", "git"))
            data = with_signature(data.replace(b"Ada", b"Eve") if options.get("tampered") else data, signature)
        self.names[name] = write(self.repo, data, None)
        return self.names[name]

    def chain(self, name: str, start: str, count: int, **options: Unpack[CommitOptions]) -> str:
        """`count` commits, each on the one before: `name-1` and so on. The last one's name; `name-0` is the start's."""
        self.names[f"{name}-0"] = self.names[start]
        for number in range(1, count + 1):
            self.commit(f"{name}-{number}", f"{name}-{number - 1}", **options)
        return f"{name}-{count}"

    def _tree(self, text: str | None) -> str:
        if text not in self._trees:
            words = "class: protected\n" + (f"# {text}\n" if text is not None else "")
            self._trees[text] = self.repo.tree({SETTINGS: ("100644", self.repo.blob(words))})
        return self._trees[text]

    def push(self, name: str) -> None:
        """The branch is at the commit now, whatever it was."""
        self.repo.point("main", self.names[name])

    def delete(self) -> None:
        """The branch is gone."""
        self.repo.git("update-ref", "-d", "refs/heads/main")

    # --- the host's keys

    def allowed(self, *people: str, options: str = "") -> None:
        """Who may sign, from now on."""
        lines = [self.keys[name].line(options=options) for name in people] if self.keys else []
        (self.folder / "allowed_signers").write_text("".join(lines))
        (self.folder / "revoked_keys").touch()

    def revoke(self, name: str) -> None:
        """A key counts no more, from now on and for what it has signed."""
        assert self.keys is not None
        with (self.folder / "revoked_keys").open("a") as file:
            file.write(self.keys[name].public + "\n")

    def repository(self) -> dict[str, object]:
        """The environments repository, as both planes configure it."""
        files = {name: str(self.folder / name) for name in ("allowed_signers", "revoked_keys")}
        return {
            "url": self.repo.url,
            "branch": "main",
            "genesis": self.names["genesis"],
            "allow_file": True,
            "signatures": files if self.keys else "off",
        }


@dataclass
class Plane:
    """One plane: it looks, it is told of another history, and it says how it stands. Each time as a new process would."""

    scene: Scene
    folder: Path
    kind: str
    error: PassError | None = field(default=None, init=False)

    @property
    def mirror(self) -> Path:
        return self.work / "environments.git"

    @property
    def work(self) -> Path:
        return self.runner().work_path if self.kind == "runner" else self.controller().work_path

    def look(self) -> Seen:
        """Look once, as a poll or a job does."""
        return self._seen(self._poll() if self.kind == "controller" else self._job())

    def accept(self, old: str, new: str) -> Seen:
        """`accept-history`. Raises PassError."""
        names = self.scene.names
        if self.kind == "controller":
            with self._poller() as poller:
                poller.accept_history(names[old], names[new], "for a test", "ada")
                return self._seen(poller.standing())
        history = self._history()
        history.accept_history(Anew(names[old], names[new], "for a test", "ada", datetime.now(UTC)), lambda _: None)
        return self._seen(history.standing())

    def fetch_only(self) -> None:
        """Fetch what there is and be killed before it is accepted."""
        if self.kind == "controller":
            with self._store() as store:
                open_branch(self.controller(), AcceptedInStore(store)).source.poll()
        else:
            open_branch(self.runner(), self._history()).source.poll()

    def _poll(self) -> Standing:
        with self._poller() as poller:
            poller.poll()
            self.error = poller.error
            standing = poller.standing()
            latest = poller.latest()
            assert latest is None or latest.commit == standing.accepted_head  # plans go on at the last good commit
            return standing

    def _job(self) -> Standing:
        """An apply is refused while the branch is frozen, and only then; a plan goes on at the accepted head."""
        history = self._history()
        wanted = history.load() or self.scene.names["genesis"]
        held: HeldError | None = None
        for _ in range(2):  # a job that meets a damaged mirror fails, and the next one has it mended
            (self.runner().memory_path / "fetched").unlink(missing_ok=True)  # a fetch counts for five seconds
            try:
                history.newest(wanted, Operation.APPLY)
            except HeldError as error:
                held = error
            except PassError:
                continue
            break
        else:
            assert history.standing().accepted_head is None  # from the first on the last good one stays in force
        self.error = self._failed_fetch()
        frozen = history.standing().frozen
        assert (frozen.reason if frozen else None) == (held.reason if held else None)
        accepted = history.load()
        if accepted is not None:
            assert history.newest(accepted, Operation.PLAN).commit == accepted
        return history.standing()

    def _failed_fetch(self) -> PassError | None:
        folder = self.runner().memory_path
        if (folder / "fetched").exists() or not (folder / "fetch-failed").exists():
            return None
        return PassError(*json.loads((folder / "fetch-failed").read_bytes()))

    def _seen(self, standing: Standing) -> Seen:
        found = standing.seen.unproven if standing.seen else None
        frozen = standing.frozen.reason if standing.frozen else None
        assert (frozen is None) == (standing.frozen_at is None)
        # What was last seen to be unproven says nothing while the branch is another.
        unproven = (self._name(found.commit), found.reason) if found and frozen is None else None
        return Seen(self._name(standing.accepted_head), frozen, unproven)

    def _name(self, commit: Commit | None) -> str:
        return next((name for name, known in self.scene.names.items() if known == commit), str(commit))

    def _history(self) -> History:
        config = self.runner()
        return History(Memory(config.memory_path), lambda accepted: open_branch(config, accepted))

    @contextmanager
    def _store(self) -> Iterator[SqliteStore]:
        with closing(SqliteStore(self.controller().store_path, SystemClock())) as store:
            yield store

    @contextmanager
    def _poller(self) -> Iterator[Poller]:
        clock = SystemClock()
        with self._store() as store:
            branch = open_branch(self.controller(), AcceptedInStore(store))
            observer = Observer("test", open_log(io.StringIO(), as_json=True), clock.now)
            poller = Poller(branch, store, observer, lambda: None, clock)
            poller.resume()
            yield poller

    def controller(self) -> ControllerConfig:
        return ControllerConfig.model_validate(
            {
                "environments_repo": self.scene.repository(),
                "store": {"path": str(self.folder / "controller" / "reconciler.db")},
                "executor": {"local": {"socket": str(self.folder / "runner.sock")}},
            }
        )

    def runner(self) -> RunnerConfig:
        return RunnerConfig.model_validate(
            {
                "environments_repo": self.scene.repository(),
                "memory": {"path": str(self.folder / "runner")},
                "socket": str(self.folder / "runner.sock"),
                "allow": [{"operations": ["plan"], "refs": "merged", "folders": ["environments/**"]}],
                "engine": "auto",
                "environments": {},
            }
        )


@dataclass
class Stage:
    """The scene and both planes, as a topology's story meets them."""

    scene: Scene
    planes: tuple[Plane, ...]

    @classmethod
    def open(cls, folder: Path, keys: SshKeys | None = None) -> Stage:
        scene = Scene(folder, keys)
        return cls(scene, tuple(Plane(scene, folder, kind) for kind in ("controller", "runner")))

    def mirrors(self, change: Callable[[Path], object]) -> None:
        """Do something to each plane's mirror."""
        for plane in self.planes:
            change(plane.mirror)

    def errors(self) -> list[str | None]:
        """Why the last look of each plane came to no end."""
        return [plane.error.reason if plane.error else None for plane in self.planes]

    def fetch_only(self) -> None:
        for plane in self.planes:
            plane.fetch_only()

    def accept(self, old: str, new: str) -> None:
        for plane in self.planes:
            plane.accept(old, new)

    def refused(self, old: str, new: str) -> set[tuple[str, str]]:
        """By which reason each plane refuses the other history, and which commit it names before any other."""
        said = set()
        for plane in self.planes:
            try:
                plane.accept(old, new)
            except PassError as error:
                said.add((error.reason, self._named_first(str(error))))
            else:
                said.add(("", ""))
        return said

    def _named_first(self, text: str) -> str:
        places = {text.find(commit): name for name, commit in reversed(self.scene.names.items()) if commit in text}
        return places[min(places)]
