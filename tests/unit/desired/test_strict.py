from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.desired import strict
from reconciler.desired.document import Document
from reconciler.desired.strict import DEPTH_LIMIT, FILE_LIMIT, MOST_TOLD, VALUES_LIMIT, parse
from reconciler.desired.wording import close_to, printable
from reconciler.errors import Place
from reconciler.model import Problem

PATH = "environments/prod/network.yaml"


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(strict, "PARSER", getattr(yaml, request.param))
    return str(request.param)


def read(text: str | bytes) -> Any:
    document = parse(PATH, text.encode() if isinstance(text, str) else text)
    assert isinstance(document, Document), document
    return document.root.plain()


def told(text: str | bytes, limit: int = FILE_LIMIT) -> list[str]:
    problems = parse(PATH, text.encode() if isinstance(text, str) else text, limit)
    assert isinstance(problems, list)
    assert all(problem.reason == "YamlInvalid" and problem.place.path == PATH for problem in problems)
    return [str(problem).removeprefix(PATH) for problem in problems]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("True", "True"),
        ("~", "~"),
        ("Null", "Null"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("0", 0),
        ("-0", 0),
        ("-17", -17),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("+1", "+1"),
        (".5", ".5"),
        ("1.", "1."),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        ("1.4.2", "1.4.2"),
        ("12:30:45", "12:30:45"),
        ("2001-12-14", "2001-12-14"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("-", None),
        ("nothing", "nothing"),
        ("'1'", "1"),
        ('"true"', "true"),
        ('"\\u00e4"', "ä"),
        ("=", "="),
        ("99999999999999999999", 99999999999999999999),
    ],
)
def test_plain_scalars_follow_json(parser: str, written: str, meant: object) -> None:
    if meant is None and written == "-":
        assert told(f"a: {written}") == [
            ":1:4: this is not YAML: block sequence entries are not allowed in this context; "
            "check the indentation and the quotes around here"
            if parser == "CSafeLoader"
            else ":1:4: this is not YAML: sequence entries are not allowed here; "
            "check the indentation and the quotes around here"
        ]
        return
    found = read(f"a: {written}")["a"]
    assert found == meant
    assert type(found) is type(meant)


