"""`reconciler guard`: who besides the runner could write in an environment's account. Run by an admin; needs no daemon."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.ask import output_option
from reconciler.cli.exits import DIFFERENCE, ERROR, FINE
from reconciler.cli.show import as_json_text, line, progress
from reconciler.config import HostEnvironment, load_runner
from reconciler.errors import ConfigError

if TYPE_CHECKING:
    from reconciler.runner.guard.audit import Writer

DEFAULT_CONFIG = "/etc/reconciler/runner.yaml"
SHOWN = 5  # statements of one principal


@click.group("guard")
def command() -> None:
    """Whether the merged pull request is the only way into an account."""


@command.command()
@click.argument("environment")
@click.option("--config", "config_path", type=click.Path(path_type=Path), default=DEFAULT_CONFIG, show_default=True)
@click.option("--profile", help="A profile of your AWS files; if not given, what the AWS SDKs find by themselves.")
@click.option("--region", default="us-east-1", show_default=True, help="Whose keys, queues and topics are looked at.")
@click.option("--endpoint", help="Another address than AWS's.")
@click.option(
    "--allow", "allow", multiple=True, help="Who else may write: an ARN or a service, * is any text. Repeatable."
)
@output_option
def audit(
    environment: str,
    config_path: Path,
    profile: str | None,
    region: str,
    endpoint: str | None,
    allow: tuple[str, ...],
    as_json: bool,
) -> int:
    """Everybody who could write in ENVIRONMENT's account, besides its apply role and those of --allow.

    Reads the account's identities and policies with your own credentials (iam:GetAccountAuthorizationDetails), and the policies of
    buckets, keys, queues and topics. What cannot be decided counts as "could". Exit 0: nobody; 2: somebody, who is named with the
    statement that lets him; 1: it could not be looked at, or not at all of it.
    """
    from reconciler.runner.guard.account import Reader  # late: the controller's commands never load the runner's code
    from reconciler.runner.guard.audit import audit as judge

    hosted = load_runner(config_path).environments.get(environment)
    if hosted is None:
        raise ConfigError(f"{config_path}: no environment {environment}; write one that it lists.")
    found = Reader(region, profile, endpoint).read()
    if hosted.allowed_account_ids and found.number not in hosted.allowed_account_ids:
        listed = ", ".join(hosted.allowed_account_ids)
        raise ConfigError(
            f"Your credentials are of the account {found.number}, and {environment} is in {listed}: choose others with --profile."
        )
    patterns = (*_appliers(hosted), *allow)
    others = judge(found, patterns)
    told = {
        "account": found.number,
        "allowed": patterns,
        "others": [asdict(one) for one in others],
        "unread": found.unread,
    }
    _tell(told, others, as_json)
    if others:
        return DIFFERENCE
    return ERROR if found.unread else FINE


def _appliers(hosted: HostEnvironment) -> list[str]:
    """The role that applies have, as far as runner.yaml names one."""
    source = hosted.credentials.apply
    if source is None:
        return []
    by_token = [source.web_identity.role] if source.web_identity is not None else []
    return by_token if source.role is None else [source.role.role]


def _tell(told: dict[str, Any], others: list[Writer], as_json: bool) -> None:
    if as_json:
        as_json_text(told)
        return
    for one in others:
        line("Could write", one.principal, f"({one.kind})", *(f"by {role}" for role in one.by))
        for why in one.why[:SHOWN]:
            line("", why)
        if len(one.why) > SHOWN:
            line("", f"and {len(one.why) - SHOWN} statements more; -o json has them all")
    for what in told["unread"]:
        line("Not looked at", what)
    progress(
        f"{len(others)} principals of {told['account']} could write besides those that may ({', '.join(told['allowed']) or 'nobody'})."
    )
