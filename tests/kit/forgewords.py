"""The three APIs' words over `tests.kit.forge`'s one model: as their documentation has them, in what is asked for and around it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from tests.kit.forge import ForgeSite, Person, PullRequest, Repo, Review

Json = Any
NOT_FOUND = 404, {"message": "Not Found"}
UNSEEN = "0" * 40
GITEA_STATES = {"approve": "APPROVED", "refuse": "REQUEST_CHANGES", "comment": "COMMENT"}
GITHUB_STATES = {"approve": "APPROVED", "refuse": "CHANGES_REQUESTED", "comment": "COMMENTED"}


def answer(site: ForgeSite, path: str, query: Mapping[str, str]) -> tuple[int, Json]:
    """One request. Paths are as they came: what is quoted in them is one word."""
    for prefix, routes in (("/api/v3/", GITHUB), ("/api/v4/", GITLAB), ("/api/v1/", GITEA)):
        if path.startswith(prefix):
            return _routed(site, routes, path.removeprefix(prefix), query)
    return NOT_FOUND


def _routed(site: ForgeSite, routes: Routes, path: str, query: Mapping[str, str]) -> tuple[int, Json]:
    for pattern, reply in routes.items():
        match = re.fullmatch(pattern, path)
        if match is None:
            continue
        words = [unquote(word) for word in match.groups()]
        repo = next((repo for repo in site.repos.values() if repo.name.casefold() == words[0].casefold()), None)
        if repo is not None and repo.moved_to:
            return 301, {"message": "Moved Permanently"}
        if repo is None and not pattern.startswith("users"):
            return NOT_FOUND
        found = reply(repo or site, *words[1:]) if not pattern.startswith("users") else reply(site, *words)
        return NOT_FOUND if found is None else paged(site, found, query)
    return NOT_FOUND


def _page(site: ForgeSite, items: list[Json], query: Mapping[str, str]) -> list[Json]:
    if "page" not in query:
        return items
    size = min(int(query.get("per_page", query.get("limit", "30"))), site.page_size)
    start = (int(query["page"]) - 1) * size
    return items[start : start + size]


def paged(site: ForgeSite, found: Json, query: Mapping[str, str]) -> tuple[int, Json]:
    """Status and body of an answer that is found already."""
    if isinstance(found, tuple):
        return found
    return 200, _page(site, found, query) if isinstance(found, list) else found


def _pull(repo: Repo, number: str) -> PullRequest | None:
    return next((pull for pull in repo.pulls if pull.number == int(number)), None)


def _containing(repo: Repo, commit: str, *, also_open: bool = True) -> list[PullRequest]:
    """The pull requests that a forge connects with a commit: merged as it, or with it among their own."""
    return [pull for pull in repo.pulls if pull.result == commit or (also_open and commit in _own(pull))]


def _own(pull: PullRequest) -> list[str]:
    base = f"{pull.result}^1" if pull.result else f"refs/heads/{pull.base}"
    own = pull.home.run("rev-list", pull.head, f"^{base}").split()
    return own + ([pull.head] if pull.head not in own else [])


def _maker(site: ForgeSite, mail: str) -> Person | None:
    found = next((one for one in site.people.values() if one.mail.endswith(f"<{mail}>")), None)
    return found if found and not found.gone else None


def _commit(repo: Repo, commit: str) -> tuple[list[str], Person | None, Person | None] | None:
    """Parents, author and committer; None if the repository has it not."""
    if not re.fullmatch("[0-9a-f]{40}", commit) or not repo.run(
        "cat-file", "--batch-check", "--batch-all-objects"
    ).count(commit):
        return None
    parents, author, committer = repo.run("show", "-s", "--format=%P%n%ae%n%ce", commit).split("\n")
    return parents.split(), _maker(repo.site, author), _maker(repo.site, committer)


def _at(moment: Any) -> str:
    return str(moment.isoformat().replace("+00:00", "Z"))


def _somebody(repo: Repo, login: str) -> Person | None:
    return next((one for one in repo.site.people.values() if one.login.casefold() == login.casefold()), None)


# --- GitHub


def hub_user(who: Person | None) -> Json:
    if who is None or who.gone:
        return None
    return {"id": who.id, "login": who.login, "type": "Bot" if who.bot else "User", "site_admin": False}


def hub_pull(pull: PullRequest, *, listed: bool = False) -> Json:
    merged = pull.state == "merged"
    shown = {
        "number": pull.number,
        "state": "open" if pull.state == "open" else "closed",
        "title": pull.title,
        "draft": pull.draft,
        "user": hub_user(pull.author),
        "merge_commit_sha": pull.result or UNSEEN.replace("0", "e"),  # of an open one: a trial merge
        "merged_at": "2026-01-02T00:00:00Z" if merged else None,
        "base": {"ref": pull.base, "repo": {"id": pull.home.id, "full_name": pull.home.name}},
        "head": {"ref": pull.branch, "sha": pull.head, "repo": {"id": pull.source.id, "full_name": pull.source.name}},
    }
    return shown if listed else {**shown, "merged": merged, "merged_by": None}


def hub_review(review: Review) -> Json:
    return {
        "id": review.id,
        "user": hub_user(review.who),
        "body": "",
        "state": "DISMISSED" if review.dismissed else GITHUB_STATES[review.verdict],
        "commit_id": review.head,
        "submitted_at": _at(review.at),
    }


def hub_commit(repo: Repo, commit: str) -> Json:
    found = _commit(repo, commit)
    if found is None:
        return 422, {"message": f"No commit found for SHA: {commit}"}
    parents, author, committer = found
    shape = {"sha": commit, "parents": [{"sha": parent} for parent in parents], "commit": {"message": "m"}}
    return {**shape, "author": hub_user(author), "committer": hub_user(committer)}


def hub_permission(repo: Repo, login: str) -> Json:
    who = _somebody(repo, login)
    if who is None or who.gone:
        return NOT_FOUND
    level = repo.access.get(who.login, "none")
    return {"permission": level, "role_name": level, "user": hub_user(who)}


def hub_protection(repo: Repo, branch: str) -> Json:
    shield = repo.shield
    if shield.hidden:
        return shield.hidden, {"message": "Not Found" if shield.hidden == 404 else "Resource not accessible"}
    if not shield.protected or shield.by_ruleset:
        return 404, {"message": "Branch not protected"}
    shape: dict[str, Json] = {
        "enforce_admins": {"enabled": shield.admins},
        "allow_force_pushes": {"enabled": shield.force_push},
        "allow_deletions": {"enabled": shield.deletion},
        "required_signatures": {"enabled": shield.signatures},
    }
    if not shield.direct_push:
        shape["required_pull_request_reviews"] = {
            "required_approving_review_count": shield.approvals,
            "dismiss_stale_reviews": shield.stale_dismissed,
            "require_last_push_approval": False,
            "bypass_pull_request_allowances": {
                "users": [{"login": who} for who in shield.bypass],
                "teams": [],
                "apps": [],
            },
        }
    return shape


def hub_rules(repo: Repo, branch: str) -> Json:
    shield = repo.shield
    if not shield.protected or not shield.by_ruleset:
        return []
    reviews = {
        "required_approving_review_count": shield.approvals,
        "dismiss_stale_reviews_on_push": shield.stale_dismissed,
        "require_last_push_approval": False,
    }
    wanted = {
        "non_fast_forward": not shield.force_push,
        "deletion": not shield.deletion,
        "required_signatures": shield.signatures,
        "pull_request": not shield.direct_push,
    }
    more = {"pull_request": {"parameters": reviews}}
    return [{"type": kind, "ruleset_id": 7, **more.get(kind, {})} for kind, there in wanted.items() if there]


def hub_ruleset(repo: Repo, _number: str) -> Json:
    shown: dict[str, Json] = {"id": 7, "name": "main", "enforcement": "active"}
    names = [*repo.shield.bypass, *([] if repo.shield.admins else ["admins"])]
    return (
        shown if repo.shield.hidden else {**shown, "bypass_actors": [{"actor_id": 1, "actor_type": n} for n in names]}
    )


def hub_open(repo: Repo) -> Json:
    return [hub_pull(pull, listed=True) for pull in reversed(repo.pulls) if pull.state == "open"]


# --- GitLab


def lab_user(who: Person | None) -> Json:
    return None if who is None or who.gone else {"id": who.id, "username": who.login, "state": "active"}


def lab_pull(pull: PullRequest) -> Json:
    merged = pull.result if pull.state == "merged" else None
    rebased = merged is not None and not pull.squashed and merged == pull.head
    return {
        "iid": pull.number,
        "id": pull.number + 5000,
        "title": pull.title,
        "state": {"open": "opened"}.get(pull.state, pull.state),
        "draft": pull.draft,
        "author": lab_user(pull.author),
        "target_project_id": pull.home.id,
        "source_project_id": pull.source.id,
        "target_branch": pull.base,
        "sha": pull.head,
        "merge_commit_sha": None if rebased or pull.squashed else merged,
        "squash_commit_sha": pull.squashed,
    }


def lab_approvals(pull: PullRequest) -> Json:
    """GitLab's own: whoever approved is listed until the approval is taken back; of which head it does not say."""
    given = {one.who.id: one.who for one in pull.reviews if one.verdict == "approve" and not one.dismissed}
    return {"approved": bool(given), "approved_by": [{"user": lab_user(who)} for who in given.values() if not who.gone]}


