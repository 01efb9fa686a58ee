"""What is suspected after an apply that died, and what ends it; with the real server of AWS's lists in `search`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.demo.playground import Playground
from reconciler.errors import HeldError, UnitError
from reconciler.model import Job, JobId, Operation, Outcome, UnitId
from reconciler.runner import uncertain
from reconciler.runner.access.sts import NOBODY
from reconciler.runner.carry import LOOK_FOR, recover
from reconciler.runner.holding import Hold
from reconciler.runner.host import Host
from reconciler.runner.memory import Applying, Suspicion, UnitMemory
from reconciler.runner.progress import Progress
from reconciler.runner.settling import settle
from reconciler.runner.terraform.begun import boot
from reconciler.runner.terraform.creation import Creation
from reconciler.runner.terraform.state import WORK_STATE
from reconciler.runner.terraform.statelock import LockInfo
from tests.kit.aws import ACCOUNT, REGION, Aws, prod, serving
from tests.kit.modules import environment
from tests.kit.plane import NOW, carry_out, ground, job, note, open_host, put, remembered, state

UNIT, DEAD = UnitId("prod/app"), JobId("job-dead")
THING = Creation("thing.that", "thing", "acme/things")
HOLD = Hold(None, LockInfo(""))  # of a state that nobody else can reach
KNOWN = Creation("thing.this", "thing", "acme/things")  # in every state of the kit


@dataclass(frozen=True, slots=True)
class Place:
    ground: Playground
    host: Host

    @property
    def work(self) -> Path:
        return self.host.spool.job(DEAD).work

    def died(self, *creates: Creation, booted: str = "") -> UnitMemory:
        """The memory while the apply of a dead job stands without an end, recovered."""
        applying = Applying(DEAD, NOW, "plan", creates=creates, boot=booted or boot())
        self.host.memory.save(remembered(UNIT, applying=applying))
        return recover(self.host, self.host.environment("prod"), self.host.memory.unit(UNIT), HOLD)

    def look(self, memory: UnitMemory) -> tuple[UnitMemory, Progress]:
        commit = self.ground.environments.head
        unit = self.host.history.newest(commit, Operation.PLAN).units[UNIT]
        progress = Progress(Job(JobId("j"), Operation.APPLY, UNIT, commit, 1), NOW)
        return uncertain.look(self.host, self.host.environment("prod"), unit, memory, progress, NOBODY), progress


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = ground(tmp_path, {"app": note()})
    found = Place(made, open_host(made))
    put(made.state(UNIT), state(1))
    found.host.memory.save(remembered(UNIT))
    yield found
    made.close()


def begun(place: Place, *addresses: str) -> None:
    hooks = [{"type": "apply_start", "hook": {"resource": {"addr": one}, "action": "create"}} for one in addresses]
    put(place.work / "apply.out", b"".join(json.dumps(one).encode() + b"\n" for one in hooks))


# --- what is suspected


def test_what_was_begun_and_is_in_no_state_is_suspected_and_on_disk_before_the_workspace_goes(place: Place) -> None:
    begun(place, "thing.this", "thing.that")
    put(place.work / WORK_STATE, state(2))
    after = place.died(THING, KNOWN, replace(THING, address="thing.never"))
    assert after.suspicion is not None
    assert after.suspicion.suspects == (THING,)
    assert (after.suspicion.unit, after.suspicion.since) == (UNIT, NOW)
    assert after.suspicion.until - datetime.now(UTC) <= LOOK_FOR
    assert place.host.memory.unit(UNIT) == after
    assert not place.work.exists()
    hosted = place.host.environment("prod")
    assert recover(place.host, hosted, after, HOLD) == after  # looked at once: the workspace that would tell is gone


def test_an_apply_that_never_began_is_suspected_of_nothing(place: Place) -> None:
    put(place.work / "tfplan", b"")
    assert place.died(THING).suspicion is None


@pytest.mark.parametrize("left", [{}, {"tfplan": b"", "other-boot": b""}, {"apply.out": b'{"type":"apply_sta'}])
def test_where_nothing_is_proven_all_that_is_not_in_the_state_is_suspected(
    left: dict[str, bytes], place: Place
) -> None:
    for name, data in left.items():
        put(place.work / name, data)
    after = place.died(THING, KNOWN, booted="before" if "other-boot" in left else "")
    assert after.suspicion is not None
    assert after.suspicion.suspects == (THING,)


def test_another_dead_apply_adds_to_what_is_suspected(place: Place) -> None:
    begun(place, "thing.that")
    first = place.died(THING).suspicion
    assert first is not None
    other = replace(THING, address="thing.other")
    memory = replace(
        place.host.memory.unit(UNIT), suspicion=first, applying=Applying(DEAD, datetime.now(UTC), "p", creates=(other,), boot=boot())
    )  # fmt: skip
    begun(place, "thing.other")
    second = recover(place.host, place.host.environment("prod"), memory, HOLD).suspicion
    assert second is not None
    assert (second.suspects, second.since) == ((THING, other), NOW)
    assert second.until > first.until


def test_an_engine_that_emptied_its_state_and_died_wrote_nothing(place: Place) -> None:
    begun(place, "thing.that")
    put(place.work / WORK_STATE, b"")
    assert place.died(THING).suspicion is not None
    assert place.ground.state(UNIT).read_bytes() == state(1)


# --- what it holds


def test_what_nobody_can_look_for_holds_every_job_until_it_is_settled(place: Place) -> None:
    begun(place, "thing.that")
    place.died(THING)
    for number, operation in enumerate((Operation.PLAN, Operation.APPLY), 1):
        result = carry_out(place.host, job(UNIT, place.ground.environments.head, number, operation=operation))
        assert (result.outcome, result.reason) == (Outcome.HELD, "Uncertain")
        assert result.strays is not None
        assert [(one.address, one.found) for one in result.strays] == [("thing.that", "begun")]
        assert "`reconciler runner settle prod/app --reason R`" in result.message
    assert settle(place.host.memory, UNIT).suspects == (THING,)
    assert place.host.memory.unit(UNIT).suspicion is None
    with pytest.raises(UnitError, match="nothing is suspected of prod/app"):
        settle(place.host.memory, UNIT)
    result = carry_out(place.host, job(UNIT, place.ground.environments.head, 3, operation=Operation.PLAN))
    assert (result.reason, result.strays) != ("Uncertain", None)
    assert result.strays == ()


def test_settling_waits_for_the_units_job(place: Place) -> None:
    with place.host.memory.unit_lock(UNIT), pytest.raises(UnitError, match="another job of prod/app"):
        settle(place.host.memory, UNIT)


def test_many_are_told_of_briefly(place: Place) -> None:
    many = tuple(replace(THING, address=f"thing.t{number}") for number in range(200))
    suspicion = Suspicion(UNIT, NOW, NOW + timedelta(hours=1), many)
    with pytest.raises(HeldError, match=r"thing.t4 .* And 195 more: `reconciler orphans prod/app` lists them") as held:
        place.look(remembered(UNIT, suspicion=suspicion))
    assert "thing.t5 " not in str(held.value)


def test_where_nothing_is_suspected_nothing_is_asked(place: Place) -> None:
    memory = remembered(UNIT)
    after, progress = place.look(memory)
    assert after is memory
    assert progress.strays == ()


def test_a_search_without_a_region_or_an_answer_holds_and_says_so(place: Place) -> None:
    vpc = Creation("module.unit.aws_vpc.this", "aws_vpc", "hashicorp/aws", tagged=True)
    suspicion = Suspicion(UNIT, NOW, NOW, (vpc,))
    with pytest.raises(
        HeldError, match=r"could not be looked up: no region is known; .*AWS_REGION.*runner settle"
    ) as held:
        place.look(remembered(UNIT, suspicion=suspicion))
    assert held.value.reason == "Uncertain"


# --- with an account to look into

VPC = Creation("module.unit.aws_vpc.this", "aws_vpc", "hashicorp/aws", tagged=True)
TAGS = {"reconciler:installation": "reconciler", "reconciler:unit": UNIT}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Aws]:
    with serving() as found:
        yield found


@pytest.fixture
def account(tmp_path: Path, cloud: Aws) -> Iterator[tuple[Place, Aws]]:
    """A place whose environment is in an account."""
    cloud.reset()
    keys = (tmp_path / "keys.env", "worker-key-0123456789")
    said = prod(cloud, ACCOUNT, plan=keys, apply=keys)
    del said["backend"]
    made = ground(tmp_path, {"app": note()}, environments={"prod": said})
    made.environments.commit(
        {"environments/prod/environment.yaml": environment(providers={"aws": {"region": REGION}})}, "In a region"
    )
    place = Place(made, open_host(made))
    place.host.history.newest(made.environments.head, Operation.PLAN)
    put(made.state(UNIT), state(1))
    yield place, cloud
    made.close()


def made_vpc(aws: Aws) -> str:
    tags = [{"Key": key, "Value": str(value)} for key, value in TAGS.items()]
    specification = [{"ResourceType": "vpc", "Tags": tags}]
    vpc = aws.client("ec2").create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=specification)
    return str(vpc["Vpc"]["VpcId"])


def with_vpc(vpc: str) -> bytes:
    instance = {"attributes": {"id": vpc, "arn": f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/{vpc}"}}
    resource = {"mode": "managed", "type": "aws_vpc", "name": "this", "instances": [instance]}
    return json.dumps({"version": 4, "serial": 2, "lineage": "l", "resources": [resource]}).encode()


def suspicious(*suspects: Creation, until: datetime) -> UnitMemory:
    return remembered(UNIT, suspicion=Suspicion(UNIT, datetime.now(UTC), until, suspects))


def test_what_is_found_holds_until_it_is_gone_or_a_state_has_it(account: tuple[Place, Aws]) -> None:
    place, aws = account
    vpc, soon = made_vpc(aws), datetime.now(UTC) + timedelta(hours=1)
    memory = suspicious(VPC, until=soon)
    with pytest.raises(
        HeldError, match=rf"aws_vpc {VPC.address} arn:\S+{vpc} in {REGION} .*delete-vpc --vpc-id {vpc} "
    ) as held:
        place.look(memory)
    assert held.value.reason == "Uncertain"
    assert [one.id[-len(vpc) :] for one in uncertain.orphans(place.host, "prod")] == [vpc]
    for unit in (UNIT, UnitId("prod/other")):
        put(place.ground.state(unit), with_vpc(vpc))
        assert place.look(memory)[0] is memory
        assert uncertain.orphans(place.host, "prod") == ()
        place.ground.state(unit).unlink()
    with pytest.raises(HeldError):
        place.look(memory)
    aws.client("ec2").delete_vpc(VpcId=vpc)
    after, progress = place.look(memory)
    assert (after, progress.strays) == (memory, ())  # it is looked for again by each job
    over = suspicious(VPC, until=datetime.now(UTC) - timedelta(seconds=1))
    assert place.look(over)[0].suspicion is None
    assert place.host.memory.unit(UNIT).suspicion is None


def test_a_type_that_cannot_be_looked_for_and_a_provider_that_works_elsewhere_want_a_person(
    account: tuple[Place, Aws],
) -> None:
    place, _ = account
    route = replace(VPC, type="aws_route", address="module.unit.aws_route.r", tagged=False)
    soon = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(HeldError, match=r"aws_route module.unit.aws_route.r \(its creation had begun\): look whether"):
        place.look(suspicious(VPC, route, until=soon))
    elsewhere = {"aws": {"region": REGION, "assume_role": [{"role_arn": "arn:aws:iam::1:role/x"}]}}
    place.ground.environments.commit(
        {"environments/prod/environment.yaml": environment(providers=elsewhere)}, "Elsewhere"
    )
    with pytest.raises(HeldError, match=r"aws_vpc module.unit.aws_vpc.this \(its creation had begun\)"):
        place.look(suspicious(VPC, until=soon))


def test_an_account_that_is_not_the_environments_proves_nothing(account: tuple[Place, Aws]) -> None:
    place, _ = account
    place.host.config.environments["prod"].allowed_account_ids[:] = ["999999999999"]
    with pytest.raises(
        HeldError, match="could not be looked up: the credentials for plans are of the AWS account"
    ) as held:
        place.look(suspicious(VPC, until=datetime.now(UTC) + timedelta(hours=1)))
    assert held.value.reason == "Uncertain"
    with pytest.raises(UnitError, match="allowed_account_ids has only 999999999999"):
        uncertain.orphans(place.host, "prod")
