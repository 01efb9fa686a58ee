"""The protected branch and the catalogs remember what cannot have changed, and nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.branch.protected import Catalogs, ProtectedBranch
from reconciler.demo import example
from reconciler.demo.forge import Forge
from reconciler.errors import PassError, UnitError
from reconciler.git.catalog import CatalogRepo
from reconciler.git.remote import Remote
from reconciler.git.source import EnvironmentsSource
from reconciler.model import Pin, UnitId
from tests.kit.gitrepo import Memory
from tests.kit.graph import CATALOG, LOCK, Graph

GRAPH = Graph(chains=1, length=2, leaves=0)


class Site:
    """A catalog and an environments repository, and the branch over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog, self.environments = (
            Forge.create(folder / "catalog.git"),
            Forge.create(folder / "environments.git"),
        )
        example.release(self.catalog, CATALOG)
        self.environments.commit({LOCK: example.lock_of(self.catalog, CATALOG, "acme"), **GRAPH.files()}, "First")
        self.source = EnvironmentsSource(
            Remote(self.environments.url), "main", folder / "mirror", Memory(),
            genesis=None, genesis_required=False, allow_file=True,
        )  # fmt: skip
        repository = CatalogRepo(Remote(self.catalog.url), "main", folder / "catalog-mirror", allow_file=True)
        self.catalogs = Catalogs({"acme": repository}, folder / "trees")
        self.branch = ProtectedBranch(self.source, self.catalogs)

    def pin(self) -> Pin:
        return self.branch.load(self.source.poll().commit).units[UnitId("prod/chain-0-0")].pin


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_commit_is_read_once(site: Site) -> None:
    commit = site.source.poll().commit
    meaning = site.branch.load(commit)
    shutil.rmtree(site.folder / "mirror")

    assert len(meaning.units) == 2
    assert site.branch.load(commit) is meaning


def test_a_sandbox_s_branch_is_looked_up_each_time(site: Site) -> None:
    sandbox = "class: sandbox\n"
    entry = "module: acme/link\nref: mine\ninputs: {label: x}\n"
    site.catalog.commit({"README.md": "mine"}, "Mine", branch="mine")
    site.environments.commit({"environments/lab/environment.yaml": sandbox, "environments/lab/x.yaml": entry}, "Lab")
    commit = site.source.poll().commit
    first = site.branch.load(commit).units[UnitId("lab/x")].pin.commit
    moved = site.catalog.commit({"README.md": "moved"}, "Moved", branch="mine")

    assert first != moved
    assert site.branch.load(commit).units[UnitId("lab/x")].pin.commit == moved


def test_a_pin_is_vouched_for_by_the_branch_as_it_was_fetched(site: Site) -> None:
    pin = site.pin()
    assert not site.catalogs.vouches(pin)  # nothing was fetched yet
    assert (site.catalogs.tree(pin) / "modules/link/main.tf").is_file()
    assert site.catalogs.vouches(pin)

    stray = replace(pin, commit=site.catalog.commit({"README.md": "no"}, "Stray", branch="stray"))
    assert not site.catalogs.vouches(stray)
    with pytest.raises(UnitError, match="is not on the catalog's protected branch"):
        site.catalogs.tree(stray)


def test_what_was_proven_stays_proven_and_another_head_proves_nothing_new(site: Site) -> None:
    pin = site.pin()
    site.catalogs.tree(pin)
    heads = [path for path in (site.folder / "catalog-mirror").rglob("refs/reconciler/head") if path.is_file()]
    assert heads
    for head in heads:
        head.write_text(f"{'0' * 39}1\n")

    assert site.catalogs.vouches(pin)
    other = replace(pin, commit=site.catalog.commit({"README.md": "on"}, "On"))
    assert [pin for pin, _ in site.catalogs.unproven([pin, other], offline=True)] == [other]


def test_a_catalog_that_is_not_there_says_so(site: Site) -> None:
    pin = site.pin()
    shutil.rmtree(site.catalog.folder)
    with pytest.raises(PassError):
        site.catalogs.tree(pin)


def test_a_tag_that_was_moved_is_seen_and_changes_nothing(site: Site) -> None:
    pin = site.pin()
    site.catalogs.tree(pin)
    assert not site.catalogs.moved_tags
    site.catalog.tag(pin.ref, site.catalog.commit({"README.md": "evil"}, "Evil"))
    other = replace(pin, commit=site.catalog.head)
    assert site.catalogs.unproven([pin, other]) == []  # proving another pin fetches
    assert site.catalogs.moved_tags == ("acme",)
    assert site.catalogs.vouches(pin)
