"""What a runner's memory promises, wherever it is kept. Each test runs on every place in `PLACES`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler.cabinet import Cabinet, ConflictError, FolderCabinet, again
from reconciler.errors import PassError, UnitError
from reconciler.git.proofs import Proof, Proofs
from reconciler.git.sights import Sights
from reconciler.model import Allowances, Commit, Job, JobId, StateMark, UnitId
from reconciler.runner.allowances import Allowed
from reconciler.runner.audit.objects import ObjectLog
from reconciler.runner.audit.verify import segments_of, verify
from reconciler.runner.bucket import Bucket, Objects, Over
from reconciler.runner.memory import Applying, Memory, Trust, UnitMemory
from reconciler.runner.record import Change, Origin, Recorder, Vouched
from reconciler.runner.reviews import Review, Reviews, Scope
from reconciler.runner.s3cabinet import S3Cabinet
from reconciler.runner.unitlock import Here, LockHolder
from tests.kit.aws import BUCKET, REGION, Aws, serving
from tests.kit.objects import FakeObjects, Troubled, away
from tests.kit.plane import LINEAGE, NOW, job

HEAD, UNIT, OTHER = Commit("c" * 40), UnitId("prod/net/hub"), UnitId("prod/app")
PLACES = ("folder", "fake", "moto")
IN_S3 = PLACES[1:]
ORIGIN = Origin(JobId("job-1"), 1, Vouched(HEAD))


class DeadError(BaseException):
    """The process was killed: nothing of it goes on."""


@dataclass
class Place:
    """One memory, and as many processes on as many hosts as a test wants. `objects` is None for a folder."""

    folder: Path
    objects: Objects | None

    def cabinet(self, objects: Objects | None = None) -> Cabinet:
        """As a process of its own opens it."""
        found = objects or self.objects
        return FolderCabinet(self.folder / "m") if found is None else S3Cabinet(found)

    def memory(self, host: str = "h", here: Here | None = None, objects: Objects | None = None) -> Memory:
        """As a process on that host opens it."""
        if self.objects is None:
            return Memory(self.folder / "m")
        cabinet = self.cabinet(objects)
        assert isinstance(cabinet, S3Cabinet)
        return Memory(self.folder / host, cabinet, here)

    def recorder(self, memory: Memory) -> Recorder:
        recorder = Recorder(memory.cabinet.within("audit"))
        if memory.shared:
            memory.shared.told = recorder.event
        return recorder

    def records(self) -> list[bytes]:
        """Every line of the audit log, once the chain fits."""
        audit = self.cabinet().within("audit")
        log = list(segments_of(self.folder / "m" / "audit") if self.objects is None else ObjectLog(audit).segments())
        verdict = verify(log, least=Recorder(audit).log.mark().count)
        assert (verdict.wrong, verdict.torn) == (None, 0)
        return [line for _, data in log for line in data.splitlines()]

    def kinds(self) -> list[str]:
        return [line.split(b'"kind":"')[1].split(b'"')[0].decode() for line in self.records()]


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with serving() as server:
        yield server


def place_of(kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    if kind == "folder":
        return Place(tmp_path, None)
    if kind == "fake":
        return Place(tmp_path, FakeObjects())
    aws: Aws = request.getfixturevalue("aws")
    aws.reset()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    return Place(tmp_path, Bucket(BUCKET, "memory/", REGION, aws.endpoint, path_style=True))


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return place_of(request.param, tmp_path, request, monkeypatch)


@pytest.fixture(params=IN_S3)
def shared(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return place_of(request.param, tmp_path, request, monkeypatch)


@pytest.fixture
def fake(tmp_path: Path) -> Place:
    return Place(tmp_path, FakeObjects())


def at_once(*steps: Callable[[], object]) -> list[BaseException]:
    """Do all of them at the same time; what they raised."""
    raised: list[BaseException] = []
    gate = threading.Barrier(len(steps))

    def run(step: Callable[[], object]) -> None:
        gate.wait()
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            raised.append(error)

    threads = [threading.Thread(target=run, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return raised


# --- documents


def test_a_document_is_what_was_written_last(place: Place) -> None:
    mine, theirs = place.cabinet(), place.cabinet()
    assert (mine.read("a/b"), mine.look("a/b")) == (None, None)
    mine.write("a/b", b"one\n")
    first = theirs.look("a/b")
    assert (mine.read("a/b"), theirs.read("a/b")) == (b"one\n", b"one\n")
    theirs.write("a/b", b"#two")
    assert mine.read("a/b") == b"#two"
    assert mine.look("a/b") != first
    mine.within("a").write("b", bytes(range(32)))
    assert theirs.read("a/b") == bytes(range(32))
    mine.delete("a/b")
    mine.delete("a/b")
    assert theirs.read("a/b") is None


def test_one_of_two_creates(place: Place) -> None:
    assert place.cabinet().create("a", b"mine")
    assert not place.cabinet().create("a", b"theirs")
    assert place.cabinet().read("a") == b"mine"


def test_names_are_those_below_and_the_oldest_is_first_when_asked(place: Place) -> None:
    cabinet = place.cabinet()
    for name in ("u/b.json", "u/a.json", "u/c/d.json", "ux.json", "u/.hid/7.json"):
        cabinet.write(name, name.encode())
    assert cabinet.names("u") == sorted(("u/.hid/7.json", "u/a.json", "u/b.json", "u/c/d.json"))
    assert cabinet.within("u").names("c") == ["c/d.json"]
    if not isinstance(place.objects, Bucket):  # there it is a matter of seconds
        assert cabinet.names("u", oldest_first=True)[:2] == ["u/b.json", "u/a.json"]
    assert cabinet.names("nothing") == []


def test_lines_and_moments(place: Place) -> None:
    cabinet = place.cabinet()
    assert cabinet.stamped("looked") is None
    cabinet.stamp("looked", NOW)
    cabinet.stamp("looked", NOW)
    assert cabinet.stamped("looked") == NOW
    with cabinet.exclusive("lock", "lines"):
        cabinet.append("lines", "one")
        cabinet.append("lines", "two")
    assert place.cabinet().read("lines") == b"one\ntwo\n"


def test_of_many_who_change_a_document_at_once_nobody_is_lost(place: Place) -> None:
    def add() -> None:
        cabinet = place.cabinet()

        def step() -> None:
            with cabinet.exclusive("lock", "count"):
                cabinet.write("count", b"%d" % (int(cabinet.read("count") or b"0") + 1))

        for _ in range(5):
            again(step)

    assert at_once(*[add] * 4) == []
    assert place.cabinet().read("count") == b"20"


# --- facts


def test_what_is_saved_is_read_back_by_another_process(place: Place) -> None:
    mine, theirs = place.memory("one"), place.memory("two")
    assert mine.key == theirs.key
    assert len(mine.key) == 32
    full = UnitMemory(UNIT, mark=StateMark(LINEAGE, 7), applying=Applying(JobId("job-1"), NOW, "digest"))
    with mine.unit_lock(UNIT):
        mine.save(full)
    assert theirs.unit(UNIT) == full
    assert theirs.unit(OTHER) == UnitMemory(OTHER)
    assert list(theirs.units()) == [full]
    trust = Trust(HEAD, {UNIT: Allowed(Allowances(destroy=2), {"destroy": NOW})})
    with mine.trusting():
        mine.save_trust(trust)
    assert theirs.trust() == trust
    mine.pause("a migration")
    theirs.pause("a longer one")
    assert mine.paused() == "a longer one"
    theirs.resume()
    assert mine.paused() is None
    mine.seal_secret("prod", "password", {"ssm": "/a"}, "sealed")
    assert theirs.sealed_secret("prod", "password", {"ssm": "/a"}) == "sealed"
    assert theirs.restored() is None


def test_two_who_open_an_empty_memory_have_one_key(place: Place) -> None:
    keys: list[bytes] = []
    steps = [lambda name=name: keys.append(place.memory(name).key) for name in ("a", "b", "c")]
    assert at_once(*steps) == []
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_the_fence_only_rises(place: Place) -> None:
    memory, other = place.memory(), place.memory("other")
    memory.check_fence(job("prod/a", HEAD, fence=4))
    other.lead(5)
    with pytest.raises(PassError, match="has fence 4; 5 was seen already") as refused:
        memory.check_fence(job("prod/a", HEAD, fence=4))
    assert refused.value.reason == "FenceStale"
    with pytest.raises(PassError, match="5 leads already, and not 4"):
        memory.lead(4)
    steps = [lambda number=number: place.memory().lead(number) for number in range(6, 10)]
    raised = at_once(*steps)
    assert {error.reason for error in raised if isinstance(error, PassError)} <= {"FenceStale", "FenceBusy"}
    memory.lead(10)
    assert other.fence() == 10


def test_of_two_changes_of_trust_none_is_lost(place: Place) -> None:
    def close(unit: UnitId) -> None:
        memory = place.memory(unit.replace("/", "-"))

        def step() -> None:
            with memory.trusting():
                trust = memory.trust()
                memory.save_trust(replace(trust, allowances={**trust.allowances, unit: Allowed(Allowances())}))

        again(step)

    units = [UnitId(f"prod/u{number}") for number in range(4)]
    place.memory().save_trust(Trust(HEAD))
    assert at_once(*[lambda unit=unit: close(unit) for unit in units]) == []
    assert set(place.memory().trust().allowances) == set(units)


def test_proofs_sights_and_reviews(place: Place) -> None:
    memory = place.memory()
    proofs = Proofs(memory.cabinet.within("proofs"))
    commits = [Commit(f"{number:040x}") for number in range(4)]
    steps = [
        lambda one=one: Proofs(place.cabinet().within("proofs")).add(Proof(one, NOW, "a", "k"), "pub")
        for one in commits
    ]
    assert at_once(*steps) == []
    assert [proof.commit for one in commits if (proof := proofs.get(one))] == commits
    assert proofs.keys() == {"k": "pub"}
    proofs.raise_version(3)
    proofs.raise_version(2)
    assert Proofs(place.cabinet().within("proofs")).version() == 3
    assert Sights(memory.cabinet.within("proofs")).last_look() is None
    reviews = Reviews(memory.cabinet.within("reviews"))
    steps = [
        lambda pull=pull: Reviews(place.cabinet().within("reviews")).add(review(pull), [pull], []) for pull in (1, 2, 3)
    ]
    assert at_once(*steps) == []
    assert {one.pull for one in reviews.of(UNIT)} <= {1, 2, 3}
    assert reviews.of(UNIT)
    reviews.looked(Scope(7, HEAD, frozenset({UNIT})))
    assert reviews.scope(7) == Scope(7, HEAD, frozenset({UNIT}))
    reviews.applied(UNIT, [1, 2, 3])
    assert reviews.of(UNIT) == ()


def review(pull: int) -> Review:
    from reconciler.model import Digest

    return Review(UNIT, pull, HEAD, HEAD, Digest(f"{pull}" * 64), datetime.now(UTC), ())


# --- the audit log


def test_records_of_many_are_one_chain(place: Place) -> None:
    place.recorder(place.memory())

    def work(name: str) -> None:
        recorder = place.recorder(place.memory(name))
        unit, before = UnitId(f"prod/{name}"), None
        for serial in (1, 2):
            begun = recorder.intent(unit, before, replace(ORIGIN, job=JobId(f"{name}-{serial}")))
            before = StateMark(LINEAGE, serial)
            recorder.ended(unit, begun, JobId(f"{name}-{serial}"), before, Change.APPLIED)
            recorder.ended(unit, begun, JobId(f"{name}-{serial}"), before, Change.APPLIED)  # what is asked twice

    assert at_once(*[lambda name=name: work(name) for name in "abc"]) == []
    kinds = place.kinds()
    assert sorted(kinds) == ["intent"] * 6 + ["state"] * 6
    recorder = place.recorder(place.memory())
    for name in "abc":
        assert recorder.seen(UnitId(f"prod/{name}"), StateMark(LINEAGE, 2), None, JobId("later")) is None
    found = recorder.seen(UnitId("prod/a"), StateMark(LINEAGE, 9), None, JobId("later"))
    assert found is not None
    recorder.head(HEAD, None, [])
    recorder.head(HEAD, None, [])
    assert place.kinds()[12:] == ["state", "head"]


def test_a_log_that_somebody_cut_is_found(fake: Place) -> None:
    recorder = fake.recorder(fake.memory())
    for number in range(3):
        recorder.event("paused", reason=str(number))
    assert isinstance(fake.objects, FakeObjects)
    del fake.objects.objects["audit/000000000002.jsonl"]
    audit = fake.cabinet().within("audit")
    wrong = verify(ObjectLog(audit).segments()).wrong
    assert wrong is not None
    assert wrong.seq == 2
    fake.objects.objects.pop("audit/head.json")
    with pytest.raises(PassError, match=r"head\.json is missing"):
        recorder.event("resumed")


# --- who works on a unit


def test_a_unit_is_one_jobs(place: Place) -> None:
    mine, theirs = place.memory("one"), place.memory("two")
    with mine.unit_lock(UNIT):
        with pytest.raises(UnitError) as refused:
            theirs.unit_lock(UNIT)
        assert (refused.value.reason, refused.value.transient) == ("UnitBusy", True)
        with pytest.raises(UnitError):
            mine.unit_lock(UNIT)
        theirs.unit_lock(OTHER).release()
    with theirs.unit_lock(UNIT) as lock:
        assert lock.fileno() > 0
    mine.unit_lock(UNIT).release()


def test_of_many_who_want_a_unit_one_at_a_time_has_it(place: Place) -> None:
    inside, most, got = [0], [0], [0]

    def want(name: str) -> None:
        memory = place.memory(name)
        for _ in range(10):
            try:
                lock = memory.unit_lock(UNIT)
            except UnitError:
                continue
            with lock:
                inside[0] += 1
                most[0], got[0] = max(most[0], inside[0]), got[0] + 1
                memory.save(replace(memory.unit(UNIT), mark=StateMark(LINEAGE, got[0])))
                inside[0] -= 1

    assert at_once(*[lambda name=name: want(name) for name in "abcd"]) == []
    assert most == [1]
    assert got[0] >= 1


def die_with(place: Place, host: str, unit: UnitId = UNIT, here: Here | None = None) -> None:
    """A job that has the unit is killed; its process is another one."""
    if (pid := os.fork()) == 0:
        memory = place.memory(host, here)
        assert memory.shared is not None
        memory.shared.job = job(unit, HEAD)
        memory.unit_lock(unit)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_what_a_dead_job_of_this_host_held_is_taken_over_and_that_is_recorded(tmp_path: Path, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    aws.reset()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    place = Place(tmp_path, Bucket(BUCKET, "memory/", REGION, aws.endpoint, path_style=True))
    die_with(place, "here")
    elsewhere = place.memory("elsewhere")  # another folder: another container, as far as anybody can tell
    with pytest.raises(
        UnitError, match="nothing proves here that it is dead; if you know that it is dead, remove s3://"
    ):
        elsewhere.unit_lock(UNIT)
    memory = place.memory("here")
    place.recorder(memory)
    memory.unit_lock(UNIT).release()
    [line] = place.records()
    assert b'"kind":"unit-lock-broken"' in line
    assert b"lives on this host" in line
    elsewhere.unit_lock(UNIT).release()


def test_a_task_that_is_proven_dead_loses_its_units_and_cannot_write_them_any_more(shared: Place) -> None:
    task = "arn:aws:ecs:eu-west-1:123456789012:task/acme/1f"
    dead = shared.memory("one", Here(task))
    asked: list[LockHolder] = []
    stopped: list[str] = []

    def liveness(holder: LockHolder) -> str | None:
        asked.append(holder)
        return "its task is STOPPED" if holder.task in stopped else None

    alive = shared.memory("two", Here("other", (liveness,)))
    shared.recorder(alive)
    lock = dead.unit_lock(UNIT)
    dead.save(UnitMemory(UNIT, mark=StateMark(LINEAGE, 1)))
    with pytest.raises(UnitError, match="task/acme/1f"):
        alive.unit_lock(UNIT)
    assert [one.task for one in asked] == [task]
    stopped.append(task)
    with alive.unit_lock(UNIT):
        assert alive.unit(UNIT).mark == StateMark(LINEAGE, 1)
        known = dead.unit(UNIT)  # it was not dead after all
        for _ in range(2):
            with pytest.raises(ConflictError):
                dead.save(replace(known, mark=StateMark(LINEAGE, 2)))
        lock.release()  # nor does it take the lock of another away
        assert alive.cabinet.names("locks") == ["locks/prod%net%hub"]
        alive.save(replace(alive.unit(UNIT), mark=StateMark(LINEAGE, 3)))
    assert alive.unit(UNIT).mark == StateMark(LINEAGE, 3)
    assert shared.kinds() == ["unit-lock-broken"]


def test_the_same_machine_with_another_start_is_dead_and_a_task_never_by_that(fake: Place) -> None:
    locks: Any = fake.memory("one").shared
    locks._machine, locks._boot = "m", "second"
    holder = replace(locks._me("x"), boot="first", place="elsewhere")
    assert "started anew" in str(locks._died_here(holder))
    assert locks._died_here(replace(holder, task="arn")) is None
    assert locks._died_here(replace(holder, machine="")) is None
    assert locks._died_here(replace(holder, boot="second")) is None
    assert locks._died_here(replace(holder, boot="")) is None


def test_one_adoption_at_a_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.runner.memory.LOOK_EVERY", 0.01)
    inside, most = [0], [0]

    def adopt(name: str) -> None:
        with place.memory(name).adopting():
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            inside[0] -= 1

    assert at_once(*[lambda name=name: adopt(name) for name in "abc"]) == []
    assert most == [1]


# --- a bucket that does not answer, answers late, or whose client dies


def life(place: Place, objects: Objects, number: int, here: Here) -> None:
    """All that a job writes, in its order."""
    memory = place.memory(f"task-{number}", here, objects)
    recorder = place.recorder(memory)
    assert memory.shared is not None
    memory.shared.job = Job(JobId(f"job-{number}"), job("prod/a", HEAD).operation, UNIT, HEAD, number)
    memory.check_fence(memory.shared.job)

    def accept() -> None:
        with memory.trusting():
            trust = memory.trust()
            recorder.head(HEAD, None, [])
            memory.save_trust(replace(trust, commit=HEAD, recent=(*trust.recent, Commit(f"{number:040x}"))))

    again(accept)
    with memory.unit_lock(UNIT):
        known = memory.unit(UNIT)
        if known.applying is not None:
            recorder.ended(UNIT, known.applying.record, known.applying.job, known.mark, Change.RECOVERED)
        begun = recorder.intent(UNIT, known.mark, replace(ORIGIN, job=JobId(f"job-{number}")))
        memory.save(replace(known, applying=Applying(JobId(f"job-{number}"), NOW, "plan", record=begun)))
        serial = known.mark.serial if known.mark else 0
        mark = StateMark(LINEAGE, serial + 1)
        recorder.ended(UNIT, begun, JobId(f"job-{number}"), mark, Change.APPLIED)
        memory.save(replace(memory.unit(UNIT), mark=mark, applying=None))


def dead_tasks(holder: LockHolder) -> str:
    return f"{holder.task} is STOPPED"


MOST = 60


@pytest.mark.parametrize("arrives", [False, True], ids=["before", "after"])
def test_killed_at_any_request_the_next_job_goes_on(fake: Place, arrives: bool) -> None:
    """`arrives`: the request was done, and the process died before it saw the answer."""
    here = Here("task", (dead_tasks,))
    reached = 0
    for number in range(1, MOST):
        objects = FakeObjects()
        place = Place(fake.folder / f"{number}", objects)

        def die(at: int, *_: str, number: int = number) -> None:
            if at == number:
                raise DeadError

        troubled = Troubled(objects, after=die) if arrives else Troubled(objects, before=die)
        try:
            life(place, troubled, 1, here)
        except DeadError:
            reached = number
            troubled.before = troubled.after = lambda *_: None  # what its own `finally` would do counts for nothing
        known = place.memory("look").unit(UNIT)
        assert known.mark in (None, StateMark(LINEAGE, 1))
        life(place, objects, 2, here)
        after = place.memory("look")
        assert after.unit(UNIT).applying is None
        assert after.unit(UNIT).mark in (StateMark(LINEAGE, 1), StateMark(LINEAGE, 2))
        assert after.trust().commit == HEAD
        assert after.fence() == 2
        kinds = place.kinds()
        assert kinds.count("head") == 1
        assert 1 <= kinds.count("intent") <= 2
        assert not after.cabinet.names("locks")
        if reached < number:
            break
    assert reached > 20
    assert reached < MOST - 1


@pytest.mark.parametrize("arrives", [False, True], ids=["refused", "lost"])
def test_a_request_that_fails_fails_the_job_and_nothing_is_half(fake: Place, arrives: bool) -> None:
    here = Here("task", (dead_tasks,))
    for number in range(1, MOST):
        objects = FakeObjects()
        place = Place(fake.folder / f"{number}", objects)

        def fail(at: int, _: str, key: str, number: int = number) -> None:
            if at == number:
                raise away(key)

        troubled = Troubled(objects, after=fail) if arrives else Troubled(objects, before=fail)
        reasons = []
        try:
            life(place, troubled, 1, here)
        except PassError as error:
            reasons.append(error.reason)
        assert reasons in ([], ["MemoryUnavailable"])
        life(place, objects, 2, here)
        assert place.kinds().count("intent") <= 2
        assert place.memory("look").unit(UNIT).applying is None
        if troubled.count < number:
            break
    assert 20 < number < MOST - 1


def test_a_write_that_arrived_though_its_answer_was_lost_is_known_again(fake: Place) -> None:
    assert fake.objects is not None

    def lose(_: int, verb: str, key: str) -> None:
        if verb == "put":
            raise away(key)

    troubled = Troubled(fake.objects, after=lose)
    cabinet = S3Cabinet(troubled)
    with pytest.raises(PassError):
        cabinet.write("a", b"one")
    troubled.after = lambda *_: None
    cabinet.write("a", b"two")
    assert fake.cabinet().read("a") == b"two"
    with pytest.raises(ConflictError):
        S3Cabinet(Late(fake.objects)).write("a", b"three")


class Late(FakeObjects):
    """Somebody else always writes right before us."""

    def __init__(self, objects: Objects) -> None:
        assert isinstance(objects, FakeObjects)
        super().__init__(objects.objects)

    def put(self, key: str, body: bytes, over: str | Over) -> str | None:
        super().put(key, b"theirs %d" % self.writes, Over.ANYTHING)
        return super().put(key, body, over)


def test_a_try_that_was_made_twice_finds_its_own(fake: Place) -> None:
    """The SDK sends a request again whose answer it did not get; the second one is refused."""
    assert fake.objects is not None
    twice = Twice(fake.objects)
    cabinet = S3Cabinet(twice)
    cabinet.write("a", b"one")
    cabinet.write("a", b"two")
    assert cabinet.create("b", b"mine")
    assert (cabinet.read("a"), cabinet.read("b")) == (b"two", b"mine")


class Twice(FakeObjects):
    """Every write is sent twice."""

    def __init__(self, objects: Objects) -> None:
        assert isinstance(objects, FakeObjects)
        super().__init__(objects.objects)

    def put(self, key: str, body: bytes, over: str | Over) -> str | None:
        super().put(key, body, over)
        return super().put(key, body, over)


def test_a_job_asks_so_often_and_not_more(fake: Place) -> None:
    assert fake.objects is not None
    here = Here("task")
    for number in (1, 2):
        troubled = Troubled(fake.objects)
        life(fake, troubled, number, here)
    assert dict(troubled.requests) == {"get": 17, "put": 10, "delete": 1}


def test_a_bucket_that_is_not_there_is_said_within_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws: Aws) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    bucket = Bucket("nobodys", "memory/", REGION, aws.endpoint, path_style=True)
    with pytest.raises(
        PassError, match=r"s3://nobodys/memory/version: the runner's memory: .*NoSuchBucket.*s3:PutObject"
    ) as refused:
        Memory(tmp_path, S3Cabinet(bucket))
    assert refused.value.reason == "MemoryUnavailable"
