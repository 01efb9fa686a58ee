"""Tasks of ECS: started, looked at, stopped. Looks are shared: one question for up to a hundred tasks, every few seconds."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from reconciler.errors import PassError
from reconciler.remote.calls import Missing, Refused, Throttled, Unfulfilled, ask

AGE = 3.0  # seconds for which what was seen counts
SLOWER, SLOWEST = 2.0, 60.0  # seconds until ECS is asked again after it asked for fewer questions
AT_ONCE = 100  # tasks in one question
UNSEEN = 60.0  # seconds for which a task must not be found before it is taken for gone
FORGOTTEN = timedelta(hours=1)  # for so long at least ECS shows a task that has stopped
ASKED_TO_END = frozenset({"SpotInterruption", "TerminationNotice", "UserInitiated", "ServiceSchedulerInitiated"})
_STARTING = frozenset({"PROVISIONING", "PENDING", "ACTIVATING"})
_TASK = re.compile(
    r"(?P<place>arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}):task/(?P<cluster>[A-Za-z0-9_-]{1,255})/[A-Za-z0-9-]{1,64}"
)
STOPPED, GONE, UNKNOWN = "STOPPED", "GONE", "UNKNOWN"


class NotStarted(Exception):
    """ECS did not start the task, and says why. It may later."""


class Conflicting(Exception):
    """The token stands for a task that was asked for in other words."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A task. `status`: ECS's word, GONE where ECS has forgotten it, UNKNOWN where it could not be asked yet.

    `told`: of one that has ended, how. `asked`: somebody asked it to end, or its capacity was taken back. `since`: when it was asked for.
    """

    status: str
    told: str = ""
    asked: bool = False
    since: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing of it lives."""
        return self.status in (STOPPED, GONE)

    @property
    def starting(self) -> bool:
        """Whether its container does not run yet."""
        return self.status in _STARTING


@dataclass(frozen=True, slots=True)
class Wanted:
    """A task to be started. `token`: equal ones are one task."""

    definition: str
    container: str
    command: Sequence[str]
    started_by: str
    token: str
    spot: bool
    network: Mapping[str, Any]


