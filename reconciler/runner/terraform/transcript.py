"""An engine's machine-readable output, read while it is written: what matters is kept, the rest becomes a log for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Protocol

from reconciler.runner.terraform.diagnose import Diagnostic, parse_diagnostic

MOST_OF_A_LOG = 64 << 20  # bytes
MOST_OF_ERRORS = 16 << 20  # bytes
MOST_AT_ONCE = 1 << 20  # bytes of one look
KEPT = frozenset({"resource_drift", "planned_change", "change_summary"})
LONGEST_PIECE = 1000  # lines
LAST_WORDS = 2000  # characters of plain text that stand in for a diagnostic


class Readable(Protocol):
    """What a command writes: a `process.Outlet`, or a file."""

    def read(self, most: int, /) -> bytes:
        """The next bytes; none: there are no more yet."""


class Transcript:
    """Follows one output; call `read` whenever there may be more, and `finish` at the end.

    The log is appended to as it comes, all through `mask`: messages one by one, and plain text, which may be wrapped in the
    middle of a secret, in one piece. `patient`: diagnostics and the ids of what was made are written at the end, when `mask` may know more.
    """

    def __init__(
        self,
        output: Readable,
        log: BinaryIO,
        mask: Callable[[str], str],
        root: Sequence[str],
        *,
        patient: bool = False,
    ) -> None:
        self._output = output
        self._log = log
        self._mask = mask
        self._root = root
        self._rest = b""
        self._cut = False
        self._plain: list[str] = []
        self._piece: list[str] = []
        self._patient = patient
        self._kept: list[str] = []
        self.diagnostics: list[Diagnostic] = []
        self.messages: list[Mapping[str, Any]] = []
        self.has_read = False  # whether a data source was asked

    def read(self) -> None:
        """Take in what was written since the last look."""
        while chunk := self._output.read(MOST_AT_ONCE):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._take(line)
        self._flush()

    @property
    def waits(self) -> bool:
        """Whether there is something that is written at the end."""
        return bool(self._kept)

    def finish(self, errors: Readable, code: int) -> None:
        """Take in the rest, and what a command that failed without a diagnostic said in plain text."""
        self.read()
        self._take(self._rest)
        for line in errors.read(MOST_OF_ERRORS).splitlines():
            self._text(line.decode(errors="replace"))
        self._end_piece()
        for text in self._kept:
            self._write(text)
        if code not in (0, 2) and self._plain and not any(d.severity == "error" for d in self.diagnostics):
            summary = self._mask("\n".join(self._plain))[-LAST_WORDS:]  # first hidden, then cut
            self.diagnostics.append(Diagnostic("error", summary))
        self._flush()

    def _take(self, line: bytes) -> None:
        message = _json_object(line)
        if message is None:
            self._text(line.decode(errors="replace"))
            return
        self._end_piece()
        if message.get("type") == "diagnostic" or "diagnostic" in message:
            try:
                diagnostic = parse_diagnostic(message.get("diagnostic") or {}, self._root)
            except (AttributeError, TypeError):  # it only looks like one
                self._text(line.decode(errors="replace"))
            else:
                self._diagnostic(diagnostic, str(message.get("@level", "")))
            return
        kind = message.get("type")
        if isinstance(kind, str) and kind in KEPT:
            self.messages.append(message)
        self.has_read = self.has_read or kind == "apply_start"  # in a plan, all that is applied is a read
        self._write(self._without_new_id(message, str(message.get("@message", "")).strip("\n")))

    def _without_new_id(self, message: Mapping[str, Any], text: str) -> str:
        """The id of an object that was just made may be a password. It is written at the end."""
        hook = message.get("hook")
        if not self._patient or not isinstance(hook, Mapping) or hook.get("action") not in ("create", "replace"):
            return text
        shown = f" [{hook.get('id_key')}={hook.get('id_value')}]"
        if message.get("type") != "apply_complete" or shown not in text:
            return text
        resource = hook.get("resource")
        address = resource.get("addr") if isinstance(resource, Mapping) else ""
        self._kept.append(f"Made: {address}{shown}")
        return text.replace(shown, "")

    def _diagnostic(self, diagnostic: Diagnostic, level: str) -> None:
        self.diagnostics.append(diagnostic)
        where = diagnostic.address or (f"{diagnostic.file}:{diagnostic.line}" if diagnostic.file else "")
        head = f"{(diagnostic.severity or level).capitalize()}: {diagnostic.summary}"
        detail = (f"  {line}" for line in diagnostic.detail.splitlines())
        text = "\n".join((f"{head} ({where})" if where else head, *detail))
        if self._patient:
            self._kept.append(text)
        else:
            self._write(text)

    def _text(self, line: str) -> None:
        if line.strip():
            self._plain.append(line)
            self._piece.append(line)
            if len(self._piece) >= LONGEST_PIECE:
                self._end_piece()

    def _end_piece(self) -> None:
        self._write("\n".join(self._piece))
        self._piece = []

    def _flush(self) -> None:
        with suppress(OSError):
            self._log.flush()

    def _write(self, text: str) -> None:
        """An apply is disturbed neither by what it says nor by a disk that has no room for it."""
        if not text or self._cut:
            return
        line = self._mask(text).encode(errors="replace") + b"\n"
        with suppress(OSError):
            if self._log.tell() + len(line) > MOST_OF_A_LOG:
                self._cut, line = True, f"(The log is cut here: it has {MOST_OF_A_LOG >> 20} MiB.)\n".encode()
            self._log.write(line)


def _json_object(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
