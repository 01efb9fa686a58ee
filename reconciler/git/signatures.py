"""Who signed one commit, judged by the host's keys alone (docs/security.md, Signatures).

SSH signatures are for git to judge: `verify-commit` by its exit code, with every setting pinned and every other format's
program set to none. `%G?` is not asked: its `U` is a pass for some formats. PGP signatures are for gpgv (`git.pgp`).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler.errors import PassError
from reconciler.git import pgp
from reconciler.git.command import Git
from reconciler.git.commits import CommitObject
from reconciler.git.signers import KEY_TYPES, Keys, Signer, key_line, key_name, key_type

SKEW = timedelta(minutes=5)  # by which two clocks may differ

_SSH = re.compile(rb"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n-----END SSH SIGNATURE-----\n*")
_GOOD = re.compile(r'Good "git" signature for (.+) with \S+ key (SHA256:\S+)')
_NOTHING = "/nonexistent"
_NAMESPACE = b"git"


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that holds. `key` is its name (`SHA256:...`, or `PGP:` and the fingerprint), `public` the key itself.

    `forge` says that a forge signed, for whoever pressed its button; `expires` is when the key stops to count, if ever.
    """

    signer: str
    key: str
    public: str
    forge: bool = False
    expires: datetime | None = None


def verify(git: Git, commit: CommitObject, keys: Keys, command: str = "verify-commit") -> Signed:
    """Prove that one of the host's keys signed the commit; with `verify-tag`, the tag of this name, dates and bytes.

    Raises:
        PassError: `SignatureMissing`, `SignatureInvalid`, `SignerUnknown`, `SignerRevoked`: each names the commit.
    """
    if not commit.signature:
        raise _refused("SignatureMissing", commit, "is not signed", "merge in a way that signs, see docs/operations.md")
    if commit.signature.startswith(pgp.ARMOR):
        return _by_forge(commit, keys)
    if commit.signature.startswith(b"-----BEGIN SSH SIGNATURE-----\n"):
        return _by_person(git, commit, keys, command)
    raise _refused(
        "SignatureInvalid", commit, "has a signature that is neither an SSH nor a PGP one", "sign with an SSH key"
    )


def check_dates(commit: CommitObject, parent: CommitObject | None, now: datetime) -> None:
    """A key counts at the commit's own date, so that date is bounded: not after now, and not before the first parent's.

    Raises:
        PassError: `DateInvalid`.
    """
    if commit.committed_at > now + SKEW:
        what = f"is dated {commit.committed_at:%Y-%m-%d %H:%M:%S} UTC, which is in the future here"
        raise _refused("DateInvalid", commit, what, "set the clocks right; it counts once its time has come")
    if parent is not None and commit.committed_at < parent.committed_at:
        what = f"is dated {commit.committed_at:%Y-%m-%d %H:%M:%S} UTC, before its parent {parent.commit[:12]}"
        raise _refused("DateInvalid", commit, what, "somebody set the date back, or a clock is wrong: merge it again")


def check_first_sight(commit: CommitObject, signed: Signed, looked_before: datetime | None) -> None:
    """A commit by an expired key was not there yet when the branch was looked at after the key had expired.

    `looked_before` is the last look before the one that found the commit; None: there was none, so nothing is proven.

    Raises:
        PassError: `SignerUnknown`.
    """
    if signed.expires is not None and looked_before is not None and signed.expires < looked_before:
        what = f"is signed by {signed.signer} with {signed.key}, which counted until {signed.expires:%Y-%m-%d %H:%M:%S} UTC"
        seen = f"came onto the branch after {looked_before:%Y-%m-%d %H:%M:%S} UTC, whatever its own date says"
        raise _refused("SignerUnknown", commit, f"{what}, and {seen}", "find out who set its date back; sign it anew")


def _by_forge(commit: CommitObject, keys: Keys) -> Signed:
    if keys.keyring is None or keys.tools.gpgv is None:
        remedy = "sign with an SSH key, or configure the forge's keys as pgp_keys"
        raise _refused("SignerUnknown", commit, "has a PGP signature, and this host trusts no PGP key", remedy)
    try:
        found = pgp.verify(keys.tools.gpgv, keys.keyring, commit.payload, commit.signature)
    except PassError as error:
        raise _refused(error.reason, commit, str(error), "find out who made it, and merge it again") from error
    name = f"PGP:{found.fingerprint}"
    if name in keys.revoked_keys:
        raise _revoked(commit, found.who, name)
    if found.at > commit.committed_at + SKEW or found.at < commit.committed_at - SKEW:
        what = (
            f"is dated {commit.committed_at:%Y-%m-%d %H:%M:%S} UTC and was signed at {found.at:%Y-%m-%d %H:%M:%S} UTC"
        )
        raise _refused("DateInvalid", commit, what, "a forge signs what it makes at once: merge it again")
    if found.expired_at is not None and commit.committed_at >= found.expired_at:
        what = f"is signed by {name}, which expired at {found.expired_at:%Y-%m-%d %H:%M:%S} UTC"
        raise _refused("SignerUnknown", commit, what, "put the forge's present keys into pgp_keys")
    return Signed(found.who, name, "", forge=True, expires=found.expired_at)


