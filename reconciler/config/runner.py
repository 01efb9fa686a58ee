"""runner.yaml: the runner's host, which the controller can neither read nor write."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from reconciler.config.audit import Audit
from reconciler.config.credentials import WINS, Credential, Credentials
from reconciler.config.fields import (
    AccountId,
    AwsEndpoint,
    CatalogRepos,
    EnvironmentsRepo,
    Glob,
    HostPath,
    Installation,
    ModuleGlob,
    SpoolUrl,
    exactly_one,
    given,
    word_or_mapping,
)
from reconciler.desired.schema import Rules
from reconciler.desired.shape import Closed, Duration, Line, Name, Variable, matching
from reconciler.model import EnvironmentClass, Operation


class S3Memory(Closed):
    """A part of a bucket, with versioning, that nobody else writes: jobs of several hosts share it."""

    bucket: Line
    region: Line
    prefix: Line = Field(default="memory", description="the folder of the bucket")
    endpoint: Line | None = None
    use_path_style: bool = False
    kms_key_id: Line | None = None
    credentials: Credential | None = Field(
        default=None,
        description="who reads and writes it, in the ways of an environment; what the SDK finds, if not written",
    )


class Memory(Closed):
    """What the runner accepted and applied."""

    path: HostPath | None = None
    s3: S3Memory | None = Field(
        default=None, description="instead; then `work` is the folder of what may be lost with the host"
    )

    @model_validator(mode="after")
    def _one(self) -> Memory:
        exactly_one(self, "path", "s3")
        return self


class Allow(Closed):
    """One line of the allow-list."""

    operations: list[Literal["plan", "apply"]]
    refs: Literal["merged", "pulls"] = Field(default="merged", description="what was merged, or open pull requests")
    folders: list[Glob]
    modules: list[ModuleGlob] = Field(
        default=["**"], description="<catalog>/<module>; `*` stands for any part of a name"
    )

    @model_validator(mode="after")
    def _only_shown(self) -> Allow:
        if self.refs == "pulls" and "apply" in self.operations:
            raise PydanticCustomError("pulls", "a pull request is planned, never applied; write operations: [plan]")
        return self

    @property
    def operation_set(self) -> frozenset[Operation]:
        """The operations as the model has them."""
        return frozenset(map(Operation, self.operations))


EngineName = Annotated[
    str, matching(r"(?:terraform|tofu)(?: [0-9A-Za-z.+-]{1,64})?", "an engine (tofu, or terraform 1.12.0)")
]


class Engine(Closed):
    """The Terraform or OpenTofu binary, pinned."""

    binary: HostPath
    version: Line
    sha256: Annotated[str, matching(r"(?:sha256:)?[0-9a-f]{64}", "a digest (64 hexadecimal digits)")]
    accepts_states_of: list[EngineName] = Field(
        default=[],
        description="another engine (tofu), or a newer version (terraform 1.12.0), whose states it may go on with",
    )


class S3Backend(Closed):
    """A bucket of states."""

    bucket: Line
    region: Line
    endpoint: Line | None = None
    use_path_style: bool = False
    kms_key_id: Line | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_lock(cls, given: Any) -> Any:
        if isinstance(given, dict) and "dynamodb_table" in given:
            raise PydanticCustomError(
                "dynamodb_table",
                "states are locked in the bucket itself, by <key>.tflock, and two locks could disagree: remove `dynamodb_table`, and write "
                "`use_lockfile = true` wherever else these states are used",
            )
        return given

    @property
    def options(self) -> dict[str, str | bool]:
        """What goes into Terraform's backend block besides the address."""
        found: dict[str, str | bool] = {}
        if self.use_path_style:
            found["use_path_style"] = True
        return found | ({"kms_key_id": self.kms_key_id} if self.kms_key_id else {})


class LocalBackend(Closed):
    """A folder of states."""

    path: HostPath


class Backend(Closed):
    """Where the states of an environment are."""

    s3: S3Backend | None = None
    local: LocalBackend | None = None

    @model_validator(mode="after")
    def _one(self) -> Backend:
        exactly_one(self, "s3", "local")
        return self


class AdoptS3(Closed):
    """A folder of a bucket in which states of others are."""

    bucket: Line
    region: Line
    prefix: Line = Field(description="a folder of the bucket, or one key")
    endpoint: Line | None = None
    use_path_style: bool = False


