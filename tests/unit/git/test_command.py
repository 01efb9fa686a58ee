from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, PassError
from reconciler.git.command import Git, Patience, Remote
from reconciler.git.failures import failure
from tests.kit.gitrepo import RepoBuilder
from tests.kit.terraform import until

TELLS = "echo {0} > {1}/half; mv {1}/half {1}/pid"  # which process it is, whole or not at all


@pytest.fixture
def repo(tmp_path: Path) -> RepoBuilder:
    return RepoBuilder.create(tmp_path / "repo.git")


def program(folder: Path, text: str) -> Path:
    """An executable that stands in for git: what a command that misbehaves does."""
    file = folder / "git"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def cut_by_the_deadline(folder: Path) -> int:
    """Have the stand-in run into its deadline; the process that it told of. A slow machine needs longer to tell."""
    for deadline in (0.5, 5.0, 50.0):
        before = time.monotonic()
        with pytest.raises(PassError, match=rf"did not finish within {re.escape(f'{deadline:g}')} s") as error:
            Git(folder, patience=Patience(deadline=deadline)).run("fetch")
        assert error.value.reason == "GitTimeout"
        assert time.monotonic() - before < deadline + 30
        if (folder / "pid").exists():
            break
    return int((folder / "pid").read_text())


def ends(pid: int) -> None:
    until(lambda: not alive(pid), f"the end of {pid}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_nothing_of_our_environment_reaches_git(
    tmp_path: Path, repo: RepoBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    repo.git("config", "alias.show-environment", f"!env > {seen}")
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("GIT_SSH_COMMAND", "evil")
    monkeypatch.setenv("https_proxy", "http://evil")
    Git(repo.folder).run("show-environment")
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert not names & {"AWS_SECRET_ACCESS_KEY", "GIT_SSH_COMMAND", "https_proxy", "SSH_AUTH_SOCK"}
    assert "GIT_DIR=/elsewhere" not in seen.read_text()
    assert {"GIT_CONFIG_NOSYSTEM", "GIT_NO_REPLACE_OBJECTS", "GIT_TERMINAL_PROMPT"} <= names


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("core.hooksPath", "/dev/null"),
        ("core.fsmonitor", "false"),
        ("core.symlinks", "false"),
        ("safe.bareRepository", "explicit"),
        ("fetch.fsckObjects", "true"),
        ("http.followRedirects", "false"),
        ("submodule.recurse", "false"),
        ("protocol.allow", "never"),
        ("protocol.file.allow", "never"),
    ],
)
def test_the_repository_cannot_loosen_a_setting(repo: RepoBuilder, key: str, value: str) -> None:
    repo.git("config", key, "always" if key.startswith("protocol") else "true")
    assert Git(repo.folder).run("config", "--get", operands=(key,)).decode().strip() == value


def test_an_operand_is_never_an_option(tmp_path: Path, repo: RepoBuilder) -> None:
    proof = tmp_path / "executed"
    git = Git(repo.folder, allow_file=True)
    done = git.ask("fetch", operands=(repo.url, f"--upload-pack=touch {proof}"))
    assert done.code != 0
    assert not proof.exists()


def test_a_hook_in_the_mirror_is_not_run(tmp_path: Path, repo: RepoBuilder) -> None:
    commit = repo.commit({"a": "1"})
    mirror = RepoBuilder.create(tmp_path / "mirror.git")
    hook = mirror.folder / "hooks" / "reference-transaction"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    hook.chmod(0o755)
    Git(mirror.folder, allow_file=True).run("fetch", operands=(repo.url, "refs/heads/main:refs/reconciler/head"))
    assert (mirror.folder / "refs/reconciler/head").read_text().strip() == commit
    assert not (tmp_path / "executed").exists()


def test_files_are_fetched_only_where_that_is_allowed(tmp_path: Path, repo: RepoBuilder) -> None:
    repo.commit({"a": "1"})
    with pytest.raises(PassError, match="only https and ssh") as error:
        Git(repo.folder, Remote(repo.url)).run("fetch", operands=(repo.url, "refs/heads/main:refs/x"))
    assert error.value.reason == "ProtocolRefused"


def test_a_replace_ref_changes_nothing(repo: RepoBuilder) -> None:
    honest, forged = repo.blob("honest"), repo.blob("forged")
    repo.git("replace", honest, forged)
    assert Git(repo.folder).run("cat-file", "blob", operands=(honest,)) == b"honest"


def test_the_deadline_ends_the_whole_process_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, f"sleep 1000 &\n{TELLS.format('$!', tmp_path)}\nwait")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ends(cut_by_the_deadline(tmp_path))


