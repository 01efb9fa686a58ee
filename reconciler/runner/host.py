"""What a job works with: the host's configuration brought to life. Made once; every job inherits it by fork."""

from __future__ import annotations

import json
import secrets
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler import __version__, codec
from reconciler.branch.protected import open_branch
from reconciler.branch.pulls import forge_of, open_proposals
from reconciler.config import Engine as EngineConfig
from reconciler.config import HostEnvironment, RunnerConfig
from reconciler.desired.paths import LOCK_PATH
from reconciler.durable import sweep, write_atomic
from reconciler.errors import ConfigError, HeldError, PassError, UnitError
from reconciler.forge.facts import Forge
from reconciler.git.head import Head
from reconciler.git.provenance import open_proofs
from reconciler.model import AuditFacts, Commit, HostPart, Operation, Rule, RunnerFacts, TrustFacts, UnitId
from reconciler.runner.access.keys import Renewing
from reconciler.runner.access.policy import for_engine, for_runner, for_secrets
from reconciler.runner.access.sources import Access, Asked, draw
from reconciler.runner.access.sts import NOBODY, Errand
from reconciler.runner.access.vault import Vault
from reconciler.runner.allow import rule_of
from reconciler.runner.credentials import read_secret
from reconciler.runner.history import History
from reconciler.runner.jail.egress import (
    Egress,
    check_no_proxy,
    endpoint_of,
    endpoints_of,
    parse_endpoint,
    s3_endpoints,
)
from reconciler.runner.jail.keeper import Jailer
from reconciler.runner.jail.tier import FIRST_USER, NONE, STRICT, Sandbox, best_tier, open_sandbox
from reconciler.runner.opening import open_memory, open_recorder
from reconciler.runner.record import Vouched, vouched_by
from reconciler.runner.reviews import Reviews
from reconciler.runner.spool import JobFolder, Spool
from reconciler.runner.terraform.engine import Engine, find_engine
from reconciler.runner.terraform.s3 import S3Backend
from reconciler.runner.terraform.state import SUFFIX, Backend, LocalBackend
from reconciler.runner.terraform.templates import Templates
from reconciler.runner.unitlock import Here
from reconciler.runner.warm.beside import open_warmth
from reconciler.runner.warm.broker import STATUS
from reconciler.runner.warm.loan import Door


@dataclass(frozen=True, slots=True)
class Hosted:
    """An environment as its host knows it, for one operation. `variables` are what the engine and its providers see."""

    name: str
    part: HostPart
    backend: Backend
    max_destroy: int | None
    rules: tuple[Rule, ...]
    readable_by: frozenset[str]
    allowed_account_ids: tuple[str, ...]
    variables: Mapping[str, str]
    secrets: frozenset[str]
    operation: Operation
    errand: Errand
    access: Access
    vault: Vault

    def keys(self, stored_as: UnitId) -> Renewing | None:
        """AWS keys for the engine of one unit: of the bucket of states they open only its own. None: it gets none."""
        backend = self.backend
        if not isinstance(backend, S3Backend):
            return self.access.keys()
        bucket, key, operation = backend.bucket, f"{stored_as}{SUFFIX}", self.operation
        return self.access.keys(lambda partition: for_engine(bucket, partition, key, operation))


