"""Who stands in for the engine ends as that would, or as one that is lost, whatever the worker answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.runner.jail.egress import Egress
from reconciler.runner.terraform.engine import deadline_in, lasting_environment
from reconciler.runner.terraform.process import Command, Outlet, Stop
from reconciler.runner.warm.loan import LOST, Door, Loan, Seat
from reconciler.runner.warm.spec import Spec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm workers take Linux")

SPEC = Spec(("prod",), (), Path("/mirror"), Path("/trees"), lasting_environment({"NAME": "value"}), Egress())
ENV = {**SPEC.env, "TF_CLI_CONFIG_FILE": "/there", "TMPDIR": "/tmp"}


class Played:
    """A worker that is played by this test: `answer` says what comes back for each thing that is asked."""

    def __init__(self, folder: Path) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.owner, owned = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.work = folder / "work"
        self.work.mkdir()
        (self.work / "main.tf.json").write_text("{}")
        self.loan = Loan(SPEC, 1, theirs, owned)
        self.seat = Seat(self.loan, self.work)
        self.heard: list[dict[str, Any]] = []

    def run(self, answer: Callable[[dict[str, Any], list[int]], list[bytes]], step: str = "plan") -> Command:
        command = Command(
            ("terraform", step),
            self.work,
            ENV,
            output=Outlet(self.work / "x.out"),
            errors=Outlet(self.work / "x.err"),
            jail=self.seat,
        )
        threading.Thread(target=self._play, args=(answer,), daemon=True).start()
        return command

    def _play(self, answer: Callable[[dict[str, Any], list[int]], list[bytes]]) -> None:
        while True:
            try:
                said, handles, _, _ = socket.recv_fds(self.ours, 1 << 16, 8)
            except OSError:
                return
            if not said:
                return
            self.heard.append(json.loads(said))
            answers = answer(self.heard[-1], list(handles))
            for handle in handles:
                os.close(handle)
            for one in answers:
                if not one:
                    self.ours.shutdown(socket.SHUT_RDWR)
                    return
                self.ours.send(one)

    def close(self) -> None:
        for one in (self.ours, self.owner, self.loan.control, self.loan.owner):
            one.close()


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    made = Played(tmp_path)
    yield made
    made.close()


def code_of(command: Command) -> int:
    return command.wait(Stop(deadline_in(30), signal.SIGTERM, 10), lambda: None).code


BEGUN = b'{"begun": "plan"}'


@pytest.mark.parametrize("code", [0, 1, 2])
def test_it_ends_as_the_command_did(played: Played, code: int) -> None:
    def answer(asked: dict[str, Any], handles: list[int]) -> list[bytes]:
        if asked["do"] == "fetch":
            return [b'{"fetched": []}']
        os.write(handles[0], b"said")
        return [BEGUN, json.dumps({"code": code}).encode()]

    assert code_of(played.run(answer)) == code
    assert played.heard[0] == {"do": "run", "argv": ["plan"]}
    assert (played.work / "x.out").read_bytes() == b"said"
    assert played.seat.whole


@pytest.mark.parametrize(
    "answers",
    [
        [b""],  # it dies at once
        [BEGUN, b""],
        [b"nonsense"],
        [b'{"begun": "apply"}', b'{"code": 0}'],
        [BEGUN, b"nonsense"],
        [BEGUN, b'{"code": "0"}'],
        [BEGUN, b'{"code": true}'],
        [BEGUN, b'{"code": 1000}'],
        [BEGUN, b'{"fetched": []}'],
        [BEGUN, b"[]"],
    ],
)
def test_it_is_lost_when_the_answer_is_not_one_of_an_engine(played: Played, answers: list[bytes]) -> None:
    assert code_of(played.run(lambda *_: answers)) == LOST
    assert not played.seat.whole
    assert b"worker is gone" in (played.work / "x.err").read_bytes()


def test_what_an_apply_left_comes_back_whole(played: Played) -> None:
    (played.work / "unit.tfstate").write_text("before")

    def answer(asked: dict[str, Any], handles: list[int]) -> list[bytes]:
        if asked["do"] == "fetch":
            os.write(handles[asked["names"].index("unit.tfstate")], b"after")
            return [b'{"fetched": ["unit.tfstate"]}']
        return [b'{"begun": "apply"}', b'{"code": 0}']

    assert code_of(played.run(answer, "apply")) == 0
    assert (played.work / "unit.tfstate").read_text() == "after"
    assert sorted(path.name for path in played.work.iterdir()) == ["main.tf.json", "unit.tfstate", "x.err", "x.out"]


def test_an_apply_whose_state_does_not_come_back_is_lost_and_leaves_the_old_one(played: Played) -> None:
    (played.work / "unit.tfstate").write_text("before")

    def answer(asked: dict[str, Any], handles: list[int]) -> list[bytes]:
        return [b""] if asked["do"] == "fetch" else [b'{"begun": "apply"}', b'{"code": 0}']

    assert code_of(played.run(answer, "apply")) == LOST
    assert (played.work / "unit.tfstate").read_text() == "before"


def test_a_signal_cancels_the_command(played: Played) -> None:
    def answer(asked: dict[str, Any], handles: list[int]) -> list[bytes]:
        return [b'{"code": 1}'] if asked["do"] == "cancel" else [BEGUN]

    command = played.run(answer)
    assert command.wait(Stop(deadline_in(0.5), signal.SIGTERM, 20), lambda: None).code == 1
    assert [one["do"] for one in played.heard] == ["run", "cancel"]


def test_a_plan_that_does_not_heed_a_cancel_is_given_up(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.runner.warm.loan.HEED", 1)
    command = played.run(lambda asked, _: [BEGUN] if asked["do"] == "run" else [])
    ended = command.wait(Stop(deadline_in(0.5), signal.SIGTERM, 20), lambda: None)
    assert (ended.code, ended.killed) == (LOST, False)


def test_a_worker_of_other_variables_is_refused(played: Played) -> None:
    with pytest.raises(ValueError, match="other variables"):
        played.seat.start(("terraform", "plan"), {**ENV, "NAME": "other"}, 1, 2, ())
    assert played.seat.ran == []


def test_where_nobody_listens_there_is_no_worker() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    assert Door(ours).ask(SPEC, "what") is None
    ours.close()


def test_where_nobody_answers_there_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.runner.warm.loan.PATIENCE", 0.1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    assert Door(ours).ask(SPEC, "what") is None
    for one in (ours, theirs):
        one.close()


def test_specs_differ_in_whatever_a_worker_could_tell_apart() -> None:
    others = [
        Spec(("stage",), (), SPEC.mirror, SPEC.trees, SPEC.env, SPEC.egress),
        Spec(SPEC.environment, ("x",), SPEC.mirror, SPEC.trees, SPEC.env, SPEC.egress),
        Spec(SPEC.environment, (), Path("/other"), SPEC.trees, SPEC.env, SPEC.egress),
        Spec(SPEC.environment, (), SPEC.mirror, Path("/other"), SPEC.env, SPEC.egress),
        Spec(SPEC.environment, (), SPEC.mirror, SPEC.trees, {**SPEC.env, "AWS_ACCESS_KEY_ID": "x"}, SPEC.egress),
        Spec(SPEC.environment, (), SPEC.mirror, SPEC.trees, SPEC.env, SPEC.egress, {"a": "/b"}),
    ]
    assert len({one.key for one in (SPEC, *others)}) == 7
    assert "value" not in repr(SPEC)
