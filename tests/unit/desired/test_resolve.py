from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired import resolve as resolving
from reconciler.desired.entries import parse_entry, parse_environment
from reconciler.desired.lock import LockFile, missing_lock, read_lock
from reconciler.desired.pins import pin_of as pinned
from reconciler.desired.resolve import Union, resolve
from reconciler.errors import Place
from reconciler.model import (
    Commit,
    Desired,
    Digest,
    Entry,
    Environment,
    Pin,
    Problem,
    ProviderPin,
    Reference,
    UnitId,
)
from tests.kit import facts as make

COMMIT = Commit("c" * 40)
LOCK = f"""\
lock_version: 1
modules:
  acme/vpc:
    path: modules/vpc
    versions:
      "1.4.1": {{ref: v1.4.1, commit: {"a" * 40}, digest: "sha256:{"1" * 64}"}}
      "1.4.2":
        ref: v1.4.2
        commit: {"b" * 40}
        digest: sha256:{"2" * 64}
        providers: {{hashicorp/aws: {{version: 5.1.0, hashes: {{r.example: ["h1:x"]}}}}}}
      "1.5.0": {{ref: v1.5.0, commit: {"b" * 40}, digest: "sha256:{"2" * 64}", yanked: it hurts}}
      "1.6.0": {{ref: v1.6.0, commit: zzz, digest: "sha256:{"2" * 64}"}}
  acme/old: {{path: old, versions: {{"1.0.0": {{ref: v1, commit: {"b" * 40}, digest: "sha256:{"2" * 64}", yanked: x}}}}}}
  acme/bad: {{path: ../bad, versions: {{}}}}
"""
LOCK_FILE = read_lock("catalog-lock.yaml", LOCK.encode())
PROTECTED = "class: protected\n"
SANDBOX = "class: sandbox\n"


def wanted(*lines: str, version: str = '"1.4.2"', module: str = "acme/vpc") -> str:
    return "\n".join([f"module: {module}", f"version: {version}", *lines, ""])


def reading(*outputs: str) -> str:
    return wanted("inputs:", *(f"  i{n}: ${{{{ {one} }}}}" for n, one in enumerate(outputs)))


def world(files: Mapping[str, str], lock: LockFile = LOCK_FILE, **more: Any) -> Desired:
    """`{"prod": an environment's text, "prod/network": an entry's text}` as one commit."""
    environments: dict[str, Environment] = {}
    entries: dict[UnitId, Entry] = {}
    problems: list[Problem] = []
    for name, text in files.items():
        if "/" not in name:
            environment = parse_environment(f"environments/{name}/environment.yaml", text.encode())
            if isinstance(environment, Environment):
                environments[name] = environment
            else:
                problems += environment
        else:
            entry = parse_entry(f"environments/{name}.yaml", text.encode())
            if isinstance(entry, Entry):
                entries[entry.unit] = entry
            else:
                problems += entry
    return resolve(COMMIT, environments, entries, lock, problems, **more).desired


def told(desired: Desired) -> list[str]:
    return [f"{problem.reason} {problem}" for problem in desired.problems]


def test_units_of_a_sound_tree() -> None:
    found = world({
        "prod": PROTECTED + "providers: {aws: {region: x}}\n",
        "prod/dns": wanted(),
        "prod/net/hub": wanted("inputs: {a: '${{ dns.zone }}', b: 'x ${{ dns.zones[0] }} ${{ secret.pw }}'}"),
        "prod/app": wanted("inputs: {a: '${{ net/hub.id }}'}", "depends_on: [dns]", "providers: {aws: aws}"),
    })  # fmt: skip
    assert found.problems == ()
    assert found.broken == {}
    assert found.commit == COMMIT
    assert found.order == ("prod/dns", "prod/net/hub", "prod/app")
    hub = found.units[UnitId("prod/net/hub")]
    dns = UnitId("prod/dns")
    assert hub.references == {Reference(dns, "zone"), Reference(dns, "zones", (0,))}
    assert hub.secrets == {"pw"}
    assert hub.reads == {dns}
    assert hub.upstream == {dns}
    assert hub.pin.digest == "sha256:" + "2" * 64
    app = found.units[UnitId("prod/app")]
    assert app.upstream == {dns, hub.id}
    assert app.reads == {hub.id}
    assert app.module_part == hub.module_part
    assert app.settings_part == hub.settings_part
    assert app.intent != hub.intent
    assert app.environment is found.environments["prod"]


