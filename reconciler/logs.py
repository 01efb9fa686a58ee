"""Log lines: JSON for programs, readable ones for people at a terminal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import FilteringBoundLogger

from reconciler.codec import encode

_FIELDS = {"event": "message", "level": "log.level", "action": "event.action", "exception": "error.stack_trace"}
_OWN = (
    "unit",
    "job",
    "commit",
    "repository",
    "scope",
    "reason",
    "outcome",
    "operation",
    "cause",
    "environment",
    "pull",
)


def open_log(stream: TextIO | None = None, *, as_json: bool | None = None, level: str = "info") -> FilteringBoundLogger:
    """A logger for the stream (stderr): JSON lines, or readable ones on a terminal."""
    out = stream or sys.stderr
    terminal = out.isatty()
    shape: list[Any] = [_fields, structlog.processors.JSONRenderer(serializer=_json)]
    if terminal if as_json is None else not as_json:
        shape = [
            structlog.dev.ConsoleRenderer(
                colors=terminal and not os.environ.get("NO_COLOR"), timestamp_key="@timestamp"
            )
        ]
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="@timestamp")
    log: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(out),
        processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info, stamp, *shape],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
    )
    return log


def _fields(_logger: Any, _method: str, said: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Names as the Elastic Common Schema has them; what it does not know stands under `reconciler.`."""
    return {_FIELDS.get(key, f"reconciler.{key}" if key in _OWN else key): value for key, value in said.items()}


def _json(said: object, **_options: Any) -> str:
    return encode(said).decode()


class LibraryLog(logging.Handler):
    """What libraries say through the standard logging, in the same shape. Attach it to the root logger."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        self._log.log(
            record.levelno, record.getMessage(), action="library", logger=record.name, exc_info=record.exc_info
        )
