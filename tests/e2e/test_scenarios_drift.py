"""What somebody changed behind the daemon's back is found, and put back where that is what the environment says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.house import House, house
from tests.kit.modules import CATALOG, entry, environment
from tests.kit.story import actions, at, did, env, look, made, results, settled
from tests.provider.log import doubled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

PAGE = {"path": "page", "content": "as reviewed"}


def tamper(home: House, name: str = "page", text: str = "changed by hand") -> None:
    (home.ground.world / name).write_text(text)


def test_drift_is_put_back_in_a_protected_environment(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/page"): entry("file", PAGE)}
    page = tmp_path / "h" / "world" / "page"
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        assert look(home, "prod/page")["reason"] == "InSync"
        for text in ("changed by hand", "changed by hand"):  # the same again, with an empty plan in between
            tamper(home, text=text)
            found = look(home, "prod/page")
            assert (found["cause"], found["reason"]) == ("drift", "Applied")
            assert page.read_text() == "as reviewed"
            assert look(home, "prod/page")["reason"] == "InSync"
        page.unlink()
        found = look(home, "prod/page")
        assert found["plan"]["missing"] == ["module.unit.files_file.this"]
        assert actions(found) == [("files_file.this", "create")]
        assert page.read_text() == "as reviewed"
        home.synced()
        assert home.unit("prod/page")["drift_since"] is None
        assert doubled(home.ground.world) == []


def test_drift_is_looked_for_by_the_clock(tmp_path: Path) -> None:
    entries = {env("prod"): environment(drift_interval="1s"), at("prod/page"): entry("file", PAGE)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        tamper(home)
        home.until(lambda: (home.ground.world / "page").read_text() == "as reviewed", "it is put back")
        home.stop()
        home.start_runner()
        (home.ground.world / "page").unlink()
        home.start_controller()  # when the next look is due stands in the store
        home.until((home.ground.world / "page").exists, "it is put back after a restart")
        home.synced()


@pytest.mark.parametrize(("klass", "drift"), [("protected", "report"), ("sandbox", "correct")])
def test_drift_is_only_reported_where_people_may_write(tmp_path: Path, klass: str, drift: str) -> None:
    settings = environment(**{"class": klass, "drift": drift})
    with house(tmp_path / "h", {env("dev"): settings, at("dev/page"): entry("file", PAGE)}, CATALOG) as home:
        home.start()
        home.synced()
        tamper(home)
        found = look(home, "dev/page")
        assert (found["job"]["operation"], found["reason"], found["cause"]) == ("plan", "Planned", "drift")
        shown = home.unit("dev/page")
        assert (shown["sync"], shown["health"]) == ("OutOfSync", "Healthy")
        since = shown["drift_since"]
        assert since is not None
        assert [one["address"] for one in shown["plan"]["changes"]] == ["module.unit.files_file.this"]

        look(home, "dev/page")
        assert home.unit("dev/page")["drift_since"] == since
        assert (home.ground.world / "page").read_text() == "changed by hand"

        tamper(home, text="as reviewed")  # they put it back themselves
        assert look(home, "dev/page")["reason"] == "InSync"
        home.synced()
        assert home.unit("dev/page")["drift_since"] is None

        tamper(home)
        look(home, "dev/page")
        home.ground.merge({at("dev/page"): entry("file", {**PAGE, "content": "reviewed again"})})
        home.synced()  # a merged change is carried out over it
        assert (home.ground.world / "page").read_text() == "reviewed again"
        assert home.unit("dev/page")["drift_since"] is None


def test_a_module_that_never_comes_to_rest_is_corrected_once_and_then_left_alone(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/odd"): entry("restless", {"path": "odd"})}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        assert look(home, "prod/odd")["reason"] == "Applied"
        for _ in range(2):
            found = look(home, "prod/odd")
            assert (found["outcome"], found["reason"]) == ("Held", "PerpetualDiff")
            assert "files_restless.this" in found["message"]
            assert "ignore_changes" in found["message"]
        shown = home.held("prod/odd", "PerpetualDiff")
        assert (shown["sync"], shown["health"]) == ("OutOfSync", "Degraded")
        assert made(home, "update", "updated") == ["odd"]

        # When somebody really writes there it is another change set: put back, and then found restless once more.
        tamper(home, "odd", "by hand")
        assert [look(home, "prod/odd")["reason"] for _ in range(3)] == ["Applied", "Applied", "PerpetualDiff"]
        # And when the entry changes, the count starts anew.
        home.ground.merge({at("prod/odd"): entry("restless", {"path": "even"}, allow_destroy=1)})
        home.until(lambda: made(home, "create", "created") == ["odd", "even"], "it is applied")
        settled(home)
        assert did(home, "prod/odd")[-1] == ("apply", "Applied")
        assert results(home, "prod/odd")[-1]["cause"] == "desired"
