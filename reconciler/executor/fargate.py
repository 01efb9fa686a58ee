"""Each job a task of ECS: asked for in the spool in S3, started by RunTask, followed by what it leaves in the spool.

What lives is in S3 and at ECS; this process only remembers what it has seen, and a later one finds it again. (docs/decisions/0035)
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from reconciler import codec
from reconciler.config.fargate import FargateExecutor as Config
from reconciler.errors import PassError
from reconciler.model import Job, JobId, Operation, Phase, Result, RunnerFacts
from reconciler.ports import Lost, Running
from reconciler.remote.bucket import open_bucket
from reconciler.remote.calls import Throttled, open_client
from reconciler.remote.ecs import Conflicting, NotStarted, Seen, Tasks, Wanted
from reconciler.remote.spool import Asking, warm_of

FIRST_WAIT, LONGEST_WAIT = 3.0, 300.0  # seconds until a task that ECS did not start is asked for again
GIVEN_TO_IDLERS = 5.0  # seconds that a task which idles has to take a job, before one is started for it
LONGEST_DESCRIBE = 300.0  # seconds after which a task that only describes is asked for anew
_UNWELCOME = re.compile(r"[^A-Za-z0-9_/-]")
_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Open:
    """A job that has not ended, as far as this process knows.

    `arn`: the task that was started for it; `claim`: the one that carries it out, which may be another. `refusals`: how often ECS did not
    start one; each try after that has a token of its own. `next_try`: not before that, by the steady clock.
    """

    job: Job
    since: datetime
    arn: str = ""
    claim: str = ""
    refusals: int = 0
    next_try: float = 0.0
    waits: str = ""
    given_up: bool = False


@dataclass(slots=True)
class Described:
    """The task that publishes facts, while there is one."""

    arn: str = ""
    at: float = 0.0
    number: int = 0


@dataclass(slots=True)
class FargateExecutor:
    """See above. Implements `ports.Executor`; any thread may use it."""

    config: Config
    installation: str
    spool: Asking
    tasks: Tasks
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    steady: Callable[[], float] = time.monotonic
    _open: dict[JobId, Open] = field(default_factory=dict)
    _led: int = 0
    _pause: float = 0.0  # before the next start, where tasks end before they take their job
    _not_before: float = 0.0
    _trouble: str = ""
    _describing: Described = field(default_factory=Described)
    _guard: threading.RLock = field(default_factory=threading.RLock)

    # --- the port

    def start(self, job: Job) -> None:
        """See `Executor`. A job that finds no room waits: `poll` starts it when there is some."""
        with self._guard:
            if job.id in self._open:
                return
            self.spool.ask(job)
            if self.config.reuse:
                self.spool.announce(job)
            one = self._open[job.id] = Open(job, self.now())
            if self.config.reuse and self._idle(one):
                one.next_try = self.steady() + GIVEN_TO_IDLERS
            self._launch(one)

    def poll(self, job_id: JobId) -> Running | Result | Lost:
        """See `Executor`. A result counts, whatever its task does."""
        with self._guard:
            result = self.spool.result(job_id)
            if result is not None:
                self._forget(job_id)
                return result
            one = self._open.get(job_id) or self._found(job_id)
            if one is None:
                return Lost(applying=False)
            if not one.claim:
                claim = self.spool.claim(job_id)
                one.claim = claim.task if claim else ""
                self._trouble = "" if claim else self._trouble
            state = self._claimed(one) if one.claim else self._unclaimed(one)
            if not isinstance(state, Running):
                self._forget(job_id)
            return state

    def cancel(self, job_id: JobId) -> None:
        """See `Executor`."""
        self.spool.cancel(job_id)
        with self._guard:
            one = self._open.get(job_id)
            if one is not None and not one.claim and not one.arn:
                one.given_up = True

    def lead(self, fence: int) -> None:
        """See `Executor`. Each task looks at it after it took its job, and once more when the spool has that it applies."""
        self.spool.lead(fence)
        self._led = fence

    def describe(self) -> RunnerFacts:
        """See `Executor`. What the last task published; where that is old, a task is started which only does that."""
        with self._guard:
            self.tasks.refresh()
            found, fence = self.spool.facts(), self.spool.fence()
            self._led = max(self._led, fence)
            if found is None:
                self._ask_for_facts()
                what = "The runner has not published yet what it is; a task that does has been started"
                raise PassError("RunnerUnavailable", f"{what}. {self._trouble or 'It takes a minute.'}")
            facts, at = found
            if self.now() - at > self.config.describe_interval:
                self._ask_for_facts()
            return replace(facts, fence=max(facts.fence, fence))

    def log(self, job_id: JobId, offset: int) -> bytes:
        """See `Executor`."""
        return self.spool.log_from(job_id, offset)

    # --- what the daemon has besides

    def phases(self, job_id: JobId) -> Sequence[tuple[Phase, datetime]]:
        """The phases that the job went through, and when each began. Raises PassError when the spool does not answer."""
        return self.spool.phases(job_id)

    def listen(self, wake: Callable[[], None]) -> None:
        """Nobody calls when a task ends: the daemon looks at running jobs every two seconds anyway."""

    def close(self) -> None:
        """Nothing is held."""

    @property
    def place(self) -> str:
        """Where the runner is, and what to look at where it does not answer."""
        spool, cluster = self.spool.bucket.place, self.config.cluster
        return f"by {spool}; look at the tasks of the ECS cluster {cluster}. {self._trouble}".rstrip()

    def trouble(self) -> str:
        """What keeps jobs waiting, for people; empty: nothing."""
        with self._guard:
            waiting = [one for one in self._open.values() if one.waits]
            if waiting:
                return f"{len(waiting)} jobs wait for a task: {waiting[-1].waits}"
            return self._trouble

    # --- where a job is

    def _found(self, job_id: JobId) -> Open | None:
        """A job that another controller, or this one before it was started anew, has asked for; None: nobody has."""
        found = self.spool.asked(job_id)
        if found is None:
            return None
        try:
            job = codec.decode(Job, found.data)
        except ValueError as error:
            raise PassError("AnswerInvalid", f"{self.spool.bucket.place}/jobs/{job_id}/job.json: {error}") from error
        one = self._open[job_id] = Open(job, found.at)
        return one

    def _claimed(self, one: Open) -> Running | Result | Lost:
        """A job that a task took: it runs while that does."""
        task = self.tasks.look(one.claim)
        if not task.ended:
            return Running(self._phase(one.job.id))
        self._pause = 0.0
        result = self.spool.result(one.job.id)  # it may have been written since it was asked for
        if result is not None:
            return result
        died = self.spool.died(one.job.id) or ("" if task.asked else task.told)
        if task.asked:
            self._say(f"{one.job.unit}: its task was {task.told}")
        return Lost(self._phase(one.job.id) is Phase.APPLYING, died)

    def _unclaimed(self, one: Open) -> Running | Lost:
        """A job that no task has taken: it waits for one, or is given up."""
        if one.given_up or (self._led > one.job.fence):
            return self._give_up(one)
        if not one.arn:
            self._launch(one)
            return Running(Phase.QUEUED)
        task = self.tasks.look(one.arn)
        if task.ended:
            self._ended_early(task)
            return self._give_up(one)
        if task.starting and self.now() - (task.since or one.since) > self.config.start_timeout:
            self._say(f"a task of {one.job.unit} did not start within {self.config.start_timeout}, and is stopped")
            self.tasks.stop(one.arn, "reconciler: it did not start in time (executor.fargate.start_timeout)")
            return self._give_up(one)
        return Running(Phase.QUEUED)

    def _give_up(self, one: Open) -> Running | Lost:
        """Nobody shall take the job any more; and if somebody just has, it is theirs. The order of the two is what counts."""
        self.spool.cancel(one.job.id)
        claim = self.spool.claim(one.job.id)
        if claim is None:
            return Lost(applying=False)
        one.claim = claim.task
        return Running(self._phase(one.job.id))

    def _phase(self, job_id: JobId) -> Phase:
        phases = self.spool.phases(job_id)
        return phases[-1][0] if phases else Phase.QUEUED

    def _forget(self, job_id: JobId) -> None:
        one = self._open.pop(job_id, None)
        if one is not None:
            for arn in {one.arn, one.claim} - {""}:
                self.tasks.forget(arn)

    # --- starting tasks

    def _idle(self, one: Open) -> bool:
        """Whether a task may be there that has nothing to do: more of this kind live than have jobs."""
        kind = warm_of(one.job)
        mine = {other.arn for other in self._open.values() if warm_of(other.job) == kind and other.arn}
        return self.tasks.alive() > len(mine)

    def _launch(self, one: Open) -> None:
        """Start a task for the job, if there is room and it is time. What keeps it waiting is said."""
        self.tasks.refresh()
        if self.steady() < max(one.next_try, self._not_before):
            return
        if self.tasks.alive() >= self.config.workers:
            one.waits = f"{self.config.workers} tasks run, which is what executor.fargate.workers allows"
            return
        job = one.job
        definition = self.config.definition(job.unit.partition("/")[0], job.operation)
        spot = self.config.plans_on_spot and job.operation is Operation.PLAN
        try:
            one.arn = self._run(definition, ["--job", job.id], job.fence, f"{job.id}/{one.refusals}", spot=spot)
            one.waits = ""
        except Throttled as error:
            self._wait(one, str(error))
        except NotStarted as error:
            one.refusals += 1
            self._wait(one, str(error))
        except Conflicting as error:  # the configuration is another than when it was asked for
            one.given_up = True
            self._say(str(error))

    def _wait(self, one: Open, why: str) -> None:
        self._say(why)
        one.waits = why
        self._pause = min(max(2 * self._pause, FIRST_WAIT), LONGEST_WAIT)
        one.next_try = self.steady() + self._pause

    def _ended_early(self, task: Seen) -> None:
        """A task ended before it took its job: the next ones would, too, if it is for what they have in common."""
        self._pause = min(max(2 * self._pause, FIRST_WAIT), LONGEST_WAIT)
        self._not_before = self.steady() + self._pause
        self._say(f"A task was {task.told} before it took its job")

    def _run(self, definition: str, command: Sequence[str], fence: int, name: str, *, spot: bool) -> str:
        started_by = _UNWELCOME.sub("-", f"{self.installation}/{fence}")[:128]
        token = hashlib.sha256(f"{self.installation} {name}".encode()).hexdigest()
        network = self.config.network
        return self.tasks.run(Wanted(definition, self.config.container, command, started_by, token, spot, network))

    def _ask_for_facts(self) -> None:
        """Start a task that publishes them, unless one is at it. Without one nothing is begun, so nothing else needs its place."""
        was, now = self._describing, self.steady()
        if was.arn:
            task = self.tasks.look(was.arn)
            if not task.ended and now - was.at < LONGEST_DESCRIBE:
                return
            if task.ended:
                self.tasks.forget(was.arn)
                self._trouble = f"The task that should publish it was {task.told}."
        if was.number and now - was.at < FIRST_WAIT * 2 ** min(was.number, 6):
            return
        started = f"{self._led}/{self.now():%Y%m%dT%H%M%S}/{was.number}"
        self._describing = Described("", now, was.number + 1)
        try:
            self._describing.arn = self._run(self.config.tasks.plan, [], self._led, f"describe/{started}", spot=False)
        except (Throttled, NotStarted, Conflicting) as error:
            self._say(str(error))
            self._trouble = f"{error}."

    def _say(self, what: str) -> None:
        if what != self._trouble:
            _LOG.warning("%s", what)
        self._trouble = what


def open_fargate(config: Config, installation: str) -> FargateExecutor:
    """The executor; nothing is asked yet. Raises PassError, ConfigError: no region is known, or no such spool."""
    spool = Asking(open_bucket(config.spool, config.region, config.endpoint))
    return FargateExecutor(
        config, installation, spool, Tasks(open_client("ecs", config.region, config.endpoint), config.cluster)
    )
