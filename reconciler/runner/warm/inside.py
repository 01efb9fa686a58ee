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
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
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
FAILED = 1


class Worker:
    """Serves one socket. `alone`: nobody whom this process may end is anything but what a command of it left behind."""

    def __init__(self, control: socket.socket, library: str, work: Path, *, alone: bool) -> None:
        self._control, self._work, self._alone = control, work, alone
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
        empty(self._work, KEPT)
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
        empty(self._work, KEPT)
        if Path.cwd() != self._work:
            raise OSError(f"the library has left {self._work}")
        self._tell({"clean": nonce})

    def _end_others(self) -> None:
        if self._alone:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        else:
            for pid in _children():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)

    def _tell(self, what: dict[str, Any]) -> None:
        self._control.send(json.dumps(what).encode())


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
        Worker(control, told["library"], Path(told["work"]), alone=told["alone"]).serve()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)
