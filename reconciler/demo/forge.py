"""Bare repositories as a forge keeps them: a protected branch, changed by merges only, and tags.

This is the people's side of git. The daemon's own, which trusts none of it, lives in `reconciler.git`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import ConfigError
from reconciler.model import Commit

Files = Mapping[str, str | bytes | None]  # path -> content, or None: removed

FORGE = "Forge <forge@example.com>"
PERSON = "Ada <ada@example.com>"

# The same commits everywhere: nothing of the user's own git configuration may reach them.
ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
}

HOOK = """\
#!/bin/sh
# A protected branch: only the forge itself moves it, when a reviewed pull request is merged.
if [ "$1" = refs/heads/{branch} ]; then
    echo "{branch} is protected: push a branch, and merge it with ./merge BRANCH" >&2
    exit 1
fi
"""

MERGE = """\
#!/bin/sh
# Usage: ./merge BRANCH
# What the forge's merge button does once the pull request is approved: a true merge commit on the protected branch.
set -eu
branch=${{1:?usage: ./merge BRANCH}}
forge() {{ git --git-dir={repository} -c user.name=Forge -c user.email=forge@example.com "$@"; }}
tip=$(forge rev-parse --verify --quiet "refs/heads/$branch^{{commit}}") || {{
    echo "merge: no branch $branch was pushed; there are:" >&2
    forge for-each-ref --format='  %(refname:short)' refs/heads/ >&2
    exit 1
}}
head=$(forge rev-parse refs/heads/{main})
tree=$(forge merge-tree --write-tree "$head" "$tip") || {{
    echo "merge: $branch conflicts with {main}; rebase it: git fetch && git rebase origin/{main}" >&2
    exit 1
}}
commit=$(forge commit-tree -p "$head" -p "$tip" -m "Merge branch '$branch'" "$tree")
forge update-ref refs/heads/{main} "$commit" "$head"
echo "merged $branch into {main}: $commit"
"""


@dataclass(frozen=True, slots=True)
class Forge:
    """One bare repository and its protected branch. Its own methods are the forge's: the hook does not bind them."""

    folder: Path
    branch: str = "main"

    @classmethod
    def create(cls, folder: Path, branch: str = "main", *, protected: bool = False) -> Forge:
        """An empty repository; `protected`: pushes to the branch are refused."""
        made = cls(folder, branch)
        git(folder.parent, "init", "--quiet", "--bare", "--template=", f"--initial-branch={branch}", str(folder))
        if protected:
            hook = folder / "hooks" / "update"
            hook.parent.mkdir(exist_ok=True)
            hook.write_text(HOOK.format(branch=branch), encoding="utf-8")
            hook.chmod(0o755)
        return made

    @property
    def url(self) -> str:
        """The `file://` address."""
        return self.folder.as_uri()

    @property
    def head(self) -> Commit:
        """The protected branch's commit."""
        return self.at(f"refs/heads/{self.branch}")

    def at(self, name: str) -> Commit:
        """The commit that a name stands for."""
        return Commit(self._git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}"))

    def show(self, path: str, commit: str | None = None) -> str:
        """A file of a commit, of the head if none is given, without its last newline."""
        return self._git("show", f"{commit or self.branch}:{path}")

    def paths(self, prefix: str) -> list[str]:
        """The files of the head below a folder (`environments/`)."""
        return self._git("ls-tree", "-r", "--name-only", self.branch, "--", prefix).splitlines()

    def commit(
        self, files: Files, message: str, *, branch: str | None = None, author: str = PERSON, when: int | None = None
    ) -> Commit:
        """Commit straight onto a branch, which starts at the head if it is new. `when`: seconds since the epoch."""
        ref = f"refs/heads/{branch or self.branch}"
        start = next((name for name in (ref, f"refs/heads/{self.branch}") if self._known(name)), None)
        self._import(_commit(ref, files, message, author, when, [f"{start}^0"] if start else []))
        return self.at(ref)

    def merge(self, files: Files, message: str, *, branch: str = "change") -> Commit:
        """A branch with these changes, merged by a true merge commit: what one reviewed pull request does."""
        head = self.head
        ref = f"refs/heads/{branch}"
        work = _commit(ref, files, message, PERSON, None, [head], mark=1)
        merge = _commit(f"refs/heads/{self.branch}", files, f"Merge branch '{branch}'", FORGE, None, [head, ":1"])
        # The branch starts at the head whatever it was before, as one does that is made anew for each change.
        self._import(f"reset {ref}\nfrom {head}\n\n".encode(), work, merge)
        return self.head

    def merge_branch(self, branch: str) -> Commit:
        """Merge a branch that was pushed. Raises ConfigError if it conflicts, or is not there."""
        command(["sh", "-c", self.merge_script(), "merge", branch], self.folder)
        return self.head

    def merge_script(self) -> str:
        """The text of a program that merges a pushed branch, for a person's shell."""
        return MERGE.format(repository=shlex.quote(str(self.folder)), main=self.branch)

    def tag(self, name: str, commit: str | None = None) -> None:
        """Tag a commit, the head if none is given; moves the tag if it is there."""
        self._git("tag", "--force", name, commit or self.head)

    def point(self, branch: str, commit: Commit) -> None:
        """Move a branch anywhere: this is how history is rewritten."""
        self._git("update-ref", f"refs/heads/{branch}", commit)

    def _known(self, ref: str) -> bool:
        return bool(self._git("for-each-ref", "--format=%(refname)", ref))

    def _import(self, *parts: bytes) -> None:
        command(["git", f"--git-dir={self.folder}", "fast-import", "--quiet", "--force"], self.folder, b"".join(parts))

    def _git(self, *words: str) -> str:
        return git(self.folder, f"--git-dir={self.folder}", *words)


def _commit(
    ref: str, files: Files, message: str, author: str, when: int | None, parents: Sequence[str], mark: int | None = None
) -> bytes:
    """One commit in fast-import's language: a process makes any number of them, with no work tree."""
    text = message.encode()
    lines = [f"commit {ref}", *([f"mark :{mark}"] if mark else [])]
    lines += [f"committer {author} {int(time.time()) if when is None else when} +0000", f"data {len(text)}"]
    head = "\n".join(lines).encode() + b"\n" + text + b"\n"
    links = "".join(f"{word} {parent}\n" for word, parent in zip(("from", "merge"), parents, strict=False))
    return head + links.encode() + b"".join(_changes(files)) + b"\n"


def _changes(files: Files) -> Iterable[bytes]:
    for path, content in sorted(files.items()):
        if content is None:
            yield f"D {path}\n".encode()
        else:
            data = content.encode() if isinstance(content, str) else content
            yield f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n"


def git(folder: Path, *words: str) -> str:
    """Run git as a person would, and return its stdout without the last newline. Raises ConfigError."""
    return command(["git", *words], folder).removesuffix("\n")


def command(argv: Sequence[str], folder: Path, stdin: bytes = b"") -> str:
    """Run a program to its end. Raises ConfigError with what it said when it fails."""
    env = {"PATH": os.environ.get("PATH", os.defpath), **ENVIRONMENT}
    done = subprocess.run(argv, cwd=folder, env=env, input=stdin, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ConfigError(f"{folder}: {shlex.join(argv)[:200]} failed: {said}")
    return done.stdout.decode()
