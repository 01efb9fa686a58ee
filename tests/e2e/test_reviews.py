"""From an open pull request to the apply that it binds: a forge over HTTPS, both planes as processes, real Terraform."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler import codec, wire
from reconciler.demo.example import Releases
from reconciler.demo.forge import Files
from reconciler.model import Commit, Job, JobId, Operation, UnitId
from tests.kit import modules
from tests.kit.forge import KINDS, ForgeSite, PullRequest, Repo, forge_site
from tests.kit.house import House, house
from tests.kit.plane import CATALOG, ENVIRONMENT, PROD, note

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ALLOW = [
    {"operations": ["plan", "apply"], "refs": "merged", "folders": ["environments/**"]},
    {"operations": ["plan"], "refs": "pulls", "folders": ["environments/**"]},
]


def entry(name: str) -> str:
    return f"{PROD}/{name}.yaml"


@dataclass
class Street:
    """A house, and the forge that its repository is on."""

    house: House
    site: ForgeSite
    repo: Repo

    def open(self, files: dict[str, str | bytes | None], branch: str, author: str = "ada") -> PullRequest:
        return self.repo.open(self.site.person(author), files, branch)

    def merge(self, pull: PullRequest) -> Commit:
        pull.review(self.site.person("bob"))
        return pull.merge(self.site.person("bob"))

    def pull(self, number: int) -> dict[str, Any]:
        pulls = self.house.get("/api/v1/pulls")["pulls"]
        return next((one for one in pulls if one["number"] == number), {})

    def state(self, pull: PullRequest, unit: str, state: str) -> dict[str, Any]:
        """Wait until the head of the pull request shows a unit so."""

        def found() -> dict[str, Any] | None:
            one = self.pull(pull.number)
            units = one["units"] if one.get("head") == pull.head else []
            return next((u for u in units if u["unit"] == unit and u["state"] == state), None)

        shown: dict[str, Any] = self.house.until(found, f"#{pull.number} shows {unit} {state}")
        return shown

    def refused(self, pull: PullRequest, reason: str) -> None:
        self.house.until(lambda: self.pull(pull.number).get("reason") == reason, f"#{pull.number} shows {reason}")


@contextmanager
def living(
    folder: Path, entries: Files, catalog: Releases, kind: str = "github", *, reports: bool = False
) -> Iterator[Street]:
    with ExitStack() as stack:
        site = stack.enter_context(forge_site(folder / "site"))
        over = {"environments_repo": {"forge": site.config(kind, "acme/environments"), "poll_interval": "1s"}}
        said = {"reports": {"token_file": str(site.token_file)}} if reports else {}
        built = stack.enter_context(
            house(folder / "house", entries, catalog, controller={**over, **said}, runner={**over, "allow": ALLOW})
        )
        repo = site.repository("acme/environments", built.ground.environments)
        for login in ("ada", "bob"):
            repo.access[site.person(login).login] = "write"
        built.start()
        built.synced()
        yield Street(built, site, repo)


ENTRIES: Files = {**ENVIRONMENT, entry("a"): note(), entry("z"): note("z")}


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    with living(tmp_path, ENTRIES, CATALOG) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_shown_is_applied_and_what_slipped_in_is_held(tmp_path: Path, kind: str) -> None:
    with living(tmp_path, ENTRIES, CATALOG, kind) as street:
        shown_and_slipped_in(street)


def shown_and_slipped_in(street: Street) -> None:
    first = street.open({entry("a"): note("two")}, "first")
    shown = street.state(first, "prod/a", "planned")
    assert [(c["address"], c["actions"]) for c in shown["changes"]] == [("module.unit.terraform_data.this", ["update"])]
    assert "two" not in str(street.pull(first.number))
    assert "update" in street.house.command("pulls").stdout
    street.house.synced(commit=street.merge(first))

    second = street.open({entry("a"): "# harmless\n" + note("two")}, "second")
    street.state(second, "prod/a", "planned")
    second.push({entry("a"): note("slipped in")})
    street.merge(second)  # before anybody could have planned that
    held = street.house.held("prod/a", "PlanExceedsReview")
    assert f"#{second.number}" in held["message"]


def test_drift_in_between_does_not_block_and_a_deletion_in_between_does(tmp_path: Path) -> None:
    def files(*paths: str) -> str:
        return modules.entry("files", {"paths": paths})

    before = {
        f"{PROD}/environment.yaml": modules.environment(limits={"destroy": 5}),
        entry("a"): files("one", "two", "three"),
    }
    with living(tmp_path, before, modules.CATALOG) as street:
        world = street.house.ground.world
        first = street.open({entry("a"): files("one", "two", "three", "four")}, "first")
        shown = street.state(first, "prod/a", "planned")
        assert [c["actions"] for c in shown["changes"]] == [["create"]]
        (world / "one").write_text("changed by hand")
        (world / "two").unlink()
        street.house.synced(commit=street.merge(first))
        assert (world / "one").read_text() == (world / "two").read_text() == (world / "four").read_text() == "x"

        second = street.open({entry("a"): files("one", "two", "three", "four", "five")}, "second")
        street.state(second, "prod/a", "planned")
        second.push({entry("a"): files("one", "two", "five")})  # the limits would let it through
        street.merge(second)
        held = street.house.held("prod/a", "PlanExceedsReview")
        assert "delete" in held["message"]
        assert (world / "three").exists()


def test_a_deploy_of_three_and_a_stranger_and_a_hostile_one(street: Street) -> None:
    stranger = street.open({entry("a"): note("theirs")}, "stranger", author="eve")
    blob = street.repo.run("rev-parse", "main:catalog-lock.yaml")
    tree = "".join(f"100644 blob {blob}\tf{n}\n" for n in range(10_000))
    wide = street.open({"README.md": "x\n"}, "wide")
    path = street.house.ground.folder / "tree"
    path.write_text(tree)
    with path.open("rb") as names:
        made = subprocess.run(
            ["git", f"--git-dir={street.repo.git.folder}", "mktree"], stdin=names, capture_output=True, check=True
        )
    commit = street.repo.make(made.stdout.decode().strip(), "Many", (wide.head,), "ada <ada@example.com>")
    wide.heads.append((commit, street.site.moment()))
    street.repo.point(f"refs/pull/{wide.number}/head", commit, street.repo)
    three = street.open({entry("b"): note(), entry("c"): note("${{ b.id }}"), entry("d"): note("${{ c.id }}")}, "three")
    street.refused(stranger, "PullAuthorUnknown")
    street.refused(wide, "PullTooLarge")
    assert street.state(three, "prod/b", "planned")["changes"]
    for unit in ("prod/c", "prod/d"):
        assert street.state(three, unit, "follows")["changes"] == []
    street.house.synced(commit=street.merge(three))


def test_a_compromised_controller_starts_nothing_with_a_pull_request(street: Street) -> None:
    pull = street.open({entry("a"): note("two")}, "first")
    street.state(pull, "prod/a", "planned")
    pull.state = "closed"
    street.house.until(lambda: not street.pull(pull.number), "it is gone")
    socket = street.house.ground.runtime / "runner.sock"
    head = street.house.ground.environments.head
    asked = {
        "closed": Job(JobId("x-1"), Operation.PLAN, UnitId("prod/a"), pull.head, 2**40, pull.number),
        "merged": Job(JobId("x-2"), Operation.PLAN, UnitId("prod/a"), head, 2**40, pull.number),
        "none": Job(JobId("x-3"), Operation.PLAN, UnitId("prod/a"), pull.head, 2**40, 99),
    }
    for job in asked.values():
        wire.ask(socket, {"verb": "start", "job": codec.encode(job).decode()})
    for job in asked.values():
        folder = street.house.ground.folder / "runner" / "spool" / job.id
        street.house.until(lambda f=folder: (f / "result.json").exists(), f"{job.id} ended")  # type: ignore[misc]  # a default argument
        assert not (folder / "log.txt").exists()  # the engine was never started
    apply = Job(JobId("x-4"), Operation.APPLY, UnitId("prod/a"), pull.head, 2**40, pull.number)
    with pytest.raises(Exception, match="never applied"):
        wire.ask(socket, {"verb": "start", "job": codec.encode(apply).decode()})
