"""The runner's process: a tiny API on a unix socket, and a fork per job.

Every import is done before the first job, so that a job costs a fork. A job's process outlives this one and the
controller; what it holds is found again through its spool folder.

The socket is for this user alone (0600, in a folder of 0700 where it has to be made). Where `controller_uid` names
another user, that one must be able to connect, and unix sockets know no finer right than write permission: the socket
is 0666 in a folder of 0711, and who is not root, this user or that one is refused before a byte of theirs is read, by the
kernel's word of who they are (SO_PEERCRED). A user without a name here can so make a connection, and nothing of it.
"""

from __future__ import annotations

import base64
import os
import selectors
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from reconciler import codec, wire
from reconciler.durable import FileLock
from reconciler.errors import ConfigError, PassError, ReconcilerError
from reconciler.git.vouching import Known
from reconciler.model import Job, JobId, Result
from reconciler.ports import Running
from reconciler.runner.anchoring import Anchoring
from reconciler.runner.audit.log import Mark
from reconciler.runner.callers import Caller, Callers
from reconciler.runner.carry import tidy
from reconciler.runner.claims import Claim
from reconciler.runner.forked import fork
from reconciler.runner.holding import Holder
from reconciler.runner.host import Host
from reconciler.runner.job import run_job
from reconciler.runner.load import Meter, host_memory
from reconciler.runner.memory import EngineMark, SecretMark, Trust, UnitMemory
from reconciler.runner.record import Anchored, Intent, Last, StateChange
from reconciler.runner.request import checked_fence, checked_id, checked_job
from reconciler.runner.reviews import Kept, Scope
from reconciler.runner.spool import JobFolder
from reconciler.runner.terraform import leftover
from reconciler.runner.terraform.packages import Package
from reconciler.runner.warm.beside import Beside
from reconciler.systemd import Systemd
from reconciler.trust import Seen

LOG_CHUNK = 256 * 1024  # bytes of a log in one answer
PRUNE_EVERY = 200  # jobs
AT_ONCE = 256  # jobs, as many as have a user each; a controller that runs more of them is nobody's any more
HANDOVER = 2.0  # seconds that a service which is just being killed may take to die
LOOK_AGAIN = 10.0  # seconds between looks at jobs that are not this process's children
LIVES = 30.0  # seconds between two signs of life to a service manager, though nothing happens
ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # how whoever stops a host or a service asks
# What jobs read as it was kept. How each is read is built once, before the first fork, and inherited.
READ_BY_JOBS: tuple[type, ...] = (
    Anchored, Claim, EngineMark, Holder, Intent, Job, Kept, Known, Last, Mark, Package, Result, Scope, SecretMark, Seen,
    StateChange, Trust, UnitMemory, leftover.Note, timedelta,
)  # fmt: skip
ENDED = b"\0"  # a job's own word that its result is there, among the numbers of signals
LOOK_WHILE_ENDING = 0.5  # seconds between them while the service waits for nothing else


