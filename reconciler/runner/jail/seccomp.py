"""The system calls that a jailed program does not get, as a filter for the kernel: classic BPF over `struct seccomp_data`.

Engines and providers are Go programs: what is refused here none of them needs (measured). A call of another architecture
kills, since its numbers mean other calls; a call that is newer than this list does not exist.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from reconciler.errors import ConfigError

ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUAL, GREATER, ANY_OF, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; both machines are little-endian
LAST_KNOWN = 462  # mseal, Linux 6.10
X32 = 0x40000000  # set in the numbers of x86's third ABI
NAMESPACES = 0x7E020080  # CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP, NEWTIME
TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into somebody's terminal
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
ROUTE = 0  # the one netlink protocol that Go asks: which interfaces are there

# name: (x86_64, aarch64); None: that machine has no such call.
CALLS: Mapping[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    # keys, programs and rings inside the kernel
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "userfaultfd": (323, 282), "perf_event_open": (298, 241), "fanotify_init": (300, 262),
    # mounts and namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    # files by their number, programs that are in no file
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "mknod": (133, None), "mknodat": (259, 33),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "uselib": (134, None),
    # the machine
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "create_module": (174, None), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116),
    "vhangup": (153, 58), "sethostname": (170, 161), "setdomainname": (171, 162), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171), "iopl": (172, None),
    "ioperm": (173, None), "modify_ldt": (154, None), "personality": (135, 92), "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42), "sysfs": (139, None), "ustat": (136, None), "_sysctl": (156, None),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "mbind": (237, 235), "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
}  # fmt: skip
LOOKED_INTO: Mapping[str, tuple[int, int]] = {
    "clone": (56, 220), "clone3": (435, 435), "ioctl": (16, 29), "socket": (41, 198),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """A processor: how the kernel calls it, and its column in the table."""

    audit: int
    column: int


MACHINES = {"x86_64": Machine(0xC000003E, 0), "aarch64": Machine(0xC00000B7, 1)}


def number(name: str, machine: str | None = None) -> int | None:
    """The number of a call on this machine, or on that one."""
    column = _machine(machine).column
    return (CALLS.get(name) or LOOKED_INTO[name])[column]


@cache
def program(machine: str | None = None, *, network: bool = True) -> bytes:
    """The filter for this machine, or for that one, as `bwrap --seccomp` reads it. Without `network` only unix sockets are left.

    Raises:
        ConfigError: there is none for it.
    """
    here = _machine(machine)
    lines = [
        _line(LOAD, ARCHITECTURE),
        _line(EQUAL, here.audit, 1, 0),
        _line(RETURN, KILL),
        _line(LOAD, NUMBER),
        *_refuse(LAST_KNOWN, errno.ENOSYS, test=GREATER),
    ]
    if here.column == 0:
        lines[4:4] = [_line(GREATER, X32 - 1, 0, 1), _line(RETURN, KILL)]
    for numbers in CALLS.values():
        found = numbers[here.column]
        lines += [] if found is None else _refuse(found, errno.EPERM)
    lines += _looked_into(here.column, _families() if network else _no_families())
    return b"".join([*lines, _line(RETURN, ALLOW)])


def _looked_into(column: int, families: list[bytes]) -> list[bytes]:
    """Calls that depend on their arguments. Those of clone3 lie in memory, out of the filter's sight."""
    clone, clone3, ioctl, socket = (LOOKED_INTO[name][column] for name in ("clone", "clone3", "ioctl", "socket"))
    typed = [line for request in TERMINAL_INPUT for line in _refuse(request, errno.EPERM)]
    return [
        *_refuse(clone3, errno.ENOSYS),
        *_when(clone, [_load(0), *_refuse(NAMESPACES, errno.EPERM, test=ANY_OF)]),
        *_when(ioctl, [_load(1), *typed]),
        *_when(socket, families),
    ]


def _families() -> list[bytes]:
    """What `socket` may be asked for."""
    return [
        _load(0),
        *(_line(EQUAL, family, 7 - place, 0) for place, family in enumerate((UNIX, INET, INET6))),
        _line(EQUAL, NETLINK, 1, 0),
        _line(RETURN, REFUSE | errno.EAFNOSUPPORT),
        _load(2),
        _line(EQUAL, ROUTE, 1, 0),
        _line(RETURN, REFUSE | errno.EAFNOSUPPORT),
    ]


def _no_families() -> list[bytes]:
    """Unix sockets alone: engines talk to their providers over them."""
    return [_load(0), _line(EQUAL, UNIX, 1, 0), _line(RETURN, REFUSE | errno.EAFNOSUPPORT)]


def _when(call: int, then: list[bytes]) -> list[bytes]:
    """Look closer at one call, which ends there; the others go on with the number still loaded."""
    return [_line(EQUAL, call, 0, len(then) + 1), *then, _line(RETURN, ALLOW)]


def _refuse(value: int, error: int, *, test: int = EQUAL) -> list[bytes]:
    return [_line(test, value, 0, 1), _line(RETURN, REFUSE | error)]


def _load(argument: int) -> bytes:
    """The low half of an argument: the kernel looks at no more of those that are asked here."""
    return _line(LOAD, ARGUMENTS + 8 * argument)


def _line(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction: what to do, and how many to skip if it holds and if not."""
    return struct.pack("<HBBI", code, yes, no, value)


def _machine(name: str | None) -> Machine:
    found = MACHINES.get(name or platform.machine())
    if found is None:
        known = " and ".join(MACHINES)
        raise ConfigError(f"sandbox: there is no filter of system calls for {platform.machine()}, only for {known}")
    return found