def test_the_end_of_this_process_ends_what_runs_and_what_would_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, f"sleep 1000 &\n{TELLS.format('$!', tmp_path)}\nwait")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ending = threading.Event()
    git = Git(tmp_path, patience=Patience(ending=ending))

    def end() -> None:
        while not (tmp_path / "pid").exists() and time.monotonic() < before + 30:
            ending.wait(0.01)
        ending.set()

    before = time.monotonic()
    watcher = threading.Thread(target=end)
    watcher.start()
    for _ in range(2):
        with pytest.raises(PassError) as error:
            git.run("fetch")
        assert error.value.reason == "Stopping"
    watcher.join()
    assert time.monotonic() - before < 30
    ends(int((tmp_path / "pid").read_text()))


def test_a_child_that_keeps_the_pipe_open_does_not_outlast_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, f"sleep 1000 &\n{TELLS.format('$!', tmp_path)}\nexit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ends(cut_by_the_deadline(tmp_path))


def test_a_command_that_closes_its_pipes_and_lives_on_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, f"{TELLS.format('$$', tmp_path)}\nexec sleep 1000 >&- 2>&-")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert not alive(cut_by_the_deadline(tmp_path))


def test_endless_output_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "exec cat /dev/zero")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(PassError) as error:
        Git(tmp_path).run("log")
    assert error.value.reason == "TreeTooLarge"


def test_endless_errors_are_read_but_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "head -c 3000000 /dev/zero >&2; echo done; exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = Git(tmp_path).ask("log")
    assert (done.code, done.out, len(done.err)) == (3, b"done\n", 65536)


def test_a_reader_that_stops_early_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, f"echo $$ > {tmp_path}/pid\nexec cat /dev/zero")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stream: Iterator[bytes] = Git(tmp_path).stream("log")
    assert next(stream)
    stream.close()  # type: ignore[attr-defined]  # a generator, typed as what callers may rely on
    assert not alive(int((tmp_path / "pid").read_text()))


def test_large_input_and_output_do_not_deadlock(repo: RepoBuilder) -> None:
    blob = repo.blob("x" * 1000)
    stdin = f"{blob}\n".encode() * 20_000
    out = b"".join(Git(repo.folder).stream("cat-file", "--batch", "--buffer", stdin=stdin))
    assert len(out) == 20_000 * (1000 + len(f"{blob} blob 1000\n\n"))


def test_git_inherits_no_descriptor_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "ls /proc/self/fd")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        listed = Git(tmp_path).run("log").decode().split()
        assert str(file.fileno()) not in listed


def test_commands_run_from_many_threads(repo: RepoBuilder) -> None:
    commit = repo.commit({"a": "1"})
    git = Git(repo.folder)
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(git.run("rev-list", operands=("refs/heads/main",))))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [commit.encode() + b"\n"] * 12


def test_without_git_the_remedy_is_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="install git"):
        Git(tmp_path)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"Host key verification failed.\nfatal: Could not read from remote repository.", "HostKeyInvalid"),
        (b"fatal: unable to access 'u': SSL certificate problem: unable to get local issuer", "TlsInvalid"),
        (b"fatal: unable to access 'u': The requested URL returned error: 302", "RedirectRefused"),
        (b"fatal: could not read Username for 'u': terminal prompts disabled", "AuthFailed"),
        (b"fatal: unable to access 'u': The requested URL returned error: 403", "AuthFailed"),
        (b"git@h: Permission denied (publickey).\nfatal: Could not read from remote", "AuthFailed"),
        (b"fatal: couldn't find remote ref refs/heads/x", "BranchMissing"),
        (b" ! [rejected] main -> refs/reconciler/head (non-fast-forward)\nerror: ", "HistoryRewritten"),
        (b" ! [rejected] v1 -> v1 (would clobber existing tag)", "TagMoved"),
        (b"fatal: unable to access 'u': Operation too slow. Less than 1 bytes/sec", "GitTimeout"),
        (b"ssh: connect to host h port 22: Connection timed out", "GitTimeout"),
        (b"fatal: unable to access 'u': Could not resolve host: h", "GitUnreachable"),
        (b"fatal: unable to access 'u': The requested URL returned error: 500", "GitUnreachable"),
        (b"error: object 8f: missingSpaceBeforeDate: x\nfatal: fsck error in packed object", "ObjectRefused"),
        (b"fatal: write error: No space left on device", "DiskFull"),
        (b"something nobody has seen", "GitFailed"),
        (b"", "GitFailed"),
    ],
)
def test_each_failure_has_its_reason(said: bytes, reason: str) -> None:
    assert failure("https://h/x", said).reason == reason


def test_what_the_server_says_neither_decides_nor_reaches_a_terminal_raw() -> None:
    error = failure("u", b"remote: Host key verification failed.\nfatal: the remote end hung up \x1b[31m\xff now\n")
    assert error.reason == "GitUnreachable"
    assert str(error).isprintable()
    assert "u: " in str(error)
