from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.template import Mistake, named, parse, references, render, spell, write
from reconciler.errors import UnitError
from reconciler.model import Json, Reference, SecretReference, Text, UnitId

ZONE = Reference(UnitId("prod/dns"), "zone_id")
SECRET = SecretReference("db_password")


def output(unit: str, name: str, *path: str | int) -> Reference:
    return Reference(UnitId(unit), name, path)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("plain", "plain"),
        ("${file(x)} %{if}", "${file(x)} %{if}"),
        ("$ {{ a.b }}", "$ {{ a.b }}"),
        ("${{ dns.zone_id }}", ZONE),
        ("${{dns.zone_id}}", ZONE),
        ("${{\tdns.zone_id \t}}", ZONE),
        ("${{ /prod/dns.zone_id }}", ZONE),
        ("${{ /shared/net/hub.vpc_id }}", output("shared/net/hub", "vpc_id")),
        ("${{ net/hub.vpc_id }}", output("prod/net/hub", "vpc_id")),
        ("${{ dns.zones[0].name }}", output("prod/dns", "zones", 0, "name")),
        ('${{ dns.zones["a b"][12] }}', output("prod/dns", "zones", "a b", 12)),
        ('${{ dns.zones["}}\\" \\u00e4"].x }}', output("prod/dns", "zones", '}}" ä', "x")),
        ("${{ a-b_1.Out-put_2 }}", output("prod/a-b_1", "Out-put_2")),
        ("${{ secret.db_password }}", SECRET),
        ("${{ secrets.x }}", output("prod/secrets", "x")),
        ("${{ /prod/secret.x }}", output("prod/secret", "x")),
        ("app-${{ dns.zone_id }}-x", Text(("app-", ZONE, "-x"))),
        ("${{ dns.zone_id }} ", Text((ZONE, " "))),
        ("${{dns.zone_id}}${{secret.db_password}}", Text((ZONE, SECRET))),
        ("$${{ dns.zone_id }}", "${{ dns.zone_id }}"),
        ("$$${{ x", "$${{ x"),
        ("a $${{ b ${{ dns.zone_id }} $${{", Text(("a ${{ b ", ZONE, " ${{"))),
    ],
)
def test_what_a_string_means(text: str, meant: object) -> None:
    assert parse(text, "prod") == meant


NO_REFERENCE = (
    " is not a reference; write unit.output, /environment/unit.output or secret.name "
    '(then .attribute, [0] or ["key"]), or $${{ for the literal text'
)
NOT_CLOSED = "${{ is not closed; close it with }}, or write $${{ for the literal text"


@pytest.mark.parametrize(
    ("text", "number", "message"),
    [
        ("${{ dns.zone_id", 0, NOT_CLOSED),
        ("a ${{", 0, NOT_CLOSED),
        ("${{ }}", 0, "${{ }}" + NO_REFERENCE),
        ("${{ dns }}", 0, "${{ dns }}" + NO_REFERENCE),
        ("${{ Dns.zone }}", 0, "${{ Dns.zone }}" + NO_REFERENCE),
        ("${{ dns.zone_id + 1 }}", 0, "${{ dns.zone_id + 1 }}" + NO_REFERENCE),
        ("${{ file(x) }}", 0, "${{ file(x) }}" + NO_REFERENCE),
        ("${{ dns.zones[-1] }}", 0, "${{ dns.zones[-1] }}" + NO_REFERENCE),
        ("${{ dns.zones[01] }}", 0, "${{ dns.zones[01] }}" + NO_REFERENCE),
        ("${{ dns.zones[*] }}", 0, "${{ dns.zones[*] }}" + NO_REFERENCE),
        ("${{ ../dns.x }}", 0, "${{ ../dns.x }}" + NO_REFERENCE),
        ("${{ secret.a.b }}", 0, "${{ secret.a.b }}" + NO_REFERENCE),
        ("${{ dns\n.x }}", 0, "${{ dns\\u000a.x }}" + NO_REFERENCE),
        (f"${{{{ {'x' * 100} }}}}", 0, "${{ " + "x" * 76 + "..." + NO_REFERENCE),
        ("${{ /prod.x }}", 0, "/prod names an environment; write /environment/unit.output"),
        ('${{ a.b["\\q"] }}', 0, 'a key in ["\\q"] is not a string as JSON writes it; write ["key"]'),
        ("$${{ ${{ a.b }} ${{ c }}", 2, "${{ c }}" + NO_REFERENCE),
        ('${{ a.b["${{"] }} ${{ c', 2, NOT_CLOSED),
    ],
)
def test_everything_else_is_a_mistake(text: str, number: int, message: str) -> None:
    assert parse(text, "prod") == Mistake(number, message)


