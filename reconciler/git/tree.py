"""A commit's tree, read as blobs and never checked out.

Whoever writes to the repository chooses what is in it: every loop here is bounded, and what is odd about one file is
said of that file alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reconciler.errors import PassError
from reconciler.git.command import Git
from reconciler.model import Commit

FILE = "100644"
TOO_LARGE = "TreeTooLarge"  # of the one fault that is the commit's own: no other look at it finds anything else
PROGRAM = "100755"
_KINDS = {"120000": "a symbolic link", "160000": "a submodule", PROGRAM: "executable"}

# Path segments of letters, digits, `.`, `_` and `-`, and neither `.` nor `..` nor `.git`.
ENTRY_PATH = re.compile(
    rb"(?!(?:.*/)?(?:\.{1,2}|\.[Gg][Ii][Tt])(?:/|$))[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*", re.DOTALL
)
_OBJECT_ID = re.compile(r"[0-9a-f]{40}")
_MISSING = "0" * 40
_COMPARING = 192 << 20  # bytes: enough for some 300,000 files that differ


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """What a tree may hold: files, bytes of a path, bytes of all files together.

    A tree at the default limits is looked through in less than a second and 256 MB, by git and by us.
    """

    entries: int = 150_000
    path: int = 400
    total: int = 128 << 20


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One file of a tree. `size` in bytes; `problem` says why it must not be read, empty where nothing is wrong.

    The path of a file with a problem is for people: what is not printable ASCII in it is escaped.
    """

    mode: str
    path: str
    blob_id: str
    size: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class TreeChange:
    """One file that differs between two trees. `mode` and `blob_id` are the new ones, empty where it was removed."""

    path: str
    mode: str
    blob_id: str
    problem: str = ""

    @property
    def removed(self) -> bool:
        """Whether the newer tree has no such file."""
        return not self.blob_id


def list_blobs(
    git: Git,
    commit: Commit,
    *prefixes: str,
    limits: TreeLimits | None = None,
    modes: Sequence[str] = (FILE,),
    names: re.Pattern[bytes] = ENTRY_PATH,
) -> Iterator[TreeEntry]:
    """Every file under any of the prefixes (all files where there is none), as `ls-tree` prints them.

    Raises:
        PassError: more entries or bytes than the limits allow (`TreeTooLarge`), or no such commit.
    """
    limits = limits or TreeLimits()
    total = 0
    options = ("-r", "-z", "-l", "--full-tree")
    records = _records(git, git.stream("ls-tree", *options, operands=(object_id(commit), *prefixes)))
    for number, record in enumerate(records):
        head, _, path = record.partition(b"\t")
        mode, _, blob_id, shown_size = head.decode().split()
        size = _size(git, blob_id, shown_size)
        total += size
        if number >= limits.entries or total > limits.total:
            what = f"commit {commit} has more than {limits.entries} files or {limits.total} bytes"
            raise _too_large(git, f"{what}, from {_shown(path, 'odd')} on")
        problem = _problem(mode, path, limits, modes, names)
        yield TreeEntry(mode, _shown(path, problem), blob_id, size, problem)


def changed_paths(
    git: Git, old: Commit, new: Commit, *prefixes: str, limits: TreeLimits | None = None
) -> list[TreeChange]:
    """The files that differ between two commits, under any of the prefixes.

    Raises:
        PassError: more than the limits allow (`TreeTooLarge`), or no such commit.
    """
    limits = limits or TreeLimits(entries=300_000)  # two trees that are not too large can follow each other
    options = ("-r", "-z", "--no-renames", "--no-abbrev")
    operands = (object_id(old), object_id(new))
    records = _compared(git, git.stream("diff-tree", *options, operands=operands, paths=prefixes, memory=_COMPARING))
    changes: list[TreeChange] = []
    for head in records:
        path = next(records)
        _, mode, _, blob_id, _ = head.decode().split()
        gone = blob_id == _MISSING
        problem = _problem(FILE if gone else mode, path, limits, (FILE,), ENTRY_PATH)
        changes.append(TreeChange(_shown(path, problem), "" if gone else mode, "" if gone else blob_id, problem))
        if len(changes) > limits.entries:
            what = f"more than {limits.entries} files differ between {old} and {new}"
            raise _too_large(git, f"{what}, from {_shown(path, 'odd')} on")
    return changes


