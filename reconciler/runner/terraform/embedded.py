"""Terraform from the wheel of the extra `embedded`: a program that behaves as `terraform` and needs no environment.

This file is copied into the launcher that `engine.embedded_launcher` writes, so it knows the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import sys


def run(library: str) -> int:
    """Hand this process's arguments and descriptors to the library and return the exit code.

    The library's own runtime takes SIGINT and SIGTERM over, as in the native program.
    """
    entry = ctypes.CDLL(library).RunCli
    entry.argtypes = [ctypes.c_int64, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int64, ctypes.c_int64]
    arguments = [argument.encode() for argument in sys.argv[1:]]
    return int(entry(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments), 1, 2))


if __name__ == "__main__":
    # Not sys.exit: the library's threads must not meet a Python that is being torn down.
    os._exit(run(LIBRARY))  # type: ignore[name-defined]  # noqa: F821 - the launcher's first line sets it
