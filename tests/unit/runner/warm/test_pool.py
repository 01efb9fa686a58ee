"""Which worker a job gets, which is made, and which is let go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.runner.warm.pool import AGAIN, FAILURES, IN_VAIN, PAUSE, SPARE, Lend, Limits, Make, Pool, Refuse, Stage

LIMITS = Limits(workers=2, jobs=3, age=100.0, idle=50.0, memory=1000)
LONG = 10 * AGAIN


@pytest.fixture
def pool() -> Pool:
    return Pool(LIMITS)


def made(pool: Pool, key: str = "a", now: float = 0.0) -> int:
    """A worker that was made for the second job that asks, and is lent to it."""
    assert pool.ask(key, "w", now) == Refuse("first")
    answer = pool.ask(key, "w", now)
    assert isinstance(answer, Make)
    return answer.number


def idle(pool: Pool, key: str = "a", now: float = 0.0) -> int:
    number = made(pool, key, now)
    assert pool.back(number, now, whole=True, memory=0)
    pool.cleaned(number, now)
    return number


def test_a_worker_is_made_for_who_asks_again_and_lent_to_the_next(pool: Pool) -> None:
    number = idle(pool)
    assert pool.ask("a", "w", 1.0) == Lend(number)
    assert pool.ask("a", "w", 1.0) == Make(number + 1)
    assert pool.ask("a", "w", 1.0) == Refuse("busy")


def test_none_is_made_for_who_asks_seldom(pool: Pool) -> None:
    assert pool.ask("a", "w", 0.0) == Refuse("first")
    assert pool.ask("a", "w", AGAIN + 1) == Refuse("first")
    assert isinstance(pool.ask("a", "w", 2 * AGAIN), Make)


def test_no_key_gets_a_worker_of_another(pool: Pool) -> None:
    number = idle(pool)
    assert pool.ask("b", "w", 1.0) == Refuse("first")
    assert pool.ask("b", "w", 1.0) == Make(number + 1)


def test_one_that_is_being_cleaned_is_lent_to_nobody(pool: Pool) -> None:
    number = made(pool)
    assert pool.back(number, 1.0, whole=True, memory=0)
    assert pool.ask("a", "w", 1.0) == Make(number + 1)


def test_the_one_that_was_used_last_is_lent_first(pool: Pool) -> None:
    first = made(pool)
    second = pool.ask("a", "w", 0.0)
    assert isinstance(second, Make)
    for now, number in ((1.0, second.number), (2.0, first)):
        assert pool.back(number, now, whole=True, memory=0)
        pool.cleaned(number, now)
    assert pool.ask("a", "w", 3.0) == Lend(first)


def test_another_key_takes_the_place_of_what_is_idle_for_a_while(pool: Pool) -> None:
    older, newer = idle(pool, "a"), idle(pool, "b", 1.0)
    assert pool.ask("c", "w", 2.0) == Refuse("first")
    assert pool.ask("c", "w", 2.0) == Refuse("busy")
    assert pool.ask("c", "w", SPARE) == Make(newer + 1, instead=older)
    pool.gone(older, SPARE, asked=True)
    assert set(pool.members) == {newer, newer + 1}


@pytest.mark.parametrize(("now", "jobs", "memory"), [(100.0, 0, 0), (0.0, 2, 0), (0.0, 0, 1001)])
def test_one_that_is_old_worn_or_large_is_ended_after_its_job(pool: Pool, now: float, jobs: int, memory: int) -> None:
    number = made(pool)
    pool.members[number].jobs = jobs
    assert not pool.back(number, now, whole=True, memory=memory)
    assert pool.counts["recycled"] == 1


def test_one_that_did_not_do_what_it_was_asked_to_is_ended(pool: Pool) -> None:
    assert not pool.back(made(pool), 0.0, whole=False, memory=0)
    assert pool.counts["recycled"] == 0


def test_what_nobody_uses_is_due(pool: Pool) -> None:
    number = idle(pool)
    assert pool.due(49.0) == []
    assert pool.due(50.0) == [number]
    assert isinstance(pool.ask("a", "w", 60.0), Lend)
    assert pool.due(LONG) == []
    assert pool.members[number].stage is Stage.LENT


def test_what_is_too_old_is_due_although_it_is_used(pool: Pool) -> None:
    number = idle(pool)
    pool.ask("a", "w", 90.0)
    assert pool.back(number, 90.0, whole=True, memory=0)
    pool.cleaned(number, 99.0)
    assert pool.due(100.0) == [number]


def test_workers_that_die_before_they_do_anything_are_not_made_for_a_while(pool: Pool) -> None:
    for _ in range(FAILURES):
        number = made(pool) if not pool.counts["made"] else pool.ask("a", "w", 0.0)
        pool.gone(number if isinstance(number, int) else next(iter(pool.members)), 0.0, asked=False)
    assert pool.counts["died"] == FAILURES
    assert pool.ask("a", "w", 1.0) == Refuse("failing")
    assert pool.ask("a", "w", PAUSE - 1) == Refuse("failing")
    assert isinstance(pool.ask("a", "w", PAUSE), Make)


def test_one_that_dies_after_a_job_is_no_such_failure(pool: Pool) -> None:
    for _ in range(FAILURES + 1):
        number = idle(pool)
        pool.gone(number, 0.0, asked=False)
        pool._asked.clear()
    assert pool.counts["died"] == FAILURES + 1
    assert pool.ask("a", "w", 0.0) == Refuse("first")
    assert isinstance(pool.ask("a", "w", 0.0), Make)


def test_what_no_worker_could_do_is_not_tried_again_for_a_while(pool: Pool) -> None:
    number = idle(pool)
    pool.fell_back("a", "w", 0.0, lost=False)
    assert pool.ask("a", "w", IN_VAIN - 1) == Refuse("in_vain")
    assert pool.ask("a", "other", 0.0) == Lend(number)
    assert pool.ask("a", "w", IN_VAIN) != Refuse("in_vain")


def test_who_has_lost_a_worker_may_try_once_more(pool: Pool) -> None:
    number = idle(pool)
    pool.fell_back("a", "w", 0.0, lost=True)
    assert pool.ask("a", "w", 1.0) == Lend(number)
    pool.fell_back("a", "w", 1.0, lost=True)
    assert pool.ask("a", "w", 1.0) == Refuse("in_vain")
    assert pool.ask("a", "other", 1.0) != Refuse("in_vain")


def test_who_is_gone_is_gone_once(pool: Pool) -> None:
    number = made(pool)
    pool.gone(number, 0.0, asked=True)
    pool.gone(number, 0.0, asked=False)
    assert (pool.members, pool.counts["died"]) == ({}, 0)


def test_keys_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(replace(LIMITS, workers=1))
    for number in range(1500):
        pool.ask(str(number), "w", 0.0)
    assert len(pool._asked) == 1000
