"""A house whose keys are on: only what an allowed person has merged goes in, and what was merged stays in force."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass
class Host:
    """The key files of both planes, and what the house is configured with."""

    folder: Path

    def __post_init__(self) -> None:
        self.signers, self.revoked = self.folder / "signers", self.folder / "revoked"
        self.revoked.write_text("")
        signatures = {"allowed_signers": str(self.signers), "revoked_keys": str(self.revoked)}
        self.trust = {
            "environments_repo": {"signatures": signatures, "poll_interval": "1h"}
        }  # files that change wake it

    @contextmanager
    def house(self) -> Iterator[House]:
        """One unit that writes a page."""
        entries = {env("prod"): environment(), **page("one")}
        with house(self.folder / "h", entries, CATALOG, controller=self.trust, runner=self.trust) as home:
            home.start()
            home.synced()  # the genesis
            yield home


def page(content: str) -> dict[str, str]:
    return {at("prod/page"): entry("file", {"path": "page", "content": content})}


def test_unsigned_merges_hold_and_signed_ones_go_on(tmp_path: Path, ssh_keys: SshKeys) -> None:
    host, ada, bob = Host(tmp_path), ssh_keys["ada"], ssh_keys["bob"]
    host.signers.write_text("# version: 1\n" + ada.line())
    with host.house() as home:
        on_disk = home.ground.world / "page"
        good = merge(home, page("two"), ada)
        home.synced()
        assert (home.head(), on_disk.read_text()) == (good, "two")

        # A merge that nobody signed: it is named, and what was good before stays in force.
        bad = home.ground.environments.merge(page("evil"), "quick")
        waits = home.until(lambda: home.get("/api/v1/status")["trust"]["unproven"], "the unsigned merge is told")
        assert (waits["commit"], waits["reason"]) == (bad, "SignatureMissing")
        assert home.head() == good
        result = runner_does(home, "prod/page", bad)  # not for a controller in wrong hands either
        assert (result.outcome.value, result.reason) == ("Held", "CommitNotAccepted")
        on_disk.write_text("by hand")
        home.command("reconcile", "prod/page")
        home.until(lambda: on_disk.read_text() == "two", "drift is still corrected to the last good commit")

        # Keys change hands: whoever is on the list now may merge, and what was proven stays so.
        home.ground.environments.point("main", good)
        host.signers.write_text("# version: 2\n" + bob.line("bob@example.org"))
        last = merge(home, page("three"), bob)
        home.synced()
        assert (home.head(), on_disk.read_text()) == (last, "three")


def test_a_stolen_key_freezes_until_a_person_has_looked(tmp_path: Path, ssh_keys: SshKeys) -> None:
    host, bob, eve = Host(tmp_path), ssh_keys["bob"], ssh_keys["eve"]
    host.signers.write_text(bob.line("bob@example.org") + eve.line("eve@example.org"))
    with host.house() as home:
        last = merge(home, page("evil"), eve)
        home.synced()
        host.revoked.write_text(f"{eve.public} stolen\n")
        frozen = home.until(lambda: home.get("/api/v1/status")["frozen"], "the revoked signature freezes everything")
        assert frozen["reason"] == "SignatureRevoked"
        assert last in frozen["message"]
        assert eve.name in frozen["message"]
        (home.ground.folder / "runner" / "fetched").unlink(missing_ok=True)  # a fetch of a moment ago would still count
        result = runner_does(home, "prod/page", last)
        assert (result.outcome.value, result.reason) == ("Held", "SignatureRevoked")

        revert = merge(home, page("one"), bob)
        words = ("accept-history", last, revert, "--reason", "eve's key was stolen, her change is reverted")
        admin = home.command(*words)
        assert admin.returncode == 0, admin.stderr
        on_host = home.command("runner", *words, "--config", str(home.ground.runner_config))
        assert on_host.returncode == 0, on_host.stderr
        home.synced()
        assert (home.head(), (home.ground.world / "page").read_text()) == (revert, "one")
        assert not home.get("/api/v1/status")["frozen"]  # although the key still is on the list
