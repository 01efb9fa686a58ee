from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.fingerprint import (
    cause_of,
    digest,
    fingerprint,
    inputs_part,
    intent,
    module_part,
    settings_part,
)
from reconciler.desired.lock import LockFile
from reconciler.desired.resolve import resolve
from reconciler.errors import Place, UnitError
from reconciler.model import (
    Allowances,
    Cause,
    Commit,
    Digest,
    Entry,
    Environment,
    EnvironmentClass,
    Fingerprint,
    HostPart,
    Json,
    Lock,
    Pin,
    Presence,
    ProviderPin,
    Reference,
    RunnerFacts,
    SecretReference,
    Text,
    Unit,
    UnitId,
)

ZONE = Reference(UnitId("prod/dns"), "zone_id")
NAME = Reference(UnitId("prod/dns"), "zones", (0, "name"))
PIN = Pin(
    "acme/vpc", "1.4.2", "modules/vpc", "v1.4.2", Commit("a" * 40), Digest("sha256:" + "b" * 64),
    (ProviderPin("hashicorp/aws", "5.100.0", {"r.example": ("h1:a", "h1:b")}),),
)  # fmt: skip
ENTRY = Entry(
    UnitId("prod/network"),
    Place("environments/prod/network.yaml"),
    "acme/vpc",
    "1.4.2",
    inputs={"a": ZONE, "b": Text(("x-", NAME)), "c": SecretReference("token"), "d": [1, {"e": None}]},
    providers={"aws": "aws"},
)
DNS = Entry(UnitId("prod/dns"), Place("environments/prod/dns.yaml"), "acme/vpc", "1.4.2")
PROD = Environment("prod", Place("p"), EnvironmentClass.PROTECTED, {"aws": {"region": "eu-west-1"}})
FACTS = RunnerFacts("tofu", "1.12.3", {})
HOST = HostPart(EnvironmentClass.PROTECTED, "host", {"token": "t1"})
UPSTREAM = {ZONE: "z1", NAME: "n1"}


def unit(entry: Entry = ENTRY, environment: Environment = PROD, pin: Pin = PIN) -> Unit:
    lock = LockFile(Lock({"acme/vpc": {"1.4.2": pin}}))
    desired = resolve(
        Commit("c" * 40), {"prod": environment}, {one.unit: one for one in (entry, DNS)}, lock, []
    ).desired
    assert not desired.problems
    return desired.units[entry.unit]


def test_canonical_json() -> None:
    assert digest({"b": [1, None, True, 1.5], "a": "ä"}) == digest({"a": "ä", "b": [1, None, True, 1.5]})
    assert digest({}) == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert digest(1) != digest("1") != digest(1.0) != digest(True)
    assert digest(10**40) != digest(10**40 + 1)
    with pytest.raises(ValueError, match="Out of range"):
        digest(float("nan"))


@pytest.mark.parametrize(
    "other",
    [
        replace(PIN, digest=Digest("sha256:" + "c" * 64)),
        replace(PIN, path="modules/other"),
        replace(PIN, providers=()),
        replace(PIN, providers=(replace(PIN.providers[0], version="5.101.0"),)),
        replace(PIN, providers=(replace(PIN.providers[0], hashes={}),)),
    ],
)
def test_what_changes_the_module_part(other: Pin) -> None:
    assert module_part(other) != module_part(PIN)


def test_what_does_not_change_the_module_part() -> None:
    hashes = {"r.example": ("h1:b", "h1:a")}
    other = replace(PIN, version="1.4.3", ref="v1.4.3", yanked="x", commit=Commit("d" * 40))
    assert module_part(replace(other, providers=(replace(PIN.providers[0], hashes=hashes),))) == module_part(PIN)


@pytest.mark.parametrize(
    "other",
    [
        replace(ENTRY, inputs={}),
        replace(ENTRY, inputs={**ENTRY.inputs, "a": "/prod/dns.zone_id"}),
        replace(ENTRY, inputs={**ENTRY.inputs, "a": Text((ZONE,))}),
        replace(ENTRY, inputs={**ENTRY.inputs, "a": replace(ZONE, path=("x",))}),
        replace(ENTRY, inputs={**ENTRY.inputs, "c": SecretReference("other")}),
        replace(ENTRY, providers={}),
        replace(ENTRY, presence=Presence.ABSENT),
        replace(ENTRY, allowances=Allowances(replace=("aws_instance.web",))),
        replace(ENTRY, imports={"aws_vpc.this": "vpc-1"}),
        replace(ENTRY, adopt="/srv/x.tfstate"),
    ],
)
def test_what_changes_the_inputs_part(other: Entry) -> None:
    assert inputs_part(other) != inputs_part(ENTRY)


@pytest.mark.parametrize(
    "other",
    [
        replace(ENTRY, allowances=Allowances(destroy=3, downgrade=True)),
        replace(ENTRY, depends_on=(UnitId("prod/dns"),)),
        replace(ENTRY, moved_from=UnitId("prod/old")),
        replace(ENTRY, inputs={name: ENTRY.inputs[name] for name in sorted(ENTRY.inputs, reverse=True)}),
    ],
)
def test_what_does_not_change_the_inputs_part(other: Entry) -> None:
    assert inputs_part(other) == inputs_part(ENTRY)


