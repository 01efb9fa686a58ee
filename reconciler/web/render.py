"""HTML from templates: everything is escaped, nothing runs inline, and no address is another host's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any
from unicodedata import category
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response

from reconciler.web.sentences import short, when, written

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_KINDS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
STATIC: Mapping[str, bytes] = {
    one.name: one.read_bytes() for one in files("reconciler.web").joinpath("static").iterdir() if "." in one.name
}
_DIGESTS = {name: hashlib.sha256(data).hexdigest()[:16] for name, data in STATIC.items()}


def static(name: str) -> Response | None:
    """One of the page's own files; None where there is none of that name. Its address changes with what is in it."""
    data = STATIC.get(name)
    if data is None:
        return None
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(data, media_type=_KINDS[name.rpartition(".")[2]], headers=headers)


def page(name: str, code: int = 200, /, **facts: object) -> Response:
    """A page of HTML. It is never kept: what it says is of this moment."""
    text = _TEMPLATES.get_template(f"{name}.html").render(facts)
    return Response(text, code, {"content-security-policy": POLICY}, "text/html; charset=utf-8")


def plain(value: object) -> object:
    """The text without characters that steer how others are shown: controls, and those that turn the direction."""
    if value is None or isinstance(value, Markup):
        return value or ""
    text = str(value)  # of a fact, too: what a person wrote may stand in it
    if text.isascii() and text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if category(c)[0] == "C" and c not in "\n\t" else c for c in text)


def ticked(text: object) -> Markup:
    """The text with what stands in `backticks` as code: commands and lines of files are read, and copied, as such."""
    written, code = Markup(), Markup("<code>{}</code>")  # `format` escapes, as adding does
    for index, part in enumerate(str(text).split("`")):
        said = str(plain(part))
        written += code.format(said) if index % 2 else said
    return written


def span(seconds: float | timedelta) -> str:
    """A duration in two units at most: 350 ms, 4.2 s, 3 min 5 s, 2 h, 3 d 4 h."""
    total = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if total < 1:
        return f"{max(total, 0) * 1000:.0f} ms"
    if total < 60:
        return f"{total:.1f} s" if total < 10 else f"{total:.0f} s"
    whole = int(total)
    for unit, size, lower, step in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // step
            return f"{whole // size} {unit} {rest} {lower}" if rest else f"{whole // size} {unit}"
    raise AssertionError(total)


def rough(seconds: float) -> str:
    """An age in one unit, as the page's script has it too."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(max(seconds, 0))} s"


def ago(at: datetime | None, now: datetime) -> Markup:
    """A time as people think of it, with the exact one beside it."""
    if at is None:
        return Markup("")
    seconds = (now - at).total_seconds()
    words = f"in {rough(-seconds)}" if seconds < 0 else f"{rough(seconds)} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(at.isoformat(), when(at), words)


def unit_path(unit: str) -> str:
    """The address of a unit's page."""
    return "/units/" + quote(unit, safe="/")


def job_path(job: str, unit: str = "") -> str:
    """The address of a job's page."""
    return f"/jobs/{quote(job, safe='')}" + (f"?{urlencode({'unit': unit})}" if unit else "")


def asking(path: str, **words: object) -> str:
    """The address with these words, those that say nothing left out."""
    said = {name: value for name, value in words.items() if value not in ("", None, False)}
    return f"{path}?{urlencode(said)}" if said else path


def _static_path(name: str) -> str:
    return f"/static/{name}?{_DIGESTS[name]}"


def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("reconciler.web"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=plain,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "when": when,
        "short": short,
        "span": span,
        "ticked": ticked,
        "unit_path": unit_path,
        "written": written,
    }
    words: dict[str, Any] = {"ago": ago, "job_path": job_path, "asking": asking, "static_path": _static_path}
    made.globals |= words
    return made


_TEMPLATES = _templates()
