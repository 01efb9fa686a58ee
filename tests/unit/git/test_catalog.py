from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, PassError, UnitError
from reconciler.git.catalog import CatalogRepo, PinnedTree, Tag
from reconciler.git.command import Remote
from reconciler.git.digest import tree_digest
from reconciler.model import Commit
from tests.kit.gitrepo import RepoBuilder, loosen

FILES = {
    "modules/vpc/main.tf": 'module "shared" {\n  source = "../shared"\n}\n',
    "modules/shared/main.tf": 'output "x" {\n  value = 1\n}\n',
    "README.md": "# The catalog\n",
}


@pytest.fixture
def repo(tmp_path: Path) -> RepoBuilder:
    repo = RepoBuilder.create(tmp_path / "catalog.git")
    repo.commit(FILES)
    repo.tag("v1.9.0")
    repo.commit({"modules/vpc/outputs.tf": ""})
    repo.tag("v1.10.0", annotated=True)
    return repo


@pytest.fixture
def catalog(tmp_path: Path, repo: RepoBuilder) -> CatalogRepo:
    catalog = CatalogRepo(Remote(repo.url), "main", tmp_path / "mirror", allow_file=True)
    catalog.update()
    return catalog


def reason(error: pytest.ExceptionInfo[UnitError]) -> str:
    return error.value.reason


def test_tags_resolve_to_commits(catalog: CatalogRepo, repo: RepoBuilder) -> None:
    first, second = Commit(repo.git("rev-parse", "v1.9.0")), Commit(str(repo.head()))
    assert catalog.tags() == (Tag("v1.9.0", first), Tag("v1.10.0", second))
    assert catalog.resolve_version("v1.10.0") == second
    assert catalog.resolve_version(first) == first


@pytest.mark.parametrize("ref", ["v9", "main", "HEAD", "--all", "v1.9.0\nv9", "v1.9.0~1", "", "1" * 40])
def test_only_tags_and_commits_of_the_branch_are_versions(catalog: CatalogRepo, ref: str) -> None:
    with pytest.raises(UnitError) as error:
        catalog.resolve_version(ref)
    assert reason(error) == "CatalogPinMissing"


def test_a_missing_tag_names_those_that_exist(catalog: CatalogRepo) -> None:
    with pytest.raises(UnitError, match=r"no tag 'v2'; newest tags: v1\.9\.0, v1\.10\.0"):
        catalog.resolve_version("v2")


def test_a_tag_outside_the_protected_branch_is_refused(catalog: CatalogRepo, repo: RepoBuilder) -> None:
    repo.branch_off("rogue")
    repo.tag("v6.6.6", repo.commit({"evil.tf": ""}, branch="rogue"))
    catalog.update()
    with pytest.raises(UnitError, match="merge it there first") as error:
        catalog.resolve_version("v6.6.6")
    assert reason(error) == "CatalogUnreachable"


def test_reachable_means_in_the_protected_branch(catalog: CatalogRepo, repo: RepoBuilder) -> None:
    first = Commit(repo.git("rev-parse", "v1.9.0"))
    stray = repo.commit_tree(repo.tree({"a": ("100644", repo.blob("x"))}))
    repo.tag("stray", stray)
    catalog.update()
    assert catalog.reachable(first)
    assert catalog.reachable(catalog.head())
    assert not catalog.reachable(stray)
    assert not catalog.reachable(Commit("1" * 40))


def test_a_moved_tag_keeps_its_meaning_and_does_not_stop_the_branch(catalog: CatalogRepo, repo: RepoBuilder) -> None:
    before = catalog.resolve_version("v1.9.0")
    repo.tag("v1.9.0", str(repo.head()), force=True)
    new = repo.commit({"modules/new/main.tf": ""})
    repo.tag("v2.0.0")
    assert catalog.update() == new
    assert catalog.moved_tags
    assert catalog.resolve_version("v1.9.0") == before
    assert catalog.resolve_version("v2.0.0") == new
    repo.tag("v1.9.0", before, force=True)
    catalog.update()
    assert not catalog.moved_tags


