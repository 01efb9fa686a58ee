"""The commands against a served installation: real HTTP, a real admin socket, a real store."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from reconciler.actual.ledger import Frozen, HeadAccepted, HoldChanged, JobDispatched, JobEnded, Paused, Started
from reconciler.cli import COMMANDS, cli, main
from reconciler.cli.show import plain, printable
from reconciler.cli.times import Moment, duration
from reconciler.git.proofs import Proof
from reconciler.model import Commit, Hold, Outcome, Stray, UnitId
from reconciler.trust import Seen, Standing, Unproven
from reconciler.web.view import Check
from tests.kit.sample import APP, HEAD, NETWORK, NOW, desired, dispatched, pause, plan, planned, result, unit
from tests.kit.served import Installation, Served, serve

CHANGES = plan(("file.a", ("create",)), ("file.b", ("delete", "create")))
OTHER = Commit("a" * 40)
SERVED = ("status", "diff", "explain", "history", "logs", "wait", "orphans")


@dataclass
class Shell:
    """Runs commands and keeps what they printed."""

    served: Served
    capture: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    @property
    def installation(self) -> Installation:
        return self.served.installation

    def __call__(self, *words: str) -> int:
        where = ("--server", self.served.server) if words[0] in SERVED else ("--socket", str(self.served.socket))
        code = main([words[0], *where, *words[1:]])
        self.out, self.err = self.capture.readouterr()
        return code

    def data(self, *words: str) -> Any:
        self(*words, "-o", "json")
        return json.loads(self.out)

    def apply(self, name: str, **changes: Any) -> None:
        fingerprint = self.installation.picture().expected[UnitId(name)]
        assert fingerprint is not None
        asked = dispatched(name, fingerprint, job=f"job-{name.replace('/', '-')}")
        ended = replace(result(asked, summary=CHANGES), **changes)
        self.installation.store.append(JobEnded(asked, ended, None, NOW + timedelta(hours=1)))


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    served = serve(tmp_path)
    served.installation.desired = desired(unit("prod/network"), unit("prod/app", reads=["prod/network"]))
    with served.stack:
        yield Shell(served, capsys)


# --- orphans -----------------------------------------------------------------------------------------------------

STRAY = Stray(
    "aws_vpc", "module.unit.aws_vpc.this", "arn:aws:ec2:r:1:vpc/vpc-1", "r", "EC2 has it", "delete it with `x`"
)


def test_orphans_are_objects_without_a_state_and_units_without_an_entry(shell: Shell) -> None:
    shell.installation.store.append(HeadAccepted(HEAD))
    shell.apply("prod/network")
    shell.apply("prod/app", outcome=Outcome.HELD, reason="Uncertain", message="m", applied=None, strays=(STRAY,))
    assert shell("orphans") == 3
    assert "arn:aws:ec2:r:1:vpc/vpc-1" in shell.out
    said = {"unit": "prod/app", "type": "aws_vpc", "address": "module.unit.aws_vpc.this", "id": STRAY.id}
    said |= {"region": "r", "found": "EC2 has it", "remedy": "delete it with `x`"}
    assert shell.data("orphans", "prod/app") == {"strays": [said], "units": []}
    assert shell("orphans", "prod/network") == shell("orphans", "stage") == 0
    assert shell.out == ""
    assert shell("explain", "prod/app") == 0
    assert "ORPHAN?" in shell.out
    metrics = shell.installation.metrics().decode()
    assert 'reconciler_orphaned_resources{environment="prod"} 1.0' in metrics
    assert 'reconciler_uncertain_units{environment="prod"} 1.0' in metrics

    shell.apply("prod/app", strays=None)  # a job that did not come so far knows nothing else
    assert shell("orphans") == 3
    shell.apply("prod/app", strays=())
    assert shell("orphans") == 0
    shell.installation.desired = desired(unit("prod/network"))
    assert shell("orphans") == 3
    assert [one["unit"] for one in shell.data("orphans")["units"]] == ["prod/app"]


# --- status ------------------------------------------------------------------------------------------------------


def test_status_is_a_table_of_units(shell: Shell) -> None:
    shell.installation.store.append(HeadAccepted(HEAD))
    shell.apply("prod/network")
    assert shell("status") == 0
    lines = shell.out.splitlines()
    assert lines[0] == f"Commit:       {HEAD[:12]}"
    assert lines[2].split() == ["UNIT", "SYNC", "HEALTH", "PHASE", "REASON", "MESSAGE"]
    assert [line.split()[:3] for line in lines[3:]] == [
        ["prod/app", "OutOfSync", "Missing"],
        ["prod/network", "Synced", "Healthy"],
    ]
    assert "\x1b" not in shell.out


def test_status_exits_by_what_the_scope_has(shell: Shell) -> None:
    shell.installation.store.append(HoldChanged(APP, Hold("PolicyMismatch", "the host wins")))
    assert shell("status") == 3
    assert "the host wins" in shell.out
    assert shell("status", "prod/app") == 3
    assert shell("status", "prod/network") == 0
    assert shell("status", "--health", "Missing") == 0
    assert shell("status", "--sync", "Synced") == 0
    assert "No unit matches" in shell.err


def test_status_shows_what_stops_everything(shell: Shell) -> None:
    shell.installation.desired = desired(broken=["prod/bad"])
    shell.installation.store.append(Frozen(Hold("HistoryRewritten", "see docs")), Paused(pause("prod")))
    assert shell("status") == 3
    assert "Frozen:       HistoryRewritten see docs" in shell.out
    assert "prod by ann until 2026-11-24 11:00:00 UTC: migration" in shell.out
    assert "environments/prod/bad.yaml:3:10: no" in shell.out


def test_status_tells_what_of_the_branch_is_not_accepted(shell: Shell) -> None:
    shell.installation.desired = desired()
    shell.installation.store.append(HeadAccepted(HEAD))
    assert shell("status") == 0
    shell.installation.seen = Seen(NOW, Unproven(OTHER, "SignatureMissing", f"{OTHER}: sign it", OTHER))
    assert shell("status") == 3
    assert f"Unproven:     SignatureMissing aaaaaaaaaaaa: {OTHER}: sign it" in shell.out
    shell.installation.store.append(Frozen(Hold("HistoryRewritten", "see docs"), NOW))
    shell("status")
    assert f"Frozen since: 2026-11-24 10:00:00 UTC at the accepted head {HEAD}" in shell.out


def test_accept_history_is_told_to_the_daemon_and_journaled(shell: Shell) -> None:
    assert shell("accept-history", HEAD, OTHER, "--reason", "known") == 0
    assert f"{OTHER} is accepted in place of {HEAD}; 1 commits were proven for it, and 1 are abandoned" in shell.out
    assert "`reconciler runner`" in shell.out
    assert (shell.installation.store.ledger().head, shell.installation.store.ledger().base) == (OTHER, OTHER)
    shell("history")
    assert f"aaaaaaaaaaaa in place of {HEAD[:12]}: known" in shell.out
    assert shell("accept-history", HEAD[:12], OTHER, "--reason", "known") == 1
    assert "40 lower-case hex digits" in shell.err
    assert shell("accept-history", HEAD, OTHER) == 64


def test_status_tells_why_the_daemon_is_not_ready_or_may_soon_not_be(shell: Shell) -> None:
    shell.installation.ready |= {"git": Check(True, "the last poll failed"), "runner": Check(False, "start it")}
    assert shell("status") == 0
    assert "Git:          the last poll failed\nRunner:       start it\n" in shell.out
    assert "Store:" not in shell.out


def test_status_for_programs_has_every_page(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.cli.status._PAGE", 1)
    seen = shell.data("status")
    assert [one["unit"] for one in seen["units"]] == ["prod/app", "prod/network"]
    assert seen["frozen"] is None


def test_what_a_message_holds_reaches_no_terminal_as_control_codes(shell: Shell) -> None:
    shell.installation.store.append(HoldChanged(APP, Hold("R", "\x1b[31mred\x07 [bold]not markup[/bold]")))
    shell("status")
    assert "\x1b" not in shell.out
    assert " [31mred  [bold]not markup[/bold]" in shell.out


# --- diff, explain, history --------------------------------------------------------------------------------------


def test_explain_and_history_lead_to_the_pull_request(shell: Shell) -> None:
    shell.apply("prod/network")
    shell.installation.store.append(HeadAccepted(HEAD))
    shell.installation.proofs[HEAD] = Proof(HEAD, NOW, "ann@example.com", "SHA256:abc", 412, "bo", ("ann", "cy"))
    assert shell("history", "-n", "5") == 0
    assert "by pull request #412" in shell.out
    shell.installation.forge = "https://github.com/acme/environments"
    link = "pull request #412 https://github.com/acme/environments/pull/412"
    shell("explain", "prod/network")
    assert f"{link} by bo, approved by ann, cy signed by ann@example.com" in " ".join(shell.out.split())
    shell("history", "-n", "5")
    assert link in " ".join(shell.out.split())
    told = shell.data("explain", "prod/network")["trace"]["desired"]
    assert (told["pull"]["number"], told["signer"], told["approvers"]) == (412, "ann@example.com", ["ann", "cy"])


def test_diff_of_a_unit_that_is_in_order(shell: Shell) -> None:
    shell.apply("prod/network")
    assert shell("diff", "prod/network") == 0
    assert shell.out == ""
    assert "as its entry says" in shell.err


def test_diff_shows_the_pending_plan(shell: Shell) -> None:
    shell.apply("prod/network")
    asked = dispatched("prod/network", job="j2")
    drift = replace(result(asked, summary=CHANGES), applied=None, ended_at=planned(CHANGES).at)
    shell.installation.store.append(JobEnded(asked, drift, None, None))
    assert shell("diff", "prod/network") == 2
    assert [line.split() for line in shell.out.splitlines()[-3:]] == [
        ["ACTION", "ADDRESS", "WHY"],
        ["create", "file.a"],
        ["replace", "file.b"],
    ]
    seen = shell.data("diff", "prod/network")
    assert seen["different"] is True
    assert len(seen["plan"]["changes"]) == 2


def test_diff_says_how_much_it_leaves_out(shell: Shell) -> None:
    shell.apply("prod/network")
    asked = dispatched("prod/network", job="j2")
    summary = replace(CHANGES, more=7)
    drift = replace(result(asked, summary=summary), applied=None, ended_at=planned(summary).at)
    shell.installation.store.append(JobEnded(asked, drift, None, None))
    assert shell("diff", "prod/network") == 2
    assert shell.out.splitlines()[-1] == "... and 7 more"
    assert shell.data("diff", "prod/network")["plan"]["more"] == 7


def test_diff_without_a_plan_says_what_to_ask(shell: Shell) -> None:
    assert shell("diff", "prod/app") == 2
    assert "Applied:      never" in shell.out
    assert "acme/vpc 1.4.2 present" in shell.out
    assert "reconciler explain prod/app" in shell.err


def test_explain_tells_the_story_of_a_unit(shell: Shell) -> None:
    shell.apply("prod/network")
    shell.installation.store.append(HoldChanged(APP, Hold("DependencyNotReady", "prod/network has a change")))
    assert shell("explain", "prod/app") == 0
    assert "Status:       OutOfSync Missing DependencyNotReady prod/network has a change" in shell.out
    assert "Depends on:" in shell.out
    assert "Next:         it goes on by itself" in shell.out
    assert shell("explain", "prod/network") == 0
    assert "Followed by:" in shell.out
    assert "by job job-prod-network" in shell.out
    assert "a look for drift at 2026-11-24 11:00:00 UTC" in shell.out
    assert shell.data("explain", "prod/app")["unit"] == "prod/app"


def next_of(shell: Shell, name: str = "prod/network") -> str:
    assert shell("explain", name) == 0
    return shell.out.splitlines()[-1].removeprefix("Next:").strip()


def test_explain_says_what_comes_next(shell: Shell) -> None:
    store = shell.installation.store
    assert next_of(shell) == "a job, as soon as it is its turn"
    shell.apply("prod/network", outcome=Outcome.FAILED, applied=None, message="it went wrong")
    assert "Failure:      Failed" in (shell("explain", "prod/network"), shell.out)[1]
    assert "it is tried again when its input changes, and not before" in next_of(shell)
    asked = dispatched("prod/network")
    store.append(JobEnded(asked, result(asked, Outcome.FAILED), NOW + timedelta(minutes=5), None))
    assert "it is tried again at" in next_of(shell)
    store.append(Paused(pause("prod")))
    assert next_of(shell).endswith("`reconciler resume prod` ends the pause")
    store.append(JobDispatched(dispatched("prod/network")))
    assert "`reconciler logs -f j1`" in next_of(shell)
    shell.installation.desired = desired(broken=["prod/bad"])
    assert next_of(shell, "prod/bad") == "correct the entry and merge; until then nothing is changed"


def test_history_is_newest_first(shell: Shell) -> None:
    store = shell.installation.store
    store.append(Started("0.1.0", 1), HeadAccepted(HEAD), actor="daemon")
    store.append(JobDispatched(dispatched("prod/network")), Paused(pause("prod")), HoldChanged(NETWORK, None))
    shell.apply("prod/network")
    assert shell("history") == 0
    assert [line.split("  ")[0] for line in shell.out.splitlines()[1:]] == ["2026-11-24 10:00:00 UTC"] * 6
    assert "apply at 4b1d4b1d4b1d because of desired, job j1" in shell.out
    assert "Succeeded 3 objects created (job job-prod-network)" in shell.out
    assert shell("history", "prod/network", "-n", "1") == 0
    assert len(shell.out.splitlines()) == 2
    assert shell.data("history", "prod/network")[-1]["action"] == "job-dispatched"
    assert shell("history", "stage") == 0
    assert "The journal has nothing of stage" in shell.err


# --- logs --------------------------------------------------------------------------------------------------------


def test_logs_of_a_job_and_of_a_unit(shell: Shell) -> None:
    (shell.installation.logs / "job-prod-network").write_text("Apply complete!\n")
    shell.apply("prod/network")
    assert shell("logs", "job-prod-network") == 0
    assert shell.out == "Apply complete!\n"
    assert shell("logs", "prod/network") == 0
    assert shell.out == "Apply complete!\n"
    assert shell.err == "job job-prod-network\n"
    assert shell("logs", "prod/app") == 1
    assert "no job yet" in shell.err


def test_logs_follow_until_the_job_ends(shell: Shell) -> None:
    store, path = shell.installation.store, shell.installation.logs / "j1"
    asked = dispatched("prod/network")
    store.append(JobDispatched(asked))
    path.write_text("one\n")
    seen = threading.Event()
    read = shell.installation.log

    def watched(job: Any, offset: int) -> bytes:
        if offset:
            seen.set()
        return read(job, offset)

    shell.installation.log = watched  # type: ignore[method-assign]

    def work() -> None:
        assert seen.wait(60)
        path.write_text("one\ntwo\n")
        store.append(JobEnded(asked, result(asked), None, None))

    worker = threading.Thread(target=work)
    worker.start()
    assert shell("logs", "-f", "prod/network") == 0
    worker.join()
    assert shell.out == "one\ntwo\n"


def test_a_silent_runner_is_said(shell: Shell) -> None:
    shell.installation.silent = True
    assert shell("logs", "j1") == 1
    assert "reconciler runner serve" in shell.err


# --- wait --------------------------------------------------------------------------------------------------------


def test_wait_ends_when_the_commit_is_applied(shell: Shell) -> None:
    shell.installation.store.append(HeadAccepted(HEAD))

    def work() -> None:
        shell.apply("prod/network")
        shell.apply("prod/app")

    worker = threading.Thread(target=work)
    picture = shell.installation.picture
    started = threading.Event()

    def after_the_first_question() -> Any:
        seen = picture()
        if not started.is_set():
            started.set()
            worker.start()
        return seen

    shell.installation.picture = after_the_first_question  # type: ignore[method-assign]
    assert shell("wait", "--commit", HEAD, "--timeout", "20s") == 0
    worker.join()
    assert shell("wait", "prod/network", "--timeout", "0s") == 0
    assert shell.out == ""


def test_wait_ends_early_where_waiting_does_not_help(shell: Shell) -> None:
    shell.apply("prod/network")
    shell.installation.store.append(HoldChanged(APP, Hold("PolicyMismatch", "the host wins")))
    assert shell("wait", "--commit", HEAD) == 3
    assert "PolicyMismatch" in shell.out
    assert shell("wait", "prod/app") == 3


def test_wait_ends_with_the_time(shell: Shell) -> None:
    assert shell("wait", "prod/network", "--timeout", "0s") == 4
    assert "prod/network" in shell.out
    assert shell("wait", "--commit", "b" * 40, "--timeout", "0s") == 4
    assert "has not accepted bbbbbbbbbbbb yet" in shell.err
    seen = shell.data("wait", "--commit", "b" * 40, "--timeout", "0s")
    assert (seen["exit"], seen["waiting"]) == (4, [])


def unproven(reason: str, at: datetime) -> Seen:
    return Seen(at, Unproven(Commit("d" * 40), reason, "let somebody approve #7", Commit("e" * 40)))


def test_wait_tells_why_a_commit_is_not_accepted_as_soon_as_a_new_look_says_so(shell: Shell) -> None:
    looks = iter([NOW, NOW, NOW + timedelta(seconds=30)])

    def standing() -> Standing:
        return Standing(HEAD, HEAD, seen=unproven("ApprovalMissing", next(looks)))

    shell.installation.standing = standing  # type: ignore[method-assign]
    assert shell("wait", "--commit", "e" * 40, "--timeout", "20s") == 3
    assert "has not accepted eeeeeeeeeeee: ApprovalMissing: let somebody approve #7" in shell.err


def test_wait_goes_on_while_only_the_forge_is_away_and_ends_where_the_branch_was_rewritten(shell: Shell) -> None:
    looks = iter(range(100))

    def standing() -> Standing:
        return Standing(HEAD, HEAD, seen=unproven("ForgeUnreachable", NOW + timedelta(seconds=next(looks))))

    shell.installation.standing = standing  # type: ignore[method-assign]
    assert shell("wait", "--commit", "e" * 40, "--timeout", "1s") == 4
    hold = Hold("HistoryRewritten", "find out who")
    shell.installation.store.append(Frozen(hold, NOW))
    shell.installation.standing = lambda: Standing(HEAD, HEAD, hold, NOW)  # type: ignore[method-assign]
    assert shell("wait", "--commit", "e" * 40, "--timeout", "20s") == 3
    assert "HistoryRewritten: find out who" in shell.err


# --- pause, resume, reconcile ------------------------------------------------------------------------------------


def test_pause_and_resume(shell: Shell) -> None:
    assert shell("pause", "prod", "--reason", "migration", "--until", (NOW + timedelta(hours=2)).isoformat()) == 0
    assert shell.out == "prod is paused until 2026-11-24 12:00 UTC; applies that run now end\n"
    assert [one.scope for one in shell.installation.store.ledger().pauses] == ["prod"]
    assert shell("status") == 3
    assert shell.data("resume", "prod") == {"message": "prod is resumed", "warning": None}
    assert shell("resume", "prod") == 1
    assert "not paused" in shell.err


def test_pause_before_the_first_commit_warns(shell: Shell) -> None:
    shell.installation.desired = None
    assert shell("pause", "prod", "--reason", "r", "--until", (NOW + timedelta(hours=2)).isoformat()) == 0
    assert "Warning: it is not known yet" in shell.err


def test_reconcile_only_wakes(shell: Shell) -> None:
    assert shell("reconcile") == 0
    assert shell.out == "2 units of all are looked at now\n"
    assert shell("reconcile", "dev") == 1
    assert "there is: all, prod" in shell.err


# --- wrong usage, and nobody there -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["status", "--nope"],
        ["nope"],
        ["pause", "prod"],
        ["pause", "prod", "--reason", "r", "--until", "tomorrow"],
        ["pause", "prod", "--reason", "r", "--until", "2026-11-24T10:00"],
        ["wait"],
        ["wait", "prod/a", "--commit", "x"],
        ["wait", "prod/a", "--timeout", "soon"],
        ["history", "-n", "0"],
        [],
    ],
)
def test_wrong_usage_is_64(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 64
    said = capsys.readouterr()
    assert "Usage: " in said.err + said.out


def test_an_unknown_unit_is_an_error_with_a_hint(shell: Shell) -> None:
    assert shell("explain", "dev/app") == 1
    assert shell.err == "Error: no unit dev/app; did you mean prod/app?\n"


def test_a_daemon_that_does_not_answer_is_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--server", "http://127.0.0.1:1"]) == 5
    assert "reconciler run" in capsys.readouterr().err
    assert main(["resume", "prod", "--socket", str(tmp_path / "none.sock")]) == 5
    assert "RECONCILER_ADMIN_SOCKET" in capsys.readouterr().err


def test_something_else_that_answers_is_said(shell: Shell) -> None:
    shell.served.server += "/metrics?"
    assert shell("explain", "prod/network") == 1
    assert "is no reconciler" in shell.err


def test_a_name_with_odd_characters_stays_a_name(shell: Shell) -> None:
    assert shell("explain", "prod/a?b=c%2f#d") == 1
    assert "no unit prod/a?b=c%2f#d" in shell.err


def test_where_the_daemon_is_comes_from_the_environment(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_SERVER", shell.served.server)
    monkeypatch.setenv("RECONCILER_ADMIN_SOCKET", str(shell.served.socket))
    assert main(["diff", "prod/network"]) == 2
    assert main(["reconcile"]) == 0


# --- help and start ----------------------------------------------------------------------------------------------


def test_help_lists_every_command_without_importing_any(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from reconciler.cli import main; main(['--help']); print([m for m in sys.modules if m.startswith(('reconciler.', 'httpx', 'rich', 'pydantic'))])"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    ).stdout
    assert all(f"  {name} " in said for name in COMMANDS)
    light = {"reconciler.cli", "reconciler.cli.exits", "reconciler.errors"}
    assert set(json.loads(said.splitlines()[-1].replace("'", '"'))) == light


@pytest.mark.parametrize("name", [*SERVED, "pause", "resume", "reconcile"])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) > 6


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "reconciler, version 0.1.0\n"


def test_a_reader_that_has_seen_enough_is_no_error_to_shout_about(shell: Shell) -> None:
    code = "import sys; from reconciler.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["history", "--server", shell.served.server, "-o", "json"]
    for _ in range(40):  # more than a pipe holds
        shell.installation.store.append(*[HoldChanged(APP, Hold("R", "x" * 500)) for _ in range(20)])
    with subprocess.Popen(
        [sys.executable, "-c", code, *words, "-n", "800"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path.cwd(),
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(10)
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait(30) == 1


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "get_command", lambda *_: click.Command("stop", callback=stop))
    assert main(["stop"]) == 130


# --- times and text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", timedelta(seconds=90)), ("2h", timedelta(hours=2)), ("1d12h", timedelta(hours=36)), ("1w", timedelta(7))],
)
def test_durations(text: str, expected: timedelta) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "2 h", "1.5h", "2h!"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write 90s"):
        duration(text)


def test_moments() -> None:
    parse: Callable[[object], datetime] = lambda text: Moment().convert(text, None, None)  # noqa: E731
    assert parse("2026-11-24T10:00Z") == NOW
    assert parse("2026-11-24T12:00+02:00") == NOW
    assert parse(NOW) == NOW
    before = datetime.now(UTC)
    assert before + timedelta(hours=2) <= parse("2h") <= datetime.now(UTC) + timedelta(hours=2)


def test_text_for_terminals() -> None:
    assert plain("a\x1b]0;title\x07b\nc") == "a ]0;title b c"
    assert printable(b"ok\r\n\x1b[31mred\xff\n") == "ok\n�[31mred�\n"
