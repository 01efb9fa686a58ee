"""What a program inside a jail tries in order to get out. It runs there by itself: the standard library only.

Usage: probe.py CONTEXT, a JSON object: where the sinks are, and what the names of calls are in numbers. It prints a JSON
object: what was tried -> the evidence that it worked, or null. Each try has a process of its own, since some are killed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

Context = dict[str, Any]
Try = Callable[[Context], "str | None"]

SECONDS = 5  # for one try
DEVICES = {"null", "zero", "random", "urandom"}
UNASKED = (errno.EPERM, errno.ENOSYS)  # what a filter answers; whatever else is said, the kernel looked at the call
LIBC = ctypes.CDLL(None, use_errno=True)
TRIES: dict[str, Try] = {}

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


def one(function: Try) -> Try:
    """A try, by its name."""
    TRIES[function.__name__.replace("_", "-")] = function
    return function


# --- files


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
    return _looked_at()


@one
def write_outside(context: Context) -> str | None:
    return _written(os.path.join(context["outside"], "probe"))


@one
def write_readable(context: Context) -> str | None:
    return _written(os.path.join(context["readable"], "probe"))


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
def run_from_memory(_: Context) -> str | None:
    handle = os.memfd_create("probe", 0)
    with open(os.path.realpath(sys.executable), "rb") as program:
        shutil.copyfileobj(program, os.fdopen(os.dup(handle), "wb"))
    return _starts(lambda: os.execve(handle, ["probe", "-IS", "-c", ""], {}))


# --- processes


@one
def see_process(context: Context) -> str | None:
    os.kill(context["victim"], 0)
    return "it is there"


@one
def see_any_process(_: Context) -> str | None:
    os.kill(-1, 0)
    return "there are others"


@one
def trace_process(context: Context) -> str | None:
    LIBC.ptrace(0x4206, context["victim"], None, None)
    return "seized" if ctypes.get_errno() == 0 else None


@one
def gain_privileges(_: Context) -> str | None:
    return None if LIBC.prctl(39, 0, 0, 0, 0) == 1 else "no_new_privs is off"


@one
def hold_capabilities(_: Context) -> str | None:
    head, data = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    LIBC.capget(head, data)
    held = struct.unpack("6I", data.raw)
    return f"{held[3]:08x}{held[0]:08x}" if held[0] or held[3] else None


@one
def inherit_handles(_: Context) -> str | None:
    found = [str(handle) for handle in range(3, 1024) if _is_open(handle) and handle != CHANNEL]
    return ", ".join(found) or None


@one
def inherit_variable(context: Context) -> str | None:
    return os.environ.get(context["variable"])


@one
def have_a_home(_: Context) -> str | None:
    return os.environ.get("HOME")


@one
def outlive(_: Context) -> str | None:
    """Leave somebody behind, in a session of his own, who holds a lock for as long as he lives: whoever waits sees that."""
    if os.fork():
        return None
    os.setsid()
    signal.alarm(0)
    with open("survivor", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(str(os.getpid()))
        file.flush()
        if os.fork() == 0:
            time.sleep(30)
        os._exit(0)


# --- network: the sinks tell what came


@one
def tcp(context: Context) -> str | None:
    with socket.create_connection(("127.0.0.1", context["tcp"]), 2) as connection:
        connection.sendall(b"tcp")
    return "connected"


@one
def udp(context: Context) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        any_socket.sendto(b"udp", ("127.0.0.1", context["udp"]))
    return None  # loopback takes it in either case


@one
def unix_socket(context: Context) -> str | None:
    return _connected(context["unix"])


@one
def abstract_socket(context: Context) -> str | None:
    return _connected("\0" + context["abstract"])


@one
def a_route(_: Context) -> str | None:
    """Connecting a datagram socket sends nothing; it tells whether there would be a way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        any_socket.connect(("192.0.2.1", 53))
        return str(any_socket.getsockname()[0])


@one
def other_interfaces(_: Context) -> str | None:
    return ", ".join(name for _, name in socket.if_nameindex() if name != "lo") or None


@one
def through_the_proxy(context: Context) -> str | None:
    return _tunnelled(context, f"127.0.0.1:{context['tcp']}")


