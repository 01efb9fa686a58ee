"""Both commands over a store and a memory that an earlier version wrote, killed wherever a file is touched."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from reconciler import archive
from reconciler.actual.ledger import BreakGlassClosed, BreakGlassOpened, Frozen, Paused, Thawed
from reconciler.cli import main
from reconciler.durable import FileLock
from reconciler.errors import ReconcilerError
from reconciler.model import BreakGlass, Commit, Hold, Job, JobId, Operation, Pause, Phase, UnitId
from reconciler.runner import backup as of_runner
from reconciler.runner.audit.verify import segments_of, verify
from reconciler.runner.memory import Applying, Memory, Suspicion, UnitMemory
from reconciler.runner.record import Recorder
from reconciler.runner.spool import Spool
from reconciler.runner.terraform.creation import Creation
from reconciler.store import backup as of_store
from reconciler.store.sqlite import SqliteStore, verify_file
from reconciler.trust import REWRITTEN
from tests.kit.before import memory_of, store_of

NOW = datetime(2026, 11, 24, tzinfo=UTC)
HEAD = Commit("4b1d" * 10)
HUB = UnitId("prod/net/hub")
NAMES = {of_store.PLANE: of_store.NAMES, of_runner.PLANE: of_runner.NAMES}
TOUCHED = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "sqlite3.connect"}


@dataclass
class Clock:
    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Hosts:
    """Where both planes of one installation are."""

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "c" / "reconciler.db"

    @property
    def memory(self) -> Path:
        return self.folder / "r"

    def configure(self, installation: str = "reconciler") -> None:
        repository = {
            "url": "https://git.example.com/e.git",
            "branch": "main",
            "genesis": "9" * 40,
            "signatures": "off",
        }
        both = {"installation": installation, "environments_repo": repository}
        controller = {"store": {"path": str(self.store)}, "executor": {"local": {"socket": str(self.folder / "s")}}}
        runner = {
            "memory": {"path": str(self.memory)},
            "allow": [{"operations": ["plan"], "refs": "merged", "folders": ["environments/**"]}],
            "engine": "auto",
            "environments": {},
        }
        (self.folder / "c.yaml").write_text(yaml.safe_dump(both | controller))
        (self.folder / "r.yaml").write_text(yaml.safe_dump(both | runner))

    def fill(self) -> None:
        """As an earlier version left them."""
        self.store.parent.mkdir()
        store_of(1, self.store)
        (self.store.parent / "proofs").mkdir()
        (self.store.parent / "proofs" / "version").write_text("3")
        memory_of(0, self.memory)

    def words(self, *planes: str) -> list[str]:
        said = {
            "controller": ["--config", str(self.folder / "c.yaml")],
            "runner": ["--runner", str(self.folder / "r.yaml")],
        }
        return [word for plane in planes or said for word in said[plane]]

    def backup(self, name: str = "b.tar", *planes: str) -> Path:
        assert main(["backup", str(self.folder / name), *self.words(*planes)]) == 0
        return self.folder / name

    def restore(self, path: Path, *planes: str, replace: bool = True) -> int:
        return main(["restore", str(path), *self.words(*planes), *(["--replace"] if replace else [])])

    def opened(self) -> SqliteStore:
        return SqliteStore(self.store, Clock())

    def aside(self, folder: Path) -> list[Path]:
        return sorted(folder.glob("replaced-*"))


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    made = Hosts(tmp_path)
    made.configure()
    made.fill()
    return made


def test_all_that_is_kept_comes_back_on_an_empty_host(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    path = hosts.backup()
    assert archive.examine(path, NAMES).sha256 in capsys.readouterr().out
    before = Memory(hosts.memory)
    unit, bare, key = before.unit(HUB), before.unit(UnitId("prod/bare")), before.key
    shutil.rmtree(hosts.memory)
    shutil.rmtree(hosts.store.parent)
    assert hosts.restore(path, replace=False) == 0
    said = capsys.readouterr()
    assert "prod is paused until 2026-11-25 10:00 UTC" in said.out
    assert "Allowances that were written before this are void" in said.err
    memory = Memory(hosts.memory)
    assert memory.key == key
    assert memory.unit(UnitId("prod/bare")) == bare
    assert memory.fence() == 41
    assert memory.paused() == "maintenance"
    after = memory.unit(HUB)
    assert after.applied == unit.applied
    assert after.applying == unit.applying
    assert after.tainted == frozenset()
    restored = memory.restored()
    assert restored is not None
    assert restored.head == memory.trust().commit
    store = hosts.opened()
    assert len(store.ledger().units) == 3
    assert store.verify() == 9
    assert store.history("all", 1)[0].action == "restored"
    assert store.next_fence() > 1
    store.close()
    log = verify(segments_of(hosts.memory / "audit"))
    assert log.wrong is None
    assert log.head.count == 5


def test_no_allowance_is_open_and_none_opens_by_what_was_merged_meanwhile(hosts: Hosts) -> None:
    before = Memory(hosts.memory).trust()
    assert before.allowances[HUB].opened
    assert hosts.restore(hosts.backup()) == 0
    after = Memory(hosts.memory).trust()
    assert after.allowances[HUB].seen == before.allowances[HUB].seen
    assert after.allowances[HUB].opened == {}
    assert (after.closed, after.closed_until) == (True, None)
    assert (after.commit, after.recent, after.anew) == (before.commit, before.recent, before.anew)


def test_what_is_there_is_put_aside_and_only_if_that_is_asked_for(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    path = hosts.backup()
    Memory(hosts.memory).save_trust(Memory(hosts.memory).trust())
    assert hosts.restore(path, replace=False) == 1
    assert "with --replace that is put aside" in capsys.readouterr().err
    assert hosts.aside(hosts.memory) == hosts.aside(hosts.store.parent) == []
    old = (hosts.memory / "units" / "prod" / "net" / "hub.json").read_bytes()
    assert hosts.restore(path) == 0
    [memory], [store] = hosts.aside(hosts.memory), hosts.aside(hosts.store.parent)
    assert (memory / "units" / "prod" / "net" / "hub.json").read_bytes() == old
    assert verify_file(store / "reconciler.db") == 8
    assert hosts.restore(path) == 0
    assert len(hosts.aside(hosts.memory)) == 2


def test_one_plane_may_be_saved_and_restored_alone(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    path = hosts.backup("r.tar", "runner")
    assert hosts.restore(path, "controller") == 1
    assert "has nothing of the controller; it has: runner" in capsys.readouterr().err
    assert hosts.restore(hosts.backup(), "runner") == 0
    assert hosts.aside(hosts.store.parent) == []
    assert hosts.restore(path, "runner") == 0


def test_nothing_is_restored_while_somebody_works(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    path = hosts.backup()
    store = hosts.opened()
    assert hosts.restore(path) == 1
    assert "stop it first" in capsys.readouterr().err
    store.close()
    with FileLock(hosts.memory / "service.lock"):
        assert hosts.restore(path) == 1
        assert "stop the runner first" in capsys.readouterr().err
    life = Spool(hosts.memory / "spool").job(JobId("j")).create(Job(JobId("j"), Operation.PLAN, HUB, HEAD, 1))
    assert life is not None
    assert hosts.restore(path) == 1
    assert "an engine outlives its runner" in capsys.readouterr().err
    life.release()
    assert hosts.aside(hosts.memory) == hosts.aside(hosts.store.parent) == []
    assert hosts.restore(path) == 0


def test_one_of_another_installation_is_refused(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    path = hosts.backup()
    hosts.configure("other")
    assert hosts.restore(path) == 1
    assert "it is of the installation 'reconciler', and this one is 'other'" in capsys.readouterr().err


def test_a_damaged_one_touches_nothing(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    path = hosts.backup()
    data = bytearray(path.read_bytes())
    data[data.index(b"maintenance")] ^= 1
    path.write_bytes(data)
    before = listing(hosts)
    assert hosts.restore(path) == 1
    assert "runner/pause was damaged" in capsys.readouterr().err
    assert listing(hosts) == before


def test_work_by_hand_is_not_forgotten_by_a_store_from_before_it(hosts: Hosts) -> None:
    path = hosts.backup()
    store = hosts.opened()
    now = datetime.now(UTC)
    over = BreakGlass("prod", "ann", "the site was down", now, now + timedelta(minutes=1))
    opened = BreakGlass("stage", "bob", "and this one is", now, now + timedelta(minutes=5))
    unit = UnitId("prod/since")
    store.append(BreakGlassOpened(over), BreakGlassClosed(over, now, "ann", (unit,)), BreakGlassOpened(opened))
    store.close()
    assert hosts.restore(path) == 0
    store = hosts.opened()
    assert store.ledger().sessions == (opened,)
    mark = store.ledger().units[unit].aftermath
    assert mark is not None
    assert mark.session == over
    store.close()


def test_what_stops_something_is_taken_over_from_what_is_replaced(hosts: Hosts) -> None:
    path = hosts.backup()
    store = hosts.opened()
    now = datetime.now(UTC)
    store.append(Paused(Pause("stage", "ann", "since", now, now + timedelta(hours=1))))
    store.append(Paused(Pause("old", "ann", "over", now - timedelta(hours=2), now - timedelta(hours=1))))
    store.append(Thawed(), Frozen(Hold(REWRITTEN, "found since", plans=True), now))
    fence = store.next_fence()
    store.close()
    memory = Memory(hosts.memory)
    memory.check_fence(Job(JobId("j"), Operation.APPLY, HUB, HEAD, 99))
    memory.pause("stop everything")
    memory.save_trust(type(memory.trust())(HEAD, frozen=Hold(REWRITTEN, "found since", plans=True), frozen_at=now))
    assert hosts.restore(path) == 0
    store = hosts.opened()
    assert {pause.scope for pause in store.ledger().pauses} == {"prod", "stage"}
    assert store.ledger().frozen == Hold(REWRITTEN, "found since", plans=True)
    assert store.next_fence() > fence
    store.close()
    memory = Memory(hosts.memory)
    assert memory.fence() == 99
    assert memory.paused() == "stop everything"
    frozen = memory.trust().frozen
    assert frozen is not None
    assert frozen.reason == REWRITTEN


def test_a_log_that_goes_on_from_the_backups_stays(hosts: Hosts) -> None:
    path = hosts.backup()
    Recorder(hosts.memory / "audit").event("paused", reason="since")
    assert hosts.restore(path) == 0
    log = verify(segments_of(hosts.memory / "audit"))
    assert log.wrong is None
    assert log.head.count == 6
    assert not (hosts.aside(hosts.memory)[0] / "audit").exists()


def test_a_log_that_does_not_is_put_aside(hosts: Hosts) -> None:
    path = hosts.backup()
    shutil.rmtree(hosts.memory / "audit")
    for number in range(9):
        Recorder(hosts.memory / "audit").event("paused", reason=str(number))
    assert hosts.restore(path) == 0
    log = verify(segments_of(hosts.memory / "audit"))
    assert (log.wrong, log.head.count) == (None, 5)
    assert verify(segments_of(hosts.aside(hosts.memory)[0] / "audit")).head.count == 9


def test_what_a_dead_job_left_is_looked_at_first(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    path = hosts.backup()
    unit = UnitId("prod/since")
    folder = Spool(hosts.memory / "spool").job(JobId("20261124T100000-ab"))
    life = folder.create(Job(JobId("20261124T100000-ab"), Operation.APPLY, unit, HEAD, 1))
    assert life is not None
    folder.work.mkdir()
    folder.begin(Phase.APPLYING)
    life.release()
    memory = Memory(hosts.memory)
    died = Applying(
        JobId("20261124T100000-ab"), NOW, "plan", creates=(Creation("thing.a", "thing", "acme/things"),), boot="b"
    )
    memory.save(UnitMemory(unit, applying=died))
    suspicion = Suspicion(HUB, NOW, NOW, died.creates)
    memory.save(replace(memory.unit(HUB), suspicion=suspicion))
    assert hosts.restore(path) == 0
    assert Memory(hosts.memory).unit(HUB).suspicion == suspicion
    assert Memory(hosts.memory).unit(unit).applying == died
    (hosts.memory / "units" / "prod" / "since.json").write_text("{")
    assert hosts.restore(path) == 0
    said = capsys.readouterr().out
    assert "says of units cannot be read" in said
    assert "holds what an apply without an end left" in said
    applying = Memory(hosts.memory).unit(unit).applying
    assert applying is not None
    assert applying.job == "20261124T100000-ab"
    assert folder.work.exists()


def test_an_apply_without_an_end_is_said(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(Memory(hosts.memory).unit(HUB).applying, Applying)
    hosts.backup()
    assert "prod/net/hub has an apply whose end nobody knows" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to somebody")
def test_what_root_restores_is_the_planes_users(hosts: Hosts) -> None:
    path = hosts.backup()
    elsewhere = hosts.folder / "elsewhere"
    elsewhere.touch()
    (hosts.memory / "link").symlink_to(elsewhere)
    (hosts.memory / "twice").hardlink_to(elsewhere)
    for top, user in ((hosts.memory, 54321), (hosts.store.parent, 54322)):
        for file in (top, *top.rglob("*")):
            os.chown(file, user, user, follow_symlinks=False)
    os.chown(elsewhere, 0, 0)
    assert hosts.restore(path) == 0
    for top, user in ((hosts.memory, 54321), (hosts.store.parent, 54322)):
        theirs = {file.name: file.lstat().st_uid for file in top.rglob("*") if file.name != "twice"}
        assert set(theirs.values()) == {user}, theirs
    assert elsewhere.stat().st_uid == 0


# --- at work


def test_backups_that_are_made_while_both_planes_write_are_whole(hosts: Hosts) -> None:
    ended = threading.Event()

    def journal() -> None:
        store = hosts.opened()
        while not ended.wait(0.002):
            store.append(Thawed(), Thawed())
        store.close()

    def remember() -> None:
        memory, recorder = Memory(hosts.memory), Recorder(hosts.memory / "audit")
        while not ended.wait(0.02):
            recorder.event("paused", reason="again")
            memory.save(
                UnitMemory(
                    UnitId("prod/busy"), applying=Applying(JobId("j"), datetime.now(UTC), "", record=_records(hosts))
                )
            )

    threads = [threading.Thread(target=journal), threading.Thread(target=remember)]
    for thread in threads:
        thread.start()
    try:
        for number in range(25):
            found = archive.examine(hosts.backup(f"{number}.tar"), NAMES)
            there = hosts.folder / str(number)
            found.unpack("controller", there / "c")
            found.unpack("runner", there / "r")
            assert verify_file(there / "c" / "store.db") >= 8
            log = verify(segments_of(there / "r" / "audit"))
            assert (log.wrong, log.torn) == (None, 0)
            applying = Memory(there / "r").unit(UnitId("prod/busy")).applying
            assert applying is None or log.head.count - 1 <= applying.record <= log.head.count
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _records(hosts: Hosts) -> int:
    return Recorder(hosts.memory / "audit").log.mark().count


# --- killed

MOST_APART = int(os.environ.get("RECONCILER_TEST_APART", "15"))  # two deaths of a restore; 1: it dies at each point


def listing(hosts: Hosts) -> dict[str, bytes]:
    """Every file of both planes that counts."""
    found = {}
    for top in (hosts.memory, hosts.store.parent):
        for file in sorted(top.rglob("*")):
            name = str(file.relative_to(hosts.folder))
            if file.is_file() and not name.endswith(("lock", "-shm", "-wal")) and "/.restore/" not in name:
                found[name] = file.read_bytes()
    return found


def killed(at: int, work: Callable[[], object]) -> int:
    """Do it in a process that dies right before it touches files for the `at`th time; 0: it came to its end."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def touching(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            reads = event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if event in TOUCHED and not reads:
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            sys.addaudithook(touching)
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def whole(hosts: Hosts) -> str:
    """Which memory and store are in force: `old`, `new`, one of either, or none until the restore is finished."""
    said = []
    for opened in (lambda: hosts.opened().close(), lambda: Memory(hosts.memory)):
        try:
            opened()
        except ReconcilerError as error:
            assert error.reason == "RestoreUnfinished"  # noqa: PT017 - all that may be said
            said.append("unfinished")
        else:
            said.append("whole")
    return " ".join(said)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_backup_that_is_killed_anywhere_is_there_whole_or_not_at_all(hosts: Hosts) -> None:
    at, code = 0, -1
    while code != 0:
        at += 1
        path = hosts.folder / f"{at}.tar"
        code = killed(at, lambda: hosts.backup(path.name))  # noqa: B023 - called at once
        if path.exists():
            archive.examine(path, NAMES)
    assert at > 15
    assert path.exists()
    assert hosts.restore(path) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_restore_that_is_killed_anywhere_leaves_the_old_or_the_new(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rng = random.Random(int(request.config.getoption("randomly_seed", 0)))  # noqa: S311 - a story, not a secret
    source = Hosts(tmp_path / "source")
    source.folder.mkdir()
    source.configure()
    source.fill()
    path = source.backup()
    at, code, seen = 0, -1, set()
    while code != 0:
        at += rng.randint(1, MOST_APART)
        hosts = Hosts(tmp_path / str(at))
        hosts.folder.mkdir()
        hosts.configure()
        hosts.fill()
        (hosts.memory / "pause").write_text("of the old one")
        code = killed(at, lambda: hosts.restore(path))  # noqa: B023 - called at once
        state = whole(hosts)
        seen.add(state)
        assert Memory(source.memory).key  # the source is nobody's business
        assert hosts.restore(path) == 0
        assert whole(hosts) == "whole whole"
        memory = Memory(hosts.memory)
        assert memory.paused() == "of the old one"
        assert memory.trust().closed
        assert memory.restored() is not None
        store = hosts.opened()
        assert store.verify() >= 9
        assert any(one.action == "restored" for one in store.history("all", 99))
        store.close()
        asides = [file for aside in hosts.aside(hosts.memory) for file in aside.rglob("pause")]
        assert "of the old one" in {file.read_text() for file in asides}
        assert not (hosts.memory / ".restore").exists()
        shutil.rmtree(hosts.folder)
    assert at > 100
    assert "whole whole" in seen
    assert any("unfinished" in state for state in seen)
    if MOST_APART == 1:
        assert "unfinished unfinished" in seen
