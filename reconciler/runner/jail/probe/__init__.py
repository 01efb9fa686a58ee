"""What a program inside a jail tries in order to get out. It runs there by itself: the standard library only.

It gets a JSON object: where the sinks are, and what the names of calls are in numbers. It prints a JSON object: what was
tried -> the evidence that it worked, or null. Each try has a process of its own, since some are killed.
"""

from __future__ import annotations

from .book import TRIES
from .run import attempt

__all__ = ["TRIES", "attempt"]
