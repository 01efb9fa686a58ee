"""What a hostile engine, provider or module tries, at init, at plan and at apply: nothing gets out of a jail.

The same tries without a jail are the control: a try that cannot succeed here proves nothing. The probes are those that a
runner makes at its start; the interpreter that they need is bound into these jails on purpose.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler.durable import is_locked
from reconciler.errors import ConfigError
from reconciler.runner.jail import probe
from reconciler.runner.jail.cell import Cell
from reconciler.runner.jail.egress import noted
from reconciler.runner.jail.keeper import Jailer
from reconciler.runner.jail.tier import STRICT, Sinks, find_bwrap, interpreter, open_sandbox, program
from reconciler.runner.terraform.binary import Engine
from reconciler.runner.terraform.engine import Conversation, deadline_in
from reconciler.runner.terraform.process import Command, Stop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jails are made of Linux's namespaces")

SECONDS = 90.0
STEPS = ("init", "plan", "apply")
WITH_ROOT = os.getuid() == 0

# What nobody can do from here even without a jail, or what is hostile only to a jail.
NEVER = {
    "inherit-handles",  # `Command` hands on nothing but locks: its own test below
    "inherit-variable",
    "have-a-home",
    "udp",  # the sink tells
    "outlive",  # the lock tells
    "other-abi",  # the kernel may be without it
    "crypto-socket",
    "machine-socket",
    "through-the-proxy",  # there is none outside; tests/unit/test_jail_egress.py has the controls
    "metadata-through-the-proxy",
    "mapped-through-the-proxy",
    "plain-through-the-proxy",
    "call-kexec_load",  # whether root may is the machine's affair
    "call-init_module",
    "call-finit_module",
    "call-userfaultfd",
    "call-perf_event_open",
    "call-bpf",
    "a-route",
    "other-interfaces",
    "many-handles",  # a machine may have a lower limit
    "a-core-file",
    "many-processes",
}
ONLY_ROOT = {
    "read-shadow", "write-root", "see-any-process", "hold-capabilities", "packet-socket", "raw-socket", "audit-socket",
    "call-mount", "call-umount2", "call-pivot_root", "call-chroot", "call-fsopen", "call-open_tree", "call-move_mount",
    "call-open_by_handle_at", "call-sethostname", "call-quotactl", "call-swapon", "call-acct", "call-setns", "trace-process",
}  # fmt: skip


@pytest.fixture(scope="module")
def bwrap() -> Path:
    return find_bwrap()


def expected() -> set[str]:
    """What gets through where there is no jail."""
    missing = set() if platform.machine() == "x86_64" else {"old-abi"}
    return probe.TRIES.keys() - NEVER - missing - (set() if WITH_ROOT else ONLY_ROOT)


def tried(folder: Path, bwrap: Path | None) -> tuple[dict[str, Any], dict[str, str], bool]:
    """Every try in one process of `Command`, with or without a jail: the answers, what the sinks got, and who lives on."""
    work, readable = folder / "work", folder / "readable"
    work.mkdir()
    readable.mkdir()
    jail = None
    if bwrap is not None:
        jail = Jailer(Cell(bwrap, work, (*interpreter(), readable), folder / "refused"))
    with Sinks(folder / "outside") as sinks:
        context = sinks.context(readable)
        command = Command(
            (*program(), json.dumps(context)), work, {}, output=work / "out", errors=work / "err", jail=jail
        )
        command.wait(Stop(time.monotonic() + SECONDS, signal.SIGTERM, 5), lambda: None)
        got = sinks.got()
    return json.loads((work / "out").read_text()), got, is_locked(work / "survivor")


def test_nothing_gets_out_of_the_strict_jail(tmp_path: Path, bwrap: Path) -> None:
    answers, got, survived = tried(tmp_path, bwrap)
    assert answers.keys() == probe.TRIES.keys()
    assert len(answers) >= 33
    assert {name: evidence for name, evidence in answers.items() if evidence is not None} == {}
    assert got == {}
    assert not survived
    assert len(noted(tmp_path / "refused")) == 4


def test_control_without_a_jail_the_same_tries_get_out(tmp_path: Path) -> None:
    answers, got, survived = tried(tmp_path, None)
    try:
        assert {name for name in expected() if answers[name] is None} == set()
        assert {"sink-tcp", "sink-udp", "sink-unix", "sink-abstract"} <= got.keys()
        assert survived
    finally:
        with suppress(ProcessLookupError, ValueError):
            pid = int((tmp_path / "work" / "survivor").read_text())
            os.killpg(os.getpgid(pid), signal.SIGKILL)


def hostile_engine(folder: Path, readable: Path, sinks: Sinks) -> Engine:
    """An engine that tries to get out at every step, as a provider would that it starts."""
    context = json.dumps(sinks.context(readable))
    path = folder / "hostile"
    path.write_text(
        f"#!{program()[0]} -IS\nimport os, sys\n"
        "handle = os.open(sys.argv[1] + '.answers', os.O_WRONLY | os.O_CREAT)\n"
        "os.dup2(handle, 1)\nos.close(handle)\n"
        f"os.execv({program()[0]!r}, [*{list(program())!r}, {context!r}])\n"
    )
    path.chmod(0o755)
    return Engine("terraform", path, "1.11.4", "registry.terraform.io")


def test_nothing_gets_out_at_init_at_plan_and_at_apply(tmp_path: Path, bwrap: Path) -> None:
    """The steps as a job takes them, of an engine that is hostile from its first instruction."""
    work, readable = tmp_path / "work", tmp_path / "readable"
    work.mkdir(mode=0o700)
    readable.mkdir()
    (work / "main.tf.json").write_text("{}")
    with Sinks(tmp_path / "outside") as sinks:
        engine = hostile_engine(tmp_path, readable, sinks)
        jail = Jailer(Cell(bwrap, work, (*interpreter(), engine.binary, readable), tmp_path / "refused"))
        talk = Conversation(engine, work, {}, tmp_path / "log", jail=jail)
        talk.init(deadline_in(SECONDS))
        talk.plan(deadline_in(SECONDS))
        (work / "tfplan").write_text("")
        talk.apply(deadline_in(SECONDS))
        for step in STEPS:
            answers = json.loads((work / f"{step}.answers").read_text())
            assert answers.keys() == probe.TRIES.keys(), step
            assert {name: evidence for name, evidence in answers.items() if evidence is not None} == {}, step
        assert sinks.got() == {}
    assert not is_locked(work / "survivor")


def test_a_jail_with_a_hole_is_noticed(tmp_path: Path, bwrap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start of a runner whose jails do not hold: here one that shows the whole host."""
    whole = Cell.command

    def leaky(cell: Cell, *arguments: Any) -> list[str]:
        words = whole(cell, *arguments)
        at = words.index("--remount-ro")
        return [*words[:at], "--bind", "/proc", "/proc", "--bind", str(tmp_path), str(tmp_path), *words[at + 2 :]]

    monkeypatch.setattr(Cell, "command", leaky)
    with pytest.raises(ConfigError) as error:
        open_sandbox(STRICT, Path("/bin/true"), embedded=False, scratch=tmp_path / "probes")
    for name in ("read-credentials", "read-own-environment", "write-outside", "write-root"):
        assert f"{name} (" in str(error.value)
    assert "user namespaces" in str(error.value)


def test_a_host_without_user_namespaces_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "a user namespace: Operation not permitted")

    monkeypatch.setattr("reconciler.runner.jail.keeper.enter", refused)
    with pytest.raises(ConfigError, match=r"The jail could not be made: .*user namespace") as error:
        open_sandbox(STRICT, Path("/bin/true"), embedded=False, scratch=tmp_path)
    assert "kernel.apparmor_restrict_unprivileged_userns" in str(error.value)
