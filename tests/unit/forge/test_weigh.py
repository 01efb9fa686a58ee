"""Whose approval counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from reconciler.forge.dialect import Account, Opinion, weigh
from reconciler.model import Commit

HEAD = Commit("a" * 40)
BOB, CARL = Account(2, "bob"), Account(3, "carl")


def said(number: int, who: Account | None, *, approves: bool) -> Opinion:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    return Opinion(who, at, number, approves, HEAD if approves else None)


def counted(*opinions: Opinion) -> tuple[list[Account], list[str]]:
    return weigh(opinions, HEAD, (), lambda _: True)


def test_what_an_account_that_is_gone_withholds_may_be_anybodys_last_word() -> None:
    approvals = (said(1, BOB, approves=True), said(2, CARL, approves=True))
    assert counted(*approvals) == ([BOB, CARL], [])
    found, others = counted(*approvals, said(3, None, approves=False), said(4, CARL, approves=True))
    assert found == [CARL]
    assert others == ["bob approved before somebody whose account is gone withheld approval"]


def test_what_an_account_that_is_gone_approved_counts_for_nobody() -> None:
    assert counted(said(1, None, approves=True)) == ([], [])
    assert counted(said(1, None, approves=True), said(2, BOB, approves=True)) == ([BOB], [])
