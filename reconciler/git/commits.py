"""A commit object, read and taken apart as strictly as git would ever write it: which bytes of it are signed, and by what.

Git itself is lenient here: it joins several signatures into one, and leaves every header whose name begins with `gpgsig`
out of what is signed. Whoever writes to the repository could use that, so such a commit is refused before git sees it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from reconciler.errors import PassError
from reconciler.git.command import Git
from reconciler.git.tree import object_id
from reconciler.model import Commit

COMMIT_LIMIT = 256 << 10  # bytes of one commit object: message, signature and merged tags together
_SIGNATURE_LIMIT = 64 << 10
_HEADER_LINES = 10_000
_LATEST = 253_402_300_799  # the end of the year 9999

_FIRST = re.compile(
    rb"tree [0-9a-f]{40}\n((?:parent [0-9a-f]{40}\n)*)author [^\n]*\ncommitter [^<>\n]*<[^<>\n]*> ([0-9]{1,12}) [+-][0-9]{4}\n"
)
_AGAIN = (b"tree ", b"parent ", b"author ", b"committer ")


@dataclass(frozen=True, slots=True)
class CommitObject:
    """One commit. `payload` is what its signature is over; `signature` is empty where there is none."""

    commit: Commit
    parents: tuple[Commit, ...]
    committed_at: datetime
    payload: bytes
    signature: bytes


def read_commits(git: Git, commits: Sequence[Commit]) -> Iterator[CommitObject]:
    """The commits, in this order, with one process.

    Raises:
        PassError: `CommitInvalid`, one of them is not what git would write; `CommitTooLarge`; `ObjectMissing`.
    """
    for commit, data in zip(commits, _contents(git, commits), strict=True):
        yield parse(commit, data)


def parse(commit: Commit, data: bytes) -> CommitObject:
    """Take the bytes of a commit apart.

    Raises:
        PassError: `CommitInvalid`.
    """
    if hashlib.sha1(b"commit %d\0" % len(data) + data, usedforsecurity=False).hexdigest() != commit:
        raise _invalid(commit, "what the mirror holds under this name is something else: remove the mirror's folder")
    if b"\0" in data:
        raise _invalid(commit, "it holds a NUL byte, behind which most tools show nothing")
    head, blank, body = data.partition(b"\n\n")
    first = _FIRST.match(head + b"\n")
    if not first or not blank:
        raise _invalid(commit, "its first lines are not tree, parents, author and committer")
    rest = (head + b"\n")[first.end() :]
    signature, kept = _without_signature(commit, rest)
    parents = tuple(Commit(word.decode()) for word in first[1].split()[1::2])
    moment = datetime.fromtimestamp(min(int(first[2]), _LATEST), UTC)
    return CommitObject(commit, parents, moment, first[0] + kept + b"\n" + body, signature)


def _without_signature(commit: Commit, headers: bytes) -> tuple[bytes, bytes]:
    """The value of `gpgsig`, and the other headers as they are."""
    signatures: list[bytes] = []
    kept: list[bytes] = []
    for header in _headers(commit, headers):
        if header.startswith(b"gpgsig "):
            signatures.append(header.removeprefix(b"gpgsig ").replace(b"\n ", b"\n"))
        elif header.startswith(b"gpgsig"):
            raise _invalid(commit, "it has a header whose name only begins with `gpgsig`, which no signature is over")
        elif header.startswith(_AGAIN):
            raise _invalid(commit, "it has a second tree, author or committer, or a parent where none may stand")
        else:
            kept.append(header)
    if len(signatures) > 1:
        raise _invalid(commit, "it has more than one signature")
    signature = signatures[0] if signatures else b""
    if len(signature) > _SIGNATURE_LIMIT:
        raise _invalid(commit, f"its signature has more than {_SIGNATURE_LIMIT} bytes")
    return signature, b"".join(kept)


def _headers(commit: Commit, text: bytes) -> Iterator[bytes]:
    """Each header with its continuation lines and its last line feed."""
    lines = text.splitlines(keepends=True) if b"\r" not in text else re.findall(rb"[^\n]*\n", text)
    if len(lines) > _HEADER_LINES:
        raise _invalid(commit, f"its headers have more than {_HEADER_LINES} lines")
    header = b""
    for line in lines:
        if line.startswith(b" "):
            if not header:
                raise _invalid(commit, "its headers begin in the middle of one")
            header += line
            continue
        if header:
            yield header
        header = line
    if header:
        yield header


def _contents(git: Git, commits: Sequence[Commit]) -> Iterator[bytes]:
    """What `cat-file --batch` has under each name; a commit that is too large is not read to its end."""
    names = "".join(f"{object_id(commit)}\n" for commit in commits).encode()
    stream = git.stream("cat-file", "--batch", "--buffer", stdin=names)
    buffer = bytearray()

    def take(size: int) -> bytes:
        while len(buffer) < size:
            buffer.extend(next(stream))
        taken = bytes(buffer[:size])
        del buffer[:size]
        return taken

    try:
        for commit in commits:
            while (end := buffer.find(b"\n")) < 0:
                buffer.extend(next(stream))
            name, kind, *size = take(end + 1).decode().split()
            if name != commit or kind != "commit" or not size:
                raise PassError(
                    "ObjectMissing", f"{git.where}: {commit} is no commit in the mirror: the next poll checks it"
                )
            if int(size[0]) > COMMIT_LIMIT:
                what = f"{commit} has {size[0]} bytes of message, headers and signature; {COMMIT_LIMIT} is the most"
                raise PassError("CommitTooLarge", f"{what}: merge again with a shorter message.")
            yield take(int(size[0]) + 1)[:-1]
    except StopIteration:  # cannot leave a generator: the stream ended early
        raise PassError("ObjectMissing", f"{git.where}: git ended in the middle of a commit: poll again") from None


def _invalid(commit: Commit, what: str) -> PassError:
    return PassError(
        "CommitInvalid", f"{commit}: {what}. It is not trusted: revert the branch to before it and merge again."
    )
