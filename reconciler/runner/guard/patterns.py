"""IAM's patterns: `*` is any text, `?` one character. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

OTHER = "\0"  # stands for any character that no pattern names


def match(pattern: str, text: str) -> bool:
    """Whether the whole text is like the pattern."""
    return covers(pattern, text.replace("*", OTHER).replace("?", OTHER))


@lru_cache(maxsize=65536)
def covers(outer: str, inner: str) -> bool:
    """Whether all that is like `inner` is surely like `outer`: False where it cannot be told."""
    row = [
        True,
        *([False] * len(inner)),
    ]  # of so many characters of `inner`: whether what was read of `outer` covers them
    for sign in outer:
        following = [row[0] and sign == "*"]
        for end, char in enumerate(inner, 1):
            if sign == "*":
                following.append(row[end] or following[end - 1])
            else:
                following.append(row[end - 1] and (char == sign if sign != "?" else char != "*"))
        row = following
    return row[-1]


def meet(patterns: Sequence[str]) -> bool:
    """Whether there is a text that is like all of them."""
    signs = {char for pattern in patterns for char in pattern if char not in "*?"} | {OTHER}
    start = tuple(_closed(pattern, {0}) for pattern in patterns)
    seen, waiting = {start}, [start]
    while waiting:
        places = waiting.pop()
        if all(len(pattern) in at for pattern, at in zip(patterns, places, strict=True)):
            return True
        for sign in signs:
            moved = tuple(_step(pattern, at, sign) for pattern, at in zip(patterns, places, strict=True))
            if all(moved) and moved not in seen:
                seen.add(moved)
                waiting.append(moved)
    return False


def _closed(pattern: str, places: set[int]) -> frozenset[int]:
    """With the places that are reached without a character: a `*` may be empty."""
    found, waiting = set(places), list(places)
    while waiting:
        at = waiting.pop()
        if at < len(pattern) and pattern[at] == "*" and at + 1 not in found:
            found.add(at + 1)
            waiting.append(at + 1)
    return frozenset(found)


def _step(pattern: str, places: frozenset[int], sign: str) -> frozenset[int]:
    there = {at for at in places if at < len(pattern)}
    stays = {at for at in there if pattern[at] == "*"}
    goes = {at + 1 for at in there if pattern[at] in ("?", sign)}
    return _closed(pattern, stays | goes)
