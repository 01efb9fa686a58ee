"""What is an address of a repository: one rule, for the files that people write and for whoever fetches."""

from __future__ import annotations

import re
from typing import Literal

_SCP_LIKE = re.compile(r"(?:[A-Za-z0-9._][A-Za-z0-9._-]*@)?[A-Za-z0-9.][A-Za-z0-9.-]*:(?!/?/)[^\s]+")
_BLANK = re.compile(r"[\x00-\x20\x7f\s]")
_PROTOCOLS: dict[str, Literal["https", "ssh", "file"]] = {"https": "https", "ssh": "ssh", "file": "file"}


def protocol_of(url: str) -> Literal["https", "ssh", "file"] | None:
    """What git calls the transport of this address; None where it is no address that a repository is fetched from."""
    if _BLANK.search(url) or "://-" in url:  # a host or user that ssh would take for an option
        return None
    scheme, slashes, _ = url.partition("://")
    if slashes:
        return _PROTOCOLS.get(scheme)
    if url.startswith("/"):
        return "file"
    return "ssh" if "::" not in url and _SCP_LIKE.fullmatch(url) else None


def has_secret(url: str) -> bool:
    """Whether a user or a password stands in an https address, or a password in one of ssh."""
    return bool(re.match(r"https://[^/]*@", url) or re.match(r"ssh://[^/]*:[^/]*@", url))
