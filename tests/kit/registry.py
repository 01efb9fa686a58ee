"""A provider registry over https with an authority of its own: discovery, versions, downloads, and a signature by a real gpg key."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import ssl
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from tests.provider import mirror

KIND, VERSION = "files", mirror.VERSION


def packed(folder: Path = mirror.PACKAGE, **more: str) -> bytes:
    """The provider of files as a release's archive, with further files in it."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in mirror.package_files(folder):
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            info.external_attr = (0o755 if path.name == mirror.LAUNCHER else 0o644) << 16
            archive.writestr(info, path.read_bytes())
        for name, text in more.items():
            archive.writestr(name, text)
    return found.getvalue()


def zh(archive: bytes) -> str:
    """The hash of an archive as a lock has it."""
    return f"zh:{hashlib.sha256(archive).hexdigest()}"


class Registry:
    """Serves one version of `reconciler/files`. `requests` are the paths asked for; `archive` may be exchanged."""

    def __init__(self, folder: Path, archive: bytes) -> None:
        folder.mkdir()
        self.archive, self.requests = archive, list[str]()
        self._home = Path(tempfile.mkdtemp(prefix="gpg-"))  # a socket's path is limited to about a hundred bytes
        self._gpg("--quick-generate-key", "registry@example.com", "rsa2048", "sign", "never")
        self.key_id = self._gpg("--list-keys", "--with-colons").decode().partition("pub:")[2].split(":")[3]
        self.public = self._gpg("--armor", "--export").decode()
        authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        self._server = _Server(self, context)
        self.host = f"localhost:{self._server.server_address[1]}"
        self.source = f"{self.host}/reconciler/{KIND}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def answer(self, path: str) -> bytes | None:
        """What there is at a path; None: nothing."""
        self.requests.append(path)
        release = f"terraform-provider-{KIND}_{VERSION}"
        archive = f"{release}_{mirror.this_platform()}.zip"
        sums = f"{hashlib.sha256(self.archive).hexdigest()}  {archive}\n".encode()
        system, machine = mirror.this_platform().split("_")
        base, provider = f"https://{self.host}/releases", f"/v1/providers/reconciler/{KIND}"
        platform = {"os": system, "arch": machine}
        found: Mapping[str, Any] = {
            "/.well-known/terraform.json": {"providers.v1": "/v1/providers/"},
            f"{provider}/versions": {"versions": [{"version": VERSION, "protocols": ["6.0"], "platforms": [platform]}]},
            f"{provider}/{VERSION}/download/{system}/{machine}": {
                **platform, "protocols": ["6.0"], "filename": archive, "download_url": f"{base}/{archive}",
                "shasums_url": f"{base}/SHA256SUMS", "shasums_signature_url": f"{base}/SHA256SUMS.sig",
                "shasum": hashlib.sha256(self.archive).hexdigest(),
                "signing_keys": {"gpg_public_keys": [{"key_id": self.key_id, "ascii_armor": self.public}]},
            },
            f"/releases/{archive}": self.archive,
            "/releases/SHA256SUMS": sums,
            "/releases/SHA256SUMS.sig": lambda: self._gpg("--detach-sign", stdin=sums),
        }  # fmt: skip
        one = found.get(path)
        one = one() if callable(one) else one
        return one if one is None or isinstance(one, bytes) else json.dumps(one).encode()

    def downloads(self) -> int:
        """How often the archive was fetched."""
        return sum(path.endswith(".zip") for path in self.requests)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()
        subprocess.run(["gpgconf", "--homedir", str(self._home), "--kill", "all"], check=False)
        shutil.rmtree(self._home, ignore_errors=True)

    def _gpg(self, *words: str, stdin: bytes = b"") -> bytes:
        argv = [
            "gpg",
            "--batch",
            "--quiet",
            "--homedir",
            str(self._home),
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
            *words,
        ]
        return subprocess.run(argv, input=stdin, capture_output=True, check=True).stdout


class _Server(ThreadingHTTPServer):
    """Shakes hands in the thread of each connection."""

    block_on_close = True
    daemon_threads = False

    def __init__(self, owner: Registry, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.owner, self._context = owner, context

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(30)
        try:
            with self._context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)
        except OSError:
            return


class _Request(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        found = self.server.owner.answer(self.path)
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(found or b"")))
        self.end_headers()
        self.wfile.write(found or b"")

    def log_message(self, *arguments: object) -> None:
        """Say nothing: the requests are in `Registry.requests`."""


@contextmanager
def registry(folder: Path, archive: bytes | None = None) -> Iterator[Registry]:
    """A registry while it is needed."""
    made = Registry(folder, archive or packed())
    made.start()
    try:
        yield made
    finally:
        made.stop()
