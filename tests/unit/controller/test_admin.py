from __future__ import annotations

import getpass
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.actual.ledger import HistoryAccepted, JobDispatched, JobEnded
from reconciler.controller.admin import AdminServer
from reconciler.errors import ConfigError, PassError
from reconciler.model import Commit, UnitId
from reconciler.store.sqlite import SqliteStore
from reconciler.wire import MAX_LINE, Message, receive, send
from tests.kit.sample import NETWORK, NOW, FixedClock, dispatched, result

OLD, NEW = Commit("1" * 40), Commit("2" * 40)
ME = getpass.getuser()
UNTIL = (NOW + timedelta(hours=2)).isoformat()


@dataclass
class Heard:
    """Who was told what."""

    acts: list[tuple[str, bool, str, str]] = field(default_factory=list)

    def admin_acted(self, action: str, ok: bool, owner: str, scope: str, message: str) -> None:
        assert message
        self.acts.append((action, ok, owner, scope))


@dataclass
class Office:
    """A served socket over a real store."""

    path: Path
    store: SqliteStore
    scopes: list[str] = field(default_factory=lambda: ["prod", "prod/network", "stage", "stage/app"])
    users: tuple[str, ...] = (ME,)
    woken: threading.Event = field(default_factory=threading.Event)
    heard: Heard = field(default_factory=Heard)
    clock: FixedClock = field(default_factory=FixedClock)

    def server(self) -> AdminServer:
        return AdminServer(
            self.path, self.users, self.store, lambda: self.scopes, self.woken.set, self.clock, self, self.heard
        )

    def accept_history(self, old: Commit, new: Commit, reason: str, actor: str) -> HistoryAccepted:
        if old != OLD:
            raise PassError("HeadMoved", "that is not the accepted head")
        accepted = HistoryAccepted(old, new, (new,), (), reason)
        self.store.append(accepted, actor=actor)
        return accepted

    def raw(self, line: bytes) -> Message:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10)
            peer.connect(str(self.path))
            peer.sendall(line)
            peer.shutdown(socket.SHUT_WR)
            return receive(peer)

    def ask(self, action: str, scope: str = "prod", **more: object) -> Message:
        return self.raw(json.dumps({"action": action, "scope": scope, **more}).encode() + b"\n")

    def open(self, scope: str = "prod", minutes: int = 30, **more: object) -> Message:
        until = (NOW + timedelta(minutes=minutes)).isoformat()
        return self.ask("break-glass-open", scope, **{"reason": "the site is down", "until": until, **more})

    def close(self, scope: str = "prod", **more: object) -> Message:
        return self.ask("break-glass-close", scope, **more)

    def applied(self, *names: str) -> None:
        for name in names:
            asked = dispatched(name)
            self.store.append(JobEnded(asked, result(asked), None, NOW + timedelta(hours=1)))

    def pause(self, scope: str = "prod", **more: object) -> Message:
        return self.ask("pause", scope, **{"reason": "migration", "until": UNTIL, **more})


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    store = SqliteStore(tmp_path / "s.db", FixedClock())
    office = Office(tmp_path / "run" / "admin.sock", store)
    with office.server():
        yield office
    store.close()
    assert not office.path.exists()


def test_another_history_is_accepted_in_the_admins_name(office: Office) -> None:
    answer = office.ask("accept-history", "all", old=OLD, new=NEW, reason="it was meant")
    assert str(answer["message"]).startswith(f"{NEW} is accepted in place of {OLD}; 1 commits were proven")
    (event,) = office.store.history("all", 1)
    assert (event.action, event.actor) == ("history-accepted", ME)
    assert event.body == {"old": OLD, "new": NEW, "chain": [NEW], "abandoned": [], "reason": "it was meant"}
    assert office.heard.acts == [("accept-history", True, ME, "all")]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"old": NEW}, "that is not the accepted head"),
        ({"old": OLD[:39]}, "40 lower-case hex digits"),
        ({"new": "A" * 40}, "40 lower-case hex digits"),
        ({"new": None}, "40 lower-case hex digits"),
        ({"reason": " "}, "--reason"),
    ],
)
def test_a_history_that_is_not_accepted_changes_nothing(office: Office, more: dict[str, object], says: str) -> None:
    answer = office.ask("accept-history", "all", **{"old": OLD, "new": NEW, "reason": "it was meant", **more})
    assert says in str(answer["error"])
    assert office.store.ledger().head is None


def test_a_pause_is_journaled_with_its_owner_and_wakes_the_loop(office: Office) -> None:
    answer = office.pause()
    assert answer == {"message": "prod is paused until 2026-11-24 12:00 UTC; applies that run now end", "warning": None}
    (one,) = office.store.ledger().pauses
    assert (one.scope, one.owner, one.reason, one.since, one.until) == (
        "prod",
        ME,
        "migration",
        NOW,
        NOW + timedelta(hours=2),
    )
    assert office.store.history("prod", 1)[0].actor == ME
    assert office.woken.is_set()
    assert office.heard.acts == [("pause", True, ME, "prod")]


