"""Flame graphs: where the CPU of a process goes, by its Python stacks, as one SVG that needs no script."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from types import FrameType
from typing import Self

Stack = tuple[str, ...]  # outermost first
Stacks = Mapping[Stack, float]  # what was spent there, in a unit of one's choice

EVERY = 0.001  # seconds of CPU between two looks; the kernel looks at such clocks once a tick: 1 to 10 ms
WIDTH, HEIGHT, LEAST = 1200, 17, 0.6  # pixels: of the graph, of a row, of the narrowest box
LETTER = 6.6  # pixels of a letter


class Sampler:
    """Notes this process's stack whenever it has used some CPU, and the CPU since the last note, the kernel's for it included.

    Of the main thread, from whose stack it is called. A fork does not inherit it.
    """

    def __init__(self) -> None:
        self.stacks: dict[Stack, float] = {}  # seconds
        self._at = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        self._at = time.process_time()
        signal.signal(signal.SIGPROF, self._note)
        signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _note(self, _number: int, frame: FrameType | None) -> None:
        now, stack = time.process_time(), stack_of(frame)
        self.stacks[stack] = self.stacks.get(stack, 0.0) + now - self._at
        self._at = time.process_time()  # what this took is nobody's


def stack_of(frame: FrameType | None) -> Stack:
    """Its functions, each as `module.function`, without what is the same for all of the package."""
    found = []
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "?")).removeprefix("reconciler.")
        found.append(f"{module}.{frame.f_code.co_qualname.replace('.<locals>', '')}")
        frame = frame.f_back
    return tuple(reversed(found))


@dataclass(slots=True)
class _Box:
    """A function where it was called from: what was spent in it, and in what it called."""

    spent: float = 0.0
    inside: dict[str, _Box] = field(default_factory=dict)

    def add(self, stack: Stack, spent: float) -> None:
        self.spent += spent
        if stack:
            self.inside.setdefault(stack[0], _Box()).add(stack[1:], spent)

    def depth(self) -> int:
        return 1 + max((box.depth() for box in self.inside.values()), default=0)


def write_svg(path: Path, title: str, stacks: Stacks, unit: str) -> None:
    """The graph: a row per depth, outermost on top; widths are what was spent. Each box tells its share when pointed at."""
    root = _Box()
    for stack, spent in stacks.items():
        root.add(stack, spent)
    height = HEIGHT * (root.depth() + 2)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="4" y="13" font-size="13">{escape(title)}</text>',
    )
    boxes = _drawn(title, root, 0.0, 1, WIDTH / root.spent if root.spent else 0.0, root.spent, unit)
    path.write_text("\n".join((*head, *boxes, "</svg>", "")), encoding="utf-8")


def _drawn(name: str, box: _Box, left: float, row: int, scale: float, whole: float, unit: str) -> Iterator[str]:
    """The box and all that is inside; what is too narrow to be seen is left out."""
    width = box.spent * scale
    if width < LEAST:
        return
    told = f"{name}: {box.spent:.3g} {unit}, {box.spent / whole:.1%}"
    fits = int((width - 4) / LETTER)
    shown = name if len(name) <= fits else f"{name[: fits - 1]}…" if fits > 3 else ""
    top = row * HEIGHT + 4
    yield (
        f'<g><title>{escape(told)}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{HEIGHT - 1}" '
        f'fill="{_colour(name)}" stroke="#fff" stroke-width=".4"/><text x="{left + 2:.1f}" y="{top + 12}">{escape(shown)}</text></g>'
    )
    for inner, one in sorted(box.inside.items(), key=lambda pair: -pair[1].spent):
        yield from _drawn(inner, one, left, row + 1, scale, whole, unit)
        left += one.spent * scale


def _colour(name: str) -> str:
    """One for each module, so that what belongs together is seen together."""
    hue = sum(map(ord, name.rpartition(".")[0])) * 37 % 60
    return f"hsl({hue},80%,{72 + sum(map(ord, name)) % 12}%)"
