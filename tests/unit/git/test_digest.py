from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.git.digest import tree_digest

A, B = hashlib.sha256(b"a").digest(), hashlib.sha256(b"b").digest()

entries = st.dictionaries(
    st.text(st.sampled_from("ab/ 0é"), min_size=1, max_size=5),
    st.tuples(st.sampled_from(["100644", "100755"]), st.sampled_from([A, B])),
    max_size=4,
)


def digest(tree: dict[str, tuple[str, bytes]]) -> str:
    return tree_digest((mode, path, content) for path, (mode, content) in tree.items())


def test_the_format_is_what_the_docstring_says() -> None:
    expected = hashlib.sha256(b"100755 B\0" + B + b"100644 a/b\0" + A).hexdigest()
    assert tree_digest([("100644", "a/b", A), ("100755", "B", B)]) == f"sha256:{expected}"


def test_paths_are_sorted_by_their_bytes() -> None:
    ordered = sorted(["a", "a/b", "a.b", "Z", "é"], key=str.encode)
    expected = hashlib.sha256(b"".join(b"100644 " + path.encode() + b"\0" + A for path in ordered)).hexdigest()
    assert tree_digest([("100644", path, A) for path in reversed(ordered)]) == f"sha256:{expected}"
    assert all(first.encode() < second.encode() for first, second in pairwise(ordered))


@given(entries, entries)
def test_equal_digests_mean_equal_trees(one: dict[str, tuple[str, bytes]], two: dict[str, tuple[str, bytes]]) -> None:
    assert (digest(one) == digest(two)) == (one == two)


@pytest.mark.parametrize(
    "bad",
    [
        [("100644", "a", A), ("100755", "a", B)],
        [("100 644", "a", A)],
        [("100644", "a\0b", A)],
        [("100644", "", A)],
        [("100644", "a", A[:31])],
    ],
)
def test_what_is_no_tree_has_no_digest(bad: list[tuple[str, str, bytes]]) -> None:
    with pytest.raises(ValueError, match="not an entry"):
        tree_digest(bad)
