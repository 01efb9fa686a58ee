"""What a judgement costs: of this process's own time and memory, and not more because something else is busy or looks on."""

from __future__ import annotations

import gc
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_NOMINAL = 0.03  # seconds that the yardstick takes on a core of its own


def slowness() -> float:
    """How much longer than on an idle core everything takes now: neighbours on the same core count as time of ours."""
    began = time.process_time()
    total = 0
    for number in range(600_000):
        total += number & 7
    return max(1.0, (time.process_time() - began) / _NOMINAL)


@contextmanager
def within(seconds: float = 1.0) -> Iterator[None]:
    """Fail where what is inside takes longer, on an unloaded machine, without whatever measures coverage.

    What thousands of other tests have left in this process is not looked through for garbage meanwhile.
    """
    tracer = sys.gettrace()
    sys.settrace(None)
    gc.freeze()
    try:
        slow, began = slowness(), time.process_time()
        yield
        took = time.process_time() - began
        slow = max(slow, slowness())
    finally:
        gc.unfreeze()
        sys.settrace(tracer)
    assert took < seconds * slow, f"{took:.2f} s, on a machine that is {slow:.1f} times slower than alone"


@contextmanager
def beside(megabytes: int) -> Iterator[None]:
    """Fail where what is inside makes this process larger, at its peak, than it is already, by more than that."""
    own = Path("/proc/self")
    if not (own / "clear_refs").exists():
        pytest.skip("the peak of a part of a process is measured on Linux only")
    (own / "clear_refs").write_text("5")  # the peak counts from here on
    began = _peak(own)
    yield
    grown = _peak(own) - began
    assert grown < megabytes, f"{grown} MB beside the {began} MB from before"


def _peak(process: Path) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB$", (process / "status").read_text(), re.MULTILINE)
    assert found, "the kernel tells the peak"
    return int(found[1]) >> 10
