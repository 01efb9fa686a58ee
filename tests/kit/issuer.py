"""An OpenID issuer over real https, with keys that a test turns; and tokens that it signs, or that somebody else does."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa

SUBJECT = "repo:acme/environments:ref:refs/heads/main"
REPOSITORY_ID = "74"
AUDIENCE = "reconciler"
CLIENT, SECRET = "status page", "s3cret&of the client"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk(key: Key, kid: str) -> dict[str, Any]:
    """The public half, as a JWKS has it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return {
            **jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True),
            "kid": kid,
            "alg": "RS256",
            "use": "sig",
        }
    return {
        **jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True),
        "kid": kid,
        "alg": "ES256",
        "use": "sig",
    }


class Issuer:
    """`https://127.0.0.1:<port>`. `keys` are what it publishes; `described` and `mode` let it misbehave."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.keys: dict[str, Key] = {"one": rsa_key()}
        self.published: list[dict[str, Any]] | None = None
        self.described: dict[str, Any] = {}
        self.away = False
        self.asked: list[str] = []
        self.person: dict[str, Any] = {"sub": "u-1", "email": "ann@example.com", "email_verified": True}
        self.made: Callable[[dict[str, Any]], str] = lambda claims: self.token(**claims)  # the id token of a login
        self.codes: dict[str, dict[str, str]] = {}  # what was asked with, of each code that is not used yet
        authority = trustme.CA()
        self.ca_file = folder / "issuer-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"issuer": self}))
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def jwks(self) -> dict[str, Any]:
        """What it publishes."""
        return {"keys": [jwk(key, kid) for kid, key in self.keys.items()] if self.published is None else self.published}

    def config(self, **more: Any) -> dict[str, Any]:
        """An entry of `trigger.oidc`."""
        pins = {"subjects": [SUBJECT], "claims": {"repository_id": REPOSITORY_ID}, "scopes": ["all"]}
        return {"issuer": self.url, "audience": AUDIENCE, "ca_file": str(self.ca_file), **pins, **more}

    def claims(self, now: float | None = None, **more: Any) -> dict[str, Any]:
        """What GitHub says of a job; None leaves a claim out."""
        at = int(time.time() if now is None else now)
        times = {"iat": at - 5, "nbf": at - 5, "exp": at + 300}
        said = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": SUBJECT,
            "repository_id": REPOSITORY_ID,
            "jti": "j",
            **times,
            **more,
        }
        return {name: value for name, value in said.items() if value is not None}

    def token(self, kid: str = "one", key: Key | None = None, now: float | None = None, **claims: Any) -> str:
        """A token; `key` instead of the one of that name."""
        signer = key or self.keys[kid]
        algorithm = "RS256" if isinstance(signer, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(self.claims(now, **claims), signer, algorithm, {"kid": kid})

    # --- logging people in: whoever comes is `person`, without a question

    def login(self, **more: Any) -> dict[str, Any]:
        """`http.oidc`."""
        named = {"issuer": self.url, "client_id": CLIENT, "ca_file": str(self.ca_file), "users": ["ann@example.com"]}
        secret = self.ca_file.with_name("client-secret")
        secret.write_text(f"{SECRET}\n")
        return {**named, "client_secret_file": str(secret), **more}

    def authorize(self, asked: dict[str, str]) -> str:
        """Where the browser is sent back to."""
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert asked["client_id"] == CLIENT
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state'], 'iss': self.url})}"

    def redeem(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """The answer of the token endpoint (RFC 6749, 4.1.3 and 5.2; RFC 7636, 4.6)."""
        basic = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        client = tuple(map(unquote_plus, basic.split(":"))) if basic else (form["client_id"], form["client_secret"])
        if client != (CLIENT, SECRET):
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        known = asked and challenge == asked["code_challenge"] and form["redirect_uri"] == asked["redirect_uri"]
        if asked is None or not known or form["grant_type"] != "authorization_code":
            return 400, {"error": "invalid_grant"}
        claims = {"aud": CLIENT, "nonce": asked["nonce"], "repository_id": None, "nbf": None, **self.person}
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": self.made(claims)}


class _Handler(BaseHTTPRequestHandler):
    issuer: Issuer
    timeout = 30

    def log_message(self, *_words: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self.issuer.asked.append(self.path)
        url = urlsplit(self.path)
        if url.path == "/authorize" and not self.issuer.away:
            place = self.issuer.authorize({name: values[0] for name, values in parse_qs(url.query).items()})
            self._answer(302, b"", place)
            return
        found = {
            "/.well-known/openid-configuration": {
                "issuer": self.issuer.url,
                "jwks_uri": f"{self.issuer.url}/keys",
                "authorization_endpoint": f"{self.issuer.url}/authorize",
                "token_endpoint": f"{self.issuer.url}/token",
                **self.issuer.described,
            },
            "/keys": self.issuer.jwks(),
        }.get(self.path)
        self._answer(503 if self.issuer.away else 200 if found else 404, json.dumps(found).encode())

    def do_POST(self) -> None:
        self.issuer.asked.append(self.path)
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        code, said = 503, dict[str, Any]()
        if self.path == "/token" and not self.issuer.away:
            asked = {name: values[0] for name, values in form.items()}
            code, said = self.issuer.redeem(asked, self.headers.get("authorization", ""))
        self._answer(code, json.dumps(said).encode())

    def _answer(self, code: int, body: bytes, place: str = "") -> None:
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        if place:
            self.send_header("location", place)
        self.end_headers()
        self.wfile.write(body)
