"""Who gives a command: for what is remembered with a name."""

from __future__ import annotations

import os
import pwd


def user() -> str:
    """This process's user, as the daemon names whoever talks to its socket."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user that has no name
        return str(os.getuid())


def actor() -> str:
    """Who does this: also behind sudo."""
    behind = os.environ.get("SUDO_USER", "") if os.getuid() == 0 else ""
    return f"{behind} as {user()}" if behind.isprintable() and behind else user()
