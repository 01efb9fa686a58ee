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
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler.durable import is_locked
from reconciler.errors import ConfigError
from reconciler.runner.jail import probe
from reconciler.runner.jail.cell import Cell
from reconciler.runner.jail.egress import noted
from reconciler.runner.jail.tier import BEYOND, FALLBACK, STRICT, TASK, TIERS, open_sandbox
from reconciler.runner.jail.trial import Sinks
from reconciler.runner.terraform.binary import Engine
from reconciler.runner.terraform.engine import Conversation, deadline_in
from reconciler.runner.terraform.process import Command, Jail, Outlet, Stop
from tests.kit.jails import Yard, yard
from tests.kit.terraform import static_engine

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
    "through-the-proxy",  # there is none outside; tests/unit/runner/jail/test_egress.py has the controls
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


@pytest.fixture(params=TIERS)
def place(request: pytest.FixtureRequest) -> Iterator[Yard]:
    with yard(request.param) as found:
        yield found


def expected() -> set[str]:
    """What gets through where there is no jail."""
    missing = set() if platform.machine() == "x86_64" else {"old-abi"}
    return probe.TRIES.keys() - NEVER - missing - (set() if WITH_ROOT else ONLY_ROOT)


def tried(place: Yard, *, jailed: bool) -> tuple[dict[str, Any], dict[str, str], bool]:
    """Every try in one process of `Command`, with or without a jail: the answers, what the sinks got, and who lives on."""
    work = place.work
    work.mkdir()
    probes = place.probes()
    jail: Jail | None = place.jailer(place.readable) if jailed else None
    with Sinks(place.folder / "outside") as sinks:
        context = sinks.context(place.readable)
        command = Command(
            (*probes, json.dumps(context)),
            work,
            {},
            output=Outlet(work / "out"),
            errors=Outlet(work / "err"),
            jail=jail,
        )
        command.wait(Stop(time.monotonic() + SECONDS, signal.SIGTERM, 5), lambda: None)
        got = sinks.got()
    return json.loads((work / "out").read_text()), got, is_locked(work / "survivor")


def held(tier: str, answers: Mapping[str, Any], got: Mapping[str, str]) -> None:
    """Nothing got out that the tier promises to keep in."""
    assert answers.keys() == probe.TRIES.keys()
    assert len(answers.keys() - BEYOND[tier]) >= 33
    escaped = {name: evidence for name, evidence in {**answers, **got}.items() if evidence is not None}
    assert {name: evidence for name, evidence in escaped.items() if name not in BEYOND[tier]} == {}


def test_nothing_gets_out_of_the_jail(place: Yard) -> None:
    answers, got, survived = tried(place, jailed=True)
    held(place.tier, answers, got)
    assert not survived
    assert len(noted(place.refused)) == (4 if place.tier == STRICT else 0)


def test_control_without_a_jail_the_same_tries_get_out() -> None:
    with yard(STRICT) as place:
        answers, got, survived = tried(place, jailed=False)
        try:
            assert {name for name in expected() if answers[name] is None} == set()
            assert {"sink-tcp", "sink-udp", "sink-unix", "sink-abstract"} <= got.keys()
            assert survived
        finally:
            with suppress(ProcessLookupError, ValueError):
                pid = int((place.work / "survivor").read_text())
                os.killpg(os.getpgid(pid), signal.SIGKILL)


def hostile_engine(place: Yard, sinks: Sinks) -> Engine:
    """An engine that tries to get out at every step, as a provider would that it starts."""
    context, probes = json.dumps(sinks.context(place.readable)), place.probes()
    path = place.folder / "hostile"
    path.write_text(
        f"#!{place.python} -IS\nimport os, sys\n"
        "handle = os.open(sys.argv[1] + '.answers', os.O_WRONLY | os.O_CREAT)\n"
        "os.dup2(handle, 1)\nos.close(handle)\n"
        f"os.execv({str(place.python)!r}, [*{list(probes)!r}, {context!r}])\n"
    )
    path.chmod(0o755)
    return Engine("terraform", path, "1.11.4", "registry.terraform.io")


