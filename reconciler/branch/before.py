"""What was in force of an environment before a merge: from git alone, so that both planes and every restart agree.

The merge before is the first parent. Commits of one pull request are one merge, where a forge has said which is whose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

from reconciler.desired.entries import parse_environment
from reconciler.desired.paths import LOCK_PATH, ROOT, EnvironmentPath, classify
from reconciler.desired.policy import policy_of
from reconciler.errors import PassError
from reconciler.git.source import EnvironmentsSource
from reconciler.git.tree import TOO_LARGE, TreeChange, object_id
from reconciler.model import Commit, Environment, Policy

# The pull request that a commit came by; None where nobody has said.
PullOf = Callable[[Commit], int | None]

ENVIRONMENTS = ROOT.rstrip("/")
MOST_OF_ONE_PULL = 1000  # commits
MOST_TOO_LARGE = 20  # commits in a row that cannot be compared; beyond, history has to be accepted by hand
MOST_VERSIONS = 100  # of one environment.yaml that are looked at for one that can be read


class Before:
    """Finds the policies that a merge may not loosen for itself."""

    def __init__(self, source: EnvironmentsSource, pull_of: PullOf = lambda _: None) -> None:
        self._source, self._pull_of = source, pull_of

    def __call__(self, commit: Commit) -> Mapping[str, Policy | None]:
        """For each environment whose file the merge changed, what was in force until then; None: it is new.

        A file that was away, or could not be read, right before says what it said when it could be read last: what was
        in force cannot be shaken off by taking it away for a while.

        Raises:
            PassError: the mirror cannot be read.
        """
        base = self._base(commit)
        if base is None:
            return {}
        changed = changed_since(self._source, base, commit)
        kinds = {change.path: classify(change.path) for change in changed}
        named = {path: kind.name for path, kind in kinds.items() if isinstance(kind, EnvironmentPath)}
        return {name: self._said_last(base, path) for path, name in named.items()}

    def _base(self, commit: Commit) -> Commit | None:
        """The merge before this one; None where this is the first."""
        pull = self._pull_of(commit)
        earlier = islice(self._commits(commit, MOST_OF_ONE_PULL if pull is not None else 2), 1, None)
        return next((one for one in earlier if pull is None or self._pull_of(one) != pull), None)

    def _said_last(self, base: Commit, path: str) -> Policy | None:
        found = self._said(base, path)
        if found is None:
            versions = self._commits(base, MOST_VERSIONS, path)
            found = next((said for one in versions if (said := self._said(one, path)) is not None), None)
        return found

    def _said(self, commit: Commit, path: str) -> Policy | None:
        blobs = [one.blob_id for one in self._source.read_tree(commit, path) if one.path == path and not one.problem]
        for data in self._source.read_blobs(blobs).values():
            found = parse_environment(path, data)
            return policy_of(found) if isinstance(found, Environment) else None
        return None

    def _commits(self, newest: Commit, most: int, *paths: str) -> Iterator[Commit]:
        return commits_back(self._source, newest, most, *paths)


def changed_since(source: EnvironmentsSource, old: Commit, new: Commit) -> Sequence[TreeChange]:
    """The files of environments, and the lock, that differ between two commits.

    Where `old` is too large to be compared, it is its newest ancestor on the chain that is not: nobody ever acted on a commit
    that is too large, and the one that puts it right must not fail for what stood before.

    Raises:
        PassError: the mirror cannot be read, or `new` itself is too large (`TreeTooLarge`).
    """
    try:
        return source.changed_paths(old, new, ENVIRONMENTS, LOCK_PATH)
    except PassError as error:
        if error.reason != TOO_LARGE:
            raise
        too_large = error
    for one in islice(commits_back(source, old, MOST_TOO_LARGE), 1, None):
        with suppress(PassError):
            return source.changed_paths(one, new, ENVIRONMENTS, LOCK_PATH)
    raise too_large


def commits_back(source: EnvironmentsSource, newest: Commit, most: int, *paths: str) -> Iterator[Commit]:
    """The first-parent chain from `newest` back, or those of it that changed one of the paths. Raises PassError."""
    options = ("--first-parent", f"--max-count={most}")
    out = source.git.run("rev-list", *options, operands=(object_id(newest),), paths=paths)
    return map(Commit, out.decode().split())