def test_a_tree_and_its_places(parser: str) -> None:
    document = parse(PATH, b"# first\nmodule: acme/vpc\r\ninputs:\n  tags: {a: 1, b: [x, 'y z']}\n")
    assert isinstance(document, Document)
    assert document.root.plain() == {"module": "acme/vpc", "inputs": {"tags": {"a": 1, "b": ["x", "y z"]}}}
    assert document.place_of(("module",)) == Place(PATH, 2, 9)
    assert document.place_of(("module",), key=True) == Place(PATH, 2, 1)
    assert document.place_of(("inputs", "tags", "b", 1)) == Place(PATH, 4, 23)
    assert document.place_of(("inputs", "tags", "b", 1), key=True) == Place(PATH, 4, 23)
    assert document.place_of(("inputs", "<tag>", "tags", "c")) == Place(PATH, 4, 9)
    assert document.place_of(("module", 3)) == Place(PATH, 2, 9)
    assert document.raw(document.find(("inputs", "tags", "b"))) == "[x, 'y z']"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\na: 2\n", [':2:1: "a" stands here a second time, after line 1; keep one of the two']),
        ("a: {b: 1, b: 2}", [':1:11: "b" stands here a second time, after line 1; keep one of the two']),
        ("a: &x 1\n", [":1:4: anchors (&x) are not allowed; remove it"]),
        ("a: &x {b: 1}\n", [":1:4: anchors (&x) are not allowed; remove it"]),
        ("a: &x 1\nb: *x\n", [":1:4: anchors (&x) are not allowed; remove it",
                              ":2:4: aliases (*x) are not allowed; write the value out"]),
        ("a: &x 1\n*x : 2\n", [":1:4: anchors (&x) are not allowed; remove it",
                               ":2:1: aliases (*x) are not allowed; write the value out"]),
        ("a: !!str 1\n", [":1:4: tags (tag:yaml.org,2002:str) are not allowed; remove it"]),
        ("a: ! 1\n", [":1:4: tags (!) are not allowed; remove it"]),
        ("a: !x [1]\n", [":1:4: tags (!x) are not allowed; remove it"]),
        ("a: !!python/object/apply:os.system [x]\n",
         [":1:4: tags (tag:yaml.org,2002:python/object/apply:os.system) are not allowed; remove it"]),
        ("a: {<<: {b: 1}}\n", [":1:5: merge keys (<<) are not allowed; write the fields out"]),
        ("1: x\n", [':1:1: the key 1 is not a string; quote it: "1"']),
        ("true: x\n", [':1:1: the key true is not a string; quote it: "true"']),
        ("1.4: x\n", [':1:1: the key 1.4 is not a string; quote it: "1.4"']),
        ("? [a]\n: b\n", [":1:3: a key must be a string, not a list or a mapping"]),
        ("? {a: 1}\n: b\n", [":1:3: a key must be a string, not a list or a mapping"]),
        ("? \n: x\n", [":1:2: the key is missing; write one before the colon"]),
        ('"e\\u0301": x\n', [":1:1: the key is not in Unicode's normal form C; write it as NFC"]),
        ("a:\n", [':1:3: the value is missing; write one, "" or null, or remove the key']),
        ("--- \na: 1\n---\nb: 1\n", [":3:1: a second document begins here; one file holds one"]),
        ("%YAML 1.1\n---\na: 1\n", [":1:1: directives (%YAML, %TAG) are not allowed; remove them"]),
        ("%TAG ! tag:example.com,2000:\n---\na: 1\n",
         [":1:1: directives (%YAML, %TAG) are not allowed; remove them"]),
        ("", [": the file is empty; remove it or fill it in"]),
        ("# nothing\n", [": the file is empty; remove it or fill it in"]),
        ("- a\n", [":1:1: the file must be a mapping of fields; write `field: value` lines"]),
        ("a\n", [":1:1: the file must be a mapping of fields; write `field: value` lines"]),
        ("a: 1e999\n", [":1:4: 1e999 is too large a number; quote it if it is a name"]),
        ("a: -1e999\n", [":1:4: -1e999 is too large a number; quote it if it is a name"]),
        (f"a: {'1' * 101}\n", [":1:4: a number of more than 100 digits; quote it if it is a name"]),
    ],
)  # fmt: skip
def test_what_yaml_allows_and_this_project_does_not(parser: str, text: str, problems: list[str]) -> None:
    assert told(text) == problems


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"a: 1\nb: \xff\n", ":2:1: this line is not UTF-8; save the file as UTF-8"),
        ("a: 1\nb: ä".encode("utf-16"), ":1:1: this line is not UTF-8; save the file as UTF-8"),
        (b"\xef\xbb\xbfa: 1\n",
         ':1:1: the character U+FEFF may not stand here; remove it, or write it as an escape in "double quotes"'),
        (b"a: 1\r\nb: x\x07y\n",
         ':2:5: the character U+0007 may not stand here; remove it, or write it as an escape in "double quotes"'),
        (b"a: 1\rb: 2\n",
         ':1:5: the character U+000D may not stand here; remove it, or write it as an escape in "double quotes"'),
        ("a: \u202eb\n".encode(),
         ':1:4: the character U+202E may not stand here; remove it, or write it as an escape in "double quotes"'),
        ("a: 1\nb: x\u2028\n".encode(),
         ':2:5: the character U+2028 may not stand here; remove it, or write it as an escape in "double quotes"'),
        ("a: ä\nb: xe\u0301\n".encode(), ":2:5: the text is not in Unicode's normal form C; save it as NFC"),
        ("a: \u1100\u1161".encode(), ":1:4: the text is not in Unicode's normal form C; save it as NFC"),
    ],
)  # fmt: skip
def test_bytes_that_no_parser_sees(data: bytes, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: bytes) -> None:
        pytest.fail("the parser saw the bytes")

    monkeypatch.setattr(strict, "PARSER", never)
    assert told(data) == [problem]


def test_the_size_is_checked_before_the_parser_sees_it() -> None:
    fits = b"a: " + b"x" * 7
    assert read(fits) == {"a": "xxxxxxx"}
    assert told(fits, limit=9) == [": the file has 10 bytes and may have 9; split it"]
    assert told(b"#" * (FILE_LIMIT + 1)) == [
        f": the file has {FILE_LIMIT + 1} bytes and may have {FILE_LIMIT}; split it"
    ]


