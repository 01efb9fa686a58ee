"""What an apply left of its state in its workspace, wherever it could still write it, and how that becomes the kept one.

An engine that cannot write its state to its backend writes `errored.tfstate`; where that fails too it prints the state, whole
and with its secrets, into its output. On a full disk the state file itself is cut off by then (measured with Terraform
1.11.4), and room that the output had from before is what holds the only good copy.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from reconciler.durable import open_plain
from reconciler.errors import UnitError
from reconciler.model import StateMark, UnitId
from reconciler.runner.terraform.state import WORK_STATE, Backend, State, parse_state

ERRORED_STATE = "errored.tfstate"
APPLY_OUTPUT = "apply.out"
DUMPED = b'"@message":"Emergency state dump"'
SERIAL = re.compile(rb'("serial":\s*)(\d+)')


@dataclass(frozen=True, slots=True)
class Left:
    """A state in a workspace. `last_word`: the engine could not write it where it belongs, and gave it no new serial, maybe."""

    state: State
    last_word: bool


def find_left(work: Path) -> Left | None:
    """The newest state that is whole; None: there is none.

    Raises:
        UnitError: "StateInvalid": what is there is cut off, and there is no other copy. OSError: it cannot be read.
    """
    for path, read in ((work / ERRORED_STATE, _plain), (work / APPLY_OUTPUT, _dumped)):
        try:
            raw = read(path)
            if raw:
                return Left(parse_state(raw), last_word=True)
        except FileNotFoundError:
            continue
        except UnitError:
            continue  # cut off: the other copy may be whole
    if (work / ERRORED_STATE).exists():
        raise UnitError(
            "StateInvalid", f"{work / ERRORED_STATE} is cut off, and the engine's output has no state either."
        )
    return _in_place(work / WORK_STATE)


def bring_back(backend: Backend, unit: UnitId, work: Path, began: StateMark | None, *, alone: bool = False) -> None:
    """Make what the apply left the kept state; may be repeated.

    `began` is the state that the apply began with, and no other is replaced; with `alone` nobody else had the state since, so
    that a newer one of the same lineage is what this very apply wrote on its way.

    Raises:
        UnitError: "StateForeign", "StateInvalid", "StateUnavailable": nothing was replaced. OSError: nor is there room.
    """
    left = find_left(work)
    if left is None:
        return
    new, kept = _successor(left, began), backend.read(unit)
    if kept is not None and kept.raw in (new.raw, left.state.raw):
        return
    _check(unit, new.mark, began, kept.mark if kept else None, alone=alone)
    backend.put(unit, new, kept)


def _successor(left: Left, began: StateMark | None) -> State:
    """As it was left; where the engine came to no new serial, with the next one, for its content is another."""
    state = left.state
    if not left.last_word or began is None or state.mark != began:
        return state
    raw = SERIAL.sub(rb"\g<1>%d" % (began.serial + 1), state.raw, count=1)
    found = parse_state(raw)
    if found.mark != StateMark(began.lineage, began.serial + 1):
        raise UnitError(
            "StateInvalid", "The state that the engine printed does not say its serial where Terraform does."
        )
    return found


def _check(unit: UnitId, new: StateMark, began: StateMark | None, kept: StateMark | None, *, alone: bool) -> None:
    for base in filter(None, (began, kept)):
        if base.lineage != new.lineage or new.serial <= base.serial:
            raise UnitError(
                "StateForeign",
                f"{unit}: the job left a state {_named(new)}, which is no successor of {_named(base)}. "
                "The kept one stays; find out what wrote the other.",
            )
    if kept is not None and kept != began and not alone:
        raise UnitError(
            "StateForeign",
            f"{unit}: the state is {_named(kept)} by now, and the job began with {_named(began) if began else 'none'}. "
            "That one stays; find out what wrote it.",
        )


def _named(mark: StateMark) -> str:
    return f"{mark.lineage}#{mark.serial}"


def _in_place(path: Path) -> Left | None:
    try:
        raw = _plain(path)
    except FileNotFoundError:
        return None
    if (
        not raw
    ):  # an engine empties the file before it writes it, and may have died in between: then it has written nothing
        return None
    try:
        return Left(parse_state(raw), last_word=False)
    except UnitError as error:
        raise UnitError(error.reason, f"{path}: {error}") from error


def _plain(path: Path) -> bytes:
    with open_plain(path) as file:
        return file.read()


def _dumped(path: Path) -> bytes:
    """The state that the engine printed, as it printed it: no number of it goes through ours."""
    found = b""
    with open_plain(path) as file:
        for line in file:
            if DUMPED in line and line.startswith(b"{"):
                found = _state_in(line) or found
    return found


def _state_in(line: bytes) -> bytes:
    text = line.decode("utf-8", "surrogateescape")
    begin = text.find('"state":')
    if begin < 0:
        return b""
    begin += len('"state":')
    try:
        _, end = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        return b""  # torn: the room was too little
    return text[begin:end].encode("utf-8", "surrogateescape")
