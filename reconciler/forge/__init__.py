"""What a forge says of pull requests, approvals and protection: plain REST, three kinds, one Protocol."""

from __future__ import annotations

import threading

from reconciler import config
from reconciler.forge.dialect import Dialect, Hosted
from reconciler.forge.facts import RULES, Forge, Merged, Protection, Pull
from reconciler.forge.gitea import Gitea
from reconciler.forge.github import GitHub
from reconciler.forge.gitlab import GitLab
from reconciler.forge.rest import Bounds, Rest

__all__ = ["RULES", "Bounds", "Forge", "Merged", "Protection", "Pull", "open_forge"]


def open_forge(
    forge: config.Forge,
    branch: str,
    *,
    signed: bool = False,
    bounds: Bounds | None = None,
    ending: threading.Event | None = None,
) -> Forge:
    """The configured repository of a forge, and its protected branch. Asks nothing yet.

    `signed`: commits have to be signed, so the branch's protection should say so too. Once `ending` is set, nothing
    more is asked.

    Raises:
        ConfigError: the file of authorities cannot be used.
    """
    return Hosted(_dialect(forge, branch, bounds, ending, signed=signed), branch, forge.min_approvals)


def _dialect(
    forge: config.Forge, branch: str, bounds: Bounds | None, ending: threading.Event | None, *, signed: bool
) -> Dialect:
    about = forge.repository, branch, forge.min_approvals
    if forge.kind == "github":
        rest = Rest(forge, "", lambda token: ("Authorization", f"Bearer {token}"), bounds, ending)
        return GitHub(rest, *about, signed=signed)
    if forge.kind == "gitlab":
        rest = Rest(forge, "/api/v4", lambda token: ("PRIVATE-TOKEN", token), bounds, ending)
        return GitLab(rest, *about, signed=signed)
    rest = Rest(forge, "/api/v1", lambda token: ("Authorization", f"token {token}"), bounds, ending)
    return Gitea(rest, *about, signed=signed)
