"""Calls of the kernel that no engine needs."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import signal

from .book import LIBC, TRIES, Context, Try, looked_at, one

# A call of the kernel with arguments that do nothing where it is let through.
CALLS: dict[str, tuple[int, ...]] = {
    "ptrace": (0x4206, 1 << 22, 0, 0),
    "process_vm_readv": (1 << 22, 0, 0, 0, 0, 0),
    "process_vm_writev": (1 << 22, 0, 0, 0, 0, 0),
    "pidfd_getfd": (-1, 0, 0),
    "kcmp": (1 << 22, 1 << 22, 99, 0, 0),
    "keyctl": (99999, 0, 0, 0, 0),
    "add_key": (0, 0, 0, 0, 0),
    "request_key": (0, 0, 0, 0),
    "bpf": (99999, 0, 0),
    "io_uring_setup": (0, 0),
    "io_uring_enter": (-1, 0, 0, 0, 0),
    "userfaultfd": (0x7FFFFFFF,),
    "perf_event_open": (0, 0, 0, 0, 0),
    "unshare": (0x10000000,),
    "setns": (-1, 0),
    "mount": (0, 0, 0, 0, 0),
    "umount2": (0, 0),
    "pivot_root": (0, 0),
    "chroot": (0,),
    "fsopen": (0, 0),
    "open_tree": (-1, 0, 0),
    "move_mount": (-1, 0, -1, 0, 0),
    "name_to_handle_at": (-1, 0, 0, 0, 0),
    "open_by_handle_at": (-1, 0, 0),
    "memfd_create": (0, 0),
    "kexec_load": (0, 99999, 0, 0),
    "init_module": (0, 0, 0),
    "finit_module": (-1, 0, 0),
    "sethostname": (0, -1),
    "personality": (0xFFFFFFFF,),
    "clone3": (0, 0),
    "quotactl": (0, 0, 0, 0),
    "swapon": (0, 0),
    "acct": (1,),
    "mbind": (0, 0, 0, 0, 0, 0),
}


@one
def nested_namespace(_: Context) -> str | None:
    return "made" if LIBC.unshare(0x10000000) == 0 else None


@one
def cloned_namespace(context: Context) -> str | None:
    pid = LIBC.syscall(context["numbers"]["clone"], 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return "made" if pid > 0 else None


@one
def other_abi(_: Context) -> str | None:
    """x86's third ABI: the number of getpid with a bit set."""
    if platform.machine() != "x86_64":
        return None
    answer = LIBC.syscall(0x40000000 | 39)
    return str(answer) if answer > 0 or ctypes.get_errno() != errno.ENOSYS else None


@one
def old_abi(_: Context) -> str | None:
    """The getpid of 32 bits, which is another call's number with 64."""
    if platform.machine() != "x86_64":
        return None
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
    call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return f"getpid: {call()}"


def _call(name: str) -> Try:
    def asked(context: Context) -> str | None:
        number = context["numbers"].get(name)
        if number is None:
            return None
        answer = LIBC.syscall(number, *map(ctypes.c_long, CALLS[name]))
        return str(answer) if answer >= 0 else looked_at()

    return asked


TRIES |= {f"call-{name}": _call(name) for name in CALLS}
