"""Which commit of a branch changed a file last: found out for many files at once, where else each would take a process."""

from __future__ import annotations

import re

from reconciler.errors import PassError
from reconciler.git.command import Git
from reconciler.git.tree import object_id
from reconciler.model import Commit

FIRST = 100  # commits of a branch that is looked at for the first time: of a file that none of them changed nothing is known
SECONDS = 10.0  # for one look: whoever looks has others to serve
_LOG = (
    "--first-parent", "--diff-merges=first-parent", "--root", "--no-renames", "--no-color", "--no-show-signature", "--no-notes",
    "--name-only", "--format=%x01%H %P",
)  # fmt: skip
_COMMIT = re.compile(
    rb"\x01([0-9a-f]{40}) ([0-9a-f]{40})?(?: [0-9a-f]{40})*"
)  # git quotes a name that could be taken for one


class Changes:
    """What the newest commits of one branch changed. It may know less than there is, and is wrong about nothing."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._head: Commit | None = None
        self._newest: dict[bytes, Commit] = {}

    def learn(self, head: Commit) -> None:
        """Look at what the branch came to since the last time. What cannot be read in time stays unknown."""
        if head == self._head:
            return
        since, self._head = self._head, head
        if since is None or not self._went_on(since, head):
            self._newest = {}
            self._read(head, f"--max-count={FIRST}")

    def of(self, commit: Commit, path: str) -> Commit | None:
        """The newest commit up to this one, on its first-parent chain, that changed the file; None: that is not known here."""
        return self._newest.get(path.encode()) if commit == self._head else None

    def _went_on(self, since: Commit, head: Commit) -> bool:
        """Whether `since` is on the way, so that what is known still holds for all that did not change."""
        return self._read(head, "--max-count=1000", until=since) == since

    def _read(self, head: Commit, *options: str, until: Commit | None = None) -> Commit | None:
        """Note what the commits changed, newest first; the parent of the last one that was listed."""
        operands = (object_id(head), *((f"^{object_id(until)}",) if until else ()))
        try:
            done = self._git.ask("log", *_LOG, *options, operands=operands, deadline=SECONDS)
        except PassError:
            return None
        found: dict[bytes, Commit] = {}
        commit, parent = None, None
        for line in done.out.splitlines() if done.code == 0 else ():
            if header := _COMMIT.fullmatch(line):
                commit, parent = Commit(header[1].decode()), header[2]
            elif line and commit is not None:
                found.setdefault(line, commit)
        self._newest |= found
        return Commit(parent.decode()) if parent else None
