"""Opens the executor that the host's configuration names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from reconciler.config import ControllerConfig
from reconciler.executor.fargate import open_fargate
from reconciler.executor.local import LocalExecutor
from reconciler.model import JobId, Phase
from reconciler.ports import Executor


class Reached(Executor, Protocol):
    """An executor as the daemon has it: what it works by, and what it shows people of it."""

    @property
    def place(self) -> str:
        """Where the runner is, and what to look at where it does not answer."""

    def phases(self, job_id: JobId) -> Sequence[tuple[Phase, datetime]]:
        """The phases that the job went through, and when each began. Raises PassError when the runner does not answer."""

    def trouble(self) -> str:
        """What keeps jobs waiting that were handed over, for people; empty: nothing."""

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` when a job ends, until `close`, as far as anybody tells."""

    def close(self) -> None:
        """Stop listening."""


def open_executor(config: ControllerConfig) -> Reached:
    """The executor; no runner is asked yet. Raises PassError: no region is known."""
    if config.executor.fargate is not None:
        return open_fargate(config.executor.fargate, config.installation)
    return LocalExecutor(config.local.socket)