class Host:
    """The runner's host: what it may do, where things are, and what it remembers."""

    def __init__(self, config: RunnerConfig, here: Here | None = None) -> None:
        """`here`: see `open_memory`. Raises ConfigError when the engine is not what the configuration pins; or as that."""
        self.config, self.here = config, here or Here()
        self.memory = open_memory(config, self.here)
        self.spool = Spool(config.memory_path / "spool")
        self.templates = Templates(self.memory.folder / "initialized", self.memory.seal)
        self.engine = _engine(config)
        self.sandbox = _sandbox(config, self.engine)
        self.warmth = (
            open_warmth(config.warm, self.engine, self.sandbox, config.memory_path / "warm") if config.warm else None
        )
        self.door: Door | None = None  # where jobs ask for warm workers, while there is a broker
        for name, listed in config.environments.items() if self.sandbox and self.sandbox.tier == STRICT else ():
            check_no_proxy(name, listed.env)
        self.rules = tuple(map(rule_of, config.rules))
        self._proofs = open_proofs(self.memory.cabinet)
        self.record = open_recorder(config, self.memory)
        self._warmed: str | None = None  # the commit that this process has read
        self.run = secrets.token_hex(8)  # names this process, and those that it forks for jobs
        self.reviews = Reviews(self.memory.cabinet.within("reviews"))
        self.proposals = open_proposals(config)
        self.forge: Forge = forge_of(config)
        self.history = History(
            self.memory,
            lambda accepted: open_branch(config, accepted, beside=self.memory.cabinet),
            self._record_head,
            self._pull_of,
        )

    def warm(self, unit: UnitId | None = None) -> None:
        """Read what the accepted head means, and look for the unit's pin in its catalog's branch, so that the next job
        inherits both. Asks no network, and never fails: what it stumbles over, the jobs stumble over each by itself.
        """
        self.look_at_engine()
        try:
            with self._warming() as may:
                if may:
                    self._warm(unit)
        except Exception:  # noqa: BLE001 - a commit that nobody foresaw does not end the service
            sys.stderr.write(f"runner: the next job reads its commit by itself:\n{traceback.format_exc()}")

    @contextmanager
    def _warming(self) -> Iterator[bool]:
        """Whether the service may read what the accepted head means: not one that has killed a service in that very moment.

        Then the next service stays cold, and only jobs read that commit, each in a process of its own.
        """
        mark, commit = self.memory.folder / "warming", self.memory.trust().commit or ""
        if commit == self._warmed:
            yield True
            return
        if mark.exists() and mark.read_text(encoding="utf-8") == commit:
            yield False
            return
        write_atomic(mark, commit.encode(), durable=False)
        yield True
        self._warmed = commit
        mark.unlink(missing_ok=True)

    def _warm(self, unit: UnitId | None) -> None:
        with suppress(PassError, UnitError):
            desired = self.history.known()
            if desired is not None:
                self.history.digest(desired.commit, LOCK_PATH)
            wanted = desired.units.get(unit) if desired and unit else None
            if wanted is not None:
                self.history.vouches(wanted.pin)

    def look_at_engine(self) -> None:
        """Take up an engine that was exchanged, where the host does not pin one, and say so; a pinned one stays what it
        was, and jobs find out that its file is not.
        """
        if isinstance(self.config.engine, EngineConfig) or self.engine.changed() is None:
            return
        before = f"{self.engine.kind} {self.engine.version}"
        with suppress(ConfigError):  # no engine at all now: the jobs say so
            self.engine = _engine(self.config)
            sys.stderr.write(
                f"runner: the engine was exchanged: {before} before, {self.engine.kind} {self.engine.version} now.\n"
            )

    @property
    def accepted_engines(self) -> tuple[str, ...]:
        """Other engines whose states this one may go on with."""
        pinned = self.config.engine
        return tuple(pinned.accepts_states_of) if isinstance(pinned, EngineConfig) else ()

    def vouched(self, commit: Commit) -> Vouched:
        """The commit, and who vouched for it, as far as this host asked anybody."""
        proof = self._proofs.get(commit)
        return Vouched(commit) if proof is None else vouched_by(proof)

    def _pull_of(self, commit: Commit) -> int | None:
        proof = self._proofs.get(commit)
        return proof.pull if proof else None

    def _record_head(self, head: Head) -> None:
        self.record.head(head.commit, head.since, [self.vouched(commit) for commit in head.chain])

    def sweep(self) -> None:
        """Remove what writers that were killed left half written: it may be a state, and so a secret."""
        states = [listed.backend.local.path for listed in self.config.environments.values() if listed.backend.local]
        for folder in {self.memory.folder / "units", *states}:
            sweep(folder)

    def environment(self, name: str, operation: Operation = Operation.PLAN, errand: Errand = NOBODY) -> Hosted:
        """The environment, with the credentials of the operation. `errand`: what they are for.

        Raises:
            HeldError: the host does not list it, or its credentials cannot be read. UnitError: they are not there now.
        """
        listed = self.config.environments.get(name)
        if listed is None:
            raise HeldError("EnvironmentNotHosted", f"runner.yaml does not list the environment {name}; add it there.")
        access = open_access(self.config.installation, name, listed, operation, errand)
        given = access.variables
        variables, region = {**listed.env, **given}, listed.backend.s3.region if listed.backend.s3 else None
        return Hosted(
            name=name,
            part=self._part(name, listed),
            backend=open_backend(listed, access),
            max_destroy=listed.max_destroy,
            rules=tuple(rule.fact for rule in listed.rules),
            readable_by=frozenset(listed.readable_by),
            allowed_account_ids=tuple(listed.allowed_account_ids),
            variables=variables,
            secrets=frozenset(given.values()),
            operation=operation,
            errand=errand,
            access=access,
            vault=Vault(access.keys(lambda _: for_secrets()), variables, region),
        )

    def jail(self, hosted: Hosted, folder: JobFolder, *readable: Path) -> Jailer | None:
        """A jail for one job's engine, which sees these besides itself; None: this host has none."""
        if self.sandbox is None:
            return None
        return self.sandbox.jailer(folder.work, (self.engine.binary, *readable), self.egress(hosted), folder.refusals)

    def egress(self, hosted: Hosted) -> Egress:
        """What the environment's engines may connect to."""
        return _egress(self.config.environments[hosted.name], hosted.variables)

    def secret(self, hosted: Hosted, name: str) -> str:
        """The value of one of the environment's secrets; from AWS with the credentials that the environment was opened with.

        Raises:
            HeldError: the host does not list it, or it cannot be read. UnitError: there are no credentials for it now.
        """
        listed = self.config.environments[hosted.name].secrets
        source, what = listed.get(name), f"secret {name} of {hosted.name}"
        if source is None:
            known = ", ".join(sorted(listed)) or "none"
            what = f"runner.yaml: environments.{hosted.name}.secrets has no {name}; it has: {known}"
            raise HeldError("SecretMissing", f"{what}.")
        return read_secret(source.file, what) if source.file else hosted.vault.read(source, what)

    def remember_secrets(self, environment: str, found: Mapping[str, str]) -> None:
        """Seals of the values that a job found at AWS: `facts` has them from now on."""
        for name, seal in found.items():
            source = self.config.environments[environment].secrets[name]
            if source.file is None:
                self.memory.seal_secret(environment, name, source.model_dump(mode="json"), seal)

    def facts(self) -> RunnerFacts:
        """What this runner publishes of itself: nothing that could be guessed back."""
        parts = {name: self._part(name, listed) for name, listed in self.config.environments.items()}
        fence, tier = self.memory.fence(), self.sandbox.tier if self.sandbox else NONE
        return RunnerFacts(self.engine.kind, self.engine.version, parts, fence, self._audit(), tier, self._stands())

    def _stands(self) -> TrustFacts:
        standing = self.history.standing()
        frozen, unproven = standing.frozen, standing.seen.unproven if standing.seen else None
        return TrustFacts(frozen.reason if frozen else "", standing.frozen_at, unproven.reason if unproven else "")

    def _audit(self) -> AuditFacts:
        """How far the audit log and its anchor are; what is wrong with them is said, and stops nothing here."""
        try:
            return self.record.facts(has_anchor=self.config.audit is not None)
        except (PassError, OSError, ValueError) as error:
            return AuditFacts(0, 0 if self.config.audit else None, None, str(error))

    def facts_of(self, hosted: Hosted) -> RunnerFacts:
        """As `facts`, of one environment only: no other's secrets are read for it."""
        return RunnerFacts(self.engine.kind, self.engine.version, {hosted.name: hosted.part})

    def about(self) -> dict[str, object]:
        """What a caller may do here, for people and programs: `runner describe`."""
        return {
            "version": __version__,
            "installation": self.config.installation,
            "engine": {"kind": self.engine.kind, "version": self.engine.version, "binary": str(self.engine.binary)},
            "sandbox_tier": self.sandbox.tier if self.sandbox else NONE,
            "warm": self._pool(),
            "paused": self.memory.paused(),
            "audit": json.loads(codec.encode(self._audit())),
            "accepted_head": self.memory.trust().commit,
            "trust": self._trust(),
            "repository": {"url": self.config.environments_repo.url, "branch": self.config.environments_repo.branch},
            "allow": [
                {
                    "operations": sorted(r.operations),
                    "refs": "pulls" if r.pulls else "merged",
                    "folders": list(r.folders),
                    "modules": list(r.modules),
                }
                for r in self.rules
            ],
            "exceptions": [
                one.model_dump(exclude_none=True)
                for _, catalog in sorted(self.config.catalog_repos.items())
                for one in catalog.exceptions
            ],
            "environments": {name: _described(listed) for name, listed in sorted(self.config.environments.items())},
        }

    def _pool(self) -> object:
        """What the broker says of its workers; None: there are none here."""
        if self.warmth is None:
            return None
        with suppress(OSError, ValueError):
            return json.loads((self.warmth.home / STATUS).read_bytes())
        return {}

    def _trust(self) -> dict[str, object]:
        """What of the protected branch is accepted here, and what is not, and why."""
        standing, anew = self.history.standing(), self.memory.trust().anew
        frozen, seen = standing.frozen, standing.seen
        told = {
            "base": standing.base,
            "frozen": frozen and {"reason": frozen.reason, "message": frozen.message, "since": standing.frozen_at},
            "unproven": seen and seen.unproven,
            "verified_at": seen and seen.at,
            "history_accepted": anew,
        }
        plain: dict[str, object] = json.loads(codec.encode(told))
        return plain

    def _part(self, name: str, listed: HostEnvironment) -> HostPart:
        """The environment's half of every fingerprint: what can change a plan, sealed."""
        backend = listed.backend.model_dump(mode="json")
        digest = self.memory.seal([listed.klass, backend, dict(listed.env), sorted(listed.allowed_account_ids)])
        secrets = {}
        for secret, source in listed.secrets.items():
            if source.file is None:  # this must wait for no network: it is as the last job found it
                secrets[secret] = self.memory.sealed_secret(name, secret, source.model_dump(mode="json"))
                continue
            with suppress(HeldError):  # a secret that cannot be read is not there, and its readers say so
                secrets[secret] = self.memory.seal(read_secret(source.file, secret))
        return HostPart(listed.environment_class, digest, secrets, self._accounts(listed))

    def _accounts(self, listed: HostEnvironment) -> tuple[str, ...]:
        """Which environments share an account shall be known, and not which account it is."""
        return tuple(self.memory.seal(["account", one]) for one in sorted(listed.allowed_account_ids))


