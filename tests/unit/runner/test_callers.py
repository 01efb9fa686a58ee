from __future__ import annotations

import os
import select
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler import wire
from reconciler.errors import PassError
from reconciler.runner import callers
from reconciler.runner.callers import LONGEST_REQUEST, Caller, Callers
from tests.kit.terraform import until

HUGE = "x" * (1 << 20)


def answer(request: wire.Message) -> wire.Message:
    match request:
        case {"say": "huge"}:
            return {"answer": HUGE}
        case {"say": "no"}:
            raise PassError("Refused", "Not that.")
        case {"say": "disk"}:
            raise OSError(28, "No space left on device")
    return {"answer": request.get("say")}


@dataclass
class Loop:
    """A service's loop with nothing in it but its callers, in a thread."""

    path: Path
    users: frozenset[int] = frozenset({os.getuid()})
    listener: socket.socket = field(init=False)
    callers: Callers = field(init=False)

    def __post_init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.callers = Callers(self.selector, answer, self.users)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.setblocking(False)
        self.listener.listen(500)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.poke, self.poked = socket.socketpair()
        self.selector.register(self.poked, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while True:
            for key, events in self.selector.select(self.callers.expire()):
                if key.fileobj is self.listener:
                    self.callers.accept(self.listener)
                elif isinstance(key.data, Caller):
                    self.callers.attend(key.data, events)
                elif self.poked.recv(1) == b"w":
                    self.callers.wake_watchers()
                else:
                    return

    def close(self) -> None:
        self.poke.send(b"q")
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self.poke.close()
        self.selector.close()

    def connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(20)
        peer.connect(str(self.path))
        return peer

    def ask(self, say: str) -> object:
        return wire.ask(self.path, {"say": say})["answer"]


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with closing(Loop(tmp_path / "s")) as running:
        yield running


def ended(peer: socket.socket) -> bool:
    """Whether the other side hung up, waiting for it."""
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def test_one_request_one_answer(loop: Loop) -> None:
    with loop.connect() as peer:
        peer.sendall(b'{"say": ')
        peer.sendall(b'"hello"}\n{"say": "more"}\n')
        assert wire.receive(peer) == {"answer": "hello"}
        assert ended(peer)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{\n", "BadRequest"),
        (b"\n", "BadRequest"),
        (b"[1]\n", "BadRequest"),
        (b'"say"\n', "BadRequest"),
        (b"\xff\xfe\n", "BadRequest"),
        (b"[" * 60_000 + b"\n", "BadRequest"),
        (b"x" * (LONGEST_REQUEST + 2), "BadRequest"),
        (b'{"say": "no"}\n', "Refused"),
        (b'{"say": "disk"}\n', "HostFault"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(line: bytes, reason: str, loop: Loop) -> None:
    with loop.connect() as peer:
        peer.sendall(line)
        assert wire.receive(peer)["reason"] == reason
        assert ended(peer)
    assert loop.ask("still there") == "still there"


def test_nobody_waits_for_who_is_slow_to_speak_or_to_listen(loop: Loop) -> None:
    with loop.connect() as mute, loop.connect() as halfway, loop.connect() as deaf:
        halfway.sendall(b'{"say": "hel')
        deaf.sendall(b'{"say": "huge"}\n')
        mute.sendall(b"")
        for number in range(20):
            assert loop.ask(str(number)) == str(number)
        halfway.sendall(b'lo"}\n')
        assert wire.receive(halfway) == {"answer": "hello"}
        with deaf.makefile("rb") as file:
            assert len(file.read()) == len(HUGE) + len('{"answer":""}\n')


def test_who_takes_too_long_is_cut_off_and_who_watches_is_not(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    with loop.connect() as watcher:
        watcher.sendall(b'{"verb": "watch"}\n')
        until(lambda: any(c.watching for c in loop.callers._callers), "it watches")
        monkeypatch.setattr(callers, "EXCHANGE_SECONDS", 0.2)
        with loop.connect() as mute, loop.connect() as deaf:
            mute.sendall(b'{"say": "hel')
            deaf.sendall(b'{"say": "huge"}\n')
            assert ended(mute)
            until(lambda: len(loop.callers._callers) == 1, "the deaf one is cut off too")
        loop.poke.send(b"w")
        assert watcher.recv(10) == b"\n"


def test_a_watcher_that_does_not_read_is_woken_once_and_holds_up_nobody(loop: Loop) -> None:
    with loop.connect() as deaf, loop.connect() as good:
        for peer in (deaf, good):
            peer.sendall(b'{"verb": "watch"}\n')
        until(lambda: sum(c.watching for c in loop.callers._callers) == 2, "both watch")
        for _ in range(2000):
            loop.poke.send(b"w")
            assert good.recv(1) == b"\n"
        assert deaf.recv(1) == b"\n"


def test_a_watcher_that_went_away_is_forgotten(loop: Loop) -> None:
    with loop.connect() as watcher:
        watcher.sendall(b'{"verb": "watch"}\n')
        until(lambda: loop.callers._callers, "it is there")
    until(lambda: not loop.callers._callers, "it is gone")
    loop.poke.send(b"w")
    assert loop.ask("still there") == "still there"


def test_a_crowd_makes_room_for_who_comes_after(loop: Loop) -> None:
    crowd = [loop.connect() for _ in range(callers.MOST + 20)]
    assert loop.ask("let me in") == "let me in"
    assert ended(crowd[0])
    assert len(loop.callers._callers) <= callers.MOST
    for peer in crowd:
        peer.close()


def test_who_is_not_named_is_refused_unheard(tmp_path: Path) -> None:
    with closing(Loop(tmp_path / "s", users=frozenset({os.getuid() + 1}))) as loop, loop.connect() as peer:
        said = wire.receive(peer)
        assert said["reason"] == "NotAllowed"
        assert f"user {os.getuid()} may not talk to the runner" in str(said["error"])
        assert ended(peer)
        with pytest.raises(BrokenPipeError):
            peer.sendall(b'{"say": "hello"}\n')


def test_who_is_refused_before_it_speaks_learns_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send, serving = wire.send, Loop(tmp_path / "s", users=frozenset())

    def late(peer: socket.socket, message: wire.Message) -> None:
        assert select.select([peer], [], [], 20)[0]  # the refusal is there
        until(lambda: not serving.callers._callers, "the other side hangs up")
        send(peer, message)

    monkeypatch.setattr(wire, "send", late)
    with closing(serving), pytest.raises(PassError, match="may not talk to the runner") as refused:
        wire.ask(tmp_path / "s", {"say": "hello"})
    assert refused.value.reason == "NotAllowed"
