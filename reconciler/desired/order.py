"""Upstream first: an order of a graph, and the cycles that stand in its way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

N = TypeVar("N", bound=str)


def components(graph: Mapping[N, Sequence[N]]) -> Iterator[list[N]]:
    """The strongly connected components, what they point to first; a component of more than one node is a tangle.

    `graph` gives, for each node, the nodes that come before it; nodes that are no keys are passed over. The same graph
    in the same order gives the same answer. (graphlib names one cycle at a time: with many, that takes quadratic time.)
    """
    index: dict[N, int] = {}
    low: dict[N, int] = {}
    open_: dict[N, None] = {}
    for root in graph:
        if root in index:
            continue
        work = [(root, iter(graph[root]))]
        index[root] = low[root] = len(index)
        open_[root] = None
        while work:
            node, rest = work[-1]
            for found in rest:
                if found not in graph:
                    continue
                if found not in index:
                    index[found] = low[found] = len(index)
                    open_[found] = None
                    work.append((found, iter(graph[found])))
                    break
                if found in open_:
                    low[node] = min(low[node], index[found])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    yield _close(open_, node)


def cycle_in(graph: Mapping[N, Sequence[N]], component: Sequence[N]) -> list[N] | None:
    """A cycle among the nodes of the component, its first node again at the end; None where there is none."""
    members = set(component)
    node = min(component)
    walk: dict[N, int] = {}
    while node not in walk:
        walk[node] = len(walk)
        inside = [found for found in graph[node] if found in members]
        if not inside:
            return None
        node = inside[0]
    return [*list(walk)[walk[node] :], node]


def _close(open_: dict[N, None], node: N) -> list[N]:
    """Take everything that was opened since the node, and the node."""
    component: list[N] = []
    while not component or component[-1] != node:
        component.append(open_.popitem()[0])
    return component