class AdoptFrom(Closed):
    """A place whose states entries of the environment may adopt."""

    s3: AdoptS3 | None = None
    local: LocalBackend | None = None

    @model_validator(mode="after")
    def _one(self) -> AdoptFrom:
        exactly_one(self, "s3", "local")
        return self


class Secret(Closed):
    """Where a secret's value is."""

    file: HostPath | None = None
    secretsmanager: Line | None = Field(default=None, description="a secret of AWS Secrets Manager: its ARN or name")
    ssm: Line | None = Field(
        default=None, description="a parameter of AWS Systems Manager's Parameter Store: its name or ARN"
    )

    @model_validator(mode="after")
    def _one(self) -> Secret:
        exactly_one(self, "file", "secretsmanager", "ssm")
        return self


EgressTo = Annotated[
    str,
    matching(
        r"(?:(?:\*\.)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,251}|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}",
        "a host and a port (sts.amazonaws.com:443, *.eu-west-1.amazonaws.com:443)",
    ),
]


class HostEnvironment(Closed):
    """An environment that this runner may change."""

    klass: Literal["protected", "sandbox"] = Field(alias="class", description="wins over environment.yaml")
    backend: Backend
    allowed_account_ids: list[AccountId] = Field(default=[], description="AWS accounts; none: any")
    max_destroy: Annotated[int, Field(ge=0)] | None = Field(default=None, description="no allowance goes beyond")
    rules: Rules = Field(default=[], description="what must be true of every plan; environment.yaml may only add to it")
    readable_by: list[Name] = Field(default=[], description="environments that may read its outputs")
    secrets: dict[Variable, Secret] = Field(default={})
    env: dict[Variable, str] = Field(default={}, description="variables for the engine and its providers")
    credentials: Credentials = Field(default_factory=Credentials)
    adopt: list[AdoptFrom] = Field(
        default=[], description="where states may be that entries adopt; nowhere, if not written"
    )
    warm: Literal["none", "plan"] = Field(
        default="plan", description="what its warm workers do, where the host has `warm`: plan what was merged"
    )
    egress: list[EgressTo] = Field(
        default=[],
        description="what its jobs may connect to, besides its backend and the endpoints that `env` names: host:port",
    )

    @model_validator(mode="after")
    def _nothing_wins(self) -> HostEnvironment:
        ours = [one for one in (self.credentials.plan, self.credentials.apply) if one and one.by_endpoint]
        if ours and (found := sorted(set(WINS) & self.env.keys())):
            said = {"variable": found[0], "kind": ours[0].kind}
            raise PydanticCustomError(
                "env", "{variable} in `env` would win over credentials by {kind}; remove it", said
            )
        return self

    @property
    def environment_class(self) -> EnvironmentClass:
        """The class as the model has it."""
        return EnvironmentClass(self.klass)


class Sandbox(Closed):
    """The jail that jobs run in."""

    tier: Literal["strict", "fallback", "task"] = Field(
        description="the least: the best that holds is taken, and below it the runner does not start"
    )
    first_user: Annotated[int, Field(ge=1000, le=2**31)] = Field(
        default=70_000,
        description="where the runner is root, jobs run as users of their own: this id and the 255 after it, which must be nobody's",
    )


class Warm(Closed):
    """Workers that have Terraform loaded already, and plan what most probably needs no change."""

    library: HostPath | None = Field(
        default=None, description="Terraform as a library; that of the extra `warm`, if not written"
    )
    version: Line = Field(description="of Terraform in it")
    sha256: Annotated[str, matching(r"(?:sha256:)?[0-9a-f]{64}", "a digest (64 hexadecimal digits)")]
    workers: Annotated[int, Field(ge=1, le=64)] = Field(default=2, description="at a time")
    jobs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=200, description="of one worker, until it is replaced"
    )
    age: Duration = Field(default=timedelta(hours=1), description="of a worker, until it is replaced")
    idle: Duration = Field(default=timedelta(minutes=10), description="after which a worker that nobody needs is ended")
    memory: Annotated[int, Field(ge=64, le=2**20)] = Field(
        default=2048,
        description="MiB of a worker and all that it started; after a job that left it with more, it is replaced",
    )
    own_providers: list[Line] = Field(
        default=[],
        description="sources (hashicorp/aws) of providers that each worker keeps running, besides itself; they must know `-debug`",
    )


