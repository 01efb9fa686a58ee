from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.config.trigger import Oidc
from reconciler.errors import ConfigError
from reconciler.oidc import keys
from reconciler.trigger.callers import RefusedError, covers
from reconciler.trigger.tokens import Tokens
from tests.kit.issuer import REPOSITORY_ID, SUBJECT, Issuer, jwk, rsa_key
from tests.kit.sample import NOW, FixedClock
from tests.kit.triggered import triggered, wake

AT = NOW.timestamp()
OTHER = rsa_key()


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    one = Issuer(tmp_path_factory.mktemp("issuer"))
    one.keys["curve"] = ec.generate_private_key(ec.SECP256R1())
    yield one
    one.close()


@pytest.fixture(scope="module")
def tokens(issuer: Issuer) -> Tokens:
    return Tokens([Oidc.model_validate(issuer.config())], FixedClock().now)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(issuer: Issuer, header: dict[str, object], secret: bytes | None) -> str:
    """A token put together by hand: unsigned, or with HMAC."""
    body = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(issuer.claims(AT)).encode())}"
    mac = hmac.new(secret, body.encode(), hashlib.sha256).digest() if secret is not None else b""
    return f"{body}.{b64(mac)}"


def public_pem(issuer: Issuer) -> bytes:
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return issuer.keys["one"].public_key().public_bytes(*form)


def altered(token: str) -> str:
    """The token with another repository in it, under the same signature."""
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    return f"{head}.{b64(json.dumps({**claims, 'repository_id': '1'}).encode())}.{signature}"


BAD: dict[str, tuple[int, Callable[[Issuer], str]]] = {
    "expired": (401, lambda i: i.token(now=AT, exp=int(AT) - 31)),
    "not yet by nbf": (401, lambda i: i.token(now=AT, nbf=int(AT) + 31)),
    "not yet by iat": (401, lambda i: i.token(now=AT, iat=int(AT) + 31)),
    "lives too long": (401, lambda i: i.token(now=AT, exp=int(AT) + 90_000)),
    "no exp": (401, lambda i: i.token(now=AT, exp=None)),
    "no iat": (401, lambda i: i.token(now=AT, iat=None)),
    "no sub": (401, lambda i: i.token(now=AT, sub=None)),
    "no aud": (401, lambda i: i.token(now=AT, aud=None)),
    "exp is text": (401, lambda i: i.token(now=AT, exp="tomorrow")),
    "exp is endless": (401, lambda i: i.token(now=AT, exp=10**30)),
    "other audience": (401, lambda i: i.token(now=AT, aud="https://github.com/acme")),
    "ours among audiences": (401, lambda i: i.token(now=AT, aud=["reconciler", "other"])),
    "other issuer": (401, lambda i: i.token(now=AT, iss="https://token.actions.githubusercontent.com")),
    "issuer with a slash": (401, lambda i: i.token(now=AT, iss=f"{i.url}/")),
    "other subject": (403, lambda i: i.token(now=AT, sub="repo:acme/environments:ref:refs/heads/x")),
    "subject and more": (403, lambda i: i.token(now=AT, sub=f"{SUBJECT}x")),
    "subject in capitals": (403, lambda i: i.token(now=AT, sub=SUBJECT.upper())),
    "subject is a list": (401, lambda i: i.token(now=AT, sub=[SUBJECT])),
    "other repository id": (403, lambda i: i.token(now=AT, repository_id="75")),
    "no repository id": (403, lambda i: i.token(now=AT, repository_id=None)),
    "repository id in a list": (403, lambda i: i.token(now=AT, repository_id=[REPOSITORY_ID])),
    "alg none": (401, lambda i: forged(i, {"alg": "none", "kid": "one"}, None)),
    "alg None": (401, lambda i: forged(i, {"alg": "None", "kid": "one"}, None)),
    "no alg": (401, lambda i: forged(i, {"kid": "one"}, None)),
    "HS256 with the public key": (401, lambda i: forged(i, {"alg": "HS256", "kid": "one"}, public_pem(i))),
    "RS256 with the public key": (401, lambda i: forged(i, {"alg": "RS256", "kid": "one"}, public_pem(i))),
    "ES256 of an RSA key": (401, lambda i: i.token("one", i.keys["curve"], AT)),
    "RS256 of a curve": (401, lambda i: i.token("curve", i.keys["one"], AT)),
    "other signer": (401, lambda i: i.token("one", OTHER, AT)),
    "unknown kid": (401, lambda i: i.token("gone", OTHER, AT)),
    "no kid": (401, lambda i: jwt.encode(i.claims(AT), i.keys["one"], "RS256")),
    "its own key": (
        401,
        lambda i: jwt.encode(i.claims(AT), OTHER, "RS256", {"kid": "one", "jwk": jwk(OTHER, "one")}),
    ),
    "its own place of keys": (
        401,
        lambda i: jwt.encode(i.claims(AT), OTHER, "RS256", {"kid": "x", "jku": "https://127.0.0.1:1/keys"}),
    ),
    "extensions": (401, lambda i: jwt.encode(i.claims(AT), i.keys["one"], "RS256", {"kid": "one", "crit": ["x"]})),
    "altered": (401, lambda i: altered(i.token(now=AT))),
    "signature cut": (401, lambda i: i.token(now=AT)[:-9]),
    "nothing signed": (401, lambda i: i.token(now=AT).rpartition(".")[0] + "."),
    "huge": (401, lambda i: i.token(now=AT, more="x" * 9000)),
    "deep": (401, lambda _: f"{b64(b'[' * 3000)}.{b64(b'[' * 3000)}.x"),
    "no token": (401, lambda _: "secret"),
    "dots": (401, lambda _: ".."),
}


