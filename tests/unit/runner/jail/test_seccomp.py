"""The filter, run as the kernel runs it, for both machines."""

from __future__ import annotations

import errno
import struct

import pytest

from reconciler.errors import ConfigError
from reconciler.runner.jail.seccomp import ALLOW, CALLS, KILL, LOOKED_INTO, MACHINES, REFUSE, number, program

EPERM, ENOSYS, FAMILY = (REFUSE | code for code in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT))
NEW_USER, THREAD = 0x10000000, 0x50F00
HARMLESS = {"x86_64": (0, 1, 9, 39, 59, 202, 257), "aarch64": (63, 64, 222, 172, 221, 98, 56)}  # read ... openat


def run(machine: str, call: int, *arguments: int, audit: int | None = None, network: bool = True) -> int:
    """What the filter says of a call."""
    given = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", call, MACHINES[machine].audit if audit is None else audit, 0, *given)
    code = program(machine, network=network)
    at = accumulator = 0
    while True:
        what, yes, no, value = struct.unpack_from("<HBBI", code, at)
        at += 8
        if what == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif what == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x45: bool(accumulator & value)}[what]
            at += 8 * (yes if holds else no)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_listed_is_refused_and_nothing_else(machine: str) -> None:
    refused = {found for name in CALLS if (found := number(name, machine)) is not None}
    looked_into = {found for name in LOOKED_INTO if (found := number(name, machine)) is not None}
    for call in range(463):
        if call in refused:
            assert run(machine, call) == EPERM, call
        elif call not in looked_into:
            assert run(machine, call) == ALLOW, call
    assert not refused & set(HARMLESS[machine])


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_that_are_newer_than_the_list_do_not_exist(machine: str) -> None:
    assert run(machine, 463) == ENOSYS
    assert run(machine, 1 << 20) == ENOSYS
    assert run(machine, number("clone3", machine) or 0) == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_is_killed(machine: str) -> None:
    for audit in (0, 0x40000003, *(one.audit for name, one in MACHINES.items() if name != machine)):
        assert run(machine, 39, audit=audit) == KILL


def test_the_third_abi_of_x86_is_killed() -> None:
    assert run("x86_64", 0x40000000 | 39) == KILL
    assert run("x86_64", 0xFFFFFFFF) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_may_be_made_and_namespaces_not(machine: str) -> None:
    clone = number("clone", machine) or 0
    assert run(machine, clone, THREAD) == ALLOW
    for bit in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, NEW_USER, 0x20000000, 0x40000000):
        assert run(machine, clone, THREAD | bit) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_nobody_types_into_a_terminal(machine: str) -> None:
    ioctl = number("ioctl", machine) or 0
    assert run(machine, ioctl, 0, 0x5412) == EPERM
    assert run(machine, ioctl, 0, 0x541C) == EPERM
    assert run(machine, ioctl, 0, 0x100005412) == EPERM  # the kernel looks at the low half
    assert run(machine, ioctl, 0, 0x5401) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_sockets_are_of_four_families(machine: str) -> None:
    socket = number("socket", machine) or 0
    for family in range(64):
        expected = ALLOW if family in (1, 2, 10, 16) else FAMILY
        assert run(machine, socket, family, 1, 0) == expected, family
    assert run(machine, socket, 16, 3, 9) == FAMILY  # netlink's audit
    assert run(machine, socket, 2, 1, 6) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_without_a_network_only_unix_sockets_are_left(machine: str) -> None:
    socket = number("socket", machine) or 0
    for family in range(64):
        assert run(machine, socket, family, 1, 0, network=False) == (ALLOW if family == 1 else FAMILY), family
    assert run(machine, number("ptrace", machine) or 0, network=False) == EPERM
    assert run(machine, 63, network=False) == run(machine, 63)


def test_there_is_none_for_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    program.cache_clear()
    with pytest.raises(ConfigError, match="riscv64, only for x86_64 and aarch64"):
        program()
