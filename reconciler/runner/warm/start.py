"""How a worker is started: where an engine would be, in a jail of its own, with a socket in the place of its output."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.durable import write_atomic
from reconciler.runner.access.endpoint import Address, new_address
from reconciler.runner.jail import landlock
from reconciler.runner.jail.bare import NAMES
from reconciler.runner.jail.cell import DEVICES, TEMPORARY, Cell, authorities
from reconciler.runner.jail.egress import Egress, endpoints_of
from reconciler.runner.jail.tier import FALLBACK, Sandbox
from reconciler.runner.jail.trial import interpreter, own_python, python_for_all
from reconciler.runner.terraform.engine import CLI_CONFIG, LONGEST_TMP
from reconciler.runner.terraform.process import Child
from reconciler.runner.warm import inside, parcel
from reconciler.runner.warm.spec import Spec

BEGIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from reconciler.runner.warm.inside import main; main()"
SOURCES = {"runner/jail/landlock.py": landlock, "runner/warm/inside.py": inside, "runner/warm/parcel.py": parcel}
EACH = 512  # characters that the library may be told of one provider
ELSEWHERE, SCRATCH = "warm-", "scratch"
HOSTS = Path("/etc/hosts")
# glibc gives each thread a piece of address space otherwise, of which a jail has a limit.
ONE_ARENA = {"MALLOC_ARENA_MAX": "2"}


@dataclass(frozen=True, slots=True)
class Started:
    """A worker: the process to wait for, the socket to ask it by, and its folder. `desk`: where it fetches keys."""

    child: Child
    control: socket.socket
    folder: Path
    scratch: Path | None
    desk: Address | None

    def end(self) -> None:
        """At once. It is to be waited for still."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)

    def bury(self) -> None:
        """Wait for its end, and remove what it left."""
        self.child.wait()
        self.control.close()
        if self.desk is not None:
            self.desk.listener.close()
        for folder in (self.folder, self.scratch):
            if folder is not None:
                remove(folder)


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts workers below `home`, in jails of the `sandbox`, if there is one."""

    home: Path
    library: Path
    sandbox: Sandbox | None

    def start(self, spec: Spec, number: int) -> Started:
        """Start one. Whether it comes to life is seen when it is asked.

        Raises:
            OSError: the disk. HeldError, PassError, ConfigError: it cannot be jailed.
        """
        folder = self.home / str(number)
        work = folder / "work"
        work.mkdir(parents=True, mode=0o700)
        (work / "tmp").mkdir(mode=0o700)
        scratch, desk = self._scratch(work), new_address() if spec.fetches else None
        fetched = desk.variables if desk else {}
        env = {
            **ONE_ARENA,
            **({inside.REATTACH: " " * EACH * len(spec.owned)} if spec.owned else {}),
            **spec.env,
            **fetched,
            "TF_CLI_CONFIG_FILE": str(work / CLI_CONFIG),
            "TMPDIR": str(scratch or work / "tmp"),
        }
        spec = replace(spec, egress=Egress((*spec.egress.endpoints, *endpoints_of(fetched))))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs, (folder / "errors").open("wb") as errors:
                start = self._start_bare if self.sandbox is None else self._start_jailed
                child = start(spec, folder, env, theirs.fileno(), errors.fileno())
        except BaseException:
            ours.close()
            remove(folder)
            raise
        return Started(child, ours, folder, scratch, desk)

    def _scratch(self, work: Path) -> Path | None:
        """Where temporary files go, if not below `work`: a provider's socket must have a short name."""
        jailed = self.sandbox is not None and self.sandbox.bwrap is not None
        if jailed or len(str(work / "tmp")) <= LONGEST_TMP:
            return None
        scratch = Path(tempfile.mkdtemp(prefix=ELSEWHERE))
        (work.parent / SCRATCH).symlink_to(scratch)  # for who finds this folder after a broker that was killed
        return scratch

    def _start_bare(self, spec: Spec, folder: Path, env: Mapping[str, str], control: int, errors: int) -> Child:
        told = self._told(folder / "work", [], spec.owned, alone=False, parent=os.getpid())
        return subprocess.Popen(
            (own_python(), "-IS", "-c", BEGIN, self._program(), told), cwd=folder / "work", env=env,
            stdin=subprocess.DEVNULL, stdout=control, stderr=errors, start_new_session=True,
        )  # fmt: skip

    def _start_jailed(self, spec: Spec, folder: Path, env: Mapping[str, str], control: int, errors: int) -> Child:
        assert self.sandbox is not None  # noqa: S101 - that is how it was chosen
        python = python_for_all() if self.sandbox.tier == FALLBACK else own_python()
        program = self._program()
        readable = (*interpreter(python), program, self.library, spec.mirror, spec.trees)
        jailer = replace(self.sandbox.jailer(folder / "work", readable, spec.egress, folder / "refused"), leashed=True)
        opened = list(_opened(spec, jailer.cell, env, self.library))
        alone = jailer.cell.bwrap is not None or jailer.cell.user is not None
        told = self._told(folder / "work", opened, spec.owned, alone=alone, parent=0)
        return jailer.start((python, "-IS", "-c", BEGIN, program, told), env, control, errors, ())

    def _told(
        self, work: Path, opened: list[tuple[list[str], int]], own: Mapping[str, str], *, alone: bool, parent: int
    ) -> str:
        told = {
            "work": str(work),
            "library": str(self.library),
            "opened": opened,
            "alone": alone,
            "parent": parent,
            "own": own,
        }
        return json.dumps(told)

    def _program(self) -> Path:
        """What a worker runs, where a jail can be shown it: a few files of this package, and nothing else of it."""
        place = self.home / "program"
        for name, module in SOURCES.items():
            file = place / "reconciler" / name
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
                write_atomic(file, Path(str(module.__file__)).read_bytes(), mode=0o644, durable=False)
        return place


def remove_home(home: Path) -> None:
    """All that a broker's workers have left, each of which has ended."""
    for link in home.glob(f"*/{SCRATCH}"):
        if link.is_symlink() and link.readlink().name.startswith(ELSEWHERE):
            remove(link.readlink())
    remove(home)


def remove(folder: Path) -> None:
    """Of a worker that has ended: what it left may have any rights."""
    with suppress(OSError, RecursionError):
        parcel.empty(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _opened(spec: Spec, cell: Cell, env: Mapping[str, str], library: Path) -> Iterator[tuple[list[str], int]]:
    """What is open to a worker once it has begun. Nothing can be started but what is in the mirror."""
    own = [*cell.writable(env), *([Path(TEMPORARY)] if cell.bwrap else [])]
    yield [str(path) for path in own], landlock.KEEP
    yield [str(spec.mirror)], landlock.RUN
    yield [str(path) for path in (spec.trees, library, *authorities(env))], landlock.READ
    yield [f"/dev/{name}" for name in DEVICES], landlock.USE
    yield [str(HOSTS), *(NAMES if cell.network else ())], landlock.READ
