"""Secrets that AWS keeps, in Secrets Manager or as parameters of Systems Manager: read by the job that needs them, kept nowhere."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from reconciler.config.runner import Secret
from reconciler.errors import HeldError, UnitError
from reconciler.runner.access.keys import Renewing
from reconciler.runner.access.sdk import session_of
from reconciler.runner.credentials import MOST

UNAVAILABLE = "SecretUnavailable"  # what may pass by itself
SECONDS = 30.0  # for one secret, whatever is in the way
PATIENCE = (5, 10)  # seconds to connect, and between two signs of life
TRIES = 3
LARGEST = 1 << 19  # bytes of an answer: a value of MOST, however JSON writes it
ARN = re.compile(r"arn:[a-z-]{3,24}:(?:secretsmanager|ssm):([a-z0-9-]{1,32}):")
ENDPOINTS = {"secretsmanager": "AWS_ENDPOINT_URL_SECRETS_MANAGER", "ssm": "AWS_ENDPOINT_URL_SSM"}
# What AWS says of a secret that is not there, or not as it must be.
MISSING = {
    "ResourceNotFoundException": "there is no such secret",
    "ParameterNotFound": "there is no such parameter",
    "ParameterVersionNotFound": "there is no such version of the parameter",
    "InvalidRequestException": "the secret is being deleted, or has no current version",
    "InvalidParameterException": "nothing can have that name",
    "ValidationException": "nothing can have that name",
}
REFUSED = {
    "AccessDenied": "the job's credentials may not read it",
    "AccessDeniedException": "the job's credentials may not read it",
    "UnrecognizedClientException": "AWS does not know the job's credentials",
    "InvalidClientTokenId": "AWS does not know the job's credentials",
    "InvalidSignatureException": "AWS does not accept the job's credentials",
    "DecryptionFailure": "the key that it is encrypted with cannot be used",
    "InvalidKeyId": "the key that it is encrypted with cannot be used",
}
NONSENSE = (
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)  # of botocore's parser, which checks no types
CODE = re.compile(r"[A-Za-z0-9.:_-]{1,64}")
LATER = (
    "nothing is planned without it, and it is tried again by itself; look at the region, the endpoint and the network"
)


class _TooLongError(Exception):
    """An answer that no secret needs."""


@dataclass(frozen=True, slots=True)
class Vault:
    """AWS as one environment's jobs find it. `keys` or `variables` sign; `region` is where it is, if nothing else says it."""

    keys: Renewing | None
    variables: Mapping[str, str] = field(repr=False)
    region: str | None

    def read(self, secret: Secret, what: str) -> str:
        """The current value, exactly as it is stored. `what` says whose it is.

        Raises:
            HeldError: "SecretMissing", "SecretRefused", "SecretUnavailable"; or why there are no credentials.
            UnitError: there are no credentials now.
        """
        place, name = ("secretsmanager", secret.secretsmanager) if secret.secretsmanager else ("ssm", secret.ssm)
        where, said = f"{what}: {place}: {name}", str(name)
        region = self._region(said, where)
        value = _in_time(lambda: self._answer(place, said, region, where), where)
        if not isinstance(value, str):
            raise _missing(where, "its value is binary; store a text (SecretString)")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise _missing(where, "its value is no valid text; store another") from None
        if size > MOST:
            raise _missing(where, f"its value is longer than {MOST} bytes; store less")
        return value

    def _region(self, name: str, where: str) -> str:
        """Where it is: as its ARN says, or where the environment's programs would look."""
        arn, variables = ARN.match(name), self.variables
        said = arn[1] if arn else variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION")
        found = said or self.region
        if found is None:
            raise _missing(where, "no region is known; write its ARN, or AWS_REGION in the environment's `env`")
        return found

    def _answer(self, place: str, name: str, region: str, where: str) -> object:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

        try:
            return _asked(self._client(place, region), place, name)
        except UnitError as error:  # there are no credentials; whose, it says itself
            raise type(error)(error.reason, f"{where}: {error}", transient=error.transient) from None
        except _TooLongError:
            raise _missing(where, f"AWS answers with more than {LARGEST} bytes; store less") from None
        except ClientError as error:
            raise _refusal(where, str(error.response.get("Error", {}).get("Code"))) from None
        except ParamValidationError:
            raise _missing(where, "nothing can have that name; correct it in runner.yaml") from None
        except NoCredentialsError:
            how = "write `credentials` for the environment in runner.yaml"
            raise HeldError("CredentialsMissing", f"{where}: the job has no AWS credentials; {how}.") from None
        except BotoCoreError as error:
            raise _unavailable(where, f"AWS does not answer ({type(error).__name__})") from None
        except NONSENSE:
            raise _unavailable(where, "what answers there is not AWS") from None

    def _client(self, place: str, region: str) -> Any:
        from botocore.config import Config

        own = self.variables.get(ENDPOINTS[place])
        authorities = self.variables.get("AWS_CA_BUNDLE") or os.environ.get("AWS_CA_BUNDLE")
        client = session_of(self.variables, self.keys).client(
            place,
            region_name=region,
            endpoint_url=own or self.variables.get("AWS_ENDPOINT_URL"),
            config=Config(retries={"total_max_attempts": TRIES}),
        )
        client.meta.events.register("before-send", lambda request, **_: _send(request, authorities))
        return client


