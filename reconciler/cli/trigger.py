"""`reconciler reconcile --server URL`: what a pipeline runs. It wakes, shows what happens as if it ran here, and exits by it."""

from __future__ import annotations

import json
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx

from reconciler.cli.ask import PATIENCE, Answer, Silent
from reconciler.cli.exits import ERROR, FINE, TIMEOUT, TROUBLE
from reconciler.cli.identity import Bearer
from reconciler.cli.show import as_json_text, plain, printable, progress, table
from reconciler.errors import ReconcilerError

EXITS = {"Fine": FINE, "Troubled": TROUBLE, "Unknown": ERROR}
SILENCE = 60.0  # seconds; the server says something every 15
AWAY = 120.0  # seconds for which a server that answered once may be away
_AGAIN = 2.0  # seconds between two attempts
_LONGEST = 1024 * 1024  # characters of a line


class AwayError(Exception):
    """The server does not answer just now, or is too busy."""


class LostError(Exception):
    """The server has forgotten the id: it was started anew."""


def connection(server: str, bearer: Bearer, ca_file: Path | None, cert: Path | None, key: Path | None) -> Trigger:
    """The trigger there, not spoken to yet. Raises ReconcilerError where a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        if cert is not None:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ReconcilerError("FileInvalid", f"--ca-file, --cert or --key cannot be used: {error}") from error
    return Trigger(server.rstrip("/"), bearer, context)


class Trigger:
    """The daemon's trigger."""

    def __init__(self, server: str, bearer: Bearer, context: ssl.SSLContext) -> None:
        self._server, self._bearer = server, bearer
        timeout = httpx.Timeout(PATIENCE, read=SILENCE)
        self._client = httpx.Client(verify=context, timeout=timeout, trust_env=False, follow_redirects=False)

    def __enter__(self) -> Trigger:  # noqa: PYI034 - the class is final in practice
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def wake(self, scope: str, commit: str | None) -> Answer:
        """Wake the scope. Raises AwayError, or ReconcilerError where it is refused."""
        with self._asked("POST", "/v1/reconcile", json={"scope": scope, "commit": commit}) as answer:
            said: Answer = json.loads(answer.read())
            return said

    def events(self, name: str, seconds: float) -> Iterator[Answer]:
        """What happens, until the server ends the stream or says nothing for so long. Raises AwayError and LostError, too."""
        timeout = httpx.Timeout(PATIENCE, read=min(SILENCE, max(seconds, 0.1)))
        with self._asked("GET", f"/v1/reconcile/{name}/events", timeout=timeout) as answer:
            for line in answer.iter_lines():
                if len(line) > _LONGEST:
                    raise ReconcilerError(
                        "Refused", f"{self._server} is no trigger of reconciler's: a line is too long"
                    )
                yield json.loads(line)

    @contextmanager
    def _asked(self, method: str, path: str, **more: Any) -> Iterator[httpx.Response]:
        token = self._bearer()
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        try:
            with self._client.stream(method, f"{self._server}{path}", headers=headers, **more) as answer:
                self._check(answer, path)
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AwayError(f"{self._server} does not answer ({str(error) or type(error).__name__})") from error
        except (ValueError, KeyError) as error:
            raise ReconcilerError("Refused", f"{self._server} is no trigger of reconciler's") from error

    def _check(self, answer: httpx.Response, path: str) -> None:
        if answer.status_code in (200, 202):
            return
        text = answer.read()[:2000].decode(errors="replace")
        try:
            words = str(json.loads(text)["error"])
        except (ValueError, KeyError, TypeError):
            words = text.strip()[:300]
        if answer.status_code in (429, 502, 503, 504):
            raise AwayError(f"{self._server} answers {answer.status_code}: {words}")
        if answer.status_code == 404 and path != "/v1/reconcile":
            raise LostError
        raise ReconcilerError("Refused", f"{self._server} answers {answer.status_code}: {words or 'nothing else'}")