@dataclass(slots=True)
class Tasks:
    """The tasks of a cluster. Any thread may use it.

    Each method raises PassError "RunnerUnavailable" where ECS does not answer, or does not let us.
    """

    client: Any
    cluster: str
    steady: Callable[[], float] = time.monotonic
    _seen: dict[str, Seen] = field(default_factory=dict)
    _missed: dict[str, float] = field(default_factory=dict)  # since when a task was not found
    _dropped: set[str] = field(default_factory=set)  # nobody asks for them any more: forgotten when they end
    _looked: float | None = None
    _again: float = 0.0
    _pause: float = SLOWER
    _guard: threading.RLock = field(default_factory=threading.RLock)

    def run(self, wanted: Wanted) -> str:
        """Start it, and return its ARN; of a token that was used before, that of the task that there is.

        Raises:
            NotStarted: there is no room, or it is not allowed. Throttled: ask more slowly. Conflicting: see there.
        """
        lot: dict[str, Any] = (
            {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}
            if wanted.spot
            else {"launchType": "FARGATE"}
        )
        try:
            said = self._ask(
                "run_task",
                taskDefinition=wanted.definition,
                count=1,
                startedBy=wanted.started_by,
                clientToken=wanted.token,
                networkConfiguration={"awsvpcConfiguration": dict(wanted.network)},
                overrides={"containerOverrides": [{"name": wanted.container, "command": list(wanted.command)}]},
                **lot,
            )
        except Refused as error:
            if error.code == "ConflictException":
                raise Conflicting(str(error)) from error
            raise NotStarted(str(error)) from error
        if not said["tasks"]:
            reasons = {f"{one.get('reason', '')} {one.get('detail', '')}".strip() for one in said["failures"]}
            raise NotStarted(f"ECS did not start the task: {', '.join(sorted(reasons)) or 'it says no reason'}")
        arn: str = said["tasks"][0]["taskArn"]
        with self._guard:
            self._seen.setdefault(arn, _seen(said["tasks"][0]))
        return arn

    def look(self, arn: str) -> Seen:
        """The task, as it was some seconds ago at most; where ECS asks for fewer questions, as it was last seen."""
        with self._guard:
            self._dropped.discard(arn)
            new = arn not in self._seen
            known = self._seen.setdefault(arn, Seen(UNKNOWN))
            if not known.ended and (new or known.status == UNKNOWN or self._old()) and self.steady() >= self._again:
                self._look_at([one for one, seen in self._seen.items() if not seen.ended])
            return self._seen.get(arn, known)

    def alive(self) -> int:
        """How many of those that were started or looked at here have not ended, as far as was seen."""
        with self._guard:
            return sum(not seen.ended for seen in self._seen.values())

    def forget(self, arn: str) -> None:
        """Nobody asks for it any more; it still counts while it lives."""
        with self._guard:
            self._dropped.add(arn)
            self._clear()

    def _clear(self) -> None:
        for arn in [one for one in self._dropped if one not in self._seen or self._seen[one].ended]:
            self._dropped.discard(arn)
            self._seen.pop(arn, None)
            self._missed.pop(arn, None)

    def refresh(self) -> None:
        """Look at all that may live, if that is due."""
        with self._guard:
            living = [one for one, seen in self._seen.items() if not seen.ended]
            if living and self._old() and self.steady() >= self._again:
                self._look_at(living)

    def stop(self, arn: str, reason: str) -> None:
        """Ask it to end."""
        try:
            self._ask("stop_task", task=arn, reason=reason[:255])
        except Throttled:
            return  # it is asked again with the next look
        except Refused as error:
            if error.code != "InvalidParameterException":  # else: there is no such task any more
                raise PassError("RunnerUnavailable", f"{error}.") from error

    def _old(self) -> bool:
        return self._looked is None or self.steady() - self._looked > AGE

    def _look_at(self, arns: Sequence[str]) -> None:
        for first in range(0, len(arns), AT_ONCE):
            some = arns[first : first + AT_ONCE]
            try:
                found = self._described(some)
            except Throttled:
                self._again = self.steady() + self._pause
                self._pause = min(2 * self._pause, SLOWEST)
                return
            for arn in some:
                self._seen[arn] = _seen(found[arn]) if arn in found else self._missing(arn)
                if arn in found:
                    self._missed.pop(arn, None)
        self._looked, self._pause = self.steady(), SLOWER
        self._clear()

    def _missing(self, arn: str) -> Seen:
        """A task that ECS does not know, or not yet: what it says may be some seconds old."""
        since = self._missed.setdefault(arn, self.steady())
        if self.steady() - since >= UNSEEN:
            return Seen(GONE, "forgotten by ECS, as are tasks that ended long ago")
        known = self._seen.get(arn, Seen(UNKNOWN))
        return known if known.status != UNKNOWN else Seen("MISSING")

    def _described(self, arns: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        try:
            said = self._ask("describe_tasks", tasks=list(arns))
        except Refused as error:
            raise PassError("RunnerUnavailable", f"{error}.") from error
        return {one["taskArn"]: one for one in said["tasks"]}

    def _ask(self, verb: str, **asked: Any) -> Any:
        try:
            return ask(self.client, f"ECS cluster {self.cluster}", verb, cluster=self.cluster, **asked)
        except (Missing, Unfulfilled) as error:  # words of S3's that ECS has no use for
            raise Refused("", str(error)) from error


def ended(client: Any, arn: str, known_for: timedelta, witness: str) -> str:
    """Why the task is proven dead, in words for the audit log; empty: it is not.

    ECS says that it has stopped; or has forgotten it, which it does not for an hour after the end. That it does not know a task proves
    nothing unless it knows `witness` in the same answer: else it may be another account's ECS, or one that is behind.

    Args:
        client: of ECS in the task's region, as `open_client` makes it.
        arn: the task's, with its cluster in it; one of the old form proves nothing.
        known_for: how long ago at least somebody knew of the task, as by a lock that it wrote.
        witness: the ARN of a task that lives: the one that asks.

    Raises:
        PassError: "RunnerUnavailable": ECS does not answer, or does not let us. Nothing is proven then.
    """
    cluster = cluster_of(arn)
    if not cluster:
        return ""
    asked = [arn, witness] if cluster_of(witness) == cluster else [arn]
    try:
        said = ask(client, cluster, "describe_tasks", cluster=cluster, tasks=asked)
    except (Missing, Unfulfilled, Throttled, Refused) as error:
        raise PassError("RunnerUnavailable", f"{error}.") from error
    found = {one["taskArn"]: one for one in said["tasks"]}
    if arn in found:
        return f"task {arn} was {_how(found[arn])}" if found[arn]["lastStatus"] == STOPPED else ""
    missing = any(one.get("arn") == arn and one.get("reason") == "MISSING" for one in said["failures"])
    if missing and witness in found and known_for >= FORGOTTEN:
        return f"task {arn} is forgotten by ECS, as are only tasks that stopped an hour ago"
    return ""


def cluster_of(arn: str) -> str:
    """The ARN of a task's cluster; empty where the task's does not have it."""
    found = _TASK.fullmatch(arn)
    return f"{found['place']}:cluster/{found['cluster']}" if found else ""


def region_of(arn: str) -> str | None:
    """Where a task is; None where its ARN does not say."""
    return arn.split(":")[3] if _TASK.fullmatch(arn) else None


def _seen(task: Mapping[str, Any]) -> Seen:
    status, code = task["lastStatus"], task.get("stopCode", "")
    if status != STOPPED:
        return Seen(status, since=task.get("createdAt"))
    return Seen(STOPPED, _how(task), code in ASKED_TO_END, task.get("createdAt"))


def _how(task: Mapping[str, Any]) -> str:
    """How it ended, in ECS's words: why the task, and why its container, where that says more than its exit code."""
    said = [task.get("stopCode", ""), task.get("stoppedReason", "")]
    for one in task.get("containers", []):
        code = one.get("exitCode")
        said += [one.get("reason", ""), f"exit code {code}" if code else ""]
    words = dict.fromkeys(word for word in said if word)
    return f"ended by ECS ({': '.join(words) or 'it says no reason'})"
