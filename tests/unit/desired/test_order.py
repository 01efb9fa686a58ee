from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.order import components, cycle_in


def test_what_comes_first_comes_first() -> None:
    graph = {"a": ["b", "c"], "b": ["d"], "c": ["d", "gone"], "d": []}
    assert list(components(graph)) == [["d"], ["b"], ["c"], ["a"]]


def test_a_tangle_is_one_component() -> None:
    graph = {"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": ["d"], "e": []}
    found = list(components(graph))
    assert found == [["d"], ["c", "b"], ["a"], ["e"]]
    assert [cycle_in(graph, one) for one in found] == [["d", "d"], ["b", "c", "b"], None, None]


def test_a_cycle_that_its_first_node_only_leads_to() -> None:
    graph = {"a": ["b"], "b": ["c", "a"], "c": ["b"]}
    (component,) = components(graph)
    assert cycle_in(graph, component) == ["b", "c", "b"]


def test_a_long_chain_needs_no_stack() -> None:
    graph = {str(n): [str(n + 1)] for n in range(20_000)} | {"20000": []}
    assert next(components(graph)) == ["20000"]


GRAPHS = st.dictionaries(st.sampled_from("abcdefg"), st.lists(st.sampled_from("abcdefg"), max_size=4), max_size=7)


@given(GRAPHS)
def test_every_node_once_and_never_before_what_it_follows(graph: dict[str, list[str]]) -> None:
    found = list(components(graph))
    assert sorted(node for one in found for node in one) == sorted(graph)
    done: set[str] = set()
    for component in found:
        done.update(component)
        assert all(before in done for node in component for before in graph[node] if before in graph)


@given(GRAPHS)
def test_a_component_has_a_cycle_where_a_node_reaches_itself(graph: dict[str, list[str]]) -> None:
    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            new = {one for one in graph[left.pop()] if one in graph} - seen
            seen |= new
            left += new
        return seen

    for component in components(graph):
        cycle = cycle_in(graph, component)
        assert (cycle is not None) == (component[0] in reached(component[0]))
        if cycle:
            assert cycle[0] == cycle[-1]
            assert all(after in graph[node] for node, after in pairwise(cycle))
            assert set(cycle) <= set(component)
