"""`reconciler runner`: the plane that holds the credentials."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler import codec, wire
from reconciler.cli import exits
from reconciler.cli.who import actor
from reconciler.config import RunnerConfig, load_runner
from reconciler.desired.paths import entry_path, unit_of
from reconciler.model import Commit, Operation, UnitId
from reconciler.systemd import listening

if TYPE_CHECKING:
    from reconciler.runner.memory import Memory

COMMIT = re.compile(r"[0-9a-f]{40}")
LONGEST_REASON = 500  # characters
DEFAULT_CONFIG = "/etc/reconciler/runner.yaml"
CONFIG = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), default=DEFAULT_CONFIG, show_default=True
)


@click.group("runner")
def command() -> None:
    """The isolated plane: two verbs, plan and apply, on what its own configuration allows."""


@command.command()
@CONFIG
def serve(config_path: Path) -> None:
    """Listen for jobs until SIGTERM; running applies end first."""
    from reconciler.runner.host import Host  # the controller's commands never load the runner's code
    from reconciler.runner.service import Service

    systemd = listening()
    config = load_runner(config_path)
    host = Host(config)
    host.warm()
    service = Service(host, systemd)
    service.serve(lambda: click.echo(f"runner: listening on {config.socket_path}", err=True))


def _once(_context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> str | None:
    """Who starts a task may add words behind those of its definition: none of these may be said again."""
    if len(given) > 1:
        raise click.BadParameter("it is said twice", param=option)
    return given[0] if given else None


@command.command()
@click.option("--config", "config_path", multiple=True, callback=_once, help=f"{DEFAULT_CONFIG}, if not given.")
@click.option(
    "--spool", multiple=True, callback=_once, help="s3://BUCKET/PREFIX; runner.yaml's task.spool, if not given."
)
@click.option(
    "--job", multiple=True, callback=_once, help="The job that this task is for; without it, describe the host and end."
)
def task(config_path: str | None, spool: str | None, job: str | None) -> None:
    """Carry out one job, in a task of ECS, with the spool in S3. This is what its container starts.

    Of its variables only those count that ECS sets, and those that runner.yaml names.
    """
    import os

    from reconciler.runner.container import arn_of_task, trusted  # late, see `serve`

    config = load_runner(Path(config_path or DEFAULT_CONFIG))
    said = config.task
    url = spool or said.spool
    if url is None or (said.spool is not None and url.rstrip("/") != said.spool.rstrip("/")):
        raise click.UsageError(
            "say where jobs are asked for, as runner.yaml does if it does: --spool s3://BUCKET/PREFIX"
        )
    for name in os.environ.keys() - trusted(os.environ, config).keys():
        del os.environ[name]
    from reconciler.remote.bucket import open_bucket  # after that: the SDK reads its variables
    from reconciler.remote.spool import Answering
    from reconciler.runner.host import Host
    from reconciler.runner.task import Task
    from reconciler.runner.tasklife import TaskLife
    from reconciler.runner.unitlock import Here

    arn = arn_of_task(os.environ)
    worker = Task(
        Host(config, Here(arn, (TaskLife(arn, said.ecs_endpoint),))),
        lambda: Answering(open_bucket(url, said.region, said.endpoint)),
        arn,
        said.serve_until_idle,
    )
    if job is None:
        worker.describe()
    else:
        worker.serve(job)


@command.command()
@CONFIG
@click.argument("entry", required=False)
@click.option("--operation", type=click.Choice(["plan", "apply"]), default="apply", show_default=True, help="Of ENTRY.")
@click.option("--pulls", is_flag=True, help="ENTRY as an open pull request has it, not as it was merged.")
@click.option("--module", help="The module that ENTRY has: <catalog>/<module>.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def describe(config_path: Path, entry: str | None, operation: str, pulls: bool, module: str | None, output: str) -> int:
    """What this runner may do, for whom, and with which engine.

    With ENTRY (a unit, or the path of its file): whether the allow-list has it, and if not, why; exit 0 or 3. Needs no
    running runner.
    """
    if entry is not None:
        return _answer(config_path, entry, Operation(operation), pulls, module, output)
    about = wire.ask(load_runner(config_path).socket_path, {"verb": "describe"})["about"]
    if output == "json":
        click.echo(json.dumps(about, indent=2, sort_keys=True))
        return exits.FINE
    assert isinstance(about, dict)  # noqa: S101 - the runner's own answer
    for line in _lines(about):
        click.echo(line)
    return exits.FINE


def _answer(config_path: Path, entry: str, operation: Operation, pulls: bool, module: str | None, output: str) -> int:
    from reconciler.runner.allow import Wish, allowed, rule_of, why_not  # late, see `serve`

    rules = [rule_of(line) for line in load_runner(config_path).rules]
    path = entry if unit_of(entry) is not None else entry_path(UnitId(entry))
    if unit_of(path) is None:
        raise click.UsageError(
            f"{entry} is no unit and no file of one: write prod/network, or environments/prod/network.yaml"
        )
    wish = Wish(operation, path, module, pulls)
    fine = allowed(rules, wish)
    message = f"{wish} is allowed." if fine else why_not(rules, wish)
    click.echo(json.dumps({"allowed": fine, "message": message}) if output == "json" else message)
    return exits.FINE if fine else exits.TROUBLE


@command.command()
@CONFIG
@click.option("--reason", required=True, help="Why; shown wherever a job is held.")
def pause(config_path: Path, reason: str) -> None:
    """Stop every apply on this host. Works with the daemon dead: it is a file of the runner's memory."""
    config = load_runner(config_path)
    _memory(config).pause(reason)
    _record(config, "paused", reason=reason)
    click.echo("Every apply is held from now on; one that has begun ends. `reconciler runner resume` ends the pause.")