def test_nothing_gets_out_at_init_at_plan_and_at_apply(place: Yard) -> None:
    """The steps as a job takes them, of an engine that is hostile from its first instruction."""
    work = place.work
    work.mkdir(mode=0o700)
    (work / "main.tf.json").write_text("{}")
    with Sinks(place.folder / "outside") as sinks:
        engine = hostile_engine(place, sinks)
        jail = place.jailer(engine.binary, place.readable)
        talk = Conversation(engine, work, {}, place.folder / "log", jail=jail)
        talk.init(deadline_in(SECONDS))
        talk.plan(deadline_in(SECONDS))
        (work / "tfplan").write_text("")
        talk.apply(deadline_in(SECONDS))
        for step in STEPS:
            held(place.tier, json.loads((work / f"{step}.answers").read_text()), {})
        held(place.tier, dict.fromkeys(probe.TRIES), sinks.got())
    assert not is_locked(work / "survivor")


def test_a_tier_is_chosen_by_what_holds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The best that this machine offers, at least what is configured; what cannot run says so."""
    engine = static_engine()

    def refused(*_: object) -> None:
        raise PermissionError(1, "a user namespace: Operation not permitted")

    with yard(TASK) as place:
        opened = open_sandbox(TASK, engine, embedded=False, scratch=place.folder / "probes")
        assert opened.tier == STRICT
        for name in ("enter", "enter_as"):
            monkeypatch.setattr(f"reconciler.runner.jail.keeper.{name}", refused)
        opened = open_sandbox(TASK, engine, embedded=False, scratch=place.folder / "probes", networked=("prod",))
        assert opened.tier == TASK
        told = capsys.readouterr().err
        assert "no strict tier here: sandbox: The jail cannot be made" in told
        assert "no fallback tier here: sandbox: tier fallback" in told
        with pytest.raises(ConfigError, match="user namespace"):
            open_sandbox(FALLBACK, engine, embedded=False, scratch=place.folder / "probes", networked=("prod",))


def test_jobs_run_as_other_users_and_see_no_network_where_there_are_no_namespaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "a user namespace: Operation not permitted")

    for name in ("enter", "enter_as"):
        monkeypatch.setattr(f"reconciler.runner.jail.keeper.{name}", refused)
    with yard(FALLBACK) as place:
        place.folder.chmod(0o700)
        with pytest.raises(ConfigError, match=f"run `chmod o\\+x {place.folder}`"):
            open_sandbox(FALLBACK, static_engine(), embedded=False, scratch=place.folder / "probes")
        place.folder.chmod(0o711)
        opened = open_sandbox(FALLBACK, static_engine(), embedded=False, scratch=place.folder / "probes")
        assert opened.tier == FALLBACK
        assert opened.users is not None


def test_a_jail_with_a_hole_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start of a runner whose jails do not hold: here one that shows the whole host."""
    whole = Cell.command
    folder = () if WITH_ROOT else ("--bind", str(tmp_path), str(tmp_path))

    def leaky(cell: Cell, *arguments: Any) -> list[str]:
        words = whole(cell, *arguments)
        at = words.index("--remount-ro")
        return [*words[:at], "--bind", "/proc", "/proc", *folder, *words[at + 2 :]]

    monkeypatch.setattr(Cell, "command", leaky)
    with pytest.raises(ConfigError) as error:
        open_sandbox(STRICT, Path("/bin/true"), embedded=False, scratch=tmp_path / "probes")
    others = () if WITH_ROOT else ("read-credentials", "write-outside")
    for name in ("read-own-environment", "write-root", *others):
        assert f"{name} (" in str(error.value)
    assert "user namespaces" in str(error.value)


def test_a_host_without_user_namespaces_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "a user namespace: Operation not permitted")

    for name in ("enter", "enter_as"):
        monkeypatch.setattr(f"reconciler.runner.jail.keeper.{name}", refused)
    with pytest.raises(ConfigError, match=r"The jail could not be made: .*user namespace") as error:
        open_sandbox(STRICT, Path("/bin/true"), embedded=False, scratch=tmp_path)
    assert "kernel.apparmor_restrict_unprivileged_userns" in str(error.value)
