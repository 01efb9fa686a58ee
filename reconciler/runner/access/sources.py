"""Where credentials come from: each of the ways that runner.yaml has, to one of two ends.

Either they are variables, as any provider reads them; or AWS keys, which the engine's programs fetch themselves from an
endpoint (`endpoint.py`), so that they can be renewed while a job runs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reconciler.config.credentials import WINS, Credential, CredentialSource
from reconciler.errors import HeldError, UnitError
from reconciler.runner.access import sts
from reconciler.runner.access.keys import Keys, Renewing, ends_at
from reconciler.runner.access.policy import partition_of
from reconciler.runner.access.sts import Errand
from reconciler.runner.credentials import MOST, parse_lines, static_credentials

SECONDS = 60.0  # that a command may take
PASSED_ON = ("HOME", "LANG", "PATH")  # of the runner's variables, to a command

Fetch = Callable[[str | None], Keys]  # the argument is a session policy


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for. `where` is the place in runner.yaml; `variables` are those that the host lists for the environment.

    `operation`: of a job, or what else the runner wants them for.
    """

    where: str
    operation: str
    installation: str
    errand: Errand = sts.NOBODY
    region: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def sts(self, region: str | None) -> sts.Place:
        """STS as the environment's programs would find it."""
        known = (region, self.region, self.variables.get("AWS_REGION"), self.variables.get("AWS_DEFAULT_REGION"))
        endpoint = self.variables.get("AWS_ENDPOINT_URL_STS") or self.variables.get("AWS_ENDPOINT_URL")
        return sts.Place(self.where, next(filter(None, known), "us-east-1"), endpoint)


@dataclass(frozen=True, slots=True)
class Access:
    """Credentials: variables, or keys (`fetch`), or neither. `partition` is the role's, if there is one."""

    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    fetch: Fetch | None = None
    partition: str = "aws"

    def keys(self, policy: Callable[[str], str] | None = None) -> Renewing | None:
        """Keys that stay good. `policy` makes the session policy for a partition; None: the role's own rights."""
        if self.fetch is None:
            return None
        fetch, text = self.fetch, policy(self.partition) if policy else None
        return Renewing(lambda: fetch(text))


def draw(credential: Credential | None, asked: Asked) -> Access:
    """Credentials from where the host says. No network is asked before somebody needs keys; a command is run.

    Raises:
        HeldError: they are not there, or are not what they should be. UnitError: not now.
    """
    if credential is None:
        return Access()
    role = credential.role
    if role is None:
        return _drawn(credential, asked)
    inner = replace(asked, where=f"{asked.where}.assume_role")
    base = role.source

    def fetch(policy: str | None) -> Keys:
        who = None if base is None else _base(base, replace(inner, where=f"{inner.where}.source"))
        wanted = sts.Wanted(role.role, role.duration, policy, asked.errand, asked.operation, asked.installation)
        return sts.assume(inner.sts(role.region), wanted, who, role.external_id)

    return Access(fetch=fetch, partition=partition_of(role.role))


def signing(credential: Credential, asked: Asked, policy: Callable[[str], str]) -> Renewing:
    """Keys for the runner's own requests, which stay good; also those that come as variables. `policy`: see `Access.keys`.

    Raises:
        HeldError, UnitError: see `draw`.
    """
    found = draw(credential, asked)
    if (keys := found.keys(policy)) is not None:
        return keys
    return Renewing(lambda: _named(found.variables, f"{asked.where}: {credential.kind}"))


def _base(source: CredentialSource, asked: Asked) -> Keys:
    """The keys of whoever assumes a role."""
    found = _drawn(source, asked)
    if found.fetch is not None:
        return found.fetch(None)
    return _named(found.variables, f"{asked.where}: {source.kind}")


def _named(given: Mapping[str, str], where: str) -> Keys:
    """The keys among variables."""
    try:
        return Keys(given["AWS_ACCESS_KEY_ID"], given["AWS_SECRET_ACCESS_KEY"], given.get("AWS_SESSION_TOKEN"))
    except KeyError as error:
        what = f"{where}: {error.args[0]} is not there, and AWS is to be asked with it"
        raise HeldError("CredentialsMissing", f"{what}; write AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.") from None


def _drawn(source: CredentialSource, asked: Asked) -> Access:
    here = replace(asked, where=f"{asked.where}.{source.kind}")
    if source.static_file is not None:
        return Access(static_credentials(source.static_file))
    if source.environment is not None:
        return Access(_own_variables(source.environment, here.where))
    if source.profile is not None:
        name = source.profile
        return Access(fetch=lambda _: _of_profile(name, here.where))
    if source.command is not None:
        return _of_command(source.command, here)
    return _of_web_identity(source, here)


def _own_variables(names: Mapping[str, str], where: str) -> Mapping[str, str]:
    if missing := sorted(own for own in names.values() if not os.environ.get(own)):
        how = "set it where the runner is started, and restart the runner"
        raise HeldError("CredentialsMissing", f"{where}: the runner's own variable {missing[0]} is not set; {how}.")
    return {name: os.environ[own] for name, own in names.items()}