def test_a_resume_ends_it(office: Office) -> None:
    office.pause()
    assert office.ask("resume")["message"] == "prod is resumed"
    assert office.store.ledger().pauses == ()


def test_what_is_not_paused_cannot_be_resumed(office: Office) -> None:
    office.pause("stage")
    assert office.ask("resume")["error"] == "scope: 'prod' is not paused; paused is: stage"


def test_a_session_is_journaled_with_its_owner_and_says_what_it_is(office: Office) -> None:
    answer = office.open()
    assert answer == {
        "message": "prod is open until 2026-11-24 10:30 UTC: no apply begins there, and the clock closes it. This is a pause with an "
        "audit: it grants nothing, and who may write by hand is up to the accounts",
        "warning": None,
    }
    (one,) = office.store.ledger().sessions
    assert (one.scope, one.owner, one.reason, one.since) == ("prod", ME, "the site is down", NOW)
    assert (office.store.history("prod", 1)[0].action, office.store.history("prod", 1)[0].actor) == (
        "break-glass-opened",
        ME,
    )
    assert office.woken.is_set()
    assert office.heard.acts == [("break-glass-open", True, ME, "prod")]


def test_it_says_what_may_be_applying_right_now(office: Office) -> None:
    office.store.append(*(JobDispatched(dispatched(f"prod/n{number:02}")) for number in range(12)))
    office.store.append(JobDispatched(dispatched("stage/app")))
    warning = str(office.open()["warning"])
    assert warning.startswith("jobs of prod/n00, prod/n01")
    assert warning.endswith("prod/n09 and 2 more may be applying: let them end before you touch what is theirs")
    office.scopes = []
    assert "not known yet" in str(office.open("stage")["warning"])
    assert "jobs of stage/app may be applying" in str(office.open("stage/app")["warning"])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"minutes": 61},
            "a break-glass session ends by 2026-11-24T11:00+00:00 (admin.break_glass of reconciler.yaml)",
        ),
        ({"minutes": 0}, "is over"),
        ({"reason": " "}, "say why"),
        ({"scope": "prd"}, "there is: all, prod"),
    ],
)
def test_a_session_that_is_refused_changes_nothing(office: Office, more: dict[str, object], says: str) -> None:
    assert says in str(office.open(**more)["error"])  # type: ignore[arg-type]
    assert office.store.verify() == 0


def test_an_open_session_is_not_made_longer(office: Office) -> None:
    office.open()
    assert "prod is open until 2026-11-24 10:30 UTC by " in str(office.open(minutes=40)["error"])
    office.clock.time = NOW + timedelta(minutes=31)  # its time is up, and the loop has not yet said so
    assert "message" in office.open(minutes=40)
    assert [one.action for one in office.store.history("prod", 2)] == ["break-glass-opened", "break-glass-closed"]


def test_what_was_open_is_looked_at_once_it_is_closed(office: Office) -> None:
    office.applied("prod/network", "stage/app")
    assert office.close()["error"] == "scope: 'prod' is not open; open is: nothing"
    office.open()
    assert office.close("stage")["error"] == "scope: 'stage' is not open; open is: prod"
    said = str(office.close()["message"])
    assert said.startswith("prod is closed; 1 units are planned first. One that is in sync goes on")
    units = office.store.ledger().units
    assert office.store.ledger().sessions == ()
    assert (units[NETWORK].aftermath is None, units[UnitId("stage/app")].aftermath is None) == (False, True)


def test_what_was_done_by_hand_is_given_up_only_by_name_and_with_a_reason(office: Office) -> None:
    office.applied("prod/network", "prod/app")
    office.scopes.append("prod/app")
    assert "nothing in 'prod' waits" in str(office.close(accept_loss="yes", reason="a test")["error"])
    office.open()
    assert "still works by hand in prod" not in str(office.close("stage", accept_loss="yes", reason="r")["error"])
    assert "say why" in str(office.close(accept_loss="yes")["error"])
    assert len(office.store.ledger().sessions) == 1
    office.close()
    office.open("prod/app")
    refused = str(office.close(accept_loss="yes", reason="a test")["error"])
    assert "still works by hand in prod/app; close that session first" in refused
    said = office.close("prod/app", accept_loss="yes", reason="a test")
    assert said["message"] == (
        "prod/app: the next applies may put back what was done by hand in 1 units; each is planned first"
    )
    units = office.store.ledger().units
    marks = [units[UnitId(name)].aftermath for name in ("prod/app", "prod/network")]
    assert [mark is not None and mark.accepted for mark in marks] == [True, False]
    (event,) = office.store.history("prod/app", 1)
    assert (event.action, event.actor, event.body["reason"]) == ("loss-accepted", ME, "a test")


def test_a_session_outlives_whoever_opened_it(office: Office) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(office.path))
        until = (NOW + timedelta(minutes=5)).isoformat()
        send(peer, {"action": "break-glass-open", "scope": "prod", "reason": "r", "until": until})
    assert office.woken.wait(60)
    assert [one.scope for one in office.store.ledger().sessions] == ["prod"]


