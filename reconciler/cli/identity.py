"""How a pipeline proves to the trigger who it is: a token from a file, a variable or GitHub, or a certificate."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from reconciler.errors import ReconcilerError

Bearer = Callable[[], str | None]  # a token that counts now; None: there is a certificate instead

AUDIENCE = "reconciler"
_URL, _TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"


def bearer(token_file: Path | None, token_env: str | None, audience: str, *, certificate: bool) -> Bearer:
    """Where tokens come from: as the options say, or from GitHub where it offers one. Asked anew for each request."""
    if token_file is not None:
        return lambda: token_in(token_file)
    if token_env is not None:
        return lambda: _of_variable(token_env)
    if certificate:
        return lambda: None
    if os.environ.get(_URL) and os.environ.get(_TOKEN):
        return lambda: _of_github(os.environ[_URL], os.environ[_TOKEN], audience)
    raise ReconcilerError(
        "TokenMissing",
        "no token: in GitHub Actions give the job `permissions: {id-token: write}`; in GitLab CI name the variable of an "
        "id token with --token-env; elsewhere --token-file, or --cert and --key",
    )


def token_in(path: Path) -> str:
    """The token in a file, as it is now. Raises ReconcilerError."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ReconcilerError("TokenMissing", f"{path} cannot be read: {error}") from error


def _of_variable(name: str) -> str:
    if not os.environ.get(name):
        raise ReconcilerError(
            "TokenMissing", f"the variable {name} is empty: GitLab fills it by `id_tokens` of the job"
        )
    return os.environ[name].strip()


def _of_github(url: str, token: str, audience: str) -> str:
    """A fresh token of this job: GitHub's live for some minutes only."""
    import httpx

    try:
        answer = httpx.get(
            httpx.URL(url).copy_merge_params({"audience": audience}),
            headers={"authorization": f"bearer {token}"},
            timeout=10.0,
        )
        answer.raise_for_status()
        return str(answer.json()["value"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise ReconcilerError("TokenMissing", f"GitHub gives no token ({type(error).__name__}): try again") from error
