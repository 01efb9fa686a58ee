"""What a judgement costs: of the process's own time, and not more because the machine is busy with something else."""

from __future__ import annotations

import time

_NOMINAL = 0.03  # seconds that the yardstick takes on a core of its own


def slowness() -> float:
    """How much longer than on an idle core everything takes now: neighbours on the same core count as time of ours."""
    began = time.process_time()
    total = 0
    for number in range(600_000):
        total += number & 7
    return max(1.0, (time.process_time() - began) / _NOMINAL)
