from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from reconciler.config import Forge as Configured
from reconciler.errors import PassError
from reconciler.forge import Bounds, Forge, Merged, open_forge
from reconciler.forge.dialect import LOOKED_AT
from reconciler.model import Commit
from tests.kit.forge import KINDS, TOKEN, ForgeSite, PullRequest
from tests.kit.merges import NAME, WAYS, Scene, Way, approved, approved_by_who_pushed_last, unknown_commit

PATIENT = Bounds(
    deadline=60.0, connect=60.0, size=1 << 20, pages=4
)  # each answer is looked up by git: seconds, at times
QUICK = replace(PATIENT, deadline=1.0)
EARLY = ("ForgeUnreachable", "ForgeLimited", "ForgeRefused", "ForgeUnknown", "ForgeNonsense")


def opened(site: ForgeSite, kind: str, bounds: Bounds = PATIENT, **more: Any) -> Forge:
    given = {**site.config(kind, NAME), **more}
    return open_forge(Configured.model_validate(given), "main", bounds=bounds)


def refused(ask: Callable[[], object]) -> PassError:
    with pytest.raises(PassError) as caught:
        ask()
    assert TOKEN not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_each_way_has_its_verdict(scene: Scene, way: Way, kind: str) -> None:
    commit = way.go(scene)
    forge = opened(scene.site, kind, min_approvals=way.needed)
    if not way.reason:
        found = forge.merged(commit)
        assert (found.approvers, found.head) == (way.approvers, scene.repo.pulls[-1].head)
        assert found.author == scene.repo.pulls[-1].author.login
        return
    error = refused(lambda: forge.merged(commit))
    assert (error.reason, NAME in str(error)) == (way.reason, True)