def _in_time(ask: Callable[[], object], where: str) -> object:
    """What is answered within SECONDS: neither a name that nobody resolves nor an answer that trickles keeps a job."""
    said: SimpleQueue[tuple[object, Exception | None]] = SimpleQueue()

    def work() -> None:
        try:
            said.put((ask(), None))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where it is waited for
            said.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        value, error = said.get(timeout=SECONDS)
    except Empty:
        raise _unavailable(where, f"AWS did not answer within {SECONDS:.0f} seconds") from None
    if error is not None:
        raise error
    return value


def _asked(client: Any, place: str, name: str) -> object:
    if place == "secretsmanager":
        return client.get_secret_value(SecretId=name).get("SecretString")
    return client.get_parameter(Name=name, WithDecryption=True)["Parameter"].get("Value")


def _send(request: Any, authorities: str | None) -> Any:
    """Send the request as botocore would, and read no more of the answer than a secret may need."""
    from botocore.awsrequest import AWSResponse
    from botocore.exceptions import ResponseStreamingError
    from botocore.httpsession import URLLib3Session
    from botocore.utils import get_environ_proxies
    from urllib3.exceptions import HTTPError

    request.stream_output = True  # else it is read whole
    session = URLLib3Session(verify=authorities or True, proxies=get_environ_proxies(request.url), timeout=PATIENCE)
    try:
        answer = session.send(request)
        with closing(answer.raw) as raw:  # else what is not read to its end keeps its connection
            return AWSResponse(answer.url, answer.status_code, answer.headers, _Read(raw.read(LARGEST + 1)))
    except HTTPError as error:
        raise ResponseStreamingError(error=type(error).__name__) from None
    finally:
        session.close()


class _Read:
    """An answer that was read, as botocore takes it."""

    def __init__(self, data: bytes) -> None:
        if len(data) > LARGEST:
            raise _TooLongError
        self._data = data

    def stream(self) -> list[bytes]:
        """All of it."""
        return [self._data]


def _refusal(where: str, code: str) -> HeldError:
    """Why AWS gives nothing; by its code alone: its words may have anything in them."""
    if not CODE.fullmatch(code):
        return _unavailable(where, "AWS gives no value now, and an error without a code")
    if (why := MISSING.get(code)) is not None:
        return _missing(where, f"{why} ({code}); correct its name in runner.yaml, or make it there")
    if (why := REFUSED.get(code)) is not None:
        how = "let the role have secretsmanager:GetSecretValue or ssm:GetParameter for it, and kms:Decrypt for its key"
        return HeldError("SecretRefused", f"{where}: {why} ({code}); {how}.")
    return _unavailable(where, f"AWS gives no value now ({code})")


def _missing(where: str, why: str) -> HeldError:
    return HeldError("SecretMissing", f"{where}: {why}.")


def _unavailable(where: str, why: str) -> HeldError:
    return HeldError(UNAVAILABLE, f"{where}: {why}; {LATER}.")
