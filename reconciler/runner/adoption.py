"""A whole state that others made becomes a unit's: where it may come from, and the one moment in which it is written.

It is planned as a copy first; only a plan that destroys nothing and makes nothing anew lets it be written in the unit's place, at
once and whole. The source is read, and never written. (docs/decisions/0029)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reconciler.config import AdoptS3, HostEnvironment
from reconciler.durable import open_plain
from reconciler.errors import HeldError, UnitError
from reconciler.model import Presence, Unit
from reconciler.runner.access.policy import for_adoption
from reconciler.runner.host import Host, Hosted
from reconciler.runner.memory import Adopted, Memory, UnitMemory
from reconciler.runner.record import Origin
from reconciler.runner.s3 import s3_client
from reconciler.runner.terraform.s3 import ABSENT
from reconciler.runner.terraform.state import State, parse_state
from reconciler.runner.terraform.wrapped import wrap

MOST = 256 << 20  # bytes of a state that is adopted
S3 = "s3://"


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be adopted: the state as it was found, and as the unit's own."""

    address: str
    found: State
    wrapped: State

    @property
    def says(self) -> Adopted:
        """What is remembered of it."""
        digest = hashlib.sha256(self.wrapped.raw).hexdigest()
        return Adopted(self.address, self.found.mark, self.wrapped.mark, digest)

    @property
    def told(self) -> str:
        """How many objects of what, for people."""
        return f"{len(self.wrapped.resources)} objects of {self.address}"


def wanted(unit: Unit, memory: UnitMemory) -> str | None:
    """The state that the unit is still to take over. Once it has, the line in its entry means nothing any more.

    Raises:
        HeldError: the unit has another state already.
    """
    source, adopted = unit.entry.adopt, memory.adopted
    if source is None or unit.presence is not Presence.PRESENT:
        return None
    if memory.mark is None and memory.applying is None:
        return source
    if adopted is not None and adopted.source == source:
        return None
    has = f"adopted from {adopted.source}" if adopted else "of its own"
    what = f"{unit.entry.at('adopt.state')}: {unit.id} has a state {has}, and a unit has one"
    how = "Remove `adopt`, or write it into an entry of its own"
    raise HeldError("AdoptConflict", f"{what}. {how}.")


def unsettled(unit: Unit, memory: UnitMemory) -> str | None:
    """The state that the unit has taken over, until it was in order with it once."""
    applied, adopted = memory.applied, memory.adopted
    if adopted is None or unit.presence is not Presence.PRESENT:
        return None
    return None if applied is not None and applied.presence is Presence.PRESENT else adopted.source


def read(host: Host, hosted: Hosted, unit: Unit, source: str) -> Source:
    """The state at the source, as it is now.

    Raises:
        HeldError: this host does not allow it, another unit has it, or it is none that can be adopted.
        UnitError: it cannot be read now, or somebody is changing it.
    """
    place = unit.entry.at("adopt.state")
    try:
        raw = _fetched(host, hosted, source)
        found = parse_state(raw)
        wrapped = wrap(found)
    except UnitError as error:
        if error.transient or isinstance(error, HeldError):
            raise
        raise HeldError("AdoptInvalid", f"{place}: {source} cannot be adopted: {error}") from error
    if not wrapped.resources:
        raise HeldError("AdoptInvalid", f"{place}: {source} has no objects, so there is nothing to adopt.")
    read = Source(source, found, wrapped)
    _nobodys(host.memory, hosted, unit, read)
    return read


def take(host: Host, hosted: Hosted, unit: Unit, memory: UnitMemory, source: Source, origin: Origin) -> UnitMemory:
    """Write the state in the unit's place, once. Killed anywhere in here, `finish` or another try brings it to its end.

    Raises:
        HeldError: "AdoptConflict": there is a state already, or it is another unit's. UnitError: the backend does not answer.
    """
    with host.memory.adopting():
        _nobodys(host.memory, hosted, unit, source)
        return _take(host, hosted, memory, source, origin)


def _take(host: Host, hosted: Hosted, memory: UnitMemory, source: Source, origin: Origin) -> UnitMemory:
    if hosted.backend.read(memory.unit) is not None:
        what = f"{memory.unit} has a state already that its adoption did not write"
        raise HeldError("AdoptConflict", f"{what}. Find out whose it is and take it away, or remove `adopt`.")
    memory = replace(memory, adopted=source.says)
    host.memory.save(memory)
    hosted.backend.put(memory.unit, source.wrapped, None)
    return _done(host, memory, origin)


def finish(host: Host, hosted: Hosted, memory: UnitMemory, origin: Callable[[], Origin]) -> UnitMemory:
    """The memory of a unit whose adoption died once its state was written. Any other is answered as it is.

    Raises:
        UnitError: the backend does not answer.
    """
    if memory.adopted is None or memory.mark is not None:
        return memory
    there = hosted.backend.read(memory.unit)
    if there is None or hashlib.sha256(there.raw).hexdigest() != memory.adopted.digest:
        return memory  # it was not written; or what is there is not of it, and `take`, or who reads it, says so
    return _done(host, memory, origin())


def _done(host: Host, memory: UnitMemory, origin: Origin) -> UnitMemory:
    adopted = memory.adopted
    assert adopted is not None  # noqa: S101 - both callers have just looked
    host.record.adopted(memory.unit, adopted.state, adopted.source, origin)
    memory = replace(memory, mark=adopted.state)
    host.memory.save(memory)
    return memory


