"""`reconciler explain UNIT`."""

from __future__ import annotations

import click

from reconciler.cli.ask import Answer, Api, complete_units, output_option, server_option
from reconciler.cli.show import as_json_text, line, named_pull, short, table, when
from reconciler.errors import ReconcilerError
from reconciler.web.sentences import next_step, written


@click.command("explain")
@click.argument("unit", shell_complete=complete_units)
@server_option
@output_option
def command(unit: str, server: str, as_json: bool) -> None:
    """Why UNIT is as it is, and what happens next: its entry, what was applied, what holds it, what it depends on."""
    with Api(server) as api:
        seen = api.get(f"/api/v1/units/{unit}")
        undo = _undo(api, unit) if seen["desired"] or seen["problem"] else None
    if as_json:
        as_json_text({**seen, "undo": undo})
        return
    line("Unit", seen["unit"])
    line("Status", seen["sync"], seen["health"], seen["reason"], seen["message"])
    _sides(seen)
    _doing(seen)
    for name, label in (("dependencies", "Depends on"), ("dependents", "Followed by")):
        if seen[name]:
            print(f"\n{label}:")
            table(("UNIT", "SYNC", "HEALTH", "REASON"), [_row(one) for one in seen[name]])
    line("Next", next_step(seen))
    if undo:
        line("To undo", undo, "- what changed its entry last; merge it as any other change")


def _undo(api: Api, unit: str) -> str | None:
    """The exact `git revert`; None where the daemon cannot tell now: the rest is worth more than this line."""
    try:
        return api.get(f"/api/v1/units/{unit}/undo").get("command")
    except ReconcilerError:
        return None


def _sides(seen: Answer) -> None:
    desired, applied = seen["desired"], seen["applied"]
    if desired:
        line("Desired", f"{desired['module']} {desired['version']}", desired["state"], desired["file"])
        line("Commit", short(desired["commit"]), *_came(seen, "desired"))
    if applied:
        said = f"{applied['module']} {applied['version']} {applied['state']}"
        line("Applied", said, f"at {short(applied['commit'])} on {when(applied['at'])} by job {applied['job']}")
        if came := _came(seen, "applied"):
            line("", *came)
    if seen["differs"]:
        line("Differs in", ", ".join(seen["differs"]))
    if seen["unexplained"]:
        found = seen["unexplained"]["found"]
        line(
            "ALARM", f"serial {found['serial']} of the state was made by no job; `reconciler audit show {seen['unit']}`"
        )
    for stray in seen["strays"]:
        line("ORPHAN?", stray["type"], stray["address"], stray["id"], stray["region"], f"- {stray['remedy']}")
    _by_others(seen)


def _by_others(seen: Answer) -> None:
    """What was done besides merges: by hand, by somebody else, by nobody knows whom."""
    if seen["break_glass"]:
        one = seen["break_glass"]
        said = f"by {one['owner']} until {when(one['until'])}: {one['reason']}"
        line("BREAK-GLASS", one["scope"], "since", when(one["since"]), said)
    if seen["aftermath"]:
        line("By hand", _after(seen["aftermath"]))
    for change in seen["out_of_band"]["changes"] if seen["out_of_band"] else ():
        line("OUT OF BAND", written(change))
    if seen["drift_since"]:
        line("Drifting", "since", when(seen["drift_since"]))


def _after(mark: Answer) -> str:
    session = mark["session"]
    by = f"{session['owner']} until {when(mark['ended_at'])}: {session['reason']}"
    looked = "planned since, and not in sync" if mark["looked"] else "not planned since"
    return f"{by}; {looked}{'; an admin lets it be put back' if mark['accepted'] else ''}"


def _came(seen: Answer, side: str) -> list[str]:
    """By which pull request a side's commit came, who approved it, and who signed."""
    one = (seen.get("trace") or {}).get(side) or {}
    pull, words = one.get("pull"), []
    if pull:
        by = f" by {one['author']}" if one["author"] else ""
        approved = f", approved by {', '.join(one['approvers'])}" if one["approvers"] else ""
        words.append(f"{named_pull(pull)}{by}{approved}")
    return [*words, *([f"signed by {one['signer']}"] if one.get("signer") else [])]


def _doing(seen: Answer) -> None:
    job, plan, failure, hold = seen["job"], seen["plan"], seen["failure"], seen["hold"]
    if job:
        line("Job", job["id"], job["operation"], f"because of {job['cause']}, since {when(job['at'])}")
    if seen["queued"]:
        line("Waits", "since", when(seen["queued"]["since"]), f"- {seen['queued']['message']}")
    if plan:
        pending = "waits to be applied" if plan["pending"] else "nothing of it waits"
        line("Last plan", f"{len(plan['changes'])} changes on {when(plan['at'])} by job {plan['job']}; {pending}")
    if failure:
        line("Failure", failure["outcome"], f"{failure['reason']} ({failure['count']} times, job {failure['job']})")
        line("", failure["message"])
    if hold and hold["message"] != seen["message"]:
        line("Held", hold["reason"], hold["message"])


def _row(one: Answer) -> list[str]:
    return [one["unit"], one["sync"], one["health"], one["reason"]]
