"""Requests to a runner, of all kinds, and an oracle that knows without the runner's code which of them may start something.

`generated(seed)` never ends. A request is bytes: what a caller sends up to the end of the line.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Asked = dict[str, Any]
VERBS = ("start", "poll", "cancel", "describe", "log", "watch")
NEAR = ("Start", "start ", "apply", "destroy", "exec", "__class__", "", "shell", "start\0", "stаrt")
NUMBERS: tuple[object, ...] = (-1, 0, 1, 1.0, 1e3, 2**31, 2**53, 2**53 + 1, 2**64, "1", "", True, None, [1])
WORDS: tuple[object, ...] = (
    "", " ", "\0", "/", "..", "../..", "/etc/passwd", "prod", "prod/", "/prod/app", "prod/app/", "prod//app", "prod/../dev/app",
    "prod/./app", "prod/app\n", "prod/app\0", "Prod/app", "prod/app.yaml", "environments/prod/app", "prod\\app", "prod/%61pp",
    "prod/ａpp", "prod/app;id", "$(id)", "`id`", "--upload-pack=id", "-chdir=/", "HEAD", "main", "refs/heads/main", "c" * 39,
    "c" * 41, "C" * 40, "٠" * 40, "a" * 5000, 0, 1, None, True, [], {}, ["plan"], {"$ref": "x"}, "destroy", "Plan", "plan ", "import", "console",
)  # fmt: skip
MORE: tuple[str, ...] = (
    "variables", "env", "environment", "args", "command", "backend", "module", "version", "target", "destroy", "url", "branch", "force",
    "verb", "__proto__", "credentials", "lock", "config", "plan_file",
)  # fmt: skip
SIX = frozenset({"id", "operation", "unit", "commit", "fence", "pull"})


@dataclass(frozen=True, slots=True)
class Known:
    """Names that a caller can know: what is really there, allowed or not, and who asks."""

    units: Sequence[str]
    commits: Sequence[str]


def generated(seed: int, known: Known, *, sound: float) -> Iterator[bytes]:
    """Requests. `sound`: how many of them are well formed and ask for a job, whatever they name in it."""
    chance = random.Random(seed)  # noqa: S311 - a test that can be repeated
    number = 0
    while True:
        number += 1
        job = _job(chance, known, number)
        if chance.random() < sound:
            yield _line({"verb": "start", "job": json.dumps(job)})
        else:
            yield chance.choice(KINDS)(chance, job)


def _job(chance: random.Random, known: Known, number: int) -> Asked:
    job = {
        "id": f"g-{number}",
        "operation": chance.choice(("plan", "apply")),
        "unit": chance.choice(known.units),
        "commit": chance.choice(known.commits),
        "fence": chance.choice((0, 1, 7)),
    }
    return job | ({"pull": chance.randint(1, 9), "operation": "plan"} if chance.random() < 0.1 else {})


def _line(request: object) -> bytes:
    return json.dumps(request).encode()


def _wrong_field(chance: random.Random, job: Asked) -> bytes:
    name = chance.choice(sorted(SIX))
    return _line({"verb": "start", "job": json.dumps(job | {name: chance.choice((*WORDS, *NUMBERS))})})


def _field_left_out(chance: random.Random, job: Asked) -> bytes:
    gone = chance.choice(sorted(SIX - {"pull"}))
    return _line({"verb": "start", "job": json.dumps({name: value for name, value in job.items() if name != gone})})


def _field_more(chance: random.Random, job: Asked) -> bytes:
    more = {chance.choice(MORE): chance.choice(WORDS)}
    inside = chance.random() < 0.8
    request: Asked = {"verb": "start", "job": json.dumps(job | more if inside else job)}
    return _line(request if inside else {**request, "verb": chance.choice(NEAR), **more})


def _twice(chance: random.Random, job: Asked) -> bytes:
    """One name twice: two readers may take different ones."""
    text = json.dumps(job)
    return _line({"verb": chance.choice(NEAR), "job": f'{text[:-1]}, "unit": "prod/app"}}'})


def _wrong_shape(chance: random.Random, job: Asked) -> bytes:
    shapes = (
        job,
        [job],
        [json.dumps(job)],
        json.dumps([job]),
        json.dumps(json.dumps(job)),
        None,
        1,
        True,
        "",
        "{}",
        "null",
    )
    return _line({"verb": "start", "job": chance.choice(shapes)})


def _wrong_verb(chance: random.Random, job: Asked) -> bytes:
    return _line({"verb": chance.choice((*NEAR, *NUMBERS, list(VERBS), {"start": 1})), "job": json.dumps(job)})


def _other_verb(chance: random.Random, job: Asked) -> bytes:
    name = chance.choice((job["id"], "g-1", *WORDS))
    return _line({"verb": chance.choice(VERBS[1:-1]), "job": name, "offset": chance.choice(NUMBERS)})


def _cut(chance: random.Random, job: Asked) -> bytes:
    whole = _line({"verb": "start", "job": json.dumps(job)})
    return whole[: chance.randrange(len(whole))]


def _flipped(chance: random.Random, job: Asked) -> bytes:
    """A byte changed in what is not a digit or a letter of a word: it can be sound again only by what it says."""
    whole = bytearray(_line({"verb": "start", "job": json.dumps(job)}))
    whole[chance.randrange(len(whole))] = chance.choice(b'"\\{}[]:,/. \0\xff\xc3')
    return bytes(whole).replace(b"\n", b" ")


def _noise(chance: random.Random, _job: Asked) -> bytes:
    return chance.randbytes(chance.randrange(80)).replace(b"\n", b"")


def _deep(chance: random.Random, job: Asked) -> bytes:
    depth = chance.randrange(1, 400)
    return chance.choice(
        (b"[" * depth, b'{"verb":' * depth, _line({"verb": "start", "job": "[" * depth + json.dumps(job)}))
    )


KINDS: tuple[Callable[[random.Random, Asked], bytes], ...] = (
    _wrong_field, _wrong_field, _wrong_field, _field_left_out, _field_more, _twice, _wrong_shape, _wrong_verb, _other_verb, _other_verb,
    _cut, _flipped, _flipped, _noise, _deep,
)  # fmt: skip


# --- the oracle: written for itself, from docs/formats.md and docs/security.md, and not from the runner


def is_job(line: bytes) -> bool:
    """Whether a request asks for a job at all: six words and nothing else, each in its form."""
    try:
        request = json.loads(line)
        text = request["job"]
        job = json.loads(text) if isinstance(text, str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    if not isinstance(request, dict) or request.get("verb") != "start" or not isinstance(job, dict):
        return False
    if not SIX - {"pull"} <= job.keys() <= SIX:
        return False
    pull, fence = job.get("pull"), job["fence"]
    return (
        _is(job["id"], "[A-Za-z0-9][A-Za-z0-9-]{0,63}")
        and job["operation"] in (["plan"] if pull is not None else ["plan", "apply"])
        and _is(job["unit"], "[a-z0-9][a-z0-9_-]{0,62}(/[a-z0-9][a-z0-9_-]{0,62})+")
        and _is(job["commit"], "[0-9a-f]{40}")
        and type(fence) is int
        and 0 <= fence <= 2**53
        and (pull is None or (type(pull) is int and 0 < pull <= 2**31))
    )


def _is(value: object, form: str) -> bool:
    return isinstance(value, str) and re.fullmatch(form, value) is not None


def enumerated(runner_config: Path, repository: Path) -> set[tuple[str, str]]:
    """All that a runner may ever start: each operation with each unit that the branch has and the allow-list names."""
    config = yaml.safe_load(runner_config.read_text())
    listed = subprocess.run(
        ["git", f"--git-dir={repository}", "ls-tree", "-r", "--name-only", "main", "environments/"],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    entries = [path for path in listed.stdout.splitlines() if not path.endswith("/environment.yaml")]
    return {
        (operation, path.removeprefix("environments/").removesuffix(".yaml"))
        for line in config["allow"]
        if line["refs"] == "merged"
        for operation in line["operations"]
        for glob in line["folders"]
        for path in entries
        if path.split("/")[1] in config["environments"] and _matches(glob.split("/"), path.split("/"))
    }


def _matches(glob: list[str], path: list[str]) -> bool:
    """`*` and `?` stay inside of a folder, `**` is any number of them."""
    if not glob or not path:
        return not glob and not path
    if glob[0] == "**":
        return len(glob) == 1 or any(_matches(glob[1:], path[at:]) for at in range(len(path)))
    return _part(glob[0], path[0]) and _matches(glob[1:], path[1:])


def _part(glob: str, name: str) -> bool:
    if not glob:
        return not name
    if glob[0] == "*":
        return any(_part(glob[1:], name[at:]) for at in range(len(name) + 1))
    return bool(name) and glob[0] in (name[0], "?") and _part(glob[1:], name[1:])
