"""Which engine is found, how its processes end, and what its output becomes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reconciler.durable import FileLock, is_locked
from reconciler.errors import ConfigError
from reconciler.runner.terraform.diagnose import Diagnostic
from reconciler.runner.terraform.engine import Engine, find_engine, made_ours
from reconciler.runner.terraform.masking import mask
from reconciler.runner.terraform.process import Command, Outlet, Stop
from reconciler.runner.terraform.transcript import Transcript
from tests.kit.terraform import until
from tests.kit.written import Written


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def engine(folder: Path, says: str = "Terraform v1.11.4") -> Path:
    return program(folder / "engine", f"echo '{says}'")


# --- finding -----------------------------------------------------------------------------------------------------


def test_pinned_binary(tmp_path: Path) -> None:
    path = engine(tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = find_engine(str(path), "1.11.4", f"sha256:{digest}", tmp_path)
    assert found == Engine("terraform", path, "1.11.4", "registry.terraform.io")


def test_opentofu_has_its_own_registry(tmp_path: Path) -> None:
    found = find_engine(str(engine(tmp_path, "OpenTofu v1.11.2")), None, None, tmp_path)
    assert (found.kind, found.version, found.registry) == ("tofu", "1.11.2", "registry.opentofu.org")
    assert not found.speaks_json_at_init
    assert find_engine(str(engine(tmp_path, "OpenTofu v1.12.3")), None, None, tmp_path).speaks_json_at_init


@pytest.mark.parametrize(
    ("says", "version", "sha256", "message"),
    [
        ("Terraform v1.11.4", "1.11.5", None, "is 1.11.4, and 1.11.5 was expected"),
        ("Terraform v1.11.4", None, "0" * 64, "find out who replaced it"),
        ("Terraform v1.9.8", None, None, "1.10.0 or newer is needed"),
        ("busybox", None, None, "neither tofu nor terraform; it says: busybox"),
    ],
)
def test_another_engine_than_meant_is_refused(
    tmp_path: Path, says: str, version: str | None, sha256: str | None, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        find_engine(str(engine(tmp_path, says)), version, sha256, tmp_path)
    assert message in str(refused.value)


@pytest.mark.parametrize("path", ["terraform", "./terraform", "/no/such/engine", "/etc", "/etc/passwd"])
def test_what_is_no_program_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match=r"engine\.binary"):
        find_engine(path, None, None, tmp_path)


def test_program_that_does_not_start_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    with pytest.raises(ConfigError, match="does not run"):
        find_engine(str(path), None, None, tmp_path)


def test_auto_takes_tofu_then_terraform_then_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_engine("auto", None, None, tmp_path / "scratch").kind == "embedded"
    engine(tmp_path).rename(tmp_path / "terraform")
    assert find_engine(None, None, None, tmp_path).kind == "terraform"
    engine(tmp_path, "OpenTofu v1.12.0").rename(tmp_path / "tofu")
    assert find_engine("auto", None, None, tmp_path).kind == "tofu"


def test_without_the_extra_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"gitops-reconciler\[embedded\]"):
        find_engine("embedded", None, None, tmp_path)


def test_launcher_runs_in_an_empty_environment_and_is_written_once(tmp_path: Path) -> None:
    found = find_engine("embedded", None, None, tmp_path)
    before = found.binary.stat().st_mtime_ns
    assert find_engine("embedded", found.version, None, tmp_path) == found
    assert found.binary.stat().st_mtime_ns == before
    answer = subprocess.run([found.binary, "version", "-json"], env={}, cwd="/", capture_output=True, check=True)
    assert json.loads(answer.stdout)["terraform_version"] == found.version


def test_launcher_copes_with_an_interpreter_that_no_shebang_can_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "with a space"
    folder.mkdir()
    (folder / "python").symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    found = find_engine("embedded", None, None, tmp_path)
    assert found.binary.read_text().startswith("#!/bin/sh\n")
    assert found.kind == "embedded"


# --- processes ---------------------------------------------------------------------------------------------------


def start(tmp_path: Path, script: str, *locks: int) -> Command:
    argv = ("/bin/sh", "-c", script)
    return Command(
        argv,
        tmp_path,
        {"PATH": "/usr/bin:/bin"},
        output=Outlet(tmp_path / "out"),
        errors=Outlet(tmp_path / "err"),
        locks=locks,
    )


def stop_in(seconds: float, grace: float = 30) -> Stop:
    return Stop(time.monotonic() + seconds, signal.SIGTERM, grace)


def nothing() -> None:
    """Do nothing between looks."""


def test_end_is_noticed_at_once_and_output_is_private(tmp_path: Path) -> None:
    command = start(tmp_path, "echo out; echo err >&2; sleep 0.3; exit 3")
    ended = command.wait(stop_in(30), nothing)
    assert (ended.code, ended.stopped, ended.killed) == (3, False, False)
    assert ((tmp_path / "out").read_text(), (tmp_path / "err").read_text()) == ("out\n", "err\n")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_what_is_only_in_memory_is_read_as_it_comes(tmp_path: Path) -> None:
    with Outlet(None) as output, Outlet(None) as errors:
        command = Command(("/bin/sh", "-c", "echo one; echo two >&2"), tmp_path, {}, output=output, errors=errors)
        command.wait(stop_in(30), nothing)
        assert (output.size, output.read(2), output.read(100), output.read(100)) == (4, b"on", b"e\n", b"")
        assert errors.read(100) == b"two\n"
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("other", ["link", "file", "shared"])
def test_temporary_files_go_where_nobody_else_reads_or_writes(other: str, tmp_path: Path) -> None:
    folder, stranger = tmp_path / "engine-x", tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "kept").touch()
    if other == "link":
        folder.symlink_to(stranger)
    elif other == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
    if other == "file":  # nothing that stands in the way of a folder is removed but a folder or a link
        assert not made_ours(folder)
    else:
        assert made_ours(folder)
        assert not folder.is_symlink()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert made_ours(folder)
    assert (stranger / "kept").exists()


def test_only_the_leader_is_asked_and_the_rest_is_swept(tmp_path: Path) -> None:
    """The child would write a note if the signal reached it too."""
    child = "(trap 'touch reached' TERM; touch started; while :; do sleep 0.01; done) & echo $! > child"
    command = start(tmp_path, f"trap 'exit 7' TERM; {child}; touch noted; while :; do sleep 0.01; done")
    until(lambda: (tmp_path / "started").exists() and (tmp_path / "noted").exists(), "the child, and its number")
    ended = command.wait(stop_in(0), nothing)
    assert (ended.code, ended.stopped, ended.killed) == (7, True, False)
    assert not (tmp_path / "reached").exists()
    child_id = int((tmp_path / "child").read_text())
    until(lambda: not alive(child_id), "the end of the child")


def alive(pid: int) -> bool:
    """A zombie whose new parent takes its time is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_heeds_nothing_is_killed(tmp_path: Path) -> None:
    command = start(tmp_path, "trap '' TERM; touch started; while :; do sleep 0.01; done")
    until((tmp_path / "started").exists, "the start")
    ended = command.wait(stop_in(0, grace=0.1), nothing)
    assert (ended.code, ended.stopped, ended.killed) == (-signal.SIGKILL, True, True)


