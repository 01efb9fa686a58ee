"""Mappings that never change, and of which the next version costs only what differs from the last."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar, cast, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_FEW = 64  # changes that never make it worth to copy everything
_SHARE = 5  # as a power of two: beyond this part of everything, the changes are made one with it
_GONE: Final = object()
_NONE: Final = object()


class Layered(Mapping[K, V]):
    """Few changes over a mapping that many versions share. Iterates as what it was made from, and what came since at the end."""

    __slots__ = ("_base", "_new", "_over", "_size")

    def __init__(self, whole: Mapping[K, V] = MappingProxyType({})) -> None:
        self._base: Mapping[K, V] = dict(whole)
        self._over: dict[K, Any] = {}  # its values, and _GONE
        self._new: tuple[K, ...] = ()  # keys that are in `_over` alone
        self._size = len(self._base)

    def after(self, changes: Mapping[K, V | None]) -> Layered[K, V]:
        """The next version, where None takes a key away; this one stays as it is."""
        told = {key: value for key, value in changes.items() if self.get(key) is not value}
        if not told:
            return self
        over = {**self._over, **{key: _GONE if value is None else value for key, value in told.items()}}
        found: Layered[K, V] = Layered.__new__(Layered)
        found._base, found._over = self._base, over
        fresh = {*self._new, *(key for key in told if key not in self._base)}
        if fresh:
            order = dict.fromkeys([*self._new, *told])
            found._new = tuple(key for key in order if key in fresh and over[key] is not _GONE)
            for key in fresh.difference(found._new):
                del over[key]
        else:
            found._new = ()
        gone = sum(value is None and key in self for key, value in told.items())
        found._size = self._size - gone + sum(value is not None and key not in self for key, value in told.items())
        return Layered(found) if len(over) > max(_FEW, len(self._base) >> _SHARE) else found

    def __getitem__(self, key: K) -> V:
        found = self._over.get(key, _NONE)
        if found is _NONE:
            return self._base[key]
        if found is _GONE:
            raise KeyError(key)
        return cast("V", found)

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | D, /) -> V | D: ...
    def get(self, key: K, default: Any = None, /) -> Any:
        """As that of every mapping."""
        found = self._over.get(key, _NONE)
        if found is _NONE:
            return self._base.get(key, default)
        return default if found is _GONE else found

    def __contains__(self, key: object) -> bool:
        found = self._over.get(cast("K", key), _NONE)
        return key in self._base if found is _NONE else found is not _GONE

    def __iter__(self) -> Iterator[K]:
        if not self._over:
            return iter(self._base)
        return self._keys()

    def __len__(self) -> int:
        return self._size

    def items(self) -> ItemsView[K, V]:
        """As those of every mapping."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """As those of every mapping."""
        return _Values(self)

    def __repr__(self) -> str:
        return f"Layered({dict(self)!r})"

    def __reduce__(self) -> tuple[type[Layered[K, V]], tuple[dict[K, V]]]:
        return Layered, (dict(self),)

    def _keys(self) -> Iterator[K]:
        over = self._over
        for key in self._base:
            if key not in over or over[key] is not _GONE:
                yield key
        yield from self._new

    def _pairs(self) -> Iterator[tuple[K, V]]:
        if not self._over:
            return iter(self._base.items())
        return self._merged()

    def _merged(self) -> Iterator[tuple[K, V]]:
        over = self._over
        for key, value in self._base.items():
            found = over.get(key, value)
            if found is not _GONE:
                yield key, found
        for key in self._new:
            yield key, over[key]


class _Items(ItemsView[K, V]):
    """Without a look-up for each."""

    _mapping: Layered[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._mapping._pairs()  # noqa: SLF001 - its own


class _Values(ValuesView[V], Generic[V]):
    """Without a look-up for each."""

    _mapping: Layered[Any, V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping._pairs())  # noqa: SLF001 - its own


def layered(whole: Mapping[K, V]) -> Layered[K, V]:
    """The mapping itself, if it is one of these; a copy of it otherwise."""
    return whole if isinstance(whole, Layered) else Layered(whole)


def differing(old: Mapping[K, V], new: Mapping[K, V]) -> set[K]:
    """The keys whose values are not the same object in both. Costs what changed, where one is a version of the other."""
    if old is new:
        return set()
    if isinstance(old, Layered) and isinstance(new, Layered) and old._base is new._base:  # noqa: SLF001 - its own
        keys: Iterable[K] = old._over.keys() | new._over.keys()  # noqa: SLF001
    else:
        keys = {*old, *new}
    return {key for key in keys if old.get(key) is not new.get(key)}


Index = Layered[K, frozenset[V]]


def indexed(pairs: Iterable[tuple[K, V]]) -> Layered[K, frozenset[V]]:
    """For each key its values, from all pairs there are."""
    found: dict[K, set[V]] = {}
    for key, value in pairs:
        found.setdefault(key, set()).add(value)
    return Layered({key: frozenset(values) for key, values in found.items()})


def reindexed(
    index: Layered[K, frozenset[V]], old: set[tuple[K, V]], new: set[tuple[K, V]]
) -> Layered[K, frozenset[V]]:
    """The index without those of the old pairs that are no new ones, and with the new."""
    lost: dict[K, set[V]] = {}
    won: dict[K, set[V]] = {}
    for key, value in old - new:
        lost.setdefault(key, set()).add(value)
    for key, value in new - old:
        won.setdefault(key, set()).add(value)
    changes = {key: (index.get(key, frozenset()) - lost.get(key, set())) | won.get(key, set()) for key in {*lost, *won}}
    return index.after({key: values or None for key, values in changes.items()})
