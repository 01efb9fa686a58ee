"""Keys and signed commits for tests: real ssh-keygen and gpg, and commits put together byte by byte."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.model import Commit
from tests.kit.gitrepo import RepoBuilder

NOON = 1_700_000_000 + 43_200  # seconds: an hour after everything that `RepoBuilder` dates by itself in a test
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@dataclass(frozen=True)
class SshKey:
    """A pair of keys. `public` is type and base64, `name` as ssh-keygen prints it."""

    path: Path
    public: str
    name: str

    def line(self, who: str = "ada@example.org", options: str = "") -> str:
        """Its line in allowed_signers."""
        return " ".join(word for word in (who, options, self.public) if word) + "\n"

    def sign(self, data: bytes, namespace: str = "git", with_key: Path | None = None) -> bytes:
        """An armored signature."""
        words = ("ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(with_key or self.path))
        return _ran(*words, stdin=data)


class SshKeys:
    """Pairs of keys by name, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, SshKey] = {}

    def __getitem__(self, name: str) -> SshKey:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> SshKey:
        """Names that begin with a type are of that type: `rsa-1`."""
        kind = name.partition("-")[0] if name.startswith(("rsa-", "ecdsa-")) else "ed25519"
        path = self.folder / name
        size = ("-b", "2048") if kind == "rsa" else ()
        _ran("ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", name, "-f", str(path))
        public = " ".join(path.with_suffix(".pub").read_text().split()[:2])
        return SshKey(path, public, _ran("ssh-keygen", "-l", "-f", str(path)).decode().split()[1])

    def certificate(self, authority: str, name: str, who: str) -> Path:
        """A certificate for a key, beside it."""
        key = self[name]
        _ran("ssh-keygen", "-q", "-s", str(self[authority].path), "-I", who, "-n", who, str(key.path) + ".pub")
        return key.path.with_name(f"{name}-cert.pub")

    def krl(self, path: Path, *names: str) -> Path:
        """A list of revoked keys in OpenSSH's binary form."""
        _ran("ssh-keygen", "-q", "-k", "-f", str(path), *(str(self[name].path) + ".pub" for name in names))
        return path


class PgpKeys:
    """A GnuPG home with keys without passwords."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._made: dict[str, str] = {}

    def key(self, name: str, *, expire: str = "0", at: int = 1_600_000_000) -> str:
        """The fingerprint of a key, made on that day."""
        if name not in self._made:
            words = ("--quick-gen-key", f"{name} <{name}@forge.example>", "ed25519", "sign", expire)
            self._gpg("--faked-system-time", _moment(at), *words)
            listed = self._gpg("--with-colons", "--list-keys", f"{name}@forge.example").decode()
            self._made[name] = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        return self._made[name]

    def export(self, *names: str, armor: bool = True) -> bytes:
        """Public keys as a file has them."""
        return self._gpg(*(["--armor"] if armor else []), "--export", *(self.key(name) for name in names))

    def sign(self, data: bytes, name: str, *, at: int = NOON, options: tuple[str, ...] = ()) -> bytes:
        """An armored detached signature."""
        words = ("--faked-system-time", f"{_moment(at)}", *options, "-u", self.key(name), "--armor", "--detach-sign")
        return self._gpg(*words, stdin=data)

    def revoke(self, name: str) -> None:
        """By its owner; exports have it from then on."""
        path = self._home / "openpgp-revocs.d" / f"{self._made[name]}.rev"
        self._gpg("--import", stdin=path.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))

    def _gpg(self, *words: str, stdin: bytes = b"") -> bytes:
        options = (
            "--homedir",
            str(self._home),
            "--batch",
            "--quiet",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
        )
        return _ran("gpg", *options, *words, stdin=stdin)


def payload(
    parents: tuple[str, ...] = (), *, at: int = NOON, message: str = "change", tree: str = EMPTY_TREE, more: bytes = b""
) -> bytes:
    """A commit without a signature; `more` are further header lines."""
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
    lines += [f"{who} Ada <ada@example.org> {at} +0000" for who in ("author", "committer")]
    return "\n".join(lines).encode() + b"\n" + more + b"\n" + message.encode() + b"\n"


def with_signature(data: bytes, signature: bytes, header: str = "gpgsig") -> bytes:
    """The commit with a signature in its header."""
    head, _, body = data.partition(b"\n\n")
    value = signature.rstrip(b"\n").replace(b"\n", b"\n ")
    return head + b"\n" + header.encode() + b" " + value + b"\n\n" + body


def write(repo: RepoBuilder, data: bytes, branch: str | None = "main") -> Commit:
    """Put a commit's bytes into the repository as they are, and the branch there."""
    commit = Commit(repo.git("hash-object", "-w", "--literally", "-t", "commit", "--stdin", stdin=data))
    if branch:
        repo.point(branch, commit)
    return commit


def signed(
    repo: RepoBuilder, key: SshKey, *, at: int = NOON, message: str = "change", tree: str | None = None
) -> Commit:
    """A signed commit on top of the branch, with its parent's tree."""
    head = repo.head()
    found = tree or (repo.git("rev-parse", f"{head}^{{tree}}") if head else EMPTY_TREE)
    data = payload((head,) if head else (), at=at, message=message, tree=found)
    return write(repo, with_signature(data, key.sign(data)))


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%S")


def _ran(*words: str, stdin: bytes = b"") -> bytes:
    env = {"HOME": "/nonexistent", "LC_ALL": "C", "PATH": os.environ["PATH"], "TZ": "UTC"}
    done = subprocess.run(words, input=stdin, env=env, capture_output=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr.decode(errors='replace')}"
    return done.stdout


@pytest.fixture(scope="session")
def ssh_keys(tmp_path_factory: pytest.TempPathFactory) -> SshKeys:
    """Keys of people."""
    return SshKeys(tmp_path_factory.mktemp("ssh"))


@pytest.fixture(scope="session")
def pgp_keys() -> Iterator[PgpKeys]:
    """Keys of a forge. The home's path is short: the agent's socket is in it."""
    with tempfile.TemporaryDirectory(prefix="gpg") as home:
        try:
            yield PgpKeys(Path(home))
        finally:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, capture_output=True)
