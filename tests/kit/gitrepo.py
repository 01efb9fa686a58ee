"""Real git repositories for tests: made in a few calls, with fixed dates, so that equal histories have equal ids."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.git.head import Head
from reconciler.model import Commit

_FIRST_SECOND = 1_700_000_000
_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
}


class Memory:
    """The accepted head, kept in a variable."""

    def __init__(self) -> None:
        self.commit: Commit | None = None

        self.accepted: set[Commit] = set()

    def load(self) -> Commit | None:
        return self.commit

    def base(self) -> Commit | None:
        return None

    def was_accepted(self, commit: Commit) -> bool:
        return commit in self.accepted

    def save(self, head: Head) -> None:
        self.commit = head.commit
        self.accepted |= {head.commit, *head.chain}


@dataclass
class RepoBuilder:
    """A bare repository that tests write to directly, commit by commit. Every commit is one minute after the last."""

    folder: Path
    branch: str = "main"
    _minutes: int = field(default=0, repr=False)

    @classmethod
    def create(cls, folder: Path, branch: str = "main") -> RepoBuilder:
        """An empty bare repository whose protected branch is `branch`."""
        folder.mkdir(parents=True)
        repo = cls(folder, branch)
        repo.git("init", "--quiet", "--bare", "--template=", f"--initial-branch={branch}")
        return repo

    @property
    def url(self) -> str:
        """The `file://` address."""
        return f"file://{self.folder}"

    def git(self, *words: str, stdin: bytes = b"") -> str:
        """Run git in the repository and return its stdout without the last newline."""
        done = subprocess.run(
            ["git", f"--git-dir={self.folder}", *words],
            input=stdin,
            env=_ENVIRONMENT | self._dates(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, f"git {words}: {done.stderr.decode(errors='replace')}"
        return done.stdout.decode(errors="surrogateescape").removesuffix("\n")

    def commit(
        self,
        files: Mapping[str, str | bytes | None],
        message: str = "change",
        *,
        branch: str | None = None,
        executable: tuple[str, ...] = (),
    ) -> Commit:
        """Commit on a branch. `files` maps a path to its content, or to None to remove it."""
        branch = branch or self.branch
        parent = self.head(branch)
        modes = {path: "100755" if path in executable else "100644" for path in files}
        entries = {
            path: None if content is None else (modes[path], self.blob(content)) for path, content in files.items()
        }
        return self.record(entries, message, branch=branch, parents=(parent,) if parent else ())

    def record(
        self,
        entries: Mapping[str, tuple[str, str] | None],
        message: str = "change",
        *,
        branch: str | None = None,
        parents: tuple[Commit, ...] = (),
        base: str | None = None,
    ) -> Commit:
        """Commit (mode, object id) by path over the tree of `base` (the first parent if not given)."""
        tree = self.tree(entries, base or (parents[0] if parents else None))
        commit = self.commit_tree(tree, message, parents)
        self.point(branch or self.branch, commit)
        return commit

    def commit_tree(self, tree: str, message: str = "change", parents: tuple[Commit, ...] = ()) -> Commit:
        """A commit object on no branch."""
        self._minutes += 1
        options = [word for parent in parents for word in ("-p", parent)]
        return Commit(self.git("commit-tree", *options, "-m", message, tree))

    def merge(self, other: str, message: str = "merge") -> Commit:
        """Merge a branch into the protected one; the result has the other branch's files."""
        ours, theirs = self.head(), self.head(other)
        assert ours
        assert theirs
        commit = self.commit_tree(self.git("rev-parse", f"{theirs}^{{tree}}"), message, (ours, theirs))
        self.point(self.branch, commit)
        return commit

    def branch_off(self, name: str, at: str | None = None) -> None:
        """Make a branch at a commit, at the head of the protected one if none is given."""
        commit = at or self.head()
        assert commit
        self.point(name, Commit(commit))

    def point(self, branch: str, commit: Commit) -> None:
        """Move a branch anywhere: this is also how a test rewrites history."""
        self.git("update-ref", f"refs/heads/{branch}", commit)

    def tag(self, name: str, commit: str | None = None, *, annotated: bool = False, force: bool = False) -> None:
        """Tag a commit, the head if none is given."""
        options = [*(["-a", "-m", name] if annotated else []), *(["-f"] if force else [])]
        self.git("tag", *options, name, commit or self.head() or "")

    def head(self, branch: str | None = None) -> Commit | None:
        """The head of a branch, None where there is no such branch."""
        found = self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch or self.branch}")
        return Commit(found) if found else None

    def blob(self, content: str | bytes) -> str:
        """Write a blob."""
        data = content.encode() if isinstance(content, str) else content
        return self.git("hash-object", "-w", "--stdin", stdin=data)

    def raw_tree(self, *entries: tuple[str, bytes, str]) -> str:
        """A tree of (mode, name, object id) just as they are, however hostile, without a look by git."""
        data = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
        return self.git("hash-object", "-w", "--literally", "-t", "tree", "--stdin", stdin=data)

    def tree(self, entries: Mapping[str, tuple[str, str] | None], base: str | None = None) -> str:
        """A tree: that of `base` with these paths set, or removed where None."""
        kept = self.git("ls-tree", "-r", "-z", "--full-tree", base) if base else ""
        lines = [line for line in kept.split("\0") if line and line.partition("\t")[2] not in entries]
        for path, entry in entries.items():
            if entry:
                lines.append(f"{entry[0]} {'commit' if entry[0] == '160000' else 'blob'} {entry[1]}\t{path}")
        return self._nested(lines)

    def _nested(self, lines: list[str]) -> str:
        """`mktree` knows one level only: build the folders first."""
        here: list[str] = []
        below: dict[str, list[str]] = {}
        for line in lines:
            head, _, path = line.partition("\t")
            folder, slash, rest = path.partition("/")
            if slash:
                below.setdefault(folder, []).append(f"{head}\t{rest}")
            else:
                here.append(line)
        here += [f"040000 tree {self._nested(inner)}\t{folder}" for folder, inner in below.items()]
        data = "".join(f"{line}\0" for line in here).encode(errors="surrogateescape")
        return self.git("mktree", "-z", "--missing", stdin=data)

    def _dates(self) -> dict[str, str]:
        date = f"{_FIRST_SECOND + 60 * self._minutes} +0000"
        return {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}


def loosen(folder: Path) -> None:
    """Turn every pack of a repository into one file per object, so that a test can damage one."""
    for pack in (folder / "objects" / "pack").glob("*.pack"):
        aside = folder / pack.name
        pack.rename(aside)
        pack.with_suffix(".idx").unlink()
        subprocess.run(
            ["git", f"--git-dir={folder}", "unpack-objects", "-q"],
            input=aside.read_bytes(),
            env=_ENVIRONMENT,
            check=True,
        )
        aside.unlink()
