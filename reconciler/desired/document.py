"""A YAML file that was read: its values, and where each of them stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from reconciler.errors import Place


class Mark(Protocol):
    """Where the parser is; everything counts from 0, in characters."""

    index: int
    line: int
    column: int


@dataclass(slots=True)
class Node:
    """A value and where it stands. `value` is a scalar, a dict of key to Node, or a list of Nodes."""

    value: Any
    start: Mark
    end: Mark
    key: Mark | None = None  # where its key stands, for a member of a mapping

    def plain(self) -> Any:
        """The value as JSON has it, without the places."""
        value = self.value
        if type(value) is dict:
            return {key: node.plain() for key, node in value.items()}
        if type(value) is list:
            return [node.plain() for node in value]
        return value


@dataclass(frozen=True, slots=True)
class Document:
    """A file that was read: its text and its tree. The root is a mapping."""

    path: str
    text: str
    root: Node

    def place(self, mark: Mark) -> Place:
        """A position of the parser as people count it."""
        return Place(self.path, mark.line + 1, mark.column + 1)

    def place_of(self, location: tuple[str | int, ...], *, key: bool = False) -> Place:
        """Where the value at `location` stands, or its key; where it does not exist, the nearest value around it."""
        node = self.find(location)
        return self.place(node.key if key and node.key else node.start)

    def find(self, location: tuple[str | int, ...]) -> Node:
        """The node at `location`; steps that lead nowhere are passed over."""
        node = self.root
        for step in location:
            if type(node.value) is dict:
                node = node.value.get(step, node)
            elif type(node.value) is list and isinstance(step, int):
                node = node.value[step]
        return node

    def raw(self, node: Node) -> str:
        """The node as it is written in the file."""
        return self.text[node.start.index : node.end.index]