class ProviderMirror(Closed):
    """A folder of providers in Terraform's mirror layout, read-only: nothing else is installed from then."""

    path: HostPath


class Providers(Closed):
    """How packages of providers are compared with the lock."""

    verify: Literal["once", "every_command"] | None = Field(
        default=None,
        description="once: by the runner, when they look different than before; every_command: by the engine as well, each time that it "
        "starts. With a sandbox once, without one every_command, if not written",
    )


class Task(Closed):
    """How this runner works where each job is a task of ECS: `reconciler runner task`."""

    spool: SpoolUrl | None = Field(
        default=None, description="where jobs are asked for; if not written, the command line says it"
    )
    region: Line | None = Field(default=None, description="of the spool; what the AWS SDKs find, if not written")
    endpoint: AwsEndpoint | None = Field(default=None, description="another address of S3, as of a VPC endpoint")
    ecs_endpoint: AwsEndpoint | None = Field(
        default=None,
        description="another address of ECS than the region's; it is asked whether a task that has a lock lives",
    )
    serve_until_idle: Duration | None = Field(
        default=None,
        description="for so long a task waits for a further job of its environment and operation; one job per task, if not written",
    )


class RunnerConfig(Closed):
    """runner.yaml"""

    installation: Installation = Field(default="reconciler", description="stands in the tags of every resource")
    environments_repo: EnvironmentsRepo
    catalog_repos: CatalogRepos = Field(default={})
    memory: Memory
    socket: HostPath | None = Field(default=None, description="runner.sock in the memory's folder, if not written")
    controller_uid: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="the user id of the controller; the runner's own, if not written"
    )
    work: HostPath | None = Field(default=None, description="for mirrors; a folder in the memory's, if not written")
    allow: list[Allow] = Field(description="what this runner does at all")
    engine: Annotated[
        Annotated[Literal["auto", "embedded"], Tag("<word>")] | Annotated[Engine, Tag("<mapping>")],
        Discriminator(word_or_mapping),
    ]
    provider_mirror: ProviderMirror | None = None
    providers: Providers = Field(default_factory=Providers)
    environments: dict[Name, HostEnvironment]
    audit: Audit | None = Field(default=None, description="where heads of the audit log are kept besides")
    least_room: Annotated[int, Field(ge=0, le=2**20)] = Field(
        default=64,
        description="MiB that must be free, besides four times the state, wherever a job writes: else it is not begun",
    )
    sandbox: Sandbox | None = Field(default=None, description="the jail that jobs run in; none, if not written")
    warm: Warm | None = Field(default=None, description="warm workers; none, if not written")
    task: Task = Field(default_factory=Task)

    @model_validator(mode="after")
    def _has_a_folder(self) -> RunnerConfig:
        if self.memory.s3 is not None and self.work is None:
            raise PydanticCustomError(
                "work",
                "memory.s3 needs a folder for what may be lost with the host: write `work`, outside of any other",
            )
        return self

    @model_validator(mode="after")
    def _keeps_the_mirror(self) -> RunnerConfig:
        if self.providers.verify == "once" and self.sandbox is None:
            raise PydanticCustomError(
                "providers",
                "providers.verify: without `sandbox` a job could write to the mirror: write `every_command`, or a sandbox",
            )
        return self

    @property
    def verifies_once(self) -> bool:
        """Whether a package that the runner has compared with the lock is started without being read again."""
        return self.sandbox is not None and self.providers.verify != "every_command"

    @property
    def memory_path(self) -> Path:
        """The folder of the runner's memory; with a memory in S3 of what may be lost with the host."""
        return given(self.memory.path or self.work)

    @property
    def socket_path(self) -> Path:
        """Where the runner listens."""
        return self.socket or self.memory_path / "runner.sock"

    @property
    def work_path(self) -> Path:
        """The folder for mirrors, pinned trees and jobs."""
        return self.work or self.memory_path / "work"

    @property
    def provider_mirror_path(self) -> Path | None:
        """The folder of providers, if there is one."""
        return self.provider_mirror.path if self.provider_mirror else None

    @property
    def rules(self) -> tuple[Allow, ...]:
        """The allow-list."""
        return tuple(self.allow)
