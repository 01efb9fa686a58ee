"""The conversation of one job with the engine, over a generated root: plan, and apply of exactly that plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from reconciler.durable import FileLock, write_atomic
from reconciler.errors import UnitError
from reconciler.model import Operation, PlanSummary, Presence, Unit, UnitId
from reconciler.runner.access.endpoint import Endpoint
from reconciler.runner.host import Host, Hosted
from reconciler.runner.jail.egress import noted, told
from reconciler.runner.readying import Readying
from reconciler.runner.spool import JobFolder
from reconciler.runner.supply import supply
from reconciler.runner.terraform.creation import Creation
from reconciler.runner.terraform.diagnose import check_entry, diagnose
from reconciler.runner.terraform.engine import Conversation, EngineError, PlanResult, SensitiveOutputs, deadline_in
from reconciler.runner.terraform.initialized import Block
from reconciler.runner.terraform.masking import Veil
from reconciler.runner.terraform.module import cached_module
from reconciler.runner.terraform.plan import Raw, scalars, take_in
from reconciler.runner.terraform.rescue import bring_back, find_left
from reconciler.runner.terraform.state import WORK_STATE, State, secrets_of
from reconciler.runner.terraform.workspace import RootSpec, write_root
from reconciler.runner.values import Inputs
from reconciler.runner.vetted import check_vetted
from reconciler.runner.warmly import Warmly

# Bytes that an apply's output has for sure: for the state that the engine prints when it can write it nowhere, and what it says
# of each change until then (measured: 2.3 KB a change on a full disk).
ROOM, TIMES, EACH = 8 << 20, 3, 8 << 10
ANOTHER_ACCOUNT = re.compile(r"AWS account ID not allowed: ?(\d*)")  # as the provider words it


@dataclass(frozen=True, slots=True)
class Ending:
    """How an apply ended. `unsure`: nobody knows what it did, or its state could not be written."""

    error: UnitError | None
    unsure: str | None


class Talk:
    """One root, one engine."""

    def __init__(
        self,
        host: Host,
        unit: Unit,
        hosted: Hosted,
        folder: JobFolder,
        inputs: Inputs,
        state: State | None,
        locks: tuple[FileLock, ...],
        veil: Veil,
        *,
        stored_as: UnitId | None = None,
        copied: bool = False,
        merged: bool = True,
    ) -> None:
        """`state` is the unit's, as it is: what it keeps secret `veil` learns; `stored_as` is the name that it has, if another.
        `merged`: whether its code was, and is not that of an open pull request.

        `copied`: it is not there yet. The plan is of a copy in the job's folder, and there is nothing to apply.
        """
        self._host, self._unit, self._inputs = host, unit, inputs
        self._stored_as = stored_as or unit.id
        self.drifted: frozenset[str] = frozenset()
        self.secured = False  # see `JobFolder.secure`
        self.creations: tuple[Creation, ...] = ()
        self.said: Raw = {}
        self.hosted, self.folder = hosted, folder
        self._veil = veil
        veil.learn(hosted.secrets | (secrets_of(state) if state else frozenset()))
        self._tree = host.history.tree(unit.pin)
        check_vetted(unit.pin, self._tree, host.config.catalog_repos, host.memory.folder / "vetted")
        module = self._tree / unit.pin.path
        memory, pin = host.memory.folder / "modules", unit.pin
        self._interface = cached_module(memory, pin.digest, pin.path, module, host.engine.product)
        if unit.presence is Presence.PRESENT:
            check_entry(unit.entry, self._interface)
        veil.learn(text for name in self._private() for text in scalars(inputs.values[name].value))
        self._supply = supply(host, unit.pin, self._tree, hosted.variables, folder.log)
        keys = hosted.keys(self._stored_as)
        self._endpoint = Endpoint(keys) if keys else None
        if self._endpoint:
            hosted = replace(hosted, variables={**hosted.variables, **self._endpoint.variables})
        self._conversation = Conversation(
            host.engine,
            folder.work,
            hosted.variables,
            folder.log,
            locks=[*(lock.fileno() for lock in locks), *([self._endpoint.leash] if self._endpoint else ())],
            provider_mirror=self._supply.mirror,
            mask=self._public,
            jail=host.jail(hosted, folder, self._tree, self._supply.mirror),
            note=folder.note,
            temporary=folder.temporary,
            meanwhile=self._secure,
            stop=lambda step: step != "apply" and folder.told(),  # one that has begun is left to end
        )
        self._readying = Readying(host, hosted, folder.work, self._supply, unit.pin, self._tree, merged=merged)
        self._warmly = Warmly(
            host, self.hosted, folder, self._supply, unit.pin, self._tree, self._stored_as, self._public, veil.learn
        )
        self._may_be_warm = merged and not copied and unit.presence is Presence.PRESENT and not unit.entry.imports
        self._raw = state.raw if state else None
        self._copy = self._raw if copied else None
        self._began, self._size, self._changes = state.mark if state else None, len(state.raw) if state else 0, 0

    def __enter__(self) -> Self:
        """Hand out credentials, if the host has any to hand out. Raises HeldError, UnitError: there are none."""
        if self._endpoint:
            self._endpoint.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._endpoint:
            self._endpoint.close()

    def plan(
        self, sensitive: frozenset[str], *, destroy: bool, targets: tuple[str, ...], look: bool = False
    ) -> PlanSummary:
        """Plan afresh from the newest state; `look`: nothing was merged, so most probably there is nothing to do. Afterwards `drifted` has the objects that refresh found changed, `creations` what would be made, `said` the engine's account.

        Raises:
            SensitiveOutputs: these outputs must be marked as well; plan again.
            UnitError: the engine refused, with the place in the entry where there is one.
        """
        deadline = deadline_in(self._unit.environment.timeouts.plan.total_seconds())
        try:
            quiet = self._quiet(sensitive, deadline) if look and not destroy and not targets else None
            planned = quiet or self._planned(sensitive, deadline, destroy=destroy, targets=targets)
        except SensitiveOutputs:
            raise
        except UnitError as error:
            raise self._told(error) from error
        found = take_in(planned.json, self._host.memory.key)
        self._veil.learn(found.secrets)
        self.drifted, self.creations, self.said = found.drifted, found.creations, planned.json
        self._changes = len(found.summary.changes)
        return found.summary

    def _quiet(self, sensitive: frozenset[str], deadline: float) -> PlanResult | None:
        """The plan of a warm worker, if there is one and it changes nothing."""
        if not self._may_be_warm or self._host.door is None:
            return None
        root, block = self._write_root(sensitive)
        name, spec = self._readying.name(root, block), self._spec(sensitive, block)
        return self._warmly.plan(
            lambda folder, backend: write_root(folder, replace(spec, backend=backend), self._tree),
            name,
            self._raw,
            deadline,
        )

    def _planned(
        self, sensitive: frozenset[str], deadline: float, *, destroy: bool, targets: tuple[str, ...]
    ) -> PlanResult:
        """In a folder that is ready for it; once more if the engine wants one that it has made ready itself."""
        root, block = self._write_root(sensitive)
        self._readying.make(self._conversation, root, block, deadline)
        try:
            return self._conversation.plan(deadline, destroy=destroy, replace=targets)
        except EngineError as error:
            if not self._readying.undo(error):
                raise
        return self._planned(sensitive, deadline, destroy=destroy, targets=targets)

    def _secure(self) -> None:
        """Where an apply is likely next. A disk that fails says so then."""
        if self.hosted.operation is Operation.APPLY:
            with suppress(OSError):
                self.folder.secure()
                self.secured = True

    def check_packages(self) -> None:
        """Right before an apply: the providers are still those that were compared with the lock.

        Raises:
            HeldError: "ProviderHashMismatch" or "ProviderMissing".
        """
        self._supply.check()

    def apply(self, alone: Callable[[], bool] = lambda: False) -> Ending:
        """Apply the plan that `plan` made, and bring the state back. `alone`: whether nobody else had the state meanwhile."""
        timeout = self._unit.environment.timeouts.apply.total_seconds()
        room = ROOM + TIMES * self._size + EACH * self._changes
        ended = self._conversation.apply(deadline_in(timeout), learn=self._learn, room=room)
        if ended.killed:
            return Ending(None, "Terraform was killed before it ended; the next job refreshes and plans afresh.")
        backend, work, unwritten = self.hosted.backend, self.folder.work, ended.errored_state is not None
        try:
            bring_back(backend, self._unit.id, work, self._began, alone=unwritten and alone())
        except (UnitError, OSError) as error:
            if not unwritten:
                raise
            return Ending(
                None, f"Terraform could not write the state, nor could the runner: {error} The only copy is in {work}."
            )
        if ended.failure is None:
            return Ending(None, None)
        if unwritten:
            what = (
                "Terraform could not write the state where it belongs, and the runner did: what the apply did is known"
            )
            return Ending(UnitError("StateUnwritten", f"{what}. {self._told(ended.failure)}", transient=True), None)
        found = self._told(ended.failure)
        return Ending(_late(found) if ended.interrupted else found, None)

    def _learn(self) -> None:
        """What the apply itself has made: a password that a provider thought of is in the new state first."""
        with suppress(UnitError, OSError):  # who needs that state says what is wrong with it
            left = find_left(self.folder.work)
            state = left.state if left else self.hosted.backend.read(self._stored_as)
            self._veil.learn(secrets_of(state) if state else ())

    def _private(self) -> list[str]:
        """The inputs whose variable the module itself marks, and that no reference has marked."""
        variables, values = self._interface.variables, self._inputs.values
        return [name for name in values if name in variables and variables[name].sensitive]

    def _write_root(self, sensitive: frozenset[str]) -> tuple[Mapping[str, Any], Block]:
        """The root, and its backend block."""
        block = self._block()
        root = write_root(self.folder.work, self._spec(sensitive, block), self._tree)
        if self._copy is not None:
            write_atomic(self.folder.work / WORK_STATE, self._copy)
        elif not self._readying.done:
            self.hosted.backend.bring(self._stored_as, self.folder.work)
        return root, block

    def _spec(self, sensitive: frozenset[str], block: Block) -> RootSpec:
        unit, host, private = self._unit, self._host, self._private()
        values = {n: replace(v, sensitive=True) if n in private else v for n, v in self._inputs.values.items()}
        return RootSpec(
            unit=unit.id,
            installation=host.config.installation,
            pin=self._supply.pin,
            registry=host.engine.registry,
            interface=self._interface,
            inputs={n: v for n, v in values.items() if n in self._interface.variables},
            providers=self._unit.environment.providers,
            provider_map=unit.entry.providers,
            backend=block,
            sensitive_outputs=sensitive,
            accounts=self.hosted.allowed_account_ids,
            imports=unit.entry.imports if unit.presence is Presence.PRESENT else {},
        )

    def _block(self) -> Block:
        if self._copy is not None:
            return {"local": {"path": str(self.folder.work / WORK_STATE)}}
        return self.hosted.backend.block(self._stored_as, self.folder.work)

    def _told(self, error: UnitError) -> UnitError:
        if not isinstance(error, EngineError):
            return error
        refused = self._public(told(noted(self.folder.refusals), self.hosted.name))
        found = self._wrong_account(error) or diagnose(error, self._unit, self._public)
        return UnitError(found.reason, f"{found}{refused}", transient=found.transient) if refused else found

    def _public(self, text: str) -> str:
        """The text without secrets, and without this host's paths to the pinned tree."""
        if self._endpoint:  # before: what an engine wrote it may have fetched a moment ago
            self._veil.learn(self._endpoint.handed_out())
        return self._veil.hide(text).replace(str(self._tree), self._unit.pin.module.partition("/")[0])

    def _wrong_account(self, error: EngineError) -> UnitError | None:
        """The credentials are of an account that the host does not allow: the remedy is on the host, not in a file of git."""
        found = next(filter(None, (ANOTHER_ACCOUNT.search(f"{e.summary} {e.detail}") for e in error.errors)), None)
        if found is None:
            return None
        name, allowed = self.hosted.name, ", ".join(self.hosted.allowed_account_ids)
        whose = f"the credentials of {name} are of the AWS account {found[1] or '(unknown)'}"
        where = f"environments.{name}.allowed_account_ids in runner.yaml has only {allowed or 'what the module says'}"
        remedy = "give this environment credentials of its own account, or list the account there if it is right"
        return UnitError("AccountNotAllowed", f"Nothing was done: {whose}, and {where}; {remedy}.")


def _late(error: UnitError) -> UnitError:
    """The failure of an apply whose time was over: its own words are only that it was interrupted."""
    what = "The apply did not end within timeouts.apply and was interrupted: what it did is in its state, the rest is tried again"
    how = "Raise timeouts.apply in environment.yaml if that is its normal length"
    return UnitError("EngineTimeout", f"{what}. {how}. {error}", transient=True)