def _nobodys(memory: Memory, hosted: Hosted, unit: Unit, source: Source) -> None:
    """One state has one owner, however it is addressed. Raises HeldError."""
    lineage = source.found.mark.lineage
    for other in memory.units():
        if other.unit != unit.id and other.moved_to is None and _has(hosted, other, lineage):
            what = f"{source.address} (lineage {lineage}) is the state of {other.unit} already"
            how = "To rename a unit, use `moved_from`; to split a state, `state mv -state-out` makes one with a lineage of its own"
            raise HeldError("AdoptConflict", f"{unit.entry.at('adopt.state')}: {what}. {how}.")


def _has(hosted: Hosted, other: UnitMemory, lineage: str) -> bool:
    """Whether the unit has the state, or may: an adoption that died may have written it."""
    if other.mark is not None or other.adopted is None:
        return other.mark is not None and other.mark.lineage == lineage
    here = other.unit.startswith(f"{hosted.name}/")
    return other.adopted.found.lineage == lineage and (not here or hosted.backend.read(other.unit) is not None)


# --- where it may come from


def _fetched(host: Host, hosted: Hosted, source: str) -> bytes:
    """The bytes at the source. Raises HeldError, UnitError."""
    listed = host.config.environments[hosted.name]
    if source.startswith(S3):
        bucket, _, key = source.removeprefix(S3).partition("/")
        return _from_s3(host, hosted, listed, bucket, key)
    return _from_file(host, hosted, listed, Path(source))


def _not_allowed(hosted: Hosted, source: str) -> HeldError:
    where = f"runner.yaml: environments.{hosted.name}.adopt"
    what = f"{where} lists no place that {source} is in, and a state is full of secrets"
    return HeldError("AdoptNotAllowed", f"{what}: add it there while it is adopted, or correct the entry.")


def _ours(source: str, whose: str) -> HeldError:
    what = f"{source} is where this runner keeps {whose}, and nothing is adopted from there"
    return HeldError("AdoptNotAllowed", f"{what}. To rename a unit, use `moved_from`.")


def _from_file(host: Host, hosted: Hosted, listed: HostEnvironment, path: Path) -> bytes:
    folders = [one.local.path for one in listed.adopt if one.local]
    try:
        real = path.resolve(strict=True)
        if not any(real.is_relative_to(folder.resolve()) for folder in folders):
            raise _not_allowed(hosted, str(path))
        _refuse_ours(host, real)
        if (lock := real.with_name(f".{real.name}.lock.info")).exists():
            raise _locked(str(path), str(lock))
        with open_plain(real) as file:
            return _bounded(file.read(MOST + 1))
    except (OSError, RuntimeError) as error:  # links that lead in a circle
        if not any(path.is_relative_to(folder) for folder in folders):
            raise _not_allowed(hosted, str(path)) from error
        what = f"{path} cannot be read on the runner's host ({error})"
        raise UnitError(
            "AdoptUnavailable", f"{what}. Correct the entry, or put the state there.", transient=True
        ) from error


def _refuse_ours(host: Host, real: Path) -> None:
    if real.is_relative_to(host.memory.folder.resolve()):
        raise _ours(str(real), "its memory")
    for name, other in host.config.environments.items():
        if other.backend.local and real.is_relative_to(other.backend.local.path.resolve()):
            raise _ours(str(real), f"the states of {name}")


def _from_s3(host: Host, hosted: Hosted, listed: HostEnvironment, bucket: str, key: str) -> bytes:
    address = f"{S3}{bucket}/{key}"
    place = next((one.s3 for one in listed.adopt if one.s3 and _inside(one.s3, bucket, key)), None)
    if place is None:
        raise _not_allowed(hosted, address)
    for name, other in host.config.environments.items():
        its = other.backend.s3
        if its and its.bucket == bucket and key.startswith(f"{name}/"):
            raise _ours(address, f"the states of {name}")
    client = _client(hosted, place, key)
    if _object(client, bucket, f"{key}.tflock", 1) is not None:
        raise _locked(address, f"{address}.tflock")
    raw = _object(client, bucket, key, MOST + 1)
    if raw is None:
        what = f"{address} is not there"
        raise UnitError("AdoptUnavailable", f"{what}. Correct the entry, or put the state there.", transient=True)
    return _bounded(raw)


def _inside(place: AdoptS3, bucket: str, key: str) -> bool:
    prefix = place.prefix.rstrip("/")
    return place.bucket == bucket and (key == prefix or key.startswith(f"{prefix}/"))


def _client(hosted: Hosted, place: AdoptS3, key: str) -> Any:
    """A client that may read this one object, whatever else the environment's credentials may do."""
    given = hosted.variables
    endpoint = place.endpoint or given.get("AWS_ENDPOINT_URL_S3") or given.get("AWS_ENDPOINT_URL")
    keys = hosted.access.keys(lambda partition: for_adoption(place.bucket, key, partition))
    return s3_client(place.region, endpoint, given, path_style=place.use_path_style, read_seconds=30, keys=keys)


def _object(client: Any, bucket: str, key: str, most: int) -> bytes | None:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        raw: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read(most)
        return raw
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code", "") in ABSENT:
            return None
        how = "Check `adopt` in runner.yaml, and that the environment's credentials may read the object and list the bucket"
        raise UnitError("AdoptUnavailable", f"{S3}{bucket}/{key}: {error}. {how}.", transient=True) from error


def _locked(source: str, lock: str) -> UnitError:
    what = f"{source} is locked by {lock}: somebody is changing it"
    how = "Stop whatever else applies to it; it is tried again by itself, and the lock is never broken"
    return UnitError("AdoptLocked", f"{what}. {how}.", transient=True)


def _bounded(raw: bytes) -> bytes:
    if len(raw) > MOST:
        raise UnitError("AdoptInvalid", f"it has more than {MOST >> 20} MiB")
    return raw
