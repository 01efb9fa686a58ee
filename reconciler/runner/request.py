"""The job in a request: six words, each of a form of its own, and nothing besides."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields

from pydantic import ValidationError

from reconciler import codec
from reconciler.errors import PassError
from reconciler.model import Job, Operation

JOB_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")
UNIT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}(/[a-z0-9][a-z0-9_-]{0,62})+")
COMMIT = re.compile(r"[0-9a-f]{40}")
LAST_FENCE = 2**53  # every store can go beyond it by one
LAST_PULL = 2**31

_FORMS: Mapping[str, tuple[str, Callable[[Job], bool]]] = {
    "id": ("up to 64 letters, digits and dashes", lambda job: bool(JOB_ID.fullmatch(job.id))),
    "unit": ("an environment, a slash and a name", lambda job: bool(UNIT_ID.fullmatch(job.unit))),
    "commit": ("40 lower-case hex digits", lambda job: bool(COMMIT.fullmatch(job.commit))),
    "fence": ("a number of 0 to 2^53", lambda job: 0 <= job.fence <= LAST_FENCE),
    "pull": ("the number of a pull request, or null", lambda job: job.pull is None or 0 < job.pull <= LAST_PULL),
}
_WORDS = frozenset(field.name for field in fields(Job))


def checked_job(text: str) -> Job:
    """The job of a request, every word of it checked.

    Raises:
        PassError: it is not a job; the message begins with the word that is wrong, `job` where it is none of them.
    """
    try:
        job = codec.decode(Job, text.encode())
    except ValidationError as error:
        raise _told(error) from error
    except ValueError as error:
        raise _bad("job", f"no text: {error}") from error
    if extra := sorted(json.loads(text).keys() - _WORDS):
        raise _bad(ascii(extra[0][:64])[1:-1], f"no word of a job: it has {', '.join(sorted(_WORDS))}")
    for name, (form, holds) in _FORMS.items():
        if not holds(job):
            raise _bad(name, f"write {form}")
    if job.pull is not None and job.operation is not Operation.PLAN:
        raise _bad("pull", "a pull request is planned and never applied: merge it first")
    return job


def checked_id(text: str) -> str:
    """The id of a job, from a request about one. Raises PassError."""
    if not JOB_ID.fullmatch(text):
        raise _bad("job", f"A job id is {_FORMS['id'][0]}")
    return text


def checked_fence(said: object) -> int:
    """The fence in a request. Raises PassError."""
    if not isinstance(said, int) or isinstance(said, bool) or not 0 < said <= LAST_FENCE:
        raise _bad("fence", "write a number of 1 to 2^53")
    return said


def _told(error: ValidationError) -> PassError:
    """The first of the mistakes; never what was written, which may be as long as the request."""
    first = error.errors(include_url=False, include_input=False)[0]
    word = str(first["loc"][0]) if first["loc"] else "job"
    form = _FORMS[word][0] if word in _FORMS else ""
    return _bad(word, f"{first['msg'][:200]}{f': write {form}' if form else ''}")


def _bad(word: str, what: str) -> PassError:
    return PassError("BadRequest", f"{word}: {what}.")
