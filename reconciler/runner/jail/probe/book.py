"""The list of tries, and what all of them need."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from typing import Any

Context = dict[str, Any]
Try = Callable[[Context], "str | None"]

UNASKED = (errno.EPERM, errno.ENOSYS)  # what a filter answers; whatever else is said, the kernel looked at the call
LIBC = ctypes.CDLL(None, use_errno=True)
TRIES: dict[str, Try] = {}
CHANNEL = [-1]  # where a try's own process tells: a handle that it did not inherit


def one(function: Try) -> Try:
    """A try, by its name."""
    TRIES[function.__name__.replace("_", "-")] = function
    return function


def looked_at() -> str | None:
    """Whether the kernel looked at the call that was just made: its error, unless a filter said that."""
    number = ctypes.get_errno()
    return None if number in UNASKED else errno.errorcode.get(number, str(number))
