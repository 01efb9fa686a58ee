"""A process as restricted as a unit of deploy/systemd makes it: the same calls, capabilities, namespaces and memory.

    python confined.py UNIT[,DROP-IN] PROGRAM ARGUMENT...

systemd itself does not run where tests do. What it installs in the kernel for these settings is installed here from the same
file: SystemCallFilter (its groups expanded by systemd-analyze), RestrictNamespaces, RestrictAddressFamilies,
MemoryDenyWriteExecute, an empty CapabilityBoundingSet, NoNewPrivileges, and of its mounts ProtectKernelTunables with what ReadWritePaths
leaves open of it. Not here: its other mounts, and cgroups. Its user is stood for by a user namespace in which whoever runs the test has
another number than root's, and so no right of root's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
MASKED_EQUAL, NOT_EQUAL = 7, 1
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 8, 0x20, 0x1000, 0x4000, 0x40000
KINDS = {
    "mnt": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000,
    "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip
NO_NEW_PRIVILEGES, DROP_BOUNDING, DENY_WRITE_EXECUTE = 38, 24, 65
CAPABILITY_VERSION = 0x20080522
NOBODY_S = 1000  # the number of whoever runs the test, in there


class Compared(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def settings(*files: Path) -> dict[str, list[str]]:
    """The settings of [Service], drop-ins last: each with its values in order."""
    found: dict[str, list[str]] = {}
    for path in files:
        for line in path.read_text().splitlines():
            if "=" in line and not line.startswith("#"):
                name, _, value = line.partition("=")
                found.setdefault(name, []).append(value)
    return found


def calls(lines: list[str]) -> set[str]:
    """The calls that lines of SystemCallFilter leave."""
    left: set[str] = set()
    for line in lines:
        words = {name for word in line.removeprefix("~").split() for name in _expanded(word)}
        left = left - words if line.startswith("~") else left | words
    return left


def _expanded(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
    ).stdout
    inner = [line.strip() for line in told.splitlines() if line.startswith(" ") and not line.strip().startswith("#")]
    return {name for one in inner for name in _expanded(one)}


def kinds(line: str) -> int:
    """The flags of the namespaces that a line of RestrictNamespaces allows."""
    return 0 if line == "yes" else sum(KINDS[word] for word in line.split())


def confine(unit: dict[str, list[str]]) -> None:
    """Be as restricted as the unit from now on."""
    libc, filters = ctypes.CDLL(None, use_errno=True), ctypes.CDLL("libseccomp.so.2", use_errno=True)
    for capability in range(41):
        libc.prctl(DROP_BOUNDING, capability, 0, 0, 0)
    header, data = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    _fine(libc.capset(header, data), "capset")
    _fine(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no new privileges")
    if unit.get("MemoryDenyWriteExecute") == ["yes"]:
        _fine(libc.prctl(DENY_WRITE_EXECUTE, 1, 0, 0, 0), "deny write and execute")
    for rule in (_allow_listed, _families, _namespaces):
        context = rule(filters, unit)
        _fine(filters.seccomp_load(ctypes.c_void_p(context)), rule.__name__)


def be_nobody() -> None:
    """Be a user who is not root, and owns what one owned before."""
    libc, outside = ctypes.CDLL(None, use_errno=True), (os.getuid(), os.getgid())
    _fine(libc.unshare(KINDS["user"]), "a user namespace")
    Path("/proc/self/setgroups").write_text("deny")
    for name, number in zip(("uid_map", "gid_map"), outside, strict=True):
        Path(f"/proc/self/{name}").write_text(f"{NOBODY_S} {number} 1")


def protect_tunables(unit: dict[str, list[str]]) -> None:
    """Make /proc/sys read-only, but for what the unit leaves open, in a mount namespace of one's own."""
    libc = ctypes.CDLL(None, use_errno=True)
    _fine(libc.unshare(KINDS["mnt"]), "a mount namespace")
    _mount(libc, "/", RECURSIVE | PRIVATE)
    left = [path for path in unit.get("ReadWritePaths", ()) if path.startswith("/proc/sys/")]
    for path in ("/proc/sys", *left):
        _mount(libc, path, BIND, path)
    _mount(libc, "/proc/sys", REMOUNT | BIND | READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC)


def _mount(libc: ctypes.CDLL, target: str, flags: int, source: str | None = None) -> None:
    given = None if source is None else source.encode()
    _fine(libc.mount(given, target.encode(), None, ctypes.c_ulong(flags), None), f"a mount at {target}")


def _fine(answer: int, what: str) -> None:
    if answer:
        raise OSError(ctypes.get_errno() or -answer, what)


def _new(filters: ctypes.CDLL, otherwise: int) -> int:
    filters.seccomp_init.restype = ctypes.c_void_p
    return int(filters.seccomp_init(ctypes.c_uint32(otherwise)))


def _add(filters: ctypes.CDLL, context: int, action: int, name: str, *compared: Compared) -> None:
    number = filters.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:  # a call of another machine has none
        given = (Compared * len(compared))(*compared)
        answer = filters.seccomp_rule_add_array(
            ctypes.c_void_p(context), ctypes.c_uint32(action), number, ctypes.c_uint(len(compared)), given
        )
        _fine(answer, name)


def _allow_listed(filters: ctypes.CDLL, unit: dict[str, list[str]]) -> int:
    context = _new(filters, ERRNO | errno.EPERM)
    for name in sorted(calls(unit["SystemCallFilter"]) | {"seccomp", "prctl", "execve"}):
        _add(filters, context, ALLOW, name)
    return context


def _families(filters: ctypes.CDLL, unit: dict[str, list[str]]) -> int:
    context = _new(filters, ALLOW)
    known = {int(getattr(socket, name)) for name in " ".join(unit["RestrictAddressFamilies"]).split()}
    for family in set(range(1, 46)) - known:
        _add(filters, context, ERRNO | errno.EAFNOSUPPORT, "socket", Compared(0, MASKED_EQUAL, 0xFFFFFFFF, family))
    return context


def _namespaces(filters: ctypes.CDLL, unit: dict[str, list[str]]) -> int:
    context, allowed = _new(filters, ALLOW), kinds(unit["RestrictNamespaces"][-1])
    for name in ("clone", "unshare"):
        for flag in KINDS.values():
            if not flag & allowed:
                _add(filters, context, ERRNO | errno.EPERM, name, Compared(0, MASKED_EQUAL, flag, flag))
    _add(filters, context, ERRNO | errno.ENOSYS, "clone3")  # its flags are in memory, where a filter cannot look
    return context


if __name__ == "__main__":
    asked = settings(*map(Path, sys.argv[1].split(",")))
    be_nobody()
    if asked.get("ProtectKernelTunables") == ["yes"]:
        protect_tunables(asked)
    confine(asked)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - it is what it was asked to become
