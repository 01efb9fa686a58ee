"""The trigger's HTTP interface: one verb that wakes, two that read."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Protocol

from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from reconciler.codec import encode
from reconciler.desired.shape import Closed, Sha, matching
from reconciler.desired.template import SEGMENT
from reconciler.errors import PassError
from reconciler.model import Commit
from reconciler.trigger.callers import Caller, RefusedError, unproven
from reconciler.trigger.certificates import Certificates
from reconciler.trigger.edge import TAKEN, Edge, connection_of
from reconciler.trigger.follow import Follow, told
from reconciler.trigger.tokens import Tokens
from reconciler.trigger.view import Sight
from reconciler.trigger.wakings import Wakings
from reconciler.web.rates import Places, Rate, Rates

_IN_ALL = Rate(50, 100)
_PEER = Rate(10, 40)  # one address, proven or not
_WAKES = Rate(0.5, 10)  # one caller
_READS = Rate(5, 50)  # one caller
_ID = re.compile(r"[0-9a-f]{32}")


class Asked(Closed):
    """The body of a request: a scope, and never content."""

    scope: Annotated[
        str, matching(rf"{SEGMENT}(?:/{SEGMENT})*", "a scope: all, an environment or a unit"), Field(max_length=200)
    ]
    commit: Sha | None = Field(default=None, description="what came of it is told once this commit is accepted")


class Said(Protocol):
    """Told of every request, for log and metrics."""

    def trigger_answered(self, result: str, caller: str, peer: str, message: str, **more: str) -> None:
        """A CI server asked for something."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be asked for."""

    in_all: Rate = _IN_ALL
    peer: Rate = _PEER
    wakes: Rate = _WAKES
    reads: Rate = _READS
    streams: int = 32
    streams_each: int = 8
    stream_seconds: float = 900.0  # then the reader asks once more
    pace: float = 0.3  # seconds between two looks
    silence: float = 15.0  # seconds after which a line is sent though nothing is new
    taken: float = TAKEN


@dataclass(slots=True)
class Desk:
    """Everything that the endpoints need."""

    sight: Sight
    wakings: Wakings
    tokens: Tokens
    certificates: Certificates
    now: Callable[[], datetime]
    said: Said
    bounds: Bounds = field(default_factory=Bounds)
    ending: Callable[[], bool] = lambda: False
    _rates: dict[str, Rates] = field(init=False)
    places: Places = field(init=False)

    def __post_init__(self) -> None:
        """Make the buckets."""
        names = ("in_all", "peer", "wakes", "reads")
        self._rates = {name: Rates(getattr(self.bounds, name)) for name in names}
        self.places = Places(self.bounds.streams, self.bounds.streams_each)

    def limit(self, rate: str, name: str, caller: str = "") -> None:
        """Raises RefusedError where the name has asked too often."""
        wait = self._rates[rate].take(name)
        if wait:
            raise LimitedError(wait, caller)

    def caller(self, request: Request) -> Caller:
        """Who asks. Raises RefusedError."""
        self.limit("peer", _peer(request))
        self.limit("in_all", "")
        given = request.headers.getlist("authorization")
        certificate = connection_of(request.scope).certificate
        if given:
            kind, _, token = given[0].partition(" ")
            if len(given) > 1 or kind.lower() != "bearer" or not token:
                raise unproven("the header Authorization is no bearer token")
            return self.tokens.prove(token.strip())
        if certificate is not None:
            return self.certificates.prove(certificate, self.now())
        raise unproven("neither a token nor a certificate was shown")


class LimitedError(RefusedError):
    """Too much was asked for; `wait` seconds later there is room."""

    def __init__(self, wait: float, caller: str = "") -> None:
        super().__init__(429, "limited", "too many requests: ask again later", caller=caller)
        self.wait = wait


def make_app(desk: Desk) -> Starlette:
    """The application."""
    routes = [
        Route("/v1/reconcile", _endpoint(desk, wake), methods=["POST"]),
        Route("/v1/reconcile/{id}", _endpoint(desk, read), methods=["GET"]),
        Route("/v1/reconcile/{id}/events", _endpoint(desk, events), methods=["GET"]),
    ]
    refused = {HTTPException: _outside(desk)}
    app = Starlette(routes=routes, middleware=[Middleware(Edge, taken=desk.bounds.taken)], exception_handlers=refused)
    app.router.redirect_slashes = False
    return app


Endpoint = Callable[[Desk, Request, bytes], Response]


def _endpoint(desk: Desk, answer: Endpoint) -> Callable[[Request], Any]:
    async def serve(request: Request) -> Response:
        body = await request.body()
        try:
            return await run_in_threadpool(answer, desk, request, body)
        except RefusedError as error:
            return _refused(desk, request, error)
        except PassError as error:
            words = RefusedError(503, "unavailable", str(error), "it cannot be done now: try again")
            return _refused(desk, request, words)

    return serve


