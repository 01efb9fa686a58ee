"""The audit of a unit's module, before its engine starts; remembered, so that it costs nothing the second time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

from reconciler.config import CatalogRepo
from reconciler.durable import write_atomic
from reconciler.errors import HeldError
from reconciler.git.ondisk import TreeOnDisk
from reconciler.model import Pin
from reconciler.vetting import FILE_BYTES, RULE_SET, Finding, judge_findings, usable, vet

SHOWN = 10  # findings in a message


def check_vetted(pin: Pin, tree: Path, catalogs: Mapping[str, CatalogRepo], memory: Path) -> None:
    """Go on only with a module in which the audit finds nothing but what this host lets pass.

    `tree` is the pinned tree, its digest proven; `memory` the folder of verdicts.

    Raises:
        HeldError: "ModuleRefused", with the findings.
    """
    catalog = catalogs.get(pin.module.partition("/")[0])
    allowed, waivers = (catalog.allow_providers, catalog.waivers) if catalog else ([], ())
    providers = usable((provider.source for provider in pin.providers), allowed)
    found = _remembered(pin, tree, providers, memory)
    # A branch that a sandbox names is no version: no exception knows what it will be.
    verdict = judge_findings(found, () if pin.floating else waivers, pin.module, pin.version)
    if verdict.findings:
        raise HeldError("ModuleRefused", refusal(pin, verdict.findings))


def refusal(pin: Pin, findings: tuple[Finding, ...]) -> str:
    """What to tell of a module that was refused."""
    lines = [str(finding) for finding in findings[:SHOWN]]
    more = [f"and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []
    remedy = (
        f"Mend the module and lock a new version; or, where a person has looked at it, let the rule pass for "
        f"{pin.module}@{pin.version} in catalog_repos.*.exceptions of the host's configuration."
    )
    return "\n".join([f"{pin.module} {pin.version} has what a vetted module must not have.", *lines, *more, remedy])


def _remembered(pin: Pin, tree: Path, providers: frozenset[str] | None, memory: Path) -> tuple[Finding, ...]:
    """The findings, by everything that they depend on; exceptions are not part of it."""
    key = json.dumps([RULE_SET, pin.digest, pin.path, None if providers is None else sorted(providers)])
    sidecar = memory / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    try:
        return tuple(Finding(*fields) for fields in json.loads(sidecar.read_bytes()))
    except (OSError, ValueError, TypeError):  # not there, or not ours: it is only a cache
        found = vet(TreeOnDisk(tree, FILE_BYTES + 1), pin.path, providers)
    memory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(sidecar, json.dumps([astuple(finding) for finding in found]).encode())
    return found