@pytest.mark.parametrize("case", BAD)
def test_who_is_refused(issuer: Issuer, tokens: Tokens, case: str) -> None:
    code, make = BAD[case]
    with pytest.raises(RefusedError) as refused:
        tokens.prove(make(issuer))
    assert refused.value.code == code
    assert refused.value.result == ("forbidden" if code == 403 else "unauthenticated")


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"exp": int(AT) - 29},
        {"nbf": int(AT) + 29, "iat": int(AT) + 29},
        {"nbf": None},
        {"jti": None},
        {"repository_id": int(REPOSITORY_ID)},
    ],
)
def test_who_is_let_in(issuer: Issuer, tokens: Tokens, claims: dict[str, Any]) -> None:
    for kid in ("one", "curve"):
        caller = tokens.prove(issuer.token(kid, now=AT, **claims))
        assert (caller.name, caller.scopes) == (SUBJECT, ("all",))


def test_the_same_issuer_may_vouch_for_several_and_each_has_scopes_of_its_own(issuer: Issuer) -> None:
    other = issuer.config(
        subjects=["repo:acme/other:ref:refs/heads/main"], claims={"repository_id": "9"}, scopes=["dev"]
    )
    both = Tokens([Oidc.model_validate(issuer.config()), Oidc.model_validate(other)], FixedClock().now)
    found = both.prove(issuer.token(now=AT, sub="repo:acme/other:ref:refs/heads/main", repository_id="9"))
    assert found.scopes == ("dev",)
    with pytest.raises(RefusedError, match="is not"):
        both.prove(issuer.token(now=AT, sub="repo:acme/other:ref:refs/heads/main"))


# --- keys --------------------------------------------------------------------------------------------------------


@pytest.fixture
def turning(tmp_path: Path) -> Iterator[Issuer]:
    one = Issuer(tmp_path / "turning")
    yield one
    one.close()


class Seconds:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


def test_keys_turn_and_unknown_names_cannot_make_us_ask_without_end(turning: Issuer) -> None:
    clock = Seconds()
    source = keys.FetchedKeys(turning.url, turning.ca_file, "trigger.oidc", clock=clock)
    assert source.key("one") is not None
    clock.time += keys.REFETCH + 1
    assert source.key("two") is None
    fetched = len(turning.asked)
    turning.keys = {"two": rsa_key()}
    for _ in range(50):
        assert source.key("two") is None
    assert len(turning.asked) == fetched
    clock.time += keys.REFETCH + 1
    assert source.key("two") is not None
    assert source.key("one") is None
    assert len(turning.asked) == fetched + 2


def test_keys_stay_while_the_issuer_is_away_and_not_for_ever(turning: Issuer) -> None:
    clock = Seconds()
    source = keys.FetchedKeys(turning.url, turning.ca_file, "trigger.oidc", clock=clock)
    assert source.key("one") is not None
    turning.away = True
    clock.time += keys.STALE - 1
    assert source.key("one") is not None
    clock.time += 2
    with pytest.raises(keys.KeysUnknownError, match="answers 503"):
        source.key("one")
    turning.away = False
    clock.time += keys.REFETCH + 1
    assert source.key("one") is not None


