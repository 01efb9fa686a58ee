"""The keys of this host: who may sign commits, which keys are revoked, and the keys of forges. Read anew at every use.

What was read is what is used: git and ssh-keygen get copies of the bytes that were checked here, named by their content. They
would skip a malformed line, and take a revocation file that is missing for an empty one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from reconciler.durable import write_atomic
from reconciler.errors import PassError, Place
from reconciler.git.pgp import read_keyring
from reconciler.git.tools import Tools, find_tools, run_tool

FILE_LIMIT = 1 << 20  # bytes of one file of keys
KEY_TYPES = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
_KRL = b"SSHKRL\n\0"
_VERSION = re.compile(r"#\s*version:\s*(\S*)\s*")
_PRINCIPALS = re.compile(r'(?:"([^"]+)"|([^\s"]+))[ \t]+(.*)')
_OPTION = re.compile(r'([a-z-]+)(?:="([^"]*)")?(?:,|(?=[ \t]))')
_DATE = re.compile(r"([0-9]{8})(?:([0-9]{4})([0-9]{2})?)?Z?")
_PGP_LINE = re.compile(r"pgp[ \t]+([0-9A-Fa-f]{40})(?:[ \t]+.*)?")


@dataclass(frozen=True, slots=True)
class Signer:
    """One line of allowed_signers. The window includes both its ends, as ssh-keygen has it."""

    line: int
    principals: str
    key: bytes
    valid_after: datetime | None = None
    valid_before: datetime | None = None

    def covers(self, at: datetime) -> bool:
        """Whether the moment is in the line's window."""
        late = self.valid_before is not None and at > self.valid_before
        return not late and (self.valid_after is None or at >= self.valid_after)


@dataclass(frozen=True, slots=True)
class Keys:
    """The host's keys as of one moment. `version` is 0 where the file names none.

    `fingerprint` is of the revocation file. The paths are those of the copies; `keyring` is None where no PGP key is trusted, `krl` where there is no such list.
    """

    allowed: Path
    revoked: Path
    keyring: Path | None
    signers: tuple[Signer, ...]
    version: int
    revoked_keys: frozenset[str]
    krl: Path | None
    fingerprint: str
    tools: Tools

    @property
    def are_there(self) -> bool:
        """Whether the copies still are: their folder may be emptied at any time."""
        return all(path.exists() for path in (self.allowed, self.revoked, self.keyring) if path)

    def which_revoked(self, known: Mapping[str, str]) -> frozenset[str]:
        """Those of the known keys, by name, that are revoked. A name is `key_name`'s, its value the key itself.

        Raises:
            PassError: `SignersInvalid`, the list cannot be read.
        """
        listed = frozenset(known) & self.revoked_keys
        return listed | self._in_krl(known) if self.krl else listed

    def _in_krl(self, known: Mapping[str, str]) -> frozenset[str]:
        ssh = [name for name, key in known.items() if key]
        if not ssh:
            return frozenset()
        with tempfile.TemporaryDirectory(prefix="reconciler-") as folder:
            paths = [Path(folder) / str(number) for number in range(len(ssh))]
            for path, name in zip(paths, ssh, strict=True):
                path.write_text(f"{known[name]}\n", encoding="ascii")
            code, out, err = run_tool(self.tools.ssh_keygen, "-Q", "-f", str(self.krl), *map(str, paths))
        answers = out.decode("utf-8", "replace").splitlines()
        if code not in (0, 1) or len(answers) != len(ssh):
            raise PassError(
                "SignersInvalid",
                f"{self.krl}: revoked_keys is no list that ssh-keygen can read "
                f"({' '.join(err.decode(errors='replace').split())}): write it again (`ssh-keygen -k`)",
            )
        return frozenset(name for name, answer in zip(ssh, answers, strict=True) if not answer.endswith(": ok"))


