"""What a forge says of pull requests, approvals and protection: plain REST, three kinds, one Protocol."""

from __future__ import annotations

import threading

from reconciler import config
from reconciler.forge.dialect import Dialect, Hosted
from reconciler.forge.facts import RULES, Forge, Merged, Protection, Pull
from reconciler.forge.gitea import Gitea
from reconciler.forge.github import GitHub
from reconciler.forge.gitlab import GitLab
from reconciler.forge.rest import Bounds, Limited, Rest, login_of
from reconciler.forge.voice import Comment, Mark, Status, Voice, open_voice

__all__ = [
    "RULES",
    "Bounds",
    "Comment",
    "Forge",
    "Limited",
    "Mark",
    "Merged",
    "Protection",
    "Pull",
    "Status",
    "Voice",
    "open_forge",
    "open_voice",
]


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
    rest = Rest(forge, *login_of(forge.kind), bounds, ending)
    if forge.kind == "github":
        return GitHub(rest, *about, signed=signed)
    return (GitLab if forge.kind == "gitlab" else Gitea)(rest, *about, signed=signed)
