"""One bare repository and every setting with which git may run in it; neither plane starts git in any other way.

Underneath is GitPython's command layer. Its own `execute` copies this process's environment, which must not reach git,
so the layer is used with an `execute` that does not (docs/decisions/0002-git.md).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from git.cmd import Git as CommandLayer

from reconciler.errors import ConfigError, PassError
from reconciler.git.failures import failure, timeout
from reconciler.git.remote import Patience, Remote

__all__ = ["Done", "Git", "Patience", "Remote"]

_CHUNK = 1 << 18
_STDERR_KEPT = 1 << 16
_OUTPUT_LIMIT = 1 << 26
_LOOK_UP = 0.2  # seconds between looks at whether this process ends, while git says nothing
_F_SETPIPE_SZ = 1031  # Linux; `fcntl` names it only there

_PINNED = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=false",
    "core.commitGraph=false",
    "core.askPass=",
    "core.attributesFile=/dev/null",
    "safe.bareRepository=explicit",
    "fetch.fsckObjects=true",
    "transfer.fsckObjects=true",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "http.followRedirects=false",
    "http.sslVerify=true",
    "credential.helper=",
    "ssh.variant=ssh",
    "gc.autoDetach=false",
    "gc.packRefs=false",  # the head is read as a file
    "protocol.version=2",
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
)

# HOME: curl falls back to the account's own .netrc where there is none.
_ENVIRONMENT = {
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "LANGUAGE": "C",
    "GIT_ASKPASS": "",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "TZ": "UTC",  # the dates in allowed_signers mean the same everywhere
}


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended by itself: its exit code, stdout, and the first 64 KiB of stderr."""

    code: int
    out: bytes
    err: bytes


class Git:
    """One bare repository folder, and the only way to run git in it. Holds no process and no descriptor.

    Every command has a deadline, ends with its whole process group, and takes operands only behind
    `--end-of-options`. Safe to use from any thread.
    """

    def __init__(
        self,
        folder: Path,
        remote: Remote | None = None,
        *,
        allow_file: bool = False,
        patience: Patience | None = None,
    ) -> None:
        self.folder = folder
        self.remote = remote
        self.patience = patience or Patience()
        self.allow_file = allow_file
        self._binary = _binary()
        self._path = f"{Path(self._binary).parent}:/usr/local/bin:/usr/bin:/bin"

    def at(self, folder: Path) -> Git:
        """The same settings in another folder."""
        return Git(folder, self.remote, allow_file=self.allow_file, patience=self.patience)

    def run(
        self,
        command: str,
        *options: str,
        operands: Sequence[str] = (),
        paths: Sequence[str] = (),
        deadline: float | None = None,
    ) -> bytes:
        """Run to the end and return stdout.

        Raises:
            PassError: exit code other than 0, the deadline (`GitTimeout`), more than 64 MiB of output (`TreeTooLarge`).
        """
        done = self.ask(command, *options, operands=operands, paths=paths, deadline=deadline)
        if done.code:
            raise failure(self.where, done.err)
        return done.out

    def ask(
        self,
        command: str,
        *options: str,
        operands: Sequence[str] = (),
        paths: Sequence[str] = (),
        deadline: float | None = None,
        keep_open: Sequence[int] = (),
        started: Callable[[int], None] | None = None,
        settings: Sequence[str] = (),
    ) -> Done:
        """Run to the end, whatever the exit code.

        `settings` are pinned besides the usual ones, as `key=value`; `keep_open` are descriptors that git and its children inherit; `started` is told the process id.

        Raises:
            PassError: the deadline (`GitTimeout`), more than 64 MiB of output (`TreeTooLarge`).
        """
        out = bytearray()
        argv = self._argv(command, options, operands, paths, settings)
        running = _Running(self, argv, None, deadline, keep_open)
        with contextlib.closing(running):
            if started:
                started(running.process.pid)
            for chunk in running.chunks():
                out += chunk
                if len(out) > _OUTPUT_LIMIT:
                    raise PassError(
                        "TreeTooLarge", f"{self.where}: `git {command}` printed more than 64 MiB: look for what grew"
                    )
            return Done(running.exit_code(), bytes(out), bytes(running.err))

    def stream(
        self,
        command: str,
        *options: str,
        operands: Sequence[str] = (),
        paths: Sequence[str] = (),
        stdin: bytes | None = None,
        deadline: float | None = None,
        memory: int | None = None,
    ) -> Iterator[bytes]:
        """Yield stdout in pieces as it comes. A consumer that stops early ends the command.

        `memory`: the bytes that git may take besides the files that it looks into.

        Raises:
            PassError: exit code other than 0, the deadline (`GitTimeout`), or more memory (`OutOfMemory`).
        """
        running = _Running(self, self._argv(command, options, operands, paths), stdin, deadline, ())
        with contextlib.closing(running):
            if memory is not None:
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(running.process.pid, resource.RLIMIT_DATA, (memory, memory))
            yield from running.chunks()
            if running.exit_code():
                raise failure(self.where, bytes(running.err))

    @property
    def where(self) -> str:
        """How errors name this repository."""
        return self.remote.url if self.remote else str(self.folder)

    def environment(self) -> dict[str, str]:
        """All that git's environment holds; secret settings are here, where no other user can read them."""
        secrets = self.remote.secret_settings() if self.remote else {}
        pairs = {"GIT_CONFIG_COUNT": str(len(secrets))}
        for number, (key, value) in enumerate(secrets.items()):
            pairs |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return {**_ENVIRONMENT, **pairs, "PATH": self._path}

    def _argv(
        self,
        command: str,
        options: Sequence[str],
        operands: Sequence[str],
        paths: Sequence[str],
        more: Sequence[str] = (),
    ) -> list[str]:
        settings = [*_PINNED, *more, f"protocol.file.allow={'always' if self.allow_file else 'never'}"]
        if self.remote:
            settings += [f"{key}={value}" for key, value in self.remote.settings(self.patience).items()]
        pinned = [word for setting in settings for word in ("-c", setting)]
        argv = [self._binary, *pinned, f"--git-dir={self.folder}", command, *options]
        if operands:
            argv += ["--end-of-options", *operands]
        return [*argv, "--", *paths] if paths else argv


