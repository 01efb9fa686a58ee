"""reconciler.yaml: the controller's host."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from reconciler.config.fargate import FargateExecutor
from reconciler.config.fields import (
    AwsEndpoint,
    CatalogRepos,
    EnvironmentsRepo,
    HeaderName,
    HostName,
    HostPath,
    Installation,
    Listen,
    Network,
    Positive,
    exactly_one,
    given,
)
from reconciler.config.login import Login
from reconciler.config.notify import Sink
from reconciler.config.outofband import OutOfBand
from reconciler.config.trigger import LOOPBACK, Issued, Tls, Trigger
from reconciler.desired.shape import Closed, Duration, Line, matching

LONGEST_LEASE = timedelta(minutes=10)
LONGEST_SESSION = timedelta(hours=12)  # of work by hand, if a host lets it be so long


def _long_enough(value: timedelta) -> timedelta:
    if value > LONGEST_LEASE:
        raise PydanticCustomError("lease", "a lease lasts 10m at most: for so long nobody leads when a host goes down")
    return value


def _bounded(value: timedelta) -> timedelta:
    if value > LONGEST_SESSION:
        raise PydanticCustomError("break_glass", "a break-glass session lasts 12h at most; a further one may be opened")
    return value


Session = Annotated[Duration, AfterValidator(_bounded)]
Lease = Annotated[Duration, AfterValidator(_long_enough)]


class DynamoDb(Closed):
    """A table, which an admin made by deploy/dynamodb. Credentials are those that the AWS SDKs find on the host."""

    table: Annotated[str, matching(r"[A-Za-z0-9_.-]{3,255}", "a table's name")]
    region: Line | None = Field(default=None, description="where it is; what the AWS SDKs find, if not written")
    endpoint: AwsEndpoint | None = Field(
        default=None, description="another address than the region's, as of a VPC endpoint"
    )
    folder: HostPath = Field(
        default=Path("/var/lib/reconciler"),
        description="of this host, for what can be fetched or proven again, and for the admin socket",
    )

    @property
    def place(self) -> str:
        """How it is named in messages."""
        return f"dynamodb:{self.table}"


class Store(Closed):
    """Where the controller's journal is."""

    path: HostPath | None = None
    lease: Lease = Field(
        default=timedelta(seconds=15),
        description="how long a standby waits for a leader that is silent before it takes over",
    )
    dynamodb: DynamoDb | None = Field(default=None, description="a table instead of a file")

    @model_validator(mode="after")
    def _one(self) -> Store:
        exactly_one(self, "path", "dynamodb")
        return self


MiB = Annotated[int, Field(ge=64, le=2**24)]


class LocalExecutor(Closed):
    """The runner of this host."""

    socket: HostPath = Field(description="where it listens")
    workers: Positive = Field(default=4, description="jobs that compute at a time; one that waits for a cloud is none")
    per_environment: Positive = Field(default=2, description="of them in one environment")
    memory: MiB | None = Field(
        default=None,
        description="MiB for all jobs that exist; three quarters of what the runner's host has, if not written",
    )
    job_memory: MiB = Field(
        default=1024, description="MiB that a job is thought to take, until one of its unit has ended and it is known"
    )
    per_account: Positive | None = Field(
        default=None,
        description="jobs at a time in one account of a cloud (allowed_account_ids in runner.yaml); if not written, as many as there "
        "is room for, until it says that it is asked too often",
    )


class Executor(Closed):
    """Where jobs run."""

    local: LocalExecutor | None = None
    fargate: FargateExecutor | None = Field(default=None, description="each job a task of ECS")

    @model_validator(mode="after")
    def _one(self) -> Executor:
        exactly_one(self, "local", "fargate")
        return self


class Proxy(Closed):
    """A reverse proxy that knows who asks, and names them in a header. Its word counts from its own addresses only."""

    addresses: list[Network] = Field(
        min_length=1, max_length=100, description="of the proxy: an address, or a network (10.0.0.0/28)"
    )
    user_header: HeaderName = Field(
        default="x-forwarded-user", description="where it names the user; it must replace what a client sends there"
    )
    users: list[Line] = Field(
        default=[], max_length=10_000, description="who may look; if not written, everybody whom the proxy names"
    )


