from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.entries import parse_entry
from reconciler.desired.kept import read_kept, write_kept
from reconciler.desired.load import Loader
from reconciler.model import Commit, Entry

PATH = "environments/prod/net/app.yaml"
EVERYTHING = """\
module: acme/app
version: "1.2.0"
inputs:
  plain: text
  odd: {$: [a], $$: "$", "$secret": 1, $text: {}}
  whole: ${{ dns.zones["a b"][0].id }}
  secret: ${{ secret.password }}
  text: "x ${{ /shared/net/hub.vpc }} y ${{ secret.password }}"
  literal: $${{ no }}
  list: [1, 1.0, -0.0, 1e300, true, null, "", {a: "${{ dns.x }}"}]
  far: "\u00e9 \U0001f600"
providers: {aws: aws.main}
depends_on: [dns, /shared/net]
state: absent
allow_destroy: 3
allow_downgrade: true
replace: ["a.b[0]"]
promotion_skip: because
import: {aws_vpc.this: vpc-1}
moved_from: old
"""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | st.sampled_from(["${{ dns.x }}", "a ${{ secret.b }}", "$${{", "$", "$$"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("$"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def parsed(text: str, path: str = PATH) -> Entry:
    found = parse_entry(path, text.encode())
    assert isinstance(found, Entry), found
    return found


def again(entry: Entry) -> Entry | None:
    blobs = {PATH: "a" * 40}
    return read_kept("code", write_kept("code", [entry], blobs), blobs).get(PATH)


@pytest.mark.parametrize(
    "text",
    [
        EVERYTHING,
        'module: acme/app\nversion: "1"\n',
        "module: acme/app\nref: main\n",
        'module: acme/app\nversion: "1"\nadopt: {state: s3://a-bucket/key}\n',
    ],
)
def test_an_entry_is_the_same_again(text: str) -> None:
    entry = parsed(text)
    found = again(entry)
    assert found == entry
    assert repr(found) == repr(entry)  # 1 and 1.0 and True are equal
    assert dict(found.places) == dict(entry.places)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,4}", fullmatch=True), JSON, max_size=4))
def test_whatever_an_input_says_it_says_again_or_is_not_kept(inputs: dict[str, object]) -> None:
    text = orjson.dumps({"module": "acme/app", "version": "1"}).decode()[:-1]
    try:
        data = f'{text},"inputs":{orjson.dumps(inputs).decode()}}}'.encode()
    except TypeError:
        return
    entry = parse_entry(PATH, data)
    if isinstance(entry, Entry):
        found = again(entry)
        assert found is None or repr(found) == repr(entry)


def test_what_json_cannot_say_is_not_kept() -> None:
    assert again(parsed(f'module: acme/app\nversion: "1"\ninputs: {{n: {2**70}}}\n')) is None


def test_of_many_only_the_same_content_at_the_same_path() -> None:
    paths = [f"environments/prod/app-{number}.yaml" for number in range(2500)]
    blobs = {path: f"{number:040x}" for number, path in enumerate(paths)}
    entries = [parsed(f'module: acme/app\nversion: "{number}"\n', path) for number, path in enumerate(paths)]
    data = write_kept("code", entries, blobs)
    assert list(read_kept("code", data, blobs).values()) == entries
    wanted = blobs | {paths[7]: "f" * 40, "environments/prod/other.yaml": blobs[paths[8]]}
    assert read_kept("code", data, wanted).keys() == blobs.keys() - {paths[7]}


def test_a_loader_takes_what_is_kept_and_tells_what_there_is_to_keep() -> None:
    blobs = {PATH: "a" * 40}
    first = Loader()
    first.load(Commit("c" * 40), blobs, lambda _: {"a" * 40: EVERYTHING.encode()})
    entries, ids = first.entries
    data = write_kept("code", entries, ids)
    again = Loader(lambda wanted: read_kept("code", data, wanted))
    again.load(Commit("c" * 40), blobs, lambda _: {})
    assert list(again.entries[0]) == list(entries) == [parsed(EVERYTHING)]


def test_what_is_damaged_or_of_other_code_is_nothing() -> None:
    blobs = {PATH: "a" * 40}
    data = write_kept("code", [parsed(EVERYTHING)], blobs)
    assert read_kept("code", data, blobs)
    assert not read_kept("code2", data, blobs)
    for place in range(len(data)):
        assert not read_kept("code", data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], blobs)
        assert not read_kept("code", data[:place], blobs)