@command.command()
@CONFIG
def resume(config_path: Path) -> None:
    """End the runner's own pause."""
    config = load_runner(config_path)
    _memory(config).resume()
    _record(config, "resumed")
    click.echo("Applies go on.")


@command.command("accept-history")
@click.argument("old")
@click.argument("new")
@CONFIG
@click.option("--reason", required=True, help="Why, in one line: it is remembered with your name.")
def accept_history(old: str, new: str, config_path: Path, reason: str) -> None:
    """Go on from NEW after the protected branch was rewritten; OLD is the head that this runner accepted before.

    Both are whole commits of 40 hex digits; `reconciler runner describe` names OLD and what froze it. Every commit that NEW has and
    OLD has not is proven first; allowances that are open are void. Works with the daemon dead. A runner that remembers nothing
    starts from the configured genesis: name that as OLD.
    """
    from reconciler.branch.protected import open_branch  # late, see `serve`
    from reconciler.runner.history import History
    from reconciler.runner.memory import Anew
    from reconciler.runner.opening import open_recorder

    if not (COMMIT.fullmatch(old) and COMMIT.fullmatch(new)):
        raise click.UsageError("OLD and NEW are whole commits, 40 lower-case hex digits each")
    reason = _one_line(reason)
    config = load_runner(config_path)
    memory = _memory(config)
    history = History(memory, lambda accepted: open_branch(config, accepted, beside=memory.cabinet))
    said = Anew(Commit(old), Commit(new), reason, actor(), datetime.now(UTC))
    recorder = open_recorder(config, memory)
    found = history.accept_history(
        said,
        lambda found: recorder.event(
            "history-accepted", old=old, new=new, reason=said.reason, actor=said.actor, proven=len(found.chain)
        ),
    )
    click.echo(
        f"{new} is accepted in place of {old}; {len(found.chain)} commits were proven for it, and {len(found.abandoned)} are "
        "abandoned. Open allowances are void."
    )


def _one_line(reason: str) -> str:
    if not reason.strip() or not reason.isprintable() or len(reason) > LONGEST_REASON:
        raise click.UsageError("say why, in one line of at most 500 characters: --reason")
    return reason.strip()


@command.command()
@click.argument("environment")
@CONFIG
@click.option("--reason", required=True, help="Why, in one line: it is recorded with your name.")
def claim(environment: str, config_path: Path, reason: str) -> None:
    """Make the states of ENVIRONMENT this runner's, after its memory was lost for good (MemoryLost).

    Only where no other runner applies there any more. What was applied before is planned afresh, with every limit in force.
    """
    from reconciler.runner import claims  # late, see `serve`
    from reconciler.runner.host import Host

    host = Host(load_runner(config_path))
    host.record.event("states-claimed", environment=environment, reason=_one_line(reason), actor=actor())
    taken = claims.claim(host, environment)
    for unit in taken:
        click.echo(unit)
    click.echo(f"The states of {environment} are this runner's; {len(taken)} were new to it.", err=True)


