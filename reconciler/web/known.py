"""Who looks: a person who has logged in, or a program with a token."""

from __future__ import annotations

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reconciler.config.trigger import Issued
from reconciler.oidc.keys import KeysUnknownError
from reconciler.oidc.tokens import ForeignError, Tokens, UnprovenError
from reconciler.web.identity import LEAVES, OPEN, USER
from reconciler.web.login import COOKIE, LogIn, Said
from reconciler.web.pages import refused, wants_html
from reconciler.web.rates import Rate, Rates

RATE = Rate(20, 200)  # tokens that one address shows
AT_ONCE = 4  # threads in which tokens are looked at: an issuer's keys may have to be fetched


class Known:
    """Wraps the application: nothing is answered to anybody who is not known."""

    def __init__(self, app: ASGIApp, login: LogIn | None, tokens: Tokens[Issued] | None, said: Said) -> None:
        self._app, self._login, self._tokens, self._said = app, login, tokens, said
        self._limiter: CapacityLimiter | None = None
        self._rates = Rates(RATE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its user, or refuse it."""
        if scope["type"] != "http" or self._open(scope["path"]):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        given = request.headers.getlist("authorization")
        if given:
            found = await self._program(request, given)
        else:
            found = self._person(request)
        if isinstance(found, str):
            inner = {**scope, USER: found, LEAVES: not given}
            await self._app(inner, receive, send if given else self._while_known(request, send))
        else:
            await found(scope, receive, send)

    def _open(self, path: str) -> bool:
        if path in OPEN:
            return True
        return self._login is not None and (path in self._login.open or path.startswith("/static/"))

    async def _program(self, request: Request, given: list[str]) -> str | Response:
        kind, _, token = given[0].partition(" ")
        if self._tokens is None or len(given) > 1 or kind.lower() != "bearer":
            return self._nobody("the header Authorization is no token of one of `http.tokens`")
        wait = self._rates.take(request.client.host if request.client else "")
        if wait:
            self._tell(request, "limited", "", "too many tokens from one address")
            return PlainTextResponse("too many requests: ask again later\n", 429, {"retry-after": str(int(wait) + 1)})
        if self._limiter is None:
            self._limiter = CapacityLimiter(AT_ONCE)
        try:
            proven = await to_thread.run_sync(self._tokens.prove, token.strip(), limiter=self._limiter)
        except UnprovenError as error:
            self._tell(request, "refused", "", str(error))
            return self._nobody("the token proves nothing; the controller's log says why")
        except ForeignError as error:
            self._tell(request, "forbidden", error.subject, str(error))
            return PlainTextResponse(f"{error}\n", 403)
        except KeysUnknownError as error:
            self._tell(request, "unavailable", "", str(error))
            return PlainTextResponse("the issuer's keys are not known now: try again\n", 503, {"retry-after": "30"})
        return proven.subject

    def _person(self, request: Request) -> str | Response:
        login = self._login
        if login is None:
            return self._nobody("show a token of one of `http.tokens`")
        session = login.session(request)
        if session is not None:
            return session.user
        if not wants_html(request) or request.url.path.startswith("/api/"):
            return self._nobody("log in, in a browser, or show a token of one of `http.tokens`")
        if request.headers.get("sec-fetch-mode", "navigate") != "navigate":
            return refused(
                request, 401, "You are no longer logged in: reload the page."
            )  # its script asks, and goes nowhere
        return login.to_login(request)

    def _while_known(self, request: Request, send: Send) -> Send:
        """`send`, until the session ends: a stream that is open then ends with it."""
        name = request.cookies.get(COOKIE, "")
        over = False

        async def sending(message: Message) -> None:
            nonlocal over
            if over:
                return
            if message.get("more_body") and self._login is not None and self._login.sessions.find(name) is None:
                over = True
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        return sending

    def _nobody(self, what: str) -> Response:
        challenge = {"www-authenticate": "Bearer"} if self._tokens else {}
        return PlainTextResponse(f"It is not known who asks: {what}.\n", 401, challenge)

    def _tell(self, request: Request, result: str, user: str, message: str) -> None:
        self._said.login_answered(result, user, request.client.host if request.client else "", message)
