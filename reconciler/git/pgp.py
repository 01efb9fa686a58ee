"""OpenPGP, for the keys of forges alone: detached signatures, checked by gpgv against exactly the host's file of keys.

gpgv needs no home, no agent and no trust database, and believes every key that it is given. It does not judge: it says 0 of
signatures by expired and revoked keys and over weak digests as well, so what counts is what it says of the signature.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from reconciler.errors import PassError
from reconciler.git.tools import run_tool

ARMOR = b"-----BEGIN PGP SIGNATURE-----"
_STRONG = frozenset({"8", "9", "10"})  # SHA-256, SHA-384, SHA-512: RFC 4880, 9.4
_PUBLIC_KEY, _SIGNATURE = 6, 2  # packet tags
_VERDICTS = ("GOODSIG", "BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG")


@dataclass(frozen=True, slots=True)
class PgpSigned:
    """A good signature. `fingerprint` is the primary key's, 40 hex digits; `expired_at` that of a key that no longer is valid."""

    fingerprint: str
    who: str
    at: datetime
    expired_at: datetime | None


def read_keyring(data: bytes) -> bytes:
    """A file of public keys, armored or binary, as gpgv takes it.

    Raises:
        ValueError: there is no public key in it; the text says what there is.
    """
    if b"-----BEGIN PGP PRIVATE" in data:
        raise ValueError("it holds a private key")
    if b"-----BEGIN PGP" in data:
        data = _dearmored(data, b"PUBLIC KEY BLOCK")
    if data[8:12] != b"KBXf" and _packet(data)[0] != _PUBLIC_KEY:
        raise ValueError("it does not begin with a public key")
    return data


def verify(gpgv: str, keyring: Path, payload: bytes, armored: bytes) -> PgpSigned:
    """Check a detached signature over a payload.

    Raises:
        PassError: `SignatureInvalid`, `SignerUnknown`, `SignerRevoked`: the text begins in the middle of a sentence.
    """
    signature = _detached(armored)
    with tempfile.TemporaryDirectory(prefix="reconciler-") as folder:
        files = Path(folder) / "signature", Path(folder) / "payload"
        for path, data in zip(files, (signature, payload), strict=True):
            path.write_bytes(data)
        _, out, err = run_tool(gpgv, "--status-fd", "1", "--keyring", str(keyring), *map(str, files))
    return _judge(out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _judge(status: str, said: str) -> PgpSigned:
    """What gpgv's status lines mean; anything but one good signature is none."""
    lines = [line.removeprefix("[GNUPG:] ").split(" ") for line in status.splitlines() if line.startswith("[GNUPG:] ")]
    verdicts = [words for words in lines if words[0] in _VERDICTS]
    valid = [words for words in lines if words[0] == "VALIDSIG"]
    if any(words[0] == "NO_PUBKEY" for words in lines):
        key = next(words[1] for words in lines if words[0] == "NO_PUBKEY")
        raise PassError("SignerUnknown", f"is signed by the PGP key {key}, which is not in pgp_keys of this host")
    if len(verdicts) != 1 or len(valid) != 1 or verdicts[0][0] not in ("GOODSIG", "EXPKEYSIG", "REVKEYSIG"):
        telling = " ".join(" ".join(said.split())[-200:].split())
        raise PassError("SignatureInvalid", f"has a PGP signature that does not hold (gpgv said: {telling})")
    verdict, who = verdicts[0][0], " ".join(verdicts[0][2:])
    _, _, _, at, _, _, _, _, digest, kind, primary, *_ = (*valid[0], "", "", "")
    if verdict == "REVKEYSIG":
        raise PassError("SignerRevoked", f"is signed by the PGP key {primary}, which its owner has revoked")
    if digest not in _STRONG or kind != "00" or not primary:
        raise PassError(
            "SignatureInvalid", "has a PGP signature over a weak digest, or over a text instead of the bytes"
        )
    expired = [int(words[1]) for words in lines if words[0] == "KEYEXPIRED"]
    if verdict == "EXPKEYSIG" and not expired:
        raise PassError(
            "SignatureInvalid", f"is signed by the PGP key {primary}, which has expired, and nobody says when"
        )
    return PgpSigned(primary, who, _moment(int(at)), _moment(min(expired)) if expired else None)


def _detached(armored: bytes) -> bytes:
    """The one signature packet of an armored signature.

    Raises:
        PassError: `SignatureInvalid`: it is something else, or more than that.
    """
    try:
        data = _dearmored(armored, b"SIGNATURE")
        tag, size = _packet(data)
    except ValueError as error:
        raise PassError("SignatureInvalid", f"has a PGP signature that cannot be read ({error})") from error
    if tag != _SIGNATURE or size != len(data):
        raise PassError("SignatureInvalid", "has a PGP signature that is more than one signature")
    return data


def _dearmored(text: bytes, kind: bytes) -> bytes:
    """The bytes of every armored block (RFC 4880, 6.2), one after the other; text between blocks is not looked at.

    Raises:
        ValueError: a block of another kind, or broken.
    """
    found = bytearray()
    body: list[bytes] | None = None
    for line in map(bytes.strip, text.split(b"\n")):
        if line.startswith(b"-----BEGIN "):
            if body is not None or line != b"-----BEGIN PGP " + kind + b"-----":
                raise ValueError(f"a block of it is no {kind.decode().lower()}")
            body = []
        elif line.startswith(b"-----END "):
            if body is None or line != b"-----END PGP " + kind + b"-----":
                raise ValueError("a block of it has no beginning")
            found += _decoded(body)
            body = None
        elif body is not None:
            body.append(line)
    if body is not None or not found:
        raise ValueError("a block of it has no end")
    return bytes(found)


def _decoded(body: list[bytes]) -> bytes:
    """What stands in a block behind its headers and the blank line, without the checksum, which proves nothing."""
    if b"" not in body:
        raise ValueError("a block of it has no blank line")
    lines = [line for line in body[body.index(b"") + 1 :] if not line.startswith(b"=") or line == b"="]
    try:
        return base64.b64decode(b"".join(lines), validate=True)
    except binascii.Error:
        raise ValueError("a block of it is not base64") from None


def _packet(data: bytes) -> tuple[int, int]:
    """The tag of the first packet, and its size together with its header (RFC 4880, 4.2).

    Raises:
        ValueError: no packet of a known length.
    """
    if len(data) < 6 or not data[0] & 0x80:
        raise ValueError("it is no OpenPGP data")
    if data[0] & 0x40:
        tag, first = data[0] & 0x3F, data[1]
        if first < 192:
            return tag, 2 + first
        if first < 224:
            return tag, 3 + ((first - 192) << 8) + data[2] + 192
        if first == 255:
            return tag, 6 + int.from_bytes(data[2:6], "big")
        raise ValueError("it is a packet in parts")
    width = {0: 1, 1: 2, 2: 4}.get(data[0] & 3)
    if width is None:
        raise ValueError("it is a packet without a length")
    return (data[0] >> 2) & 0xF, 1 + width + int.from_bytes(data[1 : 1 + width], "big")


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
