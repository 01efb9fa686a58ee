"""Open pull requests, what guards the branch, and the look at it that the daemon takes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from prometheus_client import generate_latest

from reconciler.config import Forge as Configured
from reconciler.controller.protection import Guards
from reconciler.forge import RULES, Forge, Pull, open_forge
from reconciler.logs import open_log
from reconciler.observe import Observer
from tests.kit.forge import KINDS, Shield
from tests.kit.merges import NAME, Scene
from tests.kit.sample import FixedClock


def opened(scene: Scene, kind: str, needed: int = 1, *, signed: bool = True) -> Forge:
    given = scene.site.config(kind, NAME, min_approvals=needed)
    return open_forge(Configured.model_validate(given), "main", signed=signed)


def wanting(forge: Forge) -> set[str]:
    return {rule.rule for rule in forge.protections() if not rule.holds}


@pytest.mark.parametrize("kind", KINDS)
def test_open_pull_requests_are_told_with_their_authors_access(scene: Scene, kind: str) -> None:
    scene.site.page_size = 2
    first = scene.opened()
    outside = scene.repo.open(scene.who("eve"), {"e": "1"}, "evil", source=scene.fork())
    scene.repo.open(scene.who("ada"), {"d": "1"}, "draft", draft=True)
    scene.repo.git.point("release", scene.repo.git.head)
    scene.opened(branch="other", base="release")
    scene.opened(branch="done").merge()
    last = scene.opened("bob", branch="last")
    last.push({"again": "1"})
    assert opened(scene, kind).open_pulls() == (
        Pull(1, first.head, "main", "ada", True, "Change 1"),
        Pull(2, outside.head, "main", "eve", False, "Change 2"),
        Pull(6, last.head, "main", "bob", True, "Change 6"),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_can_be_fetched_by_its_ref(scene: Scene, kind: str) -> None:
    pull = scene.opened()
    ref = opened(scene, kind).head_ref(1)
    assert ref == ("refs/merge-requests/1/head" if kind == "gitlab" else "refs/pull/1/head")
    assert scene.repo.run("rev-parse", "refs/pull/1/head") == pull.head


@pytest.mark.parametrize("kind", KINDS)
def test_a_branch_that_is_protected_as_it_should_be(scene: Scene, kind: str) -> None:
    assert [rule.rule for rule in opened(scene, kind).protections()] == list(RULES)
    assert wanting(opened(scene, kind)) == set()
    assert {rule.message for rule in opened(scene, kind).protections()} == {""}
    assert "signatures_required" not in {rule.rule for rule in opened(scene, kind, signed=False).protections()}


def test_rulesets_protect_as_the_classic_protection_does(scene: Scene) -> None:
    scene.repo.shield.by_ruleset = True
    assert wanting(opened(scene, "github")) == set()
    scene.repo.shield.bypass = ["a team"]
    assert wanting(opened(scene, "github")) == {"direct_push_forbidden", "admins_included"}


LOOSE: tuple[tuple[str, Callable[[Shield], None], set[str]], ...] = (
    ("force push", lambda s: setattr(s, "force_push", True), {"force_push_forbidden"}),
    ("deletion", lambda s: setattr(s, "deletion", True), {"deletion_forbidden"}),
    ("stale", lambda s: setattr(s, "stale_dismissed", False), {"approval_of_last_push"}),
    ("admins", lambda s: setattr(s, "admins", False), {"admins_included"}),
    ("signatures", lambda s: setattr(s, "signatures", False), {"signatures_required"}),
    ("approvals", lambda s: setattr(s, "approvals", 0), {"approvals_required"}),
    ("direct", lambda s: setattr(s, "direct_push", True), {"pull_request_required", "direct_push_forbidden"}),
    ("bypass", lambda s: setattr(s, "bypass", ["mallory"]), {"direct_push_forbidden"}),
    ("nothing", lambda s: setattr(s, "protected", False), {"force_push_forbidden", "pull_request_required"}),
)
NOT_SAID = {"gitea": {"deletion"}}  # a protected branch of Gitea's is never deleted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "loosen", "missing"), LOOSE, ids=[one[0] for one in LOOSE])
def test_each_setting_that_is_missing_is_named(
    scene: Scene, kind: str, name: str, loosen: Callable[[Shield], None], missing: set[str]
) -> None:
    loosen(scene.repo.shield)
    found = opened(scene, kind).protections()
    if name in NOT_SAID.get(kind, ()):
        assert wanting(opened(scene, kind)) == set()
        return
    assert missing <= {rule.rule for rule in found if not rule.holds}
    assert all(rule.message for rule in found if not rule.holds)
    alone = name in ("force push", "deletion", "stale", "signatures", "approvals", "admins")
    assert not alone or {rule.rule for rule in found if not rule.holds} == missing


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_approvals_as_the_host_wants(scene: Scene, kind: str) -> None:
    assert wanting(opened(scene, kind, needed=2)) == {"approvals_required"}
    scene.repo.shield.approvals = 3
    assert wanting(opened(scene, kind, needed=2)) == set()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [403, 404])
def test_not_being_allowed_to_look_is_an_answer_of_its_own(scene: Scene, kind: str, status: int) -> None:
    scene.repo.shield.hidden = status
    (only,) = opened(scene, kind).protections()
    assert (only.rule, only.holds, "token" in only.message) == ("readable", False, True)


def test_what_rulesets_guarantee_is_told_though_the_classic_protection_is_hidden(scene: Scene) -> None:
    scene.repo.shield.by_ruleset, scene.repo.shield.hidden = True, 403
    found = {rule.rule: rule.holds for rule in opened(scene, "github").protections()}
    assert found["readable"] is False
    assert found["force_push_forbidden"] is True
    assert "admins_included" not in found  # who may bypass the ruleset is hidden, too


def test_a_look_is_measured_and_said_and_its_failure_leaves_what_was_seen(scene: Scene) -> None:
    log = io.StringIO()
    observer = Observer("1", open_log(log, as_json=True), FixedClock().now)
    guards = Guards(opened(scene, "github"), "environments", observer, FixedClock())
    assert "not seen yet" in guards.said()
    guards.look()
    assert guards.said() == ""
    scene.repo.shield.force_push = True
    guards.look()
    guards.look()
    assert "force_push_forbidden: block force pushes" in guards.said()
    text = generate_latest(observer.registry).decode()
    assert 'branch_protection{repository="environments",rule="force_push_forbidden"} 0.0' in text
    assert 'branch_protection{repository="environments",rule="pull_request_required"} 1.0' in text
    moment = float(text.partition('last_check_timestamp_seconds{repository="environments"} ')[2].split()[0])
    assert moment == FixedClock().now().timestamp()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["event.action"] for line in lines] == ["branch-unprotected"]  # once, not at each look
    scene.site.fault = "down"
    guards.look()
    assert "cannot be seen now" in guards.said()
    assert "force_push_forbidden" in guards.said()
    scene.site.fault = ""
    scene.repo.shield.hidden = 403
    guards.look()
    assert 'rule="force_push_forbidden"' not in generate_latest(observer.registry).decode()


def test_a_forge_that_never_answered_is_older_at_each_look_and_so_an_alarm(scene: Scene) -> None:
    clock, observer = FixedClock(), Observer("1", open_log(io.StringIO(), as_json=True), FixedClock().now)
    guards = Guards(opened(scene, "github"), "environments", observer, clock)

    def seen() -> float | None:
        labels = {"repository": "environments"}
        return observer.registry.get_sample_value("reconciler_branch_protection_last_check_timestamp_seconds", labels)

    began = clock.now().timestamp()
    scene.site.fault = "down"
    guards.look()
    clock.time += timedelta(hours=2)
    guards.look()
    assert seen() == began
    scene.site.fault = ""
    guards.look()
    assert seen() == began + 7200
    scene.site.fault = "down"
    clock.time += timedelta(hours=2)
    guards.look()
    assert seen() == began + 7200