def _engine(config: RunnerConfig) -> Engine:
    scratch = config.memory_path / "engine"
    scratch.mkdir(exist_ok=True, mode=0o700)
    return open_engine(config, scratch)


def open_engine(config: RunnerConfig, scratch: Path) -> Engine:
    """The configured engine. `scratch` takes the embedded one's launcher. Raises ConfigError, see `find_engine`."""
    pinned = config.engine
    if isinstance(pinned, EngineConfig):
        return find_engine(str(pinned.binary), pinned.version, pinned.sha256.removeprefix("sha256:"), scratch)
    return find_engine(pinned, None, None, scratch)


def _sandbox(config: RunnerConfig, engine: Engine) -> Sandbox | None:
    if config.sandbox is None:
        return None
    return open_sandbox(
        config.sandbox.tier,
        engine.binary,
        embedded=engine.kind == "embedded",
        scratch=config.memory_path / "probes",
        first_user=config.sandbox.first_user,
        networked=_networked(config),
    )


def best_jail(config: RunnerConfig, engine: Engine, scratch: Path) -> tuple[str | None, Mapping[str, str]]:
    """The best tier that holds here for these environments; and of each better one why it does not."""
    first = config.sandbox.first_user if config.sandbox else FIRST_USER
    embedded = engine.kind == "embedded"
    return best_tier(engine.binary, embedded=embedded, scratch=scratch, first_user=first, networked=_networked(config))


