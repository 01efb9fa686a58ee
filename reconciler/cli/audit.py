"""`reconciler audit`: whether the runner's audit log is what was written, and what it says of a unit. Needs no daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.ask import output_option
from reconciler.cli.exits import DIFFERENCE, ERROR, FINE
from reconciler.cli.show import as_json_text, line, progress, short, table, when
from reconciler.config import load_controller, load_runner
from reconciler.errors import ConfigError, PassError

if TYPE_CHECKING:
    from reconciler.runner.audit.anchor import Anchor, Heads
    from reconciler.runner.audit.chain import Record
    from reconciler.runner.audit.objects import ObjectLog
    from reconciler.runner.audit.verify import Segment, Verdict

DEFAULT_CONFIG = "/etc/reconciler/runner.yaml"
_PATH = click.Path(path_type=Path, exists=True)
_config = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), default=DEFAULT_CONFIG, show_default=True
)
_file = click.option("--file", "file", type=_PATH, help="The log itself: its folder, or one file of it.")


@click.group("audit")
def command() -> None:
    """The runner's audit log: which commit, and whose approval, made which serial of which state."""


@command.command()
@_config
@_file
@click.option("--anchor", help="A file, or s3://bucket/prefix; the configured one, if not given.")
@click.option(
    "--store",
    type=_PATH,
    help="A controller's store, or the reconciler.yaml that names it: check its journal's chain instead.",
)
@output_option
def verify(config_path: Path, file: Path | None, anchor: str | None, store: Path | None, as_json: bool) -> int:
    """Recompute the chain, and compare it with every head that the anchor has.

    Offline: reads the log and the anchor, and asks no daemon. Exit 0: it fits; 2: it does not, and the first record that does
    not is named; 1: it could not be checked.
    """
    if store is not None:
        return _verify_store(store, as_json)
    from reconciler.runner.audit.verify import verify as compare

    log, heads = _log(config_path, file), _heads(config_path, file, anchor)
    verdict = compare(_segments(log), heads.heads if heads else (), _least(log))
    _tell(_place(log), verdict, heads, as_json)
    return DIFFERENCE if verdict.wrong else FINE


@command.command()
@click.argument("unit", required=False)
@click.option("--serial", type=click.IntRange(min=0), help="Only the record that made this serial.")
@_config
@_file
@output_option
def show(unit: str | None, serial: int | None, config_path: Path, file: Path | None, as_json: bool) -> int:
    """Which commit, pull request and approvals made the serials of UNIT's state, also before it had this name; of all, if no unit
    is named.
    """
    found = [one for one in _about(list(_records(_log(config_path, file))), unit) if _made(one.body, serial)]
    if as_json:
        as_json_text([{"seq": one.seq, "at": one.at, **one.body} for one in found])
    elif found:
        headings = ("SEQ", "AT", "UNIT", "SERIAL", "HOW", "COMMIT", "PULL", "APPROVED BY", "SIGNED BY", "MODULE")
        table(headings, [_row(one) for one in found])
    else:
        progress("The audit log has no such record.")
    return FINE if found else ERROR


def _log(config_path: Path, file: Path | None) -> Path | ObjectLog:
    """The named log, or that of the runner's memory."""
    if file is not None:
        return file
    from reconciler.runner.audit.objects import ObjectLog
    from reconciler.runner.opening import cabinet_in

    config = load_runner(config_path)
    cabinet = cabinet_in(config)
    return config.memory_path / "audit" if cabinet is None else ObjectLog(cabinet.within("audit"))


def _segments(log: Path | ObjectLog) -> Iterator[Segment]:
    from reconciler.runner.audit.verify import segments_of

    return segments_of(log) if isinstance(log, Path) else log.segments()


def _place(log: Path | ObjectLog) -> str:
    return str(log) if isinstance(log, Path) else log.cabinet.place


def _least(log: Path | ObjectLog) -> int:
    """How many records the runner itself says that there are."""
    from reconciler.runner.audit.log import AuditLog

    if not isinstance(log, Path):
        return log.mark().count
    return AuditLog(log).mark().count if (log / "head.json").exists() else 0


def _heads(config_path: Path, file: Path | None, named: str | None) -> Heads | None:
    """What the anchor has; None: there is none. A log that is named is compared with the anchor that is named."""
    from reconciler.runner.audit.anchor import FileAnchor

    if named is not None and not named.startswith("s3://"):
        return FileAnchor(Path(named)).heads()
    found = _anchor(None if file is not None and not config_path.exists() else config_path, named)
    return found.heads() if found is not None else None


