"""A jail is tried out by a program that does in it what a hostile one would, beside sinks that notice what gets out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from reconciler.durable import is_locked
from reconciler.errors import ConfigError
from reconciler.runner.jail import probe, seccomp
from reconciler.runner.jail.keeper import Jailer
from reconciler.runner.jail.proxy import PORT
from reconciler.runner.jail.users import closed_above

SECONDS = 120.0  # for all probes
LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache")
TOLD = 1500  # characters of what went wrong
BEGIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from probe.run import main; main()"
SYSTEM_PYTHON = Path("/usr/bin/python3")

Make = Callable[
    [Path, Sequence[Path], Path], Jailer
]  # a jail for a work folder, with what it may read, and its refusals


def try_out(make: Make, folder: Path, engine: Path, python: Path, beyond: AbstractSet[str]) -> Mapping[str, str]:
    """Try every probe in a jail, and if nothing got out but what is `beyond` it, run the engine in one. What got out -> the
    evidence.

    Raises:
        ConfigError: no jail can be made, or the engine does not run in it.
    """
    work, readable, refused = folder / "work", folder / "readable", folder / "refused"
    work.mkdir()
    argv = program(python, readable)
    with Sinks(folder / "outside") as sinks:
        context = json.dumps(sinks.context(readable))
        jailer = make(work, (*interpreter(python), readable), refused)
        answers = json.loads(_output(jailer, work, (*argv, context), "The jail cannot be made"))
        escaped = {name: str(evidence) for name, evidence in answers.items() if evidence is not None}
        escaped |= dict.fromkeys(probe.TRIES.keys() - answers.keys(), "not tried") | sinks.got()
    if (work / "survivor").exists() and is_locked(work / "survivor"):
        escaped["outlive"] = "a process lives on"
    if escaped := {name: evidence for name, evidence in escaped.items() if name not in beyond}:
        return escaped
    jailer = make(work, (engine,), refused)
    _output(jailer, work, (str(engine), "version"), f"{engine} does not run in the jail; it must be a static program")
    return {}


def own_python() -> Path:
    """The Python that runs this."""
    return Path(sys.executable).resolve()


def python_for_all() -> Path:
    """A Python that every user of the host can start.

    Raises:
        ConfigError: there is none.
    """
    found = [one.resolve() for one in (own_python(), SYSTEM_PYTHON) if one.exists()]
    for one in found:
        if not closed_above(one):
            return one
    closed = ", ".join(map(str, closed_above(found[0])))
    what = f"the probes are run by another user, who cannot start {found[0]}: not everybody may search {closed}"
    raise ConfigError(f"sandbox: {what}. Let a Python lie elsewhere, or install the system's.")


def program(python: Path, readable: Path) -> tuple[str, ...]:
    """The probes as a command. They are copied to where a jail can be shown them."""
    source = Path(probe.__file__).parent
    shutil.copytree(
        source, readable / source.name, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile
    )
    return (str(python), "-IS", "-c", BEGIN, str(readable))


def interpreter(python: Path) -> tuple[Path, ...]:
    """What a Python needs in order to run: shown to the probes, and to no job."""
    own = (python, python.parents[1] / "lib")
    return tuple(path for path in dict.fromkeys((*map(Path, LIBRARIES), *own)) if path.exists())


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
        raise ConfigError(f"sandbox: {problem} (exit code {code}): {said}")
    return output.read_text()


def _short(path: str) -> str:
    """A path that fits into a socket's address, or one beside the temporary files that does."""
    return path if len(path) < 100 else tempfile.mktemp(prefix="reconciler-sink-")  # noqa: S306 - bound at once