def _networked(config: RunnerConfig) -> list[str]:
    return [name for name, one in sorted(config.environments.items()) if _egress(one, one.env).endpoints]


def open_access(
    installation: str, name: str, listed: HostEnvironment, operation: Operation, errand: Errand = NOBODY
) -> Access:
    """The environment's credentials for the operation. Raises HeldError, UnitError: see `draw`."""
    where = f"runner.yaml: environments.{name}.credentials.{operation.value}"
    region = listed.backend.s3.region if listed.backend.s3 else None
    asked = Asked(where, operation, installation, errand, region, listed.env)
    return draw(listed.credentials.apply if operation is Operation.APPLY else listed.credentials.plan, asked)


def open_backend(listed: HostEnvironment, access: Access) -> Backend:
    """The environment's states, read with these credentials."""
    local, s3 = listed.backend.local, listed.backend.s3
    if local is not None:
        return LocalBackend(local.path)
    assert s3 is not None  # noqa: S101 - the configuration has exactly one of them
    variables = {**listed.env, **access.variables}
    # The engine goes where these variables point; the runner's own reads must go there too.
    endpoint = s3.endpoint or variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL")
    keys = access.keys(lambda partition: for_runner(s3.bucket, partition))
    return S3Backend(s3.bucket, s3.region, s3.options, variables, endpoint=endpoint, keys=keys)


def _egress(listed: HostEnvironment, variables: Mapping[str, str]) -> Egress:
    """What the environment's jobs may connect to: what the host lists, and where its backend and its variables lead."""
    found = [*map(parse_endpoint, listed.egress), *endpoints_of(variables)]
    s3 = listed.backend.s3
    if s3 is not None and s3.endpoint:
        found.append(endpoint_of(s3.endpoint))
    elif s3 is not None and not variables.keys() & {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"}:
        found += s3_endpoints(s3.bucket, s3.region)
    return Egress(tuple(one for one in dict.fromkeys(found) if one))


def _described(listed: HostEnvironment) -> dict[str, object]:
    kind = "local" if listed.backend.local else "s3"
    secrets = sorted(listed.secrets)
    return {
        "class": listed.klass,
        "backend": kind,
        "max_destroy": listed.max_destroy,
        "rules": [rule.name for rule in listed.rules],
        "readable_by": sorted(listed.readable_by),
        "secrets": secrets,
        "credentials": {name: one and one.kind for name, one in listed.credentials},
        "adopt": sorted(
            f"s3://{one.s3.bucket}/{one.s3.prefix}" if one.s3 else str(one.local and one.local.path)
            for one in listed.adopt
        ),
        "egress": sorted(map(str, _egress(listed, listed.env).endpoints)),
    }