def read_blobs(git: Git, ids: Iterable[str], limit: int = 8 << 20, total: int = 128 << 20) -> dict[str, bytes]:
    """The contents of blobs, in one process. A blob of more than `limit` bytes is left out of the answer.

    Raises:
        PassError: a blob is not there (`ObjectMissing`); more than `total` bytes altogether (`TreeTooLarge`).
    """
    wanted = [object_id(blob) for blob in dict.fromkeys(ids)]
    if not wanted:
        return {}
    stdin = "".join(f"{blob}\n" for blob in wanted).encode()
    reader = _Reader(git.stream("cat-file", "--batch", "--buffer", stdin=stdin))
    blobs: dict[str, bytes] = {}
    read = 0
    for blob in wanted:
        size = _announced(git, blob, reader.line())
        read += size
        if read > total:
            raise _too_large(git, f"the files asked for have more than {total} bytes")
        if size > limit:
            reader.skip(size + 1)
        else:
            blobs[blob] = reader.take(size + 1)[:-1]
    reader.end()
    return blobs


def object_id(text: str) -> str:
    """The text itself, proven to be a full object id, so that it can be nothing else to git.

    Raises:
        ValueError: it is not 40 lower-case hex digits.
    """
    if not _OBJECT_ID.fullmatch(text):
        raise ValueError(f"not an object id: {text!r}")
    return text


class _Reader:
    """Exact reads from pieces of any size."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""
        self._at = 0

    def line(self) -> bytes:
        """Up to the next newline, which is not part of the answer."""
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            self._more()
        start, self._at = self._at, end + 1
        return self._buffer[start:end]

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        if len(self._buffer) - self._at < size:
            pieces = [self._buffer[self._at :]]
            missing = size - len(pieces[0])
            while missing > 0:
                pieces.append(self._next())
                missing -= len(pieces[-1])
            self._buffer, self._at = b"".join(pieces), 0
        start, self._at = self._at, self._at + size
        return self._buffer[start : self._at]

    def skip(self, size: int) -> None:
        """Pass over `size` bytes without keeping them."""
        while (there := len(self._buffer) - self._at) < size:
            size -= there
            self._buffer, self._at = self._next(), 0
        self._at += size

    def end(self) -> None:
        """Let the command end, so that its exit code is looked at."""
        for _ in self._chunks:
            pass

    def _more(self) -> None:
        self._buffer, self._at = self._buffer[self._at :] + self._next(), 0

    def _next(self) -> bytes:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise PassError("ObjectMissing", "git ended in the middle of an object: the next poll checks the mirror")
        return chunk


def _compared(git: Git, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The records of `diff-tree`: it says nothing before it has seen everything, so that only its memory is a bound."""
    try:
        yield from _records(git, chunks)
    except PassError as error:
        if error.reason != "OutOfMemory":
            raise
        raise _too_large(git, "two commits differ in more files than can be compared") from error


def _records(git: Git, chunks: Iterator[bytes], longest: int = 1 << 20) -> Iterator[bytes]:
    """NUL-terminated records; a path may be as long as its author likes, so one record is bounded too."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole
        if len(rest) > longest:
            raise _too_large(git, "a path has more than a million bytes")


def _problem(mode: str, path: bytes, limits: TreeLimits, modes: Sequence[str], names: re.Pattern[bytes]) -> str:
    if len(path) > limits.path:
        return f"the path has {len(path)} bytes: use at most {limits.path}"
    if not names.fullmatch(path):
        return "the path holds characters that are not allowed: use letters, digits, '.', '_' and '-' between slashes"
    if mode not in modes:
        return f"{_KINDS.get(mode, f'of mode {mode}')} is not allowed here: commit a plain file (mode {FILE})"
    return ""


def _shown(path: bytes, problem: str) -> str:
    if not problem:
        return path.decode("ascii")
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}" for byte in path[:400])
    return shown if len(path) <= 400 else f"{shown}..."


def _size(git: Git, blob: str, shown: str) -> int:
    """What `ls-tree -l` prints: `-` for a submodule, `BAD` for a blob that is not there."""
    if shown == "-":
        return 0
    if shown == "BAD":
        raise _missing(git, blob)
    return int(shown)


def _announced(git: Git, blob: str, header: bytes) -> int:
    """The size in `<id> blob <size>`."""
    words = header.split()
    if len(words) == 3 and words[1] == b"blob":
        return int(words[2])
    raise _missing(git, blob)


def _missing(git: Git, blob: str) -> PassError:
    return PassError("ObjectMissing", f"{git.where}: blob {blob} is not in the mirror: the next poll checks the mirror")


def _too_large(git: Git, what: str) -> PassError:
    return PassError(TOO_LARGE, f"{git.where}: {what}: look for what grew, and take it out of the repository")
