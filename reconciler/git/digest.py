"""The digest of a tree of files: the one that `catalog-lock.yaml` pins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from reconciler.model import Digest


def tree_digest(entries: Iterable[tuple[str, str, bytes]]) -> Digest:
    """SHA-256 over (mode, path, SHA-256 of the blob) of every file of a tree, in one canonical order.

    Each entry is git's mode (`100644` or `100755`), the path from the root of the tree with `/` between its segments,
    and the 32 bytes of the content's SHA-256. The records are sorted by the bytes of the path and written one after
    the other, without any separator between them:

        mode SP path NUL sha256

    Every part ends where the next begins: a mode has no blank, a path has no NUL, a SHA-256 has 32 bytes. So no two
    trees give the same bytes. Not git's tree id, which is SHA-1; not `git archive`, which obeys `export-ignore` and
    `export-subst` of the tree itself.

    Raises:
        ValueError: a path twice, a blank in a mode, a NUL in a path, a hash that is not 32 bytes: not a tree.
    """
    total = hashlib.sha256()
    last: bytes | None = None
    for path, mode, content in sorted((path.encode(), mode.encode(), content) for mode, path, content in entries):
        if path == last or b" " in mode or b"\0" in path or not path or len(content) != hashlib.sha256().digest_size:
            raise ValueError(f"not an entry of a tree: {mode!r} {path!r}")
        total.update(b"%b %b\0%b" % (mode, path, content))
        last = path
    return Digest(f"sha256:{total.hexdigest()}")
