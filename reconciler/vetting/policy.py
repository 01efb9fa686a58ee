"""What the host has to say about findings: exceptions for one version of one module and one rule, and known providers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.vetting.blocks import normal
from reconciler.vetting.facts import LIFTABLE, Finding


@dataclass(frozen=True, slots=True)
class Waiver:
    """One exception. `module` is `acme/vpc`; without `path` it covers every file that the module reaches."""

    module: str
    version: str
    rule: str
    reason: str
    path: str | None = None

    def covers(self, module: str, version: str, finding: Finding) -> bool:
        """Whether the finding is what was meant."""
        return (
            (self.module, self.version, self.rule) == (module, version, finding.rule)
            and finding.rule in LIFTABLE
            and self.path in (None, finding.path)
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is left of the findings, what was let pass, and the exceptions of this version that meet nothing."""

    findings: tuple[Finding, ...]
    waived: tuple[Finding, ...]
    idle: tuple[Waiver, ...]


def judge_findings(found: Sequence[Finding], waivers: Sequence[Waiver], module: str, version: str) -> Verdict:
    """Sort the findings of one version of a module by what the host lets pass."""
    own = [waiver for waiver in waivers if (waiver.module, waiver.version) == (module, version)]
    used = {waiver for waiver in own for one in found if waiver.covers(module, version, one)}
    waived = tuple(one for one in found if any(waiver.covers(module, version, one) for waiver in own))
    findings = tuple(one for one in found if one not in waived)
    return Verdict(findings, waived, tuple(waiver for waiver in own if waiver not in used))


def usable(pinned: Iterable[str] | None, allowed: Iterable[str]) -> frozenset[str] | None:
    """The providers that a module may use: those of its pin, if there is one yet, as far as its catalog allows them.

    None: any.
    """
    named = frozenset(normal(one) or one for one in allowed)
    if pinned is None:
        return named or None
    found = frozenset(normal(one) or one for one in pinned)
    return found & named if named else found
