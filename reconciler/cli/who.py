"""Who gives a command: for what is remembered with a name."""

from __future__ import annotations

import os
import pwd


def actor() -> str:
    """Who does this: also behind sudo."""
    user = pwd.getpwuid(os.getuid()).pw_name
    behind = os.environ.get("SUDO_USER", "") if os.getuid() == 0 else ""
    return f"{behind} as {user}" if behind.isprintable() and behind else user
