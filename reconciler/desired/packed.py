"""An entry's inputs as few bytes: of a hundred thousand entries nearly none is looked into again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import orjson

from reconciler.model import Expression, Reference, SecretReference, Text

Named = Reference | SecretReference | Text


class Packed(Mapping[str, Expression]):
    """Inputs, made anew from JSON at each look. `names` stand in its holes, and are shared with whoever names the same."""

    __slots__ = ("data", "names")
    _last: ClassVar[tuple[object, dict[str, Expression]]] = (None, {})  # who looks at one input looks at the next

    def __init__(self, data: bytes, names: tuple[Named, ...]) -> None:
        self.data, self.names = data, names

    def __getitem__(self, name: str) -> Expression:
        return self.opened()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.opened())

    def __len__(self) -> int:
        return len(self.opened())

    def __repr__(self) -> str:
        return repr(self.opened())

    def opened(self) -> dict[str, Expression]:
        """All of them, never to be changed."""
        last, found = Packed._last
        if last is not self:
            found = self._made()
            Packed._last = self, found
        return found

    def _made(self) -> dict[str, Expression]:
        inputs, holes = orjson.loads(self.data)
        for name, (*steps, last) in zip(self.names, holes, strict=True):
            place = inputs
            for step in steps:
                place = place[step]
            place[last] = name
        found: dict[str, Expression] = inputs
        return found


def packed(inputs: dict[str, Expression]) -> Mapping[str, Expression]:
    """The same inputs, packed; as they are where JSON cannot say them: a number of more than 64 bits, half of a surrogate pair."""
    names: list[Named] = []
    holes: list[tuple[str | int, ...]] = []
    plain = _plain(inputs, (), names, holes)
    try:
        data = orjson.dumps([plain, holes])
    except TypeError:
        return inputs
    return Packed(bytes(memoryview(data)), tuple(names))  # a copy: orjson leaves much room behind what it wrote


def _plain(
    value: Expression, place: tuple[str | int, ...], names: list[Named], holes: list[tuple[str | int, ...]]
) -> Any:
    match value:
        case dict():
            return {key: _plain(one, (*place, key), names, holes) for key, one in value.items()}
        case list():
            return [_plain(one, (*place, number), names, holes) for number, one in enumerate(value)]
        case Reference() | SecretReference() | Text():
            names.append(value)
            holes.append(place)
            return None
        case _:
            return value