PIN_PROBLEMS = [
    (wanted(version="1.4.0"),
     ("CatalogPinMissing environments/prod/x.yaml:2:10: version 1.4.0 is not in catalog-lock.yaml; "
     "acme/vpc has 1.4.1, 1.4.2, 1.5.0")),
    (wanted(version="1.6.0"),
     ("CatalogPinMissing environments/prod/x.yaml:2:10: the lock's version 1.6.0 of acme/vpc is broken: "
     'catalog-lock.yaml:13:38: modules.acme/vpc.versions.1.6.0.commit: "zzz" is not a commit (40 hexadecimal digits)')),
    (wanted(module="acme/vcp"),
     'CatalogPinMissing environments/prod/x.yaml:1:9: acme/vcp is not in catalog-lock.yaml; did you mean "acme/vpc"?'),
    (wanted(module="other/thing"),
     ("CatalogPinMissing environments/prod/x.yaml:1:9: other/thing is not in catalog-lock.yaml; "
     "known are acme/old, acme/vpc")),
    (wanted(module="acme/bad"),
     ("CatalogPinMissing environments/prod/x.yaml:1:9: acme/bad is broken in the lock: "
     'catalog-lock.yaml:15:20: modules.acme/bad.path: "../bad" is not a folder')),
    ("module: acme/vpc\nref: my-branch\n",
     ("RefNotAllowed environments/prod/x.yaml:2:6: ref is for sandboxes, and prod is protected; "
     "write a version of catalog-lock.yaml")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), PIN_PROBLEMS)
def test_entries_without_a_pin(text: str, problem: str) -> None:
    found = world({"prod": PROTECTED, "prod/x": text, "prod/sound": wanted()})
    lines = [line for line in told(found) if not line.startswith("LockInvalid")]
    assert lines == [problem]
    assert list(found.units) == list(found.order) == ["prod/sound"]
    assert found.broken[UnitId("prod/x")].unit == "prod/x"


def test_a_yanked_version_resolves() -> None:
    found = world({"prod": PROTECTED, "prod/x": wanted(version="1.5.0")})
    assert found.units[UnitId("prod/x")].pin.yanked == "it hurts"


TIP = Pin("", "", "", "", Commit("f" * 40), Digest("sha256:" + "f" * 64))


def test_a_branch_in_a_sandbox() -> None:
    files = {"box": SANDBOX, "box/x": "module: acme/vpc\nref: my-branch\n"}
    found = world(files, refs={("acme/vpc", "my-branch"): TIP})
    pin = found.units[UnitId("box/x")].pin
    providers = (ProviderPin("hashicorp/aws", "5.1.0", {"r.example": ("h1:x",)}),)
    assert pin == Pin("acme/vpc", "my-branch", "modules/vpc", "my-branch", TIP.commit, TIP.digest, providers)


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        ("acme/vpc", ("RefMissing environments/box/x.yaml:2:6: there is no branch b in the catalog repository of "
                     "acme/vpc; push it, or correct the name")),
        ("acme/old", ("CatalogPinMissing environments/box/x.yaml:2:6: every version of acme/old is yanked, and its "
                     "providers come from the newest; add a version")),
    ],
)  # fmt: skip
def test_a_branch_that_cannot_be_pinned(module: str, problem: str) -> None:
    assert told(world({"box": SANDBOX, "box/x": f"module: {module}\nref: b\n"})) == [problem]


