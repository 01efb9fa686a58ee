"""The program of a worker: Terraform's library, loaded once, and one command after another for whoever holds its socket.

It runs where an engine would, in the jail of its environment. There it first shuts itself in once more (`opened`): from then on
nothing can be started but providers, no Python above all. It ends when nobody holds the other end of its socket.

Asked: `run` a command, `cancel` it, `fetch` files that it left, `clean` up for the next job.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from reconciler.runner.jail.landlock import Opened, restrict
from reconciler.runner.warm.parcel import empty, unpack

LARGEST = 1 << 17  # bytes of what is asked at once
HANDLES = 8
AGAIN = 0.05  # seconds between tries to cancel a command that has not begun
DEATH_SIGNAL, REAPER = 1, 36
KEPT = frozenset({"tmp"})  # it is where temporary files go, by another name too
RUN = b"command"
REATTACH = "TF_REATTACH_PROVIDERS"
FAILED = 1


@dataclass(frozen=True, slots=True)
class Owned:
    """Providers that were started for this worker alone, and their folder for temporary files, by its inode."""

    processes: tuple[subprocess.Popen[bytes], ...] = ()
    folder: int | None = None

    @property
    def groups(self) -> frozenset[int]:
        """Each leads a group, which nobody else can join."""
        return frozenset(one.pid for one in self.processes)

    def check(self) -> None:
        """Raises OSError: one has ended."""
        if any(one.poll() is not None for one in self.processes):
            raise OSError("a provider has ended")


class Worker:
    """Serves one socket. `alone`: whomever this process may end, it or a command of it has started: it is the first of its namespace, or
    has a user of its own.
    """

    def __init__(self, control: socket.socket, library: str, work: Path, owned: Owned, *, alone: bool) -> None:
        self._control, self._work, self._owned, self._alone = control, work, owned, alone
        loaded = ctypes.CDLL(library)
        self._run_cli, self._cancel_cli = loaded.RunCliWithCancel, loaded.CancelCli
        words = ctypes.POINTER(ctypes.c_char_p)
        self._run_cli.argtypes = [ctypes.c_char_p, ctypes.c_int64, words, ctypes.c_int64, ctypes.c_int64]
        self._cancel_cli.argtypes = [ctypes.c_char_p]
        self._running: threading.Thread | None = None
        self._cancelling = False

    def serve(self) -> None:
        """Until nobody holds the other end."""
        while True:
            self._control.settimeout(AGAIN if self._cancelling else None)
            try:
                said, handles, _, _ = socket.recv_fds(self._control, LARGEST, HANDLES)
            except TimeoutError:
                self._cancel()
                continue
            if not said:
                return
            self._do(json.loads(said), handles)

    def _do(self, asked: dict[str, Any], handles: Sequence[int]) -> None:
        what = asked["do"]
        if what == "run":
            self._run(asked, *handles)
        elif what == "cancel":
            self._cancelling = True
            self._cancel()
        elif what == "fetch":
            self._fetch(asked["names"], handles)
        else:
            self._clean(asked["nonce"])

    def _run(self, asked: dict[str, Any], output: int, errors: int, parcel: int) -> None:
        self._empty()
        with os.fdopen(parcel, "rb") as packed:
            unpack(packed, self._work)
        self._tell({"begun": asked["argv"][0]})
        self._running = threading.Thread(target=self._command, args=(asked["argv"], output, errors))
        self._running.start()

    def _command(self, argv: Sequence[str], output: int, errors: int) -> None:
        """The library closes the two descriptors itself."""
        words = [word.encode() for word in argv]
        code = self._run_cli(RUN, len(words), (ctypes.c_char_p * len(words))(*words), output, errors)
        self._cancelling = False
        self._tell({"code": int(code)})

    def _cancel(self) -> None:
        if self._running is None or not self._running.is_alive() or self._cancel_cli(RUN):
            self._cancelling = False

    def _fetch(self, names: Sequence[str], handles: Sequence[int]) -> None:
        """Copy files that the command left; those that are there are named in the answer."""
        found = []
        for name, handle in zip(names, handles, strict=True):
            with (
                os.fdopen(handle, "wb") as into,
                suppress(FileNotFoundError),
                Path(self._work, name).open("rb") as left,
            ):
                into.write(left.read())
                found.append(name)
        self._tell({"fetched": found})

    def _clean(self, nonce: str) -> None:
        """Nothing of the last job is left that this process knows of; else it ends."""
        if self._running is not None:
            self._running.join()
        self._end_others()
        self._empty()
        self._owned.check()
        if Path.cwd() != self._work:
            raise OSError(f"the library has left {self._work}")
        self._tell({"clean": nonce})

    def _empty(self) -> None:
        for folder, keep in ((self._work, KEPT), (Path(os.environ["TMPDIR"]), frozenset[str]())):
            empty(folder, keep, self._owned.folder)

    def _end_others(self) -> None:
        """Whatever commands left running."""
        if not self._alone:
            _end(pid for pid in _children() if pid not in self._owned.groups)
        elif self._owned.processes:
            _end(pid for pid in range(2, _newest()) if _group(pid) not in self._owned.groups)
        else:
            _end([-1])
        how = os.WNOHANG if self._owned.processes else 0  # they live on, and would be waited for
        with suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | how)) is not None:
                self._owned.check()  # it reaps its own
                os.waitpid(found.si_pid, 0)

    def _tell(self, what: dict[str, Any]) -> None:
        self._control.send(json.dumps(what).encode())


def _end(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _newest() -> int:
    """The number of a thread that was just begun: none in this namespace is higher."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(threading.get_native_id()))
    thread.start()
    thread.join()
    return found[0]


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _children() -> list[int]:
    """Whatever was left behind below this process is its child: see `REAPER`."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in found.split()]


def _leash(parent: int) -> None:
    """End with the process that started this one; and have what is left behind below this one."""
    control = ctypes.CDLL(None).prctl
    control(DEATH_SIGNAL, signal.SIGKILL)
    control(REAPER, 1)
    if os.getppid() != parent:
        os._exit(FAILED)


def _own(providers: Mapping[str, str]) -> Owned:
    """Start these, address -> program, and have the library find them. They end with this process."""
    if not providers:
        return Owned()
    folder = Path(os.environ["TMPDIR"], "own")
    folder.mkdir(mode=0o700)
    env = {name: text for name, text in os.environ.items() if name != REATTACH} | {"TMPDIR": str(folder)}
    started = {address: _started(program, env) for address, program in providers.items()}
    found = {address: _address(process) for address, process in started.items()}
    _say_to_library(json.dumps(found))
    return Owned(tuple(started.values()), folder.stat().st_ino)


def _say_to_library(text: str) -> None:
    """Go reads the variables as they lie in memory since this process began (measured): so one lies there, long enough, and is written over."""
    find = ctypes.CDLL(None).getenv
    find.restype = ctypes.c_void_p
    room = len(os.environ[REATTACH])
    if len(text) > room:
        raise OSError(f"{REATTACH} has no room for {len(text)} characters")
    ctypes.memmove(find(REATTACH.encode()), text.ljust(room).encode(), room)


def _started(program: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [program, "-debug"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True, preexec_fn=lambda: ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL),  # noqa: PLW1509 - no thread yet
    )  # fmt: skip


def _address(provider: subprocess.Popen[bytes]) -> object:
    """Where it listens, as it says itself. What it says later is nobody's."""
    assert provider.stdout is not None  # noqa: S101 - it is a pipe
    for line in provider.stdout:
        name, _, text = line.decode().strip().partition("=")
        if name == REATTACH:
            (found,) = json.loads(text.strip("'")).values()
            threading.Thread(target=provider.stdout.read, daemon=True).start()
            return found
    raise OSError("a provider does not say where it listens")


def main() -> NoReturn:
    """Never returns: the library's threads must not meet a Python that is being torn down."""
    code = FAILED
    try:
        told = json.loads(sys.argv[1])
        control = socket.socket(fileno=os.dup(1))
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        if told["parent"]:
            _leash(told["parent"])
        os.chdir(told["work"])
        if told["opened"]:
            restrict([Opened(tuple(map(Path, paths)), rights) for paths, rights in told["opened"]], network=True)
        owned = _own(told["own"])
        Worker(control, told["library"], Path(told["work"]), owned, alone=told["alone"]).serve()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)