def test_a_rewritten_catalog_is_refused_and_stays_readable(catalog: CatalogRepo, repo: RepoBuilder) -> None:
    before = catalog.head()
    repo.point("main", repo.commit_tree(repo.tree({"a": ("100644", repo.blob("x"))})))
    with pytest.raises(PassError) as error:
        catalog.update()
    assert error.value.reason == "HistoryRewritten"
    assert catalog.head() == before
    assert catalog.reachable(before)


def test_only_tags_of_the_pattern_are_fetched(tmp_path: Path, repo: RepoBuilder) -> None:
    repo.tag("nightly")
    catalog = CatalogRepo(Remote(repo.url), "main", tmp_path / "other", allow_file=True, tags="v*")
    catalog.update()
    assert [tag.name for tag in catalog.tags()] == ["v1.9.0", "v1.10.0"]


@pytest.mark.parametrize(("branch", "tags"), [("main", "v*:x"), ("main", "v* x"), ("main", "*v*"), ("a b", "*")])
def test_configuration_that_would_mean_something_to_git_is_refused(tmp_path: Path, branch: str, tags: str) -> None:
    with pytest.raises(ConfigError):
        CatalogRepo(Remote("/x"), branch, tmp_path, tags=tags)


def test_the_digest_is_over_every_file_of_the_commit(catalog: CatalogRepo, repo: RepoBuilder) -> None:
    commit = catalog.resolve_version("v1.9.0")
    expected = tree_digest(("100644", path, hashlib.sha256(text.encode()).digest()) for path, text in FILES.items())
    assert catalog.module_digest(commit, "modules/vpc") == expected
    assert catalog.module_digest(commit, "modules/shared/") == expected
    assert catalog.module_digest(catalog.head(), "modules/vpc") != expected


def test_attributes_that_would_change_an_archive_change_nothing(catalog: CatalogRepo, repo: RepoBuilder) -> None:
    files = {
        ".gitattributes": "hidden.tf export-ignore\n*.tf export-subst text eol=crlf\n",
        "hidden.tf": "$Format:%H$\n",
    }
    commit = repo.commit(files)
    catalog.update()
    contents = catalog.contents(commit)
    assert contents["hidden.tf"] == ("100644", b"$Format:%H$\n")
    assert "modules/vpc/main.tf" in contents


def test_an_executable_file_is_told_apart(catalog: CatalogRepo, repo: RepoBuilder) -> None:
    plain = repo.commit({"modules/vpc/run.sh": "x"})
    program = repo.commit({"modules/vpc/run.sh": "x"}, executable=("modules/vpc/run.sh",))
    catalog.update()
    assert catalog.module_digest(plain, "modules/vpc") != catalog.module_digest(program, "modules/vpc")


def test_a_pin_holds_what_the_lock_records(catalog: CatalogRepo) -> None:
    commit = catalog.resolve_version("v1.10.0")
    digest = catalog.module_digest(commit, "modules/vpc")
    assert catalog.pin("modules/vpc/", "v1.10.0") == PinnedTree("modules/vpc", "v1.10.0", commit, digest)


@pytest.mark.parametrize("path", ["modules", "modules/nothing", "", "../vpc", "README.md"])
def test_a_module_that_is_not_there(catalog: CatalogRepo, path: str) -> None:
    with pytest.raises(UnitError, match="correct `path`") as error:
        catalog.pin(path, "v1.9.0")
    assert reason(error) == "CatalogModuleMissing"


