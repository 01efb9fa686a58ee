"""A forge: repositories with real git, pull requests, reviews and protection, over HTTPS as GitHub, GitLab and Gitea speak."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import trustme

from reconciler.demo.forge import ENVIRONMENT, Files, Forge, git
from reconciler.model import Commit
from tests.kit.forgewrites import Wall

KINDS = ("github", "gitlab", "gitea")
PREFIXES = {"github": "/api/v3", "gitlab": "", "gitea": ""}  # what stands behind the host in `url`
TOKEN = "a-token-of-the-forge"
FORGE_ITSELF = "GitHub <noreply@github.com>"
Access = Literal["read", "write", "admin"]
Method = Literal["merge", "squash", "rebase"]
Verdict = Literal["approve", "refuse", "comment"]


@dataclass(slots=True)
class Person:
    id: int
    login: str
    bot: bool = False
    gone: bool = False  # the account was deleted

    @property
    def mail(self) -> str:
        return f"{self.login} <{self.login.lower()}@example.com>"


@dataclass(slots=True)
class Review:
    id: int
    who: Person
    verdict: Verdict
    head: Commit
    at: datetime
    dismissed: bool = False


@dataclass(slots=True)
class PullRequest:
    number: int
    home: Repo
    source: Repo
    branch: str
    base: str
    author: Person
    title: str
    heads: list[tuple[Commit, datetime]]
    draft: bool = False
    state: Literal["open", "closed", "merged"] = "open"
    reviews: list[Review] = field(default_factory=list)
    result: Commit | None = None
    squashed: Commit | None = None

    @property
    def head(self) -> Commit:
        return self.heads[-1][0]

    def push(self, files: Files, by: Person | None = None) -> Commit:
        """One more commit on its branch; the pull request follows until it is merged."""
        commit = self.source.git.commit(files, "More", branch=self.branch, author=(by or self.author).mail)
        if self.state != "merged":
            self.heads.append((commit, self.home.site.moment()))
            self.home.show(self.number, commit, self.source)
        return commit

    def review(self, who: Person, verdict: Verdict = "approve", head: Commit | None = None) -> Review:
        made = Review(self.home.site.number(), who, verdict, head or self.head, self.home.site.moment())
        self.reviews.append(made)
        return made

    def merge(self, by: Person | None = None, method: Method = "merge") -> Commit:
        """What the button does: a real commit on the base branch."""
        self.result = getattr(self, f"_{method}")(self.home.git.at(f"refs/heads/{self.base}"), by or self.author)
        self.home.git.point(self.base, self.result)
        self.state = "merged"
        return self.result

    def _merge(self, base: Commit, by: Person) -> Commit:
        return self.home.make(self._tree(base, self.head), "Merge", (base, self.head), by.mail)

    def _squash(self, base: Commit, by: Person) -> Commit:
        self.squashed = self.home.make(self._tree(base, self.head), "Squash", (base,), self.author.mail)
        return self.squashed

    def _rebase(self, base: Commit, by: Person) -> Commit:
        top = base
        for commit in self.home.run("rev-list", "--reverse", f"{base}..{self.head}").split():
            top = self.home.make(self._tree(base, Commit(commit)), "Rebased", (top,), self.author.mail, by.mail)
        return top

    def _tree(self, base: Commit, head: Commit) -> str:
        return self.home.run("merge-tree", "--write-tree", base, head)


@dataclass(slots=True)
class Shield:
    """How the branch is protected: as it should be, at first. `bypass`: who is let past it."""

    protected: bool = True
    by_ruleset: bool = False
    force_push: bool = False
    deletion: bool = False
    direct_push: bool = False
    approvals: int = 1
    stale_dismissed: bool = True
    admins: bool = True
    signatures: bool = True
    bypass: list[str] = field(default_factory=list)
    hidden: int = 0  # the status with which it is refused


@dataclass(slots=True)
class Repo:
    site: ForgeSite
    id: int
    name: str
    git: Forge
    access: dict[str, Access] = field(default_factory=dict)
    pulls: list[PullRequest] = field(default_factory=list)
    shield: Shield = field(default_factory=Shield)
    moved_to: str = ""

    def open(
        self,
        author: Person,
        files: Files,
        branch: str,
        *,
        base: str = "main",
        source: Repo | None = None,
        draft: bool = False,
    ) -> PullRequest:
        """A branch with one commit, and a pull request of it."""
        number = len(self.pulls) + 1
        where = source or self
        commit = where.git.commit(files, f"Change {number}", branch=branch, author=author.mail)
        title = f"Change {number}"
        made = PullRequest(number, self, where, branch, base, author, title, [(commit, self.site.moment())], draft)
        self.show(number, commit, where)
        self.pulls.append(made)
        return made

    def show(self, number: int, head: Commit, where: Repo) -> None:
        """The refs at which forges let a pull request be fetched: GitHub's and Gitea's, and GitLab's."""
        for kind in ("pull", "merge-requests"):
            self.point(f"refs/{kind}/{number}/head", head, where)

    def merge(self, number: int, by: Person | None = None, method: Method = "merge") -> Commit:
        return self.pulls[number - 1].merge(by, method)

    def push(self, files: Files, by: Person) -> Commit:
        """Straight onto the protected branch."""
        return self.git.commit(files, "Pushed", author=by.mail)

    def point(self, ref: str, commit: Commit, source: Repo) -> None:
        if source is not self:
            self.run("fetch", "--quiet", str(source.git.folder), commit)
        self.run("update-ref", ref, commit)

    def make(
        self, tree: str, message: str, parents: tuple[Commit, ...], author: str, committer: str = FORGE_ITSELF
    ) -> Commit:
        """A commit of a tree, as the forge makes one."""
        words = [word for parent in parents for word in ("-p", parent)]
        people = {f"GIT_AUTHOR_{k}": v for k, v in _person(author).items()}
        people |= {f"GIT_COMMITTER_{k}": v for k, v in _person(committer).items()}
        argv = ["git", f"--git-dir={self.git.folder}", "commit-tree", *words, "-m", message, tree]
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", **ENVIRONMENT, **people}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
        return Commit(done.stdout.strip())

    def run(self, *words: str) -> str:
        return git(self.git.folder, f"--git-dir={self.git.folder}", *words)


