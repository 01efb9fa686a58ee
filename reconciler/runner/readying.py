"""How a job's folder becomes one in which the engine can plan: laid out as an earlier `init` left one of its shape, else by `init`.

A shape is all that an `init` depends on, but the unit's own place in the backend. It has the environment, its class, and whether the
code was merged in it: what came of one trust serves no other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconciler.model import Pin
from reconciler.runner.host import Host, Hosted
from reconciler.runner.supply import Supply
from reconciler.runner.terraform.engine import Conversation, EngineError
from reconciler.runner.terraform.initialized import Block, ForeignError, clear, lay_out, links_of, shape_of, take_up
from reconciler.runner.terraform.workspace import render_lock, trust_packages

WANTS_INIT = re.compile(
    r"\b(?:terraform|tofu) init\b"
)  # what an engine tells people to run in a folder that it cannot use


class Readying:
    """Of one job's folder. `tree` is the pinned tree; `merged`: whether the code was."""

    def __init__(
        self, host: Host, hosted: Hosted, work: Path, supply: Supply, pin: Pin, tree: Path, *, merged: bool
    ) -> None:
        self._host, self._hosted, self._work, self._supply = host, hosted, work, supply
        self._pin, self._tree, self._merged = pin, tree, merged
        self._links = links_of(pin, host.engine.registry, supply.mirror)
        self._ready = False
        self._laid_out: str | None = None  # what was laid out here

    @property
    def done(self) -> bool:
        """Whether the engine can plan here."""
        return self._ready

    def make(self, talk: Conversation, root: Mapping[str, Any], block: Block, deadline: float) -> None:
        """After the root was written, each time: lay out what an `init` left, or run it. `block` is the root's backend.

        Raises:
            UnitError: as `Conversation.init`.
        """
        if not self._ready:
            name = self.name(root, block)
            if not self._lay_out(name, block):
                talk.init(deadline)
                if (left := take_up(self._work, block, self._links, self._tree)) is not None:
                    self._host.templates.keep(name, left)
            self._ready = True
        if self._supply.trusted:
            trust_packages(self._work, self._supply.pin, self._host.engine.registry)

    def _lay_out(self, name: str, block: Block) -> bool:
        """Whether there was something to lay out, and it is this unit's."""
        left = self._host.templates.find(name)
        if left is None:
            return False
        try:
            lay_out(left, self._work, block, self._links)
        except ForeignError:
            self._host.templates.drop(name)
            return False
        self._laid_out = name
        return True

    def name(self, root: Mapping[str, Any], block: Block) -> str:
        """The name under which what `init` leaves in such a root is kept: the same for all that an `init` could not tell apart."""
        host, part = self._host, self._hosted.part
        engine, settings = host.engine, {**root["terraform"], "backend": shape_of(block)}
        return host.templates.name(
            [engine.product, engine.version, engine.sha256, engine.registry],
            {**root, "terraform": settings},
            render_lock(self._supply.pin, engine.registry),
            [self._pin.digest, str(self._tree), str(self._supply.mirror)],
            [self._hosted.name, part.klass.value, part.digest, self._merged],
        )

    def undo(self, error: EngineError) -> bool:
        """Whether the engine wants an `init` where one was spared, so that all shall be made again, by an `init` of its own."""
        if self._laid_out is None or not any(WANTS_INIT.search(f"{e.summary} {e.detail}") for e in error.errors):
            return False
        self._host.templates.drop(self._laid_out)
        clear(self._work)
        self._laid_out, self._ready = None, False
        return True