def test_references_carry_the_number_of_their_opening() -> None:
    text = '$${{ ${{ dns.zone_id }} ${{ a.b["${{"] }} ${{ secret.db_password }} ${{ wrong'
    assert list(references(text, "prod")) == [(1, ZONE), (2, output("prod/a", "b", "${{")), (4, SECRET)]


@pytest.mark.parametrize("wrong", ["${{ /prod.x }}", "${{ x }}"])
def test_references_end_at_a_mistake(wrong: str) -> None:
    text = "${{ dns.zone_id }} " + wrong + " ${{ dns.zone_id }}"
    assert list(references(text, "prod")) == [(0, ZONE)]


@pytest.mark.parametrize(
    ("reference", "spelled"),
    [
        (ZONE, "/prod/dns.zone_id"),
        (SECRET, "secret.db_password"),
        (output("prod/dns", "zones", 0, "name", "a b", '"'), '/prod/dns.zones[0].name["a b"]["\\""]'),
    ],
)
def test_spelling(reference: Reference | SecretReference, spelled: str) -> None:
    assert spell(reference) == spelled


NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True)
OUTPUTS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}", fullmatch=True)
STEPS = st.integers(0, 10**8) | st.text(max_size=8)
REFERENCES = st.builds(
    lambda segments, name, path: Reference(UnitId("/".join(segments)), name, tuple(path)),
    st.lists(NAMES, min_size=2, max_size=4),
    OUTPUTS,
    st.lists(STEPS, max_size=3),
) | st.builds(SecretReference, OUTPUTS)
LITERALS = st.text(st.sampled_from("$ {}a%\n"), max_size=12)


@given(REFERENCES)
def test_every_reference_is_read_as_it_is_spelled(reference: Reference | SecretReference) -> None:
    assert parse(str(write(reference)), "other") == reference


@given(LITERALS)
def test_every_literal_is_read_as_it_is_written(text: str) -> None:
    assert parse(str(write(text)), "prod") == text


@given(st.lists(REFERENCES | LITERALS.filter(lambda text: not text.endswith("$")), max_size=5))
def test_every_text_is_read_as_it_is_written(parts: list[str | Reference | SecretReference]) -> None:
    written = "".join(str(write(part)) for part in parts)
    meant = parse(written, "prod")
    assert not isinstance(meant, Mistake)
    assert parse(str(write(meant)), "prod") == meant
    assert list(named(meant)) == [one for one in parts if not isinstance(one, str)]


@given(st.text(st.sampled_from('${}a./[]0" -_sec'), max_size=30))
def test_no_text_makes_it_raise(text: str) -> None:
    meant = parse(text, "prod")
    assert isinstance(meant, Mistake) or parse(str(write(meant)), "prod") == meant
    assert all(number < text.count("${{") for number, _ in references(text, "prod"))


ONLY_SCALARS = (
    "inside a string only a string, a number or a bool can stand; name one of its parts, or make it the whole value"
)
VALUES: dict[str, Json] = {
    "/prod/dns.zone_id": "Z1",
    "/prod/dns.zones": [{"name": "a", "ok": True, "n": 1, "f": 1.5, "none": None, "sub": {}}],
    "secret.db_password": "hunter2",
}