@pytest.mark.parametrize("kind", ["github", "gitea"])  # GitLab does not tell who made a commit
def test_who_pushed_the_head_does_not_approve_it(scene: Scene, kind: str) -> None:
    commit = approved_by_who_pushed_last(scene)
    error = refused(lambda: opened(scene.site, kind).merged(commit))
    assert (error.reason, "bob made the change" in str(error)) == ("ApprovalMissing", True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_commit_that_the_forge_does_not_have_is_held(scene: Scene, kind: str) -> None:
    commit = unknown_commit(scene)
    assert refused(lambda: opened(scene.site, kind).merged(commit)).reason in (*EARLY, "PullRequestMissing")


@pytest.mark.parametrize("kind", KINDS)
def test_the_refusal_says_who_approved_and_why_that_does_not_count(scene: Scene, kind: str) -> None:
    pull = scene.opened()
    pull.review(scene.who("bob"))
    pull.push({"more": "x"})
    for login in ("ada", "eve"):
        pull.review(scene.who(login))
    said = str(refused(lambda: opened(scene.site, kind).merged(pull.merge())))
    for part in ("#1 has 0 of 1", "bob approved an older head", "ada made the change", "eve has no write access"):
        assert part in said


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_commit_at_a_fork_is_the_forks_own(scene: Scene, kind: str) -> None:
    """The fork merged the very commit by a pull request of its own; asked of ours, none did."""
    fork = scene.fork()
    fork.access = {"eve": "admin", "bob": "write"}
    pull = fork.open(scene.who("eve"), {"x": "y"}, "evil")
    pull.review(scene.who("bob"))
    commit = pull.merge()
    scene.repo.point("refs/heads/main", commit, fork)
    scene.repo.pulls.append(pull)  # the forge shows it here, too
    assert refused(lambda: opened(scene.site, kind).merged(commit)).reason == "PullRequestMissing"


def also_merged(scene: Scene, head: Commit, result: Commit) -> PullRequest:
    """A second pull request, which the forge takes for merged because its head is in the branch now."""
    other = scene.opened(branch=f"other-{len(scene.repo.pulls)}")
    other.heads.append((head, scene.site.moment()))
    other.result, other.state = result, "merged"
    return other


@pytest.mark.parametrize("kind", ["github", "gitlab"])  # Gitea knows one pull request at most for a commit
@pytest.mark.parametrize("others", [1, 6])
def test_nobody_holds_a_merge_by_opening_more_pull_requests_of_its_head(scene: Scene, kind: str, others: int) -> None:
    commit = approved(scene)
    for _ in range(others):
        also_merged(scene, scene.repo.pulls[0].head, commit)
    found = opened(scene.site, kind).merged(commit)
    assert (found.pull, found.approvers) == (1, ("bob",))


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_more_pull_requests_than_are_looked_at_once_hold_a_merge_for_some_looks_only(scene: Scene, kind: str) -> None:
    first = scene.opened()
    commit = first.merge()
    for _ in range(LOOKED_AT):
        also_merged(scene, first.head, commit)
    right = also_merged(scene, first.head, commit)
    right.review(scene.who("bob"))
    forge = opened(scene.site, kind)
    for _ in range(60):  # each finds it with eight chances of ten
        with suppress(PassError):
            assert forge.merged(commit).pull == right.number
            return
    pytest.fail("the approved one was never looked at")


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_the_approval_of_any_pull_request_of_the_head_counts_and_none_is_none(scene: Scene, kind: str) -> None:
    first = scene.opened()
    commit = first.merge()
    other = also_merged(scene, first.head, commit)
    assert refused(lambda: opened(scene.site, kind).merged(commit)).reason == "ApprovalMissing"
    other.review(scene.who("bob"))
    assert opened(scene.site, kind).merged(commit).pull == 2


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_a_stack_that_was_merged_by_its_top_counts_by_the_top_alone(scene: Scene, kind: str) -> None:
    """The lower one was of a commit on the way: its approval is of less, so it proves nothing, and holds nothing either."""
    top = scene.opened()
    middle = top.head
    top.push({"more": "x"})
    lower_approved = top.merge()
    lower = also_merged(scene, middle, lower_approved)
    lower.review(scene.who("bob"))
    assert refused(lambda: opened(scene.site, kind).merged(lower_approved)).reason == "ApprovalMissing"
    top.review(scene.who("bob"))
    assert opened(scene.site, kind).merged(lower_approved).pull == 1


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_a_squashed_commit_of_several_pull_requests_needs_the_approval_of_each(scene: Scene, kind: str) -> None:
    first = scene.opened()
    first.review(scene.who("bob"))
    commit = first.merge(method="squash")
    other = also_merged(scene, first.head, commit)
    other.squashed = commit
    assert refused(lambda: opened(scene.site, kind).merged(commit)).reason == "ApprovalMissing"
    other.review(scene.who("bob"))
    assert opened(scene.site, kind).merged(commit).pull == 1


@pytest.mark.parametrize("kind", KINDS)
def test_many_reviews_are_read_to_the_last_page(scene: Scene, kind: str) -> None:
    """A server may give fewer to a page than it is asked for: the word that counts is on the last."""
    scene.site.page_size = 7
    pull = scene.opened()
    pull.review(scene.who("bob"))
    for _ in range(12):
        pull.review(scene.who("cy"), "comment")
    pull.review(scene.who("bob"), "refuse")
    commit = pull.merge()
    assert refused(lambda: opened(scene.site, kind).merged(commit)).reason == "ApprovalMissing"
    pull.review(scene.who("bob"))
    assert opened(scene.site, kind).merged(commit).approvers == ("bob",)


@pytest.mark.parametrize("kind", KINDS)
def test_more_pages_than_any_review_needs_prove_nothing(scene: Scene, kind: str) -> None:
    scene.site.page_size = 2
    pull = scene.opened()
    pull.review(scene.who("bob"))
    for _ in range(10):
        pull.review(scene.who("cy"), "comment")
    assert refused(lambda: opened(scene.site, kind).merged(pull.merge())).reason == "ForgeNonsense"


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_in_other_case_is_the_same_repository_and_the_same_person(scene: Scene, kind: str) -> None:
    pull = scene.opened()
    pull.review(scene.who("bob"))
    commit = pull.merge()
    assert opened(scene.site, kind, repository="ACME/Environments").merged(commit).approvers == ("bob",)
    other = scene.site.person("ADA")  # no forge has both; if one said so, it would be Ada all the same
    scene.repo.access["ADA"] = "admin"
    pull.reviews.clear()
    pull.review(other)
    assert refused(lambda: opened(scene.site, kind).merged(commit)).reason == "ApprovalMissing"


@pytest.mark.parametrize("kind", KINDS)
def test_a_renamed_repository_is_asked_by_its_new_name(scene: Scene, kind: str) -> None:
    commit = approved(scene)
    scene.repo.moved_to = "acme/other"
    error = refused(lambda: opened(scene.site, kind).merged(commit))
    assert (error.reason, "moved" in str(error)) == ("ForgeUnknown", True)
    scene.repo.moved_to = ""
    key = "path_with_namespace" if kind == "gitlab" else "full_name"
    scene.site.change = lambda _path, answer: {**answer, key: "acme/other"} if key in answer else answer
    error = refused(lambda: opened(scene.site, kind).merged(commit))
    assert (error.reason, "acme/other" in str(error)) == ("ForgeUnknown", True)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_asked_by_id_whether_the_approver_writes(scene: Scene, kind: str) -> None:
    """Somebody took the name that an approver gave up: the access is theirs, the approval was not."""
    commit = approved(scene)
    scene.site.change = _as_another
    assert refused(lambda: opened(scene.site, kind).merged(commit)).reason == "ApprovalMissing"


def _as_another(path: str, answer: Any) -> Any:
    if path.endswith("/permission"):
        return {**answer, "user": {**answer["user"], "id": 77}}
    return {**answer, "id": 77} if "/members/all/" in path else answer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("down", "ForgeUnreachable"), ("slow", "ForgeUnreachable"), ("broken", "ForgeUnreachable"),
        ("limited", "ForgeLimited"), ("limited403", "ForgeLimited"), ("denied", "ForgeRefused"),
        ("garbage", "ForgeNonsense"), ("nested", "ForgeNonsense"), ("huge", "ForgeNonsense"),
        ("packed", "ForgeNonsense"), ("redirect", "ForgeUnknown"),
    ],
)  # fmt: skip
def test_a_forge_in_trouble_holds(scene: Scene, kind: str, fault: str, reason: str) -> None:
    commit = approved(scene)
    forge = opened(scene.site, kind, QUICK if fault == "slow" else PATIENT)
    scene.site.fault = fault
    for ask in (lambda: forge.merged(commit), forge.open_pulls, forge.protections):
        assert refused(ask).reason == reason
    scene.site.fault = ""
    forge = opened(scene.site, kind) if fault == "slow" else forge
    assert forge.merged(commit) == Merged(1, "ada", ("bob",), scene.repo.pulls[0].head)


