"""An engine's machine-readable output, read while it is written: what matters is kept, the rest becomes a log for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from reconciler.durable import open_plain
from reconciler.runner.terraform.diagnose import Diagnostic, parse_diagnostic

MOST_AT_ONCE = 1 << 20  # bytes of one look
KEPT = frozenset({"resource_drift", "planned_change", "change_summary"})
LAST_WORDS = 2000  # characters of plain text that stand in for a diagnostic


class Transcript:
    """Follows one output file; call `read` whenever there may be more, and `finish` at the end.

    The log is appended to a line at a time, each through `mask`. Its writer may be another program's: a file.
    """

    def __init__(self, output: Path, log: BinaryIO, mask: Callable[[str], str], root: Sequence[str]) -> None:
        self._output = open_plain(output)
        self._log = log
        self._mask = mask
        self._root = root
        self._rest = b""
        self._plain: list[str] = []
        self.diagnostics: list[Diagnostic] = []
        self.messages: list[Mapping[str, Any]] = []

    def read(self) -> None:
        """Take in what was written since the last look."""
        while chunk := self._output.read(MOST_AT_ONCE):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._take(line)
        self._log.flush()

    def finish(self, errors: Path, code: int) -> None:
        """Take in the rest, and what a command that failed without a diagnostic said in plain text."""
        self.read()
        self._take(self._rest)
        self._output.close()
        with open_plain(errors) as said:
            for line in said.read().splitlines():
                self._text(line.decode(errors="replace"))
        if code not in (0, 2) and self._plain and not any(d.severity == "error" for d in self.diagnostics):
            summary = "\n".join(self._plain)[-LAST_WORDS:]
            self.diagnostics.append(Diagnostic("error", summary))
        self._log.flush()

    def _take(self, line: bytes) -> None:
        message = _json_object(line)
        if message is None:
            self._text(line.decode(errors="replace"))
            return
        if message.get("type") == "diagnostic" or "diagnostic" in message:
            try:
                diagnostic = parse_diagnostic(message.get("diagnostic") or {}, self._root)
            except (AttributeError, TypeError):  # it only looks like one
                self._text(line.decode(errors="replace"))
            else:
                self._diagnostic(diagnostic, str(message.get("@level", "")))
            return
        if message.get("type") in KEPT:
            self.messages.append(message)
        self._write(str(message.get("@message", "")).strip("\n"))

    def _diagnostic(self, diagnostic: Diagnostic, level: str) -> None:
        self.diagnostics.append(diagnostic)
        where = diagnostic.address or (f"{diagnostic.file}:{diagnostic.line}" if diagnostic.file else "")
        head = f"{(diagnostic.severity or level).capitalize()}: {diagnostic.summary}"
        self._write(f"{head} ({where})" if where else head)
        self._write("\n".join(f"  {line}" for line in diagnostic.detail.splitlines()))

    def _text(self, line: str) -> None:
        if line.strip():
            self._plain.append(line)
            self._write(line)

    def _write(self, text: str) -> None:
        if text:
            self._log.write(self._mask(text).encode(errors="replace") + b"\n")


def _json_object(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
