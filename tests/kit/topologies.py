"""The words in which a topology is told: how both planes stand after a look, and what was done before they looked.

Commits are written as `name: parents` (`root:` has none), and `name*3: parent` is a chain, name-1 to name-3; name-0 is what
it grows from. A name alone is a commit that is there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from reconciler.model import Commit
from tests.kit.topology import CommitOptions, Scene, Seen, Stage

REWRITTEN, ROLLED_BACK, MISSING, REVOKED = (
    "HistoryRewritten",
    "HistoryRolledBack",
    "BranchMissing",
    "SignatureRevoked",
)
Act = Callable[[Stage], object]


@dataclass(frozen=True)
class Step:
    """What both planes shall say, and what is done before they look."""

    verdict: Seen
    acts: tuple[Act, ...]
    error: str | None = None  # why the look comes to no end; not looked at where there is none


@dataclass(frozen=True)
class Topology:
    """One story of a branch."""

    klass: str
    name: str
    steps: tuple[Step, ...]
    signed: bool

    def __str__(self) -> str:
        return f"{self.klass}: {self.name}"


# --- how both planes stand


def accepted(head: str, *acts: Act, error: str | None = None) -> Step:
    """All is well at this commit."""
    return Step(Seen(head), acts, error)


def rewritten(head: str, *acts: Act) -> Step:
    return Step(Seen(head, REWRITTEN), acts)


def rolled_back(head: str, *acts: Act) -> Step:
    return Step(Seen(head, ROLLED_BACK), acts)


def missing(head: str, *acts: Act) -> Step:
    return Step(Seen(head, MISSING), acts)


def revoked(head: str, *acts: Act) -> Step:
    return Step(Seen(head, REVOKED), acts)


def unproven(head: str, commit: str, reason: str, *acts: Act) -> Step:
    """The branch stands at the last proven commit."""
    return Step(Seen(head, None, (commit, reason)), acts)


def nothing(error: str, *acts: Act) -> Step:
    """No commit was accepted yet."""
    return Step(Seen("None"), acts, error)


START = accepted("genesis")


def topology(klass: str, name: str, *steps: Step, start: Step = START, signed: bool = False) -> Topology:
    """`signed`: signatures are on, and `ada` may sign."""
    return Topology(klass, name, (start, *steps), signed)


# --- what is done to the branch


def make(*graph: str, **options: Unpack[CommitOptions]) -> Act:
    """Commits of which the branch knows nothing yet; the options are those of each."""
    return lambda stage: _make(stage.scene, graph, options)


def push(*graph: str, **options: Unpack[CommitOptions]) -> Act:
    """Commits, and the branch is at the last one."""
    return lambda stage: stage.scene.push(_make(stage.scene, graph, options))


def _make(scene: Scene, graph: tuple[str, ...], options: CommitOptions) -> str:
    name = ""
    for one in graph:
        name, colon, rest = one.partition(":")
        chain, star, count = name.partition("*")
        if star:
            name = scene.chain(chain, rest.strip(), int(count), **options)
        elif colon:
            scene.commit(name, *rest.split(), **options)
    return name


def delete(stage: Stage) -> None:
    stage.scene.delete()


def fetch_only(stage: Stage) -> None:
    stage.fetch_only()


def allow(*people: str, options: str = "") -> Act:
    return lambda stage: stage.scene.allowed(*people, options=options)


def revoke(name: str) -> Act:
    return lambda stage: stage.scene.revoke(name)


# --- what an admin does


def accept(old: str, new: str) -> Act:
    """`accept-history` on both planes."""
    return lambda stage: stage.accept(old, new)


def refused(old: str, new: str, reason: str, named: str) -> Act:
    """`accept-history` is refused by both planes, and this commit is named before any other."""

    def tried(stage: Stage) -> None:
        assert stage.refused(old, new) == {(reason, named)}

    return tried


# --- what the server does


def tag(name: str, commit: str) -> Act:
    """An annotated tag, whose id goes by its name from then on."""

    def tagged(stage: Stage) -> None:
        repo, names = stage.scene.repo, stage.scene.names
        repo.tag(name, names[commit], annotated=True)
        names[name] = Commit(repo.git("rev-parse", f"refs/tags/{name}"))

    return tagged


def replace(name: str, other: str) -> Act:
    return lambda stage: stage.scene.repo.git("replace", stage.scene.names[name], stage.scene.names[other])


def server_says(file: str, text: str) -> Act:
    """A file of the server's repository. `{name}` stands for a commit."""
    return lambda stage: _write(stage, stage.scene.repo.folder, file, text)


def server_says_no_more(file: str) -> Act:
    return lambda stage: (stage.scene.repo.folder / file).unlink()


def server_forgets(stage: Stage) -> None:
    """Nothing is left on the server that no branch leads to."""
    stage.scene.repo.git("reflog", "expire", "--expire=now", "--all")
    stage.scene.repo.git("gc", "--quiet", "--prune=now")


def _write(stage: Stage, folder: Path, file: str, text: str) -> None:
    path = folder / file.format_map(stage.scene.names)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text.format_map(stage.scene.names) + "\n")


# --- what happens to the mirrors


def mirrors(change: Callable[[Stage, Path], object]) -> Act:
    """`change` is told each plane's mirror."""
    return lambda stage: stage.mirrors(lambda mirror: change(stage, mirror))


def mirrors_say(file: str, text: str) -> Act:
    """A file of the repository that is in force in each mirror. `{name}` stands for a commit, in its name too."""
    return mirrors(lambda stage, mirror: _write(stage, mirror / "current", file, text))


lose_mirrors: Act = mirrors(lambda _, mirror: shutil.rmtree(mirror))
