"""What one plane has proven of commits, once and for all: keys may rotate away, and a forge may forget, afterwards.

Layout of the folder, which lies beside the plane's memory and is as little to be thrown away:

    <first two digits>.jsonl   a line per proven commit, only ever appended to
    keys.jsonl                 a line per key that ever signed one
    version                    the highest version of the signers' file that was seen
    lock                       held (flock) while something is appended

A line that a crash left half written is no proof, and is skipped: its commit is proven again. There is no index: the file
of two digits is read and searched, which at 100,000 commits means some 100 KiB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from reconciler.cabinet import Cabinet, again, cabinet_of
from reconciler.errors import PassError
from reconciler.git.tree import object_id
from reconciler.model import Commit


@dataclass(frozen=True, slots=True)
class Proof:
    """Why a commit counts, and when this plane found so.

    `signer` and `key` are empty where signatures are off, `pull` None and the rest empty where no forge was asked.
    """

    commit: Commit
    at: datetime
    signer: str = ""
    key: str = ""
    pull: int | None = None
    author: str = ""
    approvers: tuple[str, ...] = ()


class Proofs:
    """The proofs in one folder, or cabinet. Any number of processes may use it at once."""

    def __init__(self, place: Path | Cabinet) -> None:
        self.cabinet = cabinet_of(place)

    def get(self, commit: Commit) -> Proof | None:
        """The newest proof of a commit; None where there is none."""
        start = b'{"commit": "' + object_id(commit).encode() + b'"'
        data = self._read(_shard(commit))
        at = data.rfind(start)
        while at >= 0:
            end = data.find(b"\n", at)
            if (at == 0 or data[at - 1 : at] == b"\n") and end > 0 and (proof := _proof(data[at:end])):
                return proof
            at = data.rfind(start, 0, at)
        return None

    def add(self, proof: Proof, public: str = "") -> None:
        """Remember a proof; `public` is the key itself, where it is one that a list of revoked keys may name.

        On disk when this returns.
        """
        line = json.dumps(
            {
                "commit": object_id(proof.commit),
                "at": proof.at.isoformat(),
                "signer": proof.signer,
                "key": proof.key,
                "pull": proof.pull,
                "author": proof.author,
                "approvers": proof.approvers,
            }
        )
        again(lambda: self._add(proof, public, line))

    def _add(self, proof: Proof, public: str, line: str) -> None:
        with self.cabinet.exclusive("lock", ""):
            if (
                proof.key and proof.key not in self.keys()
            ):  # the key first: a proof whose key is unknown is never revoked
                self.cabinet.append("keys.jsonl", json.dumps({"key": proof.key, "public": public}))
            self.cabinet.append(_shard(proof.commit), line)

    def keys(self) -> dict[str, str]:
        """Every key that signed a proven commit, by name."""
        return {str(row["key"]): str(row.get("public", "")) for row in _rows(self._read("keys.jsonl")) if "key" in row}

    def version(self) -> int:
        """The highest version of the signers' file that was seen; 0 before the first."""
        text = self._read("version").strip()
        if text and not text.isdigit():
            raise PassError(
                "FileCorrupt",
                f"{self.cabinet.place}/version: not a number; something else wrote it: restore it from a backup",
            )
        return int(text or b"0")

    def raise_version(self, version: int) -> None:
        """Remember that this version was seen. Never goes back."""
        again(lambda: self._raise_version(version))

    def _raise_version(self, version: int) -> None:
        with self.cabinet.exclusive("lock", ""):
            if version > self.version():
                self.cabinet.write("version", str(version).encode())

    def _read(self, name: str) -> bytes:
        return self.cabinet.read(name) or b""


def _shard(commit: Commit) -> str:
    return f"{object_id(commit)[:2]}.jsonl"


def _rows(data: bytes) -> Iterator[dict[str, Any]]:
    """The lines that are whole."""
    for line in data.split(b"\n")[:-1]:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _proof(line: bytes) -> Proof | None:
    for row in _rows(line + b"\n"):
        try:
            at = datetime.fromisoformat(row["at"])
            approvers = tuple(map(str, row["approvers"]))
            return Proof(Commit(row["commit"]), at, row["signer"], row["key"], row["pull"], row["author"], approvers)
        except (KeyError, TypeError, ValueError):
            continue
    return None
