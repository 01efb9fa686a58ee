"""Exit codes: part of the interface, see docs/formats.md."""

from __future__ import annotations

FINE = 0
ERROR = 1
DIFFERENCE = 2
TROUBLE = 3  # degraded or held
TIMEOUT = 4
SILENT = 5  # the daemon does not answer
USAGE = 64