LINKS = [
    ({"prod/x": reading("dns2.zone"), "prod/dns": wanted()},
     ['ReferenceMissing environments/prod/x.yaml:4:7: there is no unit prod/dns2; did you mean "prod/dns"?']),
    ({"prod/x": reading("hub.id"), "prod/net/hub": wanted()},
     ['ReferenceMissing environments/prod/x.yaml:4:7: there is no unit prod/hub; did you mean "prod/net/hub"?']),
    ({"prod/x": reading("zzz.id")},
     ["ReferenceMissing environments/prod/x.yaml:4:7: there is no unit prod/zzz; correct the name, or add its entry"]),
    ({"prod/x": reading("/prd/dns.id")},
     [("ReferenceMissing environments/prod/x.yaml:4:7: there is no unit prd/dns; there is no environment prd; "
      'did you mean "prod"?')]),
    ({"prod/x": wanted("depends_on: [y, z]"), "prod/y": wanted()},
     ["ReferenceMissing environments/prod/x.yaml:3:17: there is no unit prod/z; did you mean "
      '"prod/y"?'.replace('did you mean "prod/y"?', "correct the name, or add its entry")]),
    ({"prod/x": reading("b.id", "a.id"), "prod/a": wanted("state: absent"), "prod/b": wanted("state: forgotten")},
     ["ReferenceToAbsent environments/prod/x.yaml:4:7: prod/b has state: forgotten; stop reading it first, or keep it",
      "ReferenceToAbsent environments/prod/x.yaml:5:7: prod/a has state: absent; stop reading it first, or keep it"]),
    ({"box": SANDBOX, "box/a": wanted(), "prod/x": reading("/box/a.id")},
     [("ReadsSandbox environments/prod/x.yaml:4:7: box/a is in a sandbox, and a protected environment never reads or "
      "follows one; remove it")]),
    ({"box": SANDBOX, "box/a": wanted(), "prod/x": wanted("state: absent", "depends_on: [/box/a]")},
     [("ReadsSandbox environments/prod/x.yaml:4:14: box/a is in a sandbox, and a protected environment never reads or "
      "follows one; remove it")]),
    ({"prod": PROTECTED + "providers: {aws.eu: {}}\n", "prod/x": wanted("providers: {aws: aws.us}")},
     ['ProviderMissing environments/prod/x.yaml:3:18: prod configures no provider aws.us; did you mean "aws.eu"?']),
    ({"prod/x": wanted("providers: {aws: aws}")},
     ["ProviderMissing environments/prod/x.yaml:3:18: prod configures no provider aws"]),
    ({"prod/x": wanted("moved_from: y"), "prod/y": wanted()},
     ["MoveInvalid environments/prod/x.yaml:3:13: prod/y is still there; a move keeps one of the two: remove its file"]),
    ({"prod/x": wanted("moved_from: old"), "prod/y": wanted("moved_from: old")},
     ["MoveInvalid environments/prod/x.yaml:3:13: prod/y moves from prod/old too; only one can have its state",
      "MoveInvalid environments/prod/y.yaml:3:13: prod/x moves from prod/old too; only one can have its state"]),
    ({"prod/x": wanted("adopt: {state: /srv/a}"), "prod/y": wanted("adopt: {state: /srv/a}")},
     ["AdoptInvalid environments/prod/x.yaml:3:16: prod/y adopts the same state; only one can have its objects",
      "AdoptInvalid environments/prod/y.yaml:3:16: prod/x adopts the same state; only one can have its objects"]),
    ({"prod/x": reading("x.id")},
     [("DependencyCycle environments/prod/x.yaml:4:7: this is a cycle, each waiting for the next: prod/x -> prod/x; "
      "break it at one of them")]),
]  # fmt: skip


@pytest.mark.parametrize(("files", "problems"), LINKS)
def test_what_is_wrong_between_entries(files: dict[str, str], problems: list[str]) -> None:
    found = world({"prod": PROTECTED, **files})
    assert told(found) == problems
    assert all(problem.unit in found.broken and problem.unit not in found.units for problem in found.problems)
    assert set(found.order) == set(found.units)


@pytest.mark.parametrize(
    "files",
    [
        {"prod/x": wanted("moved_from: old")},
        {"prod/x": wanted("adopt: {state: /srv/a}"), "prod/y": wanted("adopt: {state: /srv/b}")},
        {"prod/x": wanted("state: absent", "depends_on: [gone]"), "prod/y": wanted()},
        {"prod/x": wanted("state: absent", "inputs: {a: '${{ y.id }}'}"), "prod/y": wanted("state: absent")},
        {"box": SANDBOX, "box/x": reading("/prod/y.id"), "prod/y": wanted()},
        {"box": SANDBOX, "box/x": reading("/box2/y.id"), "box2": SANDBOX, "box2/y": wanted()},
        {"prod/a": wanted(), "prod/a/b": wanted()},
    ],
)
def test_what_is_fine_between_entries(files: dict[str, str]) -> None:
    assert told(world({"prod": PROTECTED, **files})) == []