@pytest.mark.parametrize(
    ("described", "told"),
    [
        ({"issuer": "https://evil.example"}, "another issuer's"),
        ({"jwks_uri": "http://127.0.0.1:1/keys"}, "another host"),
        ({"jwks_uri": "https://127.0.0.1:1/keys"}, "another host"),
        ({"jwks_uri": "https://["}, "another host"),
        ({"jwks_uri": 7}, "another host"),
    ],
)
def test_what_an_issuer_says_of_itself_is_not_believed_blindly(
    turning: Issuer, described: dict[str, object], told: str
) -> None:
    turning.described = described
    with pytest.raises(keys.KeysUnknownError, match=told):
        keys.FetchedKeys(turning.url, turning.ca_file, "trigger.oidc").key("one")


def test_an_issuer_with_another_certificate_is_not_asked(turning: Issuer, issuer: Issuer) -> None:
    with pytest.raises(keys.KeysUnknownError, match="CERTIFICATE_VERIFY_FAILED"):
        keys.FetchedKeys(turning.url, issuer.ca_file, "trigger.oidc").key("one")


def test_of_a_jwks_only_public_keys_for_signatures_count() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - too small on purpose
    good = jwk(OTHER, "good")
    listed = [
        good,
        jwk(small, "small"),
        {**jwk(OTHER, "for encryption"), "use": "enc"},
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0", "alg": "HS256"},
        {**jwk(OTHER, "odd"), "alg": "HS256"},
        {"kty": "RSA", "kid": "broken", "n": "%", "e": "AQAB"},
        {**good, "kid": 7},
        {"kid": "no kind"},
        "text",
    ]
    assert list(keys.parse_keys(json.dumps({"keys": listed}).encode())) == ["good"]


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"keys": 7}', b'{"keys": [' + b"0," * 100 + b"0]}", b" " * 300_000]
)
def test_what_is_no_jwks(data: bytes) -> None:
    with pytest.raises(keys.KeysUnknownError):
        keys.parse_keys(data)


def test_keys_of_a_file_are_read_anew(tmp_path: Path, issuer: Issuer) -> None:
    file = tmp_path / "jwks.json"
    config = {**issuer.config(), "jwks_file": str(file)}
    del config["ca_file"]
    with pytest.raises(ConfigError, match="cannot be read"):
        Tokens([Oidc.model_validate(config)], FixedClock().now)
    file.write_text(json.dumps(issuer.jwks()))
    tokens = Tokens([Oidc.model_validate(config)], FixedClock().now)
    assert tokens.prove(issuer.token(now=AT)).name == SUBJECT
    file.write_text(json.dumps({"keys": [jwk(OTHER, "new")]}))
    with pytest.raises(RefusedError, match="none of its issuer's"):
        tokens.prove(issuer.token(now=AT))
    file.unlink()
    with pytest.raises(RefusedError) as refused:
        tokens.prove(issuer.token(now=AT))
    assert (refused.value.code, refused.value.result) == (503, "unavailable")


# --- scopes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("all", ["all", "prod", "prod/net/hub"], []),
        ("prod", ["prod", "prod/net", "prod/net/hub"], ["all", "production", "pro", "prod2/net"]),
        ("review-*", ["review-1", "review-1/app"], ["review", "prod", "all"]),
        ("prod/net", ["prod/net"], ["prod", "prod/net/hub", "prod/network", "all"]),
        ("prod/net/**", ["prod/net/hub", "prod/net/a/b"], ["prod", "prod/net", "prod/network", "stage/net/hub"]),
        ("*/net", ["prod/net", "stage/net"], ["prod", "prod/app", "a/b/net"]),
        ("prod/**", ["prod/net", "prod/net/hub"], ["prod", "all", "stage/net"]),
    ],
)
def test_what_a_pattern_covers(pattern: str, inside: list[str], outside: list[str]) -> None:
    assert [scope for scope in inside if not covers(pattern, scope)] == []
    assert [scope for scope in outside if covers(pattern, scope)] == []


def test_no_part_of_a_token_is_ever_logged_and_an_unproven_caller_learns_nothing(
    tmp_path: Path, issuer: Issuer
) -> None:
    with triggered(tmp_path, issuer) as (watched, server):
        for case, (code, make) in BAD.items():
            token = make(issuer)
            answer = wake(server, token)
            assert answer.status_code == code, case
            said = watched.said.getvalue()
            for part in [part for part in token.split(".") if len(part) > 8]:
                assert part not in said
                assert part not in answer.text
            if code == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "configured issuer" in answer.json()["error"]
        assert (watched.polls, watched.wakes, watched.store.history("all", 9)) == (0, 0, [])
        assert watched.counted("unauthenticated") == sum(code == 401 for code, _ in BAD.values())
        assert watched.counted("forbidden") == sum(code == 403 for code, _ in BAD.values())
