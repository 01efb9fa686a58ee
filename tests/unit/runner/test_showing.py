"""What an open pull request would do, on a real engine; and what that binds an apply to after the merge."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.demo import example
from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground
from reconciler.errors import PassError
from reconciler.forge.facts import Merged, Protection, Pull
from reconciler.model import Commit, Digest, Operation, Outcome, PlanSummary, Result, UnitId
from reconciler.runner import reviews, showing
from reconciler.runner.host import Host
from reconciler.runner.talk import Talk
from tests.kit.estate import noted, old_state
from tests.kit.plane import CATALOG, NOTE, PROD, carry_out, ground, job, note, open_host, put

PULLS = [
    {"operations": ["plan", "apply"], "refs": "merged", "folders": ["environments/**"]},
    {"operations": ["plan"], "refs": "pulls", "folders": ["environments/prod/**"]},
]


@dataclass
class Desk:
    """A forge as a plane sees it: what is open, as the test says; and by which pull request each commit came."""

    pulls: dict[int, Pull] = field(default_factory=dict)
    came: dict[Commit, int] = field(default_factory=dict)
    asked: int = 0

    def open_pulls(self) -> tuple[Pull, ...]:
        self.asked += 1
        return tuple(self.pulls.values())

    def head_ref(self, number: int) -> str:
        return f"refs/heads/pull-{number}"

    def merged(self, commit: Commit) -> Merged:
        raise PassError("PullRequestMissing", f"{commit} came by none.")

    def protections(self) -> tuple[Protection, ...]:
        return ()


@dataclass
class Place:
    """A playground, a forge, and the runner's host, all in this process."""

    ground: Playground
    desk: Desk
    host: Host
    jobs: int = 0

    def push(self, number: int, files: Files, **words: object) -> Pull:
        """Push to a pull request that begins, or began, at the branch's head."""
        branch = f"pull-{number}"
        if number not in self.desk.pulls:
            self.ground.environments.point(branch, self.ground.environments.head)
        head = self.ground.environments.commit(files, f"Pull {number}", branch=branch)
        facts = {"base": "main", "author": "ada", "writes": True, "title": "A change"} | words
        self.desk.pulls[number] = Pull(number, head, **facts)  # type: ignore[arg-type]  # words are fields
        return self.desk.pulls[number]

    def merge(self, number: int) -> Commit:
        commit = self.ground.environments.merge_branch(f"pull-{number}")
        self.desk.came[commit] = number
        self.desk.pulls.pop(number, None)
        return commit

    def show(self, number: int, unit: str = "prod/a", **words: object) -> Result:
        """The job of a pull request."""
        self.jobs += 1
        asked = job(unit, self.desk.pulls[number].head, self.jobs, operation=Operation.PLAN)
        return carry_out(self.host, replace(asked, pull=number, **words))  # type: ignore[arg-type]  # words are fields

    def apply(self, unit: str = "prod/a") -> Result:
        self.jobs += 1
        return carry_out(self.host, job(unit, self.ground.environments.head, self.jobs))

    def memory(self) -> dict[str, bytes]:
        """All that is remembered besides reviews."""
        units = self.host.memory.folder / "units"
        return {str(path): path.read_bytes() for path in units.rglob("*.json")}


def place(folder: Path, entries: Files, allow: object = PULLS, **runner: object) -> Place:
    made = ground(folder, entries, allow=allow, **runner)
    host = open_host(made)
    desk = Desk()
    host.forge = desk
    host.history.pull_of = desk.came.get
    return Place(made, desk, host)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Place]:
    """One unit, prod/a, applied."""
    made = place(tmp_path, {"a": note()})
    assert made.apply().outcome is Outcome.SUCCEEDED
    yield made
    made.ground.close()


def test_what_would_be_adopted_is_planned_as_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "old.tfstate"
    put(source, old_state(noted(), noted("gone", name="extra", key="extra-id")))
    adopt = [{"local": {"path": str(source)}}]
    made = place(tmp_path, {"a": note()}, environments={"prod": {"adopt": adopt}})
    assert made.apply().outcome is Outcome.SUCCEEDED
    before = made.memory()
    made.push(1, {entry("b"): note(more=f"adopt: {{state: {source}}}\n")})
    shown = made.show(1, "prod/b")
    told = f"2 objects of {source} would be adopted; 1 objects would change. It would be held (AdoptionDestroys): The first"
    assert (shown.reason, shown.message[: len(told)]) == ("AdoptionDestroys", told)
    assert "module.unit.terraform_data.extra" in shown.message
    assert actions(shown) == [("delete",)]
    assert not made.ground.state("prod/b").exists()
    assert made.memory() == before
    made.ground.close()


