"""Where a repository is fetched from, and with which of the host's keys."""

from __future__ import annotations

import base64
import re
import shlex
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from reconciler.config.address import protocol_of
from reconciler.errors import ConfigError, PassError

_CONTROL = re.compile(r"[\x00-\x20\x7f]")

# Nothing of the account's ssh configuration counts, and nothing is ever asked or forwarded.
_SSH_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "PasswordAuthentication=no",
    "KbdInteractiveAuthentication=no",
    "ForwardAgent=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "ControlMaster=no",
    "ControlPath=none",
    "IdentityAgent=none",
    "IdentitiesOnly=yes",
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a peer may take. All in seconds but `low_speed_bytes`, in bytes per second.

    `proving` is how long one look proves new commits before it lets others have their turn; `deadline` ends any single git command, `clone_deadline` the first fetch into an empty mirror; a transfer slower
    than `low_speed_bytes` during `low_speed` ends too, so does a connection that is not there after `connect`. Once
    `ending` is set, every command ends.
    """

    deadline: float = 60.0
    clone_deadline: float = 900.0
    connect: int = 15
    low_speed_bytes: int = 1000
    low_speed: int = 20
    proving: float = 30.0
    ending: threading.Event | None = None


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository's address and the files of the host that open it.

    `ssh_key` and `known_hosts` default to those in the `.ssh` folder of the account; `ca_file` to the system's
    authorities. `token_file` holds a token, or `user:token`; it is read anew for every command, so it may rotate.

    Raises:
        ConfigError: the address is of another kind than https, ssh, `user@host:path`, file or an absolute path, or
            it carries a password.
    """

    url: str
    ssh_key: str | None = None
    known_hosts: str | None = None
    ca_file: str | None = None
    token_file: str | None = None

    def __post_init__(self) -> None:
        if self.protocol == "https" and "@" in urlsplit(self.url).netloc:
            raise ConfigError("the address of a repository carries a user or password: put the token into token_file")
        if self.token_file and self.protocol != "https":
            raise ConfigError(f"{self.url}: token_file works with https only: give ssh_key, or an https:// address")

    @property
    def protocol(self) -> str:
        """`https`, `ssh` or `file`: what git calls the transport of this address."""
        found = protocol_of(self.url)
        if found is not None:
            return found
        raise ConfigError(
            f"{self.url!r} is no address that a repository is fetched from: write https://host/path, "
            "ssh://user@host/path, user@host:path, or file:///path where files are allowed"
        )

    def settings(self, patience: Patience) -> dict[str, str]:
        """The git settings for this remote that may be read by anyone (they stand in the process list)."""
        settings = {
            "http.lowSpeedLimit": str(patience.low_speed_bytes),
            "http.lowSpeedTime": str(patience.low_speed),
            "core.sshCommand": self.ssh_command(patience),
        }
        if self.ca_file:
            settings["http.sslCAInfo"] = self.ca_file
            settings["http.sslCAPath"] = ""
        return settings

    def secret_settings(self) -> dict[str, str]:
        """The git settings that only the environment of the process may carry.

        Raises:
            PassError: the token file cannot be read (`AuthFailed`).
        """
        if not self.token_file:
            return {}
        address = urlsplit(self.url)
        token = self._token(self.token_file)
        login = token if ":" in token else f"x-access-token:{token}"
        header = "Authorization: Basic " + base64.b64encode(login.encode()).decode()
        return {f"http.{address.scheme}://{address.netloc}/.extraHeader": header}

    def ssh_command(self, patience: Patience) -> str:
        """The ssh command line: git hands it to a shell, so every word is quoted."""
        return _ssh_command(self.known_hosts, self.ssh_key, patience.connect, patience.low_speed)

    def _token(self, path: str) -> str:
        try:
            token = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PassError(
                "AuthFailed", f"{path}: cannot be read ({error}): put the token for {self.url} there"
            ) from error
        if not token or _CONTROL.search(token):
            raise PassError("AuthFailed", f"{path}: holds no single-line token: put the token for {self.url} there")
        return token


def _ssh_path(path: str) -> str:
    """A path as ssh's options take it: ssh splits the value at blanks and expands `%` itself."""
    escaped = path.replace("%", "%%")
    return f'"{escaped}"'


@cache
def _ssh_command(known_hosts: str | None, key: str | None, connect: int, alive: int) -> str:
    """Put together once: every git command has it, whatever the protocol."""
    options = [*_SSH_OPTIONS, f"ConnectTimeout={connect}", f"ServerAliveInterval={alive}", "ServerAliveCountMax=1"]
    if known_hosts:
        options += [f"UserKnownHostsFile={_ssh_path(known_hosts)}", "GlobalKnownHostsFile=/dev/null"]
    if key:
        options.append(f"IdentityFile={_ssh_path(key)}")
    words = ["ssh", "-F", "/dev/null", *(word for option in options for word in ("-o", option))]
    return shlex.join(words)
