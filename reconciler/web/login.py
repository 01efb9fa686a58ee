"""Logging in and out, for people in a browser; and who of them looks.

Nothing is remembered of a login that has begun: what it must bring back is sealed in a cookie of the browser that began it.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from hmac import compare_digest
from typing import Protocol
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from cryptography.fernet import Fernet, InvalidToken
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from reconciler.config.login import Login
from reconciler.oidc.documents import IssuerError
from reconciler.oidc.provider import CALLBACK, Attempt, Provider
from reconciler.oidc.tokens import ForeignError, UnprovenError
from reconciler.web.pages import refused
from reconciler.web.rates import Rate, Rates
from reconciler.web.render import page
from reconciler.web.sessions import Session, Sessions

START, LOGOUT, OUT = "/login", "/logout", "/logged-out"
COOKIE = "__Host-reconciler"  # of the host alone, over https alone: neither a neighbour nor a wire can set it
ATTEMPT = "__Host-reconciler-login-"  # and a part of the state: two tabs do not end each other's login
ATTEMPTS = 8  # cookies of logins that one browser keeps
WITHIN = 600  # seconds for a login
AT_ONCE = 4  # threads that wait for the issuer: others read the page meanwhile
USED = 10_000  # states that are remembered, so that none comes back twice
LONGEST_CODE = 4096
RATE = Rate(1, 30)  # logins begun or ended by one address

_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,2000}")


class Said(Protocol):
    """Told of every login, for log and metrics."""

    def login_answered(self, result: str, user: str, peer: str, message: str) -> None:
        """Somebody logged in or out, or could not."""


class LogIn:
    """The addresses at which one logs in and out."""

    def __init__(
        self,
        config: Login,
        provider: Provider,
        sessions: Sessions,
        said: Said,
        clock: Callable[[], float] = time.time,
        rate: Rate = RATE,
    ) -> None:
        self._config, self._provider, self.sessions, self._said = config, provider, sessions, said
        self._clock = clock
        self._seal = Fernet(Fernet.generate_key())  # of this process: a login does not outlive it
        self._rates = Rates(rate)
        self._limiter: CapacityLimiter | None = None
        self._guard = threading.Lock()
        self._used: OrderedDict[str, None] = OrderedDict()

    @property
    def open(self) -> tuple[str, ...]:
        """What is answered to whoever is not logged in."""
        return START, CALLBACK, LOGOUT, OUT

    def routes(self) -> list[Route]:
        """They."""
        return [
            Route(START, partial(self._waiting, self._begin), methods=["GET"]),
            Route(CALLBACK, partial(self._waiting, self._end), methods=["GET"]),
            Route(LOGOUT, self._leave, methods=["POST"]),
            Route(OUT, self._out, methods=["GET"]),
        ]

    def session(self, request: Request) -> Session | None:
        """Who looks, if they have logged in."""
        return self.sessions.find(request.cookies.get(COOKIE, ""))

    def to_login(self, request: Request) -> Response:
        """To where one logs in, and from there back here. At the page's own address: its cookies are of that host alone."""
        path, query = request.scope.get("raw_path") or b"/", request.scope["query_string"]
        here = (path + (b"?" + query if query else b"")).decode("latin-1")
        return _to(f"{self._config.address}{START}?then={quote(then_of(here), safe='')}")

    async def _waiting(self, answer: Callable[[Request], Response], request: Request) -> Response:
        """Answer in one of few threads: the issuer may be slow."""
        wait = self._rates.take(request.client.host if request.client else "")
        if wait:
            self._tell(request, "limited", "", "too many logins from one address")
            response = refused(request, 429, "Too many logins: wait a moment, and try again.")
            response.headers["retry-after"] = str(int(wait) + 1)
            return response
        if self._limiter is None:
            self._limiter = CapacityLimiter(AT_ONCE)
        return await to_thread.run_sync(answer, request, limiter=self._limiter)

    def _begin(self, request: Request) -> Response:
        """To the issuer, with what it shall bring back."""
        then = then_of(request.query_params.get("then", ""))
        if self.session(request) is not None:
            return _to(self._config.address + then)
        attempt = Attempt.begin(then)
        try:
            place = self._provider.address(attempt)
        except IssuerError as error:
            return self._away(request, error, then)
        answer = _to(place)
        for name in _attempts(request)[: -(ATTEMPTS - 1)]:
            _drop(answer, name)
        sealed = self._seal.encrypt_at_time(json.dumps(asdict(attempt)).encode(), int(self._clock()))
        _keep(answer, _name(attempt.state), sealed.decode(), WITHIN)
        return answer

    def _end(self, request: Request) -> Response:
        """Back from the issuer."""
        said = request.query_params
        attempt = self._attempt(request)
        if attempt is None:
            message = "this login was not begun in this browser within 10 minutes, or has ended already"
            return self._refused(request, 400, "refused", "", message)
        answer = self._ended(request, attempt, said.get("code", ""), said.get("error", ""), said.get("iss"))
        _drop(answer, _name(attempt.state))
        return answer

    def _ended(self, request: Request, attempt: Attempt, code: str, error: str, issuer: str | None) -> Response:
        if issuer not in (None, self._config.issuer):
            return self._refused(request, 400, "refused", "", "the answer is another issuer's")
        if error or not 0 < len(code) <= LONGEST_CODE:
            name = error if re.fullmatch(r"[a-z_]{1,50}", error) else "it brought no code"
            return self._refused(request, 403, "refused", "", f"the issuer let nobody in: {name}", attempt.then)
        try:
            claims = self._provider.redeem(code, attempt)
            user = self._provider.admit(claims)
        except IssuerError as failure:
            return self._away(request, failure, attempt.then)
        except UnprovenError as failure:
            return self._refused(request, 400, "refused", "", str(failure), attempt.then)
        except ForeignError as failure:
            return self._refused(request, 403, "forbidden", failure.subject, str(failure), attempt.then)
        self.sessions.end(request.cookies.get(COOKIE, ""))  # whatever was there before is nobody's now
        answer = _to(self._config.address + attempt.then)
        life = int(self._config.session.total_seconds())
        _keep(answer, COOKIE, self.sessions.begin(user, str(claims["sub"])), life)
        self._tell(request, "in", user, f"{user} has logged in to the status page")
        return answer

    def _attempt(self, request: Request) -> Attempt | None:
        """The login that this browser began, whose state the issuer brings back: each once."""
        state = request.query_params.get("state", "")
        sealed = request.cookies.get(_name(state), "")
        try:
            opened = self._seal.decrypt_at_time(sealed, WITHIN, int(self._clock()))
        except InvalidToken:
            return None
        attempt = Attempt(**json.loads(opened))
        if not compare_digest(attempt.state.encode(), state.encode()):
            return None
        with self._guard:
            if state in self._used:
                return None
            self._used[state] = None
            while len(self._used) > USED:
                self._used.popitem(last=False)
        return attempt

    async def _leave(self, request: Request) -> Response:
        """End the session. Another site's form brings no cookie, and so ends none."""
        ended = self.sessions.end(request.cookies.get(COOKIE, ""))
        if ended is not None:
            self._tell(request, "out", ended.user, f"{ended.user} has logged out of the status page")
        answer = _to(self._config.address + OUT, 303)
        _drop(answer, COOKIE)
        return answer

    async def _out(self, request: Request) -> Response:
        session = self.session(request)
        user = session.user if session else ""
        return page("loggedout", here="loggedout", bare=True, user=user, issuer=self._config.issuer)

    def _away(self, request: Request, error: IssuerError, then: str) -> Response:
        self._tell(request, "unavailable", "", str(error))
        message = (
            f"Nobody can log in now: {self._config.issuer} does not answer as it should. Whoever is logged in stays so."
        )
        response = refused(request, 503, message, self._again(then))
        response.headers["retry-after"] = "30"
        return response

    def _refused(self, request: Request, code: int, result: str, user: str, why: str, then: str = "/") -> Response:
        """Say that, and why where it is known who asks; all of it is in the log."""
        self._tell(request, result, user, why)
        told = f"{why}; `http.oidc` in reconciler.yaml says who may look" if result == "forbidden" else why
        return refused(request, code, f"You are not logged in: {told}.", self._again(then))

    @staticmethod
    def _again(then: str) -> tuple[str, str]:
        return f"{START}?then={quote(then, safe='')}", "Log in again"

    def _tell(self, request: Request, result: str, user: str, message: str) -> None:
        self._said.login_answered(result, user, request.client.host if request.client else "", message)


def then_of(said: str) -> str:
    """A path of this page, wherever an address points: `//evil`, `https:evil` and what hides another are the front page."""
    path = said if _PATH.fullmatch(said) else "/"
    return "/" if path.split("?")[0] in (START, CALLBACK, LOGOUT, OUT) else path


def _to(place: str, code: int = 302) -> Response:
    return RedirectResponse(place, code)


def _name(state: str) -> str:
    return ATTEMPT + (state[:12] if re.fullmatch(r"[A-Za-z0-9_-]{43}", state) else "")


def _attempts(request: Request) -> list[str]:
    return [name for name in request.cookies if name.startswith(ATTEMPT)]


def _keep(answer: Response, name: str, value: str, seconds: int) -> None:
    answer.set_cookie(name, value, seconds, path="/", secure=True, httponly=True, samesite="lax")


def _drop(answer: Response, name: str) -> None:
    answer.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")