def value(reference: Reference | SecretReference) -> Json:
    bare = reference if isinstance(reference, SecretReference) else Reference(reference.unit, reference.output)
    return VALUES[spell(bare)]


@pytest.mark.parametrize(
    ("written", "rendered"),
    [
        ("${{ dns.zones }}", VALUES["/prod/dns.zones"]),
        ("${{ dns.zones[0] }}", {"name": "a", "ok": True, "n": 1, "f": 1.5, "none": None, "sub": {}}),
        ("${{ dns.zones[0].ok }}", True),
        ('${{ dns.zones[0]["none"] }}', None),
        ("x ${{ dns.zones[0].ok }} ${{ dns.zones[0].n }} ${{ dns.zones[0].f }}", "x true 1 1.5"),
        ("${{ dns.zone_id }}:${{ secret.db_password }}", "Z1:hunter2"),
        ("${{ secret.db_password }}", "hunter2"),
        ("$${{ x }}", "${{ x }}"),
    ],
)
def test_rendering(written: str, rendered: Json) -> None:
    assert render(parse(written, "prod"), value) == rendered


def test_rendering_walks_into_lists_and_mappings() -> None:
    inputs: Any = {"a": [1, {"b": ZONE}, None], "c": Text(("x-", ZONE)), "d": 1.5}
    assert render(inputs, value) == {"a": [1, {"b": "Z1"}, None], "c": "x-Z1", "d": 1.5}
    assert list(named(inputs)) == [ZONE, ZONE]
    assert write(inputs) == {
        "a": [1, {"b": "${{ /prod/dns.zone_id }}"}, None],
        "c": "x-${{ /prod/dns.zone_id }}",
        "d": 1.5,
    }


@pytest.mark.parametrize(
    ("written", "reason", "message"),
    [
        ("${{ dns.zones[1] }}", "ReferenceMissing",
         "/prod/dns.zones[1]: /prod/dns.zones has no [1]; it is a list of 1"),
        ("${{ dns.zones.x }}", "ReferenceMissing", "/prod/dns.zones.x: /prod/dns.zones has no .x; it is a list of 1"),
        ("${{ dns.zones[0].nme.x }}", "ReferenceMissing",
         "/prod/dns.zones[0].nme.x: /prod/dns.zones[0] has no .nme; it has f, n, name, none, ok, sub"),
        ("${{ dns.zones[0].sub.x }}", "ReferenceMissing",
         "/prod/dns.zones[0].sub.x: /prod/dns.zones[0].sub has no .x; it has no attributes"),
        ("${{ dns.zones[0][0] }}", "ReferenceMissing",
         "/prod/dns.zones[0][0]: /prod/dns.zones[0] has no [0]; it has f, n, name, none, ok, sub"),
        ("${{ dns.zone_id.x }}", "ReferenceMissing",
         "/prod/dns.zone_id.x: /prod/dns.zone_id has no .x; it is a string"),
        ("${{ dns.zones[0].ok.x }}", "ReferenceMissing",
         "/prod/dns.zones[0].ok.x: /prod/dns.zones[0].ok has no .x; it is a bool"),
        ("${{ dns.zones[0].n.x }}", "ReferenceMissing",
         "/prod/dns.zones[0].n.x: /prod/dns.zones[0].n has no .x; it is a number"),
        ("x${{ dns.zones[0].none }}", "TemplateInvalid",
         "/prod/dns.zones[0].none is null; " + ONLY_SCALARS),
        ("x${{ dns.zones }}", "TemplateInvalid",
         "/prod/dns.zones is a list; " + ONLY_SCALARS),
        ("x${{ dns.zones[0] }}", "TemplateInvalid",
         "/prod/dns.zones[0] is an object; " + ONLY_SCALARS),
    ],
)  # fmt: skip
def test_what_cannot_be_rendered(written: str, reason: str, message: str) -> None:
    with pytest.raises(UnitError) as caught:
        render(parse(written, "prod"), value)
    assert (caught.value.reason, str(caught.value), caught.value.transient) == (reason, message, False)
