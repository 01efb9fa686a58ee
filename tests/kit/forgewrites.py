"""What the forges let a token write, held to their published schemas: comments of pull requests, and statuses of commits.

The schemas are those of GitHub's description of its REST API (2022-11-28), of GitLab's documentation of notes and commit
statuses (v4) and of Gitea's swagger (v1), closed: a field that an API does not know is a mistake of ours, though it would ignore it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import jsonschema  # type: ignore[import-untyped]

Json = Any


def _object(required: list[str], **properties: Json) -> Json:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


TEXT, LINK = {"type": "string"}, {"type": ["string", "null"]}
GITHUB_COMMENT = _object(["body"], body={"type": "string", "maxLength": 65_536})
GITHUB_STATUS = _object(
    ["state"],
    state={"enum": ["error", "failure", "pending", "success"]},
    target_url=LINK,
    description={"type": ["string", "null"], "maxLength": 140},
    context=TEXT,
)
GITLAB_NOTE = _object(
    ["body"], body={"type": "string", "maxLength": 1_000_000}, created_at=TEXT, internal={"type": "boolean"}
)
GITLAB_STATUS = _object(
    ["state"],
    state={"enum": ["pending", "running", "success", "failed", "canceled", "skipped"]},
    ref=TEXT,
    name={"type": "string", "maxLength": 255},
    context={"type": "string", "maxLength": 255},
    target_url={"type": "string", "maxLength": 255},
    description={"type": "string", "maxLength": 255},
    coverage={"type": "number"},
    pipeline_id={"type": "integer"},
)
GITEA_COMMENT = _object(["body"], body=TEXT, updated_at=TEXT)
GITEA_STATUS = _object(
    [],
    state={"enum": ["pending", "success", "error", "failure", "warning"]},
    target_url=TEXT,
    description=TEXT,
    context=TEXT,
)

WRITES = [
    ("POST", r"/api/v3/repos/([^/]+/[^/]+)/issues/(\d+)/comments", "comment", GITHUB_COMMENT),
    ("PATCH", r"/api/v3/repos/([^/]+/[^/]+)/issues/comments/(\d+)", "edit", GITHUB_COMMENT),
    ("POST", r"/api/v3/repos/([^/]+/[^/]+)/statuses/([0-9a-f]{40})", "status", GITHUB_STATUS),
    ("POST", r"/api/v4/projects/([^/]+)/merge_requests/(\d+)/notes", "comment", GITLAB_NOTE),
    ("PUT", r"/api/v4/projects/([^/]+)/merge_requests/\d+/notes/(\d+)", "edit", GITLAB_NOTE),
    ("POST", r"/api/v4/projects/([^/]+)/statuses/([0-9a-f]{40})", "status", GITLAB_STATUS),
    ("POST", r"/api/v1/repos/([^/]+/[^/]+)/issues/(\d+)/comments", "comment", GITEA_COMMENT),
    ("PATCH", r"/api/v1/repos/([^/]+/[^/]+)/issues/comments/(\d+)", "edit", GITEA_COMMENT),
    ("POST", r"/api/v1/repos/([^/]+/[^/]+)/statuses/([0-9a-f]{40})", "status", GITEA_STATUS),
]
READS = [
    r"/api/v3/repos/([^/]+/[^/]+)/issues/(\d+)/comments",
    r"/api/v4/projects/([^/]+)/merge_requests/(\d+)/notes",
    r"/api/v1/repos/([^/]+/[^/]+)/issues/(\d+)/comments",
]


@dataclass(slots=True)
class Remark:
    id: int
    pull: int
    author: int
    body: str
    edits: int = 0


@dataclass(slots=True)
class Wall:
    """What was written at a forge. `me` is the token's account; `violations` should stay empty."""

    me: int = 4000
    names_itself: bool = True
    remarks: dict[int, Remark] = field(default_factory=dict)
    statuses: list[tuple[str, Json]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)

    def of(self, pull: int) -> list[Remark]:
        return [one for one in self.remarks.values() if one.pull == pull]

    def marks(self, commit: str) -> dict[str, Json]:
        """The newest status of each context."""
        return {said.get("context", said.get("name")): said for sha, said in self.statuses if sha == commit}

    def add(self, pull: int, body: str, author: int | None = None) -> Remark:
        made = Remark(5000 + len(self.remarks), pull, author or self.me, body)
        self.remarks[made.id] = made
        return made

    def read(self, path: str) -> Json:
        """The answer to a question about what was written, lists whole; None: it is about something else."""
        if re.fullmatch(r"/api/v\d/user", path):
            return {"id": self.me, "login": "reconciler"} if self.names_itself else (403, {"message": "no user"})
        for pattern in READS:
            if found := re.fullmatch(pattern, path):
                return [self.shown(one, lab=path.startswith("/api/v4")) for one in self.of(int(found[2]))]
        return None

    def shown(self, one: Remark, *, lab: bool) -> Json:
        who = {"id": one.author, "login": "somebody", "username": "somebody"}
        when = "2026-01-01T00:00:00Z"
        return {"id": one.id, "body": one.body, "system": False, "created_at": when, "author" if lab else "user": who}

    def write(self, method: str, path: str, body: bytes) -> tuple[int, Json]:
        """Status and JSON for a write."""
        self.writes.append(f"{method} {path}")
        for verb, pattern, kind, schema in WRITES:
            found = re.fullmatch(pattern, path)
            if verb != method or found is None:
                continue
            try:
                said = json.loads(body)
                jsonschema.validate(said, schema)
            except (ValueError, jsonschema.ValidationError) as error:
                self.violations.append(f"{method} {path}: {error}")
                return 422, {"message": "Validation Failed"}
            return getattr(self, f"_{kind}")(unquote(found[2]), said, path)  # type: ignore[no-any-return]
        self.violations.append(f"{method} {path}: no such call")
        return 404, {"message": "Not Found"}

    def _comment(self, pull: str, said: Json, path: str) -> tuple[int, Json]:
        return 201, self.shown(self.add(int(pull), said["body"]), lab="/v4/" in path)

    def _edit(self, number: str, said: Json, path: str) -> tuple[int, Json]:
        known = self.remarks.get(int(number))
        if known is None:
            return 404, {"message": "Not Found"}
        known.body, known.edits = said["body"], known.edits + 1
        return 200, self.shown(known, lab="/v4/" in path)

    def _status(self, sha: str, said: Json, path: str) -> tuple[int, Json]:
        if "/v4/" in path:
            before = self.marks(sha).get(said.get("name"))
            if before is not None and before["state"] == said["state"] == "running":
                why = 'Cannot transition status via :run from :running (Reason(s): Status cannot transition via "run")'
                return 400, {"message": why}
        self.statuses.append((sha, said))
        return 201, {"id": len(self.statuses), "status": said["state"]}
