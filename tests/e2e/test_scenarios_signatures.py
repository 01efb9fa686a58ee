"""A house whose keys are on: only what an allowed person has merged goes in, and what was merged stays in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.demo.forge import Files, Forge
from reconciler.model import Commit
from tests.kit.gitrepo import RepoBuilder
from tests.kit.house import House, house
from tests.kit.modules import CATALOG, entry, environment
from tests.kit.signing import SshKey, SshKeys, with_signature, write
from tests.kit.story import at, env, runner_does

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def merge(home: House, files: Files, key: SshKey) -> Commit:
    """A reviewed change, merged and signed by the key."""
    forge = home.ground.environments
    forge.point("staging", forge.head)
    merged = Forge(forge.folder, "staging").merge(files, "a change")
    repo = RepoBuilder(forge.folder)
    data = f"{repo.git('cat-file', 'commit', merged)}\n".encode()
    return write(repo, with_signature(data, key.sign(data)))


def test_unsigned_merges_hold_and_signed_ones_go_on(tmp_path: Path, ssh_keys: SshKeys) -> None:
    signers, revoked = tmp_path / "signers", tmp_path / "revoked"
    ada, bob, eve = (ssh_keys[name] for name in ("ada", "bob", "eve"))
    signers.write_text("# version: 1\n" + ada.line() + eve.line("eve@example.org"))
    revoked.write_text("")
    trust = {
        "environments_repo": {
            "signatures": {"allowed_signers": str(signers), "revoked_keys": str(revoked)},
            "poll_interval": "1s",
        }
    }
    page = {"path": "page", "content": "one"}
    entries = {env("prod"): environment(drift_interval="60s"), at("prod/page"): entry("file", page)}
    with house(tmp_path / "h", entries, CATALOG, controller=trust, runner=trust) as home:
        home.start()
        home.synced()  # the genesis
        on_disk = home.ground.world / "page"

        good = merge(home, {at("prod/page"): entry("file", page | {"content": "two"})}, ada)
        home.synced()
        assert (home.head(), on_disk.read_text()) == (good, "two")

        # A merge that nobody signed: it is named, and what was good before stays in force.
        bad = home.ground.environments.merge({at("prod/page"): entry("file", page | {"content": "evil"})}, "quick")
        home.until(
            lambda: "SignatureMissing" in home.tails() or "is not signed" in home.tails(), "the unsigned merge is told"
        )
        assert home.head() == good
        result = runner_does(home, "prod/page", bad)  # not for a controller in wrong hands either
        assert (result.outcome.value, result.reason) == ("Held", "CommitNotAccepted")
        on_disk.write_text("by hand")
        home.command("reconcile", "prod/page")
        home.until(lambda: on_disk.read_text() == "two", "drift is still corrected to the last good commit")

        # Keys change hands: whoever is on the list now may merge, and what was proven stays so.
        home.ground.environments.point("main", good)
        signers.write_text("# version: 2\n" + bob.line("bob@example.org") + eve.line("eve@example.org"))
        next_one = merge(home, {at("prod/page"): entry("file", page | {"content": "three"})}, bob)
        home.synced()
        assert (home.head(), on_disk.read_text()) == (next_one, "three")
        last = merge(home, {at("prod/page"): entry("file", page | {"content": "four"})}, eve)
        home.synced()

        # A stolen key: what it signed no longer counts, so nothing is applied until a person has looked.
        revoked.write_text(f"{eve.public} stolen\n")
        frozen = home.until(lambda: home.get("/api/v1/status")["frozen"], "the revoked signature freezes everything")
        assert frozen["reason"] == "SignatureRevoked"
        assert last in frozen["message"]
        assert eve.name in frozen["message"]
        result = runner_does(home, "prod/page", last)
        assert (result.outcome.value, result.reason) == ("Held", "SignatureRevoked")
        revert = merge(home, {at("prod/page"): entry("file", page | {"content": "three"})}, bob)
        admin = home.command("accept-history", last, revert, "--reason", "eve's key was stolen; her change is reverted")
        assert admin.returncode == 0, admin.stderr
        words = (
            "runner",
            "accept-history",
            last,
            revert,
            "--reason",
            "as above",
            "--config",
            str(home.ground.runner_config),
        )
        host = home.command(*words)
        assert host.returncode == 0, host.stderr
        home.synced()
        assert (home.head(), on_disk.read_text()) == (revert, "three")
