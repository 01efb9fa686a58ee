"""Files, devices and programs that are none of a job's business."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import sys
from collections.abc import Callable

from .book import LIBC, Context, looked_at, one

DEVICES = {"null", "zero", "random", "urandom"}


@one
def read_shadow(_: Context) -> str | None:
    with open("/etc/shadow", encoding="utf-8") as file:
        return file.readline()


@one
def read_credentials(context: Context) -> str | None:
    with open(context["canary"], encoding="utf-8") as file:
        return file.read()


@one
def read_credentials_by_link(context: Context) -> str | None:
    os.symlink(context["canary"], "leak")
    try:
        with open("leak", encoding="utf-8") as file:
            return file.read()
    finally:
        os.unlink("leak")


@one
def list_memory(context: Context) -> str | None:
    return str(os.listdir(context["outside"]))


@one
def read_own_environment(_: Context) -> str | None:
    with open("/proc/self/environ", "rb") as file:
        return f"{len(file.read())} bytes"


@one
def read_other_environment(context: Context) -> str | None:
    with open(f"/proc/{context['victim']}/environ", "rb") as file:
        return f"{len(file.read())} bytes"


@one
def list_kernel(_: Context) -> str | None:
    return str(os.listdir("/sys"))


@one
def other_devices(_: Context) -> str | None:
    return ", ".join(sorted(set(os.listdir("/dev")) - DEVICES)) or None


@one
def terminal(_: Context) -> str | None:
    """A terminal to type into; where there is none, what would type is let through or not."""
    LIBC.ioctl(-1, ctypes.c_ulong(0x5412), b"x")
    return looked_at()


@one
def write_outside(context: Context) -> str | None:
    return _written(os.path.join(context["outside"], "probe"))


@one
def write_readable(context: Context) -> str | None:
    return _written(os.path.join(context["readable"], "written"))


@one
def change_readable(context: Context) -> str | None:
    os.chmod(context["readable"], 0o700)
    return "chmod"


@one
def write_root(_: Context) -> str | None:
    return _written("/reconciler-probe")


@one
def write_home(_: Context) -> str | None:
    return _written(os.path.join(os.path.expanduser("~"), ".reconciler-probe"))


@one
def run_from_work(_: Context) -> str | None:
    return _runs_from(".")


@one
def run_from_scratch(_: Context) -> str | None:
    return _runs_from(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108


@one
def map_from_work(_: Context) -> str | None:
    with open("mapped", "wb+") as file:
        file.write(b"\0" * mmap.PAGESIZE)
        file.flush()
        try:
            mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
        finally:
            os.unlink("mapped")
    return "mapped"


@one
def run_a_shell(_: Context) -> str | None:
    return _starts(lambda: os.execv("/bin/sh", ["sh", "-c", ":"]))


@one
def run_from_memory(_: Context) -> str | None:
    handle = os.memfd_create("probe", 0)
    with open(os.path.realpath(sys.executable), "rb") as program:
        shutil.copyfileobj(program, os.fdopen(os.dup(handle), "wb"))
    return _starts(lambda: os.execve(handle, ["probe", "-IS", "-c", ""], {}))


def _written(path: str) -> str:
    with open(path, "w", encoding="utf-8") as file:
        file.write("escaped")
    os.unlink(path)
    return path


def _runs_from(folder: str) -> str | None:
    path = os.path.join(folder, "program")
    shutil.copy(os.path.realpath(sys.executable), path)
    os.chmod(path, 0o755)
    try:
        return _starts(lambda: os.execv(path, ["program", "-IS", "-c", ""]))
    finally:
        os.unlink(path)


def _starts(become: Callable[[], object]) -> str | None:
    pid = os.fork()
    if pid == 0:
        try:
            become()
        finally:
            os._exit(126)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if code == 126 else f"it ran ({code})"
