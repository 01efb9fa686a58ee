"""Sessions of a role, by AWS STS: named after the job, tagged with it, and no wider than their policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from reconciler.errors import HeldError, UnitError
from reconciler.model import Commit, JobId, UnitId
from reconciler.runner.access.keys import Keys

# What AWS says of a caller or a role that is not as it must be. Everything else may pass by itself.
REFUSALS = frozenset({
    "AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId",
    "InvalidIdentityToken", "MalformedPolicyDocument", "PackedPolicyTooLarge", "RegionDisabledException",
    "SignatureDoesNotMatch", "UnrecognizedClientException", "ValidationError", "IDPRejectedClaim",
})  # fmt: skip
TELLING = frozenset({"AccessDenied", "ValidationError", "ExpiredToken", "InvalidIdentityToken"})  # and hold no secret
MOST_TOLD = 400  # characters
LONGEST = 64  # characters of a session's name, and of who is behind it


@dataclass(frozen=True, slots=True)
class Errand:
    """Whom the credentials are for. What nobody knows yet is None: then a session does not say it."""

    unit: UnitId | None = None
    commit: Commit | None = None
    job: JobId | None = None


NOBODY = Errand()


@dataclass(frozen=True, slots=True)
class Place:
    """Where STS is, and where in runner.yaml the role stands."""

    where: str
    region: str
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A session that is wanted. `operation`: of a job, or what else the runner wants it for."""

    role: str
    life: timedelta
    policy: str | None
    errand: Errand
    operation: str
    installation: str

    @property
    def name(self) -> str:
        """It stands in every line of CloudTrail that the session causes."""
        return f"reconciler-{self.errand.job or str(self.operation)}"[:LONGEST]

    @property
    def identity(self) -> str:
        """Who is behind it: the installation, and the commit that it does this for. No role assumed later hides it."""
        commit = (self.errand.commit or str(self.operation))[:12]
        return f"{self.installation[: LONGEST - 1 - len(commit)]}@{commit}"

    @property
    def tags(self) -> list[dict[str, str]]:
        """For the conditions of policies, by the same names as on resources."""
        said = {
            "installation": self.installation,
            "operation": str(self.operation),
            "unit": self.errand.unit,
            "commit": self.errand.commit,
            "job": self.errand.job,
        }
        return [{"Key": f"reconciler:{name}", "Value": value} for name, value in said.items() if value]


def assume(place: Place, wanted: Wanted, base: Keys | None, external_id: str | None) -> Keys:
    """A new session. `base` assumes the role; None: whoever the AWS SDK finds that the runner is.

    Raises:
        HeldError: "CredentialsRefused", "CredentialsMissing". UnitError: "CredentialsUnavailable".
    """
    more = {"ExternalId": external_id} if external_id else {}
    return _asked(
        place,
        wanted.role,
        lambda: _client(place, base).assume_role(
            **_common(wanted), **more, Tags=wanted.tags, SourceIdentity=wanted.identity
        ),
        "let its trust policy allow the runner sts:AssumeRole, sts:TagSession and sts:SetSourceIdentity",
    )


def exchange(place: Place, wanted: Wanted, token: str) -> Keys:
    """A new session for a token of another identity provider, which says itself who it is for and has what tags.

    Raises:
        HeldError, UnitError: see `assume`.
    """
    return _asked(
        place,
        wanted.role,
        lambda: _unsigned(place).assume_role_with_web_identity(**_common(wanted), WebIdentityToken=token),
        "let its trust policy allow the token's issuer and subject sts:AssumeRoleWithWebIdentity",
    )


def _common(wanted: Wanted) -> dict[str, Any]:
    policy = {"Policy": wanted.policy} if wanted.policy else {}
    seconds = int(wanted.life.total_seconds())
    return {"RoleArn": wanted.role, "RoleSessionName": wanted.name, "DurationSeconds": seconds, **policy}


def _asked(place: Place, role: str, ask: Callable[[], Any], remedy: str) -> Keys:
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        found = ask()["Credentials"]
    except ClientError as error:
        raise _refused(place, role, error.response.get("Error", {}), remedy) from None
    except (NoCredentialsError, PartialCredentialsError):
        how = "write `source` beside the role, or give the runner's host a role or keys that the AWS SDK finds"
        what = f"{place.where}: nobody is there to assume {role}: the runner has no AWS credentials of its own"
        raise HeldError("CredentialsMissing", f"{what}; {how}.") from None
    except BotoCoreError as error:
        what = f"{place.where}: STS did not answer ({type(error).__name__})"
        how = f"let the runner's host reach {place.endpoint or f'sts.{place.region}.amazonaws.com'}"
        raise UnitError(
            "CredentialsUnavailable", f"{what}; it is tried again by itself; {how}.", transient=True
        ) from None
    return Keys(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], found["Expiration"])


def _refused(place: Place, role: str, answer: dict[str, Any], remedy: str) -> UnitError:
    """AWS explains a signature that does not fit with all that was signed, a token too: only what is known to be harmless is told."""
    code = str(answer.get("Code", "an answer without a code"))
    why = f": {answer.get('Message', '')}"[:MOST_TOLD] if code in TELLING else ""
    what = f"{place.where}: AWS gives no session of {role} ({code}{why})"
    if code in REFUSALS:
        return HeldError("CredentialsRefused", f"{what}; {remedy}.")
    return UnitError("CredentialsUnavailable", f"{what}; it is tried again by itself.", transient=True)


def _client(place: Place, base: Keys | None) -> Any:
    from botocore.session import Session

    session = Session()
    if base is not None:
        session.set_credentials(base.access_key, base.secret_key, base.token)
    return session.create_client("sts", region_name=place.region, endpoint_url=place.endpoint, config=_config())


def _unsigned(place: Place) -> Any:
    from botocore import UNSIGNED
    from botocore.session import Session

    config = _config(signature_version=UNSIGNED)
    return Session().create_client("sts", region_name=place.region, endpoint_url=place.endpoint, config=config)


def _config(**more: Any) -> Any:
    from botocore.config import Config

    return Config(connect_timeout=10, read_timeout=20, retries={"max_attempts": 3, "mode": "standard"}, **more)