def _of_profile(name: str, where: str) -> Keys:
    """The keys of a profile, made afresh: it may itself assume a role, or run a program."""
    from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound
    from botocore.session import Session

    how = f"look at it with `aws configure list --profile {name}` as the runner's user"
    try:
        found = Session(profile=name).get_credentials()
        frozen = found.get_frozen_credentials() if found else None
    except ProfileNotFound:
        what = f"{where}: the AWS files of the runner's user have no profile {name}"
        raise HeldError("CredentialsMissing", f"{what}; write it there, or set AWS_CONFIG_FILE.") from None
    except (BotoCoreError, ClientError, OSError) as error:
        what = f"{where}: the profile {name} gives no keys now ({type(error).__name__})"
        raise UnitError("CredentialsUnavailable", f"{what}; {how}.", transient=True) from None
    if frozen is None or not frozen.access_key or not frozen.secret_key:
        raise HeldError("CredentialsMissing", f"{where}: the profile {name} gives no keys; {how}.")
    ends = getattr(found, "_expiry_time", None)  # the SDK has no other word for it
    return Keys(frozen.access_key, frozen.secret_key, frozen.token, ends_at(ends))


def _of_web_identity(source: CredentialSource, here: Asked) -> Access:
    one = source.web_identity
    assert one is not None  # noqa: S101 - the configuration has exactly one of them

    def fetch(policy: str | None) -> Keys:
        token = _token(one.token_file, here.where)
        wanted = sts.Wanted(one.role, one.duration, policy, here.errand, here.operation, here.installation)
        return sts.exchange(here.sts(one.region), wanted, token)

    return Access(fetch=fetch, partition=partition_of(one.role))


def _token(path: Path, where: str) -> str:
    """The token as it is now: whoever puts it there renews it. Kubernetes lets everybody in the pod read it."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST + 1)
        text = data.decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise HeldError("CredentialsMissing", f"{where}: {path} cannot be read ({type(error).__name__}).") from None
    if not text or len(data) > MOST:
        raise HeldError("CredentialsMissing", f"{where}: {path} holds no token; let the identity provider write it.")
    return text


def _of_command(argv: list[str], here: Asked) -> Access:
    """What a program says now; keys that end, from another run of it, when they do."""
    first = _said(argv, here)
    if isinstance(first, Keys):
        kept = [first]

        def fetch(_policy: str | None) -> Keys:
            return kept.pop() if kept else _keys_of(_said(argv, here), here.where)

        return Access(fetch=fetch)
    return Access(first)


def _keys_of(said: Keys | Mapping[str, str], where: str) -> Keys:
    if isinstance(said, Keys):
        return said
    raise HeldError("CredentialsInvalid", f"{where}: it printed keys before and prints variables now; mend it.")


def _said(argv: list[str], here: Asked) -> Keys | Mapping[str, str]:
    text = _output(argv, here)
    if not text.lstrip().startswith("{"):
        return parse_lines(text, here.where)
    try:
        found: dict[str, Any] = json.loads(text)
        keys = Keys(
            str(found["AccessKeyId"]),
            str(found["SecretAccessKey"]),
            found.get("SessionToken"),
            ends_at(found.get("Expiration")),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        form = '{"Version": 1, "AccessKeyId": ..., "SecretAccessKey": ..., "SessionToken": ..., "Expiration": ...}'
        raise HeldError("CredentialsInvalid", f"{here.where}: it must print lines NAME=value, or {form}.") from None
    if clash := sorted(set(WINS) & here.variables.keys()):
        what = f"{here.where}: {clash[0]} in `env` would win over the keys that it prints"
        raise HeldError("CredentialsInvalid", f"{what}; remove that from runner.yaml.")
    return keys


def _output(argv: list[str], here: Asked) -> str:
    """What the program prints. Its errors are not kept: they may hold what nobody should see."""
    by_hand = "run it by hand as the runner's user to see why"
    try:
        program = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_words(here),
            cwd="/", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise HeldError("CredentialsMissing", f"{here.where}: {argv[0]} does not start ({error.strerror}).") from None
    try:
        data, _ = program.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        what = f"{here.where}: {argv[0]} said nothing for {SECONDS:.0f} seconds and was ended"
        raise UnitError("CredentialsUnavailable", f"{what}; {by_hand}.", transient=True) from None
    finally:
        with suppress(ProcessLookupError, PermissionError):  # what it started, too
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        if program.stdout:
            program.stdout.close()
    if program.returncode:
        what = f"{here.where}: {argv[0]} ended with exit code {program.returncode}"
        raise UnitError("CredentialsUnavailable", f"{what}; {by_hand}.", transient=True)
    if len(data) > MOST:
        raise HeldError("CredentialsInvalid", f"{here.where}: {argv[0]} printed more than {MOST} bytes.")
    return data.decode(errors="replace")


def _words(here: Asked) -> dict[str, str]:
    """What a command is told: whom it is for."""
    errand = here.errand
    said = {
        "OPERATION": str(here.operation),
        "INSTALLATION": here.installation,
        "UNIT": errand.unit,
        "COMMIT": errand.commit,
        "JOB": errand.job,
    }
    own = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return own | {f"RECONCILER_{name}": value for name, value in said.items() if value}
