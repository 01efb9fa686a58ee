from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any, NoReturn

import pytest

from reconciler.runner.terraform.begun import boot, started, suspects
from reconciler.runner.terraform.creation import Creation, creations, mark
from reconciler.runner.terraform.engine import Conversation, Engine, deadline_in
from reconciler.runner.terraform.state import parse_state

AWS = "registry.terraform.io/hashicorp/aws"
VPC = "module.unit.aws_vpc.this"


def planned(address: str, *actions: str, provider: str = AWS, reason: str = "", **change: Any) -> dict[str, Any]:
    kind = address.split(".")[-2]
    told = {"address": address, "type": kind, "provider_name": provider, "mode": "managed", "action_reason": reason}
    return {**told, "change": {"actions": list(actions), "before": None, "after": {}, "after_unknown": {}, **change}}


def said(kind: str, address: str, action: str = "create", **more: str) -> bytes:
    hook = {"resource": {"addr": address}, "action": action, **more}
    return json.dumps({"type": kind, "hook": hook}).encode() + b"\n"


def state(*objects: tuple[str, dict[str, Any]]) -> Any:
    """Objects by the type of a resource called `this`, with what stands in their instance."""
    resources = [
        {"module": "module.unit", "mode": "managed", "type": kind, "name": "this", "instances": [one]}
        for kind, one in objects
    ]
    return parse_state(json.dumps({"version": 4, "lineage": "l", "serial": 1, "resources": resources}).encode())


# --- what a plan makes


def test_a_plan_makes_what_it_creates_and_what_it_replaces() -> None:
    plan = {
        "resource_changes": [
            planned(VPC, "create", after={"tags_all": None, "region": "eu-west-1"}),
            planned("module.unit.aws_route.r", "delete", "create", before={"id": "r-1"}),
            planned(
                "module.unit.aws_eip.e", "create", "delete", before={"id": "e-1"}, reason="replace_because_tainted"
            ),
            planned("module.unit.aws_sqs_queue.q", "create", after_unknown={"tags_all": True}),
            planned("module.unit.aws_sqs_queue.gone", "create"),
            planned("module.unit.aws_vpc.kept", "update"),
            planned("module.unit.aws_vpc.old", "delete"),
            planned("module.unit.terraform_data.d", "create", provider="terraform.io/builtin/terraform"),
            planned("module.unit.random_id.x", "create", provider="registry.opentofu.org/hashicorp/random"),
        ],
        "resource_drift": [
            {"address": "module.unit.aws_sqs_queue.gone", "change": {"actions": ["delete"], "before": {"id": "g-1"}}}
        ],
    }
    assert creations(plan) == (
        Creation(VPC, "aws_vpc", "hashicorp/aws", tagged=True, region="eu-west-1"),
        Creation("module.unit.aws_route.r", "aws_route", "hashicorp/aws", was=mark({"id": "r-1"}, tainted=False)),
        Creation("module.unit.aws_eip.e", "aws_eip", "hashicorp/aws", was=mark({"id": "e-1"}, tainted=True)),
        Creation("module.unit.aws_sqs_queue.q", "aws_sqs_queue", "hashicorp/aws", tagged=True),
        Creation(
            "module.unit.aws_sqs_queue.gone", "aws_sqs_queue", "hashicorp/aws", was=mark({"id": "g-1"}, tainted=False)
        ),
    )
    assert creations({}) == ()


# --- what the engine said


def test_what_was_begun_is_read_with_the_ids_that_were_told(tmp_path: Path) -> None:
    lines = [
        b'{"type":"version"}\n',
        said("apply_start", VPC),
        said("apply_start", "a.b"),
        said("apply_complete", "a.b", id_key="id", id_value="b-1"),
        said("apply_start", "a.c"),
        said("apply_complete", "a.c", id_key="name", id_value="c-1"),
        said("apply_start", "a.gone", "delete"),
        b"a provider's own words\n",
        b"\0" * 64,
    ]
    (tmp_path / "apply.out").write_bytes(b"".join(lines))
    assert started(tmp_path) == {VPC: "", "a.b": "b-1", "a.c": ""}


@pytest.mark.parametrize(
    "torn",
    [
        b'{"type":"apply_st',
        b'{"type":"apply_st\n',
        b'{"type":"app' + b"\0" * 9 + b"\n",
        b"words without an end",
        b'{"type":"apply_start","hook":[]}\n',
        b'{"type":"apply_start"}\n',
        b"[" * 100_000 + b"\n" + b'{"a":' * 100_000 + b"\n",
    ],
)
def test_a_torn_line_proves_nothing(torn: bytes, tmp_path: Path) -> None:
    (tmp_path / "apply.out").write_bytes(said("apply_start", VPC) + torn)
    assert started(tmp_path) is None


def test_an_engine_that_was_never_started_began_nothing(tmp_path: Path) -> None:
    assert started(tmp_path / "gone") is None
    assert started(tmp_path) is None  # somebody removed what was there
    for name in ("tfplan", "tfplan.used"):
        (tmp_path / name).touch()
        assert started(tmp_path) == {}
        (tmp_path / name).unlink()
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "apply.out").symlink_to(tmp_path / "elsewhere")
    assert started(tmp_path) is None  # whoever wrote here leads us nowhere


def test_the_boot_is_named_and_stays() -> None:
    assert boot() == boot() != ""


# --- what may be there besides the state

ONE = Creation(VPC, "aws_vpc", "hashicorp/aws")
AGAIN = Creation(VPC, "aws_vpc", "hashicorp/aws", was=mark({"id": "old"}, tainted=False))
OLD, NEW = {"attributes": {"id": "old"}}, {"attributes": {"id": "new"}}


@pytest.mark.parametrize(
    ("creation", "told", "left", "suspected"),
    [
        (ONE, None, None, True),
        (ONE, "", None, True),
        (ONE, "new", None, True),
        (ONE, "", NEW, False),
        (ONE, "", NEW | {"status": "tainted"}, False),  # the next apply knows it
        (ONE, "new", NEW, False),
        (ONE, "new", OLD, True),
        (ONE, "", NEW | {"deposed": "abc"}, True),
        (AGAIN, "", OLD, True),
        (AGAIN, "", NEW, False),
        (AGAIN, "", OLD | {"status": "tainted"}, False),  # another object of the same name
        (AGAIN, "", {"attributes": None}, False),
    ],
)
def test_what_was_begun_is_suspected_unless_the_state_has_it(
    creation: Creation, told: str | None, left: dict[str, Any] | None, suspected: bool
) -> None:
    kept = state(("aws_vpc", left)) if left else None
    found = suspects([creation], None if told is None else {VPC: told}, kept)
    assert [one.address for one in found] == ([VPC] if suspected else [])
    assert [one.id for one in found] == ([told or ""] if suspected else [])


def test_what_was_not_begun_is_not_suspected_where_that_is_proven() -> None:
    assert suspects([ONE], {}, None) == ()
    assert suspects([ONE], {"other": ""}, None) == ()
    assert suspects([], None, None) == ()


class NoRoom(Conversation):
    def _run(self, *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_apply_that_found_no_room_for_its_output_proves_that_it_never_began(tmp_path: Path) -> None:
    (tmp_path / "tfplan").touch()
    talk = NoRoom(Engine("terraform", Path("/nowhere"), "1.11.4", "registry.terraform.io"), tmp_path, {}, io.BytesIO())
    with pytest.raises(OSError, match="No space"):
        talk.apply(deadline_in(1))
    assert not (tmp_path / "tfplan").exists()  # it is used, however it ended
    assert started(tmp_path) == {}
