"""What a class of hostile inputs is, and through which real code each of them goes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from reconciler.config import load_controller
from reconciler.controller.admin import Desk
from reconciler.desired.paths import classify
from reconciler.errors import ConfigError, PassError
from reconciler.git.mirror import branch_ref
from reconciler.git.remote import Remote
from reconciler.model import Problem
from reconciler.runner.request import checked_job
from reconciler.wire import unpack
from tests.hostile.site import ENTRY, ENVIRONMENT_PATH, load

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something was not accepted, and the place that a person is shown."""

    reason: str
    place: str
    message: str


Judge = Callable[[Any], list[Refusal]]


@dataclass(frozen=True, slots=True)
class Trait:
    """A named class: cases that have the trait, and the minimal valid form that differs only in it.

    `place`, or one of them, begins the place of the first refusal; `reasons`: one of them is told. `line`: the place names
    one. `ready`: makes of a case what is judged; what that takes is not counted.
    """

    name: str
    judge: Judge
    cases: Callable[[Random], Iterable[Any]]
    twin: Any
    place: str | tuple[str, ...]
    reasons: frozenset[str]
    line: bool = False
    ready: Callable[[Any], Any] = lambda given: given


def trait(
    name: str,
    judge: Judge,
    cases: Callable[[Random], Iterable[Any]],
    twin: Any,
    place: str | tuple[str, ...],
    *reasons: str,
    line: bool = False,
) -> Trait:
    """A row of the table."""
    return Trait(name, judge, cases, twin, place, frozenset(reasons), line)


def several(make: Callable[[Random], Any], count: int = 12) -> Callable[[Random], Iterator[Any]]:
    """That many cases of one kind."""

    def cases(random: Random) -> Iterator[Any]:
        for _ in range(count):
            yield make(random)

    return cases


def these(*cases: Any) -> Callable[[Random], Iterable[Any]]:
    """Cases that are written out."""
    return lambda _: cases


def file_at(path: str) -> Judge:
    """A file of a commit that is sound otherwise, through the loader of both planes."""

    def judge(given: str | bytes) -> list[Refusal]:
        data = given if isinstance(given, bytes) else given.encode()
        return _told(load({path: data}).problems)

    return judge


def whole(given: dict[str, str]) -> list[Refusal]:
    """Several files of a commit."""
    return _told(load({path: text.encode() for path, text in given.items()}).problems)


def named(path: str) -> list[Refusal]:
    """A sound entry under another name: told by that name."""
    found = classify(path)
    if found is None:
        return [Refusal("Ignored", path, "means nothing")]
    problems = load({path: ENTRY.encode() if path != ENVIRONMENT_PATH else b"class: protected\n"}).problems
    return [one if tells(one.place, path) else replace(one, place="elsewhere") for one in _told(problems)]


def tells(place: str, path: str) -> bool:
    """Whether the place is of that path, whatever stands there for the characters that cannot be shown."""
    parts = re.findall(r"[A-Za-z0-9/_.-]+", path[:100])
    return re.search(".*?".join(map(re.escape, parts)), place) is not None


def address(url: str) -> list[Refusal]:
    """Where a repository is fetched from, in the host's configuration; and what fetches would refuse it too."""
    refused = _configured(f"url: {json.dumps(url)}, allow_file: true")
    try:
        Remote(url)
    except ConfigError:
        return refused
    return []


def branch(name: str) -> list[Refusal]:
    """The name of a branch, as the host's configuration writes it; and what fetches would refuse it too."""
    refused = _configured(f"url: /srv/x, allow_file: true, branch: {json.dumps(name)}")
    try:
        branch_ref(name)
    except ValueError:
        return refused
    return []


def forge_config(given: dict[str, Any]) -> list[Refusal]:
    """The forge in the host's configuration."""
    sound = {"kind": "github", "repository": "acme/environments", "token_file": "/run/token"}
    return _configured(f"url: /srv/x, allow_file: true, forge: {json.dumps(sound | given)}")


def job(line: bytes) -> list[Refusal]:
    """A request to the runner to start a job, from its line on."""
    return _asked(lambda: checked_job(str(unpack(line).get("job"))))


class _Admin:
    """An admin's desk with nothing behind it."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def now(self) -> datetime:
        return NOW

    def ledger(self) -> _Admin:
        return self

    @property
    def pauses(self) -> tuple[()]:
        return ()

    def append(self, event: object, *, actor: str) -> None:
        self.events.append((event, actor))


def admin(line: bytes) -> list[Refusal]:
    """A request to the admin socket, from its line on."""
    behind: Any = _Admin()

    def ask() -> None:
        request = unpack(line)
        desk = Desk(behind, lambda: ["prod", "prod/network"], lambda: None, behind, behind)
        desk.do(str(request.get("action", "")), str(request.get("scope", "")), request, "ada")

    refused = _asked(ask)
    assert bool(refused) != bool(behind.events)  # a refusal leaves nothing behind
    return refused


def _told(problems: Iterable[Problem]) -> list[Refusal]:
    return [Refusal(one.reason, str(one.place), one.message) for one in problems]


def _configured(repository: str) -> list[Refusal]:
    """What is wrong with a reconciler.yaml that has this repository: the field, the file and the line."""
    file = Path(os.environ["RECONCILER_TEST_FOLDER"]) / "reconciler.yaml"
    file.write_text(
        f"environments_repo: {{signatures: off, {repository}}}\n"
        "store: {path: journal.db}\nexecutor: {local: {socket: runner.sock}}\n",
        "utf-8",
    )
    try:
        load_controller(file, {})
    except ConfigError as error:
        place, message = str(error.place), str(error).partition(f"{error.place}: ")[2]
        return [Refusal(error.reason, f"{message.partition(':')[0]} in {Path(place).name}", message)]
    return []


def _asked(ask: Callable[[], object]) -> list[Refusal]:
    """What a peer is told: first the word of its request that is wrong."""
    try:
        ask()
    except PassError as error:
        return [Refusal(error.reason, str(error).partition(":")[0], str(error))]
    except ValueError as error:  # as the sockets' loops answer it
        return [Refusal("BadRequest", "request", str(error))]
    return []
