"""Terraform states: what they say, and the two places where they are kept."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from reconciler.durable import sync_folder, write_atomic, write_new
from reconciler.errors import UnitError
from reconciler.model import Json, StateMark, UnitId
from reconciler.runner.terraform.plan import scalars
from reconciler.runner.terraform.statelock import StateLock
from reconciler.runner.terraform.workspace import Value

FORMAT = 4
SUFFIX = ".tfstate"
KEPT_SUFFIX = ".kept"  # of the last good state, beside the state
MOST_OF_A_CLAIM = 64 * 1024  # bytes; a longer one is nobody's
# In the job's folder. Not `terraform.tfstate`: `init` in a fresh folder takes a file of that name for a state from before
# there was a backend, sets it aside and leaves an empty one (measured).
WORK_STATE = "unit.tfstate"


@dataclass(frozen=True, slots=True)
class StateResource:
    """One object of a state. `tainted`: its creation did not end well, and the next apply replaces it."""

    address: str
    type: str
    tainted: bool


@dataclass(frozen=True, slots=True)
class State:
    """A parsed state: its identity, its outputs, its objects; and the bytes, which hold secrets.

    `engine_version`: of the engine that wrote it, as it says itself; whichever engine that was.
    """

    mark: StateMark
    outputs: Mapping[str, Value]
    resources: tuple[StateResource, ...]
    raw: bytes
    engine_version: str = ""


class Backend(Protocol):
    """Where the states of an environment are kept. A state's name is its unit's id."""

    def read(self, unit: UnitId) -> State | None:
        """The unit's state; None: there is none. Raises UnitError "StateInvalid" or "StateUnavailable"."""

    def block(self, unit: UnitId, folder: Path) -> Mapping[str, Mapping[str, Json]]:
        """The backend block of a root in `folder`."""

    def lock(self, unit: UnitId) -> StateLock | None:
        """The lock that every engine respects; None: nobody but this runner's jobs ever reaches the states."""

    def bring(self, unit: UnitId, folder: Path) -> None:
        """Put the state where the engine will look for it."""

    def put(self, unit: UnitId, state: State, over: State | None) -> None:
        """Make it the unit's state in place of `over`, and of no other. Raises UnitError "StateForeign"."""

    def keep(self, unit: UnitId) -> None:
        """Copy the state aside, as the last good one; there is one such copy of each unit."""

    def restoring(self, unit: UnitId) -> str | None:
        """The command that puts the copy back; None: there is none."""

    def move(self, old: UnitId, new: UnitId) -> None:
        """Give the state another name; the caller holds both. After a crash at any point it may be repeated.

        Raises UnitError "StateLost", "StateConflict".
        """

    def retire(self, unit: UnitId) -> None:
        """Set the state of a unit aside that was let go; nothing reads it any more, and it is not lost."""

    def units(self, environment: str) -> tuple[UnitId, ...]:
        """The units of the environment that have a state."""

    def claim(self, environment: str) -> bytes | None:
        """What was written beside the environment's states about whose they are; None: nothing."""

    def write_claim(self, environment: str, claim: bytes, *, anew: bool) -> None:
        """Write it; with `anew` only where there is none, whoever else tries at the same moment."""


