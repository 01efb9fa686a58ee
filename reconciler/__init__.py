"""reconciler: the merged pull request is the only way into production."""

from __future__ import annotations

__version__ = "0.1.0"
