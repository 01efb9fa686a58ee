"""One job's process: whatever happens in it, it leaves a result, or a phase that tells the next job what may have happened."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from reconciler.durable import FileLock
from reconciler.errors import HeldError, ReconcilerError, SupersededError, UnitError
from reconciler.model import Job, Outcome, Result
from reconciler.runner import overdue
from reconciler.runner.case import Case, UncertainError
from reconciler.runner.host import Host
from reconciler.runner.jail.egress import noted
from reconciler.runner.load import used
from reconciler.runner.progress import Progress, Said
from reconciler.runner.showing import Showing
from reconciler.runner.spool import JobFolder

OVERDUE = (
    "The job did not come to an apply in the time that it has for verifying and planning, and ended itself; no apply was begun. Its log says "
    "how far it came, and a server that crawls is the likely cause; raise timeouts.plan in environment.yaml if its plans are just long."
)
TOO_LARGE = (
    "The job's own process came to the 2 GiB that it may take, and was refused more. A plan or a state of hundreds of MiB does that: divide the "
    "unit into smaller ones. The runner and other jobs are not touched by it."
)


def run_job(host: Host, job: Job, folder: JobFolder, life: FileLock, ended: Callable[[], None] = lambda: None) -> None:
    """Carry the job out and journal its result. `life` is the folder's lock; the engine comes to hold it too. `ended` is called once
    the result is there: the unit is free by then, and who waits for it need not wait for what is left to be tidied up.
    """
    result = _result(host, job, folder, life)
    folder.end(replace(result, refused=len(noted(folder.refusals)), used=used()))
    ended()
    unfinished = host.memory.unit(job.unit).applying
    if unfinished is None or unfinished.job != job.id:
        folder.clean()
    else:
        folder.clean_temporary()  # and no more: the workspace may hold the only good state


def _result(host: Host, job: Job, folder: JobFolder, life: FileLock) -> Result:
    """The result, whatever is raised on the way."""
    progress = Progress(job, datetime.now(UTC))
    try:
        said = _in_time(host, job, folder, life, progress)
    except UncertainError as error:
        return progress.result(Outcome.UNCERTAIN, "UncertainApply", str(error))
    except SupersededError as error:
        return progress.result(Outcome.SUPERSEDED, error.reason, str(error))
    except HeldError as error:
        return progress.result(Outcome.HELD, error.reason, str(error))
    except UnitError as error:
        return progress.result(Outcome.FAILED, error.reason, str(error), transient=error.transient)
    except ReconcilerError as error:
        return progress.result(Outcome.FAILED, error.reason, str(error))
    except overdue.OverdueError:
        overdue.end()
        return progress.result(Outcome.FAILED, "JobTimeout", OVERDUE)
    except MemoryError:
        return progress.result(Outcome.FAILED, "MemoryExceeded", TOO_LARGE)
    except OSError as error:
        return progress.result(Outcome.FAILED, "HostFault", f"The runner's host: {error}.")
    except Exception as error:  # noqa: BLE001 - a bug ends this job, and is logged whole; the unit's journal makes the next one safe
        sys.stderr.write(progress.veil.hide(traceback.format_exc()))
        return progress.result(Outcome.FAILED, "InternalError", f"{type(error).__name__} in the runner; see its log.")
    return progress.result(Outcome.SUCCEEDED, said.reason, said.message)


def _in_time(host: Host, job: Job, folder: JobFolder, life: FileLock, progress: Progress) -> Said:
    """As `_said`; nothing cuts short what is written down of it."""
    try:
        return _said(host, job, folder, life, progress)
    finally:
        overdue.end()


def _said(host: Host, job: Job, folder: JobFolder, life: FileLock, progress: Progress) -> Said:
    """Do it. What only shows an open pull request does not hold the unit: nobody waits for it."""
    if job.pull is not None:
        return Showing(host, job, folder, life, progress).carry_out()
    if host.memory.shared:
        host.memory.shared.job = job
    with host.memory.unit_lock(job.unit) as lock:
        return Case(host, job, folder, (life, lock), progress).carry_out()
