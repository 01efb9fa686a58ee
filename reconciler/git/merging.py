"""What merging one commit into another gives, by git alone and without a working tree."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.errors import PassError
from reconciler.git.command import Git
from reconciler.git.tree import object_id
from reconciler.model import Commit

MERGE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """`tree` is the id of the merged tree; None where the two conflict, in the files `conflicts`: as git prints them."""

    tree: str | None
    conflicts: tuple[str, ...] = ()


def merge(git: Git, base: Commit, head: Commit) -> Outcome:
    """Merge `head` into `base`.

    Raises:
        PassError: git failed, or took longer than `MERGE_SECONDS`.
    """
    options = ("--write-tree", "--no-messages", "--name-only")
    done = git.ask("merge-tree", *options, operands=(object_id(base), object_id(head)), deadline=MERGE_SECONDS)
    if done.code not in (0, 1):
        raise PassError("GitFailed", f"{git.where}: git merge-tree: {done.err.decode('utf-8', 'replace')[:300]}")
    tree, *names = done.out.decode("utf-8", "replace").splitlines() or [""]
    return Outcome(None, tuple(names)) if done.code else Outcome(object_id(tree))
