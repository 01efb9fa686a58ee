"""How commands reach the daemon: HTTP to read, the admin socket to act; and the options that say where."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlsplit

import click

from reconciler.cli.exits import SILENT
from reconciler.cli.identity import token_in
from reconciler.errors import ReconcilerError
from reconciler.wire import receive, send

F = TypeVar("F", bound=Callable[..., Any])
Answer = dict[str, Any]

SERVER = "http://127.0.0.1:8080"
TOKEN_FILE, CA_FILE = "RECONCILER_TOKEN_FILE", "RECONCILER_CA_FILE"
LOCAL = ("127.0.0.1", "localhost", "::1")
SOCKET = "/run/reconciler/admin.sock"
PATIENCE = 10.0  # seconds
AT_ONCE = 1.0  # seconds that somebody waits who has pressed Tab
MOST_COMPLETED = 500  # units
ACCEPT_HISTORY = "accept-history"
PROVING = 900.0  # seconds, for that: a long history, and a forge that is asked about every commit of it

server_option = click.option(
    "--server",
    envvar="RECONCILER_SERVER",
    default=SERVER,
    show_default=True,
    show_envvar=True,
    help=f"Where the daemon is. {TOKEN_FILE} names a file with a token of http.tokens, {CA_FILE} its authorities.",
)
socket_option = click.option(
    "--socket",
    "socket_path",
    envvar="RECONCILER_ADMIN_SOCKET",
    default=SOCKET,
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="The daemon's admin socket.",
)


def complete_units(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The units that go on so, for the shell: asked of the daemon, and nothing where it does not answer at once."""
    return _complete(context, incomplete, [])


def complete_scopes(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """As `complete_units`, with `all` and the environments."""
    return _complete(context, incomplete, ["all"])


def _complete(context: click.Context, incomplete: str, scopes: list[str]) -> list[str]:
    try:
        with Api(context.params.get("server") or SERVER, patience=AT_ONCE) as api:
            found = api.get("/api/v1/units", q=incomplete, limit=MOST_COMPLETED)["units"]
    except ReconcilerError:
        found = []
    environments = sorted({one["environment"] for one in found}) if scopes else []
    return [name for name in (*scopes, *environments, *(one["unit"] for one in found)) if name.startswith(incomplete)]


def output_option(function: F) -> F:
    """`-o text|json`; the command gets `as_json`."""

    def chosen(_context: click.Context, _parameter: click.Parameter, value: str) -> bool:
        return value == "json"

    choice = click.Choice(["text", "json"])
    option = click.option("-o", "as_json", type=choice, default="text", callback=chosen, help="text (default) or json.")
    return option(function)


class Silent(ReconcilerError):
    """The daemon does not answer."""

    exit_code = SILENT

    def __init__(self, message: str) -> None:
        super().__init__("DaemonSilent", message)


class Api:
    """The daemon's read-only API."""

    def __init__(self, server: str, patience: float = PATIENCE) -> None:
        """`server`: its address, `http://127.0.0.1:8080`; `patience`: seconds for an answer.

        Raises:
            ReconcilerError: a token or an authority cannot be used.
        """
        import httpx

        self._httpx, self._server = httpx, server.rstrip("/")
        # Not by way of a proxy from the environment: the daemon is on this machine or near it. No redirect is followed.
        self._client = httpx.Client(
            timeout=patience, trust_env=False, headers=_token(server), verify=_authorities() or True
        )

    def get(self, path: str, **parameters: str | int) -> Answer:
        """What the daemon says there.

        Raises:
            Silent: nobody answers.
            ReconcilerError: the daemon refuses; its words say why.
        """
        answer = self._get(path, parameters)
        try:
            return cast("Answer", answer.json())
        except ValueError as error:
            raise ReconcilerError("Refused", f"{self._server} is no reconciler: it does not answer in JSON") from error

    def raw(self, path: str, **parameters: str | int) -> tuple[bytes, dict[str, str]]:
        """The bytes there, and the answer's headers in lower case."""
        answer = self._get(path, parameters)
        return answer.content, {name.lower(): value for name, value in answer.headers.items()}

    def _get(self, path: str, parameters: dict[str, str | int]) -> Any:
        try:
            answer = self._client.get(f"{self._server}{quote(path)}", params=parameters)
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
            advice = "start it with `reconciler run`, or say where it is with --server or RECONCILER_SERVER"
            raise Silent(f"the daemon does not answer at {self._server} ({error}): {advice}") from error
        if answer.is_error:
            raise _refusal(self._server, answer)
        return answer

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def __enter__(self) -> Api:  # noqa: PYI034 - the class is final in practice, and the name reads better
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _token(server: str) -> dict[str, str]:
    """The header with a token, if there is one; it goes over a wire only within TLS."""
    path = os.environ.get(TOKEN_FILE)
    if not path:
        return {}
    url = urlsplit(server)
    if url.scheme != "https" and url.hostname not in LOCAL:
        raise ReconcilerError("TokenExposed", f"{server}: a token would be readable on its way; use https://")
    return {"authorization": f"Bearer {token_in(Path(path))}"}


def _authorities() -> ssl.SSLContext | None:
    path = os.environ.get(CA_FILE)
    try:
        return ssl.create_default_context(cafile=path) if path else None
    except (OSError, ssl.SSLError) as error:
        raise ReconcilerError("FileInvalid", f"{CA_FILE}: {path} cannot be used: {error}") from error


def _refusal(server: str, answer: Any) -> ReconcilerError:
    try:
        said = answer.json()
        return ReconcilerError(str(said.get("reason", "Refused")), str(said["error"]))
    except (ValueError, KeyError, AttributeError):
        text = answer.text.strip()[:300]
        return ReconcilerError("Refused", f"{server} answers {answer.status_code}: {text or 'nothing else'}")


def tell(path: Path, action: str, scope: str, **more: str) -> Answer:
    """Ask the daemon's admin socket for something.

    Raises:
        Silent: nobody answers.
        ReconcilerError: it is refused; its words say why.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(PROVING if action == ACCEPT_HISTORY else PATIENCE)
            peer.connect(str(path))
            send(peer, {"action": action, "scope": scope, **more})
            answer = receive(peer)
    except PermissionError as error:
        raise ReconcilerError("NotAdmin", f"{path}: only the daemon's user and root may open it; use sudo") from error
    except (OSError, ValueError) as error:
        advice = "start it with `reconciler run`, or say where its socket is with --socket or RECONCILER_ADMIN_SOCKET"
        raise Silent(f"the daemon does not answer on {path} ({error}): {advice}") from error
    if "error" in answer:
        raise ReconcilerError(str(answer.get("reason", "Refused")), str(answer["error"]))
    return cast("Answer", answer)
