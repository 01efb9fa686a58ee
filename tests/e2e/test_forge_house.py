"""Both planes ask the forge: what was not approved there does not get in, and what was already proven goes on without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.forge import ForgeSite, PullRequest, forge_site
from tests.kit.house import House, house
from tests.kit.modules import CATALOG, data, environment
from tests.kit.story import at, env

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ForgeSite]:
    with forge_site(tmp_path / "forge") as site:
        yield site


@pytest.fixture
def home(tmp_path: Path, site: ForgeSite) -> Iterator[House]:
    forge = site.config("github", "acme/environments")
    repo = {"environments_repo": {"forge": forge, "poll_interval": "1s"}}
    entries = {env("prod"): environment(), at("prod/a"): data(1)}
    with house(
        tmp_path / "house", entries, CATALOG, controller=repo, runner={"environments_repo": {"forge": forge}}
    ) as home:
        made = site.repository("acme/environments", home.ground.environments)
        for login in ("ada", "bob"):
            site.person(login)
            made.access[login] = "write"
        yield home


def opened(site: ForgeSite, value: int, branch: str) -> PullRequest:
    return site.repos["acme/environments"].open(site.people["ada"], {at("prod/a"): data(value)}, branch)


def waits(home: House) -> str:
    """Why the newest commits are not accepted."""
    found = home.get("/api/v1/status")["trust"]["unproven"]
    return f"{found['reason']}: {found['message']}" if found else ""


def test_nothing_gets_in_without_approval(site: ForgeSite, home: House) -> None:
    home.start()
    home.synced()
    genesis = home.head()

    unapproved = opened(site, 2, "one")
    commit = unapproved.merge()
    home.until(lambda: "0 of 1 approvals" in waits(home), "the merge is refused")
    assert home.head() == genesis

    unapproved.review(site.people["bob"])  # on the merged pull request: it goes on by itself
    home.until(lambda: home.head() == commit, "the approved merge is accepted")
    home.synced(commit=commit)

    site.fault = "down"
    approved = opened(site, 3, "two")
    approved.review(site.people["bob"])
    later = approved.merge()
    home.until(lambda: "does not answer" in waits(home), "the forge is missed")
    assert home.head() == commit
    home.stop()
    home.start()  # what was proven needs the forge no more, on either plane
    home.synced(commit=commit)
    assert home.head() == commit

    site.fault = ""
    home.until(lambda: home.head() == later, "the forge is back")
    home.synced(commit=later)

    pushed = home.ground.commit_direct({"notes.txt": "not reviewed\n"})
    home.until(lambda: "no pull request brought" in waits(home), "the direct push is refused")
    assert home.head() == later != pushed
    assert "no pull request brought" in home.command("status").stdout

    site.repos["acme/environments"].shield.force_push = True
    home.stop()
    home.start()  # which looks at once, and then every ten minutes
    home.until(lambda: "force_push_forbidden" in home.command("status").stdout, "the missing protection is shown")