def test_every_kind_of_file_makes_a_module_and_all_modules_of_a_commit_have_one_digest(
    catalog: CatalogRepo, repo: RepoBuilder
) -> None:
    commit = repo.commit(
        {"main.tf": "", "modules/json/main.tf.json": "{}", "modules/t/a.tofu": "", "modules/j/a.tofu.json": "{}"}
    )
    catalog.update()
    digests = {catalog.module_digest(commit, path) for path in ("", "modules/json", "modules/t", "modules/j")}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("mode", "path"),
    [("120000", "link.tf"), ("160000", "submodule"), ("100644", "a\nb"), ("100644", "back\\slash"), ("100644", " x")],
)
def test_a_tree_with_something_odd_is_refused_whole(
    catalog: CatalogRepo, repo: RepoBuilder, mode: str, path: str
) -> None:
    target = "1" * 40 if mode == "160000" else repo.blob("x")
    commit = repo.record({path: (mode, target)}, parents=(Commit(str(repo.head())),))
    catalog.update()
    with pytest.raises(UnitError, match="take it out of the catalog") as error:
        catalog.module_digest(commit, "modules/vpc")
    assert reason(error) == "CatalogTreeRefused"


@pytest.mark.parametrize("path", ["a b.md", "x@2x.png", "notes (1).txt", "a+b~c,d=e", ".github/workflows/ci.yml"])
def test_ordinary_names_are_fine(catalog: CatalogRepo, repo: RepoBuilder, path: str) -> None:
    commit = repo.commit({path: "x"})
    catalog.update()
    assert path in catalog.contents(commit)


def test_a_commit_that_is_not_there(catalog: CatalogRepo) -> None:
    with pytest.raises(UnitError, match="correct the lock") as error:
        catalog.module_digest(Commit("1" * 40), "modules/vpc")
    assert reason(error) == "CatalogPinMissing"


def test_before_the_first_fetch_nothing_is_known(tmp_path: Path, repo: RepoBuilder) -> None:
    catalog = CatalogRepo(Remote(repo.url), "main", tmp_path / "new", allow_file=True)
    with pytest.raises(PassError) as error:
        catalog.head()
    assert error.value.reason == "CatalogUnavailable"
    assert not catalog.has(Commit(str(repo.head())))


def test_any_branch_can_be_fetched_for_a_sandbox_even_rewritten(catalog: CatalogRepo, repo: RepoBuilder) -> None:
    repo.branch_off("feature")
    first = repo.commit({"a.tf": "1"}, branch="feature")
    assert catalog.fetch_branch("feature") == first
    repo.point("feature", repo.commit_tree(repo.tree({"a.tf": ("100644", repo.blob("2"))})))
    assert catalog.fetch_branch("feature") == repo.head("feature")
    assert not catalog.reachable(first)
    repo.git("update-ref", "-d", "refs/heads/feature")
    nested = repo.commit({"a.tf": "3"}, branch="feature/nested")
    assert catalog.fetch_branch("feature/nested") == nested


@pytest.mark.parametrize("name", ["nothing", "a:b", "-x", "*"])
def test_a_branch_that_is_not_there(catalog: CatalogRepo, name: str) -> None:
    with pytest.raises(UnitError) as error:
        catalog.fetch_branch(name)
    assert reason(error) == "CatalogPinMissing"


def test_a_broken_mirror_ends_the_pass_and_the_next_update_heals(catalog: CatalogRepo, repo: RepoBuilder) -> None:
    commit = catalog.head()
    loosen(catalog.git.folder)
    blob = repo.blob(FILES["README.md"])
    (catalog.git.folder / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(PassError):
        catalog.contents(commit)
    catalog.update()
    assert catalog.contents(commit)["README.md"] == ("100644", FILES["README.md"].encode())


def test_the_digest_agrees_with_a_checkout_by_hand(tmp_path: Path, catalog: CatalogRepo, repo: RepoBuilder) -> None:
    work = tmp_path / "work"
    subprocess.run(["git", "clone", "-q", str(repo.folder), str(work)], check=True)
    files = [path for path in work.rglob("*") if path.is_file() and ".git" not in path.parts]
    rows = [("100644", str(path.relative_to(work)), hashlib.sha256(path.read_bytes()).digest()) for path in files]
    assert catalog.module_digest(catalog.head(), "modules/vpc") == tree_digest(rows)