@pytest.mark.parametrize(
    ("reference", "data"),
    [
        (ZONE, {"$output": ["prod/dns", "zone_id"]}),
        (SecretReference("x"), {"$secret": "x"}),
        (Text(("x", ZONE)), {"$text": ["x", {"$output": ["prod/dns", "zone_id"]}]}),
    ],
)
def test_no_data_looks_like_a_reference(reference: object, data: Json) -> None:
    assert inputs_part(replace(ENTRY, inputs={"a": reference})) != inputs_part(replace(ENTRY, inputs={"a": data}))


KEYS = st.text("$a", max_size=3)
VALUES = st.recursive(
    st.integers(0, 2) | st.just(ZONE) | st.text("$a", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=5,
)


@given(VALUES, VALUES)
def test_different_inputs_have_different_digests(one: object, other: object) -> None:
    first, second = (inputs_part(replace(ENTRY, inputs={"a": value})) for value in (one, other))
    assert (first == second) == (one == other)


def test_the_settings_part_is_the_providers_and_the_class() -> None:
    assert settings_part(replace(PROD, klass=EnvironmentClass.SANDBOX)) != settings_part(PROD)
    assert settings_part(replace(PROD, providers={})) != settings_part(PROD)
    assert settings_part(replace(PROD, name="other", depends_on=("x",))) == settings_part(PROD)


def test_the_intent_is_all_of_it() -> None:
    parts = (Digest("m"), Digest("i"), Digest("s"))
    assert intent(*parts, [ZONE, NAME]) == intent(*parts, [NAME, ZONE])
    others = [intent(*parts, [ZONE]), intent(Digest("x"), *parts[1:], []), intent(*parts, [])]
    assert len(set(others)) == 3


def test_equal_facts_have_equal_fingerprints() -> None:
    assert fingerprint(unit(), FACTS, HOST, UPSTREAM) == fingerprint(
        unit(), FACTS, HOST, dict(reversed(UPSTREAM.items()))
    )


@pytest.mark.parametrize(
    ("now", "facts", "host", "upstream", "cause"),
    [
        (unit(), FACTS, HOST, UPSTREAM, Cause.DRIFT),
        (unit(replace(ENTRY, providers={})), FACTS, HOST, UPSTREAM, Cause.DESIRED),
        (unit(pin=replace(PIN, path="x")), FACTS, HOST, UPSTREAM, Cause.CATALOG),
        (unit(replace(ENTRY, providers={}), pin=replace(PIN, path="x")), FACTS, HOST, UPSTREAM, Cause.DESIRED),
        (unit(environment=replace(PROD, providers={"aws": {}})), FACTS, HOST, UPSTREAM, Cause.SETTINGS),
        (unit(), replace(FACTS, engine="terraform"), HOST, UPSTREAM, Cause.SETTINGS),
        (unit(), replace(FACTS, engine_version="1.12.4"), HOST, UPSTREAM, Cause.SETTINGS),
        (unit(), FACTS, replace(HOST, digest="x"), UPSTREAM, Cause.SETTINGS),
        (unit(), FACTS, replace(HOST, digest="x"), {**UPSTREAM, ZONE: "z2"}, Cause.SETTINGS),
        (unit(), FACTS, replace(HOST, secrets={"token": "t2"}), UPSTREAM, Cause.UPSTREAM),
        (unit(), FACTS, HOST, {**UPSTREAM, NAME: "n2"}, Cause.UPSTREAM),
        (unit(), FACTS, replace(HOST, secrets={"token": "t1", "other": "x"}), UPSTREAM, Cause.DRIFT),
    ],
)
def test_a_difference_names_its_cause(
    now: Unit, facts: RunnerFacts, host: HostPart, upstream: dict[Reference, str], cause: Cause
) -> None:
    old = fingerprint(unit(), FACTS, HOST, UPSTREAM)
    assert cause_of(old, fingerprint(now, facts, host, upstream)) is cause


def test_the_first_time_is_desired() -> None:
    assert cause_of(None, Fingerprint("m", "i", "s", "u")) is Cause.DESIRED


@pytest.mark.parametrize("presence", [Presence.ABSENT, Presence.FORGOTTEN])
def test_what_shall_not_exist_reads_nothing(presence: Presence) -> None:
    gone = unit(replace(ENTRY, presence=presence))
    there = HostPart(EnvironmentClass.PROTECTED, "other", {})
    assert fingerprint(gone, FACTS, HOST, UPSTREAM) == fingerprint(gone, replace(FACTS, engine="x"), there, {})
    assert fingerprint(gone, FACTS, HOST, UPSTREAM) != fingerprint(unit(), FACTS, HOST, UPSTREAM)


def test_an_output_that_is_not_known_yet_is_awaited() -> None:
    with pytest.raises(UnitError) as caught:
        fingerprint(unit(), FACTS, HOST, {ZONE: "z1"})
    assert (caught.value.reason, caught.value.transient) == ("DependencyNotReady", True)
    assert str(caught.value) == (
        "/prod/dns.zones[0].name is not known yet: prod/dns has no such output so far; it is awaited"
    )


@pytest.mark.parametrize(("secrets", "known"), [({}, "none"), ({"b": "", "a": ""}, "a, b")])
def test_a_secret_that_the_host_does_not_name(secrets: dict[str, str], known: str) -> None:
    with pytest.raises(UnitError) as caught:
        fingerprint(unit(), FACTS, replace(HOST, secrets=secrets), UPSTREAM)
    assert caught.value.reason == "SecretMissing"
    assert str(caught.value) == (
        "environments/prod/network.yaml: environments.prod.secrets of the host's runner.yaml has no token, "
        f"but {known}; add it there, or correct the name"
    )