@command.command()
@click.argument("unit")
@CONFIG
@click.option("--reason", required=True, help="What you found and did, in one line: it is recorded with your name.")
def settle(unit: str, config_path: Path, reason: str) -> None:
    """Say that all which a dead apply of UNIT may have made (`Uncertain`) is as it shall be: what is there was looked for.

    The unit is planned afresh; nothing that exists is taken into its state by this.
    """
    from reconciler.runner.settling import settle as end  # late, see `serve`

    config, reason = load_runner(config_path), _one_line(reason)
    ended = end(_memory(config), UnitId(unit))
    names = ", ".join(one.address for one in ended.suspects)
    _record(config, "settled", unit=unit, reason=reason, suspects=names)
    click.echo(f"{unit} goes on; {len(ended.suspects)} objects were suspected: {names or 'none'}.")


@command.command()
@click.argument("environment", required=False)
@CONFIG
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def orphans(environment: str | None, config_path: Path, output: str) -> int:
    """Look into the AWS account of ENVIRONMENT, or of each, for objects with this installation's tags that no state has.

    With the credentials for plans; changes nothing. Exit 3 when there are any.
    """
    from reconciler.runner import uncertain  # late, see `serve`
    from reconciler.runner.host import Host

    host = Host(load_runner(config_path))
    names = [environment] if environment else sorted(host.config.environments)
    found = [stray for name in names for stray in uncertain.orphans(host, name)]
    if output == "json":
        click.echo(codec.encode(found).decode())
    for stray in found if output == "text" else ():
        click.echo(f"{stray.id} (of {stray.address}): {stray.remedy}")
    return exits.TROUBLE if found else exits.FINE


def _memory(config: RunnerConfig) -> Memory:
    from reconciler.runner.opening import open_memory  # late, see `serve`

    return open_memory(config)


def _record(config: RunnerConfig, kind: str, **said: str) -> None:
    """Into the audit log, with who asked. What was asked for is in force already, and stays so if this fails."""
    from reconciler.runner.opening import open_recorder  # late, see `serve`

    open_recorder(config, _memory(config)).event(kind, actor=actor(), **said)


def _lines(about: dict[str, object]) -> list[str]:
    """The answer for people: what is allowed first."""
    repository, engine = about["repository"], about["engine"]
    assert isinstance(repository, dict)  # noqa: S101 - as `Host.about` makes it
    assert isinstance(engine, dict)  # noqa: S101
    head = about["accepted_head"] or "none yet"
    lines = [
        f"Runs merged commits of {repository['url']}, branch {repository['branch']} (accepted head {head}).",
        f"Engine {engine['kind']} {engine['version']}; sandbox tier {about['sandbox_tier']}.",
    ]
    if about["sandbox_tier"] == "none":
        lines.append(
            "NO SANDBOX: modules and providers run with all that this user may do; see `sandbox` in runner.yaml."
        )
    lines += _trust_lines(about["trust"])
    if about["paused"] is not None:
        lines.append(f"PAUSED: {about['paused']}")
    rules, environments = about["allow"], about["environments"]
    assert isinstance(rules, list)  # noqa: S101
    assert isinstance(environments, dict)  # noqa: S101
    lines += ["Allowed:"] + [_rule_line(rule) for rule in rules]
    lines += ["Environments:"] + [
        f"  {name}: {one['class']}, state {one['backend']}" for name, one in environments.items()
    ]
    exceptions = about["exceptions"]
    assert isinstance(exceptions, list)  # noqa: S101
    if exceptions:
        lines += ["Exceptions from the audit:"] + [f"  {_exception(one)}" for one in exceptions]
    return lines


def _rule_line(rule: dict[str, Any]) -> str:
    of_pulls = " of pull requests" if rule["refs"] == "pulls" else ""
    modules = "" if rule["modules"] == ["**"] else f"; modules {', '.join(rule['modules'])}"
    return f"  {' and '.join(rule['operations'])}{of_pulls}: {', '.join(rule['folders'])}{modules}"


def _trust_lines(trust: object) -> list[str]:
    """What is frozen, and what of the branch is not accepted."""
    assert isinstance(trust, dict)  # noqa: S101 - as `Host.about` makes it
    lines = [f"Trust starts at {trust['base'] or 'the genesis'}; last verified {trust['verified_at'] or 'never'}."]
    if (frozen := trust["frozen"]) is not None:
        lines.append(f"FROZEN since {frozen['since']}: {frozen['reason']}: {frozen['message']}")
    if (found := trust["unproven"]) is not None:
        lines.append(f"NOT ACCEPTED: {found['commit']} and what follows it: {found['reason']}: {found['message']}")
    return lines


def _exception(one: dict[str, str]) -> str:
    where = f" in {one['path']}" if "path" in one else ""
    return f"{one['module']}: {one['rule']}{where}: {one['reason']}"
