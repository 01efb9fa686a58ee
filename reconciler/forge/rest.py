"""One bounded conversation with a forge's REST API: every answer is small, in time, and of the form that was asked for."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from reconciler.config import Forge
from reconciler.errors import ConfigError, PassError

M = TypeVar("M", bound=BaseModel)

Sha = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Id = Annotated[int, Field(gt=0, lt=1 << 63)]
Moment = AwareDatetime  # one without a zone cannot be told to be before or after another
Word = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,1000}$")]

Method = Literal["POST", "PATCH", "PUT"]
Login = Callable[[str], tuple[str, str]]  # a token -> the header that carries it

TOKEN_SIZE = 4096  # bytes
PAGE = 50  # asked for: what the least generous of the forges gives
_PLAIN = ("", "identity")  # an answer that came packed could be a bomb; none is asked for


class Answer(BaseModel):
    """A part of an answer. What is not asked about is not looked at; what is, must be there and of its type."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)


@dataclass(frozen=True, slots=True)
class Bounds:
    """`deadline` and `connect` in seconds for one request, `size` in bytes for one answer, `pages` for one list."""

    deadline: float = 20.0
    connect: float = 5.0
    size: int = 4 << 20
    pages: int = 20


class Limited(PassError):
    """Too many requests. `seconds`: for how long, if the forge said so."""

    def __init__(self, message: str, seconds: float | None) -> None:
        super().__init__("ForgeLimited", message)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is one: 200, 201, 403 or 404. `body` is as it came, bounded."""

    status: int
    body: bytes
    what: str


class Rest:
    """Requests below one address. `login` makes the header that carries the token, read anew for each request."""

    def __init__(
        self,
        config: Forge,
        prefix: str,
        login: Login,
        bounds: Bounds | None = None,
        ending: threading.Event | None = None,
    ) -> None:
        """Raises ConfigError if the file of authorities cannot be used."""
        self.place = f"{config.repository} at {config.address}"
        self._root, self._token_file, self._login = config.address + prefix, config.token_file, login
        self._bounds, self._ending = bounds or Bounds(), ending
        self._client = httpx.Client(
            verify=_authorities(config.ca_file),
            timeout=httpx.Timeout(self._bounds.deadline, connect=self._bounds.connect),
            limits=httpx.Limits(max_keepalive_connections=0),
            follow_redirects=False,
            trust_env=False,
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "reconciler"},
        )

    def one(self, model: type[M], *path: str | int, **query: str | int) -> M:
        """What is at a path. Raises PassError, also if there is nothing."""
        reply = self.reply(*path, **query)
        return self.read(model, _granted(reply, self.place))

    def ask(self, model: type[M], *path: str | int, **query: str | int) -> M | None:
        """What is at a path; None if there is nothing. Raises PassError."""
        reply = self.reply(*path, **query)
        return None if reply.status == 404 else self.read(model, _granted(reply, self.place))

    def some(self, model: type[M], *path: str | int, **query: str | int) -> list[M]:
        """A list that comes whole. Raises PassError."""
        items: list[M] = self._read(TypeAdapter(list[model]), _granted(self.reply(*path, **query), self.place))  # type: ignore[valid-type]
        return items

    def all(self, model: type[M], *path: str | int, size: str = "per_page", **query: str | int) -> list[M]:
        """A list that comes in pages, whole: up to the first empty page, since a server may give fewer than it is asked for.

        Raises:
            PassError: also if there are more pages than any review needs; a part of a list proves nothing.
        """
        found: list[M] = []
        for items in self.pages(model, *path, size=size, **query):
            found += items
        return found

    def pages(self, model: type[M], *path: str | int, size: str = "per_page", **query: str | int) -> Iterator[list[M]]:
        """As `all`, page by page."""
        for page in range(1, self._bounds.pages + 1):
            items = self.some(model, *path, page=page, **{size: PAGE}, **query)
            if not items:
                return
            yield items
        what = f"{self._bounds.pages} pages of {'/'.join(map(str, path))} are not all of it"
        raise PassError("ForgeNonsense", f"{self.place}: {what}: nobody reads that much; look at it on the forge.")

    def read(self, model: type[M], reply: Reply) -> M:
        """The reply as the model. Raises PassError (`ForgeNonsense`)."""
        answer: M = self._read(TypeAdapter(model), reply)
        return answer

    def reply(self, *path: str | int, **query: str | int) -> Reply:
        """Ask once. Raises PassError unless the forge answered with something, a refusal, or nothing there."""
        return self._answered("GET", path, query, None)

    def write(self, method: Method, model: type[M], given: Mapping[str, str], *path: str | int) -> M:
        """Write once; what the forge made of it. Raises PassError: it was not written, or nobody knows."""
        return self.read(model, _granted(self._answered(method, path, {}, given), self.place))

    def tell(self, given: Mapping[str, str], *path: str | int, fine: str = "") -> None:
        """Write what has no answer to look at. `fine`: words of a refusal by which it stands so already. Raises PassError."""
        reply = self._answered("POST", path, {}, given, fine)
        if reply.status != 400:
            self.read(Answer, _granted(reply, self.place))  # what answers with a page to log in has heard nothing

    def _answered(
        self,
        method: str,
        path: Sequence[str | int],
        query: Mapping[str, str | int],
        given: Mapping[str, str] | None,
        fine: str = "",
    ) -> Reply:
        if self._ending is not None and self._ending.is_set():
            raise PassError("ForgeUnreachable", f"{self.place}: this process ends; the next one asks again.")
        words = "/".join(quote(str(word), safe="") for word in path)
        status, headers, body = self._sent(method, words, query, given)
        if status in (403, 429) and _limited(status, headers):
            what = f"{self.place}: too many requests{_until(headers)}: it is asked again then."
            raise Limited(what, _seconds(headers))
        if status in (200, 201, 403, 404) or (status == 400 and fine and fine.encode() in body):
            return Reply(status, body, words)
        raise PassError(*_refusal(status, words, self.place, self._token_file))

    def _sent(
        self, method: str, words: str, query: Mapping[str, str | int], given: Mapping[str, str] | None
    ) -> tuple[int, httpx.Headers, bytes]:
        request = self._client.build_request(
            method, f"{self._root}/{words}", params=query, json=given, headers=dict([self._login(self._token())])
        )
        with _deadline(self._bounds.deadline) as (trace, ended):
            request.extensions["trace"] = trace
            try:
                response = self._client.send(request, stream=True)
                try:
                    return response.status_code, response.headers, self._body(response, words, ended)
                finally:
                    response.close()
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                said = "no whole answer in time" if ended() else f"{type(error).__name__}: {error}"[:300]
                message = f"{self.place}: does not answer ({said}): check the network, url and ca_file."
                raise PassError("ForgeUnreachable", message) from None

    def _body(self, response: httpx.Response, words: str, ended: Callable[[], bool]) -> bytes:
        if response.headers.get("content-encoding", "") not in _PLAIN:
            raise PassError("ForgeNonsense", f"{self.place}: the answer for {words} is packed, which nobody asked for.")
        body = bytearray()
        for chunk in response.iter_raw(1 << 16):
            body += chunk
            if len(body) > self._bounds.size:
                raise PassError("ForgeNonsense", f"{self.place}: the answer for {words} is too large; is url right?")
        if ended():
            raise httpx.ReadTimeout("cut")
        return bytes(body)

    def _token(self) -> str:
        remedy = f"put a token for {self.place} there, alone on one line"
        try:
            with Path(self._token_file).open("rb") as file:
                token = file.read(TOKEN_SIZE + 1).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PassError(
                "ForgeRefused", f"{self._token_file}: cannot be read ({type(error).__name__}): {remedy}."
            ) from None
        if not re.fullmatch(rf"[\x21-\x7e]{{1,{TOKEN_SIZE}}}", token):
            raise PassError("ForgeRefused", f"{self._token_file}: holds no token: {remedy}.")
        return token

    def _read(self, adapter: TypeAdapter[Any], reply: Reply) -> Any:
        try:
            return adapter.validate_json(reply.body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            message = f"the answer for {reply.what} is not of the API's form ({where}: {first['msg'][:200]})"
            remedy = "is url right, and is this version of the forge supported?"
            raise PassError("ForgeNonsense", f"{self.place}: {message}: {remedy}") from None


def _authorities(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"environments_repo.forge.ca_file: {ca_file} cannot be used ({error}); write a PEM file"
        ) from None


@contextmanager
def _deadline(seconds: float) -> Iterator[tuple[Callable[[str, dict[str, Any]], None], Callable[[], bool]]]:
    """End the connection when its time is over, however slowly it drips: httpx bounds each read only, not their sum."""
    begun, sockets = time.monotonic(), list[socket.socket]()

    def cut() -> None:
        for one in sockets:
            with suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)  # not TLS's own: another thread reads there

    def trace(event: str, info: dict[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            sockets.append(info["return_value"].get_extra_info("socket"))

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield trace, lambda: time.monotonic() - begun >= seconds
    finally:
        timer.cancel()


def _granted(reply: Reply, place: str) -> Reply:
    if reply.status == 403:
        message = f"{place}: the token may not read {reply.what}: give it what operations.md lists."
        raise PassError("ForgeRefused", message)
    if reply.status == 404:
        remedy = "check forge.repository and what the token may read"
        raise PassError("ForgeUnknown", f"{place}: there is no {reply.what} for this token: {remedy}.")
    return reply


def _limited(status: int, headers: httpx.Headers) -> bool:
    left = (headers.get("x-ratelimit-remaining"), headers.get("ratelimit-remaining"))
    return status == 429 or "0" in left or "retry-after" in headers


def _seconds(headers: httpx.Headers) -> float | None:
    """For how long the forge wants to be left alone, if it says so in a form that is known."""
    after = headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,6}", after):
        return float(after)
    reset = headers.get("x-ratelimit-reset", headers.get("ratelimit-reset", ""))
    return max(float(reset) - time.time(), 0.0) if re.fullmatch(r"[0-9]{9,11}", reset) else None


def _bearer(token: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {token}"


def _private(token: str) -> tuple[str, str]:
    return "PRIVATE-TOKEN", token


def _plain(token: str) -> tuple[str, str]:
    return "Authorization", f"token {token}"


_LOGINS: Mapping[str, tuple[str, Login]] = {
    "github": ("", _bearer),
    "gitlab": ("/api/v4", _private),
    "gitea": ("/api/v1", _plain),
}


def login_of(kind: str) -> tuple[str, Login]:
    """Where the API of a kind of forge begins, and the header that carries a token there."""
    return _LOGINS[kind]


def _until(headers: httpx.Headers) -> str:
    """When the forge says that it answers again, if it says so in a form that is known."""
    after = headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,6}", after):
        return f" for {after} s"
    reset = headers.get("x-ratelimit-reset", headers.get("ratelimit-reset", ""))
    if re.fullmatch(r"[0-9]{9,11}", reset):
        return f" until {datetime.fromtimestamp(int(reset), UTC).isoformat(timespec='seconds')}"
    return ""


def _refusal(status: int, words: str, place: str, token_file: Path) -> tuple[str, str]:
    if status == 401:
        return "ForgeRefused", f"{place}: the token is not accepted: put a valid one into {token_file}."
    if 300 <= status < 400:
        return (
            "ForgeUnknown",
            f"{place}: {words} has moved: write the new name (or address) into forge; none is followed.",
        )
    if status >= 500:
        return "ForgeUnreachable", f"{place}: answers with {status}: it is asked again at the next poll."
    return "ForgeNonsense", f"{place}: answers {status} for {words}, which the API does not foresee: is url right?"
