"""One conversation with an engine in one folder: init, plan, apply of exactly that plan."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from reconciler.durable import open_plain
from reconciler.errors import ConfigError, SupersededError, UnitError
from reconciler.runner.terraform.binary import Engine, find_engine
from reconciler.runner.terraform.diagnose import Diagnostic, EngineError, SensitiveOutputs, sensitive_outputs
from reconciler.runner.terraform.leftover import NOTE
from reconciler.runner.terraform.plan import not_a_plan, parse_plan
from reconciler.runner.terraform.process import Command, Ended, Jail, Outlet, Stop
from reconciler.runner.terraform.rescue import APPLY_OUTPUT, ERRORED_STATE
from reconciler.runner.terraform.transcript import Transcript
from reconciler.runner.terraform.workspace import MODULE, ROOT_FILE, VALUES_FILE

__all__ = [
    "ApplyResult",
    "Conversation",
    "Engine",
    "EngineError",
    "PlanResult",
    "SensitiveOutputs",
    "deadline_in",
    "find_engine",
]

PLAN_FILE = "tfplan"
USED_PLAN = "tfplan.used"
CLI_CONFIG = "engine.tfrc"
UNLOCKED = "-lock=false"  # the job holds the state, and says so where anybody's engine looks
PLAN_GRACE = 20.0  # seconds between TERM and KILL: a plan changes nothing
APPLY_GRACE = 3600.0  # seconds an interrupted apply may take to bring its calls to an end and to write its state
OWN_ENDS = (0, 1)  # exit codes by which an engine says that it wrote its state; a panic is 11
# Go's collector runs as often as if memory were scarce, and that is a third of what a short command costs. What the host
# lists in `env` wins. (docs/performance.md)
COLLECTOR = {"GOGC": "400", "GOMEMLIMIT": "2GiB"}
LONGEST_TMP = 60  # characters: a provider's socket below it must stay under 108


@dataclass(frozen=True, slots=True)
class PlanResult:
    """A plan that was made. `json` is `show -json`; of an empty plan it holds only what the plan itself said."""

    changed: bool
    json: Mapping[str, Any]
    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """How an apply ended. `failure` is None if it did all.

    `killed`: it did not come to an end of its own (its grace passed, or something else ended it), and nobody knows
    what it did. `errored_state` holds a state that the engine could not write to its backend: a secret, and the only
    copy.
    """

    failure: EngineError | None
    interrupted: bool
    killed: bool
    errored_state: Path | None


class Conversation:
    """Runs one engine in one generated root. Not for several threads.

    `env` is all that the engine and its providers see, besides what is set here. `log` gets the output for people,
    masked by `mask`, as it comes. `locks` are descriptors that the engine inherits. In `jail`, if there is one; `note`: see `Command`. `stop` is asked now and then whether a step shall not begin, or come to its end as at its
    deadline. Deadlines are `time.monotonic()`.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        env: Mapping[str, str],
        log: BinaryIO | Path,
        *,
        locks: Iterable[int] = (),
        provider_mirror: Path | None = None,
        mask: Callable[[str], str] = str,
        jail: Jail | None = None,
        note: Path | None = None,
        temporary: Path | None = None,
        meanwhile: Callable[[], None] = lambda: None,
        stop: Callable[[str], bool] = lambda _step: False,
    ) -> None:
        """`temporary`: where its temporary files go if they cannot be in the folder; whoever gives it removes it. `meanwhile` is called while
        the engine shows a plan that changes something: what takes its time before an apply takes none then.
        """
        self._engine = engine
        self._outside, self._meanwhile = temporary, meanwhile
        self._stop = stop
        self._note = note or folder / NOTE
        self._jail = jail
        self._folder = folder
        self._env = dict(env)
        self._log = log
        self._locks = tuple(locks)
        self.mask = mask
        _refuse_engine_variables(env)
        _write_cli_config(folder / CLI_CONFIG, provider_mirror)

    def init(self, deadline: float) -> None:
        """Install the providers that the lock file names, and open the backend.

        Raises:
            EngineError: the engine refused. UnitError: "EngineTimeout". SupersededError: it was stopped.
        """
        as_json = ("-json",) if self._engine.speaks_json_at_init else ()
        with Outlet(self._folder / "init.out") as output:
            self._must("init", ("-input=false", "-no-color", "-lockfile=readonly", *as_json), deadline, output)

    def plan(
        self, deadline: float, *, destroy: bool = False, replace: Iterable[str] = (), refresh_only: bool = False
    ) -> PlanResult:
        """Plan, and read what was planned. `replace` are addresses inside the module.

        Raises:
            SensitiveOutputs: mark these outputs in the root, `init` need not be repeated, and plan again.
            EngineError: the engine refused. UnitError: "EngineTimeout". SupersededError: it was stopped.
        """
        options = [f"-replace=module.{MODULE}.{address}" for address in replace]
        options += ["-destroy"] if destroy else []
        options += ["-refresh-only"] if refresh_only else []
        with Outlet(self._folder / "plan.out") as output:
            said, code = self._must(
                "plan",
                ("-input=false", "-no-color", "-json", "-detailed-exitcode", UNLOCKED,
                 f"-out={PLAN_FILE}", f"-var-file={VALUES_FILE}", *options),
                deadline, output,
            )  # fmt: skip
        # `show` starts every provider again: not for a plan that changes nothing, which most plans are.
        shown = self._show(deadline) if code == 2 else _empty_plan(said.messages)
        return PlanResult(code == 2, shown, tuple(said.diagnostics))

    def apply(
        self, deadline: float, *, grace: float = APPLY_GRACE, learn: Callable[[], None] = lambda: None, room: int = 0
    ) -> ApplyResult:
        """Apply the last plan, which cannot be applied again: it is set aside before anything is changed.

        At the deadline the engine is interrupted and has `grace` seconds to come to an end. `learn` is called when it has,
        and before what went wrong is written to the log: `mask` may know more then. `room`: bytes of disk that its output has for
        sure, for what it prints when there is none left.

        Raises:
            SupersededError: it was stopped before it began. UnitError: "DiskFull": there is not that much room; nothing began.
        """
        used = (self._folder / PLAN_FILE).rename(self._folder / USED_PLAN)
        options = ("-input=false", "-no-color", "-json", UNLOCKED, USED_PLAN)
        # On disk both: they tell whoever comes after a job that died what its engine did.
        with Outlet(self._folder / APPLY_OUTPUT, room) as output, Outlet(self._folder / "apply.err") as errors:
            said, ended = self._run("apply", options, Stop(deadline, signal.SIGINT, grace), output, errors, learn=learn)
        used.unlink()  # not where that raises: beside no output at all it proves that no engine was started (see `begun`)
        failure = EngineError("apply", said.diagnostics) if ended.code else None
        left = self._folder / ERRORED_STATE
        own_end = not ended.killed and ended.code in OWN_ENDS
        return ApplyResult(failure, ended.stopped, not own_end, left if left.exists() else None)

    def _show(self, deadline: float) -> Mapping[str, Any]:
        # In memory: it is every secret of the plan in clear.
        with Outlet(None) as output:
            self._must("show", ("-json", "-no-color", PLAN_FILE), deadline, output, logged=False)
            return parse_plan(os.pread(output.handle, output.size, 0))

    def _must(
        self, step: str, options: Iterable[str], deadline: float, output: Outlet, *, logged: bool = True
    ) -> tuple[Transcript, int]:
        """Run a command that changes nothing; raise when it did not do its work."""
        with Outlet(None) as errors:
            said, ended = self._run(
                step, options, Stop(deadline, signal.SIGTERM, PLAN_GRACE), output, errors, logged=logged
            )
        if ended.stopped:
            self._check_wanted(step)
            raise UnitError(
                "EngineTimeout",
                f"{step} did not end in time and was stopped. Raise timeouts.plan in environment.yaml if that is its "
                "normal length; the job's log says how far it came.",
                transient=True,
            )
        self._check_whole(step, output)
        if ended.code == 0 or (step == "plan" and ended.code == 2):
            return said, ended.code
        if names := sensitive_outputs(said.diagnostics):
            raise SensitiveOutputs(names, said.diagnostics)
        raise EngineError(step, said.diagnostics, has_read=said.has_read)

    def _check_whole(self, step: str, output: Outlet) -> None:
        """What the engine printed is all of it: beyond the jail's limit it goes on in silence, as if nothing were missing."""
        if self._jail is None or output.size < self._jail.largest:
            return
        raise UnitError(
            "OutputTooLarge",
            f"{step} printed more than the {self._jail.largest >> 20} MiB that one file of a jailed job may have, and what is missing "
            "may be what matters. Divide the unit into smaller ones.",
        )

    def _run(
        self,
        step: str,
        options: Iterable[str],
        stop: Stop,
        output: Outlet,
        errors: Outlet,
        *,
        logged: bool = True,
        learn: Callable[[], None] | None = None,
    ) -> tuple[Transcript, Ended]:
        self._check_wanted(step)
        with self._opened_log(quiet=not logged) as log, self._temporary() as temporary:
            command = Command(
                (self._engine.binary, step, *options),
                self._folder,
                self._environment(temporary),
                output=output,
                errors=errors,
                locks=self._locks,
                note=self._note,
                jail=self._jail,
            )
            said = Transcript(output, log, self.mask, self._root(), patient=learn is not None)

            def beat() -> None:
                if logged:
                    said.read()
                if self._stop(step):
                    command.ask(stop.signal)

            ended = command.wait(stop, beat, self._meanwhile if step == "show" else None)
            if learn is not None and (ended.code or said.waits):
                learn()
            if logged or ended.code:
                said.finish(errors, ended.code)
        return said, ended

    @contextmanager
    def _temporary(self) -> Iterator[str]:
        """A folder for temporary files: inside the workspace, unless a provider's socket would not fit there."""
        inside, outside = self._folder / "tmp", self._outside
        if len(str(inside)) <= LONGEST_TMP:
            inside.mkdir(exist_ok=True, mode=0o700)
            yield str(inside)
        elif outside is not None and made_ours(outside):
            yield str(outside)
        else:
            with tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True) as found:
                yield found

    def _environment(self, temporary: str) -> dict[str, str]:
        own = {"TF_CLI_CONFIG_FILE": str(self._folder / CLI_CONFIG), "TMPDIR": temporary}
        return {**lasting_environment(self._env), **own}

    def _root(self) -> list[str]:
        with open_plain(self._folder / ROOT_FILE) as root:
            return root.read().decode(errors="replace").splitlines()

    def _check_wanted(self, step: str) -> None:
        if self._stop(step):
            raise SupersededError("The job was cancelled before it changed anything; it is decided afresh.")

    @contextmanager
    def _opened_log(self, *, quiet: bool) -> Iterator[BinaryIO]:
        if quiet:
            with Path("/dev/null").open("ab") as nowhere:
                yield nowhere
        elif isinstance(self._log, Path):
            with self._log.open("ab", buffering=0) as log:
                yield log
        else:
            yield self._log


