from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.entries import Places, parse_entry, parse_environment
from reconciler.errors import Place
from reconciler.model import (
    Allowances,
    DriftMode,
    Entry,
    Environment,
    EnvironmentClass,
    Limits,
    Presence,
    Problem,
    Reference,
    ReviewMode,
    SecretReference,
    Text,
    Timeouts,
    UnitId,
)

PATH = "environments/prod/network.yaml"
UNIT = UnitId("prod/network")
ENVIRONMENT = "environments/prod/environment.yaml"


def entry(text: str) -> Entry:
    found = parse_entry(PATH, text.encode())
    assert isinstance(found, Entry), found
    return found


def told(text: str) -> list[str]:
    problems = parse_entry(PATH, text.encode())
    assert isinstance(problems, list)
    assert all(problem.unit == UNIT for problem in problems)
    return [f"{problem.reason} {str(problem).removeprefix(PATH + ':')}" for problem in problems]


def environment_told(text: str) -> list[str]:
    problems = parse_environment(ENVIRONMENT, text.encode())
    assert isinstance(problems, list)
    assert all(problem.unit is None for problem in problems)
    return [f"{problem.reason} {str(problem).removeprefix(ENVIRONMENT + ':')}" for problem in problems]


FULL = """\
module: acme/vpc
version: "1.4.2"
inputs:
  cidr: 10.0.0.0/16
  zone_id: ${{ dns.zone_id }}
  name: app-${{ dns.zones[0].name }}-x
  tags: {owner: "${{ secret.owner }}", n: 1}
  list: [a, "$${{"]
providers: {aws: aws.us_east_1}
depends_on: [dns, net/hub, /shared/base]
state: absent
allow_destroy: 2
allow_downgrade: true
replace: ['aws_instance.web["a"]']
moved_from: old/name
"""


def test_a_whole_entry() -> None:
    assert entry(FULL) == Entry(
        unit=UNIT,
        place=Place(PATH),
        module="acme/vpc",
        version="1.4.2",
        inputs={
            "cidr": "10.0.0.0/16",
            "zone_id": Reference(UnitId("prod/dns"), "zone_id"),
            "name": Text(("app-", Reference(UnitId("prod/dns"), "zones", (0, "name")), "-x")),
            "tags": {"owner": SecretReference("owner"), "n": 1},
            "list": ["a", "${{"],
        },
        providers={"aws": "aws.us_east_1"},
        depends_on=(UnitId("prod/dns"), UnitId("prod/net/hub"), UnitId("shared/base")),
        presence=Presence.ABSENT,
        allowances=Allowances(destroy=2, downgrade=True, replace=('aws_instance.web["a"]',)),
        moved_from=UnitId("prod/old/name"),
        places=Places(PATH, FULL.encode()),
    )


TAKING = """\
module: acme/vpc
version: "1.4.2"
import:
  aws_vpc.this: vpc-123
  module.net["a b"].module.x[0].aws_subnet.s["ö/x"]: ${file("x")}
adopt: {state: s3://bucket-1/a/b.tfstate}
"""


def test_an_entry_that_takes_over_what_is_there() -> None:
    found = entry(TAKING)
    second = 'module.net["a b"].module.x[0].aws_subnet.s["ö/x"]'
    assert found.imports == {"aws_vpc.this": "vpc-123", second: '${file("x")}'}
    assert found.adopt == "s3://bucket-1/a/b.tfstate"
    assert (found.at(f"import.{second}").line, found.at("adopt.state").line) == (5, 6)
    assert entry(TAKING.replace("s3://bucket-1", "/srv")).adopt == "/srv/a/b.tfstate"


def test_an_entry_that_says_little() -> None:
    found = entry("module: acme/vpc\nref: my-branch\n")
    assert (found.version, found.ref, found.inputs, found.presence) == (None, "my-branch", {}, Presence.PRESENT)
    assert (found.allowances, found.depends_on, found.moved_from) == (Allowances(), (), None)