def test_what_goes_does_not_wait_for_what_is_gone() -> None:
    found = world({"prod": PROTECTED, "prod/x": wanted("state: absent", "depends_on: [gone, y]"), "prod/y": wanted()})
    assert found.units[UnitId("prod/x")].upstream == {"prod/y"}


def test_a_broken_entry_leaves_its_readers_waiting() -> None:
    found = world({"prod": PROTECTED, "prod/a": "module: [", "prod/b": reading("a.id"), "prod/c": wanted(version="9.9.9"),
                   "prod/d": reading("c.id")})  # fmt: skip
    assert list(found.units) == ["prod/b", "prod/d"]
    assert list(found.broken) == ["prod/a", "prod/c"]
    assert found.units[UnitId("prod/b")].upstream == {"prod/a"}
    assert found.order == ("prod/b", "prod/d")


def test_a_cycle_names_all_of_it_and_breaks_every_member() -> None:
    found = world({
        "prod": PROTECTED,
        "prod/a": reading("b.id"),
        "prod/b": wanted("depends_on: [c]"),
        "prod/c": reading("d.id", "a.id"),
        "prod/d": wanted(),
        "prod/e": reading("a.id"),
    })  # fmt: skip
    cycle = "this is a cycle, each waiting for the next: prod/a -> prod/b -> prod/c -> prod/a; break it at one of them"
    assert told(found) == [
        f"DependencyCycle environments/prod/a.yaml:4:7: {cycle}",
        f"DependencyCycle environments/prod/b.yaml:3:14: {cycle}",
        f"DependencyCycle environments/prod/c.yaml:5:7: {cycle}",
    ]
    assert list(found.broken) == ["prod/a", "prod/b", "prod/c"]
    assert found.order == ("prod/d", "prod/e")


def test_a_member_of_a_tangle_that_is_not_on_the_cycle_shown() -> None:
    found = world({"prod": PROTECTED, "prod/a": reading("b.id"), "prod/b": reading("a.id", "c.id"),
                   "prod/c": reading("b.id")})  # fmt: skip
    cycle = "this is a cycle, each waiting for the next: prod/a -> prod/b -> prod/a; break it at one of them"
    assert told(found) == [
        f"DependencyCycle environments/prod/a.yaml:4:7: {cycle}",
        f"DependencyCycle environments/prod/b.yaml:4:7: {cycle}",
        f"DependencyCycle environments/prod/c.yaml: {cycle}",
    ]


def test_a_cycle_through_environments() -> None:
    found = world({"dev": PROTECTED, "stage": PROTECTED + "depends_on: [dev]\n", "dev/a": reading("/stage/b.id"),
                   "stage/b": wanted(), "stage/c": wanted(), "dev/d": wanted()})  # fmt: skip
    cycle = (
        "this is a cycle, each waiting for the next: dev/a -> stage/b -> environment dev -> dev/a; "
        "break it at one of them"
    )
    assert told(found) == [
        f"DependencyCycle environments/dev/a.yaml:4:7: {cycle}",
        f"DependencyCycle environments/stage/environment.yaml: {cycle}",
    ]
    assert list(found.broken) == ["dev/a", "stage/b"]
    assert found.order == ("dev/d", "stage/c")


def test_an_environment_after_another() -> None:
    found = world({
        "base": PROTECTED, "base/a": wanted(), "base/b": wanted(), "base/c": "[",
        "prod": PROTECTED + "depends_on: [base, empty]\n", "prod/x": wanted(), "prod/y": reading("x.id", "/base/a.id"),
        "empty": PROTECTED,
    })  # fmt: skip
    x, y = found.units[UnitId("prod/x")], found.units[UnitId("prod/y")]
    assert x.upstream == {"base/a", "base/b", "base/c"}
    assert y.upstream == {"base/a", "base/b", "base/c", "prod/x"}
    assert sorted(y.upstream) == ["base/a", "base/b", "base/c", "prod/x"]
    assert len(y.upstream) == 4
    assert "base/c" in y.upstream
    assert "prod/y" not in y.upstream
    assert found.order == ("base/a", "base/b", "prod/x", "prod/y")


