"""Rules over plans, as they are written: CEL, checked when a file is read. Pure; what they say of a plan is the runner's to find out.

https://cel.dev is the language; the implementation is its authors' own. A mistake in an expression is told with the place in it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from reconciler.desired.wording import printable
from reconciler.model import Over

if TYPE_CHECKING:
    from cel_expr_python import cel

LONGEST = 2000  # characters of an expression
_WRITE = {
    Over.RESOURCE: 'resource.type != "aws_s3_bucket" || resource.change.actions != ["delete"]',
    Over.PLAN: "size(plan.resource_changes) < 20",
}
# As the library words it: line, column and what is wrong; -1:-1 where it is the whole.
_SAID = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): ([^\n]*)")


@lru_cache(maxsize=1024)
def wrong_expression(text: str, over: Over) -> str | None:
    """What is wrong with the expression, and what to write instead; None: nothing."""
    example = f"write an expression of CEL (https://cel.dev) like `{_WRITE[over]}`"
    if not text.strip():
        return f"the expression is empty; {example}"
    if len(text) > LONGEST:
        return f"the expression has {len(text)} characters; write at most {LONGEST}, or several rules"
    try:
        gives = compiled(text, over).return_type().name()
    except (RuntimeError, ValueError) as error:  # what the library raises for a mistake
        return f"{_mistake(str(error), over)}; {example}"
    if gives not in ("BOOL", "DYN"):
        return f"the expression gives {gives}, and a rule is true or false; {example}"
    return None


def compiled(text: str, over: Over) -> cel.Expression:
    """The expression, ready to be worked out. Raises RuntimeError, ValueError: it is none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half a character, as an escape of YAML can write it
        raise ValueError("the expression holds half a character") from error
    return _environment(over).compile(text)


@lru_cache(maxsize=len(Over))
def _environment(over: Over) -> cel.Env:
    """The names that an expression may use: `resource` or `plan`, and `unit`."""
    from cel_expr_python import cel  # only who has rules pays for it

    strings = cel.Type.Map(cel.Type.STRING, cel.Type.STRING)
    return cel.NewEnv(variables={over.value: cel.Type.DYN, "unit": strings})


def _mistake(said: str, over: Over) -> str:
    """The first of the library's complaints, in one line."""
    found = _SAID.search(said)
    if found is None or int(found[1]) < 1:
        deep = "recursion" in said
        return "the expression is nested too deeply" if deep else printable(said, 200)
    what = found[3].removesuffix(" (in container '')").partition(" expecting {")[0]
    names = f"; known are {over.value} and unit" if what.startswith("undeclared reference") else ""
    return f"{printable(what, 200)} at line {found[1]}, column {found[2]} of the expression{names}"
