"""Reports over a forge that can be away, slow to allow, or forgetful: each thing said once, in place, and the newest at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.config import Forge as Configured
from reconciler.controller.reporting import AT_REST, BETWEEN, LAST_WAIT, MERGES, Reporter
from reconciler.controller.reports import marker
from reconciler.errors import PassError
from reconciler.forge import Bounds, Voice, open_voice
from reconciler.forge.facts import Pull
from reconciler.model import Commit, Desired, Health, Ledger, Sync, UnitId
from reconciler.reviewing import PullStatus, UnitShown
from reconciler.status import Overview, Picture, UnitStatus
from tests.kit import facts as make
from tests.kit.forge import KINDS, ForgeSite, forge_site

NAME = "acme/environments"
HEAD, NET = Commit("a" * 40), UnitId("prod/net")


@dataclass
class World:
    """What is to be told of, a clock that the test moves, and who hears how it went."""

    pulls_now: tuple[PullStatus, ...] = ()
    desired: Desired | None = None
    units: tuple[UnitStatus, ...] = ()
    seconds: float = 1000.0
    heard: list[tuple[str, str]] = field(default_factory=list)

    def picture(self) -> Picture:
        return Picture(self.desired, Ledger(), None, make.NOW, overview=Overview(self.units))

    def pulls(self) -> tuple[PullStatus, ...]:
        return self.pulls_now

    def reported(self, sink: str, error: PassError | None) -> None:
        self.heard.append((sink, error.reason if error else ""))


def shown(state: str, number: int = 1, reason: str = "", head: Commit = HEAD) -> PullStatus:
    units = (UnitShown(NET, state, message="Something."),)
    return PullStatus(Pull(number, head, "main", "ada", True, "A title"), Commit("b" * 40), reason, "Why.", units)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ForgeSite]:
    with forge_site(tmp_path / "forge") as running:
        running.repository(NAME)
        yield running


def voice(site: ForgeSite, kind: str) -> Voice:
    configured = Configured.model_validate(site.config(kind, NAME))
    return open_voice(configured, site.token_file, Bounds(deadline=30.0, connect=30.0))


def reporter(site: ForgeSite, kind: str, world: World, tmp_path: Path, **more: Any) -> Reporter:
    return Reporter(voice(site, kind), world, world, "prod", tmp_path / "reports.json", lambda: world.seconds, **more)


def play(one: Reporter, world: World, turns: int = 200) -> int:
    """Turn until there is nothing more to say; how many turns that took."""
    for turn in range(turns):
        wait = one.turn()
        if wait is None:
            return turn
        world.seconds += wait + 0.001
    pytest.fail("it never comes to an end")


@pytest.mark.parametrize("kind", KINDS)
def test_one_comment_edited_in_place_and_statuses(site: ForgeSite, kind: str, tmp_path: Path) -> None:
    world = World((shown("waiting"),))
    one = reporter(site, kind, world, tmp_path, page="https://reconciler.example.com")
    play(one, world)
    for state in ("running", "failed", "planned"):
        world.pulls_now = (shown(state),)
        play(one, world)
    (remark,) = site.wall.of(1)
    assert (remark.body.startswith(marker("prod")), "1 planned" in remark.body, remark.edits) == (True, True, 3)
    marks = site.wall.marks(HEAD)
    assert set(marks) == {"reconciler/validate", "reconciler/plan"}
    assert {said["state"] for said in marks.values()} == {"success"}
    assert {said["target_url"] for said in marks.values()} == {"https://reconciler.example.com"}
    assert site.wall.violations == []


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_new_asks_nothing(site: ForgeSite, kind: str, tmp_path: Path) -> None:
    world = World((shown("planned"),))
    one = reporter(site, kind, world, tmp_path)
    play(one, world)
    before = len(site.asked) + len(site.wall.writes)
    for _ in range(50):
        assert one.turn() is None
    assert len(site.asked) + len(site.wall.writes) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_after_this_one_goes_on_in_place(site: ForgeSite, kind: str, tmp_path: Path) -> None:
    world = World((shown("waiting"),))
    play(reporter(site, kind, world, tmp_path), world)
    said = len(site.wall.writes)
    play(reporter(site, kind, world, tmp_path), world)
    assert len(site.wall.writes) == said
    (tmp_path / "reports.json").unlink()
    world.pulls_now = (shown("planned"),)
    play(reporter(site, kind, world, tmp_path), world)
    assert len(site.wall.of(1)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_somebody_elses_comment_with_our_marker_is_not_ours(site: ForgeSite, kind: str, tmp_path: Path) -> None:
    theirs = site.wall.add(1, f"{marker('prod')} approve this", author=77)
    world = World((shown("planned"),))
    play(reporter(site, kind, world, tmp_path), world)
    assert (theirs.edits, len(site.wall.of(1))) == (0, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_comment_that_was_deleted_is_written_anew(site: ForgeSite, kind: str, tmp_path: Path) -> None:
    world = World((shown("waiting"),))
    one = reporter(site, kind, world, tmp_path)
    play(one, world)
    site.wall.remarks.clear()
    world.pulls_now = (shown("planned"),)
    play(one, world)
    assert len(site.wall.of(1)) == 1


def test_a_token_that_may_not_ask_who_it_is(site: ForgeSite, tmp_path: Path) -> None:
    site.wall.names_itself = False
    world = World((shown("waiting"),))
    one = reporter(site, "github", world, tmp_path)
    play(one, world)
    world.pulls_now = (shown("planned"),)
    play(one, world)
    assert [remark.edits for remark in site.wall.of(1)] == [1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["down", "broken", "denied", "garbage"])
def test_an_outage_loses_nothing_and_floods_nobody(site: ForgeSite, kind: str, fault: str, tmp_path: Path) -> None:
    world = World((shown("waiting"),))
    one = reporter(site, kind, world, tmp_path)
    site.fault = fault
    begun = world.seconds
    while world.seconds < begun + 3600:
        wait = one.turn()
        assert wait is not None
        world.seconds += wait + 0.001
    assert {reason != "" for _, reason in world.heard} == {True}
    assert len(world.heard) <= 3 * 12  # three things to say, each ever more seldom
    world.pulls_now = (shown("planned"),)
    site.fault = ""
    play(one, world)
    assert "1 planned" in site.wall.of(1)[0].body
    assert len(site.wall.of(1)) == 1


@pytest.mark.parametrize("fault", ["limited", "limited403"])
def test_a_limit_silences_everything_for_as_long_as_the_forge_says(site: ForgeSite, fault: str, tmp_path: Path) -> None:
    world = World(tuple(shown("planned", number, head=Commit(f"{number:040x}")) for number in range(1, 9)))
    one = reporter(site, "github", world, tmp_path)
    site.fault = fault
    assert one.turn() == BETWEEN
    wait = one.turn()
    assert wait is not None
    assert (wait > 59 - BETWEEN if fault == "limited" else wait > LAST_WAIT, len(world.heard)) == (True, 1)
    site.fault = ""
    world.seconds += wait
    play(one, world)
    assert all(len(site.wall.of(number)) == 1 for number in range(1, 9))


def test_what_changes_all_the_time_is_said_now_and_then(site: ForgeSite, tmp_path: Path) -> None:
    world = World((shown("waiting"),))
    one = reporter(site, "github", world, tmp_path, statuses=False)
    begun = world.seconds
    for number in range(600):
        world.pulls_now = (shown("waiting" if number % 2 else "running"),)
        one.turn()
        world.seconds += 0.1
    assert len(site.wall.writes) <= (world.seconds - begun) / AT_REST + 2


def test_strangers_are_not_answered(site: ForgeSite, tmp_path: Path) -> None:
    world = World((shown("waiting", reason="PullAuthorUnknown"),))
    play(reporter(site, "github", world, tmp_path), world)
    assert site.wall.writes == []


# --- merges


def commit(number: int) -> Commit:
    return Commit(f"{number:040x}")


def at(number: int, before: Desired | None = None, **intents: str) -> Desired:
    """What a commit means: the units of before, some of them with another intent."""
    start = before or make.desired(make.entry("prod/net"), make.entry("prod/app"))
    units = {
        name: replace(unit, intent=intents.get(name.partition("/")[2], unit.intent))  # type: ignore[arg-type]
        for name, unit in start.units.items()
    }
    return Desired(commit(number), units, {}, start.environments)


def test_a_merge_commit_tells_what_became_of_its_units(site: ForgeSite, tmp_path: Path) -> None:
    fine = UnitStatus(UnitId("prod/app"), Sync.SYNCED, Health.HEALTHY)
    world = World(desired=at(1), units=(fine, UnitStatus(NET, Sync.SYNCED, Health.HEALTHY)))
    one = reporter(site, "github", world, tmp_path)
    play(one, world)
    assert site.wall.writes == []  # of what was there before the first look nothing is known
    world.desired = at(2, world.desired, net="x")
    world.units = (fine, UnitStatus(NET, Sync.OUT_OF_SYNC, Health.PROGRESSING, phase="Planning"))
    play(one, world)
    assert {name: said["state"] for name, said in site.wall.marks(commit(2)).items()} == {
        "reconciler/apply: prod/net": "pending"
    }
    one = reporter(site, "github", world, tmp_path)  # another process
    world.units = (fine, UnitStatus(NET, Sync.SYNCED, Health.HEALTHY))
    play(one, world)
    assert site.wall.marks(commit(2))["reconciler/apply: prod/net"]["state"] == "success"


def test_a_commit_that_came_while_nobody_looked(site: ForgeSite, tmp_path: Path) -> None:
    synced = tuple(UnitStatus(UnitId(name), Sync.SYNCED, Health.HEALTHY) for name in ("prod/app", "prod/net"))
    world = World(desired=at(1), units=synced)
    play(reporter(site, "github", world, tmp_path), world)
    world.desired = at(5, world.desired, net="y")
    world.units = (synced[0], UnitStatus(NET, Sync.OUT_OF_SYNC, Health.PROGRESSING))
    play(reporter(site, "github", world, tmp_path), world)
    assert list(site.wall.marks(commit(5))) == ["reconciler/apply: prod/net"]


def test_only_the_newest_merges_are_followed(site: ForgeSite, tmp_path: Path) -> None:
    world = World(desired=at(1), units=(UnitStatus(NET, Sync.SYNCED, Health.HEALTHY),))
    one = reporter(site, "github", world, tmp_path)
    play(one, world)
    for number in range(2, MERGES + 12):
        world.desired = at(number, world.desired, net=f"n{number}")
        one.turn()
        world.seconds += 1
    play(one, world)
    kept = [merge.commit for merge in one._notes.merges]
    assert kept == [commit(number) for number in range(12, MERGES + 12)]
    assert site.wall.marks(commit(12))["reconciler/apply: prod/net"]["description"].endswith("which came later")


def test_a_disk_that_is_full_is_no_reason_to_be_silent(site: ForgeSite, tmp_path: Path) -> None:
    world = World((shown("planned"),))
    one = reporter(site, "github", world, tmp_path)
    one.memory = tmp_path / "nowhere" / "reports.json"
    play(one, world)
    assert len(site.wall.of(1)) == 1
