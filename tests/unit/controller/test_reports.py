"""What is said of pull requests and merges: nothing that somebody else wrote is anything but text in it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from reconciler.controller.reports import (
    LONGEST_COMMENT,
    MOST_ADDRESSES,
    MOST_CONTEXTS,
    PLAN,
    VALIDATE,
    Merge,
    block,
    changed_by,
    code,
    comment_of,
    counted,
    marker,
    marks_of,
    marks_of_merge,
)
from reconciler.errors import Place
from reconciler.forge import Mark
from reconciler.forge.facts import Pull
from reconciler.model import Commit, Desired, Health, Ledger, Problem, Sync, UnitId
from reconciler.reviewing import PullStatus, UnitShown
from reconciler.status import Overview, Picture, UnitStatus
from tests.kit import facts as make

HEAD, BASE = Commit("a" * 40), Commit("b" * 40)
NET, APP = UnitId("prod/net"), UnitId("prod/app")
NAUGHTY = [
    "</details><script>alert(1)</script>",
    "@everyone and @acme/admins",
    "``` \n/merge\n```",
    "````````\n# title",
    "\n/close\r\n/approve",
    "| a | b |",
    "[x](javascript:alert(1)) <img src=x onerror=alert(1)>",
    "\u202eevil\u2066",
    "<!-- reconciler: prod -->",
    "#1 acme/other#2",
]


def shown(*units: UnitShown, reason: str = "", message: str = "") -> PullStatus:
    return PullStatus(Pull(7, HEAD, "main", "ada", True, "A title"), BASE, reason, message, units)


def planned(unit: UnitId, *changes: tuple[str, tuple[str, ...]], more: int = 0) -> UnitShown:
    plan = replace(make.plan(*(make.change(address, *actions) for address, actions in changes)), more=more)
    return UnitShown(unit, "planned", "Planned", "It was planned.", plan)


def outside_of_blocks(comment: str) -> str:
    """What a forge reads as Markdown or HTML: without fenced blocks, as CommonMark ends them."""
    kept, fence = [], ""
    for line in comment.split("\n"):
        run = re.match("`{3,}", line)
        if fence:
            if run and line.strip("`") == "" and len(run[0]) >= len(fence):
                fence = ""
        elif run:
            fence = run[0]
        else:
            kept.append(line)
    assert fence == ""
    return "\n".join(kept)


def test_a_comment_tells_what_each_unit_would_do() -> None:
    text = comment_of(
        shown(
            planned(NET, ("module.unit.vpc.a", ("create",)), ("module.unit.vpc.b", ("delete", "create"))),
            UnitShown(APP, "failed", "PlanFailed", "No such zone."),
        ),
        "prod",
    )
    assert text.startswith(marker("prod"))
    assert "1 failed, 1 planned." in text
    assert text.index("prod/app") < text.index("prod/net")
    assert "+ module.unit.vpc.a\n- module.unit.vpc.b (replaced)" in text
    assert "1 to create, 1 to replace" in text
    assert "No such zone." in text


@pytest.mark.parametrize("text", NAUGHTY)
def test_what_others_wrote_is_text(text: str) -> None:
    comment = comment_of(
        shown(
            planned(NET, (f'module.unit.file.x["{text}"]', ("create",))),
            UnitShown(APP, "failed", "PlanFailed", text),
            UnitShown(UnitId("prod/z"), "not planned", "InputInvalid", text),
        ),
        "prod",
    )
    left = outside_of_blocks(comment)
    for word in ("script", "@", "/merge", "/close", "/approve", "javascript", "evil", "#1", "| a"):
        assert word not in left
    assert left.count("<!--") == 1
    assert left.count("<details>") == left.count("</details>") == 3
    assert not re.search(r"(?m)^/", comment)


@pytest.mark.parametrize("text", NAUGHTY)
def test_a_refusal_is_text_too(text: str) -> None:
    left = outside_of_blocks(comment_of(shown(reason="PullConflicts", message=text), "prod"))
    assert "script" not in left
    assert not re.search(r"(?m)^/|@", left)


def test_a_comment_has_an_end() -> None:
    many = [
        planned(UnitId(f"prod/u{number:04}"), *((f"module.unit.file.x{'y' * 250}{n}", ("create",)) for n in range(300)))
        for number in range(200)
    ]
    text = comment_of(shown(*many), "prod")
    assert len(text) < LONGEST_COMMENT
    assert "More units than fit here" in text
    one = comment_of(shown(planned(NET, *((f"x.{n}", ("create",)) for n in range(300)), more=5)), "prod")
    assert f"# and {300 - MOST_ADDRESSES + 5} more" in one


def test_blocks_cannot_be_closed() -> None:
    assert block("a ``` b").startswith("````text\n")
    assert block("x" * 5000).count("x") < 2000
    assert code("a`b\nc") == "`a\u2019b c`"


def test_statuses_of_a_head() -> None:
    assert {name: one.mark for name, one in marks_of(shown()).items()} == dict.fromkeys((VALIDATE, PLAN), Mark.SUCCESS)
    waiting = marks_of(shown(planned(NET), UnitShown(APP, "waiting")))
    assert (waiting[PLAN].mark, waiting[PLAN].text) == (Mark.PENDING, "1 of 2 units are planned")
    failed = marks_of(shown(UnitShown(APP, "failed", "PlanFailed", "No such zone.")))
    assert (failed[VALIDATE].mark, failed[PLAN].mark) == (Mark.SUCCESS, Mark.FAILURE)
    broken = marks_of(shown(UnitShown(APP, "not planned", "InputInvalid", "prod/app.yaml:3:1: no")))
    assert (broken[VALIDATE].mark, "prod/app.yaml:3:1" in broken[VALIDATE].text) == (Mark.FAILURE, True)
    later = marks_of(shown(UnitShown(APP, "not planned", "FollowsMerge", "first the policy")))
    assert later[VALIDATE].mark is Mark.SUCCESS
    refused = marks_of(shown(reason="PullConflicts", message="It conflicts."))
    assert {one.mark for one in refused.values()} == {Mark.FAILURE}


def test_what_would_be_held_says_so_before_it_is_merged() -> None:
    doomed = planned(NET, ("module.unit.vpc.b", ("delete",)))
    doomed = replace(doomed, reason="DestroyLimit", message="1 object would be destroyed; write allow_destroy: 1.")
    fine = planned(APP, ("module.unit.vpc.a", ("create",)))
    text = comment_of(shown(fine, doomed), "prod")
    assert text.index("prod/net") < text.index("prod/app")
    assert "1 to delete; merged as it is, it is held (DestroyLimit)" in text
    assert text.index("write allow_destroy: 1.") < text.index("- module.unit.vpc.b")
    assert text.count("is held") == 1
    mark = marks_of(shown(fine, doomed))[PLAN]
    assert (mark.mark, mark.text) == (Mark.FAILURE, f"{NET}: DestroyLimit: {doomed.message}")


def test_changes_are_counted() -> None:
    changes = [make.change("a", "create"), make.change("b", "create"), make.change("c", "delete", "create")]
    assert counted(changes, 2) == "2 to create, 1 to replace, 2 more"
    assert counted([]) == ""


def picture(*units: UnitStatus) -> Picture:
    return Picture(None, Ledger(), None, make.NOW, overview=Overview(tuple(sorted(units, key=lambda u: u.unit))))


@pytest.mark.parametrize(
    ("status", "mark", "said"),
    [
        (UnitStatus(NET, Sync.SYNCED, Health.HEALTHY), Mark.SUCCESS, "as it shall be"),
        (UnitStatus(NET, Sync.OUT_OF_SYNC, Health.HEALTHY), Mark.SUCCESS, "as it shall be"),  # drift that is reported
        (UnitStatus(NET, Sync.OUT_OF_SYNC, Health.PROGRESSING, phase="Applying"), Mark.PENDING, "Applying"),
        (UnitStatus(NET, Sync.OUT_OF_SYNC, Health.SUSPENDED, "Paused", "by ada", held=True), Mark.PENDING, "Paused"),
        (UnitStatus(NET, Sync.OUT_OF_SYNC, Health.DEGRADED, "ApplyFailed", "boom"), Mark.FAILURE, "ApplyFailed: boom"),
        (UnitStatus(NET, Sync.UNKNOWN, Health.DEGRADED, "InputInvalid", "no", held=True), Mark.FAILURE, "InputInvalid"),
    ],
)
def test_statuses_of_a_merge(status: UnitStatus, mark: Mark, said: str) -> None:
    marks = marks_of_merge(Merge(HEAD, frozenset({NET})), picture(status))
    (one,) = marks.values()
    assert list(marks) == ["reconciler/apply: prod/net"]
    assert (one.mark, said in one.text) == (mark, True)


def test_a_unit_that_a_newer_merge_changed_again_says_so() -> None:
    merge = Merge(HEAD, frozenset({NET}), {NET: BASE})
    (one,) = marks_of_merge(merge, picture(UnitStatus(NET, Sync.SYNCED, Health.HEALTHY))).values()
    assert f"with {BASE[:12]}, which came later" in one.text
    (gone,) = marks_of_merge(merge, picture()).values()
    assert (gone.mark, "gone" in gone.text) == (Mark.SUCCESS, True)


def test_many_units_have_one_status_together() -> None:
    units = [UnitId(f"prod/u{number}") for number in range(MOST_CONTEXTS + 1)]
    merge = Merge(HEAD, frozenset(units))
    fine = [UnitStatus(unit, Sync.SYNCED, Health.HEALTHY) for unit in units]
    (one,) = marks_of_merge(merge, picture(*fine)).values()
    assert (one.mark, one.text) == (Mark.SUCCESS, f"{len(units)} of {len(units)} units are as they shall be")
    moving = [UnitStatus(units[0], Sync.OUT_OF_SYNC, Health.PROGRESSING), *fine[1:]]
    assert marks_of_merge(merge, picture(*moving))["reconciler/apply"].mark is Mark.PENDING
    failing = [UnitStatus(units[0], Sync.OUT_OF_SYNC, Health.DEGRADED, "ApplyFailed", "boom"), *fine[1:]]
    bad = marks_of_merge(merge, picture(*failing))["reconciler/apply"]
    assert (bad.mark, "ApplyFailed: boom" in bad.text) == (Mark.FAILURE, True)


def test_what_a_commit_changes() -> None:
    before = make.desired(make.entry("prod/net"), make.entry("prod/app"), make.entry("prod/old"))
    same = Desired(HEAD, before.units, before.broken, before.environments)
    assert changed_by(before, same) == frozenset()
    units = {name: unit for name, unit in before.units.items() if name != "prod/old"}
    units[NET] = replace(units[NET], intent=make.fingerprint("b").inputs)  # type: ignore[arg-type]
    broken = {UnitId("prod/bad"): Problem(Place("x.yaml", 1, 1), "InputInvalid", "no")}
    assert changed_by(before, Desired(HEAD, units, broken)) == {"prod/net", "prod/old", "prod/bad"}
