"""The parts that both of the host's files share: small types, and where repositories are."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from reconciler.config.address import has_secret, protocol_of
from reconciler.desired.shape import MODULE_NAME, SEMVER, Closed, Duration, GitRef, Line, Name, Sha, matching
from reconciler.errors import ConfigError
from reconciler.vetting import LIFTABLE, RULES, Waiver

T = TypeVar("T")


def _path(value: object, info: ValidationInfo) -> Path:
    """A path of the host, relative ones from the folder of the file."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise PydanticCustomError("path", "expected a path; write it as a string")
    folder: Path = (info.context or {}).get("folder", Path.cwd())
    return Path(os.path.abspath(folder / value))  # noqa: PTH100 - without following links


def _network(text: str) -> str:
    """An address or a network of the Internet's, as it is."""
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise PydanticCustomError(
            "network", "no address and no network; write 10.0.0.7 or 10.0.0.0/28, whose last bits are 0"
        ) from error


HostPath = Annotated[Path, BeforeValidator(_path), PlainSerializer(str), WithJsonSchema({"type": "string"})]
Listen = Annotated[str, matching(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}", "an address (127.0.0.1:8080)")]
HostName = Annotated[
    str, matching(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})", "a name without a port (gitops.example.com)")
]
HeaderName = Annotated[str, matching(r"[A-Za-z0-9-]{1,100}", "the name of a header (x-forwarded-user)")]
Network = Annotated[str, AfterValidator(_network), WithJsonSchema({"type": "string"})]
Positive = Annotated[int, Field(ge=1, le=10_000)]
Installation = Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", "a name (letters, digits, _, . and -)")]
Glob = Annotated[str, matching(r"environments/[A-Za-z0-9_./*?-]+", "a pattern of paths (environments/prod/**)")]
ModuleGlob = Annotated[str, matching(r"[A-Za-z0-9_./*?-]+", "a pattern of modules (acme/*)")]
SpoolUrl = Annotated[
    str,
    matching(
        r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9_.-]{1,100}){0,8}/?",
        "a folder of S3 (s3://acme-reconciler-spool/prod)",
    ),
]
AccountId = Annotated[str, matching(r"[0-9]{12}", "an AWS account id (12 digits in quotes)")]


def https_or_here(address: str | None) -> str | None:
    """Another address of an AWS service. Raises PydanticCustomError."""
    if address is not None and not re.fullmatch(
        r"https://[^\s/?#@]+/?|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?/?", address
    ):
        raise PydanticCustomError(
            "endpoint",
            "no address of a service; write https://HOST (http only to this host itself), without path and user",
        )
    return address


AwsEndpoint = Annotated[Line, AfterValidator(https_or_here)]


def word_or_mapping(value: object) -> str:
    return "<word>" if isinstance(value, str) else "<mapping>"


def exactly_one(model: BaseModel, *names: str) -> None:
    """Raises PydanticCustomError unless one of the fields is written."""
    if len(model.model_fields_set & set(names)) != 1:
        raise PydanticCustomError("one_of", "write exactly one of {names}", {"names": ", ".join(names)})


class Repository(Closed):
    """Where a git repository is, and the host's files that open it."""

    url: Line = Field(description="https://, ssh:// or user@host:path; with allow_file also file:// or a path")
    branch: GitRef = Field(default="main", description="the protected branch")
    ssh_key: HostPath | None = Field(default=None, description="a private key for ssh")
    known_hosts: HostPath | None = Field(default=None, description="the keys that the server may have")
    ca_file: HostPath | None = Field(default=None, description="the authorities for https, instead of the system's")
    token_file: HostPath | None = Field(default=None, description="a file with a token, or user:token, for https")
    allow_file: bool = Field(default=False, description="may the repository be a folder of this host?")

    @field_validator("url")
    @classmethod
    def _known_kind(cls, url: str) -> str:
        if protocol_of(url) is None:
            raise PydanticCustomError("url", "no repository's address; write https://, ssh:// or user@host:path")
        if has_secret(url):
            raise PydanticCustomError("url", "an address holds no user or password; put the token into token_file")
        return url

    @model_validator(mode="after")
    def _file_allowed(self) -> Repository:
        if self.url.startswith(("/", "file://")) and not self.allow_file:
            raise PydanticCustomError("url", "url is a folder of this host; say allow_file: true if that is meant")
        return self