def _by_person(git: Git, commit: CommitObject, keys: Keys, command: str) -> Signed:
    blob = _signing_key(commit)
    key = key_name(blob)
    lines = [signer for signer in keys.signers if signer.key == blob]
    if not lines:
        remedy = "let a person whose key is in allowed_signers merge, or add the key there"
        raise _refused("SignerUnknown", commit, f"is signed by {key}, which nobody on this host's list has", remedy)
    if keys.which_revoked({key: key_line(blob)}):
        raise _revoked(commit, lines[0].principals, key)
    covering = [signer for signer in lines if signer.covers(commit.committed_at)]
    if not covering:
        what = f"is signed by {lines[0].principals} with {key}, which counts {_windows(lines)}"
        said = f"{what}, and is dated {commit.committed_at:%Y-%m-%d %H:%M:%S} UTC"
        raise _refused("SignerUnknown", commit, said, "sign it with a key that counts today")
    who = _judged(git, commit, keys, key, command)
    ends = [signer.valid_before for signer in covering]
    return Signed(who, key, key_line(blob), expires=None if None in ends else max(end for end in ends if end))


def _judged(git: Git, commit: CommitObject, keys: Keys, key: str, command: str) -> str:
    """Ask git; who it says signed. Its exit code decides, and what it says must be of the same key."""
    settings = (
        "gpg.format=ssh",
        "gpg.minTrustLevel=fully",
        f"gpg.ssh.program={keys.tools.ssh_keygen}",
        f"gpg.ssh.allowedSignersFile={keys.allowed}",
        f"gpg.ssh.revocationFile={keys.revoked}",
        f"gpg.program={_NOTHING}",
        f"gpg.openpgp.program={_NOTHING}",
        f"gpg.x509.program={_NOTHING}",
    )
    local = Git(git.folder, patience=git.patience)  # no remote: ssh-keygen inherits git's environment
    done = local.ask(command, operands=(commit.commit,), settings=settings)
    said = done.err.decode("utf-8", "replace")
    good = [match for line in said.splitlines() if (match := _GOOD.fullmatch(line)) and match[2] == key]
    if done.code or not good:
        telling = "; ".join(said.replace(str(keys.allowed), "allowed_signers").splitlines())[:300]
        what = f"has a signature by {key} that does not hold (git said: {telling})"
        raise _refused("SignatureInvalid", commit, what, "find out who made it; sign it anew")
    return good[0][1]


def _signing_key(commit: CommitObject) -> bytes:
    """The blob of the public key that an SSH signature names (PROTOCOL.sshsig): what git will check is of this form only.

    Raises:
        PassError: `SignatureInvalid`, `SignerUnknown`.
    """
    body = _SSH.fullmatch(commit.signature)
    try:
        data = base64.b64decode(body[1].replace(b"\n", b""), validate=True) if body else b""
    except binascii.Error:
        data = b""
    if data[:10] != b"SSHSIG\0\0\0\1":
        raise _refused("SignatureInvalid", commit, "has an SSH signature that cannot be read", "sign it anew")
    blob, rest = _string(data[10:])
    namespace, _ = _string(rest)
    if namespace != _NAMESPACE:
        what = "has a signature that was made for something else than git"
        raise _refused("SignatureInvalid", commit, what, "find out who put it there; sign it anew")
    if key_type(blob) not in KEY_TYPES:
        what = "is signed by a certificate or an old kind of key, which do not count here"
        raise _refused("SignerUnknown", commit, what, "sign with a plain key: ssh-ed25519")
    return blob


def _string(data: bytes) -> tuple[bytes, bytes]:
    """A string of SSH's wire format, and what follows it."""
    end = 4 + int.from_bytes(data[:4], "big")
    return data[4:end], data[end:]


def _windows(lines: list[Signer]) -> str:
    """When the lines of one key count, for people."""
    return " and ".join(
        " ".join(
            f"{word} {moment:%Y-%m-%d %H:%M:%S} UTC"
            for word, moment in (("from", line.valid_after), ("until", line.valid_before))
            if moment
        )
        for line in lines
    )


def _revoked(commit: CommitObject, who: str, key: str) -> PassError:
    remedy = "take it out of the branch: nothing that this key signed counts"
    return _refused("SignerRevoked", commit, f"is signed by {who} with {key}, which is in revoked_keys", remedy)


def _refused(reason: str, commit: CommitObject, what: str, remedy: str) -> PassError:
    return PassError(reason, f"{commit.commit} {what}: {remedy}.")
