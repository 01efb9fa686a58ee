from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.systemd import Systemd, listening


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "notify"))
        found.settimeout(30)
        yield found


def test_it_says_what_systemd_understands(manager: socket.socket) -> None:
    service = Systemd(manager.getsockname())
    service.ready()
    service.alive()
    service.stopping()
    assert [manager.recv(64) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_an_abstract_address_is_written_with_an_at() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(f"\0reconciler-test-{os.getpid()}")
        found.settimeout(30)
        Systemd(f"@reconciler-test-{os.getpid()}").ready()
        assert found.recv(64) == b"READY=1"


def test_nobody_there_and_nobody_who_listens_is_no_error(manager: socket.socket, tmp_path: Path) -> None:
    Systemd().ready()
    Systemd(str(tmp_path / "nowhere")).ready()
    crowded = Systemd(manager.getsockname())
    for _ in range(10_000):  # more than its queue takes: none of them waits
        crowded.alive()


def test_what_a_service_starts_does_not_speak_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    assert listening().address == "/run/systemd/notify"
    assert "NOTIFY_SOCKET" not in os.environ
    assert listening() == Systemd()
