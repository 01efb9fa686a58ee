"""Landlock: a process and all that it starts open no file but those below the folders that are listed.

Linux 5.13 and later; it takes no privilege. What the kernel does not know yet of it is left out, and the probes tell
whether what is left holds.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CREATE, ADD, RESTRICT = 444, 445, 446  # the same numbers on every machine
VERSION, BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
MAKE_CHAR, MAKE_BLOCK, TRUNCATE, DEVICE_IOCTL = 1 << 6, 1 << 11, 1 << 14, 1 << 15
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | DEVICE_IOCTL  # the others mean what is in a folder

READ = READ_FILE | READ_DIR
RUN = READ | EXECUTE
USE = READ_FILE | WRITE_FILE
KEEP = 0xFFFF & ~(EXECUTE | MAKE_CHAR | MAKE_BLOCK | DEVICE_IOCTL)  # a folder of one's own, of which nothing is started

# How many rights on files a kernel knows, by the version of its Landlock; then those on TCP, then scopes.
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
NEWEST_FILE_RIGHTS, TCP_SINCE, TCP, SCOPES_SINCE, SCOPES = 16, 4, 3, 6, 3


@dataclass(frozen=True, slots=True)
class Opened:
    """Paths, and what may be done below each of them. What is not there is left out."""

    paths: tuple[Path, ...]
    rights: int


def newest() -> int:
    """The version of the kernel's own.

    Raises:
        OSError: it has none.
    """
    return _asked(CREATE, None, ctypes.c_size_t(0), VERSION)


def restrict(opened: Iterable[Opened], *, network: bool) -> None:
    """From now on this process is shut in. It must have given up the right to gain privileges.

    Raises:
        OSError: the kernel has no Landlock.
    """
    version = newest()
    handled = (1 << FILE_RIGHTS.get(version, NEWEST_FILE_RIGHTS)) - 1
    tcp = 0 if network or version < TCP_SINCE else TCP
    words = [handled] + [tcp] * (version >= TCP_SINCE) + [SCOPES] * (version >= SCOPES_SINCE)
    rules = _asked(CREATE, struct.pack(f"{len(words)}Q", *words), ctypes.c_size_t(8 * len(words)), 0)
    try:
        for one in opened:
            for path in filter(os.path.exists, one.paths):
                _add(rules, path, one.rights & handled)
        _asked(RESTRICT, rules, 0)
    finally:
        os.close(rules)


def _add(rules: int, path: Path, rights: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        _asked(ADD, rules, BENEATH, struct.pack("=Qi", rights if is_folder else rights & ON_FILES, handle), 0)
    finally:
        os.close(handle)


def _asked(call: int, *arguments: object) -> int:
    answer: int = ctypes.CDLL(None, use_errno=True).syscall(call, *arguments)
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return answer
