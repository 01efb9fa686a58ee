from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.errors import UnitError
from reconciler.model import StateMark, UnitId
from reconciler.runner.terraform.rescue import APPLY_OUTPUT, ERRORED_STATE, bring_back, find_left
from reconciler.runner.terraform.state import WORK_STATE, LocalBackend, parse_state
from tests.kit.plane import LINEAGE, put, state

APP = UnitId("prod/app")


def dump(raw: bytes) -> bytes:
    """The line that Terraform 1.11.4 prints, with the state as it is."""
    head = '{"@level":"info","@message":"Emergency state dump","@module":"terraform.ui","@timestamp":"2026-11-29T16:08:44.9Z","state":'
    return head.encode() + raw.replace(b"\n", b"") + b',"type":"log"}\n'


def mark(serial: int) -> StateMark:
    return StateMark(LINEAGE, serial)


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    found = LocalBackend(tmp_path / "states")
    found.put(APP, parse_state(state(3)), None)
    return found


def kept(backend: LocalBackend) -> bytes:
    found = backend.read(APP)
    assert found is not None
    return found.raw


@pytest.mark.parametrize("cut", [b"", state(4)[:40]])
@pytest.mark.parametrize("errored", [None, b"", state(4)[:40]])
def test_the_printed_state_is_the_one_where_every_file_is_cut_off(
    cut: bytes, errored: bytes | None, backend: LocalBackend, tmp_path: Path
) -> None:
    put(tmp_path / WORK_STATE, cut)
    if errored is not None:
        put(tmp_path / ERRORED_STATE, errored)
    put(
        tmp_path / APPLY_OUTPUT,
        b'{"type":"version"}\nplain text\n' + dump(state(4, tainted="new")) + b'{"type":"diagnostic"}\n',
    )
    bring_back(backend, APP, tmp_path, mark(3))
    bring_back(backend, APP, tmp_path, mark(3))
    assert kept(backend) == state(4, tainted="new")


def test_a_printed_state_without_a_new_serial_gets_the_next_one(backend: LocalBackend, tmp_path: Path) -> None:
    """Measured: where not even the copy of the state before could be written, Terraform has not counted yet."""
    exact = state(3, tainted="new").replace(
        b'"outputs": {}', b'"outputs": {"pi": {"value": 3.14159265358979323846264338}}'
    )
    put(tmp_path / APPLY_OUTPUT, dump(exact))
    for _ in range(2):
        bring_back(backend, APP, tmp_path, mark(3))
        assert kept(backend) == exact.replace(b'"serial": 3', b'"serial": 4')  # no number went through ours


def test_errored_state_comes_before_what_was_printed_and_before_the_file(backend: LocalBackend, tmp_path: Path) -> None:
    put(tmp_path / WORK_STATE, state(4))
    put(tmp_path / APPLY_OUTPUT, dump(state(5)))
    put(tmp_path / ERRORED_STATE, state(6))
    bring_back(backend, APP, tmp_path, mark(3))
    assert kept(backend) == state(6)


def test_a_torn_dump_and_a_cut_file_are_no_state_and_nothing_is_replaced(backend: LocalBackend, tmp_path: Path) -> None:
    put(tmp_path / APPLY_OUTPUT, dump(state(4))[:-30])
    put(tmp_path / ERRORED_STATE, b"")
    put(tmp_path / WORK_STATE, state(3))
    with pytest.raises(UnitError, match="cut off") as refused:
        bring_back(backend, APP, tmp_path, mark(3))
    assert refused.value.reason == "StateInvalid"
    assert kept(backend) == state(3)


def test_a_first_deploys_last_word_counts_as_well(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "states")
    put(tmp_path / APPLY_OUTPUT, dump(state(1)))
    bring_back(backend, APP, tmp_path, None)
    assert kept(backend) == state(1)


@pytest.mark.parametrize("left", [state(2), state(4, lineage="other")])
def test_no_last_word_of_another_state_counts(left: bytes, backend: LocalBackend, tmp_path: Path) -> None:
    put(tmp_path / ERRORED_STATE, left)
    with pytest.raises(UnitError) as refused:
        bring_back(backend, APP, tmp_path, mark(3))
    assert refused.value.reason == "StateForeign"
    assert kept(backend) == state(3)


def test_only_the_state_that_the_apply_began_with_is_replaced(backend: LocalBackend, tmp_path: Path) -> None:
    put(tmp_path / ERRORED_STATE, state(5))
    with pytest.raises(UnitError, match="by now, and the job began with") as refused:
        bring_back(backend, APP, tmp_path, mark(2))
    assert refused.value.reason == "StateForeign"
    bring_back(backend, APP, tmp_path, mark(2), alone=True)  # what is there this very apply wrote on its way
    assert kept(backend) == state(5)


def test_an_engine_that_wrote_nothing_left_nothing(tmp_path: Path) -> None:
    assert find_left(tmp_path) is None
    put(tmp_path / APPLY_OUTPUT, json.dumps({"@message": "Emergency"}).encode())
    put(tmp_path / WORK_STATE, b"")
    assert find_left(tmp_path) is None
