"""Real servers for git on 127.0.0.1: OpenSSH's sshd, and https before `git http-backend`. Each can misbehave on demand."""

from __future__ import annotations

import base64
import contextlib
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import trustme

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or "sshd"


def make_key(file: Path) -> Path:
    """A new ed25519 key pair; the public half is beside it with `.pub`."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file


class SshServer:
    """sshd, one process per connection, serving the repositories of this account with git-shell.

    `mode` and `host_key` are looked at when a connection comes. The mode is `serve`, `silent` (accepts and says nothing,
    until the mode is another) or `stuck` (lets the user in, then never answers).
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._mode = "serve"
        self.host_key = make_key(folder / "host_key")
        self.user_key = make_key(folder / "user_key")
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._held: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.known_hosts = self.trusting(self.host_key, folder / "known_hosts")
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._mode = mode
        while self._held:  # as if it were started again
            self._held.pop().close()

    def url(self, repository: Path) -> str:
        """The address of a repository on this server."""
        return f"ssh://{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1:{self.port}{repository}"

    def trusting(self, key: Path, file: Path) -> Path:
        """Write a known_hosts file that knows this server by the given key."""
        kind, public = Path(f"{key}.pub").read_text().split()[:2]
        file.write_text(f"[127.0.0.1]:{self.port} {kind} {public}\n")
        return file

    def start(self) -> None:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on its empty folder
        self._thread.start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)
        self.mode = "serve"
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "silent":
                self._held.append(connection)
                continue
            config = self._configuration()
            with connection:
                self._processes.append(
                    subprocess.Popen(
                        [SSHD, "-i", "-f", str(config)],
                        stdin=connection.fileno(),
                        stdout=connection.fileno(),
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                )

    def _configuration(self) -> Path:
        # The session is sshd's grandchild in a session of its own: it ends when its input does.
        command = "cat" if self.mode == "stuck" else 'git-shell -c "$SSH_ORIGINAL_COMMAND"'
        file = self._folder / f"sshd_config_{self.mode}"
        new = file.with_suffix(".new")
        new.write_text(
            f"HostKey {self.host_key}\n"
            f"AuthorizedKeysFile {self._folder}/authorized_keys\n"
            f"ForceCommand {command}\n"
            "AuthenticationMethods publickey\nPermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\n"
            "AllowAgentForwarding no\nAllowTcpForwarding no\nX11Forwarding no\n"
        )
        return new.replace(file)  # a session that just began may be reading it


class HttpsServer:
    """https with a private authority, before `git http-backend`.

    `mode` is looked at for every request: `serve`, `redirect` (to `target`), `silent` (never answers, until the mode is
    another), `crawl` (a byte now and then), `broken` (500), `cut` (half of the answer), `bent` (one bit of what is fetched is another).
    With a `login`, every request must bring it. `root` may become another folder: then it serves other repositories by the same names.
    """

    def __init__(self, folder: Path, root: Path, *, name: str = "127.0.0.1") -> None:
        folder.mkdir()
        self._mode, self._changed = "serve", threading.Condition()
        self.target = ""
        self.login = ""
        self.requests: list[str] = []
        self.root = root
        self.stopping = threading.Event()
        self.authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self._name = name
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.show(self.authority)
        self._server = _Tls(self, self._context)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        with self._changed:
            self._mode = mode
            self._changed.notify_all()

    def silence(self) -> bool:
        """Whether a request is not answered: then it is kept until the mode is another, as by a server that is started again."""
        with self._changed:
            if self._mode != "silent":
                return False
            self._changed.wait_for(lambda: self._mode != "silent", 120)
            return True

    def url(self, repository: Path) -> str:
        """The address of a repository under the root."""
        return f"https://127.0.0.1:{self.port}/{repository.relative_to(self.root)}"

    def show(self, authority: trustme.CA) -> None:
        """From now on, show a certificate of this authority."""
        authority.issue_cert(self._name).configure_cert(self._context)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.mode = "serve"
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()


class _Tls(ThreadingHTTPServer):
    """Shakes hands in the thread of each connection, so that one that fails holds up nobody."""

    block_on_close = True
    daemon_threads = False

    def __init__(self, owner: HttpsServer, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Backend)
        self.owner = owner
        self._context = context

    def finish_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        request.settimeout(60)
        with contextlib.suppress(OSError), self._context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)


class _Backend(BaseHTTPRequestHandler):
    """One request: git's own CGI program answers it, unless the mode says otherwise."""

    server: _Tls
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        """Say nothing: the requests are in `HttpsServer.requests`."""

    def _answer(self) -> None:
        owner = self.server.owner
        owner.requests.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        expected = "Basic " + base64.b64encode(owner.login.encode()).decode()
        if owner.login and self.headers.get("Authorization") != expected:
            return self._plain(401, ("WWW-Authenticate", 'Basic realm="git"'))
        if owner.mode == "redirect":
            return self._plain(302, ("Location", owner.target + self.path))
        if owner.mode == "broken":
            return self._plain(500)
        if owner.silence():
            return None
        return self._serve(body)

    def _plain(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", "0")):
            self.send_header(name, value)
        self.end_headers()

    def _serve(self, body: bytes) -> None:
        owner = self.server.owner
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=self._cgi(len(body)), capture_output=True, check=True
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if owner.mode == "crawl":
            for byte in content:
                self.wfile.write(bytes([byte]))
                if owner.stopping.wait(0.2):
                    return
        else:
            self.wfile.write(self._spoilt(content) if self.command == "POST" else content)

    def _spoilt(self, content: bytes) -> bytes:
        """What is sent of what was fetched. The pack is at the end, its objects before its checksum."""
        match self.server.owner.mode:
            case "cut":
                return content[: len(content) // 2]
            case "bent" if b"PACK" in content:
                place = len(content) - 40
                return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        return content

    def _cgi(self, length: int) -> dict[str, str]:
        parts = urlsplit(self.path)
        return {
            "CONTENT_LENGTH": str(length),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROJECT_ROOT": str(self.server.owner.root),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH": os.environ["PATH"],
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REMOTE_ADDR": "127.0.0.1",
            "REQUEST_METHOD": self.command,
        }


@contextlib.contextmanager
def running(server: SshServer | HttpsServer) -> Iterator[None]:
    """The server while it is needed."""
    server.start()
    try:
        yield
    finally:
        server.stop()
