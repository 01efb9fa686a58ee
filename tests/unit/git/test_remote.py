from __future__ import annotations

import base64
import shlex
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, PassError
from reconciler.git.command import Git, Patience, Remote


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("https://git.example.org/acme/environments.git", "https"),
        ("ssh://git@git.example.org:2222/acme/environments.git", "ssh"),
        ("git@github.com:acme/environments.git", "ssh"),
        ("file:///srv/git/environments.git", "file"),
        ("/srv/git/environments.git", "file"),
    ],
)
def test_addresses_that_are_understood(url: str, protocol: str) -> None:
    assert Remote(url).protocol == protocol


@pytest.mark.parametrize(
    "url",
    [
        "http://git.example.org/x",
        "git://git.example.org/x",
        "ext::sh -c evil",
        "--upload-pack=evil",
        "-oProxyCommand=evil:x",
        "environments.git",
        "../environments.git",
        "https://git.example.org/x\ny",
        "",
    ],
)
def test_other_addresses_are_refused_with_what_to_write_instead(url: str) -> None:
    with pytest.raises(ConfigError, match="write https://host/path"):
        _ = Remote(url).protocol


def test_a_password_in_the_address_is_refused_without_being_repeated() -> None:
    with pytest.raises(ConfigError, match="token_file") as error:
        Remote("https://user:hunter2@git.example.org/x")
    assert "hunter2" not in str(error.value)


def test_a_token_file_is_refused_where_it_could_not_be_used() -> None:
    with pytest.raises(ConfigError, match="https only"):
        Remote("git@example.org:x", token_file="/run/secrets/token")


def test_ssh_trusts_only_the_files_of_the_host() -> None:
    remote = Remote("git@example.org:x", ssh_key="/keys/it's mine", known_hosts="/keys/known hosts")
    words = shlex.split(remote.ssh_command(Patience(connect=7)))
    assert words[:3] == ["ssh", "-F", "/dev/null"]
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "ConnectTimeout=7"} <= set(words)
    assert {'UserKnownHostsFile="/keys/known hosts"', "GlobalKnownHostsFile=/dev/null"} <= set(words)
    assert words[-1] == 'IdentityFile="/keys/it\'s mine"'


@pytest.mark.parametrize(("content", "login"), [("t0ken\n", "x-access-token:t0ken"), ("bot:t0ken", "bot:t0ken")])
def test_the_token_is_only_in_the_environment_and_only_for_its_server(tmp_path: Path, content: str, login: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    git = Git(tmp_path, Remote("https://git.example.org:8443/acme/x.git", token_file=str(file)))
    environment = git.environment()
    assert environment["GIT_CONFIG_KEY_0"] == "http.https://git.example.org:8443/.extraHeader"
    header = f"Authorization: Basic {base64.b64encode(login.encode()).decode()}"
    assert environment["GIT_CONFIG_VALUE_0"] == header
    assert not any("Authorization" in word for word in git._argv("fetch", (), ("x",), ()))


@pytest.mark.parametrize("content", [None, "", "two\nlines"])
def test_a_token_that_is_none_says_which_file(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    git = Git(tmp_path, Remote("https://git.example.org/x", token_file=str(file)))
    with pytest.raises(PassError, match=str(file)) as error:
        git.environment()
    assert error.value.reason == "AuthFailed"
