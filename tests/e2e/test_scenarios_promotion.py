"""From one environment to the next: code waits until it was in order before, inputs do not, and a reviewed line lets it in."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.demo.example import Releases
from tests.kit.house import house
from tests.kit.modules import DATA, data, environment
from tests.kit.story import actions, at, did, env, look, results, settled

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

CATALOG: Releases = {
    "v1.0.0": {"modules/data/main.tf": DATA},
    "v1.1.0": {"modules/data/main.tf": DATA + 'output "more" { value = "more" }\n'},
    "v1.2.0": {"modules/data/main.tf": DATA + 'output "most" { value = "most" }\n'},
}
SOAK = 6  # seconds
PROD = environment(promotion={"after": "stage", "soak": f"{SOAK}s"})
LATER = environment(promotion={"after": "stage", "soak": "24h"})


def test_code_is_promoted_by_itself_once_it_was_in_order(tmp_path: Path) -> None:
    entries = {env("stage"): environment(), env("prod"): environment(), at("stage/a"): data(1), at("prod/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        home.ground.merge({env("prod"): PROD})
        home.synced()
        home.ground.merge({at("stage/a"): data(1, version="1.1.0"), at("prod/a"): data(1, version="1.1.0")})
        held = home.held("prod/a", "PromotionPending")
        assert (held["sync"], held["health"]) == ("OutOfSync", "Suspended")
        home.synced("stage/a")
        home.synced(patience=SOAK + 60)
        begun = home.until(lambda: home.unit("stage/a")["applied"], "stage/a was applied")["at"]
        ended = home.until(lambda: home.unit("prod/a")["applied"], "prod/a was applied")["at"]
        assert ended > begun
        assert did(home, "prod/a")[-2:] == [("plan", "Planned"), ("apply", "Applied")]
        home.kill("controller")  # what it knows of the soak is in the journal
        home.start_controller()
        home.synced()


def test_other_inputs_enter_at_once_and_a_line_lets_code_in(tmp_path: Path) -> None:
    entries = {env("stage"): environment(), env("prod"): LATER, at("stage/a"): data(1), at("prod/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.held("prod/a", "PromotionPending", saying="stage/a until")
        home.ground.merge({at("prod/a"): data(1, promotion_skip="the first deploy")})
        home.synced()
        home.ground.merge({at("prod/a"): data(2, promotion_skip="the first deploy")})
        home.synced()
        assert actions(results(home, "prod/a")[-1]) == [("terraform_data.this", "update")]

        home.ground.merge({at("prod/a"): data(2, version="1.1.0", promotion_skip="the first deploy")})
        home.held("prod/a", "PromotionPending", saying="nothing there uses this code yet")
        settled(home)
        explained = home.command("explain", "prod/a")
        assert "PromotionPending" in explained.stdout
        assert "promotion_skip" in explained.stdout
        home.ground.merge({at("prod/a"): data(2, version="1.1.0", promotion_skip="the flood")})
        home.synced()


def test_a_promotion_that_is_taken_out_counts_until_the_next_merge(tmp_path: Path) -> None:
    entries = {env("stage"): environment(), env("prod"): environment(), at("stage/a"): data(1), at("prod/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        home.ground.merge({env("prod"): LATER})
        home.synced()
        home.ground.merge({env("prod"): environment(), at("prod/a"): data(1, version="1.1.0")})
        home.held("prod/a", "PromotionPending", saying="counts from the next one on")
        home.ground.merge({"README.md": "The next merge"})
        home.synced()


def test_drift_and_failures_begin_the_soak_anew(tmp_path: Path) -> None:
    """A drift check that finds something in stage takes the proof away: here by a state that somebody changed by hand."""
    entries = {env("stage"): environment(), env("prod"): LATER, at("stage/a"): data(1), at("prod/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced("stage/a")
        first = home.held("prod/a", "PromotionPending", saying="stage/a until")["message"]
        look(home, "stage/a")  # in order: nothing begins anew
        assert home.unit("prod/a")["message"] == first
        home.ground.merge({at("stage/a"): data("${{ nobody.value }}")})
        home.held("prod/a", "PromotionPending", saying="stage/a is not in order")
