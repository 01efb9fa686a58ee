"""runner.yaml, `credentials`: where the jobs of an environment get theirs."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from reconciler.config.fields import HostPath, exactly_one, word_or_mapping
from reconciler.desired.shape import Closed, Duration, Line, Variable, matching

SHORTEST, LONGEST = timedelta(minutes=15), timedelta(hours=12)  # what STS gives
# What an AWS SDK takes before it asks an endpoint for credentials, and what names that endpoint.
WINS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)

RoleArn = Annotated[
    str,
    matching(
        r"arn:aws[a-z-]{0,20}:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,576}",
        "a role (arn:aws:iam::111111111111:role/reconciler-plan)",
    ),
]


def _life(value: timedelta) -> timedelta:
    if not SHORTEST <= value <= LONGEST:
        raise PydanticCustomError("duration", "a session lasts from 15m to 12h; write 1h")
    return value


Life = Annotated[Duration, AfterValidator(_life)]


def _program(words: list[str]) -> list[str]:
    if not words or not words[0].startswith("/"):
        raise PydanticCustomError("command", "write the program by its whole path, and each of its words by itself")
    return words


class WebIdentity(Closed):
    """A role for which a token of another identity provider is exchanged, as in Kubernetes."""

    role: RoleArn
    token_file: HostPath = Field(description="read anew at every exchange")
    duration: Life = Field(default=timedelta(hours=1), description="of a session; renewed while a job needs it")
    region: Line | None = Field(default=None, description="of STS; the backend's, if not written")


_BASES = ("static_file", "profile", "web_identity", "command", "environment")


class CredentialSource(Closed):
    """Where credentials are from that need no others."""

    _kinds: ClassVar[tuple[str, ...]] = _BASES

    static_file: HostPath | None = Field(default=None, description="a file of NAME=value lines")
    profile: Line | None = Field(default=None, description="a profile of the AWS files of the runner's user")
    web_identity: WebIdentity | None = None
    command: Annotated[list[Line], AfterValidator(_program)] | None = Field(
        default=None,
        description="a program that prints NAME=value lines, or keys as the AWS files' credential_process does",
    )
    environment: dict[Variable, Variable] | None = Field(
        default=None, description="variables for the engine, and which of the runner's own each has its value from"
    )

    @model_validator(mode="after")
    def _one(self) -> CredentialSource:
        exactly_one(self, *self._kinds)
        return self

    @property
    def kind(self) -> str:
        """The one field that is written."""
        return next(kind for kind in self._kinds if kind in self.model_fields_set)


class AssumeRole(Closed):
    """A role that is assumed per job, with a session of its own."""

    role: RoleArn
    source: CredentialSource | None = Field(
        default=None, description="who assumes it; the runner's own identity as the AWS SDK finds it, if not written"
    )
    external_id: Line | None = None
    duration: Life = Field(default=timedelta(hours=1), description="of a session; renewed while a job needs it")
    region: Line | None = Field(default=None, description="of STS; the backend's, if not written")


def _spelled(value: str | AssumeRole) -> AssumeRole:
    return AssumeRole(role=value) if isinstance(value, str) else value


class Credential(CredentialSource):
    """How one operation gets its credentials."""

    _kinds: ClassVar[tuple[str, ...]] = ("static_file", "assume_role", *_BASES[1:])

    assume_role: (
        Annotated[
            Annotated[RoleArn, Tag("<word>")] | Annotated[AssumeRole, Tag("<mapping>")],
            Discriminator(word_or_mapping),
        ]
        | None
    ) = Field(default=None, description="a role's ARN, or that with who assumes it and for how long")

    @property
    def role(self) -> AssumeRole | None:
        """The role that is to be assumed, however it is written."""
        return None if self.assume_role is None else _spelled(self.assume_role)

    @property
    def by_endpoint(self) -> bool:
        """Whether AWS keys come from it by the endpoint, and variables that name others would win over them."""
        return self.kind in ("assume_role", "profile", "web_identity", "command")


class Credentials(Closed):
    """How plans and applies get their credentials."""

    plan: Credential | None = None
    apply: Credential | None = None
