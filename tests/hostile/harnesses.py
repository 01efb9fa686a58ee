"""What is fuzzed, and what must hold for whatever is accepted."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from reconciler import codec, wire
from reconciler.config import Forge as Configured
from reconciler.desired import strict, template
from reconciler.desired.document import Document
from reconciler.desired.lock import parse_lock, read_lock
from reconciler.desired.paths import EntryPath, classify
from reconciler.desired.template import Mistake
from reconciler.errors import PassError, UnitError
from reconciler.forge import open_forge
from reconciler.git.commits import parse as parse_commit
from reconciler.git.failures import failure
from reconciler.git.pgp import read_keyring
from reconciler.git.signers import read_revoked, read_signers
from reconciler.model import Commit, Desired, Job, Lock, PlanSummary, Problem, Result, UnitId
from reconciler.runner.audit.chain import ChainError, Head, follow, link, read
from reconciler.runner.audit.verify import verify
from reconciler.runner.request import checked_job
from reconciler.runner.terraform.plan import parse_plan, take_in
from reconciler.runner.terraform.state import parse_state, secrets_of
from reconciler.runner.terraform.transcript import Transcript
from reconciler.vetting import RULES, vet
from tests.hostile.site import ENTRY_PATH, ENVIRONMENT_PATH, LOCK_PATH, load

KINDS = ("github", "gitlab", "gitea")
HEAD = Commit("c" * 40)
BETWEEN = b"\xff"  # between the answers of a forge
UNIT = UnitId("prod/network")


def yaml(data: bytes) -> None:
    """What was read reads the same when it is written as JSON."""
    found = strict.parse("f.yaml", data)
    if isinstance(found, list):
        _placed(found, "f.yaml", data)
        return
    plain = found.root.plain()
    text = json.dumps(plain)
    if found.text.isascii() and "\\u" not in text and len(text) < 1000:  # longer keys have another form in YAML
        again = strict.parse("f.yaml", text.encode())
        assert isinstance(again, Document), again
        assert again.root.plain() == plain


def templates(data: bytes) -> None:
    """What was read can be written, and reads the same then."""
    with suppress(UnicodeDecodeError):
        found = template.parse(data.decode(), "prod")
        if isinstance(found, Mistake):
            assert found.message
        else:
            assert template.parse(str(template.write(found)), "prod") == found


def entry(data: bytes) -> None:
    """A unit, or a problem of that unit; never both, and never neither."""
    _judged(load({ENTRY_PATH: data}), ENTRY_PATH, data)


def environment(data: bytes) -> None:
    """An environment whose units are sound, or a problem that breaks them."""
    _judged(load({ENVIRONMENT_PATH: data}), ENVIRONMENT_PATH, data)


def lock(data: bytes) -> None:
    """All of a lock, or what of it can be read; both ways of reading agree."""
    whole, part = parse_lock(LOCK_PATH, data), read_lock(LOCK_PATH, data)
    if isinstance(whole, Lock):
        assert whole == part.lock
        assert not part.problems
    else:
        _placed([problem for problem in whole if problem.reason == "LockInvalid"], LOCK_PATH, data)
        assert len(whole) == len(part.problems) > 0


def paths(data: bytes) -> None:
    """A path means one thing, and only its own spelling does."""
    path = data.decode("utf-8", "surrogateescape")
    found = classify(path)
    if isinstance(found, EntryPath):
        assert path == f"environments/{found.unit}.yaml"
        assert len(found.unit) <= 200
    if isinstance(found, Problem):
        assert found.place.path.isprintable()
        str(found).encode()


def facts(data: bytes) -> None:
    """What is accepted is written the same way again."""
    names = [*codec.ACTIONS]
    kinds: tuple[type, ...] = (Job, Result, PlanSummary)
    which, body = data[:1], data[1:]
    number = which[0] if which else 0
    with suppress(ValueError):
        if number < len(names):
            event = codec.decode_event(names[number], body)
            action, text = _encoded(lambda: codec.encode_event(event))
            assert codec.decode_event(action, text) == event
        else:
            kind = kinds[number % len(kinds)]
            fact: object = codec.decode(kind, body)
            assert codec.decode(kind, _encoded(lambda: codec.encode(fact))) == fact


def requests(data: bytes) -> None:
    """A line of a socket is a message or refused; its job is of six sound words or refused."""
    with suppress(ValueError):
        message = wire.unpack(data)
        assert wire.unpack(wire.pack(message)) == message or "NaN" in wire.pack(message).decode()
        with suppress(PassError):
            checked_job(str(message.get("job")))
    with suppress(PassError, UnicodeDecodeError):
        job = checked_job(data.decode())
        assert checked_job(codec.encode(job).decode()) == job


def commits(data: bytes) -> None:
    """No byte of a commit is lost between what is signed and the signature."""
    name = Commit(hashlib.sha1(b"commit %d\0" % len(data) + data, usedforsecurity=False).hexdigest())
    with suppress(PassError):
        found = parse_commit(name, data)
        assert len(found.payload) + len(found.signature) <= len(data) + 1
        assert (found.payload == data) == (not found.signature)


def signers(data: bytes) -> None:
    """A list of keys, or a refusal with file and line."""
    for read_all in (lambda: read_signers("keys", data), lambda: dict(read_revoked("keys", data))):
        said = "keys:"
        try:
            read_all()
        except PassError as error:
            said = str(error)
        assert said.startswith("keys:"), said
    with suppress(ValueError):
        read_keyring(data)


def forges(data: bytes) -> None:
    """Every answer of a forge, all of them from the data: an approved merge, or a hold."""
    which, *answers = data.split(BETWEEN)
    kind = KINDS[(which or b"\0")[0] % len(KINDS)]
    forge = _forge(kind)
    for ask in (lambda: forge.merged(HEAD), forge.open_pulls, forge.protections):
        left = iter(answers)
        forge._dialect._rest._sent = lambda *_, left=left: (200, httpx.Headers(), next(left, b"[]"))
        with suppress(PassError):
            ask()


def engine(data: bytes) -> None:
    """What an engine prints: a state, a plan, lines of progress."""
    with suppress(UnitError):
        state = parse_state(data)
        secrets_of(state)
    with suppress(UnitError):
        found = take_in(parse_plan(data), b"key").summary
        with suppress(TypeError):  # text that is no Unicode has no JSON form
            assert codec.decode(PlanSummary, codec.encode(found)) == found
    said = Transcript(io.BytesIO(data), io.BytesIO(), str, ["{", '  "cidr": 1', "}"])
    said.finish(io.BytesIO(), 1)


def vetting(data: bytes) -> None:
    """Findings at places that exist, whichever way the file is named."""
    for name in ("main.tf", "main.tf.json"):
        for one in vet({f"m/{name}": ("100644", data)}, "m", frozenset(("hashicorp/aws",))):
            assert one.rule in RULES
            assert one.line <= data.count(b"\n") + 1


def audit(data: bytes) -> None:
    """A log that was changed is found out; what is accepted are records that follow each other."""
    verdict = verify([("000000000001.jsonl", data)])
    head = Head()
    *lines, torn = data.split(b"\n")
    for line in lines:
        try:
            after = follow(head, line)
            read(line)
        except ChainError:
            break
        head = after
    assert verdict.head == head
    assert verdict.wrong or verdict.torn == len(torn)
    with suppress(ValueError, TypeError):
        body = json.loads(data)
        if isinstance(body, dict):
            made = link(Head(), datetime(2026, 1, 1, tzinfo=UTC), "test", body)
            assert follow(Head(), made[:-1]).count == 1


def failures(data: bytes) -> None:
    """A reason from the list, and one line that a terminal can show."""
    error = failure("u", data)
    assert error.reason.isalpha()
    assert str(error).isprintable()


HARNESSES: Mapping[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        yaml, templates, entry, environment, lock, paths, facts, requests, commits, signers, forges, engine, vetting,
        audit, failures,
    )
}  # fmt: skip


def _judged(found: Desired, path: str, data: bytes) -> None:
    assert (UNIT in found.units) != (UNIT in found.broken)
    if UNIT in found.broken:
        assert found.problems
    else:
        assert not found.problems
    _placed([one for one in found.problems if one.place.path == path], path, data)


def _placed(problems: list[Problem], path: str, data: bytes) -> None:
    """Every problem names the file, and a line that it has."""
    lines = data.count(b"\n") + 1
    for one in problems:
        assert one.message
        assert one.place.path == path
        assert one.place.line <= lines, (one, data)
        str(one).encode()


def _encoded(call: Callable[[], Any]) -> Any:
    """What the codec writes; a number or a text without a JSON form never was in anything that it wrote."""
    try:
        return call()
    except TypeError:
        raise ValueError("no JSON form") from None


@cache
def _forge(kind: str) -> Any:
    token = _folder() / "token"
    token.write_text("t", encoding="ascii")
    given = {
        "kind": kind,
        "repository": "acme/environments",
        "token_file": str(token),
        "url": "https://forge.test",
        "min_approvals": 1,
    }
    return open_forge(Configured.model_validate(given), "main")


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))
