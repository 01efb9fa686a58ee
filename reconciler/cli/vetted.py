"""The audit as the commands tell it: at `catalog add`, and of every version of the lock in `validate`."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from reconciler.cli.shelf import Shelf
from reconciler.cli.show import as_json_text, progress
from reconciler.config import ControllerConfig, load_controller
from reconciler.desired.lock import ordered
from reconciler.errors import ReconcilerError, UnitError
from reconciler.git.ondisk import TreeOnDisk
from reconciler.git.pinned import measure
from reconciler.lockfile import Lines
from reconciler.model import Lock, Pin, Problem
from reconciler.vetting import FILE_BYTES, Files, Finding, Verdict, judge_findings, usable, vet


def refused(shelf: Shelf, pin: Pin, *, as_json: bool) -> bool:
    """Whether the version that is about to be locked has what a vetted module must not have; told whole."""
    verdict = _verdict(shelf, TreeOnDisk(shelf.tree(pin), FILE_BYTES + 1), pin, None)
    for finding in verdict.waived:
        progress(f"Let pass by an exception: {finding}")
    if not verdict.findings:
        return False
    if as_json:
        facts = {"module": pin.module, "version": pin.version, "commit": pin.commit}
        as_json_text({"changed": False, **facts, "findings": [_facts(one) for one in verdict.findings]})
    else:
        print("\n".join(map(str, verdict.findings)))
    progress(
        f"{pin.module} {pin.version} is not locked: {len(verdict.findings)} things that a vetted module must not have. Mend "
        "it and release a new version"
    )
    return True


class Shelved:
    """Where `validate` finds trees: in the catalogs that were named, else in the daemon's cache. It asks no network."""

    def __init__(self, shelf: Shelf, named: Container[str], config: Path | None) -> None:
        self._shelf, self._named = shelf, named
        self._config: ControllerConfig | None = load_controller(config) if config else None

    def problems(self, lines: Lines, lock: Lock) -> Iterator[Problem]:
        """Every finding in a version of the lock, at its line there; what could not be looked at is told on stderr."""
        for _, pins in sorted(lock.modules.items()):
            for pin in (pins[version] for version in ordered(pins) if pins[version].yanked is None):
                try:
                    files = self._files(pin)
                except ReconcilerError as error:
                    progress(f"{pin.module} {pin.version} could not be vetted: {error}")
                    continue
                place = lines.place(pin.module, pin.version)
                sources = [provider.source for provider in pin.providers]
                for finding in _verdict(self._shelf, files, pin, sources).findings:
                    yield Problem(place, "ModuleRefused", f"{pin.module} {pin.version}: {finding}")

    def _files(self, pin: Pin) -> Files:
        """Raises ReconcilerError where the tree is nowhere at hand."""
        if self._config is None or pin.repository in self._named:
            return TreeOnDisk(self._shelf.tree(pin), FILE_BYTES + 1)
        tree = self._config.work_path / "catalog" / pin.digest.removeprefix("sha256:")
        if measure(tree) != pin.digest:
            raise UnitError("CatalogUnavailable", f"{tree} is not there: say --catalog {pin.repository}=FOLDER")
        return TreeOnDisk(tree, FILE_BYTES + 1)


def _verdict(shelf: Shelf, files: Files, pin: Pin, sources: list[str] | None) -> Verdict:
    """Tells on stderr the exceptions that are not needed."""
    found = vet(files, pin.path, usable(sources, shelf.allowed(pin.module)))
    verdict = judge_findings(found, shelf.waivers(pin.module), pin.module, pin.version)
    for waiver in verdict.idle:
        progress(f"The exception {waiver.rule} of {waiver.module}@{waiver.version} meets nothing: take it out")
    return verdict


def _facts(finding: Finding) -> Mapping[str, Any]:
    return {
        "rule": finding.rule,
        "path": finding.path,
        "line": finding.line,
        "column": finding.column,
        "message": finding.message,
    }
