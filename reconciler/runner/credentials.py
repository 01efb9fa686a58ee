"""Files with credentials and secrets on this host, which only the runner's user can read."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from reconciler.errors import HeldError

MOST = 1 << 16  # bytes of a secret
OTHERS = stat.S_IRWXO


def read_secret(path: Path, what: str) -> str:
    """The text of a secret's file, without the newline that editors add at its end.

    Raises:
        HeldError: it cannot be read, is too large, is no text, or anybody may read it.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & OTHERS:
                raise HeldError("SecretExposed", f"{what}: {path} may be read by any user; run `chmod o= {path}`.")
            data = file.read(MOST + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise HeldError("SecretMissing", f"{what}: {path} cannot be read ({error}).") from error
    if len(data) > MOST:
        raise HeldError("SecretMissing", f"{what}: {path} is longer than {MOST} bytes.")
    return text.removesuffix("\n")


def static_credentials(path: Path | None) -> Mapping[str, str]:
    """The variables of a credentials file: one `NAME=value` a line, as providers read them from the environment.

    Raises:
        HeldError: the file cannot be read, or a line has no name.
    """
    if path is None:
        return {}
    return parse_lines(read_secret(path, "credentials"), str(path))


def parse_lines(text: str, where: str) -> Mapping[str, str]:
    """The variables of a text, one `NAME=value` a line; `where` it is from.

    Raises:
        HeldError: a line has no name.
    """
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    if any(not name.replace("_", "").isalnum() or not sep for name, sep, _ in pairs):
        raise HeldError("CredentialsInvalid", f"{where}: write one NAME=value a line, as in AWS_ACCESS_KEY_ID=AKIA...")
    return {name: value for name, _, value in pairs}
