from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from reconciler.durable import FileLock
from reconciler.errors import PassError, UnitError
from reconciler.model import Allowances, Commit, JobId, Json, StateMark, UnitId
from reconciler.runner.allowances import Allowed
from reconciler.runner.memory import Applying, Memory, Trust, UnitMemory, finished
from tests.kit.plane import LINEAGE, NOW, applied, job, remembered
from tests.kit.terraform import until

HEAD = Commit("c" * 40)
UNIT = UnitId("prod/a/b")
FULL = UnitMemory(
    UNIT,
    applied(outputs={"id": "seal"}, reads=frozenset({UnitId("prod/net")})),
    StateMark(LINEAGE, 7),
    Applying(JobId("job-1"), NOW, "digest"),
    corrected="digest",
    tainted=frozenset({"thing.a"}),
    sensitive_outputs=frozenset({"password"}),
    moved_to=UnitId("prod/z"),
)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_everything_is_its_owners_alone(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "m")
    memory.save(FULL)
    memory.save_trust(Trust(HEAD))
    memory.check_fence(job("prod/a", HEAD))
    memory.pause("why")
    files = [path for path in (tmp_path / "m").rglob("*") if path.is_file()]
    assert {path.name for path in files} > {"key", "trust.json", "fence.json", "pause", "b.json"}
    assert {mode(path) for path in files} == {0o600}
    assert mode(tmp_path / "m") == 0o700


def test_the_key_is_made_once(tmp_path: Path) -> None:
    first, again, other = Memory(tmp_path / "m"), Memory(tmp_path / "m"), Memory(tmp_path / "n")
    assert len(first.key) == 32
    assert first.key == again.key != other.key


def test_a_seal_names_a_value_and_tells_nothing_of_it(tmp_path: Path) -> None:
    memory, other = Memory(tmp_path / "m"), Memory(tmp_path / "n")
    assert memory.seal({"a": 1, "b": [None]}) == memory.seal({"b": [None], "a": 1})
    different: list[Json] = [1, "1", True, None, [], {}, "", 1.5]
    assert len({memory.seal(value) for value in different}) == 8
    assert memory.seal("secret") != other.seal("secret")
    assert "secret" not in memory.seal("secret")


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    assert memory.unit(UNIT) == UnitMemory(UNIT)
    memory.save(FULL)
    assert Memory(tmp_path).unit(UNIT) == FULL
    trust = Trust(HEAD, {UNIT: Allowed(Allowances(destroy=2), {"destroy": NOW})})
    assert memory.trust() == Trust()
    memory.save_trust(trust)
    assert Memory(tmp_path).trust() == trust


def test_every_unit_is_found_and_no_half_written_file(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    assert list(memory.units()) == []
    for name in ("prod/b", "prod/a", "stage/a/deep"):
        memory.save(remembered(name))
    (tmp_path / "units" / "prod" / ".a.json.x1y2z3").write_bytes(b'{"uni')
    assert [one.unit for one in memory.units()] == ["prod/a", "prod/b", "stage/a/deep"]


def test_a_write_that_is_killed_leaves_one_whole_fact(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    facts = [remembered("prod/a", corrected=letter * 4000) for letter in "xyz"]
    memory.save(facts[0])
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            while True:
                for fact in facts:
                    memory.save(fact)
        before = memory.unit(UnitId("prod/a"))
        until(lambda before=before: memory.unit(UnitId("prod/a")) != before, "the child writes")  # type: ignore[misc]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert memory.unit(UnitId("prod/a")) in facts


def test_trust_is_changed_by_one_process_at_a_time(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    other = FileLock(tmp_path / "trust.lock")
    with memory.trusting():
        assert not other.take()
    assert other.take()
    other.release()


def test_a_unit_is_changed_by_one_job_at_a_time(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    with memory.unit_lock(UNIT):
        with pytest.raises(UnitError, match=r"another job of prod/a/b") as refused:
            memory.unit_lock(UNIT)
        memory.unit_lock(UnitId("prod/a")).release()
    assert (refused.value.reason, refused.value.transient) == ("UnitBusy", True)
    memory.unit_lock(UNIT).release()


def test_a_controller_that_was_replaced_is_refused(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    assert memory.fence() == 0
    for fence in (3, 3, 5):
        memory.check_fence(job("prod/a", HEAD, fence=fence))
    with pytest.raises(PassError, match=r"has fence 4; 5 was seen already.* stop it.* restart this one") as refused:
        Memory(tmp_path).check_fence(job("prod/a", HEAD, fence=4))
    assert refused.value.reason == "FenceStale"
    memory.check_fence(job("prod/a", HEAD, fence=5))
    assert memory.fence() == 5


def test_the_runners_own_pause_is_a_file(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.resume()
    assert memory.paused() is None
    memory.pause("a migration")
    assert Memory(tmp_path).paused() == "a migration"
    memory.resume()
    assert memory.paused() is None


def test_what_is_finished_is_neither_half_done_nor_tainted() -> None:
    done = applied(state=StateMark(LINEAGE, 8))
    after = finished(FULL, done, None)
    assert (after.applied, after.mark) == (done, StateMark(LINEAGE, 8))
    assert (after.applying, after.corrected, after.tainted) == (None, None, frozenset())
    assert after.sensitive_outputs == FULL.sensitive_outputs


def test_an_end_without_a_state_forgets_no_mark() -> None:
    assert finished(FULL, applied(state=None), "digest").mark == FULL.mark


def test_a_job_of_before_begins_nothing_once_another_leads(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.check_fence(job("prod/a", HEAD, fence=4))
    memory.lead(5)
    with pytest.raises(PassError, match="5 was seen already"):
        Memory(tmp_path).check_fence(job("prod/a", HEAD, fence=4))
    memory.check_fence(job("prod/a", HEAD, fence=5))


def test_who_leads_is_not_told_while_a_job_looks(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    with FileLock(tmp_path / "fence.lock"), pytest.raises(PassError, match="asked again") as caught:
        memory.lead(5)
    assert (caught.value.reason, memory.fence()) == ("FenceBusy", 0)
    memory.lead(5)
    assert memory.fence() == 5