@pytest.mark.parametrize(
    ("files", "problems"),
    [
        ({"prod": PROTECTED + "depends_on: [bsae]\n", "base": PROTECTED},
         [('ReferenceMissing environments/prod/environment.yaml: depends_on: there is no environment bsae; '
          'did you mean "base"?')]),
        ({"prod": PROTECTED + "depends_on: [box]\n", "box": SANDBOX},
         [("ReadsSandbox environments/prod/environment.yaml: depends_on: box is a sandbox, and a protected environment "
          "never follows one; remove it")]),
        ({},
         [("EnvironmentMissing environments/prod/environment.yaml: prod has entries and no environment.yaml; add one "
          "that says class: protected or class: sandbox")]),
        ({"prod": "class: x\n"},
         [("SchemaInvalid environments/prod/environment.yaml:1:8: class: expected protected or sandbox, not the string "
          '"x"')]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_environment_is_said_once(files: dict[str, str], problems: list[str]) -> None:
    found = world(
        {**files, "prod/a": wanted(), "prod/b": wanted(), "other": PROTECTED, "other/x": reading("/prod/a.id")}
    )
    assert told(found) == problems
    path = "environments/prod/environment.yaml"
    message = f"{path} is missing or wrong; correct it first"
    for unit in ("prod/a", "prod/b"):
        assert found.broken[UnitId(unit)] == Problem(Place(path), "EnvironmentInvalid", message, UnitId(unit))
    assert list(found.units) == ["other/x"]
    assert "prod" not in found.environments


def test_an_environment_may_follow_one_that_is_broken() -> None:
    found = world(
        {"base": "class: x\n", "prod": PROTECTED + "depends_on: [base]\n", "prod/x": wanted(), "base/a": wanted()}
    )
    assert found.units[UnitId("prod/x")].upstream == {"base/a"}


def test_a_sandbox_may_follow_a_sandbox() -> None:
    assert told(world({"a": SANDBOX, "b": SANDBOX + "depends_on: [a]\n"})) == []


@pytest.mark.parametrize("lock", [missing_lock("catalog-lock.yaml"), read_lock("catalog-lock.yaml", b"[")])
def test_a_lock_that_cannot_be_read_is_said_once(lock: LockFile) -> None:
    files = {"prod": PROTECTED, "prod/a": wanted(), "prod/b": wanted()}
    assert lock.unreadable is not None
    found = world(files, lock)
    assert found.problems == (lock.unreadable,)
    assert {one.message for one in found.broken.values()} == {lock.unreadable.message}
    assert found.units == {}


def test_no_lock_is_needed_where_nothing_is_deployed() -> None:
    assert told(world({"prod": PROTECTED}, missing_lock("catalog-lock.yaml"))) == []


def test_hints_end_where_problems_are_many() -> None:
    found = world({"prod": PROTECTED, **{f"prod/u{n}": reading("zone1.id") for n in range(60)}, "prod/zone": wanted()})
    hinted = [problem for problem in found.problems if "did you mean" in problem.message]
    assert (len(found.problems), len(hinted)) == (60, 50)
    assert found.problems[-1].message.endswith("there is no unit prod/zone1; correct the name")


def test_what_did_not_change_is_the_same_object() -> None:
    files = {"prod": PROTECTED, "base": PROTECTED, "last": PROTECTED + "depends_on: [prod]\n"}
    entries = {UnitId(f"{name}/{unit}"): entry for name in ("prod", "base", "last") for unit in "ab"
               if isinstance(entry := parse_entry(f"environments/{name}/{unit}.yaml",
                                                  reading("/base/a.id" if unit == "b" else "/base/z.id").encode()
                                                  if name != "base" else wanted().encode()), Entry)}  # fmt: skip
    environments = {
        name: one for name, text in files.items()
        if isinstance(one := parse_environment(f"environments/{name}/environment.yaml", text.encode()), Environment)
    }  # fmt: skip
    z = parse_entry("environments/base/z.yaml", wanted().encode())
    assert isinstance(z, Entry)
    entries[z.unit] = z
    before = resolve(COMMIT, environments, entries, LOCK_FILE, [])
    first = before.desired
    changed = parse_entry("environments/prod/a.yaml", wanted("allow_destroy: 1").encode())
    assert isinstance(changed, Entry)
    after = resolve(COMMIT, environments, {**entries, changed.unit: changed}, LOCK_FILE, [], before=before)
    second = after.desired
    same = {id_ for id_, unit in second.units.items() if unit is first.units[id_]}
    assert same == {*first.units} - {"prod/a"}
    assert second.units[changed.unit].entry is changed
    fresh = resolve(COMMIT, environments, {**entries, changed.unit: changed}, LOCK_FILE, []).desired
    assert second == fresh
    del entries[z.unit]
    third = resolve(COMMIT, environments, entries, LOCK_FILE, [], before=after).desired
    assert third == resolve(COMMIT, environments, entries, LOCK_FILE, []).desired


def test_sets_as_one() -> None:
    union = Union((frozenset({UnitId("a/b")}), frozenset({UnitId("c/d"), UnitId("c/e")})))
    assert sorted(union) == ["a/b", "c/d", "c/e"]
    expected: AbstractSet[UnitId] = frozenset({UnitId("a/b"), UnitId("c/d"), UnitId("c/e")})
    assert union == expected
    assert union & {UnitId("c/d"), UnitId("x/y")} == {"c/d"}


UNITS = st.sampled_from([f"{environment}/{name}" for environment in ("a", "b", "box", "none") for name in "xyz"])
ENTRIES = st.dictionaries(
    UNITS,
    st.tuples(st.lists(UNITS, max_size=2), st.sampled_from(["present", "absent"]), st.sampled_from(["1.4.2", "7.0.0"])),
)


@given(ENTRIES, st.booleans())
def test_every_entry_is_a_unit_or_broken_and_the_order_holds(
    entries: dict[str, tuple[list[str], str, str]], follows: bool
) -> None:
    files = {"a": PROTECTED, "b": PROTECTED + ("depends_on: [a]\n" if follows else ""), "box": SANDBOX}
    for name, (reads, state, version) in entries.items():
        names = ", ".join(f"'/{one}'" for one in reads if one != name)
        files[name] = wanted(f"state: {state}", f"depends_on: [{names}]", version=version)
    found = world(files)
    assert {*found.units} | {*found.broken} == {*entries}
    assert not {*found.units} & {*found.broken}
    assert sorted(found.order) == sorted(found.units)
    position = {unit: number for number, unit in enumerate(found.order)}
    assert all(
        position[before] < position[id_]
        for id_, unit in found.units.items()
        for before in unit.upstream
        if before in position
    )
    assert world(files) == found


def test_where_code_is_promoted_from() -> None:
    rule = "promotion: {{after: {}, soak: 1h}}\n"
    assert told(world({"stage": PROTECTED, "prod": PROTECTED + rule.format("stage")})) == []
    assert told(world({"a": SANDBOX, "b": SANDBOX + rule.format("a")})) == []
    (missing,) = told(world({"stage": PROTECTED, "prod": PROTECTED + rule.format("stag")}))
    assert "promotion.after: there is no environment stag" in str(missing)
    (sandbox,) = told(world({"box": SANDBOX, "prod": PROTECTED + rule.format("box")}))
    assert "promotion.after: box is a sandbox" in str(sandbox)


def test_an_entry_in_which_a_bug_is_found_is_broken_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pinned

    def pin_of(entry: Entry, *rest: object) -> object:
        if entry.unit == "prod/a":
            raise ValueError("nobody foresaw this")
        return real(entry, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(resolving, "pin_of", pin_of)
    found = make.desired(make.entry("prod/a"), make.entry("prod/b"), make.entry("prod/c", reads=["prod/a"]))
    assert set(found.units) == {"prod/b", "prod/c"}
    assert found.broken[UnitId("prod/a")].reason == "InternalError"
    assert "nobody foresaw this" in found.broken[UnitId("prod/a")].message
