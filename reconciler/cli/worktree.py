"""Git in a person's own work tree, as the person at the keyboard has set it up. The planes' git is another: `reconciler.git`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from reconciler.errors import ConfigError

# What would lead git to another repository than the folder's: set in hooks, and by `git -c` of aliases.
ELSEWHERE = frozenset(
    {
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_PREFIX",
        "GIT_COMMON_DIR",
        "GIT_OBJECT_DIRECTORY",
        "GIT_NAMESPACE",
    }
)


def git(folder: Path, *words: str) -> str:
    """What git says in the folder, without the last line's end. Raises ConfigError: it is not there, or says no."""
    env = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    try:
        done = subprocess.run(["git", *words], cwd=folder, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ConfigError("git is not installed, or not on PATH: install git 2.39 or newer") from None
    if done.returncode:
        raise ConfigError(f"git {words[0]} in {folder}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.rstrip()


def asked(folder: Path, *words: str) -> str | None:
    """The same; None where git says no."""
    try:
        return git(folder, *words)
    except ConfigError:
        return None