class HostKeys:
    """The files that the host's configuration names."""

    def __init__(
        self, copies: Path, allowed: Path | None, revoked: Path | None, pgp: Path | None, tools: Tools | None = None
    ) -> None:
        """Raises ConfigError where a program that is needed is missing. `copies`: a folder of ours."""
        self._copies, self._allowed, self._revoked, self._pgp = copies, allowed, revoked, pgp
        self._tools = tools or find_tools(pgp=pgp is not None)
        self._last: tuple[tuple[bytes, ...], Keys] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that are configured."""
        return tuple(path for path in (self._allowed, self._revoked, self._pgp) if path)

    @property
    def place(self) -> str:
        """How errors name who may sign."""
        return str(self._allowed or self._pgp)

    def read(self) -> Keys:
        """What the files hold now.

        Raises:
            PassError: `SignersUnreadable`, `SignersInvalid`: with file and line.
        """
        allowed, revoked, pgp = (
            _bytes(path, field) if path else b""
            for path, field in (
                (self._allowed, "allowed_signers"),
                (self._revoked, "revoked_keys"),
                (self._pgp, "pgp_keys"),
            )
        )
        if self._last is None or self._last[0] != (allowed, revoked, pgp) or not self._last[1].are_there:
            self._last = (allowed, revoked, pgp), self._parsed(allowed, revoked, pgp)
        return self._last[1]

    def _parsed(self, allowed: bytes, revoked: bytes, pgp: bytes) -> Keys:
        lines = read_signers(str(self._allowed), allowed) if self._allowed else ((), 0)
        if self._allowed and not lines[0]:
            raise PassError(
                "SignersUnreadable", f"{self._allowed}: holds no key: write a line for each person who may merge"
            )
        is_krl = revoked.startswith(_KRL)
        listed = {} if is_krl else dict(read_revoked(str(self._revoked), revoked))
        for_ssh = revoked if is_krl else "".join(f"{key}\n" for key in listed.values() if key).encode()
        return Keys(
            self._copy("allowed_signers", allowed),
            copied := self._copy("revoked_keys", for_ssh),
            self._copy("pgp_keys", _keyring(self._pgp, pgp)) if self._pgp else None,
            *lines,
            frozenset(listed),
            copied if is_krl else None,
            hashlib.sha256(revoked).hexdigest(),
            self._tools,
        )

    def _copy(self, name: str, data: bytes) -> Path:
        path = self._copies / f"{name}.{hashlib.sha256(data).hexdigest()[:32]}"
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(path, data, durable=False)
        return path


def key_name(key: bytes) -> str:
    """How a public key is named in proofs and errors: `SHA256:...`, as ssh-keygen prints it. `key` is the key's blob."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def key_type(blob: bytes) -> str:
    """The type that the blob of a public key names; empty where it names none."""
    size = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + size].decode("ascii", "replace") if 0 < size < 100 else ""


def key_line(blob: bytes) -> str:
    """The key as a line of a file."""
    return f"{key_type(blob)} {base64.b64encode(blob).decode()}"


def read_signers(path: str, data: bytes) -> tuple[tuple[Signer, ...], int]:
    """The lines of allowed_signers (ssh-keygen(1), ALLOWED SIGNERS) and the file's version, 0 where it names none.

    Raises:
        PassError: `SignersInvalid`, with file and line: no line is skipped.
    """
    signers: list[Signer] = []
    versions: list[int] = []
    for number, line in _lines(path, data):
        if named := _VERSION.fullmatch(line):
            if not re.fullmatch(r"[1-9][0-9]{0,17}", named[1]) or versions:
                raise _invalid(path, number, "the version is a number from 1 on, written once: `# version: 7`")
            versions.append(int(named[1]))
        elif line and not line.startswith("#"):
            signers.append(_signer(path, number, line))
    return tuple(signers), versions[0] if versions else 0