class Http(Closed):
    """The page, the API and the metrics: read-only."""

    listen: Listen = "127.0.0.1:8080"
    hosts: list[HostName] = Field(
        default=[], max_length=100, description="further names under which it is asked, as the proxy passes them on"
    )
    tls: Tls | None = Field(default=None, description="may be missing only on the loopback")
    proxy: Proxy | None = Field(
        default=None, description="who knows who asks; it, oidc or tokens may be missing only on the loopback"
    )
    oidc: Login | None = Field(default=None, description="logs people in; not together with proxy")
    tokens: list[Issued] = Field(
        default=[], max_length=100, description="programs that may read with a token; not together with proxy"
    )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @model_validator(mode="after")
    def _known_to_somebody(self) -> Http:
        asks = bool(self.oidc or self.tokens)
        if self.proxy is not None and asks:
            raise PydanticCustomError("proxy", "proxy says who asks, and so do oidc and tokens; write one or the other")
        if self.tls is not None and self.proxy is None and not asks:
            raise PydanticCustomError(
                "proxy", "tls says nothing of who asks; add oidc, tokens or proxy, which do, or remove tls"
            )
        if self.address[0] not in LOOPBACK:
            self._safe_from_elsewhere(asks)
        return self

    def _safe_from_elsewhere(self, asks: bool) -> None:
        what = {"listen": self.listen}
        if self.proxy is None and not asks:
            raise PydanticCustomError(
                "proxy",
                "{listen} is reached from elsewhere, and nobody there is asked who they are; add oidc, tokens or proxy, or "
                "listen on 127.0.0.1",
                what,
            )
        if self.tls is None and asks:
            raise PydanticCustomError(
                "tls", "{listen} is reached from elsewhere, where sessions could be read; add tls", what
            )
        if self.proxy is not None and (self.tls is None or self.tls.client_ca_file is None):
            raise PydanticCustomError(
                "tls",
                "{listen} is reached from elsewhere; add tls with client_ca_file, by which the proxy proves that it is the proxy",
                what,
            )

    @model_validator(mode="after")
    def _told_apart(self) -> Http:
        if self.oidc is None:
            return self
        for one in self.tokens:
            if (one.issuer, one.audience) == (self.oidc.issuer, self.oidc.client_id):
                raise PydanticCustomError(
                    "tokens",
                    "tokens.audience is oidc.client_id: what logs a person in would count as a program's; write an audience "
                    "of its own",
                )
        return self


class Admin(Closed):
    """Where the command line talks to the daemon."""

    socket: HostPath | None = Field(default=None, description="admin.sock beside the store, if not written")
    users: list[Line] = Field(default=["root"], description="users of this host that may pause and resume")
    break_glass: Session = Field(
        default=timedelta(hours=1), description="how long one break-glass session may last; 12h at most"
    )


class Reports(Closed):
    """What is said at the forge: one comment on each open pull request, and statuses of commits."""

    token_file: HostPath = Field(
        description="a file with a token that may comment and set statuses; not the one of `forge`, which only reads"
    )
    comments: bool = Field(default=True, description="one on each open pull request, edited in place")
    statuses: bool = Field(default=True, description="of the heads of pull requests, and of merge commits")
    page: Line | None = Field(default=None, description="where people find the status page: statuses link there")

    @field_validator("page")
    @classmethod
    def _https(cls, page: str | None) -> str | None:
        if page is not None and not re.fullmatch(r"https?://[^\s\"<>]{1,500}", page):
            raise PydanticCustomError("page", "no address of a page; write https://reconciler.example.com")
        return page


class ControllerConfig(Closed):
    """reconciler.yaml"""

    installation: Installation = Field(default="reconciler", description="stands in the tags of every resource")
    environments_repo: EnvironmentsRepo
    catalog_repos: CatalogRepos = Field(default={})
    store: Store
    executor: Executor
    work: HostPath | None = Field(default=None, description="for mirrors; a folder beside the store, if not written")
    http: Http = Field(default_factory=Http)
    trigger: Trigger | None = Field(default=None, description="for CI servers; nobody listens, if not written")
    reports: Reports | None = Field(default=None, description="nothing is said at the forge, if not written")
    notify: list[Sink] = Field(
        default=[],
        max_length=20,
        description="who is told what happened: webhooks, topics of SNS, what Apprise reaches",
    )
    out_of_band: OutOfBand | None = Field(
        default=None, description="nobody looks who else writes in the accounts, if not written"
    )
    admin: Admin = Field(default_factory=Admin)

    @field_validator("notify")
    @classmethod
    def _names(cls, notify: list[Sink]) -> list[Sink]:
        names = [one.name for one in notify]
        if len(set(names)) < len(names):
            raise PydanticCustomError("notify", "two of them have one name; each needs its own")
        return notify

    @model_validator(mode="after")
    def _reported_where(self) -> ControllerConfig:
        if self.reports is not None and self.environments_repo.forge is None:
            raise PydanticCustomError(
                "reports", "reports needs environments_repo.forge: write which forge, or remove it"
            )
        return self

    @property
    def store_path(self) -> Path:
        """The journal's file; only where it is in one."""
        return given(self.store.path)

    @property
    def store_place(self) -> str:
        """Where the journal is, for messages."""
        return self.store.dynamodb.place if self.store.dynamodb is not None else str(self.store_path)

    @property
    def folder(self) -> Path:
        """What this host keeps of its own: beside the journal's file, where it is in one."""
        return self.store.dynamodb.folder if self.store.dynamodb is not None else self.store_path.parent

    @property
    def lease_seconds(self) -> float:
        """How long the right to lead lasts without being renewed."""
        return self.store.lease.total_seconds()

    @property
    def work_path(self) -> Path:
        """The folder for mirrors and pinned trees."""
        return self.work or self.folder / "work"

    @property
    def admin_socket(self) -> Path:
        """Where the daemon listens for the command line."""
        return self.admin.socket or self.folder / "admin.sock"

    @property
    def local(self) -> LocalExecutor:
        """The runner of this host."""
        return given(self.executor.local)
