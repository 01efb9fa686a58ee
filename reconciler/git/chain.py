"""First-parent chains: what was merged into a branch, commit by commit. Only a fresh look at the objects decides here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from reconciler.git.command import Git
from reconciler.git.tree import object_id
from reconciler.model import Commit

_LATEST = 253_402_300_799  # the end of the year 9999: a commit may claim more than a datetime holds
_LIST = ("rev-list", "--first-parent", "--parents", "--timestamp")


@dataclass(frozen=True, slots=True)
class Link:
    """One commit of a first-parent chain. `parent` is empty at the root."""

    commit: Commit
    parent: str
    committed_at: datetime


def has(git: Git, commit: Commit) -> bool:
    """Whether the mirror has this very commit."""
    done = git.ask("rev-parse", "--verify", "--quiet", operands=(f"{object_id(commit)}^{{commit}}",))
    return done.code == 0 and done.out.decode().strip() == commit


def link(git: Git, commit: Commit) -> Link:
    """One commit. Raises PassError where it cannot be read."""
    command, *options = _LIST
    return _parsed(git.run(command, "--max-count=1", *options, operands=(object_id(commit),)).decode().strip())


def between(git: Git, old: Commit, new: Commit) -> tuple[Link, ...] | None:
    """The chain from after `old` to `new`, oldest first; None unless it begins right at `old`. Raises PassError."""
    command, *options = _LIST
    out = git.run(command, *options, operands=(object_id(new), f"^{object_id(old)}"))
    links = tuple(_parsed(line) for line in reversed(out.decode().splitlines()))
    return links if links and links[0].parent == old and links[-1].commit == new else None


def whole(git: Git, head: Commit) -> tuple[Link, ...]:
    """The chain from the root to `head`, oldest first. Raises PassError."""
    command, *options = _LIST
    out = git.run(command, *options, operands=(object_id(head),))
    return tuple(_parsed(line) for line in reversed(out.decode().splitlines()))


def after_any(links: Sequence[Link], known: Collection[Commit]) -> tuple[Link, ...]:
    """The end of a chain from after the newest commit that is known; all of it where none is."""
    for index in reversed(range(len(links))):
        if links[index].commit in known:
            return tuple(links[index + 1 :])
    return tuple(links)


def _parsed(line: str) -> Link:
    """`<seconds> <commit> <parent> ...`."""
    seconds, commit, *parents = line.split()
    moment = datetime.fromtimestamp(min(int(seconds), _LATEST), UTC)
    return Link(Commit(commit), parents[0] if parents else "", moment)
