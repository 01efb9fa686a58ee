"""The wall clock of a plane jumps, by hours and years, forward and back: nothing storms, nothing waits for what never comes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.demo.playground import laid_over
from tests.crash.clock import set_clock
from tests.crash.harness import Cast, FallingHouse, house_of
from tests.kit.forks import ForkServer
from tests.kit.gitserver import HttpsServer, running
from tests.kit.house import Json
from tests.kit.modules import excused
from tests.kit.story import ask, started

PATIENCE = 120.0  # seconds
HOUR, YEAR = 3600, 365 * 86_400

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.crash, pytest.mark.timeout(900)]


@pytest.fixture
def home(quick_planes: ForkServer, tmp_path: Path) -> Iterator[FallingHouse]:
    """Over https: where the repository is a folder, a look comes with each change of it, whatever the clock says."""
    server, folder = HttpsServer(tmp_path / "https", tmp_path / "house"), tmp_path / "house"
    with running(server):
        place = {"allow_file": None, "ca_file": str(server.ca_file)}
        repositories: Json = {
            "environments_repo": {**place, "url": server.url(folder / "environments.git")},
            "catalog_repos": {"acme": {**place, "url": server.url(folder / "catalog.git")}},
        }
        controller = laid_over(repositories, {"environments_repo": {"poll_interval": "1s"}})
        runner = laid_over(repositories, excused("note"))
        settings = {"environments/prod/environment.yaml": "class: protected\ndrift_interval: 1h\n"}
        people = Cast(random.Random(1))  # noqa: S311 - a story, not a secret
        with house_of(people, folder, quick_planes, controller, runner, settings) as house:
            jump(house, 0)
            house.begin()
            yield house


def jump(house: FallingHouse, seconds: float, *names: str) -> None:
    """Set the clocks of these planes (of both, if none is named) wrong by so much."""
    for name in names or ("controller", "runner"):
        set_clock(house.clock(name), seconds)


def merge(house: FallingHouse) -> None:
    """A change arrives by itself."""
    house.ground.merge(house.cast.make("change"))
    house.synced(patience=PATIENCE)
    house.verify_soon()


def looks(house: FallingHouse, since: int) -> int:
    """How many jobs were started after those."""
    return len(started(house, "prod")) - since


def drift_is_found(house: FallingHouse, seconds: float, *names: str, removed: bool = False) -> None:
    """What somebody changed or removed by hand is found once the clock is another, and by that alone.

    By hand before the jump: each unit is looked at once for it. The same drift twice would be a `PerpetualDiff`.
    """
    thing = house.ground.world / "net"
    wanted = thing.read_text(encoding="utf-8")
    thing.unlink()
    if removed:
        house.cast.lost["net"] += 1
    else:
        thing.write_text("meddled", encoding="utf-8")
    jump(house, seconds, *names)
    house.until(lambda: thing.exists() and thing.read_text(encoding="utf-8") == wanted, "drift is put back", PATIENCE)
    house.synced(patience=PATIENCE)


def test_years_forward_and_back(home: FallingHouse) -> None:
    units, before = len(home.cast.wishes), len(started(home, "prod"))

    drift_is_found(home, 5 * YEAR)  # each unit's look is due
    home.until(lambda: looks(home, before) >= units, "every unit was looked at", PATIENCE)
    merge(home)
    assert looks(home, before) <= 2 * units + 2, "a storm"

    before = len(started(home, "prod"))
    drift_is_found(home, 0, removed=True)  # the next looks were planned for years from now
    merge(home)
    assert looks(home, before) <= 2 * units + 2, "a storm"
    home.stop()
    home.start()
    merge(home)
    assert home.check() == []


def test_hours_of_one_plane(home: FallingHouse) -> None:
    """The runner's clock is another than the controller's: neither looks all the time nor never."""
    for plane, seconds in (("runner", 3 * HOUR), ("runner", -3 * HOUR), ("controller", 3 * HOUR), ("controller", 0)):
        before = len(started(home, "prod"))
        if seconds > 0 and plane == "controller":
            drift_is_found(home, seconds, plane)
        else:
            jump(home, seconds, plane)
        merge(home)
        assert looks(home, before) <= 2 * len(home.cast.wishes) + 2, "a storm"
    assert home.check() == []


def test_a_pause_ends_when_the_clock_says_so_and_stays_ended(home: FallingHouse) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    ask(home, "pause", "prod", reason="the clock's test", until=until)
    home.ground.merge(home.cast.make("change"))
    home.held(home.cast.side.unit, "Paused", patience=PATIENCE)
    jump(home, -5 * HOUR)
    home.held(home.cast.side.unit, "Paused", patience=PATIENCE)
    jump(home, 2 * HOUR)
    home.synced(patience=PATIENCE)
    jump(home, 0)
    merge(home)
    assert home.check() == []


def test_nothing_is_applied_in_a_freeze_of_either_clock(home: FallingHouse) -> None:
    """The window is all of a month that is half a year away: one plane is in it, and then the other."""
    away = datetime.now(UTC) + timedelta(days=183)
    inside = (away.replace(day=10) - datetime.now(UTC)).total_seconds()
    window = f'{{cron: "0 0 1 {away.month} *", duration: 28d, reason: closed}}'
    settings = f"class: protected\ndrift_interval: 1h\nfreeze:\n  - {window}\n"
    home.ground.merge({"environments/prod/environment.yaml": settings})
    home.synced(patience=PATIENCE)

    for plane in ("controller", "runner"):
        before = home.ground.state(home.cast.side.unit).read_text()
        jump(home, inside, plane)
        home.ground.merge(home.cast.make("change"))
        home.held(home.cast.side.unit, "FreezeWindow", patience=PATIENCE)
        assert home.ground.state(home.cast.side.unit).read_text() == before
        jump(home, 0)
        home.synced(patience=PATIENCE)
        home.verify_soon()
    assert home.check() == []