class Service:
    """Listens, forks, reaps. Nothing in this process ever waits for a network, a caller or a job."""

    def __init__(self, host: Host, systemd: Systemd | None = None) -> None:
        self._host, self._systemd = host, systemd or Systemd()
        self._selector = selectors.DefaultSelector()
        users = (0, os.getuid(), host.config.controller_uid)
        self._callers = Callers(self._selector, self._do, frozenset(uid for uid in users if uid is not None))
        self._children: dict[int, JobId] = {}
        self._inherited: set[JobId] = set()
        self._started = 0
        self._meter, self._memory = Meter(), host_memory()
        self._wakeup, self._poke = socket.socketpair()
        self._stopping = self._told = False
        self._anchoring = Anchoring(host.config.audit, host.record, host.config.installation)
        self._beside = Beside(host.warmth)
        self._only = FileLock(host.memory.folder / "service.lock")
        self._verbs: dict[str, Callable[[wire.Message], wire.Message]] = {
            "start": self._start,
            "poll": self._poll,
            "cancel": self._cancel,
            "lead": self._lead,
            "describe": self._describe,
            "log": self._log,
        }

    def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Answer until SIGTERM; then begin nothing more, and return when the running jobs have ended.

        Raises:
            ConfigError: another runner works here, or the controller could not reach the socket.
        """
        self._be_the_only_one()
        listener = listen(self._host.config.socket_path, self._host.config.controller_uid)
        self._take_up_jobs()
        self._handle_signals()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._anchoring.start(self._let_all_go)
        self._beside.start(self._let_go)
        ready()
        self._systemd.ready()
        try:
            while not self._ended():
                self._turn(listener)
        finally:
            listener.close()
            with suppress(FileNotFoundError):
                self._host.config.socket_path.unlink()
            self._beside.finish()
            self._anchoring.finish()
            self._only.release()

    def _be_the_only_one(self) -> None:
        """One service per memory. A job does not hold this: the next service begins while jobs of the last one run."""
        deadline = time.monotonic() + HANDOVER
        while not self._only.take():
            if time.monotonic() > deadline:
                raise ConfigError(f"another runner works on {self._host.memory.folder}; stop it first")
            time.sleep(0.05)

    def _take_up_jobs(self) -> None:
        """What a service before this one left behind: jobs that still run, and workspaces of those that died."""
        self._host.sweep()
        for folder in self._host.spool.jobs():
            self._take_up(folder)

    def _take_up(self, folder: JobFolder) -> None:
        """Look after a job that nobody waits for any more; remove the workspace of a dead one."""
        try:
            if folder.alive():
                self._inherited.add(JobId(folder.path.name))
            else:
                tidy(self._host.memory, folder)
        except (OSError, ValueError, ReconcilerError) as error:  # one damaged folder stops nobody else's job
            how = "It is left as it is; look there, and remove it when nothing in it is needed"
            sys.stderr.write(f"runner: {folder.path}: {error}. {how}.\n")

    def _handle_signals(self) -> None:
        self._poke.setblocking(False)
        signal.set_wakeup_fd(self._poke.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._systemd.stopping()

    def _ended(self) -> bool:
        """Whether the service was told to stop, and no job runs. A job that plans then does not apply; an apply ends."""
        if not self._stopping:
            return False
        if not self._told:
            self._told = True
            for job_id in {*self._children.values(), *self._inherited}:
                self._host.spool.job(job_id).cancel()
        return not self._children and not self._inherited

    def _turn(self, listener: socket.socket) -> None:
        self._systemd.alive()
        expires = self._callers.expire()
        patience = LIVES if expires is None else min(LIVES, expires)
        if self._inherited:
            patience = min(patience, LOOK_WHILE_ENDING if self._stopping else LOOK_AGAIN)
        for key, events in self._selector.select(patience):
            if key.fileobj is self._wakeup:
                if ENDED in self._wakeup.recv(4096):
                    self._callers.wake_watchers()
                self._reap()
            elif key.fileobj is listener:
                self._callers.accept(listener)
            elif isinstance(key.data, Caller):
                self._callers.attend(key.data, events)
        self._look_after_inherited()

    def _look_after_inherited(self) -> None:
        """Forget the jobs that have ended; end an engine that outlived its job, when its time is over."""
        for folder in [self._host.spool.job(job_id) for job_id in self._inherited]:
            if folder.alive():
                self._attend(folder)
            else:
                self._inherited.discard(JobId(folder.path.name))
                self._take_up(folder)
                self._callers.wake_watchers()

    def _attend(self, folder: JobFolder) -> None:
        try:
            leftover.attend(folder.note, time.time())
        except (OSError, ValueError) as error:  # one damaged folder stops nobody else's job
            sys.stderr.write(f"runner: {folder.note}: {error}. Its engine is left to its own end.\n")

    def _reap(self) -> None:
        self._anchoring.reap(self._let_all_go)
        self._beside.reap(self._let_go)
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended == pid:
                job_id = self._children.pop(pid)
                self._note_death(self._host.spool.job(job_id), status)
                self._take_up(self._host.spool.job(job_id))  # it may have been killed, and its engine live on
                if status:  # else it has said so itself
                    self._callers.wake_watchers()

    def _note_death(self, folder: JobFolder, status: int) -> None:
        """A job that was killed while this service lives on died of itself, of its memory for example: that counts.

        One that was asked to end, as everything is when the host is shut down, did not.
        """
        if not os.WIFSIGNALED(status) or self._stopping or os.WTERMSIG(status) in ASKED:
            return
        with suppress(OSError):  # then it counts as lost, and is tried again
            folder.note_death(f"killed by {signal.Signals(os.WTERMSIG(status)).name}")

    def _do(self, request: wire.Message) -> wire.Message:
        verb = self._verbs.get(str(request.get("verb")))
        if verb is None:
            raise PassError("UnknownVerb", f"There is no such verb; there are {', '.join(sorted(self._verbs))}.")
        return verb(request)

    # --- the verbs

    def _start(self, request: wire.Message) -> wire.Message:
        job = checked_job(str(request.get("job")))
        if self._stopping:
            raise PassError("RunnerStopping", "The runner is being stopped, and begins nothing more.")
        folder = self._host.spool.job(job.id)
        if len(self._children) + len(self._inherited) >= AT_ONCE and not folder.path.exists():
            raise PassError("RunnerBusy", f"{AT_ONCE} jobs are being carried out; begin another when one has ended.")
        lock = folder.create(job)
        if lock is None:
            return {"ok": True}
        try:
            codec.prepare(*READ_BY_JOBS)
            self._host.warm(job.unit)
            self._host.door = self._beside.door
            pid = self._fork(job, folder, lock)
        finally:
            lock.release()  # the child has it now; where there is none, the job is lost, and decided afresh
        self._children[pid] = job.id
        self._host.history.keep()
        self._started += 1
        if self._started % PRUNE_EVERY == 0:
            self._host.spool.prune()
        return {"ok": True}

    def _fork(self, job: Job, folder: JobFolder, life: FileLock) -> int:
        """Carry the job out in a process of its own; its number."""
        return fork(partial(run_job, self._host, job, folder, life, self._say_ended), self._let_go_of_all_but_our_ear)

    def _say_ended(self) -> None:
        """In a job's process, to the service that started it, if that still lives. It may have heard of others and not read it yet."""
        with suppress(OSError):
            self._poke.send(ENDED)

    def _let_go(self) -> None:
        """Close everything that is the service's: a job that outlives it must keep neither its callers nor its place."""
        self._let_go_of_all_but_our_ear()
        self._poke.close()

    def _let_go_of_all_but_our_ear(self) -> None:
        """As `_let_go`; a job can still tell that it has ended."""
        sockets = [key.fileobj for key in self._selector.get_map().values()]
        self._selector.close()
        for one in sockets:
            if isinstance(one, socket.socket):
                one.close()
        self._anchoring.let_go()
        self._only.release()

    def _let_all_go(self) -> None:
        """As `_let_go`, in a process that has nothing to do with workers."""
        self._let_go()
        self._beside.let_go()

    def _poll(self, request: wire.Message) -> wire.Message:
        folder = self._folder(request)
        state = folder.state()
        if not isinstance(state, Running):
            tidy(self._host.memory, folder)
        phases = [[phase.value, at.isoformat()] for phase, at in folder.phases()]
        if isinstance(state, Result):
            return {"state": "result", "result": codec.encode(state).decode(), "phases": phases}
        if isinstance(state, Running):
            load = self._meter.load(self._children, JobId(folder.path.name))
            taken = {"waits": load.waits, "memory": load.memory}
            return {"state": "running", "phase": state.phase.value, "phases": phases, "load": taken}
        return {"state": "lost", "applying": state.applying, "died": state.died, "phases": phases}

    def _cancel(self, request: wire.Message) -> wire.Message:
        self._folder(request).cancel()
        return {"ok": True}

    def _lead(self, request: wire.Message) -> wire.Message:
        self._host.memory.lead(checked_fence(request.get("fence")))
        return {"ok": True}

    def _describe(self, _request: wire.Message) -> wire.Message:
        facts = replace(self._host.facts(), memory=self._memory)
        return {"facts": codec.encode(facts).decode(), "about": self._host.about()}

    def _log(self, request: wire.Message) -> wire.Message:
        offset = request.get("offset", 0)
        path = self._folder(request).log
        if not isinstance(offset, int) or offset < 0 or not path.exists():
            return {"data": ""}
        with path.open("rb") as file:
            file.seek(
                min(offset, os.fstat(file.fileno()).st_size)
            )  # where a file may end at most is the file system's own
            return {"data": base64.b64encode(file.read(LOG_CHUNK)).decode()}

    def _folder(self, request: wire.Message) -> JobFolder:
        return self._host.spool.job(JobId(checked_id(str(request.get("job")))))


def listen(path: Path, controller: int | None = None) -> socket.socket:
    """A listening unix socket in place of a dead one; for its owner, or also for the user `controller`.

    Raises:
        ConfigError: another process listens there, or `controller` could not get there.
    """
    shared = controller not in (None, 0, os.getuid())
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o711 if shared else 0o700)
    if shared:
        _check_reachable(path.parent, controller)
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o111 if shared else 0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(old)
    listener.setblocking(False)
    listener.listen(128)
    return listener


def _check_reachable(folder: Path, controller: int | None) -> None:
    """A folder that only its owner enters keeps the controller out; a group may be what lets it in."""
    for parent in (folder, *folder.parents):
        found = parent.stat()
        if found.st_uid != controller and not found.st_mode & (stat.S_IXGRP | stat.S_IXOTH):
            raise ConfigError(
                f"socket: user {controller} (controller_uid) cannot enter {parent}: let the socket be in a folder of its own, "
                "as in /run/reconciler-runner/runner.sock, and `chmod 711` that; the runner's memory stays closed"
            )


def _remove_dead(path: Path) -> None:
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
        else:
            raise ConfigError(f"another runner listens on {path}; stop it first")
