"""Generated environments on the builtin provider: chains whose outputs feed each other, and a fan that reads one output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.demo.example import LOCK

ENVIRONMENT = "prod"
MODULE = "acme/link"
VERSION = "1.0.0"

# `value` carries what came from upstream on, unless `cut`: then a change further up ends here. `note` is seen by nobody.
SOURCE = """\
variable "label" {}
variable "previous" { default = "" }
variable "note" { default = "" }
variable "cut" { default = false }

resource "terraform_data" "link" {
  input = { label = var.label, previous = var.previous, note = var.note }
}

output "value" {
  value = var.cut ? terraform_data.link.output.label : "${terraform_data.link.output.previous}/${terraform_data.link.output.label}"
}
"""

CATALOG = {"v1.0.0": {"modules/link/main.tf": SOURCE}}
SETTINGS = "class: protected\ndrift_interval: {interval}\n"


@dataclass(frozen=True, slots=True)
class Link:
    """One unit of the graph: what its entry says. `reads` is the unit whose `value` it takes as `previous`."""

    name: str
    label: str
    reads: str | None = None
    cut: bool = False
    note: str = ""

    @property
    def unit(self) -> str:
        """The unit's id."""
        return f"{ENVIRONMENT}/{self.name}"

    @property
    def path(self) -> str:
        """Where its entry stands."""
        return f"environments/{self.unit}.yaml"

    @property
    def entry(self) -> str:
        """The entry's file."""
        inputs = [f"  label: {self.label}"]
        inputs += [f"  previous: ${{{{ {self.reads}.value }}}}"] if self.reads else []
        inputs += ["  cut: true"] if self.cut else []
        inputs += [f"  note: {self.note}"] if self.note else []
        return "\n".join([f"module: {MODULE}", f'version: "{VERSION}"', "inputs:", *inputs, ""])


@dataclass(frozen=True, slots=True)
class Graph:
    """`chains` of `length` units each, and a fan of `leaves` that read one unit. The middle of each chain cuts."""

    chains: int
    length: int
    leaves: int

    def links(self) -> Iterator[Link]:
        """Every unit, upstream first."""
        for chain in range(self.chains):
            for place in range(self.length):
                above = f"chain-{chain}-{place - 1}" if place else None
                yield Link(f"chain-{chain}-{place}", f"c{chain}p{place}", above, cut=place == self.length // 2)
        if self.leaves:
            yield Link("hub", "hub")
            yield from (Link(f"leaf-{leaf}", f"leaf{leaf}", "hub") for leaf in range(self.leaves - 1))

    def files(self, interval: str = "24h") -> dict[str, str]:
        """The environments repository, without its lock. `interval` is that of the drift checks."""
        settings = {f"environments/{ENVIRONMENT}/environment.yaml": SETTINGS.format(interval=interval)}
        return settings | {link.path: link.entry for link in self.links()}


__all__ = ["CATALOG", "ENVIRONMENT", "LOCK", "MODULE", "SOURCE", "VERSION", "Graph", "Link"]