def _anchor(config_path: Path | None, named: str | None) -> Anchor | None:
    """The configured anchor, or a named bucket, with the configured credentials where it is the configured one."""
    from reconciler.runner.anchoring import open_anchor
    from reconciler.runner.audit.s3 import S3Anchor

    if named is None:
        host = load_runner(config_path) if config_path is not None else None
        return open_anchor(host.audit.anchor, host.installation) if host and host.audit else None
    bucket, _, prefix = named.removeprefix("s3://").partition("/")
    host = load_runner(config_path) if config_path is not None and config_path.exists() else None
    known = host.audit.anchor if host and host.audit else None
    if host is not None and known is not None and known.s3 is not None and known.s3.bucket == bucket:
        there = known.model_copy(update={"s3": known.s3.model_copy(update={"prefix": prefix})})
        return open_anchor(there, host.installation)
    return S3Anchor(bucket, prefix)


def _tell(log: str, verdict: Verdict, heads: Heads | None, as_json: bool) -> None:
    unreadable = heads.unreadable if heads else ()
    if as_json:
        wrong = verdict.wrong and {
            "seq": verdict.wrong.seq,
            "place": verdict.wrong.place,
            "message": str(verdict.wrong),
        }
        said = {
            "records": verdict.head.count,
            "hash": verdict.head.hash,
            "anchored": verdict.anchored if heads else None,
        }
        more = {"beyond": verdict.beyond, "torn": verdict.torn, "unreadable": list(unreadable), "wrong": wrong}
        as_json_text({"log": log, "fits": verdict.wrong is None, **said, **more})
        return
    line("Log", log, f"{verdict.head.count} records fit")
    anchored = f"{verdict.anchored} records are vouched for, {verdict.beyond} are beyond it"
    line("Anchor", anchored if heads else "none: a tail that was rewritten as a whole would not show")
    if verdict.torn:
        line("Torn", f"the last line is not whole ({verdict.torn} bytes): a crash, or a writer at work")
    for place in unreadable:
        line("Unreadable", place, "is no head")
    if verdict.wrong:
        line("DOES NOT FIT", verdict.wrong)


def _verify_store(store: Path, as_json: bool) -> int:
    try:
        count, wrong = _journal(store), None
    except PassError as error:
        if error.reason != "AuditBroken":
            raise
        count, wrong = None, str(error)
    if as_json:
        as_json_text(
            {"store": str(store), "fits": wrong is None, "records": count, "wrong": wrong and {"message": wrong}}
        )
    elif wrong:
        line("DOES NOT FIT", wrong)
    else:
        line("Journal", store, f"{count} records fit")
    return DIFFERENCE if wrong else FINE


def _journal(store: Path) -> int:
    """How many records the journal has, once they fit. A daemon may be at work on it."""
    from reconciler.controller.daemon import SystemClock
    from reconciler.store.opening import open_table
    from reconciler.store.sqlite import verify_file

    if store.suffix not in {".yaml", ".yml"}:
        return verify_file(store)
    config = load_controller(store)
    if config.store.dynamodb is None:
        return verify_file(config.store_path)
    with closing(open_table(config.store.dynamodb, SystemClock(), config.lease_seconds)) as table:
        return table.verify()


def _records(log: Path | ObjectLog) -> Iterator[Record]:
    """Every record of a state. Raises ConfigError where a line is none."""
    from reconciler.runner.audit.chain import ChainError, read

    for name, data in _segments(log):
        for number, text in enumerate(data.split(b"\n")[:-1], 1):
            try:
                record = read(text)
            except ChainError as error:
                raise ConfigError(f"{_place(log)}/{name}:{number}: {error}; run `reconciler audit verify`") from error
            if record.kind == "state":
                yield record


def _about(records: list[Record], unit: str | None) -> list[Record]:
    """The records of the unit, and of the state that it has before that had its name."""
    names, found = {unit}, []
    for record in reversed(records):
        if unit is None or record.body["unit"] in names:
            found.append(record)
            names.add(record.body["moved_from"])
        elif record.body["moved_from"] == unit:
            found.append(record)
    return found[::-1]


def _made(body: dict[str, Any], serial: int | None) -> bool:
    if serial is None:
        return True
    before, after = ((body[side] or {"serial": -1})["serial"] for side in ("before", "after"))
    return bool(before < serial <= after)


def _row(record: Record) -> list[object]:
    body, origin = record.body, record.body["origin"] or {}
    who = origin.get("change") or origin.get("commit") or {}
    before, after = ((body[side] or {"serial": "-"})["serial"] for side in ("before", "after"))
    module = f"{origin['module']} {origin['version']}" if origin else ""
    return [
        record.seq,
        when(record.at),
        body["unit"],
        f"{before} -> {after}",
        body["change"],
        short(who.get("commit")),
        f"#{who['pull']}" if who.get("pull") is not None else "",
        ", ".join(who.get("approvers") or ()),
        who.get("signer") or "",
        module,
    ]
