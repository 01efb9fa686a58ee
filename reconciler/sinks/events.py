"""What of the journal the outside is told, as CloudEvents 1.0: pure. docs/formats.md has the table of kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

import orjson

from reconciler.ports import HistoryEvent

PREFIX = "reconciler."
KINDS = (
    "unit.applied", "unit.drifted", "unit.failed", "unit.held", "unit.released", "unit.uncertain", "scope.paused",
    "scope.resumed", "scope.opened", "scope.closed", "scope.accepted", "scope.outofband", "branch.accepted", "branch.frozen", "branch.rewritten", "branch.thawed",
)  # fmt: skip

# What happened to a job's unit. A plan, and a job that found nothing to do, are no news.
_OUTCOMES = {"Failed": "unit.failed", "Uncertain": "unit.uncertain", "Held": "unit.held"}
_OTHERS = {
    "paused": "scope.paused",
    "resumed": "scope.resumed",
    "break-glass-opened": "scope.opened",
    "break-glass-closed": "scope.closed",
    "loss-accepted": "scope.accepted",
    "out-of-band": "scope.outofband",
    "head-accepted": "branch.accepted",
    "frozen": "branch.frozen",
    "thawed": "branch.thawed",
    "history-accepted": "branch.rewritten",
}

# What a person stops, and where that stands in the event.
_BY_A_PERSON = {"paused": "pause", "break-glass-opened": "session", "break-glass-closed": "session"}


def cloud_event(happened: HistoryEvent, installation: str) -> dict[str, Any] | None:
    """The event in the structured form; None: it is nothing to tell.

    The same journaled event always gives the same `id`; one that a restored journal has in its place gives another.
    """
    kind, data = _told(happened)
    if kind is None:
        return None
    digest = sha256(happened.at.isoformat().encode() + orjson.dumps(happened.body)).hexdigest()[:12]
    event = {
        "specversion": "1.0",
        "id": f"{happened.seq}-{digest}",
        "source": f"/reconciler/{installation}",
        "type": PREFIX + kind,
        "time": happened.at.isoformat(),
        "sequence": f"{happened.seq:020d}",
        "datacontenttype": "application/json",
        "data": {"actor": happened.actor, **{key: value for key, value in data.items() if value not in (None, "")}},
    }
    return event | ({"subject": happened.unit} if happened.unit else {})


def wanted(event: Mapping[str, Any], kinds: Iterable[str]) -> bool:
    """Whether one of the kinds, as `unit.failed` or `unit.*`, is the event's."""
    kind = str(event["type"]).removeprefix(PREFIX)
    return any(one in (kind, f"{kind.partition('.')[0]}.*") for one in kinds)


def _told(happened: HistoryEvent) -> tuple[str | None, dict[str, Any]]:
    """Its kind, and what there is to say about it."""
    body: dict[str, Any] = happened.body
    if happened.action == "job-ended":
        return _job(body["result"], body["dispatched"])
    if happened.action == "hold-changed":
        hold = body["hold"]
        return ("unit.held", _reason(hold)) if hold else ("unit.released", {})
    return _OTHERS.get(happened.action), _about(happened.action, body)


def _job(result: Mapping[str, Any], dispatched: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    job = result["job"]
    data = {
        "reason": result["reason"],
        "message": result["message"],
        "job": job["id"],
        "operation": job["operation"],
        "commit": result.get("commit") or job["commit"],
        "cause": result.get("cause") or dispatched["cause"],
        "changes": _changes(result.get("plan")),
    }
    return _kind_of(result, data), data


def _kind_of(result: Mapping[str, Any], data: Mapping[str, Any]) -> str | None:
    if result["outcome"] == "Succeeded":
        if data["operation"] == "apply" and result.get("applied") and data["changes"]:
            return "unit.applied"
        return "unit.drifted" if data["cause"] == "drift" and data["changes"] else None
    return _OUTCOMES.get(str(result["outcome"]))


def _changes(plan: Mapping[str, Any] | None) -> int:
    """How many objects: their addresses and values stay here."""
    changes = plan["changes"] if plan else ()
    return sum(1 for change in changes if change["actions"] != ["read"]) + int((plan or {}).get("more") or 0)


def _reason(hold: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"reason": hold["reason"], "message": hold["message"]} if hold else {}


def _about(action: str, body: Mapping[str, Any]) -> dict[str, Any]:
    if action in _BY_A_PERSON:
        stop = body[_BY_A_PERSON[action]]
        return {name: stop[name] for name in ("scope", "owner", "reason", "until")}
    if action == "loss-accepted":
        return {"scope": body["scope"], "reason": body["reason"], "units": len(body["units"])}
    if action == "out-of-band":
        change = body["change"]
        names = ("environment", "account", "principal", "break_glass", "calls", "count", "since", "until", "event")
        return {**{name: change[name] for name in names}, "units": sorted(change["units"])}
    if action == "frozen":
        return _reason(body["hold"])
    return {name: body[name] for name in ("scope", "commit", "old", "new", "reason") if name in body}