def lasting_environment(given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a command, but for those that name its folder."""
    return {**COLLECTOR, **given, "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}


def _refuse_engine_variables(env: Mapping[str, str]) -> None:
    if theirs := sorted(name for name in env if name.startswith(("TF_", "TOFU_"))):
        raise ConfigError(f"env: {theirs[0]} would change what the engine does; remove it. Only providers read `env`.")


def _write_cli_config(path: Path, mirror: Path | None) -> None:
    """Providers come from the mirror if there is one, else from their registries; never from both."""
    method = f"filesystem_mirror {{\n    path = {json.dumps(str(mirror))}\n  }}" if mirror else "direct {}"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(f"disable_checkpoint = true\nprovider_installation {{\n  {method}\n}}\n", encoding="utf-8")


def made_ours(folder: Path) -> bool:
    """Make it, or find it made by this user and for nobody else. Whoever knew the name and was faster has it taken away, if that can be."""
    for _ in range(2):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return True
        discard(folder)
    return False


def discard(folder: Path) -> None:
    """Remove it and what is in it, whoever wrote there; a link goes, and not what it leads to."""
    if folder.is_symlink():
        with suppress(OSError):
            folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _empty_plan(messages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What `show -json` would say of a plan that changes nothing, as far as anyone asks."""
    try:
        drift = [_drifted(m["change"]) for m in messages if m["type"] == "resource_drift"]
    except (LookupError, TypeError) as error:
        raise not_a_plan(error) from error
    return {"resource_changes": [], "output_changes": {}, "resource_drift": drift}


def _drifted(change: Mapping[str, Any]) -> dict[str, Any]:
    resource = change["resource"]
    told = {"address": resource["addr"], "type": resource["resource_type"], "mode": "managed"}
    return {**told, "change": {"actions": [change["action"]]}}


def deadline_in(seconds: float) -> float:
    """A deadline from now on, as the methods of `Conversation` take it."""
    return time.monotonic() + seconds
