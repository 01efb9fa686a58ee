"""A Service Catalog repository: which commits it vouches for, and the digest of everything at one of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from reconciler.errors import ConfigError, PassError, UnitError
from reconciler.git import tree
from reconciler.git.command import Git, Patience, Remote
from reconciler.git.digest import tree_digest
from reconciler.git.mirror import Mirror, branch_ref
from reconciler.git.tree import FILE, PROGRAM, TreeEntry, TreeLimits, object_id
from reconciler.model import Commit, Digest
from reconciler.vetting.names import is_configuration

_HEAD = "refs/reconciler/head"
_BRANCHES = "refs/reconciler/branches"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TAG_PATTERN = re.compile(r"[A-Za-z0-9._/+-]*\*?[A-Za-z0-9._/+-]*")

# A catalog holds more than entries do: documentation, tests, files to be copied. Still printable and unambiguous.
CATALOG_PATH = re.compile(
    rb"(?!(?:.*/)?(?:\.{1,2}|\.[Gg][Ii][Tt])(?:/|$))[A-Za-z0-9._@+=,~()-](?:[A-Za-z0-9._@+=,~() -]|/(?![/ ]|$))*",
    re.DOTALL,
)
CATALOG_LIMITS = TreeLimits(entries=20_000, path=400, total=128 << 20)


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag and the commit that it stands for."""

    name: str
    commit: Commit


@dataclass(frozen=True, slots=True)
class PinnedTree:
    """What `catalog-lock.yaml` records of one version: the module's path, the ref, its commit, the tree's digest."""

    path: str
    ref: str
    commit: Commit
    digest: Digest