class _SealedLayer(CommandLayer):
    """GitPython's command layer whose processes inherit neither environment, folder nor descriptors."""

    def execute(  # type: ignore[override]  # of its many forms only the one that starts a process is kept
        self,
        command: list[str],
        istream: IO[bytes] | int = subprocess.DEVNULL,
        *,
        env: dict[str, str],
        pass_fds: tuple[int, ...] = (),
    ) -> CommandLayer.AutoInterrupt:
        process = subprocess.Popen(
            command,
            stdin=istream,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd="/",
            pass_fds=pass_fds,
            start_new_session=True,  # a group of its own, so that all of it can be ended
        )
        return self.AutoInterrupt(process, command)


class _Running:
    """A git process, read without threads. `close` leaves nothing of its process group behind."""

    def __init__(
        self, git: Git, argv: list[str], stdin: bytes | None, deadline: float | None, keep_open: Sequence[int]
    ) -> None:
        self._where = git.where
        self._seconds = git.patience.deadline if deadline is None else deadline
        self._ends = time.monotonic() + self._seconds
        self._ending = git.patience.ending
        self._ended = False
        self.err = bytearray()
        with _stdin(stdin) as source:
            self._owner = _SealedLayer().execute(argv, source, env=git.environment(), pass_fds=tuple(keep_open))
        self.process = cast("subprocess.Popen[bytes]", self._owner.proc)
        self._out = cast("IO[bytes]", self.process.stdout)
        self._err = cast("IO[bytes]", self.process.stderr)

    def chunks(self) -> Iterator[bytes]:
        """Yield stdout in pieces until both pipes are closed by the command and all its children."""
        out, err = self._out.fileno(), self._err.fileno()
        _widen(out)
        with selectors.PollSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            selector.register(err, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in self._ready(selector):
                    chunk = os.read(key.fd, _CHUNK)
                    if not chunk:
                        selector.unregister(key.fd)
                    elif key.fd == out:
                        yield chunk
                    else:
                        self.err += chunk[: max(0, _STDERR_KEPT - len(self.err))]

    def exit_code(self) -> int:
        """Wait for the end."""
        left = max(0.0, self._ends - time.monotonic())
        try:
            if _exits(self.process.pid, left):
                left = max(left, 1.0)  # it is dead: reading its exit code is all that is left
            code = self.process.wait(left)
        except subprocess.TimeoutExpired:
            raise timeout(self._where, self._seconds) from None
        self._ended = True
        return code

    def close(self) -> None:
        """End the process group where it did not end by itself, and release the pipes."""
        if not self._ended:
            # Not waited for yet, so the process holds its number even if it is dead and only its children live.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._out.close()
        self._err.close()

    def _ready(self, selector: selectors.BaseSelector) -> list[tuple[selectors.SelectorKey, int]]:
        while (left := self._ends - time.monotonic()) > 0:
            if self._ending is not None and self._ending.is_set():
                raise PassError("Stopping", f"{self._where}: git was ended, as this process ends")
            if ready := selector.select(left if self._ending is None else min(left, _LOOK_UP)):
                return ready
        raise timeout(self._where, self._seconds)


@contextlib.contextmanager
def _stdin(data: bytes | None) -> Iterator[IO[bytes] | int]:
    """A file, not a pipe: git may write before it has read everything, and nobody deadlocks."""
    if data is None:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


def _exits(pid: int, seconds: float) -> bool:
    """Wait for a child's end without the naps of `Popen.wait`; False where the system cannot, or time is up."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return False
    try:
        with selectors.PollSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            return bool(selector.select(seconds))
    finally:
        os.close(descriptor)


def _widen(descriptor: int) -> None:
    """A pipe of 1 MiB instead of 64 KiB, where the system allows: fewer switches between git and us."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, 1 << 20)


def _binary() -> str:
    found = shutil.which("git")
    if not found:
        raise ConfigError("git is not installed or not on PATH: install git 2.39 or newer")
    return os.path.realpath(found)
