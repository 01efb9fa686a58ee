"""What a team lives through in its first week, played on real processes in a minute: `reconciler demo --check`."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reconciler.demo.forge import ENVIRONMENT, git
from reconciler.demo.planes import Planes, Row
from reconciler.errors import ConfigError

Told = str  # what was seen, in a line or a few

NETWORK = "networks/main/network.json"
API = "services/api-dev-a/service.json"
WEB_DEV = "services/web-dev-a/service.json"
WEB_PROD = "services/web-prod-a/service.json"
WEB_STAGE = "services/web-stage-a"


class Story:
    """The steps, in order. Each waits for what it promises, and raises ConfigError if that does not come."""

    def __init__(self, planes: Planes) -> None:
        self.planes = planes
        self.place = planes.playground
        self._removed = ""  # the entry that `removal` takes away and `destruction` brings back

    def steps(self) -> Iterator[tuple[str, Callable[[], Told]]]:
        """Every step with its name."""
        yield "first deploy of every environment", self.first_deploy
        yield "a direct push to main is refused", self.refused_push
        yield "a merged change reaches the real world by itself", self.merged_change
        yield "tampering is found and put back", self.tampering
        yield "a pause holds, and still shows what waits", self.pause
        yield "a broken entry is a problem of that entry only", self.broken_entry
        yield "a removed file orphans, and destroys nothing", self.removal
        yield "state: absent with allow_destroy destroys", self.destruction
        yield "nothing was ever done twice", self.nothing_doubled

    # --- the steps

    def first_deploy(self) -> Told:
        """Everything that the repository says becomes real, upstream first."""
        self.planes.until(lambda: self._all(self.planes.units(), sync="Synced"), "every unit is Synced", 180)
        units = self.planes.units()
        environments = {row["environment"] for row in units.values()}
        objects = sum(1 for path in self.place.world.rglob("*") if path.is_file()) - 1  # the log of calls is none
        return f"{len(units)} units in {len(environments)} environments, {objects} objects in world/"

    def refused_push(self) -> Told:
        """Nobody holds a key to production, and nobody pushes past the review."""
        before = self.place.environments.head
        self._edit("environments/prod/network.yaml", "10.30.0.0/16", "10.99.0.0/16", "A change nobody reviewed")
        said = self._push("main")
        self._must(said.returncode != 0 and "main is protected" in said.stderr, f"git push said: {said.stderr}")
        self._must(self.place.environments.head == before, "main moved all the same")
        git(self.place.clone, "reset", "--quiet", "--hard", "origin/main")
        return next(text.strip() for text in said.stderr.splitlines() if "main is protected" in text)

    def merged_change(self) -> Told:
        """Edit, branch, push, merge: then hands off."""
        mark = self.planes.mark()
        merged = self._change("api-2.4.0", "environments/dev/service-api.yaml", "api:2.3.1", "api:2.4.0")
        target = self._object("dev", API)
        self.planes.until(lambda: "api:2.4.0" in target.read_text(encoding="utf-8"), f"the new image in {target}")
        seconds = time.monotonic() - merged
        self._settled("dev/service-api")
        ran = sorted({d["job"]["unit"] for d in self.planes.dispatched(mark)})
        self._must(ran == ["dev/service-api"], f"jobs ran for {ran}")
        return (
            f"{seconds:.1f} s from the merge to the file; of {len(self.planes.units())} units only dev/service-api ran"
        )

    def tampering(self) -> Told:
        """Someone changes production by hand."""
        target, mark = self._object("prod", NETWORK), self.planes.mark()
        before = target.read_bytes()
        target.write_bytes(before.replace(b"10.30.0.0/16", b"0.0.0.0/0"))
        self._must(target.read_bytes() != before, f"{target} holds no 10.30.0.0/16")
        self._command("reconcile", "prod/network")  # else the next check: every drift_interval
        self.planes.until(lambda: target.read_bytes() == before, f"{target} is as it was")
        self._settled("prod/network")
        causes = {d["cause"] for d in self.planes.dispatched(mark) if d["job"]["unit"] == "prod/network"}
        self._must(causes == {"drift"}, f"the cause was called {causes}")
        return "prod/network drifted (0.0.0.0/0 instead of 10.30.0.0/16) and was put back"

    def pause(self) -> Told:
        """Stop changes to prod for a while; merges go on, and what waits can be seen."""
        target = self._object("prod", WEB_PROD)
        before = target.read_bytes()
        self._command("pause", "prod", "--reason", "the auditors are here", "--until", "1h")
        self._change("web-2.4.0", "environments/prod/service-web.yaml", "web:2.3.1", "web:2.4.0")
        held = self.planes.until(lambda: self._planned_while_paused("prod/service-web"), "prod/service-web is planned")
        self._must(target.read_bytes() == before, f"{target} was changed while prod was paused")
        shown = ", ".join(change["address"] for change in held["plan"]["changes"])
        self._command("resume", "prod")
        self.planes.until(lambda: b"web:2.4.0" in target.read_bytes(), f"the new image in {target}")
        self._settled("prod/service-web")
        return f"planned and held ({held['reason']}): {shown}; applied after resume"

    def broken_entry(self) -> Told:
        """One merge breaks an entry and changes another."""
        stage = self.place.read("environments/stage/service-web.yaml")
        dev = self.place.read("environments/dev/service-web.yaml")
        self.place.merge({
            "environments/stage/service-web.yaml": stage.replace('version: "1.0.0"', 'version: "1.9.0"'),
            "environments/dev/service-web.yaml": dev.replace("replicas: 1", "replicas: 2"),
        }, "One good change, one bad")  # fmt: skip
        target = self._object("dev", WEB_DEV)
        self.planes.until(lambda: b'"replicas":2' in target.read_bytes(), f"two replicas in {target}")
        units = self.planes.units()
        troubled = sorted(name for name, row in units.items() if row["health"] == "Degraded")
        self._must(troubled == ["stage/service-web"], f"degraded are {troubled}")
        self.place.merge({"environments/stage/service-web.yaml": stage}, "Put it right")
        self._settled("stage/service-web", "dev/service-web")
        return str(units["stage/service-web"]["message"])

    def removal(self) -> Told:
        """A file goes; the objects are still somebody's."""
        path = "environments/stage/service-web.yaml"
        self._removed, before = self.place.read(path), self._objects("stage", WEB_STAGE)
        self.place.merge({path: None}, "Remove an entry")
        seen = self.planes.until(lambda: self._held("stage/service-web", "Orphaned"), "stage/service-web is Orphaned")
        self._must(self._objects("stage", WEB_STAGE) == before, "an object is gone")
        return f"{seen['health']}, {seen['reason']}: {seen['message']}"

    def destruction(self) -> Told:
        """Said in the entry, reviewed, merged."""
        path, before = "environments/stage/service-web.yaml", self._objects("stage", WEB_STAGE)
        self.place.merge({path: f"{self._removed}state: absent\n"}, "Destroy it, without an allowance")
        held = self.planes.until(lambda: self._held("stage/service-web", "DestroyLimit"), "DestroyLimit holds")
        self._must(self._objects("stage", WEB_STAGE) == before, "an object is gone")
        self.place.merge({path: f"{self._removed}state: absent\nallow_destroy: {len(before)}\n"}, "Destroy it")
        self.planes.until(lambda: not self._objects("stage", WEB_STAGE), "the objects are gone")
        self._settled("stage/service-web")
        return f"held first ({held['reason']}), then {len(before)} objects destroyed"

    def nothing_doubled(self) -> Told:
        """The provider's own log is the witness."""
        calls = (self.place.world / "calls.log").read_text(encoding="utf-8")
        for betrayal in ('"adopted"', '"exists"'):
            self._must(betrayal not in calls, f"world/calls.log has an object that was created twice: {betrayal}")
        made = calls.count('"created"')
        return f"{made} creates in world/calls.log, 0 doubled"

    # --- what the steps are made of

    def _change(self, branch: str, path: str, old: str, new: str) -> float:
        """What a person does: edit in the clone, branch, push, merge. Returns when it was merged."""
        git(self.place.clone, "fetch", "--quiet")
        git(self.place.clone, "switch", "--quiet", "--create", branch, "origin/main")
        self._edit(path, old, new, f"{path}: {new}")
        said = self._push(branch)
        self._must(said.returncode == 0, f"git push said: {said.stderr}")
        merged = time.monotonic()
        self.place.environments.merge_branch(branch)
        git(self.place.clone, "switch", "--quiet", "main")
        git(self.place.clone, "pull", "--quiet", "--ff-only")
        return merged

    def _edit(self, path: str, old: str, new: str, message: str) -> None:
        file = self.place.clone / path
        text = file.read_text(encoding="utf-8")
        self._must(old in text, f"{path} does not contain {old}")
        file.write_text(text.replace(old, new), encoding="utf-8")
        git(self.place.clone, "commit", "--quiet", "--all", "--message", message)

    def _push(self, branch: str) -> subprocess.CompletedProcess[str]:
        argv = ["git", "push", "--quiet", "origin", branch]
        env = {"PATH": os.environ.get("PATH", os.defpath), **ENVIRONMENT}
        return subprocess.run(argv, cwd=self.place.clone, env=env, capture_output=True, text=True, check=False)

    def _command(self, *words: str) -> None:
        done = self.planes.command(*words)
        self._must(done.returncode == 0, f"reconciler {' '.join(words)} said: {done.stderr.strip()}")

    def _settled(self, *names: str) -> None:
        def settled() -> bool:
            return all(row["sync"] == "Synced" and not row["job"] for row in map(self.planes.unit, names))

        self.planes.until(settled, f"{', '.join(names)} Synced")

    def _held(self, name: str, reason: str) -> Row | None:
        row = self.planes.unit(name)
        return row if row["reason"] == reason else None

    def _planned_while_paused(self, name: str) -> Row | None:
        row = self._held(name, "Paused")
        return row if row and row["plan"] and row["plan"]["pending"] and not row["job"] else None

    def _object(self, environment: str, path: str) -> Path:
        return self.place.world / "eu-west-1" / environment / path

    def _objects(self, environment: str, path: str) -> list[str]:
        folder = self._object(environment, path)
        return sorted(found.name for found in folder.rglob("*") if found.is_file()) if folder.exists() else []

    @staticmethod
    def _all(units: dict[str, Row], **wanted: Any) -> bool:
        return bool(units) and all(row[field] == value for row in units.values() for field, value in wanted.items())

    @staticmethod
    def _must(holds: bool, otherwise: str) -> None:
        if not holds:
            raise ConfigError(otherwise)
