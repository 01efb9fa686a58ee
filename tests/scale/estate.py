"""Hundreds or thousands of units in three environments, all of one module, in groups that read one of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from reconciler.demo.example import Releases
from tests.kit.aws import NEEDS_AWS, REGION

ENVIRONMENTS = ("dev", "stage", "prod")
GROUP = 20  # units: one, and those that read its output
MODULE = "acme/link"

VARIABLES = """\
variable "name" { type = string }
variable "label" { type = string }
variable "previous" {
  type    = string
  default = ""
}
"""
# Both do the same: an object with a value, which the second edition words otherwise; and the value for whoever reads it.
BUILTIN = """\
resource "terraform_data" "link" {
  input = { name = var.name, value = "${var.previous}/${var.label}EDITION" }
}
output "value" { value = terraform_data.link.output.value }
"""
AWS = """\
resource "aws_ssm_parameter" "link" {
  name           = "/${var.name}"
  type           = "String"
  insecure_value = "${var.previous}/${var.label}EDITION"
}
output "value" { value = aws_ssm_parameter.link.insecure_value }
"""
EDITIONS = {"1.0.0": "", "1.1.0": ".2"}


@dataclass(frozen=True, slots=True)
class Member:
    """One unit: what its entry says."""

    unit: str
    label: str
    reads: str | None = None
    version: str = "1.0.0"

    @property
    def path(self) -> str:
        """Where its entry stands."""
        return f"environments/{self.unit}.yaml"

    @property
    def entry(self) -> str:
        """The entry's file."""
        inputs = [f"  name: {self.unit}", f"  label: {self.label}"]
        inputs += [f"  previous: ${{{{ {self.reads.partition('/')[2]}.value }}}}"] if self.reads else []
        return "\n".join([f"module: {MODULE}", f'version: "{self.version}"', "inputs:", *inputs, ""])


@dataclass(slots=True)
class Estate:
    """All units as they shall be."""

    members: dict[str, Member]
    aws: bool = False

    @classmethod
    def of(cls, units: int, *, aws: bool) -> Estate:
        """So many, upstream first."""
        return cls({one.unit: one for one in _members(units)}, aws)

    @property
    def releases(self) -> Releases:
        """The module's two versions."""
        source = f"{NEEDS_AWS}{VARIABLES}{AWS}" if self.aws else f"{VARIABLES}{BUILTIN}"
        return {
            f"v{version}": {"modules/link/main.tf": source.replace("EDITION", words)}
            for version, words in EDITIONS.items()
        }

    def files(self) -> dict[str, str]:
        """The environments repository, without its lock. Nothing is looked at for drift unless it is asked for."""
        providers = f"providers: {{aws: {{region: {REGION}}}}}\n" if self.aws else ""
        settings = f"class: protected\ndrift_interval: 30d\n{providers}"
        found = {f"environments/{name}/environment.yaml": settings for name in ENVIRONMENTS}
        return found | {one.path: one.entry for one in self.members.values()}

    def change(self, units: list[str], **fields: str) -> dict[str, str]:
        """Change these entries; the files that a merge of it has."""
        self.members |= {unit: replace(self.members[unit], **fields) for unit in units}
        return {self.members[unit].path: self.members[unit].entry for unit in units}

    def leaves(self) -> list[str]:
        """Those that nobody reads."""
        return [unit for unit, one in self.members.items() if one.reads is not None]

    def values(self) -> Mapping[str, str]:
        """What each unit's output has to be."""
        found: dict[str, str] = {}
        for unit, one in self.members.items():
            found[unit] = f"{found[one.reads] if one.reads else ''}/{one.label}{EDITIONS[one.version]}"
        return found


def _members(units: int) -> Iterator[Member]:
    for number in range(units):
        name = ENVIRONMENTS[number % len(ENVIRONMENTS)]
        place = number // len(ENVIRONMENTS)
        first = place - place % GROUP
        reads = f"{name}/u{first:05}" if place != first else None
        yield Member(f"{name}/u{place:05}", f"l{number}", reads)
