"""The heads of open pull requests, in a mirror of their own, and what the protected branch would be with one merged.

Whoever may open a pull request writes here: nothing of it ever reaches the protected branch's mirror, refs may be moved at
will, and everything is bounded. The merge is worked out here, by git alone, so that no forge's word is needed for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from reconciler.errors import PassError
from reconciler.git import merging, tree
from reconciler.git.mirror import Mirror, branch_ref
from reconciler.git.remote import Patience, Remote
from reconciler.git.tree import TreeEntry, TreeLimits, object_id
from reconciler.model import Commit

_BASE = "refs/reconciler/base"
_PULLS = "refs/reconciler/pulls"

MOST_FILES = 2000  # that one pull request may change
LARGEST_FILE = 1 << 29  # bytes of one file of the mirror, and so of what one fetch brings
LARGEST_MIRROR = 1 << 31  # bytes; beyond, it is made anew


class PullMirror:
    """A mirror of one repository's pull requests. Several processes may share its folder."""

    def __init__(
        self, folder: Path, remote: Remote, branch: str, *, allow_file: bool = False, patience: Patience | None = None
    ) -> None:
        refspec = f"+{branch_ref(branch)}:{_BASE}"
        self._mirror = Mirror(
            folder, remote, (refspec,), allow_file=allow_file, patience=patience, largest=LARGEST_FILE
        )
        self._git = self._mirror.git

    def bring(self, number: int, ref: str, head: Commit, base: Commit) -> None:
        """Have a pull request's head here, and the commit that it is to be merged into.

        Raises:
            PassError: the fetch failed; `PullMoved`: the request has another head by now; `PullBaseMissing`.
        """
        if not self._has(base):
            self._mirror.fetch()
        if not self._has(base):
            raise PassError(
                "PullBaseMissing", f"{self._git.where}: {base} is not on the branch: wait for the next poll."
            )
        if not self._has(head):
            self._fetch(number, ref)
        if not self._has(head):
            what = f"pull request #{number} has another head than {head[:12]} by now"
            raise PassError("PullMoved", f"{self._git.where}: {what}: the next poll sees it.")

    def changed(self, base: Commit, head: Commit) -> frozenset[str]:
        """The files in which a head differs from where it left the branch.

        Raises:
            PassError: `PullTooLarge`; `PullUnrelated`: it never was on the branch.
        """
        fork = self._fork(base, head)
        self._count(head, self._count(fork, TreeLimits().entries) + MOST_FILES)
        try:
            found = tree.changed_paths(self._git, fork, head, limits=TreeLimits(entries=MOST_FILES))
        except PassError as error:
            if error.reason != "TreeTooLarge":
                raise
            raise _too_large(head) from error
        return frozenset(change.path for change in found)

    def merge(self, base: Commit, head: Commit) -> str:
        """The id of the tree that merging `head` into `base` gives. Ask `changed` first: it bounds what is merged.

        Raises:
            PassError: `PullConflicts`, or git failed.
        """
        done = merging.merge(self._git, base, head)
        if done.tree is None:
            shown = ", ".join(name for name in done.conflicts[:3] if name.isprintable() and len(name) < 200)
            raise PassError("PullConflicts", f"It conflicts with the branch ({shown}): rebase it, or merge the branch.")
        return done.tree

    def read_tree(self, found: str, *prefixes: str) -> Iterator[TreeEntry]:
        """Every file of a tree under the prefixes, those with a problem too. Raises PassError."""
        return tree.list_blobs(self._git, Commit(found), *prefixes)

    def read_blobs(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The contents of blobs. Raises PassError."""
        return tree.read_blobs(self._git, ids)

    def forget(self, but: Iterable[int]) -> None:
        """Drop the heads of pull requests that are not open any more, and everything where it has grown too large."""
        if not self._mirror.exists():
            return
        kept = {str(number) for number in but}
        refs = self._git.run("for-each-ref", "--format=%(refname)", operands=(_PULLS,)).decode().split()
        gone = [ref for ref in refs if ref.rpartition("/")[2] not in kept]
        for ref in gone:
            self._git.ask("update-ref", "-d", operands=(ref,))
        if gone:
            self._mirror.tidy()
        if self._size() > LARGEST_MIRROR:
            shutil.rmtree(self._git.folder.resolve(), ignore_errors=True)  # the next fetch clones

    def _count(self, commit: Commit, most: int) -> int:
        """The files of a commit, as git lists them: comparing trees, it would look at all of them before it said a word.

        Raises:
            PassError: `PullTooLarge`, more than `most`.
        """
        files = size = 0
        for chunk in self._git.stream(
            "ls-tree", "-r", "-z", "--name-only", "--full-tree", operands=(object_id(commit),)
        ):
            files, size = files + chunk.count(b"\0"), size + len(chunk)
            if files > most or size > most * TreeLimits().path:
                raise _too_large(commit)
        return files

    def _fetch(self, number: int, ref: str) -> None:
        try:
            self._mirror.fetch((f"+{ref}:{_PULLS}/{number}",))
        except PassError:
            self._sweep()
            raise

    def _sweep(self) -> None:
        """What a fetch that was cut off had received so far."""
        for half in (self._git.folder / "objects" / "pack").glob("tmp_*"):
            half.unlink(missing_ok=True)

    def _fork(self, base: Commit, head: Commit) -> Commit:
        done = self._git.ask("merge-base", operands=(object_id(base), object_id(head)))
        found = done.out.decode().split()
        if done.code or not found:
            raise PassError("PullUnrelated", f"{head[:12]} has no commit in common with the branch: begin it there.")
        return Commit(found[0])

    def _has(self, commit: Commit) -> bool:
        if not self._mirror.exists():
            return False
        done = self._git.ask("cat-file", "-e", operands=(f"{object_id(commit)}^{{commit}}",))
        return done.code == 0

    def _size(self) -> int:
        total = 0
        for file in (self._git.folder / "objects").rglob("*"):
            with suppress(OSError):
                total += file.lstat().st_size
        return total


def _too_large(commit: Commit) -> PassError:
    what = f"{commit[:12]} changes more than {MOST_FILES} files"
    return PassError("PullTooLarge", f"{what}: split the pull request, if that is meant.")
