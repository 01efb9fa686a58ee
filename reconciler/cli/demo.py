"""`reconciler demo`: everything at work in a folder."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from reconciler.cli.exits import ERROR, FINE
from reconciler.cli.show import WORDS, console, plain
from reconciler.errors import ConfigError, ReconcilerError

if TYPE_CHECKING:
    from reconciler.demo.planes import Planes, Row
    from reconciler.demo.playground import Playground

ROUTINE = ("DependencyNotReady", "RunnerUnavailable")  # of a start, and over in seconds

GUIDE = """
Everything is deployed, and both planes run. In another terminal:

  cd {clone}

  # 1. Change something: edit, branch, push, merge, watch
  git switch -c more-web
  perl -pi -e 's/replicas: 1/replicas: 2/' environments/dev/service-web.yaml
  git commit -am 'Two replicas of web in dev' && git push origin more-web
  ../merge more-web
  ../reconciler status dev
  cat ../world/eu-west-1/dev/services/web-dev-a/service.json

  # 2. Change production by hand, and see it put back
  echo hacked > ../world/eu-west-1/prod/networks/main/network.json
  ../reconciler reconcile prod/network      # or wait for drift_interval, an hour in prod
  ../reconciler history prod/network

  # 3. Pause prod, merge, look at what waits, resume
  ../reconciler pause prod --reason 'the auditors are here' --until 1h
  git fetch && git switch -c more-prod origin/main
  perl -pi -e 's/replicas: 2/replicas: 3/' environments/prod/service-web.yaml
  git commit -am 'Three replicas of web in prod' && git push origin more-prod
  ../merge more-prod
  ../reconciler diff prod/service-web
  ../reconciler resume prod

  # 4. Try what must not work: a push past the review
  git fetch && git switch main && git merge -q --ff-only origin/main
  git commit --allow-empty -m 'No review' && git push