def lab_notes(pull: PullRequest) -> Json:
    said = {"approve": "approved this merge request", "refuse": "requested changes"}
    return [
        {
            "id": review.id,
            "author": lab_user(review.who),
            "body": said.get(review.verdict, "Looks fine: approved this merge request"),
            "system": review.verdict != "comment",
            "created_at": _at(review.at),
        }
        for review in pull.reviews
    ]


def lab_versions(pull: PullRequest) -> Json:
    return [
        {"id": 900 + number, "head_commit_sha": head, "created_at": _at(at), "state": "collected"}
        for number, (head, at) in reversed([*enumerate(pull.heads)])
    ]


def lab_reviewers(pull: PullRequest) -> Json:
    last = {review.who.id: review for review in pull.reviews if review.verdict != "comment" and not review.dismissed}
    states = {"approve": "approved", "refuse": "requested_changes"}
    return [{"user": lab_user(one.who), "state": states[one.verdict]} for one in last.values() if not one.who.gone]


def lab_member(repo: Repo, number: str) -> Json:
    who = next((one for one in repo.site.people.values() if one.id == int(number) and not one.gone), None)
    level = {"read": 20, "write": 30, "admin": 40}.get(repo.access.get(who.login, "") if who else "")
    return None if who is None or level is None else {**lab_user(who), "access_level": level, "state": "active"}


