"""Whatever the bytes are: an answer, or a refusal of ours."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import ConfigError, PassError
from reconciler.git import tools
from reconciler.git.commits import COMMIT_LIMIT, parse
from reconciler.git.pgp import read_keyring, verify
from reconciler.git.signers import key_name, read_revoked, read_signers
from reconciler.git.tools import find_tool, run_tool
from reconciler.model import Commit
from tests.kit.signing import payload, with_signature
from tests.kit.stopwatch import within

T = TypeVar("T")

BLOB = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"k" * 32
KEY = f"ssh-ed25519 {base64.b64encode(BLOB).decode()}"
LINES = st.lists(
    st.sampled_from(
        [
            b"gpgsig ",
            b" ",
            b"\n",
            b"\r",
            b"\0",
            b"tree ",
            b"parent ",
            b"a" * 40,
            b"committer A <a> 1 +0000",
            b"\n\n",
            b"gpgsigx",
        ]
    )
    | st.binary(max_size=20)
).map(b"".join)
MARKS = [
    "ada",
    " ",
    "\t",
    '"',
    ",",
    "=",
    "\n",
    "#",
    "version:",
    "7",
    "namespaces",
    "valid-after",
    '="2023"',
    '="20230101"',
]
WORDS = st.lists(
    st.sampled_from([*MARKS, KEY, "ssh-ed25519", "cert-authority", "pgp", "A" * 40, "\u2028", "\x0b"])
    | st.text(max_size=5)
).map("".join)


def name_of(data: bytes) -> Commit:
    return Commit(hashlib.sha1(b"commit %d\0" % len(data) + data, usedforsecurity=False).hexdigest())


def answer(call: Callable[[], T]) -> tuple[T | None, str]:
    """What a parser found, or the reason and text of its refusal."""
    try:
        return call(), ""
    except PassError as error:
        return None, f"{error.reason} {error}"


@given(LINES)
def test_any_bytes_are_a_commit_or_refused(tail: bytes) -> None:
    for data in (tail, payload()[:-8] + tail, payload().replace(b"\n\n", b"\n" + tail, 1)):
        found, refusal = answer(functools.partial(parse, name_of(data), data))
        if found is None:
            assert refusal.startswith(f"CommitInvalid {name_of(data)}")
        else:  # nothing is lost: what is signed and its signature are the commit
            whole = with_signature(found.payload, found.signature) if found.signature else found.payload
            assert len(whole) <= len(data) + 1


@given(WORDS)
def test_any_text_is_a_list_of_signers_or_refused(text: str) -> None:
    found, refusal = answer(lambda: read_signers("signers", text.encode("utf-8", "surrogatepass")))
    if found is None:
        assert refusal.startswith("SignersInvalid signers:")
    else:
        assert all(signer.key == BLOB and signer.principals for signer in found[0])


@given(WORDS)
def test_any_text_is_a_list_of_revoked_keys_or_refused(text: str) -> None:
    found, refusal = answer(lambda: dict(read_revoked("revoked", text.encode("utf-8", "surrogatepass"))))
    if found is None:
        assert refusal.startswith("SignersInvalid revoked:")
    else:
        assert all(name == key_name(BLOB) or name.startswith("PGP:") for name in found)


@given(st.binary(max_size=200) | LINES.map(lambda body: b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" + body))
def test_any_bytes_are_a_keyring_or_refused(data: bytes) -> None:
    try:
        found = read_keyring(data)
    except ValueError:  # which its caller puts the file's name to
        found = b""
    assert not found or found[0] & 0x80 or found[8:12] == b"KBXf"


@pytest.mark.parametrize(
    "body",
    [
        b"\n" * (60 << 10),
        b" \n" * (30 << 10),
        b"=" * (60 << 10),
        b"\n=AAAA" * (10 << 10),
        b"A" * (60 << 10),
        b"\n\nwgA=",
    ],
)
def test_a_hostile_armor_is_refused_at_once(body: bytes) -> None:
    with within(), pytest.raises(PassError) as error:
        verify("/nonexistent", tools, b"", b"-----BEGIN PGP SIGNATURE-----\n" + body + b"\n-----END PGP SIGNATURE-----")  # type: ignore[arg-type]  # never opened
    assert error.value.reason == "SignatureInvalid"


@pytest.mark.parametrize("more", [b"\nx", b"\n x", b"\nx y\n z"])
def test_a_commit_of_nothing_but_headers_is_judged_at_once(more: bytes) -> None:
    data = payload(more=(more * (COMMIT_LIMIT // len(more)))[1:COMMIT_LIMIT] + b"\n")
    with within(), pytest.raises(PassError, match="lines"):
        parse(name_of(data), data)


def test_a_program_is_started_with_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    code, out, err = run_tool("/usr/bin/env")
    assert (code, err) == (0, b"")
    assert sorted(out.decode().split()) == ["HOME=/nonexistent", "LC_ALL=C", "PATH=/usr/bin:/bin", "TZ=UTC"]


def test_a_program_that_hangs_is_ended_and_one_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_SECONDS", 0.2)
    with pytest.raises(PassError, match="did not end") as error:
        run_tool("/bin/sh", "-c", "sleep 60 & wait")
    assert error.value.reason == "SignatureToolFailed"
    with pytest.raises(PassError, match="install it again"):
        run_tool("/nonexistent/gpgv")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="Debian: gpgv"):
        find_tool("gpgv")
