"""The AWS SDK of this process, signing with keys that are renewed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.runner.access.keys import Keys, Renewing


def session_of(credentials: Mapping[str, str], keys: Renewing | None) -> Any:
    """A boto3 session that signs with `keys`; else with `credentials`, the variables that the AWS SDKs read; with neither,
    boto3 looks for its own.
    """
    if keys is not None:
        return session_with(keys)
    import boto3

    return boto3.Session(
        aws_access_key_id=credentials.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=credentials.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=credentials.get("AWS_SESSION_TOKEN"),
    )


def session_with(keys: Renewing) -> Any:
    """A boto3 session whose clients sign with these keys, and with nothing else that is on the host."""
    import boto3
    from botocore.credentials import CredentialResolver
    from botocore.session import Session

    session = Session()
    session.register_component("credential_provider", CredentialResolver([_Provider(keys)]))
    return boto3.Session(botocore_session=session)


@dataclass(frozen=True, slots=True)
class _Provider:
    """What the SDK asks for credentials."""

    keys: Renewing
    METHOD: str = "reconciler"
    CANONICAL_NAME: str = "reconciler"

    def load(self) -> Any:
        """Credentials, which the SDK asks `keys` to renew whenever it thinks that they end soon."""
        from botocore.credentials import Credentials, RefreshableCredentials

        first = self.keys.current()
        if first.expires is None:
            return Credentials(first.access_key, first.secret_key, first.token)
        return RefreshableCredentials.create_from_metadata(
            _said(first), refresh_using=lambda: _said(self.keys.current()), method=self.METHOD
        )


def _said(keys: Keys) -> dict[str, str | None]:
    ends = keys.expires.isoformat() if keys.expires else None
    return {"access_key": keys.access_key, "secret_key": keys.secret_key, "token": keys.token, "expiry_time": ends}
