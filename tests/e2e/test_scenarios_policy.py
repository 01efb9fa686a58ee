"""A policy is not loosened in the change that it protects against; and a runner that has lost its memory applies nothing."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.kit.house import House, house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import actions, at, did, env, look, made, results, settled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

NEXT = "counts from the next one on"


def always(reason: str = "closed") -> dict[str, str]:
    """A window that is open now, and for longer than any test: it opened some minutes ago."""
    opened = datetime.now(UTC) - timedelta(minutes=10)
    return {"cron": f"{opened.minute} {opened.hour} * * *", "duration": "20h", "reason": reason}


def keep(word: str) -> str:
    """Another word replaces the object."""
    return entry("data", {"value": 1, "keep": word})


def next_merge(home: House, text: str = "The next merge") -> None:
    home.ground.merge({"README.md": text})


def test_a_freeze_that_is_taken_out_with_a_destroy_holds_until_the_next_merge(tmp_path: Path) -> None:
    entries = {env("prod"): environment(limits={"destroy": 9}), at("prod/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        home.ground.merge({env("prod"): environment(limits={"destroy": 9}, freeze=[always()]), at("prod/a"): data(2)})
        held = home.held("prod/a", "FreezeWindow")  # a tighter one counts at once
        assert (held["sync"], held["health"]) == ("OutOfSync", "Suspended")
        assert "Frozen until " in held["message"]
        settled(home)
        assert actions(results(home, "prod/a")[-1]) == [("terraform_data.this", "update")]  # and the plan is shown
        assert home.command("status").returncode == 3

        home.ground.merge({env("prod"): environment(limits={"destroy": 9}), at("prod/a"): data(2, state="absent")})
        home.held("prod/a", "FreezeWindow", saying=NEXT)
        settled(home)
        assert home.ground.state("prod/a").read_text().count('"type": "terraform_data"') == 1
        next_merge(home)
        home.synced()
        assert did(home, "prod/a")[-1] == ("apply", "Applied")
        assert home.ground.state("prod/a").read_text().count('"type": "terraform_data"') == 0


def test_a_limit_that_is_raised_counts_from_the_next_merge_on_which_wakes_what_waits(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/a"): keep("0"), at("prod/b"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        loose = environment(limits={"destroy": 5}, review="off")
        home.ground.merge({at("prod/a"): keep("1"), env("prod"): loose})
        home.held("prod/a", "DestroyLimit", saying=NEXT)
        # It survives a restart of both, and any time.
        home.stop()
        home.start()
        for _ in range(3):  # then the back-off is 40 s at least
            look(home, "prod/a")
        home.held("prod/a", "DestroyLimit", saying=NEXT)
        before = len(results(home, "prod/b"))
        next_merge(home)
        home.synced(patience=35)  # nobody asks: no back-off is waited for
        assert len(results(home, "prod/b")) == before  # and only what waited is woken


def test_a_file_that_goes_for_a_while_does_not_shake_its_freeze_off(tmp_path: Path) -> None:
    strict = environment(freeze=[always()])
    with house(tmp_path / "h", {env("prod"): strict, at("prod/a"): data(1)}, CATALOG) as home:
        home.start()
        home.held("prod/a", "FreezeWindow")
        home.ground.merge({env("prod"): None})
        home.held("prod/a", "EnvironmentInvalid")
        home.ground.merge({env("prod"): environment()})
        home.held("prod/a", "FreezeWindow", saying=NEXT)
        assert not home.ground.state("prod/a").exists()
        next_merge(home)
        home.synced()


def test_drift_that_was_reported_is_corrected_from_the_next_merge_on(tmp_path: Path) -> None:
    page = entry("file", {"path": "page", "content": "as reviewed"})
    entries = {env("prod"): environment(drift="report"), at("prod/page"): page, at("prod/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        (home.ground.world / "page").write_text("by hand")
        assert look(home, "prod/page")["reason"] == "Planned"
        home.ground.merge({env("prod"): environment(), at("prod/a"): data(2)})
        home.synced("prod/a")
        assert look(home, "prod/page")["reason"] == "Planned"
        assert (home.ground.world / "page").read_text() == "by hand"
        next_merge(home)
        home.synced()
        assert (home.ground.world / "page").read_text() == "as reviewed"
        assert made(home, "create", "created") == ["page"]


def test_a_class_that_is_changed_holds_everything_even_where_the_host_agrees(tmp_path: Path) -> None:
    entries = {env("prod"): environment(limits={"destroy": 9}), at("prod/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        sandbox = environment(limits={"destroy": 9}).replace("protected", "sandbox")
        home.ground.merge({env("prod"): sandbox, at("prod/a"): data(1, state="absent")})
        home.held("prod/a", "PolicyMismatch")
        home.stop()
        config = home.ground.runner_config
        config.write_text(config.read_text().replace("class: protected", "class: sandbox"))
        home.start()
        home.held("prod/a", "PolicyMismatch", saying=NEXT)
        assert did(home, "prod/a") == [("apply", "Applied")]
        next_merge(home)
        home.until(lambda: did(home, "prod/a")[-1] == ("apply", "Applied") and len(did(home, "prod/a")) > 1, "it goes")


def test_a_runner_that_has_lost_its_memory_applies_nothing_until_an_admin_says_so(tmp_path: Path) -> None:
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): data(1)}, CATALOG) as home:
        home.start()
        home.synced()
        home.stop()
        memory, state = home.ground.folder / "runner", home.ground.state("prod/a")
        kept = state.read_bytes()
        shutil.move(memory, tmp_path / "backup")
        memory.mkdir(mode=0o700)
        home.ground.merge({at("prod/a"): data(2), at("prod/b"): data(1)})
        home.start()
        held = home.held("prod/b", "MemoryLost")
        assert "belong to another memory" in held["message"]
        assert results(home, "prod/b")[-1]["plan"]["changes"] != []
        home.held("prod/a", "MemoryLost")
        assert not home.ground.state("prod/b").exists()
        assert state.read_bytes() == kept

        # The backup comes back: all goes on.
        home.stop()
        shutil.move(memory, tmp_path / "empty")
        shutil.move(tmp_path / "backup", memory)
        home.start()
        home.synced()

        # It is gone for good: an admin claims what is there.
        home.stop()
        shutil.move(memory, tmp_path / "backup")
        memory.mkdir(mode=0o700)
        home.start()
        look(home, "prod/a")
        home.held("prod/a", "MemoryLost")
        done = home.command("runner", "claim", "prod", "--config", str(home.ground.runner_config), "--reason", "a fire")
        assert (done.returncode, sorted(done.stdout.split())) == (0, ["prod/a", "prod/b"]), done.stderr
        assert look(home, "prod/a")["reason"] == "InSync"
        assert look(home, "prod/b")["reason"] == "InSync"
        home.synced()
