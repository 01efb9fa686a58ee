"""Where processes fall: a line each. What a name means stands in `tests.crash.launcher.arm`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

ANY = ("change", "upstream", "create", "destroy")
APPLYING = (*ANY, "object")  # with a provider of its own: seldom, since its start takes its time
MOVING = ("rename",)
BORN = ("birth",)
ANEW = ("anew",)


@dataclass(frozen=True, slots=True)
class Point:
    """A process of the role gets to the point at least so many `times` during a change of one of these kinds.

    A point that is not reached fails the run. As counted with `*` (`FallingHouse.count`).
    """

    role: str
    name: str
    times: int = 1
    kinds: tuple[str, ...] = ANY

    def __str__(self) -> str:
        return f"{self.role} {self.name}"


POINTS: tuple[Point, ...] = (
    Point("controller", "poll:before"),
    Point("controller", "fetch:before"),
    Point("controller", "fetch:after"),
    Point("controller", "accept:before"),
    Point("controller", "accept:after"),
    Point("controller", "tick:before"),
    Point("controller", "append:before", 3),
    Point("controller", "append:after", 3),
    Point("controller", "transaction:before", 3),
    Point("controller", "transaction:after", 3),
    Point("controller", "send:before", 2),
    Point("controller", "send:after", 2),
    Point("controller", "receive:before", 2),
    Point("controller", "receive:after", 2),
    Point("controller", "start:before"),
    Point("controller", "start:after"),
    Point("controller", "ask:after"),
    Point("controller", "end-job:before"),
    Point("controller", "end-job:after"),
    Point("runner", "answer:before", 2),
    Point("runner", "answer:after", 2),
    Point("runner", "create:before"),
    Point("runner", "create:after"),
    Point("runner", "replace:before"),
    Point("runner", "warm:after"),
    Point("runner", "fork:before"),
    Point("runner", "fork:after"),
    Point("runner", "reap:before"),
    Point("runner", "tidy:before"),
    Point("runner", "tidy:after"),
    Point("runner", "state:after"),
    Point("job", "job:begins"),
    Point("job", "unit-lock:before"),
    Point("job", "unit-lock:after"),
    Point("job", "fetch:after"),
    Point("job", "accept:before"),
    Point("job", "fence:after", 2),
    Point("job", "history:after", 2),
    Point("job", "trust:before"),
    Point("job", "trust:after"),
    Point("job", "head:before"),
    Point("job", "head:after"),
    Point("job", "environment:after"),
    Point("job", "pinned:after"),
    Point("job", "recover:before"),
    Point("job", "recover:after"),
    Point("job", "begin:before", 3),
    Point("job", "begin:after", 3),
    Point("job", "bring:before"),
    Point("job", "bring:after"),
    Point("job", "lay-out:before"),
    Point("job", "lay-out:after"),
    Point("job", "init:after", 1, ANEW),
    Point("job", "keep-init:before", 1, ANEW),
    Point("job", "keep-init:after", 1, ANEW),
    Point("job", "plan:before"),
    Point("job", "plan:after"),
    Point("job", "judge:before", 2),
    Point("job", "judge:after", 2),
    Point("job", "engine:before", 3),
    Point("job", "engine:after", 3, APPLYING),
    Point("job", "intent:before"),
    Point("job", "intent:after"),
    Point("job", "apply:before"),
    Point("job", "apply:after", 1, APPLYING),
    Point("job", "take-back:before"),
    Point("job", "take-back:after"),
    Point("job", "ended:before"),
    Point("job", "ended:after"),
    Point("job", "record:before", 3),
    Point("job", "take:before", 4),
    Point("job", "take:after", 4),
    Point("job", "remember:before", 2),
    Point("job", "remember:after", 2),
    Point("job", "fsync:before", 22),
    Point("job", "replace:before", 11),
    Point("job", "replace:after", 11),
    Point("job", "sync-folder:before", 6),
    Point("job", "end:before"),
    Point("job", "end:after"),
    Point("job", "clean:before"),
    Point("job", "clean:after"),
    Point("job", "take-over:before", 1, MOVING),
    Point("job", "take-over:after", 1, MOVING),
    Point("job", "move:before", 1, MOVING),
    Point("job", "move:after", 1, MOVING),
    Point("job", "moved:before", 1, MOVING),
    Point("job", "moved:after", 1, MOVING),
    Point("provider", "call:before", 1, BORN),
    Point("engine", "call:before", 1, BORN),
)
# Killed when the object is there and no state knows it: held as `Uncertain` until somebody has looked.
UNSEEN = (Point("engine", "call:after", 1, BORN),)
if find_spec("reconciler.runner.uncertain"):
    POINTS += UNSEEN

# What reads and writes files, pipes and sockets, and so may fail as well as die.
FAILING = frozenset(
    [
        "accept",
        "answer",
        "begin",
        "bring",
        "create",
        "end",
        "ended",
        "environment",
        "fence",
        "fetch",
        "fsync",
        "head",
        "history",
        "intent",
        "lay-out",
        "move",
        "moved",
        "pinned",
        "poll",
        "receive",
        "record",
        "recover",
        "remember",
        "replace",
        "send",
        "state",
        "sync-folder",
        "take",
        "take-back",
        "take-over",
        "tidy",
        "trust",
        "unit-lock",
        "warm",
    ]
)
# What was taken by then is nobody's to give back: no real call fails after it has given a lock.
TAKEN = frozenset({"create:after", "unit-lock:after"})
FAULTS = (
    *((point, "disk") for point in POINTS if point.name.partition(":")[0] in FAILING and point.name not in TAKEN),
    (Point("controller", "transaction:before", 3), "sqlite"),
    (Point("runner", "fork:before"), "EAGAIN"),
)