def _person(text: str) -> dict[str, str]:
    name, _, mail = text.removesuffix(">").partition(" <")
    return {"NAME": name, "EMAIL": mail}


class ForgeSite:
    """The whole forge, and its server. `fault` and `change` make it misbehave; `asked` is what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.people: dict[str, Person] = {}
        self.repos: dict[str, Repo] = {}
        self.fault = ""
        self.change: Callable[[str, Any], Any] = lambda _path, answer: answer
        self.asked: list[str] = []
        self.wall = Wall()
        self.deaf = False  # what is written is refused
        self.still: dict[Any, tuple[int, Any]] | None = (
            None  # set to {}: nothing changes any more, so git is asked once
        )
        self.page_size = 50
        self.authority = folder / "forge-ca.pem"
        self.token_file = folder / "forge-token"
        self.token_file.write_text(TOKEN + "\n")
        self._numbers, self._moment = 100, datetime(2026, 1, 1, tzinfo=UTC)
        self._held: list[socket.socket] = []
        self._ending = threading.Event()
        self._server = self._listen()
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def person(self, login: str, *, bot: bool = False) -> Person:
        """Somebody with an account."""
        return self.people.setdefault(login, Person(self.number(), login, bot))

    def repository(self, name: str, repo: Forge | None = None) -> Repo:
        """A repository; over one that is there, or a new one with a first commit."""
        if repo is None:
            repo = Forge.create(self.folder / f"{name.replace('/', '-')}.git")
            repo.commit({"README": "A start\n"}, "The first commit")
        made = self.repos[name] = Repo(self, self.number(), name, repo)
        return made

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def moment(self) -> datetime:
        self._moment += timedelta(seconds=1)
        return self._moment

    def url(self, kind: str) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}{PREFIXES[kind]}"

    def config(self, kind: str, repository: str, **more: Any) -> dict[str, Any]:
        """The `forge` of a host's configuration."""
        where = {"url": self.url(kind), "ca_file": str(self.authority), "token_file": str(self.token_file)}
        return {"kind": kind, "repository": repository, **where, **more}

    def close(self) -> None:
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()
        for one in self._held:
            with suppress(OSError):
                one.close()
        self._thread.join()

    def _listen(self) -> ThreadingHTTPServer:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.authority))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": self}))
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        return server

    def answer(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, Any]:
        """Status and JSON for one request."""
        from tests.kit import forgewords  # it draws on this module

        if not any(TOKEN in headers.get(name, "") for name in ("Authorization", "PRIVATE-TOKEN")):
            return 401, {"message": "Bad credentials"}
        if (written := self.wall.read(path)) is not None:
            return forgewords.paged(self, self._beside(written, path, query), query)
        if self.still is None:
            return forgewords.answer(self, path, query)
        asked = path, tuple(sorted(query.items()))
        if asked not in self.still:
            self.still[asked] = forgewords.answer(self, path, query)
        return self.still[asked]

    def _beside(self, written: Any, path: str, query: Mapping[str, str]) -> Any:
        """What was written, after the notes that GitLab keeps of its own."""
        from tests.kit import forgewords

        whole = {name: value for name, value in query.items() if name not in ("page", "per_page")}
        status, found = forgewords.answer(self, path, whole)
        return [*found, *written] if status == 200 and isinstance(written, list) else written

    def drip(self, handler: BaseHTTPRequestHandler) -> None:
        """An answer that never ends, a byte at a time."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        with suppress(OSError):
            while not self._ending.wait(0.02):
                handler.wfile.write(b"x")
                handler.wfile.flush()


class _Handler(BaseHTTPRequestHandler):
    site: ForgeSite
    timeout = 30

    def log_message(self, *_words: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        self.site.asked.append(self.path)
        fault = getattr(self, f"_{self.site.fault}", None)
        if self.site.fault and fault is not None:
            fault()
            return
        query = dict(parse_qsl(path.query, keep_blank_values=True))
        words = "/".join(path.path.split("/"))
        status, found = self.site.answer(words, query, dict(self.headers.items()))
        self._send(status, json.dumps(self.site.change(unquote(words), found)).encode())

    def _write(self) -> None:
        """A request that changes something."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        fault = getattr(self, f"_{self.site.fault}", None)
        if self.site.fault and fault is not None:
            fault()
            return
        if self.site.deaf:
            self._denied()
            return
        if not any(TOKEN in self.headers.get(name, "") for name in ("Authorization", "PRIVATE-TOKEN")):
            self._send(401, b'{"message": "Bad credentials"}')
            return
        status, found = self.site.wall.write(self.command, urlsplit(self.path).path, body)
        self._send(status, json.dumps(found).encode())

    do_POST = do_PATCH = do_PUT = _write  # noqa: N815 - the server's names

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)

    def _down(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _slow(self) -> None:
        with suppress(OSError):
            self.site.drip(self)

    def _limited(self) -> None:
        self._send(429, b'{"message": "slow down"}', Retry_After="60")

    def _limited403(self) -> None:
        self._send(403, b'{"message": "limit"}', X_RateLimit_Remaining="0", X_RateLimit_Reset="1900000000")

    def _denied(self) -> None:
        self._send(403, b'{"message": "Forbidden"}')

    def _broken(self) -> None:
        self._send(502, b"<html>Bad gateway</html>")

    def _garbage(self) -> None:
        self._send(200, b"<html>Log in first</html>")

    def _nested(self) -> None:
        self._send(200, b"[" * 200_000)

    def _huge(self) -> None:
        self._send(200, b'["' + b"x" * (6 << 20) + b'"]')

    def _packed(self) -> None:
        self._send(200, b"{}", Content_Encoding="gzip")

    def _redirect(self) -> None:
        self._send(302, b"", Location=self.site.url("github") + "/elsewhere")

    def _endless(self) -> None:
        """Every page is full, for ever: whatever is asked for, a list of what is not wanted."""
        self.site.fault = ""
        path, query = self.path.partition("?")[0], dict(parse_qsl(urlsplit(self.path).query))
        _, found = self.site.answer(path, {**query, "page": "1"}, dict(self.headers.items()))
        self.site.fault = "endless"
        self._send(200, json.dumps(found).encode())


@contextmanager
def forge_site(folder: Path) -> Iterator[ForgeSite]:
    """A forge that runs; at the end it does not."""
    site = ForgeSite(folder)
    try:
        yield site
    finally:
        site.close()