@pytest.mark.parametrize("kind", KINDS)
def test_an_endless_list_is_cut(scene: Scene, kind: str) -> None:
    commit = approved(scene)
    forge = opened(scene.site, kind)
    scene.site.fault = "endless"
    assert refused(lambda: forge.merged(commit)).reason == "ForgeNonsense"


def test_a_limit_says_until_when(scene: Scene) -> None:
    commit = approved(scene)
    scene.site.fault = "limited"
    assert "for 60 s" in str(refused(lambda: opened(scene.site, "github").merged(commit)))
    scene.site.fault = "limited403"
    assert "until 2030-03-17T17:46:40+00:00" in str(refused(lambda: opened(scene.site, "github").merged(commit)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_token_is_read_at_each_use(scene: Scene, kind: str) -> None:
    commit = approved(scene)
    forge = opened(scene.site, kind)
    assert forge.merged(commit).pull == 1
    scene.site.token_file.write_text("another\n")
    assert refused(lambda: forge.merged(commit)).reason == "ForgeRefused"
    for text in ("", "two\nlines", "x" * 5000, "ü"):
        scene.site.token_file.write_text(text)
        assert refused(lambda: forge.merged(commit)).reason == "ForgeRefused"
    scene.site.token_file.unlink()
    assert refused(lambda: forge.merged(commit)).reason == "ForgeRefused"
    scene.site.token_file.write_text(TOKEN)
    assert forge.merged(commit).pull == 1


def test_a_server_of_other_authorities_is_not_believed(scene: Scene) -> None:
    commit = approved(scene)
    error = refused(lambda: opened(scene.site, "github", ca_file=None).merged(commit))
    assert (error.reason, "CERTIFICATE_VERIFY_FAILED" in str(error)) == ("ForgeUnreachable", True)
    assert scene.site.asked == []  # nothing, and so no token, was sent
