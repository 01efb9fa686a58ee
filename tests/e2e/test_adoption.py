"""What exists already comes under the daemon: a whole plain Terraform state, single objects; and a whole environment goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.demo.example import Releases
from tests.kit.estate import RELEASE, estate, identities, plain
from tests.kit.house import house
from tests.kit.modules import CATALOG, FILE, entry, environment, release
from tests.kit.story import actions, at, did, env, look, made, results, started
from tests.provider.log import calls

Fields = dict[str, Any]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

# The second release has lost one object of the first, and its pages lie elsewhere: adopted with it, all of them would go.
SMALLER = estate("../inner").replace("count            = 10", "count            = 9").replace("pages/$", "leaves/$")
RELEASES: Releases = {"v1.0.0": {**CATALOG["v1.0.0"], **RELEASE}, "v1.1.0": release(estate=SMALLER, file=FILE)}


def imports(address: str) -> Fields:
    """The field of an entry by which the object there becomes the file that was made by hand."""
    return {"import": {address: "found"}}


def test_a_plain_terraform_state_is_adopted_and_its_environment_goes_at_the_end(tmp_path: Path, engine: Path) -> None:
    old = tmp_path / "old"
    rules = {"environments": {"prod": {"adopt": [{"local": {"path": str(old)}}]}}}
    entries = {
        env("prod"): environment(limits={"destroy": 0}),
        at("prod/hello"): entry("file", {"path": "h", "content": "x"}),
    }
    with house(tmp_path / "h", entries, RELEASES, runner=rules) as home:
        source = plain(old, home.ground.folder / "providers", home.ground.world, engine)
        before, objects = source.read_bytes(), identities(source.read_bytes())
        assert len(objects) == 30
        (home.ground.world / "found").write_text("made by hand")
        home.start()
        home.synced()
        done = len(calls(home.ground.world))

        # Hostile: the same state with a module whose plan would destroy, and every allowance that an entry has.
        adopt: Fields = {"adopt": {"state": str(source)}}
        home.ground.merge({at("prod/estate"): entry("estate", version="1.1.0", allow_destroy=99, **adopt)})
        held = home.held("prod/estate", "AdoptionDestroys")
        assert "module.unit.files_file.page" in held["message"]
        assert "No allowance lets that happen" in held["message"]
        assert not home.ground.state("prod/estate").exists()
        assert source.read_bytes() == before

        home.ground.merge({at("prod/estate"): entry("estate", **adopt)})
        home.synced()
        first = results(home, "prod/estate")[-1]
        assert (first["reason"], first["message"]) == ("Adopted", f"{source} is adopted; 0 objects changed.")
        assert first["plan"]["changes"] == []
        assert not first["plan"]["outputs_changed"]
        assert identities(home.ground.state("prod/estate").read_bytes()) == objects
        assert look(home, "prod/estate")["reason"] == "InSync"
        assert {call.op for call in calls(home.ground.world)[done:]} == {"read"}
        assert source.read_bytes() == before

        # A single object, by its id; and one that is not there.
        words = {"path": "found", "content": "made by hand"}
        home.ground.merge(
            {
                at("prod/found"): entry("file", words, **imports("files_file.this")),
                at("prod/lost"): entry("file", words, **imports("files_file.nothing")),
            }
        )
        home.synced("prod/found")
        assert actions(results(home, "prod/found")[-1]) == [("files_file.this", "no-op")]
        assert "found" not in made(home, "create", "started")
        wrong = home.held("prod/lost", "ImportFailed")["message"]
        assert wrong.startswith("environments/prod/lost.yaml:9:25: acme/file has no resource files_file.nothing.")

        # The end of an environment: every entry `absent` first, in one merge; then the folder.
        home.ground.merge(
            {
                at("prod/estate"): entry("estate", state="absent", allow_destroy=30),
                at("prod/hello"): entry("file", {"path": "h", "content": "x"}, state="absent", allow_destroy=1),
                at("prod/found"): entry("file", words, state="absent", allow_destroy=1),
                at("prod/lost"): None,
            }
        )
        home.synced(patience=120)
        assert did(home, "prod/estate")[-1] == ("apply", "Applied")
        assert started(home, "prod/lost") != []
        left = [path.name for path in home.ground.world.rglob("*") if path.is_file() and path.name != "calls.log"]
        assert left == []
        gone = dict.fromkeys((env("prod"), at("prod/estate"), at("prod/hello"), at("prod/found")))
        home.ground.merge(gone, "The end of prod")
        home.until(
            lambda: home.get("/api/v1/status")["resolved"] == home.ground.environments.head and not home.units(), "gone"
        )
