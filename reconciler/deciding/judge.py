"""What a plan may do: the one pure judgement between a plan and its apply."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.model import Allowances, Cause, Change, Hold, Limits, PlanSummary, Presence, ReviewMode

REVIEW = frozenset({"PlanExceedsReview", "ReviewMissing"})  # what another reviewed merge may end
MOST_NAMED = 5  # addresses that a message names before it counts the rest


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one apply of one unit may do.

    `open` are the allowances that are open now. `tainted` are the objects that the unit's own unfinished apply left
    tainted: their replacement is not counted. `corrected` is the change set of the last successful correction, where no empty plan came after it.
    `adopting`: the state that the unit takes over by this plan, or has taken over and not been in order with since.
    """

    limits: Limits
    open: Allowances
    presence: Presence
    max_destroy: int | None = None
    tainted: frozenset[str] = frozenset()
    corrected: str | None = None
    adopting: str | None = None


def judge(plan: PlanSummary, bounds: Bounds, cause: Cause, path: str) -> Hold | None:
    """Why the plan may not be applied, if so. `path` is the entry's, for the remedy."""
    return (
        _perpetual(plan, bounds, cause)
        or _adopts(plan, bounds)
        or _recreates(plan, bounds)
        or _destroys(plan, bounds, path)
    )


@dataclass(frozen=True, slots=True)
class Shown:
    """What people were shown when they approved the pull request that brought the change.

    `follows`: not everything could be known then, because it follows what others bring about. `moved_on`: it is what an
    earlier push of that pull request would have done, and the last one was not planned before it was merged. `also`: more
    pull requests that were merged with it and not seen together; `changes` are those of all of them.
    """

    pull: int
    changes: tuple[Change, ...]
    follows: bool = False
    moved_on: bool = False
    also: tuple[int, ...] = ()


_REVIEWED = (Cause.DESIRED, Cause.CATALOG)  # the causes that a pull request brings; the others were never in one


def judge_review(
    plan: PlanSummary, shown: Shown | None, mode: ReviewMode, cause: Cause, path: str, *,
    drifted: frozenset[str] = frozenset(), tainted: frozenset[str] = frozenset(),
) -> Hold | None:  # fmt: skip
    """Why a plan may not be applied because of what its review showed, or because there was none.

    `drifted` are the objects that refresh found changed; `tainted` those that the unit's own unfinished apply left so.
    """
    if mode is ReviewMode.OFF or cause not in _REVIEWED or not plan.changes:
        return None
    again = f"Open a pull request that touches {path} (a comment will do), and merge it once its plan is shown"
    if mode is ReviewMode.REQUIRED and (shown is None or shown.moved_on):
        what = "Nobody was shown what this does before it was merged, and review is required"
        return Hold("ReviewMissing", f"{what}: {_names(plan.changes)}. {again}.")
    beyond = () if shown is None else exceeding(plan, shown, drifted, tainted)
    if shown is None or not beyond:
        return None
    words = [f"{change.address} ({', '.join(change.actions)})" for change in beyond[:MOST_NAMED]]
    more = f" and {len(beyond) - MOST_NAMED} more" if len(beyond) > MOST_NAMED else ""
    what = f"The plan does what {_whose(shown)} did not show: {', '.join(words)}{more}"
    return Hold("PlanExceedsReview", f"{what}. {again}.")


def _whose(shown: Shown) -> str:
    if shown.also:
        numbers = ", ".join(f"#{one}" for one in (shown.pull, *shown.also))
        return f"the reviews of pull requests {numbers}, which were merged without a plan of them together,"
    return f"{'an earlier push' if shown.moved_on else 'the review'} of pull request #{shown.pull}"


def judge_letting_go(shown: Shown | None, mode: ReviewMode, cause: Cause, path: str) -> Hold | None:
    """Why a unit's objects may not be let go, though no object changes by it: the review was of an entry that keeps them."""
    if mode is ReviewMode.OFF or cause not in _REVIEWED or (shown is not None and not shown.moved_on):
        return None
    again = f"Open a pull request that touches {path} (a comment will do), and merge it once it is shown"
    if shown is not None:
        what = f"An earlier push of pull request #{shown.pull}, which was shown last, did not let the unit's objects go"
        return Hold("PlanExceedsReview", f"{what}. {again}.")
    if mode is ReviewMode.REQUIRED:
        what = "Nobody was shown before it was merged that the unit's objects are let go, and review is required"
        return Hold("ReviewMissing", f"{what}. {again}.")
    return None


def exceeding(plan: PlanSummary, shown: Shown, drifted: frozenset[str], tainted: frozenset[str]) -> tuple[Change, ...]:
    """The changes that the review did not show and that nothing else explains."""
    known: dict[str, list[Change]] = {}
    for one in shown.changes:  # an object that a replacement left behind has its successor's address
        known.setdefault(one.address, []).append(one)
    missing = frozenset(plan.missing)
    return tuple(
        change
        for change in plan.changes
        if not any(_as_shown(change, one, tainted) for one in known.get(change.address, ()))
        and not _follows(change, shown)
        and not _corrects(change, drifted, missing)
    )


def _as_shown(change: Change, shown: Change, tainted: frozenset[str]) -> bool:
    """The same actions; or the rest of a replacement whose first half has been done, by the unit's own apply or not."""
    now, then = frozenset(change.actions), frozenset(shown.actions)
    if now == then:
        return (change.reason == "import") == (shown.reason == "import")
    if shown.replaces:
        return now == {"create"}
    own = change.reason == "replace_because_tainted" and change.address in tainted
    return own and change.replaces and "create" in then


def _follows(change: Change, shown: Shown) -> bool:
    """What follows another unit may come into being, and change; it may not go."""
    return shown.follows and change.actions in (("create",), ("update",))


def _corrects(change: Change, drifted: frozenset[str], missing: frozenset[str]) -> bool:
    """What was changed, or removed, behind the reviewer's back becomes again what the reviewed entry says."""
    updated = change.actions == ("update",) and change.address in drifted
    return updated or (change.actions == ("create",) and change.address in missing)


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


def _adopts(plan: PlanSummary, bounds: Bounds) -> Hold | None:
    """What is being taken over neither goes nor is made anew by it, whatever limits and allowances say."""
    if bounds.adopting is not None:
        return judge_adoption(plan, bounds.adopting)
    doomed = tuple(one.address for one in plan.changes if one.destroys and one.reason == "import")
    what = "The plan destroys or replaces what it takes over by `import`"
    return Hold("AdoptionDestroys", f"{what}: {_listed(doomed)}. {_UNTOUCHED}.") if doomed else None


def judge_adoption(plan: PlanSummary, source: str) -> Hold | None:
    """Why the first plan of a state that others made may not be applied, if so. `source`: where that is."""
    doomed = tuple(one.address for one in plan.changes if one.destroys)
    if doomed:
        what = f"The first plan of what is adopted from {source} destroys or replaces objects"
        return Hold("AdoptionDestroys", f"{what}: {_listed(doomed)}. {_UNTOUCHED}.")
    if not plan.missing:
        return None
    what = f"{source} has objects that are not there any more, and adopting it would make them anew"
    how = "Is it the right state, region and account? If they are gone for good, take them out of that state first"
    return Hold("AdoptionDestroys", f"{what}: {_listed(plan.missing)}. {how} (`state rm`).")


_UNTOUCHED = (
    "No allowance lets that happen: mend the inputs or the module (a `moved` block says where an object went, ignore_changes what may differ), "
    "or take what is not to be adopted out first"
)


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
    return _listed(tuple(change.address for change in changes))


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