def entry(name: str = "a") -> str:
    return f"{PROD}/{name}.yaml"


def actions(result: Result) -> list[tuple[str, ...]]:
    assert result.plan is not None
    return [change.actions for change in result.plan.changes]


# --- what is shown


def test_a_pull_request_is_planned_and_changes_nothing(one: Place) -> None:
    one.push(1, {entry(): note("two")})
    before = one.memory()
    result = one.show(1)
    assert (result.outcome, result.reason) == (Outcome.SUCCEEDED, "Planned")
    assert actions(result) == [("update",)]
    assert one.memory() == before
    (review,) = one.host.reviews.of(UnitId("prod/a"))
    assert (review.pull, review.head, review.follows) == (1, one.desk.pulls[1].head, False)
    assert b"two" not in (one.host.memory.folder / "reviews" / "prod" / "a.json").read_bytes()


def test_what_would_be_held_is_told_before_it_is_merged_and_how_to_mend_it(one: Place) -> None:
    gone = note(more="state: absent\n")
    one.push(1, {entry(): gone})
    shown = one.show(1)
    assert (shown.outcome, shown.reason) == (Outcome.SUCCEEDED, "DestroyLimit")
    assert "allow_destroy: 1" in shown.message
    assert actions(shown) == [("delete",)]
    one.merge(1)
    assert one.apply().reason == "DestroyLimit"
    one.push(2, {entry(): gone + "allow_destroy: 1\n"})
    assert one.show(2).reason == "Planned"
    one.merge(2)
    assert one.apply().outcome is Outcome.SUCCEEDED


def test_it_does_not_wait_for_the_unit_and_the_unit_does_not_wait_for_it(one: Place) -> None:
    one.push(1, {entry(): note("two")})
    with one.host.memory.unit_lock(UnitId("prod/a")):
        assert one.show(1).outcome is Outcome.SUCCEEDED


def test_an_entry_that_only_gets_a_comment_is_planned_too(one: Place) -> None:
    one.push(1, {entry(): "# for the review\n" + note()})
    assert actions(one.show(1)) == []


@pytest.mark.parametrize("loose", [False, True])
def test_a_new_version_of_the_lock_may_be_used_with_it_if_the_catalog_has_it(loose: bool, one: Place) -> None:
    newer: dict[str, Files] = {"v1.1.0": {"modules/note/main.tf": NOTE + 'output "more" { value = 1 }\n'}}
    example.release(one.ground.catalog, newer)
    lock = example.lock_of(one.ground.catalog, {**CATALOG, **newer}, "acme")
    if loose:  # the branch never had it: a forge may serve the commits of anybody's fork
        one.ground.catalog.point("main", one.ground.catalog.at("v1.0.0"))
    one.push(1, {entry(): note("two").replace("1.0.0", "1.1.0"), "catalog-lock.yaml": lock})
    result = one.show(1)
    if loose:
        assert (result.outcome, result.reason) == (Outcome.FAILED, "CatalogUnreachable")
    else:
        assert actions(result) == [("update",)]


def test_a_version_that_the_branch_has_yanked_stays_so(one: Place) -> None:
    newer: dict[str, Files] = {"v1.1.0": {"modules/note/main.tf": NOTE}}
    example.release(one.ground.catalog, newer)
    lock = example.lock_of(one.ground.catalog, {**CATALOG, **newer}, "acme")
    head, tail = lock.rsplit("        ref: v1.1.0\n", 1)
    one.ground.environments.merge(
        {"catalog-lock.yaml": f"{head}        ref: v1.1.0\n        yanked: it leaks\n{tail}"}, "Yank"
    )
    one.push(1, {entry(): note("two").replace("1.0.0", "1.1.0"), "catalog-lock.yaml": lock})
    result = one.show(1)
    assert (result.outcome, result.reason) == (Outcome.HELD, "Yanked"), result.message