def run(trigger: Trigger, scope: str, commit: str | None, seconds: float, *, wait: bool, as_json: bool) -> int:
    """Wake, and with `wait` follow to the end: the exit code.

    Raises:
        Silent: the server does not answer.
        ReconcilerError: the request is refused.
    """
    out = sys.stderr if as_json else sys.stdout
    following = Following(trigger, scope, commit, time.monotonic() + seconds, out)
    said = following.ask()
    if not wait:
        as_json_text(said) if as_json else print(f"{scope} is looked at now: {said['id']}")
        return FINE
    end = following.end()
    if as_json:
        as_json_text(end)
    else:
        _report(end)
    return EXITS.get(str(end["result"]), TIMEOUT)


def _report(end: Answer) -> None:
    rows = [
        (u["unit"], u["sync"], u["health"], u["reason"], u["message"]) for u in end.get("units", []) if not _fine(u)
    ]
    if rows:
        table(("UNIT", "SYNC", "HEALTH", "REASON", "MESSAGE"), rows)
    total = end.get("total", 0)
    words = {"Fine": f"{total} units are in order", "Troubled": "waiting does not help", "Unknown": "nothing was done"}
    progress(f"{words.get(str(end['result']), 'the time is up')}{_why(end)}")


def _why(end: Answer) -> str:
    return f": {end['reason']}: {end['message']}" if end.get("reason") else ""


def _fine(unit: Answer) -> bool:
    return bool(unit["sync"] == "Synced" and unit["health"] == "Healthy")


@dataclass(slots=True)
class Following:
    """One wake-up, followed over streams that end, servers that start anew, and networks that break."""

    trigger: Trigger
    scope: str
    commit: str | None
    deadline: float
    out: TextIO
    told: dict[str, int] = field(default_factory=dict)  # by job, how far its output was shown
    last: Answer = field(default_factory=dict)
    id: str = ""

    def ask(self) -> Answer:
        """Wake; for a while also a server that is too busy."""
        patience = min(time.monotonic() + PATIENCE, self.deadline)
        while True:
            try:
                said = self.trigger.wake(self.scope, self.commit)
            except AwayError as error:
                if time.monotonic() + _AGAIN >= patience:
                    advice = "is `trigger` in its reconciler.yaml, and is --server its address?"
                    raise Silent(f"{error}: {advice}") from error
                time.sleep(_AGAIN)
            else:
                self.id = str(said["id"])
                return said

    def end(self) -> Answer:
        """Show what happens until it is over; without a known `result` the time was up."""
        away = 0.0
        while time.monotonic() < self.deadline:
            try:
                for event in self.trigger.events(self.id, self.deadline - time.monotonic()):
                    away = 0.0
                    if event.get("event") == "end":
                        return event
                    self._show(event)
                    if time.monotonic() >= self.deadline:
                        break
                continue
            except LostError:
                self.ask()
            except AwayError as error:
                away = away or time.monotonic()
                if time.monotonic() - away > AWAY:
                    raise Silent(str(error)) from error
            time.sleep(min(_AGAIN, max(self.deadline - time.monotonic(), 0.0)))
        return {"result": "TimedOut", **{word: self.last.get(word, "") for word in ("reason", "message")}}

    def _show(self, event: Answer) -> None:
        match event.get("event"):
            case "log":
                self._log(str(event["unit"]), str(event["job"]), int(event["offset"]), str(event["text"]))
            case "commit":
                self.last = event
                progress(f"{event['reason']}: {event['message']}" if event["reason"] else f"at commit {event['head']}")
            case "unit":
                words = (event["sync"], event["health"], event["phase"], event["reason"], event["message"])
                progress(f"{event['unit']}: {' '.join(str(word) for word in words if word)}")
            case "job":
                progress(f"{event['unit']}: {event['operation']} {event['job']} at {event['commit']}")
            case "result":
                progress(
                    f"{event['unit']}: {event['operation']} {event['outcome']}: {event['reason']}: {event['message']}"
                )

    def _log(self, unit: str, job: str, offset: int, text: str) -> None:
        """Lines, each with its unit before it: so none is a command to the CI server that prints it, whatever a module says."""
        if offset < self.told.get(job, 0):
            return  # a stream that was begun anew tells it once more
        self.told[job] = offset + 1
        for line in printable(text.encode()).splitlines():
            print(
                f"{plain(unit)} | {line.replace('##[', '# #[').replace('##vso', '# #vso')}", file=self.out, flush=True
            )