def lab_profile(site: ForgeSite, number: str) -> Json:
    who = next((one for one in site.people.values() if one.id == int(number) and not one.gone), None)
    return None if who is None else {**lab_user(who), "bot": who.bot}


def lab_commit(repo: Repo, commit: str) -> Json:
    found = _commit(repo, commit)
    return None if found is None else {"id": commit, "short_id": commit[:8], "parent_ids": found[0]}


def lab_branches(repo: Repo) -> Json:
    shield = repo.shield
    if shield.hidden:
        return shield.hidden, {"message": "403 Forbidden"}
    if not shield.protected:
        return []
    level = {"id": 1, "access_level": 40 if shield.direct_push else 0, "user_id": None, "group_id": None}
    levels = [level, *({"id": 2, "access_level": None, "user_id": 9} for _ in shield.bypass)]
    return [{"id": 1, "name": "ma*", "push_access_levels": levels, "allow_force_push": shield.force_push}]


def lab_rules(repo: Repo) -> Json:
    return [{"id": 1, "name": "All", "rule_type": "any_approver", "approvals_required": repo.shield.approvals}]


def lab_settings(repo: Repo) -> Json:
    shield = repo.shield
    bound = {"disable_overriding_approvers_per_merge_request": shield.admins}
    return {"reset_approvals_on_push": shield.stale_dismissed, **bound}


def lab_project(repo: Repo) -> Json:
    default = "elsewhere" if repo.shield.deletion else "main"
    return {"id": repo.id, "path_with_namespace": repo.name, "default_branch": default}


def lab_open(repo: Repo) -> Json:
    return [lab_pull(pull) for pull in reversed(repo.pulls) if pull.state == "open"]


# --- Gitea


def tea_user(who: Person | None) -> Json:
    if who is None or who.gone:
        return {"id": -1, "login": "Ghost"}
    return {"id": -2, "login": "gitea-actions"} if who.bot else {"id": who.id, "login": who.login}


def tea_pull(pull: PullRequest) -> Json:
    merged = pull.state == "merged"
    now = pull.source.git.at(f"refs/heads/{pull.branch}")  # it follows its branch, merged or not
    return {
        "number": pull.number,
        "state": "open" if pull.state == "open" else "closed",
        "title": pull.title,
        "draft": pull.draft,
        "user": tea_user(pull.author),
        "merged": merged,
        "merge_commit_sha": pull.result if merged else None,
        "base": {"ref": pull.base, "repo_id": pull.home.id, "sha": pull.home.git.head},
        "head": {"ref": pull.branch, "repo_id": pull.source.id, "sha": now},
    }


def tea_review(review: Review, pull: PullRequest) -> Json:
    return {
        "id": review.id,
        "user": tea_user(review.who),
        "state": GITEA_STATES[review.verdict],
        "commit_id": review.head,
        "stale": review.head != pull.head,
        "official": True,
        "dismissed": review.dismissed,
        "submitted_at": _at(review.at),
    }


def tea_commit(repo: Repo, commit: str) -> Json:
    found = _commit(repo, commit)
    if found is None:
        return None
    parents, author, committer = found
    people = {"author": author and tea_user(author), "committer": committer and tea_user(committer)}
    return {"sha": commit, "parents": [{"sha": parent} for parent in parents], **people}


