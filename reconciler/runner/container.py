"""What a container is told by those who start it, and how much of it counts.

Who may start a task may also overlay its variables. So only those are kept that the system sets, and those that the host's own file
names: none that leads the SDK, git or Python elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from reconciler.config import RunnerConfig
from reconciler.errors import ConfigError

METADATA = "ECS_CONTAINER_METADATA_URI_V4"
KEPT = frozenset({
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "AWS_REGION", "AWS_DEFAULT_REGION", METADATA,
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
})  # fmt: skip
AGENT = ("169.254.170.2", "127.0.0.1")  # where ECS answers, and this very container
SECONDS = 5.0


def trusted(environ: Mapping[str, str], config: RunnerConfig) -> dict[str, str]:
    """The variables that count."""
    kept = KEPT | set(_named(config.model_dump(mode="json")["environments"]))
    return {name: value for name, value in environ.items() if name in kept}


def _named(said: Any) -> Iterator[str]:
    """The variables from which the host's file takes credentials (`environment`)."""
    if isinstance(said, Mapping):
        for name, inner in said.items():
            if name == "environment" and isinstance(inner, Mapping):
                yield from map(str, inner.values())
            else:
                yield from _named(inner)


def arn_of_task(environ: Mapping[str, str]) -> str:
    """The ARN of the task that this process runs in, as ECS says.

    Raises:
        ConfigError: this is no task of ECS, or its agent does not answer.
    """
    address = environ.get(METADATA, "")
    if urlsplit(address).hostname not in AGENT:
        raise ConfigError(f"this is no task of ECS: {METADATA} names no agent; `reconciler runner serve` is for hosts")
    try:
        said = httpx.get(f"{address}/task", timeout=SECONDS, trust_env=False).raise_for_status().json()
        return str(said["TaskARN"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the agent of ECS does not say which task this is: {error!r}; start the task again"
        ) from error
