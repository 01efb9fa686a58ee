"""What people want of the house, and the seeded stream of their merges."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from reconciler.demo.forge import Files
from tests.kit.wishes import CATALOG, NOTE, OBJECT, Wish

ENVIRONMENTS = ("prod", "stage")
OBJECTS = 0.1  # of the units; all others are notes
READERS = 0.6  # of the units read another one
DEEPEST = 3  # units in a chain
LATER = "# what changed is for people\n"
RELEASES = {
    **CATALOG,
    "v1.1.0": {"modules/object/main.tf": OBJECT + LATER, "modules/note/main.tf": NOTE + LATER},
    "v1.2.0": {"modules/object/main.tf": OBJECT + 2 * LATER, "modules/note/main.tf": NOTE + 2 * LATER},
}
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
BROKEN = (
    'module: acme/note\nversion: "9.9.9"\ninputs: {path: x, note: y}\n',
    'module: acme/note\nversion: "1.0.0"\ninputs: {path: x, note: "${{ nobody.id }}"}\n',
    'module: acme/note\nversion: "1.0.0"\nimputs: {path: x, note: y}\n',
    'module: acme/note\nversion: "1.0.0"\ninputs: {path: x, note: y\n',
    'module: acme/note\nversion: "1.0.0"\ninputs: {path: x}\n',
)


@dataclass(slots=True)
class Fleet:
    """All wishes. What is done to one looks first whether the planes are ready for it: `settled` names the units in order."""

    rng: random.Random
    target: int
    wishes: list[Wish] = field(default_factory=list)
    gone: list[Wish] = field(default_factory=list)
    born: int = 0

    def first(self) -> Files:
        """The entries of the first commit."""
        files: dict[str, str | bytes | None] = {}
        while len(self.wishes) < self.target:
            files |= self.create()
        return files

    def next(self, settled: set[str]) -> tuple[str, Files] | None:
        """What is merged next, and its name; None: nobody is ready for what was drawn."""
        steps: list[tuple[int, Callable[[set[str]], Files | None]]] = [
            (44, self.change), (12, self.renew), (8, self.rename), (8, self.destroy), (12, self.remove), (6, self.spoil),
            (8, self.mend), (8, self.bump),
        ]  # fmt: skip
        (step,) = self.rng.choices([step for _, step in steps], [weight for weight, _ in steps])
        files = step(settled)
        return (step.__name__, files) if files else None

    # --- what may happen to an entry

    def create(self) -> dict[str, str | bytes | None]:
        self.born += 1
        environment = self.rng.choice(ENVIRONMENTS)
        above = [w for w in self.sound() if w.environment == environment and w.depth < DEEPEST]
        reads = self.rng.choice(above) if above and self.rng.random() < READERS else None
        kind = "object" if self.rng.random() < OBJECTS else "note"
        made = Wish(environment, f"u{self.born}", kind, f"o{self.born}", f"text {self.born}", reads)
        self.wishes.append(made)
        return {made.file: made.entry()}

    def renew(self, settled: set[str]) -> Files | None:
        return self.create() if sum(not w.absent for w in self.wishes) < self.target else None

    def change(self, settled: set[str]) -> Files | None:
        files: dict[str, str | bytes | None] = {}
        for wish in self.rng.sample(self.sound(), self.rng.choice((1, 1, 1, 2, 3))):
            wish.text = f"text {self.rng.getrandbits(40):x}"
            files[wish.file] = wish.entry()
        return files

    def rename(self, settled: set[str]) -> Files | None:
        wish = self.pick(lambda w: w.unit in settled)
        if wish is None:
            return None
        self.born += 1
        before, wish.moved_from, wish.name = wish.file, wish.name, f"u{self.born}"
        return {before: None, wish.file: wish.entry(), **{w.file: w.entry() for w in self.readers(wish)}}

    def destroy(self, settled: set[str]) -> Files | None:
        wish = self.pick(lambda w: w.unit in settled and not any(self.readers(w)))
        if wish is None:
            return None
        wish.absent, wish.moved_from = True, None
        return {wish.file: wish.entry()}

    def remove(self, settled: set[str]) -> Files | None:
        """The files of what was destroyed."""
        destroyed = [w for w in self.wishes if w.absent and w.unit in settled]
        self.wishes = [w for w in self.wishes if w not in destroyed]
        self.gone += destroyed
        return {w.file: None for w in destroyed}

    def spoil(self, settled: set[str]) -> Files | None:
        wish = self.pick(lambda w: w.unit in settled)
        if wish is None:
            return None
        wish.broken = self.rng.choice(BROKEN)
        return {wish.file: wish.entry()}

    def mend(self, settled: set[str], *, everything: bool = False) -> Files | None:
        broken = [w for w in self.wishes if w.broken is not None]
        mended = broken if everything or not broken else [self.rng.choice(broken)]
        for wish in mended:
            wish.broken = None
        return {w.file: w.entry() for w in mended}

    def bump(self, settled: set[str]) -> Files | None:
        wish = self.pick(lambda w: w.version != VERSIONS[-1])
        if wish is None:
            return None
        wish.version = VERSIONS[VERSIONS.index(wish.version) + 1]
        return {wish.file: wish.entry()}

    # --- who there is

    def sound(self) -> list[Wish]:
        """Entries that are neither broken nor on their way out."""
        return [w for w in self.wishes if w.broken is None and not w.absent]

    def readers(self, wish: Wish) -> Iterator[Wish]:
        return (w for w in self.wishes if w.reads is wish)

    def pick(self, fits: Callable[[Wish], bool]) -> Wish | None:
        found = [w for w in self.sound() if fits(w)]
        return self.rng.choice(found) if found else None