def _refused(desk: Desk, request: Request, error: RefusedError, more: Mapping[str, str] | None = None) -> Response:
    desk.said.trigger_answered(error.result, error.caller, _peer(request), str(error))
    headers = {**(more or {}), **({"www-authenticate": "Bearer"} if error.code == 401 else {})}
    if isinstance(error, LimitedError):
        headers = {"retry-after": str(int(error.wait) + 1)}
    return _json({"error": error.said, "reason": error.result.capitalize()}, error.code, headers)


def _outside(desk: Desk) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        code = error.status_code if isinstance(error, HTTPException) else 500
        words = "there is POST /v1/reconcile, GET /v1/reconcile/<id> and GET /v1/reconcile/<id>/events"
        return _refused(desk, request, RefusedError(code, "invalid", words), getattr(error, "headers", None))

    return answer


def _json(payload: object, code: int, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(payload), code, headers, media_type="application/json")


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""


def wake(desk: Desk, request: Request, body: bytes) -> Response:
    """Wake a scope: 202, and the id under which the outcome is."""
    caller = desk.caller(request)
    desk.limit("wakes", caller.name, caller.name)
    asked = _asked(request, body, caller)
    waking, new = desk.wakings.ask(caller, asked.scope, Commit(asked.commit) if asked.commit else None)
    words = f"{asked.scope} is looked at" if new else f"{asked.scope} was asked for already"
    desk.said.trigger_answered("accepted" if new else "repeated", caller.name, _peer(request), words, scope=asked.scope)
    wanted = waking.wanted
    said = {"id": waking.id, "scope": wanted.scope, "commit": wanted.commit, "at": wanted.at, "repeated": not new}
    return _json(said, 202, {"location": f"/v1/reconcile/{waking.id}"})


def _asked(request: Request, body: bytes, caller: Caller) -> Asked:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(415, "invalid", "a request is application/json", caller=caller.name)
    try:
        return Asked.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join("?" if one not in Asked.model_fields else str(one) for one in first["loc"])
        what = f'not {{"scope": "all" or an environment or a unit, "commit": 40 hex digits}}: {where} {first["type"]}'
        raise RefusedError(400, "invalid", what, caller=caller.name) from error


def read(desk: Desk, request: Request, _body: bytes) -> Response:
    """The outcome so far."""
    caller = desk.caller(request)
    desk.limit("reads", caller.name, caller.name)
    waking = desk.wakings.get(caller, _id(request, caller))
    desk.said.trigger_answered("read", caller.name, _peer(request), "The outcome was read", scope=waking.wanted.scope)
    return _json(told(waking, desk.wakings.outcome(waking)), 200)


def _id(request: Request, caller: Caller) -> str:
    name = str(request.path_params["id"])
    if not _ID.fullmatch(name):
        raise RefusedError(404, "unknown", "an id has 32 hex digits", caller=caller.name)
    return name


def events(desk: Desk, request: Request, _body: bytes) -> Response:
    """What happens, as a line of JSON each, until the outcome is there."""
    caller = desk.caller(request)
    desk.limit("reads", caller.name, caller.name)
    waking = desk.wakings.get(caller, _id(request, caller))
    if not desk.places.take(caller.name):
        raise LimitedError(1.0, caller.name)
    desk.said.trigger_answered("read", caller.name, _peer(request), "Events are read", scope=waking.wanted.scope)
    follow = Follow(desk.sight, desk.wakings, waking)
    return _Stream(_told(desk, follow), lambda: desk.places.free(caller.name))


class _Stream(StreamingResponse):
    """Gives the reader's place back, however the stream ends, begun or not."""

    def __init__(self, content: AsyncIterator[bytes], free: Callable[[], None]) -> None:
        super().__init__(content, media_type="application/x-ndjson")
        self._free = free

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._free()


async def _told(desk: Desk, follow: Follow) -> AsyncIterator[bytes]:
    began = said = time.monotonic()
    while not follow.ended:
        news = await run_in_threadpool(lambda: [encode(one) + b"\n" for one in _looked(follow)])
        for line in news:
            yield line
        now = time.monotonic()
        if news:
            said = now
        elif now - said > desk.bounds.silence:
            yield encode({"event": "ping"}) + b"\n"
            said = now
        if desk.ending() or now - began > desk.bounds.stream_seconds:
            break
        if not follow.ended:
            await asyncio.sleep(desk.bounds.pace)
    if not follow.ended:
        yield encode({"event": "again"}) + b"\n"


def _looked(follow: Follow) -> list[Any]:
    """A look; one that the store or the runner does not let happen is made again."""
    try:
        return list(follow.look())
    except PassError:
        return []
