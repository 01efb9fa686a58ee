"""What the command line and the pages say in the same words. From answers of the API; nothing else is needed for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Answer = Mapping[str, Any]


def when(at: str | datetime | None) -> str:
    """A time for people: UTC, to the second."""
    if not at:
        return ""
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def short(commit: str | None) -> str:
    """A commit as people write it."""
    return commit[:12] if commit else ""


def next_step(seen: Answer) -> str:
    """What will happen to a unit, or what somebody has to do, in a sentence. `seen`: as `/api/v1/units/UNIT` has it."""
    if seen["job"] and seen["job"]["overdue"]:
        by, job = when(seen["job"]["ends_by"]), seen["job"]["id"]
        return f"somebody has to look: the job should have ended by {by}; see `reconciler logs {job}`, the runner's log and its host"
    if seen["job"]:
        return f"the job ends; `reconciler logs -f {seen['job']['id']}` follows it"
    return _of_somebody(seen) or _by_itself(seen)


def _of_somebody(seen: Answer) -> str | None:
    """What somebody has to do, or has chosen; None: nobody has."""
    if seen["problem"]:
        return "correct the entry and merge; until then nothing is changed"
    if seen["pauses"]:
        scope, until = max(((_of(one, "scope"), _of(one, "until")) for one in seen["pauses"]), key=lambda one: one[1])
        return f"nothing until {when(until)}; `reconciler resume {scope}` ends the pause"
    if seen["break_glass"]:
        scope, until = _of(seen["break_glass"], "scope"), _of(seen["break_glass"], "until")
        return f"nothing until {when(until)}; `reconciler break-glass close {scope}` ends the session"
    if seen["hold"] and _of(seen["hold"], "reason") == "AfterBreakGlass":
        return "a look at the unit, at its next check or by `reconciler reconcile`; a plan that changes nothing lets applies through"
    return None


def _by_itself(seen: Answer) -> str:
    if seen["queued"]:
        return f"a job, when it is its turn; it waits since {when(_of(seen['queued'], 'since'))}: {_of(seen['queued'], 'message')}"
    if seen["failure"]:
        again = seen["failure"]["retry_at"]
        soon = f"at {when(again)}, or when its input changes" if again else "when its input changes, and not before"
        return f"it is tried again {soon}; `reconciler logs {seen['failure']['job']}` has the output"
    if seen["hold"]:
        return "it goes on by itself when what holds it is over"
    if seen["sync"] == "Synced":
        return f"a look for drift at {when(seen['next_check'])}" if seen["next_check"] else "nothing"
    return "a job, as soon as it is its turn"


def _of(fact: Any, name: str) -> Any:
    """A field of a fact, or of what was made of it for an answer."""
    return fact[name] if isinstance(fact, Mapping) else getattr(fact, name)


def told(action: str, body: Answer) -> str:
    """A journaled event in a line."""
    match action:
        case "job-dispatched":
            job = body["dispatched"]["job"]
            return f"{job['operation']} at {short(job['commit'])} because of {body['dispatched']['cause']}, job {job['id']}"
        case "job-ended":
            result = body["result"]
            words = [result["outcome"], result["reason"], result["message"], f"(job {result['job']['id']})"]
            return " ".join(word for word in words if word)
        case "hold-changed" | "frozen":
            hold = body["hold"]
            return f"{hold['reason']}: {hold['message']}" if hold else "no hold any more"
        case "paused":
            return f"until {when(body['pause']['until'])}: {body['pause']['reason']}"
        case "history-accepted" | "head-accepted":
            return _head(body)
        case "check-scheduled":
            return when(body["next_check"])
        case "reconcile-requested":
            return f"{len(body['units'])} units"
        case "pull-shown":
            return f"pull request {body['pull']} at {short(body['head'])}: {body['reason']} {body['message']}"
        case "out-of-band":
            return written(body["change"])
        case _:
            return _rarely(action, body)


def written(change: Answer) -> str:
    """What somebody else wrote in an account, in a line: as the journal or the API has it."""
    times = f"{change['count']} calls" if change["count"] > 1 else "one call"
    what = ", ".join([*change["calls"][:5], *(["..."] if len(change["calls"]) > 5 else [])])
    of = f" of {', '.join(change['objects'][:5])}" if change["objects"] else ""
    role = " (break-glass)" if change["break_glass"] else ""
    event = f"; CloudTrail's event {change['event']}" if change["event"] else ""
    return f"{change['principal']}{role} wrote in {change['account']}: {times} ({what}){of}, last at {when(change['until'])}{event}"


def _rarely(action: str, body: Answer) -> str:
    if action in ("break-glass-opened", "break-glass-closed", "loss-accepted"):
        return _by_hand(body)
    return _began(body) if action in ("started", "restored") else ""


def _by_hand(body: Answer) -> str:
    if "session" not in body:
        return f"what was done by hand in {len(body['units'])} units may be put back: {body['reason']}"
    session = body["session"]
    if "actor" in body:
        return f"the session of {session['owner']}, by {body['actor']}: {session['reason']}"
    return f"by {session['owner']} until {when(session['until'])}: {session['reason']}"


def _began(body: Answer) -> str:
    if "backup" in body:
        return f"from the backup of {when(body['taken_at'])}"
    return f"version {body['version']}, fence {body['fence']}"


def _head(body: Answer) -> str:
    if "commit" in body:
        return short(body["commit"])
    return f"{short(body['new'])} in place of {short(body['old'])}: {body['reason']}"


def job_of(action: str, body: Answer) -> str:
    """The job that the event is about; empty where it is about none."""
    if action in ("job-dispatched", "job-ended"):
        return str(body["dispatched"]["job"]["id"])
    return str(body.get("job") or "") if action == "pull-shown" else ""
