"""Programs beside git that look at signatures: ssh-keygen and gpgv. Nothing of this process reaches them either."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.errors import ConfigError, PassError

_SECONDS = 30.0
_ENVIRONMENT = {"HOME": "/nonexistent", "LC_ALL": "C", "PATH": "/usr/bin:/bin", "TZ": "UTC"}
_PACKAGES = {"ssh-keygen": "openssh-client", "gpgv": "gpgv"}


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs that judge; `gpgv` is needed only where a forge's keys are trusted."""

    ssh_keygen: str
    gpgv: str | None = None


def find_tools(*, pgp: bool) -> Tools:
    """Where they are. Raises ConfigError where one of them is not installed."""
    return Tools(find_tool("ssh-keygen"), find_tool("gpgv") if pgp else None)


def find_tool(name: str) -> str:
    """The absolute path of a program.

    Raises:
        ConfigError: it is not installed.
    """
    found = shutil.which(name)
    if not found:
        package = _PACKAGES[name]
        raise ConfigError(
            f"environments_repo.signatures: {name} is not installed or not on PATH: install it (Debian: {package})"
        )
    return os.path.realpath(found)


def run_tool(*argv: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    """Run to the end: the exit code, and what was said on stdout and on stderr. What is asked is small, so are the answers.

    Raises:
        PassError: `SignatureToolFailed`, it cannot be started or does not end.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise _failed(argv, f"cannot be started ({error.strerror}): install it again") from error
    with process:
        try:
            out, err = process.communicate(stdin, _SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise _failed(argv, f"did not end within {_SECONDS:g} s and was ended: the next poll tries again") from None
    return process.returncode, out, err


def _failed(argv: Sequence[str], what: str) -> PassError:
    return PassError("SignatureToolFailed", f"{argv[0]} {what}; no signature can be checked meanwhile.")
