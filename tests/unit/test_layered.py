from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.layered import Layered, differing, indexed, reindexed

KEYS = st.integers(0, 200)
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), st.text(max_size=2)), max_size=40)
PAIRS = st.sets(st.tuples(st.integers(0, 3), st.integers(0, 9)))


@given(st.dictionaries(KEYS, st.text(max_size=2)), st.lists(CHANGES, max_size=6))
def test_each_version_is_what_a_copy_would_be_and_stays_so(
    whole: dict[int, str], steps: list[dict[int, str | None]]
) -> None:
    versions, copies = [Layered(whole)], [dict(whole)]
    for changes in steps:
        versions.append(versions[-1].after(changes))
        copies.append({key: value for key, value in {**copies[-1], **changes}.items() if value is not None})
    for version, copy in zip(versions, copies, strict=True):
        assert version == copy
        assert dict(version.items()) == copy
        assert list(version) == [key for key, _ in version.items()]
        assert list(version.values()) == [version[key] for key in version]
        assert (len(version), set(version.keys())) == (len(copy), set(copy))
        assert [version.get(key, "no") for key in range(201)] == [copy.get(key, "no") for key in range(201)]
        assert [key in version for key in range(201)] == [key in copy for key in range(201)]
    for version in versions:
        for other in versions:
            wanted = {k for k in {*version, *other} if version.get(k) is not other.get(k)}
            assert differing(version, other) == wanted


def test_what_is_replaced_keeps_its_place_and_what_is_new_comes_last() -> None:
    version = Layered({"a": 1, "b": 2, "c": 3}).after({"d": 4, "b": 5, "a": None})
    assert list(version.items()) == [("b", 5), ("c", 3), ("d", 4)]
    assert list(version.after({"d": None, "e": 6})) == ["b", "c", "e"]
    assert list(version.after({"d": 7})) == ["b", "c", "d"]


def test_no_change_is_the_same_object_and_a_key_that_is_not_there_is_an_error() -> None:
    version = Layered({"a": 1})
    assert version.after({"a": 1, "b": None}) is version
    for missing in (version, version.after({"a": None})):
        with pytest.raises(KeyError, match="b"):
            missing["b"]
    with pytest.raises(KeyError, match="a"):
        version.after({"a": None})["a"]


def test_a_copy_through_bytes_is_equal() -> None:
    version = Layered({"a": 1}).after({"b": 2})
    assert pickle.loads(pickle.dumps(version)) == version  # noqa: S301 - its own bytes
    assert repr(version) == "Layered({'a': 1, 'b': 2})"


def test_of_plain_mappings_each_value_is_compared() -> None:
    one = {"a": "x", "b": "y"}
    assert differing(one, one) == set()
    assert differing(one, {"a": "x", "c": "z"}) == {"b", "c"}


@given(PAIRS, PAIRS)
def test_an_index_is_as_if_made_anew(old: set[tuple[int, int]], new: set[tuple[int, int]]) -> None:
    assert reindexed(indexed(old), old, new) == indexed(new)
