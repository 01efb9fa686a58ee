"""What a plan may do: the one pure judgement between a plan and its apply."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.model import Allowances, Cause, Change, Hold, Limits, PlanSummary, Presence

MOST_NAMED = 5  # addresses that a message names before it counts the rest


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one apply of one unit may do.

    `open` are the allowances that are open now. `tainted` are the objects that the unit's own unfinished apply left
    tainted: their replacement is not counted. `corrected` is the change set of the last successful correction, where no empty plan came after it.
    """

    limits: Limits
    open: Allowances
    presence: Presence
    max_destroy: int | None = None
    tainted: frozenset[str] = frozenset()
    corrected: str | None = None


def judge(plan: PlanSummary, bounds: Bounds, cause: Cause, path: str) -> Hold | None:
    """Why the plan may not be applied, if so. `path` is the entry's, for the remedy."""
    return _perpetual(plan, bounds, cause) or _recreates(plan, bounds) or _destroys(plan, bounds, path)


def counted(plan: PlanSummary, bounds: Bounds) -> tuple[Change, ...]:
    """The destructions and replacements that need a limit or an allowance."""
    return tuple(c for c in plan.changes if c.destroys and not _free(c, bounds))


def _free(change: Change, bounds: Bounds) -> bool:
    if not change.replaces:
        return False
    own = change.reason == "replace_because_tainted" and change.address in bounds.tainted
    asked = change.reason == "replace_by_request" and change.address.removeprefix("module.unit.") in bounds.open.replace
    return own or asked or change.type in bounds.limits.free_replace


def _perpetual(plan: PlanSummary, bounds: Bounds, cause: Cause) -> Hold | None:
    if cause is not Cause.DRIFT or plan.digest != bounds.corrected or plan.empty:
        return None
    what = "The same change came back right after it was applied"
    remedy = "mend the module, or let the attribute that differs be ignored there (lifecycle.ignore_changes)"
    return Hold("PerpetualDiff", f"{what}: {_names(plan.changes)}. No more applies until it changes; {remedy}.")


def _recreates(plan: PlanSummary, bounds: Bounds) -> Hold | None:
    gone, limit = len(plan.missing), bounds.limits.recreate
    if gone <= limit or bounds.presence is not Presence.PRESENT:
        return None
    what = f"{gone} objects of the state are not there any more, and limits.recreate is {limit}"
    return Hold("RecreateLimit", f"{what}. Is it the right region and account? If so, raise limits.recreate.")


def _destroys(plan: PlanSummary, bounds: Bounds, path: str) -> Hold | None:
    most = bounds.max_destroy
    capped = counted(plan, replace(bounds, open=Allowances()))  # no allowance goes beyond the host's, `replace` neither
    if most is not None and len(capped) > most:
        what = f"The plan destroys or replaces {len(capped)} objects and {most} are allowed: {_names(capped)}"
        return Hold("DestroyLimit", f"{what}. The host's max_destroy is {most}; no entry goes beyond it.")
    doomed = counted(plan, bounds)
    allowed = max(bounds.limits.destroy, bounds.open.destroy)
    if len(doomed) <= allowed:
        return None
    what = f"The plan destroys or replaces {len(doomed)} objects and {allowed} are allowed: {_names(doomed)}"
    return Hold("DestroyLimit", f"{what}. If that is meant, write `allow_destroy: {len(doomed)}` in {path}.")


def _names(changes: tuple[Change, ...]) -> str:
    names = [change.address for change in changes[:MOST_NAMED]]
    more = len(changes) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
