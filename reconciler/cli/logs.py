"""`reconciler logs JOB`."""

from __future__ import annotations

import sys
import time

import click

from reconciler.cli.ask import Api, server_option
from reconciler.cli.show import printable, progress
from reconciler.errors import ReconcilerError

_PACE = 0.5  # seconds between two questions while following


@click.command("logs")
@click.argument("job", metavar="JOB|UNIT")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@server_option
def command(job: str, follow: bool, server: str) -> None:
    """The engine's output of JOB, with secrets masked; of a unit, that of its running or last job.

    `reconciler history UNIT` names the jobs of a unit.
    """
    with Api(server) as api:
        name = _job_of(api, job) if "/" in job else job
        offset = 0
        while True:
            data, headers = api.raw(f"/api/v1/jobs/{name}/log", offset=offset)
            _write(data)
            offset = int(headers["reconciler-next-offset"])
            ended = headers["reconciler-running"] != "true"
            if not data and (ended or not follow):
                return
            if not data:
                time.sleep(_PACE)


def _job_of(api: Api, unit: str) -> str:
    seen = api.get(f"/api/v1/units/{unit}")
    if seen["job"]:
        return str(seen["job"]["id"])
    ended = [(one["at"], one["job"]) for one in (seen["failure"], seen["plan"], seen["applied"]) if one]
    if not ended:
        raise ReconcilerError("NoJob", f"{unit} has had no job yet; `reconciler explain {unit}` says what it waits for")
    job = str(max(ended)[1])
    progress(f"job {job}")
    return job


def _write(data: bytes) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(printable(data))
        sys.stdout.flush()
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
