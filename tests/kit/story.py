"""What a story asks of a house again and again: who worked, what was made, and please look now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reconciler import wire
from reconciler.cli.ask import tell
from reconciler.demo import playground
from reconciler.executor.local import LocalExecutor
from reconciler.model import Commit, Job, JobId, Operation, Result, UnitId
from tests.kit.house import House, Json
from tests.provider.log import Call, calls


def env(name: str) -> str:
    """The path of an environment's file."""
    return f"environments/{name}/environment.yaml"


def at(unit: str) -> str:
    """The path of a unit's file."""
    return f"environments/{unit}.yaml"


def results(house: House, scope: str) -> list[Json]:
    """The results of the ended jobs of a unit or an environment, oldest first."""
    events = house.get(f"/api/v1/history?scope={scope}&limit=1000")["events"]
    return [e["body"]["result"] for e in reversed(events) if e["action"] == "job-ended"]


def did(house: House, scope: str) -> list[tuple[str, str]]:
    """What those jobs were asked, and how they ended."""
    return [(one["job"]["operation"], one["reason"]) for one in results(house, scope)]


def judged(house: House, unit: str, commit: str) -> None:
    """Wait until a job of the unit at the commit has ended. Two merges in one poll are one change, to the controller."""
    house.until(
        lambda: any(one["job"]["commit"] == commit for one in results(house, unit)), f"{unit} is judged at {commit}"
    )


def started(house: House, scope: str) -> list[str]:
    """The units whose jobs were started, oldest first."""
    events = house.get(f"/api/v1/history?scope={scope}&limit=1000")["events"]
    return [e["unit"] for e in reversed(events) if e["action"] == "job-dispatched"]


def actions(result: Json) -> list[tuple[str, str]]:
    """What a plan would do: the object's name in the module, and the actions."""
    changes = (result["plan"] or {"changes": []})["changes"]
    return [(c["address"].removeprefix("module.unit."), "/".join(c["actions"])) for c in changes]


def made(house: House, op: str, outcome: str) -> list[str]:
    """The objects of the provider's calls with this outcome, oldest first."""
    return [call.path for call in calls(house.ground.world, op=op, outcome=outcome)]


def seen(house: House, path: str, op: str) -> list[Call]:
    """The provider's calls about one object."""
    return [call for call in calls(house.ground.world, op=op) if call.path == path]


def ask(house: House, action: str, scope: str, **more: str) -> Any:
    """Ask the daemon's admin socket."""
    return tell(house.ground.runtime / "admin.sock", action, scope, **more)


def look(house: House, unit: str) -> Json:
    """Have a unit looked at now, and wait for the end of the job that does; its result."""
    before = len(results(house, unit))
    ask(house, "reconcile", unit)
    return next_result(house, unit, before)


def next_result(house: House, unit: str, before: int) -> Json:
    """The unit's next result after the first `before` ones."""
    found: Json = house.until(
        lambda: (all_ := results(house, unit)) and len(all_) > before and all_[before], f"a job of {unit} ends"
    )
    return found


def settled(house: House, commit: str | None = None) -> None:
    """Wait until nothing runs and nothing is queued at the commit, or at the newest one."""
    wanted = commit or house.ground.environments.head

    def quiet() -> bool:
        status = house.get("/api/v1/status")
        idle = not status["running"] and not status["queued"]
        return bool(status["resolved"] == wanted and idle)

    house.until(quiet, f"all is quiet at {wanted[:12]}")


def runner_does(house: House, unit: str, commit: str, operation: str = "apply", **more: Any) -> Result:
    """Ask the runner itself, past the controller, and wait for the result."""
    executor = LocalExecutor(house.ground.runtime / "runner.sock")
    name = more.pop("id", None) or f"direct-{len(list((house.ground.folder / 'runner' / 'spool').iterdir()))}"
    job = Job(JobId(name), Operation(operation), UnitId(unit), Commit(commit), more.pop("fence", 1))
    executor.start(job)

    def ended() -> Result | None:
        state = executor.poll(job.id)
        return state if isinstance(state, Result) else None

    found: Result = house.until(ended, f"{job.id} ends")
    return found


def raw(house: House, request: wire.Message) -> wire.Message:
    """Say anything to the runner's socket."""
    return wire.ask(house.ground.runtime / "runner.sock", request)


def phase(house: House, unit: str, wanted: str) -> None:
    """Wait until the unit's running job is in the phase."""
    executor = LocalExecutor(house.ground.runtime / "runner.sock")

    def there() -> bool:
        job = house.unit(unit)["job"]
        state = executor.poll(JobId(job["id"])) if job else None
        return getattr(state, "phase", None) == wanted

    house.until(there, f"the job of {unit} is {wanted}")


def gate(folder: Path) -> dict[str, str]:
    """What makes providers start only while no file `closed` is there: a plan can be held in the middle."""
    script = folder / "python"
    wait = f'while [ -e "{folder}/closed" ]; do sleep 0.05; done'
    script.write_text(f'#!/bin/sh\n{wait}\nexec "{playground.INTERPRETER}" "$@"\n')
    script.chmod(0o755)
    return {"FILES_PYTHON": str(script)}
