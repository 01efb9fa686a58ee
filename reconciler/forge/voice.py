"""What a plane may say at a forge: one comment on a pull request, edited in place, and statuses of commits.

Another token than the one that reads, and another Protocol than the one that proves: whoever holds this voice can change
no branch and no setting, and nothing that is believed comes by it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from reconciler import config
from reconciler.errors import PassError
from reconciler.forge.rest import Answer, Bounds, Id, Rest, login_of
from reconciler.model import Commit

LONGEST_TEXT = 140  # characters of a status: GitHub's limit, the least


class Mark(StrEnum):
    """How a commit stands in one context."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Status:
    """What is said of a commit in a context. `text` may be of any length: it is cut. `url`: where to read more, if anywhere."""

    mark: Mark
    text: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment of a pull request. `mine`: this token's account wrote it."""

    id: int
    body: str
    mine: bool


class Voice(Protocol):
    """Every method asks the network, and raises PassError as `Forge` does."""

    def comments(self, pull: int) -> Iterable[Comment]:
        """The pull request's comments, oldest first."""
        ...

    def comment(self, pull: int, body: str) -> int:
        """Write a new one; its id."""
        ...

    def edit(self, pull: int, comment: int, body: str) -> bool:
        """Replace what a comment says; False: it is gone."""
        ...

    def mark(self, commit: Commit, context: str, status: Status) -> None:
        """Say how a commit stands; said twice, it stands once."""
        ...


def open_voice(
    forge: config.Forge, token_file: Path, bounds: Bounds | None = None, ending: threading.Event | None = None
) -> Voice:
    """The configured repository of a forge, with a token that may comment and set statuses. Asks nothing yet.

    Raises:
        ConfigError: the file of authorities cannot be used.
    """
    prefix, login = login_of(forge.kind)
    rest = Rest(forge.model_copy(update={"token_file": token_file}), prefix, login, bounds, ending)
    return GitLabVoice(rest, forge.repository) if forge.kind == "gitlab" else HubVoice(rest, forge.repository)


class Self(Answer):
    """Who a token is."""

    id: Id


class Author(Answer):
    id: int  # accounts of a Gitea of its own have no positive one


class Remark(Answer):
    """A comment or a note, of any forge."""

    id: Id
    body: str | None = None
    user: Author | None = None  # GitHub, Gitea
    author: Author | None = None  # GitLab
    system: bool = False


class _Speaking:
    """What the forges have in common: who this token is."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._me: int | None = None

    def _mine(self, remark: Remark) -> bool:
        """Whether this account wrote it. Where the token may not ask who it is (an App's), nobody's comment is ours."""
        if self._me is None:
            reply = self._rest.reply("user")
            self._me = self._rest.read(Self, reply).id if reply.status == 200 else 0
        who = remark.user or remark.author
        return who is not None and who.id == self._me

    def _seen(self, remarks: Iterable[Remark]) -> Iterable[Comment]:
        for one in remarks:
            if not one.system and one.body is not None:
                yield Comment(one.id, one.body, self._mine(one))


class HubVoice(_Speaking):
    """GitHub's words, which Gitea and Forgejo speak too. Implements `Voice`."""

    def __init__(self, rest: Rest, repository: str) -> None:
        super().__init__(rest)
        self._repo = ("repos", *repository.split("/"))

    def comments(self, pull: int) -> Iterable[Comment]:
        """See `Voice`."""
        yield from self._seen(self._rest.all(Remark, *self._repo, "issues", pull, "comments"))

    def comment(self, pull: int, body: str) -> int:
        """See `Voice`."""
        return self._rest.write("POST", Remark, {"body": body}, *self._repo, "issues", pull, "comments").id

    def edit(self, pull: int, comment: int, body: str) -> bool:  # noqa: ARG002 - the Protocol's
        """See `Voice`."""
        try:
            self._rest.write("PATCH", Remark, {"body": body}, *self._repo, "issues", "comments", comment)
        except PassError as error:
            if error.reason != "ForgeUnknown":
                raise
            return False
        return True

    def mark(self, commit: Commit, context: str, status: Status) -> None:
        """See `Voice`."""
        body = {"state": status.mark.value, "context": context, "description": short(status.text)}
        self._rest.tell(body | _link(status), *self._repo, "statuses", commit)


class GitLabVoice(_Speaking):
    """GitLab's words. Implements `Voice`."""

    MARKS = {Mark.PENDING: "running", Mark.SUCCESS: "success", Mark.FAILURE: "failed"}  # noqa: RUF012 - never changed

    def __init__(self, rest: Rest, repository: str) -> None:
        super().__init__(rest)
        self._repo = ("projects", repository)

    def comments(self, pull: int) -> Iterable[Comment]:
        """See `Voice`."""
        yield from self._seen(self._rest.all(Remark, *self._notes(pull), sort="asc", order_by="created_at"))

    def comment(self, pull: int, body: str) -> int:
        """See `Voice`."""
        return self._rest.write("POST", Remark, {"body": body}, *self._notes(pull)).id

    def edit(self, pull: int, comment: int, body: str) -> bool:
        """See `Voice`."""
        try:
            self._rest.write("PUT", Remark, {"body": body}, *self._notes(pull), comment)
        except PassError as error:
            if error.reason != "ForgeUnknown":
                raise
            return False
        return True

    def mark(self, commit: Commit, context: str, status: Status) -> None:
        """See `Voice`. GitLab refuses a state that a commit has already."""
        body = {"state": self.MARKS[status.mark], "name": context, "description": short(status.text)}
        where = (*self._repo, "statuses", commit)
        self._rest.tell(body | _link(status), *where, fine="Cannot transition status")

    def _notes(self, pull: int) -> tuple[str | int, ...]:
        return (*self._repo, "merge_requests", pull, "notes")


def short(text: str) -> str:
    """One line that every forge takes."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 1] + "…"


def _link(status: Status) -> dict[str, str]:
    return {"target_url": status.url} if status.url else {}
