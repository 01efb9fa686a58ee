from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler.demo.playground import Playground
from reconciler.errors import HeldError, UnitError
from reconciler.model import Expression, Presence, Reference, SecretReference, Text, Unit, UnitId
from reconciler.runner.host import Host
from reconciler.runner.memory import UnitMemory
from reconciler.runner.terraform.workspace import Value
from reconciler.runner.values import Inputs, gather
from tests.kit import facts
from tests.kit.plane import CATALOG, applied, note, open_host, put, remembered, state

NET = UnitId("prod/net")
OUTPUTS = {
    "id": "vpc-1",
    "zones": ["a", {"name": "b"}],
    "count": 3,
    "password": ("s3cret!",),
    "nested": ({"k": "deep-secret"},),
}


@dataclass(frozen=True, slots=True)
class Place:
    ground: Playground
    host: Host

    def upstream(self, unit: str, outputs: dict[str, Any], **words: Any) -> None:
        """Another unit as it was applied."""
        put(self.ground.state(unit), state(outputs=outputs))
        self.host.memory.save(remembered(unit, **words))

    def gather(self, inputs: dict[str, Expression], **words: Any) -> Inputs:
        unit = reading(inputs, **words)
        return gather(self.host, unit, self.host.environment(unit.environment.name))


def reading(inputs: dict[str, Expression], name: str = "prod/app", presence: Presence = Presence.PRESENT) -> Unit:
    """A unit with these inputs."""
    entry = facts.entry(name, presence=presence)
    entry.inputs.clear()  # type: ignore[attr-defined]
    entry.inputs.update(inputs)  # type: ignore[attr-defined]
    others = [facts.entry(unit) for unit in ("prod/net", "stage/net") if unit != name]
    return facts.desired(entry, *others).units[UnitId(name)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Stage may be read by prod, prod by nobody; prod has a secret."""
    entries = {
        "environments/prod/environment.yaml": "class: protected\n",
        "environments/stage/environment.yaml": "class: protected\n",
        "environments/prod/app.yaml": note("${{ secret.db_password }} ${{ /stage/net.id }}"),
    }
    made = Playground.create(tmp_path / "ground", entries, CATALOG)
    found = Place(made, open_host(made))
    found.upstream(NET, OUTPUTS)
    return found


def test_a_whole_value_keeps_its_type_and_a_part_of_it_too(place: Place) -> None:
    gathered = place.gather(
        {
            "id": Reference(NET, "id"),
            "zones": Reference(NET, "zones"),
            "second": Reference(NET, "zones", (1, "name")),
            "text": Text((Reference(NET, "id"), "-", Reference(NET, "count"))),
            "plain": {"a": [1, None]},
        }
    )
    assert gathered.values == {
        "id": Value("vpc-1"),
        "zones": Value(["a", {"name": "b"}]),
        "second": Value("b"),
        "text": Value("vpc-1-3"),
        "plain": Value({"a": [1, None]}),
    }
    assert gathered.secrets == frozenset()


def test_each_reference_is_named_by_a_seal_of_the_whole_output(place: Place) -> None:
    part = Reference(NET, "zones", (1, "name"))
    seals = place.gather({"a": part, "b": Reference(NET, "id")}).seals
    assert seals == {
        part: place.host.memory.seal(OUTPUTS["zones"]),
        Reference(NET, "id"): place.host.memory.seal("vpc-1"),
    }


def test_whatever_touches_a_sensitive_value_is_sensitive(place: Place) -> None:
    gathered = place.gather(
        {
            "whole": Reference(NET, "password"),
            "inside": {"list": [Text(("p=", Reference(NET, "password")))]},
            "part": Reference(NET, "nested", ("k",)),
            "own": SecretReference("db_password"),
            "open": Reference(NET, "id"),
        }
    )
    assert {name for name, value in gathered.values.items() if value.sensitive} == {"whole", "inside", "part", "own"}
    assert gathered.values["part"].value == "deep-secret"
    assert gathered.secrets == {"s3cret!", "p=s3cret!", "deep-secret", "prod correct horse battery staple"}


@pytest.mark.parametrize(
    "text", ['{"user": "app", "keys": [{"pin": 123456}, "in+ner"]}', ' ["app", 123456, "in+ner"]\n']
)
def test_each_part_of_a_secret_document_is_a_secret(place: Place, text: str) -> None:
    (place.ground.folder / "secrets" / "prod" / "db_password").write_text(text)
    gathered = place.gather({"own": SecretReference("db_password")})
    assert gathered.values == {"own": Value(text.removesuffix("\n"), sensitive=True)}
    assert gathered.secrets == {text.removesuffix("\n"), "app", "123456", "in+ner"}


@pytest.mark.parametrize("text", ["{no document", "[" * 60_000, "{}"])
def test_a_secret_that_only_begins_like_a_document_is_one_text(place: Place, text: str) -> None:
    (place.ground.folder / "secrets" / "prod" / "db_password").write_text(text)
    assert place.gather({"own": SecretReference("db_password")}).secrets == {text}


def test_the_fingerprint_names_the_secret_that_was_read(place: Place) -> None:
    """Also where it changed after the environment was opened."""
    opened = place.host.environment("prod")
    (place.ground.folder / "secrets" / "prod" / "db_password").write_text("changed meanwhile")
    gathered = gather(place.host, reading({"own": SecretReference("db_password")}), opened)
    seal = place.host.memory.seal("changed meanwhile")
    assert gathered.part(opened.part).secrets == {"db_password": seal} != opened.part.secrets


def test_an_environment_is_read_where_its_host_says_so(place: Place) -> None:
    stage = Reference(UnitId("stage/net"), "id")
    place.upstream("stage/net", {"id": "of-stage"})
    assert place.gather({"a": stage}).values == {"a": Value("of-stage")}
    with pytest.raises(
        HeldError, match=r"stage may not read prod; add stage to environments\.prod\.readable_by"
    ) as held:
        place.gather({"a": Reference(NET, "id")}, name="stage/app")
    assert held.value.reason == "NotReadable"


@pytest.mark.parametrize("words", [{"applied": None}, {"applied": applied(presence=Presence.ABSENT)}])
def test_an_upstream_that_is_not_applied_is_waited_for_whatever_lies_there(words: dict[str, Any], place: Place) -> None:
    place.upstream(NET, OUTPUTS, **words)
    with pytest.raises(HeldError, match=r"prod/net has not been applied yet") as held:
        place.gather({"a": Reference(NET, "id")})
    assert held.value.reason == "DependencyNotReady"


def test_so_is_one_whose_state_is_gone(place: Place) -> None:
    place.ground.state(NET).unlink()
    with pytest.raises(HeldError, match="has not been applied yet"):
        place.gather({"a": Reference(NET, "id")})


def test_an_output_that_is_not_there_is_named_with_those_that_are(place: Place) -> None:
    with pytest.raises(
        HeldError, match=r"has no output 'ip'; its outputs are: count, id, nested, password, zones"
    ) as held:
        place.gather({"a": Reference(NET, "ip")})
    assert held.value.reason == "OutputMissing"
    assert "s3cret" not in str(held.value)
    place.upstream(NET, {})
    with pytest.raises(HeldError, match="its outputs are: none"):
        place.gather({"a": Reference(NET, "ip")})


def test_a_part_that_the_value_does_not_have_is_an_error_of_the_entry(place: Place) -> None:
    with pytest.raises(UnitError, match="zones"):
        place.gather({"a": Reference(NET, "zones", (7,))})


def test_a_secret_that_the_host_does_not_list_is_named(place: Place) -> None:
    with pytest.raises(HeldError, match=r"environments\.prod\.secrets has no other; it has: db_password") as held:
        place.gather({"a": SecretReference("other")})
    assert held.value.reason == "SecretMissing"


def test_a_unit_that_goes_needs_nothing_of_its_upstream(place: Place) -> None:
    place.ground.state(NET).unlink()
    place.host.memory.save(UnitMemory(NET))
    (place.ground.folder / "secrets" / "prod" / "db_password").unlink()
    inputs: dict[str, Expression] = {
        "whole": Reference(NET, "id"),
        "part": Reference(NET, "zones", (1, "name")),
        "inside": {"text": [Text(("x-", Reference(NET, "id"))), "kept"], "n": 1},
        "secret": SecretReference("db_password"),
        "plain": "y",
    }
    gathered = place.gather(inputs, presence=Presence.ABSENT)
    assert {name: value.value for name, value in gathered.values.items()} == {
        "whole": None,
        "part": None,
        "inside": {"text": [None, "kept"], "n": 1},
        "secret": None,
        "plain": "y",
    }
    assert gathered.seals == {}


def test_what_is_still_there_is_read_for_it(place: Place) -> None:
    gathered = place.gather({"a": Reference(NET, "id")}, presence=Presence.ABSENT)
    assert gathered.values == {"a": Value("vpc-1")}
    assert gathered.seals == {}
