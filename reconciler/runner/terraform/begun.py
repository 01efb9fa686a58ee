"""What an apply had begun to make when it died: from its plan, what its engine said until then, and the state that is left.

The engine says that it begins with an object before it calls the provider, and what came of it afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.durable import open_plain
from reconciler.runner.terraform.creation import Creation, mark
from reconciler.runner.terraform.state import State, instances_of

OUTPUT = "apply.out"
PLANS = ("tfplan", "tfplan.used")  # before the engine has come to the end of its apply, one of them is there
LONGEST = 1 << 26  # bytes of a line; a longer one was written by nobody whom we believe


def boot() -> str:
    """Which start of this host it is; empty where the system does not say."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def started(work: Path) -> Mapping[str, str] | None:
    """The addresses that the apply in this workspace had begun with, and the new ids that were told; empty: not told.

    None: what is left there proves nothing. An apply whose engine was never started has its plan there, and no output.
    """
    try:
        return _read(work / OUTPUT)
    except FileNotFoundError:
        return {} if any((work / name).is_file() for name in PLANS) else None
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None


def _read(path: Path) -> Mapping[str, str]:
    """Raises ValueError: a line is torn, so that others may be missing."""
    found: dict[str, str] = {}
    with open_plain(path) as file:
        while line := file.readline(LONGEST):
            if not line.strip(b"\0"):
                break  # room that was kept for more
            if not line.endswith(b"\n"):
                raise ValueError("torn")
            if line.startswith((b"{", b"\0")):
                _note(json.loads(line), found)
    return found


def _note(said: Mapping[str, Any], found: dict[str, str]) -> None:
    kind = said.get("type")
    if kind not in ("apply_start", "apply_complete"):
        return
    hook = said["hook"]
    if hook["action"] == "delete":
        return
    address = str(hook["resource"]["addr"])
    told = kind == "apply_complete" and hook.get("id_key") == "id"
    found[address] = str(hook.get("id_value") or "") if told else found.get(address, "")


def suspects(planned: Iterable[Creation], began: Mapping[str, str] | None, state: State | None) -> tuple[Creation, ...]:
    """Which of them may be there although the state does not have them. `began`: see `started`; with None all may be."""
    there = {address: one for address, _, one in instances_of(state) if "deposed" not in one} if state else {}
    found = []
    for one in planned:
        if began is not None and one.address not in began:
            continue
        new = began[one.address] if began is not None else ""
        if not _known(there.get(one.address), one.was, new):
            found.append(replace(one, id=new))
    return tuple(found)


def _known(instance: Mapping[str, Any] | None, was: str, new: str) -> bool:
    """Whether the state's object is the new one."""
    if instance is None:
        return False
    attributes = instance.get("attributes")
    attributes = attributes if isinstance(attributes, Mapping) else {}
    if new:
        return attributes.get("id") == new
    return mark(attributes, tainted=instance.get("status") == "tainted") != was