def read_revoked(path: str, data: bytes) -> Iterator[tuple[str, str]]:
    """The keys of a revocation file by name: `<type> <base64>` lines, and `pgp <fingerprint>` for those of forges.

    Raises:
        PassError: `SignersInvalid`, with file and line.
    """
    for number, line in _lines(path, data):
        if not line or line.startswith("#"):
            continue
        if pgp := _PGP_LINE.fullmatch(line):
            yield f"PGP:{pgp[1].upper()}", ""
        else:
            blob = _key(path, number, line)
            yield key_name(blob), key_line(blob)


def _signer(path: str, number: int, line: str) -> Signer:
    named = _PRINCIPALS.fullmatch(line)
    if not named:
        raise _invalid(path, number, "expected `<who> [options] <type> <base64>`")
    rest, after, before = named[3].lstrip(), None, None
    if rest.split(None, 1)[0] not in KEY_TYPES:
        options, rest = _options(path, number, rest)
        after, before = (_date(path, number, options.get(name)) for name in ("valid-after", "valid-before"))
    return Signer(number, named[1] or named[2], _key(path, number, rest), after, before)


def _options(path: str, number: int, text: str) -> tuple[dict[str, str], str]:
    """The options before a key, and what follows them."""
    options: dict[str, str] = {}
    end = 0
    while option := _OPTION.match(text, end):
        name, end = option[1], option.end()
        if name == "cert-authority":
            raise _invalid(path, number, "certificate authorities are not supported: write the keys of people instead")
        if name not in ("namespaces", "valid-after", "valid-before") or option[2] is None or name in options:
            raise _invalid(
                path, number, f'{name} is no option, or stands twice; write namespaces="git", valid-after="..."'
            )
        options[name] = option[2]
    if not end or text[end : end + 1] not in (" ", "\t"):
        raise _invalid(path, number, "expected options or a key's type: ssh-ed25519 or its like")
    return options, text[end:].strip()


def _key(path: str, number: int, text: str) -> bytes:
    """The blob of a key line."""
    kind, data, *_ = (*text.split(None, 2), "", "")
    if kind not in KEY_TYPES:
        raise _invalid(path, number, f"{kind[:40]!r} is no type of key that may sign; use ssh-ed25519")
    try:
        blob = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    if key_type(blob) != kind:
        raise _invalid(path, number, f"what follows {kind} is no such key; copy the line of the .pub file again")
    return blob


def _date(path: str, number: int, text: str | None) -> datetime | None:
    """`YYYYMMDD[HHMM[SS]]`, always UTC: git and ssh-keygen are told so as well."""
    if text is None:
        return None
    parts = _DATE.fullmatch(text)
    try:
        if parts:
            digits = parts[1] + (parts[2] or "0000") + (parts[3] or "00")
            return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        pass
    raise _invalid(path, number, f"{text[:40]!r} is no date; write YYYYMMDD or YYYYMMDDHHMMSS (UTC)")


def _lines(path: str, data: bytes) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            raise _invalid(path, number, "not UTF-8") from None
        if "\0" in text:
            raise _invalid(path, number, "it holds a NUL byte; write the file as text")
        yield number, text.strip()


def _bytes(path: Path, field: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        what = f"{path}: cannot be read ({error.strerror}): no new commit is trusted until it can"
        raise PassError(
            "SignersUnreadable", f"{what}; put the file of `{field}` there, readable by this user."
        ) from error
    if len(data) > FILE_LIMIT:
        raise PassError("SignersInvalid", f"{path}: has more than {FILE_LIMIT} bytes: is this the file of `{field}`?")
    return data


def _keyring(path: Path, data: bytes) -> bytes:
    try:
        return read_keyring(data)
    except ValueError as error:
        remedy = "put the forge's public keys there (GitHub's: https://github.com/web-flow.gpg)"
        raise PassError("SignersInvalid", f"{path}: {error}: {remedy}") from error


def _invalid(path: str, line: int, what: str) -> PassError:
    return PassError("SignersInvalid", f"{Place(path, line, 1)}: {what}")