def test_reconcile_makes_the_units_of_the_scope_due(office: Office) -> None:
    asked = dispatched()
    office.store.append(JobEnded(asked, result(asked), None, NOW + timedelta(hours=1)))
    assert office.ask("reconcile")["message"] == "1 units of prod are looked at now"
    assert office.store.ledger().units[NETWORK].next_check == NOW
    assert office.ask("reconcile", "all")["message"] == "2 units of all are looked at now"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"reason": ""}, "say why"),
        ({"reason": None}, "say why"),
        ({"reason": "two\nlines"}, "say why"),
        ({"reason": "x" * 501}, "say why"),
        ({"until": None}, "say until when"),
        ({"until": "tomorrow"}, "say until when"),
        ({"until": "2026-11-25T10:00"}, "with a time zone"),
        ({"until": NOW.isoformat()}, "is over"),
        ({"until": (NOW + timedelta(days=31)).isoformat()}, "within 30 days"),
        ({"scope": "prd"}, "no environment or unit is called 'prd'; there is: all, prod"),
        ({"scope": "zzzzzz"}, "there is: all, prod, stage"),
        ({"scope": ""}, "scope: write `all`"),
        ({"action": "destroy"}, "there is pause, resume, break-glass-open, break-glass-close, reconcile"),
    ],
)
def test_what_is_refused_changes_nothing_and_says_what_to_do(
    office: Office, more: dict[str, object], says: str
) -> None:
    request = {"action": "pause", "scope": "prod", "reason": "migration", "until": UNTIL, **more}
    answer = office.raw(json.dumps(request).encode() + b"\n")
    assert says in str(answer["error"])
    assert office.store.verify() == 0
    assert not office.woken.is_set()
    assert [ok for _, ok, _, _ in office.heard.acts] == [False]


def test_with_nothing_known_a_pause_is_taken_with_a_warning(office: Office) -> None:
    office.scopes = []
    answer = office.pause("prod/anything")
    assert "not known yet" in str(answer["warning"])
    assert office.store.ledger().pauses[0].scope == "prod/anything"
    assert office.pause("all")["warning"] is None


def test_another_user_is_refused(office: Office, tmp_path: Path) -> None:
    office.path = tmp_path / "run" / "other.sock"
    office.users = ("nobody-here",)
    with office.server():
        assert "user " + ME + " is not in admin.users" in str(office.pause()["error"])
    assert office.store.verify() == 0


@pytest.mark.parametrize("line", [b"no json\n", b"[]\n", b"{", b'"x"\n'])
def test_what_is_no_request_is_refused(office: Office, line: bytes) -> None:
    assert "send one line of JSON" in str(office.raw(line)["error"])


def test_a_line_without_end_is_cut(office: Office) -> None:
    assert f"more than {MAX_LINE} bytes" in str(office.raw(b"x" * (MAX_LINE + 1))["error"])


def test_a_peer_that_says_nothing_holds_nobody_up(office: Office) -> None:
    with socket.socket(socket.AF_UNIX) as idle:
        idle.connect(str(office.path))
        assert office.pause()["message"]


def test_a_peer_that_leaves_at_once_harms_nothing(office: Office) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(office.path))
        send(peer, {"action": "pause", "scope": "prod", "reason": "r", "until": UNTIL})
    assert office.woken.wait(60)
    assert office.ask("resume")["message"] == "prod is resumed"


def test_a_store_that_cannot_write_is_said(office: Office) -> None:
    (pages,) = office.store._db.execute("PRAGMA page_count").fetchone()
    office.store._db.execute(f"PRAGMA max_page_count = {pages}")
    for n in range(200):  # the last page has some room left
        answer = office.pause(reason=f"{n:0500}")
        if "error" in answer:
            break
    assert answer["reason"] == "StoreFull"
    assert "Free space" in str(answer["error"])


def test_only_the_owner_can_open_the_socket(office: Office) -> None:
    assert office.path.stat().st_mode & 0o777 == 0o600
    assert office.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_socket_that_a_dead_daemon_left_is_replaced(office: Office, tmp_path: Path) -> None:
    office.path = tmp_path / "run" / "stale.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(office.path))
    with office.server():
        assert office.pause()["message"]


def test_a_socket_that_is_in_use_is_left_alone(office: Office) -> None:
    with pytest.raises(ConfigError, match="another daemon listens"):
        office.server().start()
    assert office.pause()["message"]


def test_a_socket_that_cannot_be_made_is_said(office: Office, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    office.path = tmp_path / "file" / "admin.sock"
    with pytest.raises(ConfigError, match=r"admin\.socket"):
        office.server().start()
    office.path = tmp_path / "run" / "admin.sock"


def test_stopping_twice_is_no_harm(office: Office, tmp_path: Path) -> None:
    office.path = tmp_path / "run" / "twice.sock"
    server = office.server()
    server.start()
    server.stop()
    server.stop()
