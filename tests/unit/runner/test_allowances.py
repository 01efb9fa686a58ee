"""The life of an allowance."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Allowances, UnitId
from reconciler.runner.allowances import LIFE, NONE, Allowed, Lines, open_now, spend
from reconciler.runner.allowances import fold as fold_lines

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
UNIT, OTHER = UnitId("prod/a"), UnitId("prod/b")
TWO = Allowances(destroy=2)


def fold(
    known: Mapping[UnitId, Allowed], said: Mapping[UnitId, Allowances], at: datetime | None
) -> dict[UnitId, Allowed]:
    """A commit in which no entry is renamed."""
    return fold_lines(known, {unit: Lines(lines) for unit, lines in said.items()}, at)


def spent(known: Mapping[UnitId, Allowed], unit: UnitId = UNIT) -> dict[UnitId, Allowed]:
    """A successful apply that was judged with all that is open."""
    return spend(known, unit, known[unit].opened)


def test_a_line_opens_when_it_appears() -> None:
    known = fold({}, {UNIT: TWO}, NOW)
    assert known == {UNIT: Allowed(TWO, {"destroy": NOW})}
    assert open_now(known[UNIT], NOW) == TWO


def test_nothing_known_opens_nothing() -> None:
    assert open_now(None, NOW) == NONE


def test_where_trust_starts_lines_are_seen_and_open_nothing() -> None:
    known = fold({}, {UNIT: TWO}, None)
    assert open_now(known[UNIT], NOW) == NONE
    assert open_now(fold(known, {UNIT: TWO}, NOW)[UNIT], NOW) == NONE
    assert open_now(fold(known, {UNIT: Allowances(destroy=3)}, NOW)[UNIT], NOW) == Allowances(destroy=3)


def test_an_unchanged_line_keeps_its_age() -> None:
    known = fold(fold({}, {UNIT: TWO}, NOW), {UNIT: TWO}, LATER)
    assert known[UNIT].opened == {"destroy": NOW}


def test_a_changed_line_opens_anew_and_leaves_the_others_alone() -> None:
    known = fold(fold({}, {UNIT: Allowances(2, downgrade=True)}, NOW), {UNIT: Allowances(3, downgrade=True)}, LATER)
    assert known[UNIT].opened == {"destroy": LATER, "downgrade": NOW}


def test_it_ends_after_a_week() -> None:
    known = fold({}, {UNIT: TWO}, NOW)[UNIT]
    assert open_now(known, NOW + LIFE - timedelta(seconds=1)) == TWO
    assert open_now(known, NOW + LIFE) == NONE


def test_it_ends_with_the_next_successful_apply_of_that_unit() -> None:
    known = spent(fold({}, {UNIT: TWO, OTHER: TWO}, NOW))
    assert open_now(known[UNIT], NOW) == NONE
    assert open_now(known[OTHER], NOW) == TWO
    assert open_now(fold(known, {UNIT: TWO}, LATER)[UNIT], LATER) == NONE


def test_what_opened_after_the_apply_was_judged_stays_open() -> None:
    judged = fold({}, {UNIT: Allowances(2, downgrade=True)}, NOW)
    meanwhile = fold(judged, {UNIT: Allowances(3, downgrade=True)}, LATER)
    known = spend(meanwhile, UNIT, judged[UNIT].opened)
    assert known == {UNIT: Allowed(Allowances(3, downgrade=True), {"destroy": LATER})}


def test_a_renamed_entry_goes_on_with_what_its_old_name_said() -> None:
    known = spent(fold({}, {UNIT: TWO}, NOW))
    renamed = {UNIT: Lines(), OTHER: Lines(TWO, moved_from=UNIT)}
    assert fold_lines(known, renamed, LATER) == {OTHER: Allowed(TWO)}
    more = {UNIT: Lines(), OTHER: Lines(Allowances(destroy=3), moved_from=UNIT)}
    assert fold_lines(known, more, LATER) == {OTHER: Allowed(Allowances(destroy=3), {"destroy": LATER})}


def test_taken_out_and_put_back_it_opens_again() -> None:
    known = spent(fold({}, {UNIT: TWO}, NOW))
    known = fold(known, {UNIT: NONE}, NOW)
    assert known == {}
    assert open_now(fold(known, {UNIT: TWO}, LATER)[UNIT], LATER) == TWO


def test_a_line_that_becomes_its_default_closes() -> None:
    known = fold({}, {UNIT: Allowances(2, replace=("a.b",))}, NOW)
    assert fold(known, {UNIT: TWO}, LATER)[UNIT] == Allowed(TWO, {"destroy": NOW})


LINES = st.builds(
    Allowances, destroy=st.integers(0, 2), downgrade=st.booleans(), replace=st.sampled_from([(), ("a.b",)])
)


@given(st.lists(LINES, max_size=6), st.integers(0, 10))
def test_what_is_open_was_said_last(said: list[Allowances], days: int) -> None:
    known: dict[UnitId, Allowed] = {}
    for lines in said:
        known = fold(known, {UNIT: lines}, NOW)
    now_open = open_now(known.get(UNIT), NOW + timedelta(days=days))
    last = said[-1] if said else NONE
    for name in ("destroy", "downgrade", "replace"):
        assert getattr(now_open, name) in (getattr(last, name), getattr(NONE, name))
    if days >= 7:
        assert now_open == NONE