@pytest.mark.parametrize(
    ("name", "line", "column"),
    [
        ("module", 1, 9),
        ("version", 2, 10),
        ("inputs.cidr", 4, 9),
        ("inputs.zone_id", 5, 12),
        ("/prod/dns.zone_id", 5, 12),
        ("/prod/dns.zones[0].name", 6, 13),
        ("secret.owner", 7, 18),
        ("inputs.tags.n", 7, 43),
        ("inputs.list[1]", 8, 13),
        ("providers.aws", 9, 18),
        ("depends_on[2]", 10, 28),
        ("moved_from", 15, 13),
    ],
)
def test_where_everything_stands(name: str, line: int, column: int) -> None:
    found = entry(FULL)
    assert found.at(name) == Place(PATH, line, column)
    assert name in found.places


def test_what_stands_nowhere_stands_in_the_file() -> None:
    found = entry(FULL)
    assert found.at("inputs.nothing") == Place(PATH)
    assert len(found.places) == len(list(found.places))
    assert dict(Places(PATH, b"{")) == {}


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("module: [\n", [("YamlInvalid 1:10: this is not YAML: did not find expected node content; "
                         "check the indentation and the quotes around here")]),
        ("version: '1'\n", ['SchemaInvalid 1:1: the field "module" is missing; add it']),
        ("module: acme/vpc\n",
         ['SchemaInvalid 1:1: the field "version" is missing; add a version of catalog-lock.yaml']),
        ("module: acme/vpc\nversion: 1.10\n", ['SchemaInvalid 2:10: version: 1.10 is a number here; quote it: "1.10"']),
        ("module: acme/vpc\nversion: true\n",
         ['SchemaInvalid 2:10: version: true is true or false here; quote it: "true"']),
        ("module: acme/vpc\nversion: [1]\n", ["SchemaInvalid 2:10: version: expected a string, not a list"]),
        ("module: null\nversion: '1'\n", ["SchemaInvalid 1:9: module: expected a string, not null"]),
        ("module: vpc\nversion: '1'\n",
         ['SchemaInvalid 1:9: module: "vpc" is not <catalog repository>/<module>']),
        ("module: ../x\nversion: '1'\n",
         ['SchemaInvalid 1:9: module: "../x" is not <catalog repository>/<module>']),
        ("module: acme/vpc\nref: x\nversion: '1'\n",
         ["SchemaInvalid 2:1: version and ref exclude each other; remove one of them"]),
        ("module: acme/vpc\nref: --upload-pack=x\n",
         ['SchemaInvalid 2:6: ref: "--upload-pack=x" is not a branch or tag']),
        ("module: acme/vpc\nref: main.lock\n",
         ["SchemaInvalid 2:6: ref: git has no branch or tag whose name ends in .lock; rename it"]),
        ("module: acme/vpc\nref: a..b\n", ['SchemaInvalid 2:6: ref: "a..b" is not a branch or tag']),
        ("module: acme/vpc\nversion: '1'\ninptus: {}\nzzz: 1\n",
         ['SchemaInvalid 3:1: unknown field "inptus"; did you mean "inputs"?',
          ('SchemaInvalid 4:1: unknown field "zzz"; known are adopt, allow_destroy, allow_downgrade, depends_on, '
          "import, inputs, module, moved_from, promotion_skip, providers, ref, replace, state, version")]),
        ("module: acme/vpc\nversion: '1'\ninputs: [a]\nstate: abesnt\nallow_downgrade: yes\n",
         ["SchemaInvalid 3:9: inputs: expected a mapping, not a list",
          ('SchemaInvalid 4:8: state: expected present or absent or forgotten, not the string "abesnt"; '
          'did you mean "absent"?'),
          'SchemaInvalid 5:18: allow_downgrade: expected true or false, not the string "yes"']),
        ("module: acme/vpc\nversion: '1'\nallow_destroy: -1\nreplace: {a: b}\n",
         ["SchemaInvalid 3:16: allow_destroy: the number -1 is out of bounds; write at least 0",
          "SchemaInvalid 4:10: replace: expected a list, not a mapping"]),
        ("module: acme/vpc\nversion: '1'\nallow_destroy: 1.5\n",
         ["SchemaInvalid 3:16: allow_destroy: expected a whole number, not the number 1.5"]),
        ("module: acme/vpc\nversion: '1'\nallow_destroy: true\n",
         ["SchemaInvalid 3:16: allow_destroy: expected a whole number, not true"]),
        ("module: acme/vpc\nversion: '1'\nallow_destroy: 1000001\n",
         ["SchemaInvalid 3:16: allow_destroy: the number 1000001 is out of bounds; write at most 1000000"]),
        ("module: acme/vpc\nversion: '1'\ninputs:\n  a-b: 1\n  a b: 2\n",
         ['SchemaInvalid 5:3: inputs.a b: "a b" is not a name (letters, digits, _ and -)']),
        ("module: acme/vpc\nversion: '1'\ndepends_on: [X, a/../b]\n",
         ['SchemaInvalid 3:14: depends_on[0]: "X" is not a unit (dns, net/hub or /shared/net/hub)',
          'SchemaInvalid 3:17: depends_on[1]: "a/../b" is not a unit (dns, net/hub or /shared/net/hub)']),
        ("module: acme/vpc\nversion: '1'\ndepends_on: [/shared, network]\n",
         [("SchemaInvalid 3:14: /shared names an environment; write /environment/unit, or depends_on in "
          "environment.yaml"),
          "SchemaInvalid 3:23: an entry cannot depend on itself; remove it"]),
        ("module: acme/vpc\nversion: '1'\nmoved_from: network\n",
         ["MoveInvalid 3:13: an entry cannot move from itself; write its former name"]),
        ("module: acme/vpc\nversion: '1'\nmoved_from: /stage/network\n",
         ["MoveInvalid 3:13: a state can move only inside its environment; write a name of prod"]),
        ("module: acme/vpc\nversion: '1'\nmoved_from: old\nadopt: {state: s3://bucket/k}\n",
         ["SchemaInvalid 4:1: adopt and moved_from exclude each other, since a unit has one state; remove one of them"]),
        ("module: acme/vpc\nversion: '1'\nadopt: {state: states/x}\n",
         ['SchemaInvalid 3:16: adopt.state: "states/x" is not a state (s3://bucket/key, or a path on the runner\'s host)']),
        ("module: acme/vpc\nversion: '1'\nadopt: {state: s3://b-1/}\n",
         ['SchemaInvalid 3:16: adopt.state: "s3://b-1/" is not a state (s3://bucket/key, or a path on the runner\'s host)']),
        *((f"module: acme/vpc\nversion: '1'\nadopt: {{state: {source}}}\n",
           ["SchemaInvalid 3:16: adopt.state: write the address of the state without `..`, `.`, `//` and a `/` at its end"])
          for source in ("/srv/../etc/x", "/srv/./x", "//srv/x", "/srv/", "s3://bucket/a/../b", "s3://bucket//a")),
        *((f"module: acme/vpc\nversion: '1'\nimport: {{'{address}': x}}\n",
           [(f'SchemaInvalid 3:10: import.{address}: "{address}" is not an address inside the module '
             '(aws_vpc.this or module.net.aws_subnet.a["x"])')])
          for address in ("aws_vpc", "a.b.c", "a.b[x]", "a.b[01]", "a.${x}")),
        ("module: acme/vpc\nversion: '1'\nimport: {a.b: 1}\n",
         ['SchemaInvalid 3:15: import.a.b: 1 is a number here; quote it: "1"']),
        ("module: acme/vpc\nversion: '${{ a.b }}'\nreplace: ['${{ a.b }}', x]\n",
         [("TemplateInvalid 2:11: ${{ }} stands for a value only inside the inputs of an entry; "
          "write the value itself"),
          ("TemplateInvalid 3:12: ${{ }} stands for a value only inside the inputs of an entry; "
          "write the value itself")]),
        ('module: acme/vpc\nversion: "\\x24{{"\n',
         [("TemplateInvalid 2:10: ${{ }} stands for a value only inside the inputs of an entry; "
          "write the value itself")]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_entry(text: str, problems: list[str]) -> None:
    assert told(text) == problems


@pytest.mark.parametrize(
    ("inputs", "place"),
    [
        ("  a: ${{ b }}\n", "4:6"),
        ("  a: x ${{ b.c }} y ${{ d }}\n", "4:21"),
        ('  a: "x ${{ b.c }} y ${{ d }}"\n', "4:22"),
        ("  a: {b: [1, 'x${{ d }}']}\n", "4:16"),
        ("  a: |\n    x\n    y ${{ b }}\n", "6:7"),
        ("  a: >-\n    x ${{ b.c }}\n    ${{ b }}\n", "6:5"),
        ("  a: x\n    y ${{ b }}\n", "5:7"),
        ('  a: "\\x24{{ b }}"\n', "4:6"),
        ('  a: "\\t $${{ ${{ b }}"\n', "4:15"),
    ],
)
def test_a_wrong_template_is_told_at_its_place_inside_the_scalar(inputs: str, place: str) -> None:
    (problem,) = told("module: acme/vpc\nversion: '1'\ninputs:\n" + inputs)
    assert problem.startswith(f"TemplateInvalid {place}: ${{{{ ")


def test_all_wrong_templates_are_told() -> None:
    assert told("module: acme/vpc\nversion: '1'\ninputs: {a: '${{ b', c: ['${{'], d: {'${{ x }}': 1}}\n") == [
        "TemplateInvalid 3:14: ${{ is not closed; close it with }}, or write $${{ for the literal text",
        "TemplateInvalid 3:27: ${{ is not closed; close it with }}, or write $${{ for the literal text",
        "TemplateInvalid 3:38: a key cannot hold ${{ }}; write the key itself",
    ]


def test_terraform_syntax_is_text() -> None:
    text = '${file("~/.aws/credentials")} %{ for x in y } file(x)'
    assert entry(f"module: acme/vpc\nversion: '1'\ninputs: {{a: '{text}'}}\n").inputs == {"a": text}


def test_a_path_that_is_no_entrys() -> None:
    assert parse_entry("environments/prod/environment.yaml", b"") == [
        Problem(Place("environments/prod/environment.yaml"), "PathInvalid", "this is no entry's path")
    ]
    assert parse_entry("environments/x.yml", b"") == [
        Problem(Place("environments/x.yml"), "PathInvalid", "rename it to .yaml")
    ]
    assert parse_environment(PATH, b"") == [Problem(Place(PATH), "PathInvalid", "this is no environment.yaml's path")]


def test_a_whole_environment() -> None:
    text = """\
class: protected
providers:
  aws: {region: eu-west-1}
  aws.us_east_1: {region: us-east-1}
drift: report
drift_interval: 30m
depends_on: [shared]
review: "off"
limits: {destroy: 1, recreate: 0, free_replace: [terraform_data]}
timeouts: {plan: 30s, apply: 2d}
"""
    assert parse_environment(ENVIRONMENT, text.encode()) == Environment(
        name="prod",
        place=Place(ENVIRONMENT),
        klass=EnvironmentClass.PROTECTED,
        providers={"aws": {"region": "eu-west-1"}, "aws.us_east_1": {"region": "us-east-1"}},
        drift=DriftMode.REPORT,
        drift_interval=timedelta(minutes=30),
        depends_on=("shared",),
        review=ReviewMode.OFF,
        limits=Limits(1, 0, frozenset({"terraform_data"})),
        timeouts=Timeouts(timedelta(seconds=30), timedelta(days=2)),
    )


def test_an_environment_that_says_little_has_the_defaults_of_the_model() -> None:
    expected = Environment("prod", Place(ENVIRONMENT), EnvironmentClass.SANDBOX)
    assert parse_environment(ENVIRONMENT, b"class: sandbox\n") == expected


DURATION = "a duration is a number and s, m, h or d, at most 366d; write 30s or 6h"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("class: [\n", [("YamlInvalid 1:9: this is not YAML: did not find expected node content; "
                        "check the indentation and the quotes around here")]),
        ("drift: correct\n", ['SchemaInvalid 1:1: the field "class" is missing; add it']),
        ("class: prod\n", [('SchemaInvalid 1:8: class: expected protected or sandbox, not the string "prod"; '
                           'did you mean "protected"?')]),
        ("class: sandbox\nlimits: {destory: 1}\n",
         ['SchemaInvalid 2:10: unknown field "destory"; did you mean "destroy"?']),
        ("class: sandbox\ntimeouts: {plan: 15}\n", [f"SchemaInvalid 2:18: timeouts.plan: {DURATION}"]),
        ("class: sandbox\ndrift_interval: 1 hour\n", [f"SchemaInvalid 2:17: drift_interval: {DURATION}"]),
        ("class: sandbox\ndrift_interval: 0s\n", [f"SchemaInvalid 2:17: drift_interval: {DURATION}"]),
        ("class: sandbox\ndrift_interval: 367d\n", [f"SchemaInvalid 2:17: drift_interval: {DURATION}"]),
        ("class: sandbox\nfreeze: [{cron: x}]\n",
         ['SchemaInvalid 2:10: the field "duration" is missing; add it',
          'SchemaInvalid 2:10: the field "reason" is missing; add it']),
        ("class: sandbox\npromotion: {after: prod, soak: 24h}\n",
         ["SchemaInvalid 2:20: promotion.after: nothing is promoted into where it comes from; name another environment"]),
        ("class: sandbox\npromotion: {after: stage}\n",
         ['SchemaInvalid 2:12: the field "soak" is missing; add it']),
        ('class: sandbox\nfreeze:\n  - {cron: "0 16 * *", duration: 32d, timezone: Mars, reason: x}\n',
         [('SchemaInvalid 3:12: freeze[0].cron: write five fields: minute, hour, day of month, month, day of week, as in '
           '"0 16 * * FRI"'),
          "SchemaInvalid 3:34: freeze[0].duration: 32d is too long; write at most 31d",
          "SchemaInvalid 3:49: freeze[0].timezone: there is no such time zone; write UTC, or a name like Europe/Berlin"]),
        ('class: sandbox\nfreeze:\n  - {cron: "0 0 31 2 *", duration: 0h, reason: x}\n',
         ["SchemaInvalid 3:36: freeze[0].duration: a duration is a number and s, m, h or d, at most 366d; write 30s or 6h"]),
        ('class: sandbox\nfreeze:\n  - {cron: "0 0 */30 2 1#5", duration: 1h, reason: x}\n',
         ["SchemaInvalid 3:12: freeze[0].cron: this never comes; write a day that exists"]),
        ("class: sandbox\ndepends_on: [dev, prod]\n",
         ["SchemaInvalid 2:19: an environment cannot depend on itself; remove it"]),
        ("class: sandbox\nproviders: {aws: {region: '${{ secret.x }}'}}\n",
         [("TemplateInvalid 2:28: ${{ }} stands for a value only inside the inputs of an entry; "
          "write the value itself")]),
        ("class: sandbox\nproviders: {AWS: {region: x}}\n",
         ['SchemaInvalid 2:13: providers.AWS: "AWS" is not a provider (aws or aws.alias)']),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_environment(text: str, problems: list[str]) -> None:
    assert environment_told(text) == problems


WORDS = st.sampled_from(
    ["module", "version", "inputs", "depends_on", "state", ": ", "acme/vpc", "'1'", "\n", "  ", "- ", "{", "}", "[",
     "]", ", ", "${{ a.b }}", "${{", "$${{", "absent", "1", "null", "class", "sandbox", '"\\x24{{ a"']
)  # fmt: skip


@given(st.lists(WORDS, max_size=30).map("".join))
def test_nothing_that_is_written_makes_it_raise(text: str) -> None:
    found = parse_entry(PATH, text.encode())
    assert isinstance(found, Entry) or (found and all(isinstance(one, Problem) for one in found))
    environment = parse_environment(ENVIRONMENT, text.encode())
    assert isinstance(environment, Environment) or environment