REFUSED: dict[str, tuple[dict[str, object], Outcome, str]] = {
    "a stranger": ({"writes": False}, Outcome.HELD, "PullAuthorUnknown"),
    "another branch": ({"base": "next"}, Outcome.HELD, "PullElsewhere"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_whose_pull_requests_are_not_planned(name: str, one: Place) -> None:
    words, outcome, reason = REFUSED[name]
    one.push(1, {entry(): note("two")}, **words)
    result = one.show(1)
    assert (result.outcome, result.reason) == (outcome, reason)
    assert not (one.host.memory.folder / "work" / "pulls.git").exists()  # not even fetched
    assert one.host.reviews.of(UnitId("prod/a")) == ()


@pytest.mark.parametrize("number", [1, 7])
def test_one_that_is_not_open_starts_nothing(number: int, one: Place) -> None:
    pull = one.push(1, {entry(): note("two")})
    del one.desk.pulls[1]
    asked = replace(job("prod/a", pull.head, 9, operation=Operation.PLAN), pull=number)
    result = carry_out(one.host, asked)
    assert (result.outcome, result.reason, result.plan) == (Outcome.SUPERSEDED, "Superseded", None)


@pytest.mark.parametrize("which", ["base", "nowhere", "older"])
def test_another_commit_than_its_head_starts_nothing(which: str, one: Place) -> None:
    older = one.push(1, {entry(): note("two")})
    one.push(1, {entry(): note("three")})
    commit = {"base": one.ground.environments.head, "nowhere": Commit("d" * 40), "older": older.head}[which]
    result = one.show(1, commit=commit)
    assert (result.outcome, result.plan) == (Outcome.SUPERSEDED, None)


def test_an_apply_of_a_pull_request_starts_nothing(one: Place) -> None:
    one.push(1, {entry(): note("two")})
    result = one.show(1, operation=Operation.APPLY)
    assert (result.outcome, result.reason, result.plan) == (Outcome.HELD, "NotAllowed", None)


def test_without_a_line_of_the_allow_list_nothing_is_planned(tmp_path: Path) -> None:
    made = place(tmp_path, {"a": note()}, allow=PULLS[:1])
    assert made.apply().outcome is Outcome.SUCCEEDED
    made.push(1, {entry(): note("two")})
    result = made.show(1)
    assert (result.outcome, result.reason) == (Outcome.HELD, "NotAllowed")
    assert "plan of pull requests" in result.message
    made.ground.close()


def test_a_line_for_pull_requests_lets_nothing_merged_in(tmp_path: Path) -> None:
    made = place(tmp_path, {"a": note()}, allow=PULLS[1:])
    result = made.apply()
    assert (result.outcome, result.reason) == (Outcome.HELD, "NotAllowed")
    made.ground.close()


def test_without_a_forge_there_are_no_pull_requests(tmp_path: Path) -> None:
    made = place(tmp_path, {"a": note()})
    assert made.apply().outcome is Outcome.SUCCEEDED
    made.push(1, {entry(): note("two")})
    made.host.forge = open_host(made.ground).forge
    result = made.show(1)
    assert (result.outcome, result.reason) == (Outcome.FAILED, "ForgeMissing")
    made.ground.close()


UNPLANNED: dict[str, tuple[dict[str, str | bytes | None], str]] = {
    "environment.yaml": (
        {entry(): note("two"), f"{PROD}/environment.yaml": "class: protected\nlimits: {destroy: 9}\n"},
        "FollowsMerge",
    ),
    "another class": (
        {entry(): note("two"), f"{PROD}/environment.yaml": "class: sandbox\n"},
        "FollowsMerge",
    ),
    "a branch of the catalog": ({entry(): "module: acme/note\nref: main\ninputs: {note: x}\n"}, "RefNotAllowed"),
    "a version that is not locked": ({entry(): note().replace("1.0.0", "9.0.0")}, "CatalogPinMissing"),
    "a file that goes": ({entry(): None}, "Orphaned"),
    "a broken file": ({entry(): "module: [\n"}, "YamlInvalid"),
}


@pytest.mark.parametrize("name", UNPLANNED)
def test_what_is_not_planned_is_told(name: str, one: Place) -> None:
    files, reason = UNPLANNED[name]
    one.push(1, files)
    result = one.show(1)
    assert (result.outcome, result.reason, result.plan) == (Outcome.HELD, reason, None), result.message
    assert one.host.reviews.of(UnitId("prod/a")) == ()


def test_a_unit_that_it_does_not_touch_is_not_planned(one: Place) -> None:
    one.push(1, {entry("b"): note("two")})
    assert one.show(1).outcome is Outcome.SUPERSEDED


def test_a_push_while_its_job_runs_is_not_shown(one: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    one.push(1, {entry(): note("two")})
    begin = type(one.host.spool.jobs()[0]).begin

    def pushed(folder: object, phase: object) -> None:
        begin(folder, phase)  # type: ignore[arg-type]  # as the method is
        if str(phase) == "Planning":
            one.push(1, {entry(): note("three")})

    monkeypatch.setattr(type(one.host.spool.jobs()[0]), "begin", pushed)
    result = one.show(1)
    assert (result.outcome, result.reason) == (Outcome.SUPERSEDED, "Superseded")
    assert one.host.reviews.of(UnitId("prod/a")) == ()


# --- what it binds


def test_the_same_plan_is_applied_and_its_review_forgotten(one: Place) -> None:
    one.push(1, {entry(): note("two")})
    one.show(1)
    one.merge(1)
    result = one.apply()
    assert (result.outcome, result.reason) == (Outcome.SUCCEEDED, "Applied")
    assert one.host.reviews.of(UnitId("prod/a")) == ()


def test_a_last_push_that_was_not_planned_is_held(one: Place) -> None:
    """What was shown changes nothing; what was merged does."""
    one.push(1, {entry(): "# harmless\n" + note()})
    one.show(1)
    one.push(1, {entry(): note("slipped in")})
    one.merge(1)
    result = one.apply()
    assert (result.outcome, result.reason) == (Outcome.HELD, "PlanExceedsReview")
    assert "#1" in result.message
    again = one.push(2, {entry(): "# seen\n" + note("slipped in")})
    assert actions(one.show(2)) == [("update",)]
    assert again.number == 2
    one.merge(2)
    assert one.apply().reason == "Applied"


@pytest.mark.parametrize("name", ["b", "new"])
def test_a_unit_that_only_the_last_push_touches_is_held(name: str, tmp_path: Path) -> None:
    """It was shown not to be touched at all, whether it is there already or not."""
    made = place(tmp_path, {"a": note(), "b": note()})
    assert made.apply("prod/a").reason == made.apply("prod/b").reason == "Applied"
    made.push(1, {entry(): note("two")})
    made.show(1)
    made.push(1, {entry(name): note("slipped in")})
    made.merge(1)
    result = made.apply(f"prod/{name}")
    assert (result.outcome, result.reason) == (Outcome.HELD, "PlanExceedsReview")
    assert "#1" in result.message
    assert made.apply("prod/a").reason == "Applied"  # which was shown
    made.push(2, {entry(name): "# seen\n" + note("slipped in")})
    made.show(2, f"prod/{name}")
    made.merge(2)
    assert made.apply(f"prod/{name}").reason == "Applied"
    made.ground.close()


def test_a_request_that_nobody_looked_at_binds_nothing_and_nobody(tmp_path: Path) -> None:
    made = place(tmp_path, {"a": note(), "b": note()})
    assert made.apply("prod/a").reason == made.apply("prod/b").reason == "Applied"
    made.push(1, {entry("b"): note("two")})
    made.merge(1)
    made.push(2, {entry(): note("two")})
    made.show(2)
    made.merge(2)
    assert made.apply("prod/b").reason == "Applied"  # the first, which nobody looked at, may have brought it
    assert made.apply("prod/a").reason == "Applied"
    made.ground.close()


def test_that_the_objects_are_let_go_has_to_be_shown_too(one: Place) -> None:
    gone = note(more="state: forgotten\n")
    one.push(1, {entry(): "# harmless\n" + note()})
    one.show(1)
    one.push(1, {entry(): gone})
    one.merge(1)
    result = one.apply()
    assert (result.outcome, result.reason) == (Outcome.HELD, "PlanExceedsReview")
    assert one.ground.state("prod/a").exists()
    one.push(2, {entry(): "# seen\n" + gone})
    assert one.show(2).reason == "Planned"
    one.merge(2)
    assert one.apply().reason == "Forgotten"


def test_another_name_does_not_shake_off_what_was_shown(one: Place) -> None:
    one.push(1, {entry(): "# harmless\n" + note()})
    one.show(1)
    renamed = note("slipped in", "moved_from: a\n")
    one.push(1, {entry(): None, entry("c"): renamed})
    one.merge(1)
    result = one.apply("prod/c")
    assert (result.outcome, result.reason) == (Outcome.HELD, "PlanExceedsReview")
    one.push(2, {entry("c"): "# seen\n" + renamed})
    assert actions(one.show(2, "prod/c")) == [("update",)]
    one.merge(2)
    assert one.apply("prod/c").reason == "Applied"


def test_what_another_open_pull_request_shows_does_not_count(one: Place) -> None:
    one.push(1, {entry(): "# harmless\n" + note()})
    one.show(1)
    one.push(1, {entry(): note("slipped in")})
    one.push(2, {entry(): note("slipped in")})
    one.show(2)
    one.merge(1)
    assert one.apply().reason == "PlanExceedsReview"


def required(made: Place) -> Place:
    made.ground.environments.merge({f"{PROD}/environment.yaml": "class: protected\nreview: required\n"}, "Stricter")
    return made


def test_where_a_review_is_required_nothing_goes_without(one: Place) -> None:
    required(one)
    one.push(1, {entry(): note("two")})
    one.merge(1)
    result = one.apply()
    assert (result.outcome, result.reason) == (Outcome.HELD, "ReviewMissing")
    one.push(2, {entry(): "# seen\n" + note("two")})
    one.show(2)
    one.merge(2)
    assert one.apply().reason == "Applied"


def test_a_deploy_of_three_that_follow_each_other_goes_through(tmp_path: Path) -> None:
    made = required(place(tmp_path, {"z": note()}))
    made.push(
        1,
        {
            entry("a"): note(),
            entry("b"): note("${{ a.id }}"),
            entry("c"): note("${{ b.id }}"),
        },
    )
    assert made.apply("prod/z").reason == "ReviewMissing"  # it was never shown
    shown = [made.show(1, f"prod/{name}") for name in "abc"]
    assert [one.reason for one in shown] == ["Planned", "FollowsUpstream", "FollowsUpstream"]
    assert [actions(one) for one in shown] == [[("create",)], [], []]
    made.merge(1)
    assert [made.apply(f"prod/{name}").reason for name in "abc"] == ["Applied"] * 3
    made.ground.close()


def test_a_pull_request_that_is_merged_while_another_job_runs_still_binds_its_own(
    one: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a job did not bring is not in the world yet, however new the head is that others accepted meanwhile."""
    one.push(1, {entry(): "# harmless\n" + note()})
    one.show(1)
    plain = Talk.plan

    def meanwhile(talk: Talk, *given: Any, **words: Any) -> PlanSummary:
        one.push(1, {entry(): note("slipped in")})
        one.host.history.newest(one.merge(1), Operation.APPLY, since=time.time())  # as the job of another unit does
        return plain(talk, *given, **words)

    monkeypatch.setattr(Talk, "plan", meanwhile)
    assert one.apply().reason == "InSync"
    monkeypatch.undo()
    assert one.apply().reason == "PlanExceedsReview"


def test_what_an_open_pull_request_showed_outlives_the_plans_of_others(
    one: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is open for a week and more before it is merged; meanwhile other requests for the same unit are planned."""
    one.push(1, {entry(): "# harmless\n" + note()})
    one.show(1)
    one.push(2, {entry(): "# another\n" + note()})
    long_after = datetime.now(UTC) + timedelta(days=3)
    monkeypatch.setattr(showing, "_now", lambda: long_after)
    one.show(2)
    monkeypatch.undo()
    one.push(1, {entry(): note("slipped in")})
    one.merge(1)
    assert one.apply().reason == "PlanExceedsReview"


def test_nobody_drives_out_what_an_open_pull_request_showed_last(one: Place) -> None:
    kept = reviews.Review(UnitId("prod/a"), 1, Commit("1" * 40), Commit("0" * 40), Digest("i"), datetime.now(UTC), ())
    others = [replace(kept, pull=2 + n % 2, intent=Digest(f"i{n}")) for n in range(3 * reviews.MOST)]
    left = reviews.pruned([kept, *others], kept.at, {1, 2, 3}, ())
    assert kept in left
    assert len(left) <= reviews.MOST + 3
