"""A signed tag, read and taken apart as strictly as git would ever write it, and judged by the host's keys.

Git does not compare the name in a tag's own bytes with the ref that leads to it: a signed v1.0.0 that somebody puts at
refs/tags/v2.0.0 verifies. Nor does it mind a tag of a tag. Both are refused here.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from reconciler.errors import PassError, UnitError
from reconciler.git.command import Git
from reconciler.git.commits import COMMIT_LIMIT, CommitObject
from reconciler.git.signatures import Signed, check_dates, verify
from reconciler.git.signers import Keys
from reconciler.model import Commit

_LATEST = 253_402_300_799  # the end of the year 9999
_HEAD = re.compile(
    rb"object ([0-9a-f]{40})\ntype ([a-z]+)\ntag ([^\n]+)\ntagger [^<>\n]*<[^<>\n]*> ([0-9]{1,12}) [+-][0-9]{4}\n\n"
)
_ARMOR = re.compile(rb"^-----BEGIN ", re.MULTILINE)


def check_tag(git: Git, ref: str, commit: Commit, keys: Keys) -> Signed:
    """Prove that the tag is annotated, stands for exactly this commit, and was signed by one of the host's keys.

    Raises:
        UnitError: "CatalogTagMissing", "CatalogTagMoved", "CatalogTagInvalid", or a reason of `signatures.verify`.
        PassError: git.
    """
    name = git.ask("rev-parse", "--verify", "--quiet", operands=(f"refs/tags/{ref}",))
    if name.code:
        raise UnitError("CatalogTagMissing", f"{git.where}: there is no tag {ref}; push it, signed, to {commit}.")
    tag = _parsed(git, name.out.decode().strip(), ref, commit)
    try:
        check_dates(tag, None, datetime.now(UTC))
        return verify(git, tag, keys, "verify-tag")
    except PassError as error:
        raise UnitError(error.reason, f"{git.where}: tag {ref}: {error}") from error


def _parsed(git: Git, name: str, ref: str, commit: Commit) -> CommitObject:
    if git.run("cat-file", "-t", operands=(name,)).strip() != b"tag":
        moved = "" if name == commit else f" of {name}"
        raise _invalid(git, ref, f"is a plain one{moved}, which nobody can sign: make it with `git tag --sign`")
    if int(git.run("cat-file", "-s", operands=(name,))) > COMMIT_LIMIT:
        raise _invalid(git, ref, f"has more than {COMMIT_LIMIT} bytes")
    data = git.run("cat-file", "tag", operands=(name,))
    head = _HEAD.match(data)
    if head is None or b"\0" in data:
        raise _invalid(git, ref, "is not object, type, tag, tagger and a message")
    if head[3].decode("utf-8", "replace") != ref:
        raise _invalid(git, ref, f"was made as {head[3].decode('utf-8', 'replace')[:100]!r}: somebody renamed it")
    if head[2] != b"commit" or head[1].decode() != commit:
        what = f"stands for the {head[2].decode()} {head[1].decode()}, and {commit} is pinned"
        raise UnitError("CatalogTagMoved", f"{git.where}: the tag {ref} {what}: find out who moved the tag.")
    starts = [match.start() for match in _ARMOR.finditer(data, head.end())]
    if len(starts) > 1:
        raise _invalid(git, ref, "has more than one signature")
    at = starts[0] if starts else len(data)
    moment = datetime.fromtimestamp(min(int(head[4]), _LATEST), UTC)
    return CommitObject(Commit(name), (), moment, data[:at], data[at:])


def _invalid(git: Git, ref: str, what: str) -> UnitError:
    return UnitError(
        "CatalogTagInvalid", f"{git.where}: the tag {ref} {what}; release a new version with a signed tag."
    )
