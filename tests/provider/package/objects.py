"""A small cloud: objects are files below a root, and every call of its API stands in a log that only grows."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


class Refused(Exception):
    """The call was understood and refused; the text is for the person who reads Terraform's output."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """Objects in one region.

    The log is the oracle of the tests. A creation is logged twice: `started` before, and then what became of it. It is
    atomic and exclusive: `created` means that the object was not there. A call that finds its own work already done
    says `adopted`, one that finds another object `exists`. So `adopted` or `exists` betrays an apply that ran twice.
    """

    root: Path
    region: str = ""

    def read(self, kind: str, path: str) -> str | None:
        try:
            content = self._file(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            self.log("read", kind, path, "absent")
            return None
        self.log("read", kind, path, "found")
        return content

    def create(self, kind: str, path: str, content: str) -> None:
        self.log("create", kind, path, "started")
        target = self._file(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = self._draft(content)
        try:
            os.link(draft, target)
        except FileExistsError:
            mine = target.read_bytes() == content.encode()
            self.log("create", kind, path, "adopted" if mine else "exists")
            if not mine:
                raise Refused(
                    f"{path} exists already, with another content: import it or choose another path"
                ) from None
        else:
            self.log("create", kind, path, "created")
        finally:
            draft.unlink()

    def update(self, kind: str, path: str, content: str) -> None:
        target = self._file(path)
        if not target.exists():
            self.log("update", kind, path, "absent")
            raise Refused(f"{path} does not exist any more: plan again")
        self._draft(content).replace(target)
        self.log("update", kind, path, "updated")

    def delete(self, kind: str, path: str) -> None:
        try:
            self._file(path).unlink()
        except FileNotFoundError:
            self.log("delete", kind, path, "absent")
        else:
            self.log("delete", kind, path, "deleted")

    def there(self, name: str) -> bool:
        """Is there a file of this name directly below the root? Tests steer the flaky and the slow with such files."""
        return (self.root / name).exists()

    def log(self, op: str, kind: str, path: str, outcome: str) -> None:
        """One line, one write: lines of many processes never mix."""
        call = {
            "at": time.time(),
            "pid": os.getpid(),
            "op": op,
            "type": kind,
            "path": self._name(path),
            "outcome": outcome,
        }
        self.root.mkdir(parents=True, exist_ok=True)
        log = os.open(self.root / "calls.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(log, json.dumps(call).encode() + b"\n")
        finally:
            os.close(log)

    def _name(self, path: str) -> str:
        return f"{self.region}/{path}" if self.region else path

    def _file(self, path: str) -> Path:
        return self.root / self._name(path)

    def _draft(self, content: str) -> Path:
        """A whole object that nobody sees yet, on the same file system as the others."""
        drafts = self.root / ".drafts"
        drafts.mkdir(parents=True, exist_ok=True)
        draft = drafts / f"{os.getpid()}-{time.monotonic_ns()}-{os.urandom(4).hex()}"
        draft.write_text(content, encoding="utf-8")
        return draft


def wrong_path(path: str) -> str | None:
    """Why an object cannot be called this, or None: everything must stay below the root."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or any(part.startswith(".") for part in parts):
        return f"{path!r} must be relative, without parts that begin with a dot"
    return None
