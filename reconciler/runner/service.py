"""The runner's process: a tiny API on a unix socket, and a fork per job.

Every import is done before the first job, so that a job costs a fork. A job's process outlives this one and the
controller; what it holds is found again through its spool folder.
"""

from __future__ import annotations

import base64
import gc
import os
import re
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from reconciler import codec, wire
from reconciler.durable import FileLock
from reconciler.errors import ConfigError, PassError, ReconcilerError
from reconciler.model import Job, JobId, Result
from reconciler.ports import Running
from reconciler.runner.host import Host
from reconciler.runner.job import run_job
from reconciler.runner.spool import JobFolder

JOB_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")
UNIT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}(/[a-z0-9][a-z0-9_-]{0,62})+")
COMMIT = re.compile(r"[0-9a-f]{40}")
LOG_CHUNK = 256 * 1024  # bytes of a log in one answer
REQUEST_TIMEOUT = 5.0  # seconds that a caller may take to say what it wants
PRUNE_EVERY = 200  # jobs


class Service:
    """Listens, forks, reaps. Nothing in this process ever waits for a network or for a job."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._selector = selectors.DefaultSelector()
        self._watchers: list[socket.socket] = []
        self._children: dict[int, JobId] = {}
        self._started = 0
        self._wakeup, self._poke = socket.socketpair()
        self._stopping = False
        self._verbs: dict[str, Callable[[wire.Message], wire.Message]] = {
            "start": self._start,
            "poll": self._poll,
            "cancel": self._cancel,
            "describe": self._describe,
            "log": self._log,
        }

    def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Answer until SIGTERM; then begin nothing more, and return when the running jobs have ended."""
        listener = listen(self._host.config.socket_path)
        self._poke.setblocking(False)
        signal.set_wakeup_fd(self._poke.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        ready()
        try:
            while not self._stopping:
                self._turn(listener)
            self._drain()
        finally:
            listener.close()
            with suppress(FileNotFoundError):
                self._host.config.socket_path.unlink()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _drain(self) -> None:
        """A job that plans will not apply; one that applies is let end."""
        for job_id in self._children.values():
            self._host.spool.job(job_id).cancel()
        for pid in list(self._children):
            os.waitpid(pid, 0)

    def _turn(self, listener: socket.socket) -> None:
        for key, _ in self._selector.select():
            if key.fileobj is self._wakeup:
                self._wakeup.recv(4096)
                self._reap()
            elif key.fileobj is listener:
                peer, _address = listener.accept()
                self._answer(peer)
            elif isinstance(key.fileobj, socket.socket):
                self._forget(key.fileobj)

    def _reap(self) -> None:
        for pid in list(self._children):
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                del self._children[pid]
                self._tell()

    def _tell(self) -> None:
        for watcher in list(self._watchers):
            try:
                watcher.send(b"\n")
            except BlockingIOError:
                continue  # it has not read the last word yet, and that one will wake it
            except OSError:
                self._forget(watcher)

    def _forget(self, watcher: socket.socket) -> None:
        if watcher in self._watchers:
            self._watchers.remove(watcher)
            self._selector.unregister(watcher)
        watcher.close()

    def _answer(self, peer: socket.socket) -> None:
        peer.settimeout(REQUEST_TIMEOUT)
        keep = False
        try:
            self._check_peer(peer)
            request = wire.receive(peer)
            if request.get("verb") == "watch":
                keep = True
                self._watch(peer)
            else:
                wire.send(peer, self._do(request))
        except PassError as error:
            with suppress(OSError):
                wire.send(peer, {"error": str(error), "reason": error.reason})
        except (OSError, ValueError):
            pass  # a caller that went away, or sent no message
        finally:
            if not keep:
                peer.close()

    def _check_peer(self, peer: socket.socket) -> None:
        uid = wire.peer_uid(peer)
        if uid not in {0, os.getuid(), self._host.config.controller_uid}:
            raise PassError("NotAllowed", f"user {uid} may not talk to the runner; see controller_uid in runner.yaml.")

    def _watch(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        self._watchers.append(peer)
        self._selector.register(peer, selectors.EVENT_READ)

    def _do(self, request: wire.Message) -> wire.Message:
        verb = self._verbs.get(str(request.get("verb")))
        if verb is None:
            raise PassError("UnknownVerb", f"There is no such verb; there are {', '.join(sorted(self._verbs))}.")
        return verb(request)

    # --- the verbs

    def _start(self, request: wire.Message) -> wire.Message:
        job = checked_job(str(request.get("job")))
        folder = self._host.spool.job(job.id)
        lock = folder.create(job)
        if lock is None:
            return {"ok": True}
        try:
            self._host.warm(job.unit)
            pid = os.fork()
            if pid == 0:
                self._become(job, folder, lock)
        finally:
            lock.release()  # the child has it now; where there is none, the job is lost, and decided afresh
        self._children[pid] = job.id
        self._started += 1
        if self._started % PRUNE_EVERY == 0:
            self._host.spool.prune()
        return {"ok": True}

    def _become(self, job: Job, folder: JobFolder, life: FileLock) -> None:
        """Be the job's process: never returns."""
        code = 1
        try:
            os.setsid()
            gc.freeze()  # what is inherited is not looked at again: each page looked at would be copied
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            self._selector.close()
            run_job(self._host, job, folder, life)
            code = 0
        except BaseException:  # noqa: BLE001 - the last frame of a forked process: nothing may return into the parent's loop
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _poll(self, request: wire.Message) -> wire.Message:
        state = self._folder(request).state()
        if isinstance(state, Result):
            return {"state": "result", "result": codec.encode(state).decode()}
        if isinstance(state, Running):
            return {"state": "running", "phase": state.phase.value}
        return {"state": "lost", "applying": state.applying}

    def _cancel(self, request: wire.Message) -> wire.Message:
        self._folder(request).cancel()
        return {"ok": True}

    def _describe(self, request: wire.Message) -> wire.Message:
        return {"facts": codec.encode(self._host.facts()).decode(), "about": self._host.about()}

    def _log(self, request: wire.Message) -> wire.Message:
        offset = request.get("offset", 0)
        path = self._folder(request).log
        if not isinstance(offset, int) or offset < 0 or not path.exists():
            return {"data": ""}
        with path.open("rb") as file:
            file.seek(offset)
            return {"data": base64.b64encode(file.read(LOG_CHUNK)).decode()}

    def _folder(self, request: wire.Message) -> JobFolder:
        job_id = str(request.get("job"))
        if not JOB_ID.fullmatch(job_id):
            raise PassError("BadRequest", "A job id is up to 64 letters, digits and dashes.")
        return self._host.spool.job(JobId(job_id))


def checked_job(text: str) -> Job:
    """The job of a request, every word of it checked.

    Raises:
        PassError: it is not a job.
    """
    try:
        job = codec.decode(Job, text.encode())
    except (ValueError, ReconcilerError) as error:
        raise PassError("BadRequest", f"That is no job: {error}") from error
    good = JOB_ID.fullmatch(job.id) and UNIT_ID.fullmatch(job.unit) and COMMIT.fullmatch(job.commit) and job.fence >= 0
    if not good:
        raise PassError("BadRequest", "A job names an id, a unit, a commit of 40 hex digits, and a fence of 0 or more.")
    return job


def listen(path: Path) -> socket.socket:
    """A listening unix socket, for the owner only, in place of a dead one.

    Raises:
        ConfigError: another process listens there.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink()
            else:
                raise ConfigError(f"another runner listens on {path}; stop it first")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(old)
    listener.listen(64)
    return listener