def parse_state(raw: bytes) -> State:
    """Parse a state file of format 4.

    Raises:
        UnitError: "StateInvalid".
    """
    try:
        document = json.loads(raw, parse_float=_finite)
        _check_format(document["version"])
        mark = StateMark(str(document["lineage"]), int(document["serial"]))
        outputs = {n: Value(o["value"], bool(o.get("sensitive"))) for n, o in (document.get("outputs") or {}).items()}
        resources = tuple(r for group in document.get("resources") or () for r in _resources(group))
        written_by = str(document.get("terraform_version", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _no_state(error) from error
    return State(mark, outputs, resources, raw, written_by)


def _no_state(error: Exception) -> UnitError:
    return UnitError(
        "StateInvalid",
        f"The state is no Terraform state of format {FORMAT} ({type(error).__name__}: {error}). Restore it from a "
        "backup or an older version of the object.",
    )


def secrets_of(state: State) -> frozenset[str]:
    """Every scalar that the state marks as sensitive, as text: what to hide before a plan has told its own.

    Raises:
        UnitError: "StateInvalid".
    """
    found = {text for output in state.outputs.values() if output.sensitive for text in scalars(output.value)}
    try:
        for group in json.loads(state.raw).get("resources") or ():
            for instance in group.get("instances") or ():
                for path in instance.get("sensitive_attributes") or ():
                    found.update(scalars(_at(instance.get("attributes"), path)))
    except (TypeError, AttributeError) as error:
        raise _no_state(error) from error
    return frozenset(found)


def _at(value: Any, path: Sequence[Mapping[str, Any]]) -> Any:
    """What a path of `sensitive_attributes` leads to; all that was reached where it leads nowhere."""
    for step in path:
        key = step.get("value")
        key = key.get("value") if isinstance(key, Mapping) else key  # an index is written as a typed value
        in_list = isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value)
        if not in_list and not (isinstance(value, Mapping) and key in value):
            return value
        value = value[key]
    return value


def _check_format(version: object) -> None:
    if version != FORMAT:
        raise ValueError(f"format {version}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text} is too large")
    return number


def _resources(group: Mapping[str, Any]) -> Iterator[StateResource]:
    if group.get("mode") != "managed":
        return
    for instance in group["instances"]:
        yield StateResource(_address(group, instance), group["type"], instance.get("status") == "tainted")


def instances_of(state: State) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The address and the type of each object, and all that the state has of it, secrets too.

    Raises:
        UnitError: "StateInvalid".
    """
    try:
        for group in json.loads(state.raw).get("resources") or ():
            if group.get("mode") == "managed":
                yield from ((_address(group, one), group["type"], one) for one in group["instances"])
    except (TypeError, AttributeError, LookupError) as error:
        raise _no_state(error) from error


def _address(group: Mapping[str, Any], instance: Mapping[str, Any]) -> str:
    base = ".".join(part for part in (group.get("module"), group["type"], group["name"]) if part)
    key = instance.get("index_key")
    return base if key is None else f"{base}[{_key(key)}]"


def _key(key: str | int) -> str:
    return json.dumps(key, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


@dataclass(frozen=True, slots=True)
class LocalBackend:
    """States as files `<path>/<unit>.tfstate`. The engine works on a copy, so that no job sees another unit's state."""

    path: Path

    def read(self, unit: UnitId) -> State | None:
        """The kept state. See `Backend`."""
        return _read(self._file(unit))

    def block(self, unit: UnitId, folder: Path) -> Mapping[str, Mapping[str, Json]]:  # noqa: ARG002 - the protocol's
        """A file inside the job's folder."""
        return {"local": {"path": str(folder / WORK_STATE)}}

    def lock(self, unit: UnitId) -> None:
        """None: a file of this host, and the unit's lock in the runner's memory is what keeps another job out."""

    def bring(self, unit: UnitId, folder: Path) -> None:
        """Copy the kept state into the folder; without one, make sure that there is none."""
        work = folder / WORK_STATE
        try:
            kept = self._file(unit).read_bytes()
        except FileNotFoundError:
            work.unlink(missing_ok=True)
            return
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(work, kept)

    def put(self, unit: UnitId, state: State, over: State | None) -> None:
        """See `Backend`. Only the job that holds the unit writes here, so to look first is enough."""
        file, there = self._file(unit), self.read(unit)
        if (there and there.raw) != (over and over.raw):
            raise changed_meanwhile(str(file))
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(file, state.raw)

    def keep(self, unit: UnitId) -> None:
        """See `Backend`. Its name is the state's with `.kept`."""
        file = self._file(unit)
        if file.exists():  # a loss of power may leave the copy of before, which was as good
            write_atomic(_kept(file), file.read_bytes(), named=False)

    def restoring(self, unit: UnitId) -> str | None:
        """See `Backend`."""
        file = self._file(unit)
        return shlex.join(["cp", "-p", str(_kept(file)), str(file)]) if _kept(file).exists() else None

    def move(self, old: UnitId, new: UnitId) -> None:
        """See `Backend`. The old file stays, renamed, beside where it was."""
        source, target = self._file(old), self._file(new)
        state, there = _read(source), _read(target)
        if not check_move(old, new, state, there) or state is None:
            return
        if there is None:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(target, state.raw)
        _set_aside(source, aside("moved", state.mark))

    def retire(self, unit: UnitId) -> None:
        """See `Backend`. The file stays, renamed, beside where it was."""
        if state := self.read(unit):
            _set_aside(self._file(unit), aside("forgotten", state.mark))

    def units(self, environment: str) -> tuple[UnitId, ...]:
        """See `Backend`."""
        files = sorted((self.path / environment).rglob(f"*{SUFFIX}"))
        return tuple(UnitId(file.relative_to(self.path).as_posix().removesuffix(SUFFIX)) for file in files)

    def claim(self, environment: str) -> bytes | None:
        """See `Backend`."""
        try:
            with (self.path / claim_name(environment)).open("rb") as file:
                return file.read(MOST_OF_A_CLAIM)
        except FileNotFoundError:
            return None

    def write_claim(self, environment: str, claim: bytes, *, anew: bool) -> None:
        """See `Backend`."""
        file = self.path / claim_name(environment)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        (write_new if anew else write_atomic)(file, claim)

    def _file(self, unit: UnitId) -> Path:
        return self.path / f"{unit}{SUFFIX}"


def claim_name(environment: str) -> str:
    """Where the claim stands, beside the states; no unit is called so."""
    return f"{environment}/.reconciler.json"


def check_move(old: UnitId, new: UnitId, state: State | None, there: State | None) -> bool:
    """Whether there is anything left to do.

    Raises:
        UnitError: "StateLost": there is no state to move. "StateConflict": the new name has a state of its own.
    """
    if state is None:
        if there is None:
            raise UnitError("StateLost", f"{old} has no state to move to {new}. Restore it, or remove `moved_from`.")
        return False  # an earlier try got this far
    if there is not None and there.raw != state.raw:
        raise UnitError(
            "StateConflict",
            f"{new} has a state of its own, so that of {old} cannot become it. Give the entry another name, or "
            f"remove `moved_from` and destroy {old} by `state: absent`.",
        )
    return True


def aside(word: str, mark: StateMark) -> str:
    """A suffix that names this very state, so that setting it aside twice is setting it aside once."""
    return f"{word}-{mark.lineage[:8]}-{mark.serial}"


def changed_meanwhile(place: str) -> UnitError:
    """A state that is about to be replaced is not what it was a moment ago."""
    return UnitError("StateForeign", f"{place} was changed by somebody else a moment ago, and stays as it is.")


def _kept(file: Path) -> Path:
    return file.with_name(f"{file.name}{KEPT_SUFFIX}")


def _read(file: Path, opened: Callable[[Path], BinaryIO] = lambda file: file.open("rb")) -> State | None:
    try:
        with opened(file) as found:
            raw = found.read()
    except FileNotFoundError:
        return None
    try:
        return parse_state(raw)
    except UnitError as error:
        raise UnitError(error.reason, f"{file}: {error}") from error


def _set_aside(file: Path, suffix: str) -> None:
    file.replace(file.with_name(f"{file.name}.{suffix}"))
    sync_folder(file.parent)