class Signatures(Closed):
    """Who may sign commits. These files are read anew at every use."""

    allowed_signers: HostPath | None = Field(
        default=None, description="people's SSH keys, as ssh-keygen(1) has it; `# version: N` never goes back"
    )
    revoked_keys: HostPath | None = Field(
        default=None, description="keys whose signatures no longer count, not even those that counted: keys or a KRL"
    )
    pgp_keys: HostPath | None = Field(
        default=None, description="public PGP keys of the forge, which signs what its buttons make; needs `forge`"
    )

    @model_validator(mode="after")
    def _anybody(self) -> Signatures:
        if self.allowed_signers is None and self.pgp_keys is None:
            raise PydanticCustomError(
                "signatures", "nobody may sign; write allowed_signers, or pgp_keys for what the forge signs"
            )
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that are configured."""
        return tuple(path for path in (self.allowed_signers, self.revoked_keys, self.pgp_keys) if path)


_FORGE_URLS = {"github": "https://api.github.com", "gitlab": "https://gitlab.com"}
_FORGE_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
_FORGE_URL = re.compile(r"https://[^\s/?#@]+(?:/[^\s?#@]*)?|http://(?:127\.0\.0\.1|localhost)(?::[0-9]+)?/?")


class Forge(Closed):
    """Where pull requests are merged."""

    kind: Literal["github", "gitlab", "gitea"] = Field(description="gitea: Forgejo too")
    repository: Line = Field(description="owner/name; at GitLab group/name or group/subgroup/name")
    token_file: HostPath = Field(description="a file with a token that may read the repository; see operations.md")
    url: Line | None = Field(
        default=None, description="of another server than github.com or gitlab.com; GitHub Enterprise: with /api/v3"
    )
    ca_file: HostPath | None = Field(default=None, description="the authorities for https, instead of the system's")
    min_approvals: Positive = Field(default=1, description="people with write access, none of them the author")

    @property
    def address(self) -> str:
        """Where the API is, without a slash at its end."""
        return (self.url or _FORGE_URLS[self.kind]).rstrip("/")

    @field_validator("url")
    @classmethod
    def _https(cls, url: str | None) -> str | None:
        if url is not None and not _FORGE_URL.fullmatch(url):
            raise PydanticCustomError("url", "no address of a forge; write https://host, without user and password")
        return url

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Forge:
        names = self.repository.split("/")
        plain = all(re.fullmatch(_FORGE_NAME, name) and not name.endswith(".git") for name in names)
        if not plain or len(names) < 2 or len(names) > (20 if self.kind == "gitlab" else 2):
            form = "group/name or group/subgroup/name" if self.kind == "gitlab" else "owner/name"
            raise PydanticCustomError(
                "repository", "repository is not of its kind's form; write {form}", {"form": form}
            )
        if self.url is None and self.kind not in _FORGE_URLS:
            raise PydanticCustomError("url", "url is missing; write where your server is (https://git.example.com)")
        return self


class EnvironmentsRepo(Repository):
    """The protected repository of environments."""

    genesis: Sha | None = Field(default=None, description="the commit where trust starts")
    poll_interval: Duration = timedelta(seconds=30)
    signatures: Annotated[
        Annotated[Literal["off"], Tag("<word>")] | Annotated[Signatures, Tag("<mapping>")],
        Discriminator(word_or_mapping),
    ]
    forge: Forge | None = Field(default=None, description="asked by which approved pull request each commit came")

    @model_validator(mode="after")
    def _starts_somewhere(self) -> EnvironmentsRepo:
        if self.genesis is None and self.signatures != "off":
            raise PydanticCustomError("genesis", "genesis is missing; add the commit where trust starts")
        if self.signatures != "off" and self.signatures.pgp_keys and self.forge is None:
            raise PydanticCustomError(
                "pgp_keys",
                "pgp_keys needs `forge`: the forge's signature only proves that the forge made a commit; add `forge`, "
                "which says who approved it, or let people sign with allowed_signers",
            )
        return self


def _known_rule(rule: str) -> str:
    if rule not in RULES:
        raise PydanticCustomError(
            "rule", "no rule of the audit has this name; there are {rules}", {"rules": ", ".join(LIFTABLE)}
        )
    if rule not in LIFTABLE:
        raise PydanticCustomError(
            "rule", "no exception lifts this rule: without it nothing else would hold; mend the module"
        )
    return rule


class VettingException(Closed):
    """One rule of the audit that does not count for one version of one module."""

    module: Annotated[str, matching(f"{MODULE_NAME}@{SEMVER}", "<catalog>/<module>@<version>, one exact version")]
    rule: Annotated[str, AfterValidator(_known_rule), WithJsonSchema({"type": "string", "enum": list(LIFTABLE)})]
    path: Line | None = Field(default=None, description="the one file of the catalog; every file, if not written")
    reason: Line = Field(description="who looked at it, and why it is harmless; shown by `runner describe`")

    @property
    def waiver(self) -> Waiver:
        """As the audit takes it."""
        module, _, version = self.module.partition("@")
        return Waiver(module, version, self.rule, self.reason, self.path)


class CatalogRepo(Repository):
    """A repository of vetted modules."""

    tags: Line = Field(default="v*", description="the tags that are releases")
    allowed_signers: HostPath | None = Field(
        default=None, description="who may sign releases; if written, every pinned tag must be signed by one of them"
    )
    revoked_keys: HostPath | None = Field(
        default=None, description="keys whose signatures of tags no longer count, not even those that counted"
    )
    allow_providers: list[Line] = Field(default=[], description="the providers that its modules may use; none: any")
    exceptions: list[VettingException] = Field(default=[], description="what the audit of its modules lets pass")

    @property
    def waivers(self) -> tuple[Waiver, ...]:
        """The exceptions as the audit takes them."""
        return tuple(one.waiver for one in self.exceptions)

    @model_validator(mode="after")
    def _revokes_what_is_allowed(self) -> CatalogRepo:
        if self.revoked_keys is not None and self.allowed_signers is None:
            raise PydanticCustomError("revoked_keys", "revoked_keys without allowed_signers says nothing; write both")
        return self


def _own_exceptions(repositories: dict[str, CatalogRepo]) -> dict[str, CatalogRepo]:
    for name, repository in repositories.items():
        for one in repository.exceptions:
            if not one.module.startswith(f"{name}/"):
                what = {"module": one.module, "catalog": name}
                raise PydanticCustomError(
                    "exception", "{module} is no module of the catalog {catalog}; move the exception", what
                )
    return repositories


CatalogRepos = Annotated[dict[Name, CatalogRepo], AfterValidator(_own_exceptions)]


def given(value: T | None) -> T:
    """The value of the alternative that this needs. Raises ConfigError where another one is written."""
    if value is None:
        raise ConfigError("another alternative is configured than the one that this needs; see docs/formats.md")
    return value