def test_what_an_engine_leaves_behind_holds_no_lock(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.take()
    command = start(tmp_path, "sleep 600 & echo $! > child", lock.fileno())
    ended = command.wait(stop_in(30), nothing)
    assert (ended.code, ended.stopped, ended.killed) == (0, False, False)
    lock.release()
    until(lambda: not is_locked(tmp_path / "lock"), "the lock is free")
    assert not alive(int((tmp_path / "child").read_text()))


def test_it_is_asked_once(tmp_path: Path) -> None:
    command = start(tmp_path, "trap 'echo asked; sleep 0.3; exit 0' INT; touch started; while :; do sleep 0.01; done")
    until((tmp_path / "started").exists, "the start")
    command.ask(signal.SIGINT)
    command.ask(signal.SIGINT)
    assert command.wait(stop_in(30), nothing).stopped
    assert (tmp_path / "out").read_text() == "asked\n"


# --- output ------------------------------------------------------------------------------------------------------


def line(message: str, **more: object) -> bytes:
    return json.dumps({"@level": "info", "@message": message, **more}).encode() + b"\n"


def transcript(tmp_path: Path, *, mask: str = "") -> tuple[Transcript, io.BytesIO]:
    (tmp_path / "out").touch()
    (tmp_path / "err").touch()
    log = io.BytesIO()
    return Transcript(
        Written(tmp_path / "out"), log, lambda text: text.replace(mask, "***") if mask else text, ['"a": 1']
    ), log


def test_lines_are_taken_when_they_are_whole(tmp_path: Path) -> None:
    said, log = transcript(tmp_path, mask="secret")
    with (tmp_path / "out").open("ab") as out:
        out.write(line("one")[:10])
        out.flush()
        said.read()
        assert log.getvalue() == b""
        out.write(line("one")[10:] + line("a secret"))
    said.finish(Written(tmp_path / "err"), 0)
    assert log.getvalue() == b"one\na ***\n"


def test_diagnostics_are_kept_and_written_out(tmp_path: Path) -> None:
    said, log = transcript(tmp_path)
    diagnostic = {"severity": "error", "summary": "No", "detail": "one\ntwo", "address": "a.b"}
    (tmp_path / "out").write_bytes(line("Error: No", type="diagnostic", diagnostic=diagnostic))
    said.finish(Written(tmp_path / "err"), 1)
    assert said.diagnostics == [Diagnostic("error", "No", "one\ntwo", "a.b")]
    assert log.getvalue() == b"Error: No (a.b)\n  one\n  two\n"


def test_plain_words_of_a_failure_stand_in_for_a_diagnostic(tmp_path: Path) -> None:
    said, log = transcript(tmp_path)
    (tmp_path / "out").write_bytes(b"{not json\n\xff\n")
    (tmp_path / "err").write_bytes(b"panic: oh\n")
    said.finish(Written(tmp_path / "err"), 11)
    assert said.diagnostics == [Diagnostic("error", "{not json\n\ufffd\npanic: oh")]
    assert log.getvalue().endswith(b"panic: oh\n")


def test_a_secret_is_found_where_plain_words_are_wrapped_and_before_they_are_cut(tmp_path: Path) -> None:
    secret = "correct horse battery staple"
    (tmp_path / "out").touch()
    (tmp_path / "err").write_text(f"panic: correct\n\u2502 horse battery\n\u2502 staple\n{'x' * 1988}")
    log = io.BytesIO()
    said = Transcript(Written(tmp_path / "out"), log, lambda text: mask(text, frozenset({secret})), [])
    said.finish(Written(tmp_path / "err"), 11)
    [failure] = said.diagnostics
    assert failure.summary.startswith("(sensitive)\nxxx")
    assert log.getvalue().startswith(b"panic: (sensitive)\nxxx")


def test_what_an_apply_did_wrong_is_written_when_all_its_secrets_are_known(tmp_path: Path) -> None:
    hook = {"action": "create", "id_key": "id", "id_value": "made-up", "resource": {"addr": "a.b"}}
    (tmp_path / "out").write_bytes(
        line(
            "Error: No", type="diagnostic", diagnostic={"severity": "error", "summary": "No", "detail": "a made-up one"}
        )
        + line("a.b: Creation complete after 0s [id=made-up]", type="apply_complete", hook=hook)
        + line("Apply ends")
    )
    (tmp_path / "err").touch()
    known: set[str] = set()
    log = io.BytesIO()
    said = Transcript(Written(tmp_path / "out"), log, lambda text: mask(text, frozenset(known)), [], patient=True)
    said.read()
    assert log.getvalue() == b"a.b: Creation complete after 0s\nApply ends\n"
    known.add("made-up")
    said.finish(Written(tmp_path / "err"), 1)
    assert log.getvalue().endswith(b"Apply ends\nError: No\n  a (sensitive) one\nMade: a.b [id=(sensitive)]\n")


def test_plain_words_of_a_success_are_no_error(tmp_path: Path) -> None:
    said, _ = transcript(tmp_path)
    (tmp_path / "err").write_bytes(b"a warning of the loader\n")
    said.finish(Written(tmp_path / "err"), 0)
    assert said.diagnostics == []