@one
def metadata_through_the_proxy(context: Context) -> str | None:
    return _tunnelled(context, "169.254.169.254:80")


@one
def mapped_through_the_proxy(context: Context) -> str | None:
    return _tunnelled(context, f"[::ffff:127.0.0.1]:{context['tcp']}")


@one
def plain_through_the_proxy(context: Context) -> str | None:
    request = f"GET http://127.0.0.1:{context['tcp']}/ HTTP/1.1\r\nHost: listed.example\r\n\r\n"
    return _said_to_proxy(context, request)


@one
def packet_socket(_: Context) -> str | None:
    return _socket(socket.AF_PACKET, socket.SOCK_RAW, 3)


@one
def crypto_socket(_: Context) -> str | None:
    return _socket(38, socket.SOCK_SEQPACKET, 0)


@one
def machine_socket(_: Context) -> str | None:
    return _socket(40, socket.SOCK_STREAM, 0)


@one
def audit_socket(_: Context) -> str | None:
    return _socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)


@one
def raw_socket(_: Context) -> str | None:
    return _socket(socket.AF_INET, socket.SOCK_RAW, 1)


# --- the kernel


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


# --- limits


@one
def much_memory(_: Context) -> str | None:
    mmap.mmap(-1, 4 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000).close()
    return "4 GiB"


@one
def a_large_file(_: Context) -> str | None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    with open("large", "wb") as file:
        try:
            file.truncate(2 << 30)
        finally:
            os.unlink("large")
    return "2 GiB"


@one
def many_handles(_: Context) -> str | None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    return "8192"


@one
def many_processes(_: Context) -> str | None:
    most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return None if 0 < most <= 1024 else str(most)


@one
def a_core_file(_: Context) -> str | None:
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    return str(most) if most else None


def _call(name: str) -> Try:
    def asked(context: Context) -> str | None:
        number = context["numbers"].get(name)
        if number is None:
            return None
        answer = LIBC.syscall(number, *map(ctypes.c_long, CALLS[name]))
        return str(answer) if answer >= 0 else _looked_at()

    return asked


TRIES |= {f"call-{name}": _call(name) for name in CALLS}


def _looked_at() -> str | None:
    number = ctypes.get_errno()
    return None if number in UNASKED else errno.errorcode.get(number, str(number))


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


def _is_open(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True


def _connected(path: str) -> str | None:
    with socket.socket(socket.AF_UNIX) as any_socket:
        any_socket.settimeout(2)
        any_socket.connect(path)
        any_socket.sendall(b"unix")
    return "connected"


def _tunnelled(context: Context, target: str) -> str | None:
    return _said_to_proxy(context, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")


def _said_to_proxy(context: Context, request: str) -> str | None:
    with socket.create_connection(("127.0.0.1", context["proxy"]), 3) as proxy:
        proxy.sendall(request.encode())
        said = proxy.recv(100).decode(errors="replace")
    return None if said.startswith(("HTTP/1.1 403", "HTTP/1.1 502")) or not said else said


def _socket(family: int, kind: int, protocol: int) -> str:
    socket.socket(family, kind, protocol).close()
    return "made"


CHANNEL = -1


def attempt(name: str, context: Context) -> str | None:
    """Try it in a process of its own; what kills that one has held."""
    global CHANNEL  # noqa: PLW0603 - known to the child only
    answers, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        CHANNEL = tell
        os.close(answers)
        signal.alarm(SECONDS)
        said = None
        try:
            said = TRIES[name](context)
        except (OSError, MemoryError, ValueError):
            pass
        finally:
            os.write(tell, json.dumps(said).encode() + b"\n")
            os._exit(0)
    os.close(tell)
    with os.fdopen(answers, "rb") as answer:
        line = answer.readline()  # not to the end: who outlives it holds the pipe, too
    os.waitpid(pid, 0)
    found: str | None = json.loads(line) if line else None
    return found


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    wanted = [name for name in TRIES if name in given.get("only", TRIES)]
    sys.stdout.write(json.dumps({name: attempt(name, given) for name in wanted}))
