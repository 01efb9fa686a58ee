"""The read-only HTTP interface: health, metrics, the API that the command line reads, and the pages for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from reconciler.codec import encode
from reconciler.deciding.decide import waits_for
from reconciler.errors import PassError
from reconciler.model import Commit, JobId, UnitId
from reconciler.status import Picture, UnitStatus
from reconciler.trust import in_the_way
from reconciler.web import pages
from reconciler.web.guard import LOCAL, Guard
from reconciler.web.login import LOGOUT, LogIn
from reconciler.web.pulse import Pulse
from reconciler.web.shape import detail, orphans, pull_shape, row, summary
from reconciler.web.traced import pulls_of, told_of, trace
from reconciler.web.view import View

PAGE = 200  # units in a page unless asked otherwise
MAX_PAGE = 1000
MAX_HISTORY = 1000

_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_COMMIT = re.compile(r"[0-9a-f]{40}")

Endpoint = Callable[[Request, View], Response]


def make_app(
    view: View,
    hosts: Collection[str] = LOCAL,
    pulse: Pulse | None = None,
    identity: Middleware | None = None,
    login: LogIn | None = None,
) -> Starlette:
    """The application. `hosts`: the names, without ports, under which it may be asked; `pulse`: wakes who looks on.

    `identity`: what makes sure who asks, where it is not the loopback that does; `login`: where people log in, if they do here.
    """
    site = pages.Site(view, pulse or Pulse())

    def route(path: str, endpoint: Endpoint) -> Route:
        def serve(request: Request) -> Response:
            return endpoint(request, view)

        return Route(path, serve, methods=["GET"], name=endpoint.__name__)

    routes = [
        route("/healthz", healthz),
        route("/readyz", readyz),
        route("/metrics", metrics),
        route("/api/v1/status", status),
        route("/api/v1/history", history),
        route("/api/v1/units", units),
        route("/api/v1/units/{unit:path}/history", unit_history),
        route("/api/v1/units/{unit:path}/undo", unit_undo),
        route("/api/v1/units/{unit:path}", unit),
        route("/api/v1/jobs/{job}/log", log),
        route("/api/v1/commits/{sha}", commit),
        route("/api/v1/pulls", pulls),
        route("/api/v1/orphans", strays),
        *pages.routes(site),
        *(login.routes() if login else []),
    ]
    errors = {PassError: _unavailable, HTTPException: _refused}
    posted = (LOGOUT,) if login else ()
    around = [Middleware(Guard, hosts=hosts, posted=posted), *([identity] if identity else [])]
    app = Starlette(routes=routes, middleware=around, exception_handlers=errors)  # type: ignore[arg-type]  # handlers take narrower errors
    app.router.redirect_slashes = False  # an address has one form
    return app


def _json(payload: object, code: int = 200) -> Response:
    return Response(encode(payload), code, media_type="application/json")


def _refused(request: Request, error: HTTPException) -> Response:
    if pages.wants_html(request) and not request.url.path.startswith("/api/"):
        return pages.refused(request, error.status_code, str(error.detail))
    return _json({"error": error.detail}, error.status_code)


def _unavailable(request: Request, error: PassError) -> Response:
    if pages.wants_html(request) and not request.url.path.startswith("/api/"):
        return pages.refused(request, 503, str(error))
    return _json({"error": str(error), "reason": error.reason}, 503)


# --- for machines that watch -------------------------------------------------------------------------------------


def healthz(_request: Request, _view: View) -> Response:
    """The process answers."""
    return PlainTextResponse("ok\n")


def readyz(_request: Request, view: View) -> Response:
    """Whether everything that the daemon needs is there."""
    checks = view.checks()
    ready = all(check.ok for check in checks.values())
    return _json({"ready": ready, "checks": checks}, 200 if ready else 503)


def metrics(_request: Request, view: View) -> Response:
    """Prometheus' text format."""
    return Response(view.metrics(), media_type="text/plain; version=0.0.4")


# --- for people and programs -------------------------------------------------------------------------------------


def status(_request: Request, view: View) -> Response:
    """The whole installation in a few lines."""
    return _json(summary(view.picture(), view.waiting(), view.heartbeat(), view.checks(), view.standing()))


def units(request: Request, view: View) -> Response:
    """The units, page by page: `environment`, `sync`, `health` and `q` (part of the id) choose, `scope` too."""
    wanted = {
        name: request.query_params[name] for name in ("environment", "sync", "health") if name in request.query_params
    }
    scope, part = request.query_params.get("scope", "all"), request.query_params.get("q", "")
    found = [
        one
        for one in view.picture().overview.units
        if all(getattr(one, name) == value for name, value in wanted.items())
        and part in one.unit
        and _within(scope, one)
    ]
    offset, limit = _number(request, "offset", 0, None), _number(request, "limit", PAGE, MAX_PAGE)
    rest = offset + limit if offset + limit < len(found) else None
    return _json({"units": [row(one) for one in found[offset : offset + limit]], "total": len(found), "next": rest})