class CatalogRepo:
    """The mirror of one catalog repository: its protected branch, and its tags.

    `tags` is a pattern with at most one `*`. A tag that was moved on the server keeps its first meaning here and is
    reported in `moved_tags`: pins hold commits and digests, so they do not care.
    """

    def __init__(
        self,
        remote: Remote,
        branch: str,
        folder: Path,
        allow_file: bool = False,
        *,
        tags: str = "*",
        patience: Patience | None = None,
    ) -> None:
        if not _TAG_PATTERN.fullmatch(tags):
            raise ConfigError(
                f"catalog_repos.*.tags: {tags!r} is no pattern of tags: write a name with at most one '*'"
            )
        try:
            refspecs = (f"{branch_ref(branch)}:{_HEAD}", f"refs/tags/{tags}:refs/tags/{tags}")
        except ValueError as error:
            raise ConfigError(f"catalog_repos.*.branch: {error}") from None
        # Not atomic: a moved tag must not keep the branch from growing.
        self._mirror = Mirror(folder, remote, refspecs, atomic=False, allow_file=allow_file, patience=patience)
        self._place = f"{remote.url} ({branch})"
        self.moved_tags = False

    @property
    def git(self) -> Git:
        """The mirror, for reading."""
        return self._mirror.git

    def update(self) -> Commit:
        """Fetch, and return the head of the protected branch.

        Raises:
            PassError: the fetch failed; what is in the mirror stays usable.
        """
        try:
            self._mirror.fetch()
            self.moved_tags = False
        except PassError as error:
            if error.reason != "TagMoved":
                raise
            self.moved_tags = True
        return self.head()

    def head(self) -> Commit:
        """The head of the protected branch as last fetched. Raises PassError before the first fetch."""
        commit = self._mirror.ref(_HEAD)
        if commit is None:
            raise PassError("CatalogUnavailable", f"{self._place}: never fetched yet: see why its fetch fails")
        return commit

    def has(self, commit: Commit) -> bool:
        """Whether the commit is in the mirror: if not, `update` may bring it."""
        return self._mirror.exists() and self._peel(object_id(commit)) == commit

    def reachable(self, commit: Commit) -> bool:
        """Whether the protected branch contains the commit. A forge may serve a fork's commit: that one is not."""
        if not self.has(commit):
            return False
        done = self.git.ask("merge-base", "--is-ancestor", operands=(commit, self.head()))
        return done.code == 0

    def resolve_version(self, ref: str) -> Commit:
        """The commit of a tag, or of a full commit id; reachable from the protected branch.

        Raises:
            UnitError: no such tag (`CatalogPinMissing`), or not reachable (`CatalogUnreachable`).
        """
        name = ref if _COMMIT.fullmatch(ref) else f"refs/tags/{ref}"
        commit = self._peel(name) if "\n" not in ref else None
        if commit is None:
            known = ", ".join(tag.name for tag in self.tags()[-8:]) or "none"
            raise UnitError("CatalogPinMissing", f"{self._place}: no tag {ref!r}; newest tags: {known}")
        if not self.reachable(commit):
            raise UnitError(
                "CatalogUnreachable",
                f"{self._place}: {ref} is {commit}, which the protected branch does not contain: merge it there first",
            )
        return commit

    def fetch_branch(self, name: str) -> Commit:
        """The head of any branch, for a sandbox. It may have been rewritten; nothing protected may use it.

        Raises:
            PassError: the fetch failed.
            UnitError: not a name of a branch, or no such branch (`CatalogPinMissing`).
        """
        try:
            # In hex, so that the branches `a` and `a/b` do not get in each other's way when one follows the other.
            here = f"{_BRANCHES}/{name.encode().hex()}"
            self._mirror.fetch((f"+{branch_ref(name)}:{here}",))
        except ValueError as error:
            raise UnitError("CatalogPinMissing", f"{self._place}: {error}: write the name of a branch") from None
        except PassError as error:
            if error.reason != "BranchMissing":
                raise
            raise UnitError(
                "CatalogPinMissing", f"{self._place}: there is no branch {name}: push it, or correct `ref`"
            ) from error
        commit = self._peel(here)
        if commit is None:
            raise PassError("MirrorBroken", f"{self._place}: branch {name} was fetched and is not there: poll again")
        return commit

    def tags(self) -> tuple[Tag, ...]:
        """Every tag of a commit, oldest version first."""
        form = "%(refname:lstrip=2) %(objectname) %(*objectname)"
        out = self.git.run("for-each-ref", "--sort=version:refname", f"--format={form}", operands=("refs/tags/",))
        rows = (line.split(" ") for line in out.decode("utf-8", "replace").splitlines())
        return tuple(Tag(name, Commit(peeled or direct)) for name, direct, peeled in rows)

    def module_digest(self, commit: Commit, path: str) -> Digest:
        """The digest of the *whole* tree at the commit, after a look that the module is there.

        The whole tree, because a module reaches others by `../shared`: what it means is decided by every file that it
        can reach. So all modules of one commit have the same digest.

        Raises:
            UnitError: no Terraform files at the path (`CatalogModuleMissing`), a tree that is refused
                (`CatalogTreeRefused`), or a commit that is not there (`CatalogPinMissing`).
        """
        folder = path.strip("/")
        files = self.contents(commit)
        if not any(is_module_file(name, folder) for name in files):
            raise UnitError(
                "CatalogModuleMissing", f"{self._place}: {commit} has no Terraform files in {folder!r}: correct `path`"
            )
        return digest_of(files)

    def pin(self, path: str, ref: str) -> PinnedTree:
        """What the lock would record for this module at this tag. Raises as `resolve_version` and `module_digest` do."""
        commit = self.resolve_version(ref)
        return PinnedTree(path.strip("/"), ref, commit, self.module_digest(commit, path))

    def files(self, commit: Commit) -> Iterator[TreeEntry]:
        """Every file at the commit.

        Raises:
            UnitError: a link, a submodule, an odd name, too much (`CatalogTreeRefused`), or no such commit
                (`CatalogPinMissing`).
        """
        if not self.has(commit):
            raise UnitError(
                "CatalogPinMissing", f"{self._place}: commit {commit} is not there: correct the lock, or push it"
            )
        for entry in self._entries(commit):
            if entry.problem:
                raise _refused(self._place, commit, f"{entry.path}: {entry.problem}")
            yield entry

    def contents(self, commit: Commit) -> dict[str, tuple[str, bytes]]:
        """Every file at the commit: path -> (mode, content). Raises as `files` does."""
        entries = tuple(self.files(commit))
        try:
            blobs = tree.read_blobs(self.git, (entry.blob_id for entry in entries), limit=CATALOG_LIMITS.total)
        except PassError:
            self._mirror.suspect()
            raise
        return {entry.path: (entry.mode, blobs[entry.blob_id]) for entry in entries}

    def _entries(self, commit: Commit) -> Iterator[TreeEntry]:
        try:
            yield from tree.list_blobs(
                self.git, commit, limits=CATALOG_LIMITS, modes=(FILE, PROGRAM), names=CATALOG_PATH
            )
        except PassError as error:
            if error.reason == "TreeTooLarge":
                raise _refused(self._place, commit, str(error)) from error
            self._mirror.suspect()
            raise

    def _peel(self, name: str) -> Commit | None:
        done = self.git.ask("rev-parse", "--verify", "--quiet", operands=(f"{name}^{{commit}}",))
        return Commit(done.out.decode().strip()) if done.code == 0 else None


def digest_of(files: dict[str, tuple[str, bytes]]) -> Digest:
    """The digest of path -> (mode, content)."""
    return tree_digest((mode, path, hashlib.sha256(content).digest()) for path, (mode, content) in files.items())


def is_module_file(path: str, folder: str) -> bool:
    """Whether the path is a Terraform file right in the folder."""
    return str(PurePosixPath(path).parent) == (folder or ".") and is_configuration(path)


def _refused(place: str, commit: Commit, what: str) -> UnitError:
    return UnitError(
        "CatalogTreeRefused", f"{place} at {commit}: {what}: take it out of the catalog and release a new version"
    )
