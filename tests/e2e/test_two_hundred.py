from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.kit.graph import CATALOG, Graph
from tests.kit.house import House, house

GRAPH = Graph(chains=10, length=5, leaves=150)
LINKS = {link.name: link for link in GRAPH.links()}
BOTH = {"executor": {"local": {"workers": 2, "per_environment": 2}}}

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Event:
    """A journaled event of a job."""

    seq: int
    action: str
    name: str
    body: dict[str, Any]


def in_order(home: House) -> None:
    """Wait until every unit is as the newest commit says. Few questions: whoever watches costs time, too."""
    commit = home.ground.environments.head

    def reached() -> bool:
        found = home.get(f"/api/v1/commits/{commit}")
        return bool(found["accepted"]) and not found["waiting"]

    home.until(reached, "every unit is as the newest commit says", 800)


def journal(home: House) -> list[Event]:
    """Every event of any job, oldest first: from the file, since the API shows the newest only."""
    query = "SELECT seq, action, unit, body FROM events WHERE action LIKE 'job-%' ORDER BY seq"
    path = home.ground.folder / "controller" / "reconciler.db"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return [
            Event(seq, action, unit.partition("/")[2], json.loads(body))
            for seq, action, unit, body in db.execute(query)
        ]


def change(home: House, name: str, **fields: Any) -> list[str]:
    """Merge a change of one entry; the units for which a job was started because of it, as they were started."""
    before = journal(home)[-1].seq
    LINKS[name] = replace(LINKS[name], **fields)
    home.ground.merge({LINKS[name].path: LINKS[name].entry})
    in_order(home)
    return [e.name for e in journal(home) if e.seq > before and e.action == "job-dispatched"]


def test_two_hundred_units_are_deployed_in_order_and_a_change_starts_what_it_must(tmp_path: Path) -> None:
    with house(tmp_path / "house", GRAPH.files(), CATALOG, controller=BOTH) as home:
        home.start()
        in_order(home)
        deployed_in_order(journal(home))

        # Nobody reads the note: one job.
        assert change(home, "chain-3-1", note="for people") == ["chain-3-1"]
        # The third of a chain reads what changed, and gives the same as before: the fourth has nothing to do.
        assert change(home, "chain-7-0", label="other") == ["chain-7-0", "chain-7-1", "chain-7-2"]
        # A comment is no change.
        before = len(journal(home))
        home.ground.merge({LINKS["leaf-9"].path: f"# a comment\n{LINKS['leaf-9'].entry}"})
        in_order(home)
        assert len(journal(home)) == before


def deployed_in_order(events: list[Event]) -> None:
    """Each unit by one job, which began when the job of the unit that it reads had ended."""
    dispatched = {event.name: event for event in events if event.action == "job-dispatched"}
    ended = {event.name: event for event in events if event.action == "job-ended"}

    assert len(LINKS) == 200
    assert len(events) == 400
    assert dispatched.keys() == ended.keys() == LINKS.keys()
    assert {event.body["result"]["reason"] for event in ended.values()} == {"Applied"}
    for link in LINKS.values():
        if link.reads is not None:
            assert ended[link.reads].seq < dispatched[link.name].seq, link
            was = datetime.fromisoformat(ended[link.reads].body["result"]["ended_at"])
            assert was <= datetime.fromisoformat(ended[link.name].body["result"]["started_at"]), link
