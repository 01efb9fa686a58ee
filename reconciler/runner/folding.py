"""What newly accepted commits do to what the runner remembers of the branch: allowances open."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from reconciler.branch.before import ENVIRONMENTS, changed_since
from reconciler.desired.entries import parse_entry
from reconciler.desired.paths import EntryPath, classify
from reconciler.errors import PassError
from reconciler.git.head import Head
from reconciler.git.source import EnvironmentsSource
from reconciler.git.tree import TOO_LARGE
from reconciler.model import Commit, Entry, UnitId
from reconciler.runner.allowances import Allowed, Lines, fold
from reconciler.runner.memory import Trust

WORTH_PARSING = (b"allow_", b"replace")  # an entry without these bytes has no allowance


class Folding:
    """Reads what each commit of a chain changed, and folds it into the trust, oldest first."""

    def __init__(self, source: EnvironmentsSource) -> None:
        self._source = source

    def after(self, trust: Trust, head: Head) -> Trust:
        """The trust once `head` is accepted. Raises PassError when the mirror cannot be read."""
        known, closed = self._folded(trust, head)
        return Trust(head.commit, known, closed=closed, closed_until=trust.closed_until if closed else None)

    def anew(self, new: Commit) -> dict[UnitId, Allowed]:
        """The allowances once another history took the accepted one's place: every line is seen, and none is open."""
        return fold({}, self._all_lines(new), None)

    def _folded(self, trust: Trust, head: Head) -> tuple[dict[UnitId, Allowed], bool]:
        """The allowances, and whether what follows opens nothing either."""
        known, before, now = dict(trust.allowances), trust.commit, datetime.now(UTC)
        closed = trust.closed and (before is None or before != trust.closed_until)
        if before is None:
            before = head.since or head.commit
            known = fold({}, self._all_lines(before), None)
        for commit in head.chain:
            if commit != before and (changed := self._changed_lines(before, commit)) is not None:
                known = fold(known, changed, None if closed else now)
                before = commit
            closed = closed and commit != trust.closed_until
        return known, closed

    def _all_lines(self, commit: Commit) -> dict[UnitId, Lines]:
        entries = self._source.read_tree(commit, ENVIRONMENTS)
        return self._lines((e.path, e.blob_id) for e in entries if not e.problem)

    def _changed_lines(self, old: Commit, new: Commit) -> dict[UnitId, Lines] | None:
        """What every added, changed or removed entry says now; a removed one says nothing.

        None: the commit is too large to be compared. No job runs at it, and the next one is compared with what was before.
        """
        try:
            changes = changed_since(self._source, old, new)
        except PassError as error:
            if error.reason != TOO_LARGE:
                raise
            return None
        gone = {path.unit: Lines() for c in changes if c.removed and isinstance(path := classify(c.path), EntryPath)}
        return gone | self._lines((c.path, c.blob_id) for c in changes if not c.removed and not c.problem)

    def _lines(self, files: Iterable[tuple[str, str]]) -> dict[UnitId, Lines]:
        """What the entries say. One that does not parse is left out."""
        blobs = [(kind.unit, path, blob) for path, blob in files if isinstance(kind := classify(path), EntryPath)]
        contents = self._source.read_blobs(sorted({blob for _, _, blob in blobs}))
        lines: dict[UnitId, Lines] = {}
        for unit, path, blob in blobs:
            data = contents.get(blob, b"")
            if not any(word in data for word in WORTH_PARSING):
                lines[unit] = Lines()
            elif isinstance(entry := parse_entry(path, data), Entry):
                lines[unit] = Lines(entry.allowances, entry.moved_from)
        return lines
