"""An OpenID issuer over real https, with keys that a test turns; and tokens that it signs, or that somebody else does."""

from __future__ import annotations

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa

SUBJECT = "repo:acme/environments:ref:refs/heads/main"
REPOSITORY_ID = "74"
AUDIENCE = "reconciler"
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


class _Handler(BaseHTTPRequestHandler):
    issuer: Issuer
    timeout = 30

    def log_message(self, *_words: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self.issuer.asked.append(self.path)
        found = {
            "/.well-known/openid-configuration": {
                "issuer": self.issuer.url,
                "jwks_uri": f"{self.issuer.url}/keys",
                **self.issuer.described,
            },
            "/keys": self.issuer.jwks(),
        }.get(self.path)
        body = json.dumps(found).encode()
        self.send_response(503 if self.issuer.away else 200 if found else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
