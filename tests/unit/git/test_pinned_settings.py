"""What a git command that was started sees: every setting and every variable, read back from git and from the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.git.command import Git, Patience, Remote
from tests.kit.gitrepo import RepoBuilder

# The list of docs/security.md, "Git": setting by setting, in git's own spelling of the keys.
SETTINGS = {
    "core.hookspath": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "false",
    "core.commitgraph": "false",
    "core.askpass": "",
    "core.attributesfile": "/dev/null",
    "safe.barerepository": "explicit",
    "fetch.fsckobjects": "true",
    "transfer.fsckobjects": "true",
    "fetch.recursesubmodules": "false",
    "submodule.recurse": "false",
    "http.followredirects": "false",
    "http.sslverify": "true",
    "credential.helper": "",
    "ssh.variant": "ssh",
    "gc.autodetach": "false",
    "gc.packrefs": "false",
    "protocol.version": "2",
    "protocol.allow": "never",
    "protocol.https.allow": "always",
    "protocol.ssh.allow": "always",
    "protocol.file.allow": "never",
    "http.lowspeedlimit": "1000",
    "http.lowspeedtime": "20",
}
ENVIRONMENT = {
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "LANGUAGE": "C",
    "TZ": "UTC",
    "GIT_ASKPASS": "",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "0",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}
# What git itself adds for a program that it starts, and the shell between them.
ADDED = {"GIT_DIR", "GIT_CONFIG_PARAMETERS", "GIT_EXEC_PATH", "GIT_PREFIX", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}


def test_the_effective_settings_and_environment_are_those_that_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = tmp_path / "account"
    account.mkdir()
    (account / ".gitconfig").write_text("[evil]\n\tglobal = true\n")
    for name, value in {
        "HOME": str(account),
        "XDG_CONFIG_HOME": str(account),
        "GIT_CONFIG_PARAMETERS": "'evil.parameter'='true'",
        "GIT_CONFIG_GLOBAL": str(account / ".gitconfig"),
        "GIT_SSH_COMMAND": "evil",
        "GIT_PROXY_COMMAND": "evil",
        "GIT_EXTERNAL_DIFF": "evil",
        "GIT_TRACE": "1",
        "LD_PRELOAD_EVIL": "1",
    }.items():
        monkeypatch.setenv(name, value)
    repo = RepoBuilder.create(tmp_path / "repo.git")
    for key in SETTINGS:
        repo.git("config", key, "9" if key.startswith("http.low") else "evil" if "allow" not in key else "always")
    repo.git("config", "alias.show-environment", "!env -0")
    git = Git(repo.folder, Remote("https://127.0.0.1/x.git"), patience=Patience())

    read = _settings(git)
    pinned = read["command line:"]
    assert set(read) == {"command line:", f"file:{repo.folder}/config"}  # no account's file, no system's
    assert {key: pinned.get(key) for key in SETTINGS} == SETTINGS
    assert set(pinned) == {*SETTINGS, "core.sshcommand"}  # nothing is pinned that is not in the list
    assert pinned["core.sshcommand"].startswith("ssh -F /dev/null ")
    assert list(read)[-1] == "command line:"  # the last word counts

    seen = dict(pair.split("=", 1) for pair in git.run("show-environment").decode().split("\0") if pair)
    assert {name: seen.get(name) for name in ENVIRONMENT} == ENVIRONMENT
    assert set(seen) - set(ENVIRONMENT) <= ADDED
    assert seen["PATH"].endswith("/usr/local/bin:/usr/bin:/bin")


def _settings(git: Git) -> dict[str, dict[str, str]]:
    """By origin, in the order that git reads them."""
    words = git.run("config", "--list", "--show-origin", "--null").decode().split("\0")
    found: dict[str, dict[str, str]] = {}
    for origin, pair in zip(words[::2], words[1::2], strict=False):
        key, _, value = pair.partition("\n")
        found.setdefault(origin, {})[key] = value
    return found