@pytest.mark.parametrize("step", ["[", "{a: ", "- ", "? ", "- - "])
def test_depth_is_bounded_while_reading(parser: str, step: str) -> None:
    assert len(told(step * (FILE_LIMIT // len(step)))) == 1


def test_the_depth_that_is_allowed(parser: str) -> None:
    nested = "a: " + "[" * (DEPTH_LIMIT - 1) + "]" * (DEPTH_LIMIT - 1)
    assert read(nested)
    deeper = "a: " + "[" * DEPTH_LIMIT + "]" * DEPTH_LIMIT
    assert told(deeper) == [f":1:{3 + DEPTH_LIMIT}: nested deeper than {DEPTH_LIMIT} levels; make it flatter"]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [("x: [1,\n", 1, 7), ("{", 1, 2), ("a: b: c", 1, 5), ("a: [}\n", 1, 5), ("\t a: 1", 1, 1), ("a: @x", 1, 4)],
)
def test_what_is_no_yaml(parser: str, text: str, line: int, column: int) -> None:
    (problem,) = told(text)
    assert problem.startswith(f":{line}:{column}: this is not YAML: ")
    assert problem.endswith("check the indentation and the quotes around here")


def test_an_error_without_a_mark_is_told_of_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self, _: bytes) -> None: ...

        def get_event(self) -> None:
            raise yaml.YAMLError

        def dispose(self) -> None: ...

    monkeypatch.setattr(strict, "PARSER", Failing)
    assert told("a: 1") == [": this is not YAML: it cannot be read; check the indentation and the quotes around here"]


def test_both_parsers_are_bounded_on_what_costs_them_most(parser: str) -> None:
    assert isinstance(parse(PATH, b"a: " + b"x " * 30000), Document)
    assert isinstance(parse(PATH, b"\n".join(b"k%d: [a, {b: c}]" % n for n in range(2000))), Document)


def test_the_values_of_a_file_are_bounded(parser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = VALUES_LIMIT
    if parser == "SafeLoader":  # which takes a hundred times as long for each
        monkeypatch.setattr(strict, "VALUES_LIMIT", limit := 1000)
    text = "a: [" + "1," * (limit - 3) + "1]"
    assert isinstance(parse(PATH, text.encode(), 1 << 20), Document)
    (problem,) = told(text.replace("]", ",1]"), 1 << 20)
    assert f"more than {limit} values; take out what nothing uses any more" in problem


def test_no_more_than_a_thousand_mistakes_are_told(parser: str) -> None:
    assert len(told("a: [" + "&a 1," * (MOST_TOLD + 1) + "1]")) == MOST_TOLD


@example(b"? ? ? ")
@example(b"a: |\n  x\n ---\n...\n")
@example(b"*a: b")
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    found = parse(PATH, data)
    assert isinstance(found, Document) or (found and all(isinstance(one, Problem) for one in found))


FRAGMENTS = ["a", "b", ": ", "- ", "\n", "  ", "{", "}", "[", "]", ",", "&x ", "*x", "!t ", "? ", "|", ">", "'", '"', "#",
             "---\n", "...\n", "1", "null", "<<", "${{ a.b }}", "%", "\\", "é"]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join))
def test_no_yaml_makes_it_raise(text: str) -> None:
    found = parse(PATH, text.encode())
    if isinstance(found, Document):
        assert found.root.plain() is not None
    else:
        assert found
        assert all(one.place.line <= text.count("\n") + 1 for one in found)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abcxyz", min_size=1), JSON, max_size=4))
def test_json_is_read_as_json(value: dict[str, Any]) -> None:
    import json

    assert read(json.dumps(value)) == value


def test_hints() -> None:
    assert close_to("inptus", ["inputs", "module"]) == '; did you mean "inputs"?'
    assert close_to("zzz", ["b", "a"]) == "; known are a, b"
    assert close_to("zzz", []) == ""


def test_text_for_a_message() -> None:
    assert printable("a\x1b[31m\n") == "a\\u001b[31m\\u000a"
    assert printable("x" * 81) == "x" * 80 + "..."
