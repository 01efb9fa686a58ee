"""A merge made once more: what an approved pull request became must be what git alone makes of it.

A forge says that a pull request was merged by a commit, also where somebody who may push made that commit by hand, with
files in it that no reviewer saw. The tree that git's own merge of the two parents gives is what they approved.
"""

from __future__ import annotations

from reconciler.errors import PassError
from reconciler.git.command import Git
from reconciler.git.merging import merge
from reconciler.git.tree import object_id
from reconciler.model import Commit

_REMEDY = "take it out of the branch, and let the forge merge the pull request; conflicts are solved before the merge"


def check_merge(git: Git, commit: Commit) -> None:
    """Return if the commit is no merge, or exactly what merging its second parent into its first gives.

    Raises:
        PassError: `MergeEdited`; git failed, or took too long.
    """
    shown = git.run("rev-parse", operands=(f"{object_id(commit)}^{{tree}}", f"{commit}^@")).decode().split()
    tree, *parents = [word for word in shown if not word.startswith("-")]
    if len(parents) < 2:
        return
    if len(parents) > 2:
        raise PassError("MergeEdited", f"{commit} has {len(parents)} parents, and forges merge one request: {_REMEDY}.")
    if merge(git, Commit(parents[0]), Commit(parents[1])).tree != tree:
        what = f"{commit} is not what merging {parents[1][:12]} into {parents[0][:12]} gives: it was edited by hand"
        raise PassError("MergeEdited", f"{what}: {_REMEDY}.")