def _within(scope: str, status: UnitStatus) -> bool:
    return scope in ("all", status.environment, status.unit)


def unit(request: Request, view: View) -> Response:
    """All that explains one unit."""
    picture = view.picture()
    return _unit(view, picture, pages.find(picture, request.path_params["unit"]))


def _unit(view: View, picture: Picture, status: UnitStatus) -> Response:
    wanted, applied = trace(view, picture, status.unit)
    return _json(
        {
            **detail(picture, status, view.place(status.unit)),
            "trace": {"desired": told_of(wanted), "applied": told_of(applied)},
        }
    )


def unit_history(request: Request, view: View) -> Response:
    """The unit's journaled events; `prod/history` may itself be a unit's name, and is then that unit."""
    name = request.path_params["unit"]
    longer = UnitId(f"{name}/history")
    found = view.picture().status(longer)
    if found is not None:
        return _unit(view, view.picture(), found)
    return _history(request, view, name)


def unit_undo(request: Request, view: View) -> Response:
    """The `git revert` that takes back what changed the unit's entry last; a unit may itself be called so, as above."""
    picture, name = view.picture(), request.path_params["unit"]
    found = picture.status(UnitId(f"{name}/undo"))
    if found is not None:
        return _json(detail(picture, found, view.place(found.unit)))
    return _json({"command": view.undoing(pages.find(picture, name).unit)})


def history(request: Request, view: View) -> Response:
    """The journaled events of a scope."""
    return _history(request, view, request.query_params.get("scope", "all"))


def _history(request: Request, view: View, scope: str) -> Response:
    events = view.history(scope, _number(request, "limit", 50, MAX_HISTORY))
    commits = [Commit(str(event.body["commit"])) for event in events if event.action == "head-accepted"]
    return _json({"scope": scope, "events": events, "pulls": pulls_of(view, commits)})


def log(request: Request, view: View) -> Response:
    """A job's masked engine output from `offset` on. The headers say where the next part starts and whether it runs."""
    job = JobId(request.path_params["job"])
    if not _JOB.fullmatch(job):
        raise HTTPException(404, f"no job {job!r}; `reconciler history UNIT` names the jobs of a unit")
    offset = _number(request, "offset", 0, None)
    running = any(
        record.job is not None and record.job.job.id == job for record in view.picture().ledger.units.values()
    )
    data = view.log(job, offset)
    headers = {"reconciler-next-offset": str(offset + len(data)), "reconciler-running": "true" if running else "false"}
    return PlainTextResponse(data, headers=headers)


def pulls(_request: Request, view: View) -> Response:
    """The open pull requests and what each would do: addresses and actions, no values."""
    return _json({"pulls": [pull_shape(one) for one in view.pulls()]})


def strays(request: Request, view: View) -> Response:
    """What no state knows, as far as was looked, and units whose entry is gone."""
    return _json(orphans(view.picture(), request.query_params.get("scope", "all")))


def commit(request: Request, view: View) -> Response:
    """Which units are not yet as the commit, or one that followed it, says."""
    sha = Commit(request.path_params["sha"])
    if not _COMMIT.fullmatch(sha):
        raise HTTPException(400, "a commit is 40 lower-case hex digits: `git rev-parse HEAD` prints them")
    known = view.accepted(sha)  # before the picture: what is accepted after this is more than the picture shows
    picture = view.picture()
    shown = picture.desired.commit if picture.desired else None
    resolved = shown is not None and (shown == sha or (known and shown == picture.ledger.head))
    standing = view.standing()
    why, seen = None if known else in_the_way(standing), standing.seen
    answer = {"commit": sha, "accepted": resolved, "head": picture.ledger.head, "frozen": picture.ledger.frozen}
    answer |= {"stopped": why and {"reason": why[0], "message": why[1]}, "verified_at": seen and seen.at}
    return _json({**answer, "waiting": [row(one) for one in _waiting(picture)] if resolved else []})


def _waiting(picture: Picture) -> list[UnitStatus]:
    if picture.desired is None:
        return []
    names = {*waits_for(picture.desired, picture.expected, picture.ledger), *picture.desired.broken}
    return [one for one in picture.overview.units if one.unit in names]


def _number(request: Request, name: str, default: int, most: int | None) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise HTTPException(400, f"{name} is a whole number, not {text!r}")
    return min(int(text), most) if most is not None else int(text)
