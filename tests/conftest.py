"""What holds for every test: a clean environment, and hypothesis without a stopwatch."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

pytest_plugins = ["tests.kit.forks", "tests.kit.quick", "tests.kit.signing", "tests.kit.terraform"]

# What a developer's shell sets for git, the engines and AWS must not reach a test, nor anything a test starts.
for name in list(os.environ):
    if name.startswith(("AWS_", "GIT_", "RECONCILER_", "SSH_", "TF_", "TOFU_")) and not name.startswith(
        "RECONCILER_TEST_"
    ):
        del os.environ[name]
os.environ |= {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
}

# Started with `&` from a script, everything below would ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Two shared cores make any deadline a coin toss; pytest-timeout bounds a test that hangs.
settings.register_profile("reconciler", deadline=None, print_blob=True)
settings.load_profile("reconciler")