def tea_permission(repo: Repo, login: str) -> Json:
    who = _somebody(repo, login)
    if who is None or who.gone:
        return NOT_FOUND
    return {"permission": repo.access.get(who.login, "none"), "user": tea_user(who)}


def tea_branch(repo: Repo, name: str) -> Json:
    shield = repo.shield
    if shield.hidden:
        return shield.hidden, {"message": "no"}
    return {
        "name": name,
        "protected": shield.protected,
        "effective_branch_protection_name": name if shield.protected else "",
    }


def tea_protection(repo: Repo, _name: str) -> Json:
    shield = repo.shield
    return {
        "rule_name": "main",
        "enable_push": shield.direct_push,
        "enable_force_push": shield.force_push,
        "required_approvals": shield.approvals,
        "dismiss_stale_approvals": shield.stale_dismissed,
        "ignore_stale_approvals": False,
        "require_signed_commits": shield.signatures,
        "block_admin_merge_override": shield.admins,
        "enable_bypass_allowlist": bool(shield.bypass),
    }


def tea_open(repo: Repo) -> Json:
    return [tea_pull(pull) for pull in reversed(repo.pulls) if pull.state == "open"]


def _of(draw: Callable[[PullRequest], Json]) -> Callable[[Repo, str], Json]:
    def reply(repo: Repo, number: str) -> Json:
        pull = _pull(repo, number)
        return None if pull is None else draw(pull)

    return reply


def _first(draw: Callable[[PullRequest], Json], pulls: Sequence[PullRequest]) -> Json:
    return draw(pulls[0]) if pulls else None


def _ref(repo: Repo, number: str) -> Json:
    pull = _pull(repo, number)
    return pull and {"ref": f"refs/pull/{number}/head", "object": {"type": "commit", "sha": pull.head}}


Routes = Mapping[str, Callable[..., Json]]
_R = "repos/([^/]+/[^/]+)"
_P = "projects/([^/]+)"
GITHUB: Routes = {
    _R: lambda repo: {"id": repo.id, "full_name": repo.name, "default_branch": "main"},
    f"{_R}/commits/([^/]+)/pulls": lambda repo, sha: [hub_pull(p, listed=True) for p in _containing(repo, sha)],
    f"{_R}/commits/([^/]+)": hub_commit,
    f"{_R}/pulls/([0-9]+)": _of(hub_pull),
    f"{_R}/pulls/([0-9]+)/reviews": _of(lambda pull: [hub_review(review) for review in pull.reviews]),
    f"{_R}/pulls": hub_open,
    f"{_R}/collaborators/([^/]+)/permission": hub_permission,
    f"{_R}/branches/([^/]+)/protection": hub_protection,
    f"{_R}/rules/branches/([^/]+)": hub_rules,
    f"{_R}/rulesets/([0-9]+)": hub_ruleset,
}
GITLAB: Routes = {
    _P: lab_project,
    f"{_P}/repository/commits/([^/]+)/merge_requests": lambda repo, sha: [lab_pull(p) for p in _containing(repo, sha)],
    f"{_P}/repository/commits/([^/]+)": lab_commit,
    f"{_P}/merge_requests/([0-9]+)": _of(lab_pull),
    f"{_P}/merge_requests/([0-9]+)/approvals": _of(lab_approvals),
    f"{_P}/merge_requests/([0-9]+)/notes": _of(lab_notes),
    f"{_P}/merge_requests/([0-9]+)/versions": _of(lab_versions),
    f"{_P}/merge_requests/([0-9]+)/reviewers": _of(lab_reviewers),
    f"{_P}/merge_requests": lab_open,
    f"{_P}/members/all/([0-9]+)": lab_member,
    "users/([0-9]+)": lab_profile,
    f"{_P}/protected_branches": lab_branches,
    f"{_P}/approval_rules": lab_rules,
    f"{_P}/approvals": lab_settings,
    f"{_P}/push_rule": lambda repo: {"reject_unsigned_commits": repo.shield.signatures},
}
GITEA: Routes = {
    _R: lambda repo: {"id": repo.id, "full_name": repo.name, "default_branch": "main"},
    f"{_R}/commits/([^/]+)/pull": lambda repo, sha: _first(tea_pull, _containing(repo, sha, also_open=False)),
    f"{_R}/git/commits/([^/]+)": tea_commit,
    f"{_R}/git/refs/pull/([0-9]+)/head": _ref,
    f"{_R}/pulls/([0-9]+)/reviews": _of(lambda pull: [tea_review(review, pull) for review in pull.reviews]),
    f"{_R}/pulls": tea_open,
    f"{_R}/collaborators/([^/]+)/permission": tea_permission,
    f"{_R}/branches/([^/]+)": tea_branch,
    f"{_R}/branch_protections/([^/]+)": tea_protection,
}