Page {address}/    both planes' log {log}
Ctrl-C ends everything{after}.
"""

WRAPPER = """\
#!/bin/sh
# The command line, told where this demo's daemon is.
export RECONCILER_SERVER={server} RECONCILER_ADMIN_SOCKET={socket}
exec {python} -m reconciler "$@"
"""


@click.command("demo")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), help="Where; kept afterwards.  [default: a temporary folder]"
)
@click.option("--check", is_flag=True, help="Play the whole story without a person, and exit by its result.")
@click.option("--keep", is_flag=True, help="Keep the temporary folder afterwards.")
@click.option("--record", type=click.Path(path_type=Path), help="Write what was shown as an SVG.", hidden=True)
def command(folder: Path | None, check: bool, keep: bool, record: Path | None) -> int:
    """Try everything in a folder: no accounts, no network.

    Makes a catalog, a protected repository of environments and a working clone; starts the controller and the runner; deploys
    five environments of small files; and says what to type next. Ctrl-C ends everything.
    """
    from reconciler.demo.playground import Playground

    _check_needs()
    out = Console(record=True, width=110, highlight=False) if record else console()
    place = folder.absolute() if folder else Path(tempfile.mkdtemp(prefix="reconciler-demo-"))
    stays = keep or folder is not None
    with _ctrl_c():
        code = _play(place, out, f"; {place} stays" if stays else " and removes the folder", check=check)
    if code != ERROR and not stays:  # a failure leaves its logs to be read
        Playground.at(place).destroy()
    if record:
        record.write_text(_svg(out), encoding="utf-8")
    return code


def _check_needs() -> None:
    """Raises ConfigError where the extra is not installed: what the small provider of the demo is made of."""
    if missing := [name for name in ("tf", "cryptography") if find_spec(name) is None]:
        raise ConfigError(f"the demo needs {' and '.join(missing)}: pip install 'gitops-reconciler[demo]'")


def _play(place: Path, out: Console, after: str, *, check: bool) -> int:
    """Build, start, show, end. Whatever happens, no process is left."""
    from reconciler.demo.planes import Planes
    from reconciler.demo.playground import Playground

    began = time.monotonic()
    out.print(f"Building a playground in {place}: repositories, a catalog, a cloud of files ...")
    playground = Playground.create(place)
    planes = Planes(playground)
    write_wrapper(playground, planes)
    try:
        planes.start()
        out.print(
            f"Both planes run after {time.monotonic() - began:.1f} s: the controller, and the runner that holds the credentials."
        )
        return _check(planes, out) if check else _stay(planes, out, after)
    except ConfigError as error:
        _explain(planes, out, error)
        return ERROR
    except KeyboardInterrupt:
        return 130 if check else FINE
    finally:
        out.print("Ending both planes; a job that runs is let to its end ...")
        _deaf()
        planes.stop()
        playground.close()


def _check(planes: Planes, out: Console) -> int:
    from reconciler.demo.story import Story

    began = time.monotonic()
    for name, step in Story(planes).steps():
        start = time.monotonic()
        try:
            told = step()
        except ReconcilerError as error:
            out.print(Text.assemble(("✗ ", "red"), f"{time.monotonic() - start:5.1f} s  ", (name, "bold")))
            _explain(planes, out, error)
            return ERROR
        out.print(Text.assemble(("✓ ", "green"), f"{time.monotonic() - start:5.1f} s  ", (name, "bold")))
        for text in told.splitlines():
            out.print(Padding(Text(plain(text), style="dim"), (0, 0, 0, 11), expand=False))
    out.print(f"The whole story took {time.monotonic() - began:.0f} s.")
    return FINE


def _stay(planes: Planes, out: Console, after: str) -> int:
    """Show what happens, until Ctrl-C; the guide once everything is deployed."""
    place, guided, seen = planes.playground, False, 0
    while True:
        for event in planes.events(seen):
            seen = event["seq"]
            if told := _told(event):
                out.print(told)
        units = planes.units()
        if not guided and units and all(row["sync"] == "Synced" for row in units.values()):
            guided = True
            out.print(
                GUIDE.format(clone=place.clone, address=place.address, log=planes.log, after=after),
                soft_wrap=True,
                markup=False,
            )
        planes.until(partial(_news, planes, seen), "something new happens", float("inf"))


def _news(planes: Planes, seen: int) -> bool:
    return planes.mark() > seen


def _told(event: Row) -> Text | None:
    """What people want to know of an event as it happens."""
    at, unit, body = event["at"][11:19], event["unit"] or "", event["body"]
    match event["action"]:
        case "head-accepted":
            return Text.assemble(f"{at}  ", ("main", "bold"), f" is {body['commit'][:12]}")
        case "job-ended":
            result = body["result"]
            style = {"Succeeded": WORDS["Synced"], "Failed": WORDS["Degraded"]}.get(
                result["outcome"], WORDS["OutOfSync"]
            )
            words = f" {plain(result['message'])}"
            return Text.assemble(f"{at}  {unit:<18} ", (result["reason"], style), words)
        case "hold-changed" if body["hold"] and body["hold"]["reason"] not in ROUTINE:
            hold = body["hold"]
            return Text.assemble(
                f"{at}  {unit:<18} held: ", (hold["reason"], WORDS["OutOfSync"]), f" {plain(hold['message'])}"
            )
        case "paused" | "resumed":
            return Text(f"{at}  {event['action']} by {event['actor']}")
    return None


def _explain(planes: Planes, out: Console, error: ReconcilerError) -> None:
    out.print(Text(f"\n{plain(error)}\n", style="red"))
    out.print(Text(planes.tail()), soft_wrap=True)
    out.print(Text(f"\nThe whole log is {planes.log}; the folder stays until you remove it."), soft_wrap=True)


def write_wrapper(playground: Playground, planes: Planes) -> None:
    """`reconciler` in the playground's folder: the command line, told where the daemon is."""
    import shlex
    import sys

    server, socket = planes.environment["RECONCILER_SERVER"], planes.environment["RECONCILER_ADMIN_SOCKET"]
    script = playground.folder / "reconciler"
    text = WRAPPER.format(server=shlex.quote(server), socket=shlex.quote(socket), python=shlex.quote(sys.executable))
    script.write_text(text, encoding="utf-8")
    script.chmod(0o755)


@contextmanager
def _ctrl_c() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: in order."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    ours = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, ours)


def _deaf() -> None:
    """The end has begun: asking again must not leave processes behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _svg(out: Console) -> str:
    """The record as a picture that loads nothing from anywhere."""
    import re

    return re.sub(r"@font-face \{.*?\}\s*", "", out.export_svg(title="reconciler demo --check"), flags=re.DOTALL)
