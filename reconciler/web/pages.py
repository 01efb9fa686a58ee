"""The pages for people: server-rendered HTML over the same facts as the API. Nothing on them does anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from reconciler.codec import ACTIONS
from reconciler.model import Health, Sync, UnitId
from reconciler.ports import Chosen
from reconciler.status import Picture, UnitStatus
from reconciler.web.identity import leaves, user_of
from reconciler.web.listing import KINDS, PER_PAGE, SORTS, Index, Listing, Query
from reconciler.web.neighbours import Neighbours, draw
from reconciler.web.notices import notices
from reconciler.web.pulse import Pulse
from reconciler.web.render import page, static
from reconciler.web.sentences import job_of, next_step, told
from reconciler.web.shape import detail
from reconciler.web.stopped import stopped
from reconciler.web.timeline import find_job, first_log, timeline
from reconciler.web.traced import inputs_of, trace
from reconciler.web.view import View

LEAST = 2.5  # of a hundred: the narrowest part of a bar
EVENTS = 50  # in a page of the journal
STREAM = {"cache-control": "no-store", "x-accel-buffering": "no"}


@dataclass(frozen=True, slots=True)
class Site:
    """What the pages are made of, beside the facts of the moment."""

    view: View
    pulse: Pulse = field(default_factory=Pulse)
    listing: Listing = field(default_factory=Listing)
    neighbours: Neighbours = field(default_factory=Neighbours)


def routes(site: Site) -> list[Route]:
    """Every page, the stream, and the files that the pages need."""
    pages: Mapping[str, Callable[[Request, Site], Response]] = {
        "/": overview,
        "/units/{unit:path}": unit,
        "/jobs/{job}": job,
        "/stopped": all_stopped,
        "/journal": journal,
        "/pulls": pulls,
        "/static/{name}": own_file,
    }

    def route(path: str, endpoint: Callable[[Request, Site], Response]) -> Route:
        def serve(request: Request) -> Response:
            return endpoint(request, site)

        return Route(path, serve, methods=["GET"], name=f"page-{endpoint.__name__}")

    async def stream(_request: Request) -> Response:
        place = site.pulse.join()
        if place is None:
            return PlainTextResponse(
                "As many look on already as may; the page asks again.\n", 503, {"retry-after": "30"}
            )
        return StreamingResponse(site.pulse.stream(place), media_type="text/event-stream", headers=STREAM)

    return [*(route(path, endpoint) for path, endpoint in pages.items()), Route("/stream", stream, methods=["GET"])]


def wants_html(request: Request) -> bool:
    """Whether somebody with a browser asks; a program gets text or JSON."""
    return "text/html" in request.headers.get("accept", "")


def _frame(request: Request, site: Site, picture: Picture, here: str) -> dict[str, object]:
    """What every page shows around what it is about."""
    index = site.listing.of(picture)
    return {
        "here": here,
        "now": picture.now,
        "head": picture.ledger.head,
        "user": user_of(request.scope),
        "leaves": leaves(request.scope),
        "notices": notices(site.view, picture),
        "total": len(index.lines),
        "numbers": {kind: index.number(kind) for kind in KINDS},
        "pull_number": len(site.view.pulls()),
        "pauses": [pause for pause in picture.ledger.pauses if picture.now < pause.until],
    }


def _front(view: View) -> Response:
    """The overview in a few lines, for whoever looks without a browser."""
    picture = view.picture()
    lines = [f"reconciler at commit {picture.ledger.head or '(none accepted yet)'}"]
    if picture.ledger.frozen is not None:
        lines.append(f"frozen: {picture.ledger.frozen.reason}: {picture.ledger.frozen.message}")
    counts = sorted(picture.overview.count().items())
    lines += [f"{environment}: {number} {sync} {health}" for (environment, sync, health), number in counts]
    lines += ["", "/api/v1/status /api/v1/units /metrics /healthz /readyz"]
    return PlainTextResponse("\n".join(lines) + "\n")


def overview(request: Request, site: Site) -> Response:
    """Environments at a glance, and the units: found, sorted and paged by what the address says."""
    if not wants_html(request):
        return _front(site.view)
    picture = site.view.picture()
    frame = _frame(request, site, picture, "overview")
    index, query = site.listing.of(picture), query_of(request)
    found = index.find(query)
    pages = max(-(-len(found) // PER_PAGE), 1)
    number = min(max(_number(request, "page"), 1), pages)
    records = picture.ledger.units
    running = [record.job for record in records.values() if record.job is not None]
    return page(
        "overview",
        **frame,
        environments=_environments(picture, index),
        query=query,
        asked=_asked(query),
        kinds={name: text for name, (text, _) in KINDS.items()},
        syncs=[one.value for one in Sync],
        healths=[one.value for one in Health],
        lines=found[(number - 1) * PER_PAGE : number * PER_PAGE],
        found=len(found),
        first=(number - 1) * PER_PAGE + 1,
        page=number,
        pages=pages,
        running=[(one, site.view.phase(one.job.id)) for one in sorted(running, key=lambda one: one.at)[:20]],
        running_number=len(running),
        waiting=len(site.view.waiting()),
        problems=[one for one in picture.desired.problems if one.unit is None] if picture.desired else [],
    )


def query_of(request: Request) -> Query:
    """What the address asks of the list; words that choose nothing are left out."""
    said = {name: request.query_params.get(name, "")[:200] for name in asdict(Query()) if name != "down"}
    asked = Query(**said, down="down" in request.query_params)
    return replace(
        asked,
        show=asked.show if asked.show in KINDS else "",
        sort=asked.sort if asked.sort in SORTS else "trouble",
    )


def _asked(query: Query) -> dict[str, object]:
    """The query as an address has it: what goes without saying is left out."""
    usual = asdict(Query())
    return {name: value for name, value in asdict(query).items() if value != usual[name]}


def _environments(picture: Picture, index: Index) -> list[dict[str, object]]:
    """Each environment in numbers, for a card: by health, worst first, and what there is to look at."""
    known = picture.desired.environments if picture.desired else {}
    names = sorted({*known, *(environment for environment, _, _ in index.counts)})
    cards: list[dict[str, object]] = []
    for name in names:
        healths = dict.fromkeys(Health, 0)
        for (environment, _, health), number in index.counts.items():
            healths[health] += number if environment == name else 0
        cards.append(
            {
                "name": name,
                "klass": known[name].klass.value if name in known else "",
                "units": sum(healths.values()),
                "parts": [(health.value, number) for health, number in healths.items() if number],
                "bar": _bar(healths),
                "kinds": [
                    (kind, text, number) for kind, (text, _) in KINDS.items() if (number := index.number(kind, name))
                ],
                "pauses": [
                    one for one in picture.ledger.pauses if one.scope in ("all", name) and picture.now < one.until
                ],
                "sessions": [one for one in picture.ledger.sessions if one.scope.partition("/")[0] in ("all", name)],
            }
        )
    return cards


def _bar(healths: Mapping[Health, int]) -> list[tuple[str, float, float]]:
    """The parts of a bar of a hundred: name, start and width. One unit of thousands is seen, too."""
    shown = [
        (health.value, max(number, sum(healths.values()) * LEAST / 100)) for health, number in healths.items() if number
    ]
    whole = sum(number for _, number in shown)
    widths = [round(100 * number / whole, 2) for _, number in shown]
    return [(name, round(sum(widths[:index]), 2), widths[index]) for index, (name, _) in enumerate(shown)]


def unit(request: Request, site: Site) -> Response:
    """All that explains one unit."""
    picture = site.view.picture()
    status = find(picture, request.path_params["unit"])
    seen = detail(picture, status, site.view.place(status.unit))
    record = picture.ledger.units.get(status.unit)
    wanted = picture.desired.units.get(status.unit) if picture.desired else None
    before = _number(request, "before") or None
    events = site.view.history(status.unit, EVENTS + 1, Chosen(before))
    return page(
        "unit",
        **_frame(request, site, picture, "unit"),
        status=status,
        seen=seen,
        next=next_step(seen),
        record=record,
        unit=wanted,
        inputs=inputs_of(wanted) if wanted else [],
        trace=trace(site.view, picture, status.unit),
        drawing=draw(status.unit, site.neighbours.links(picture), picture),
        events=[(event, told(event.action, event.body), job_of(event.action, event.body)) for event in events[:EVENTS]],
        older=events[EVENTS - 1].seq if len(events) > EVENTS else None,
        before=before,
        phase=site.view.phase(record.job.job.id) if record and record.job else None,
    )


def find(picture: Picture, name: str) -> UnitStatus:
    """How the unit of that name fares. Raises HTTPException, which names those that are meant, perhaps."""
    found = picture.status(UnitId(name))
    if found is None:
        near = [one.unit for one in picture.overview.units if name.rpartition("/")[2] in one.unit][:5]
        hint = f"; did you mean {', '.join(near)}?" if near else "; `reconciler status` lists what there is"
        raise HTTPException(404, f"no unit {name}{hint}")
    return found


def job(request: Request, site: Site) -> Response:
    """A job: its phases, its masked log, how it ended."""
    picture = site.view.picture()
    found = find_job(site.view, picture, request.path_params["job"], request.query_params.get("unit", ""))
    if found is None:
        raise HTTPException(404, f"no job {request.path_params['job']}; the history of its unit names the jobs")
    log, silent = first_log(site.view, found)
    return page(
        "job",
        **_frame(request, site, picture, "job"),
        job=found,
        steps=timeline(site.view, found, picture.now),
        log=log.decode(errors="replace"),
        offset=len(log),
        silent=silent,
    )


def all_stopped(request: Request, site: Site) -> Response:
    """What is paused, frozen, held, uncertain and orphaned, and until when."""
    picture = site.view.picture()
    index = site.listing.of(picture)
    return page("stopped", **_frame(request, site, picture, "stopped"), stopped=stopped(picture, index))


def journal(request: Request, site: Site) -> Response:
    """Who did what: the controller's journal, every line of which was on disk before anything acted on it."""
    picture = site.view.picture()
    said = {name: request.query_params.get(name, "")[:200] for name in ("scope", "actor", "action")}
    before = _number(request, "before") or None
    chosen = Chosen(before, said["actor"].strip(), said["action"] if said["action"] in ACTIONS else "")
    events = site.view.history(said["scope"].strip() or "all", EVENTS + 1, chosen)
    return page(
        "journal",
        **_frame(request, site, picture, "journal"),
        said=said,
        actions=sorted(ACTIONS),
        events=[(event, told(event.action, event.body), job_of(event.action, event.body)) for event in events[:EVENTS]],
        older=events[EVENTS - 1].seq if len(events) > EVENTS else None,
        before=before,
    )


def pulls(request: Request, site: Site) -> Response:
    """The open pull requests, and what each would do."""
    picture = site.view.picture()
    return page("pulls", **_frame(request, site, picture, "pulls"), pulls=site.view.pulls())


def own_file(request: Request, _site: Site) -> Response:
    """The style sheet, the script, the icon."""
    found = static(request.path_params["name"])
    if found is None:
        raise HTTPException(404, "no such file; reload the page")
    return found


def refused(request: Request, code: int, message: str, way: tuple[str, str] = ("/", "All units")) -> Response:
    """An error as a page, for whoever asked for one; `way`: the address and words of a link that leads on."""
    user, leave = user_of(request.scope), leaves(request.scope)
    facts = {"code": code, "message": message, "way": way, "user": user, "leaves": leave}
    return page("refused", code, here="refused", bare=True, **facts)


def _number(request: Request, name: str) -> int:
    """A whole number of the address; 0 where there is none. Nobody is told off for an address that was cut short."""
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
