from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from reconciler.errors import HeldError
from reconciler.model import Commit, EnvironmentClass, HostPart, Operation, UnitId
from reconciler.runner.terraform.s3 import S3Backend
from reconciler.runner.terraform.state import LocalBackend
from tests.kit.plane import ground, job, note, open_host, put

ENTRIES = {"a": note("${{ secret.db_password }}")}
PASSWORD = "prod correct horse battery staple"


def part(folder: Path, **prod: object) -> HostPart:
    """What a new host publishes of prod, in another folder each time."""
    made = ground(folder, ENTRIES, environments={"prod": prod})
    (made.folder / "runner").rmdir()
    (made.folder / "runner").symlink_to(folder.parent / "memory", target_is_directory=True)
    return open_host(made).facts().environments["prod"]


@pytest.fixture(autouse=True)
def memory(tmp_path: Path) -> None:
    """One key for every host of a test."""
    (tmp_path / "memory").mkdir(mode=0o700)


def test_what_is_published_is_the_same_after_a_restart(tmp_path: Path) -> None:
    made = ground(tmp_path / "a", ENTRIES)
    first, again = open_host(made), open_host(made)
    assert first.facts() == again.facts()
    assert first.facts_of(first.environment("prod")) == first.facts()
    assert first.facts().environments["prod"].klass is EnvironmentClass.PROTECTED
    assert first.facts().environments["prod"].secrets == {"db_password": first.memory.seal(PASSWORD)}


def test_the_highest_fence_is_published_and_makes_no_other_host(tmp_path: Path) -> None:
    made = ground(tmp_path / "a", ENTRIES)
    host = open_host(made)
    before = host.facts()
    host.memory.check_fence(job("prod/a", Commit("c" * 40), fence=41))
    assert (before.fence, host.facts().fence) == (0, 41)
    assert host.facts() == before


def test_what_can_change_a_plan_changes_the_seal_and_what_cannot_does_not(tmp_path: Path) -> None:
    fixed = {"backend": {"local": {"path": "/srv/states"}}, "env": {"FILES_ROOT": "/srv/world"}}
    plain = part(tmp_path / "0", **fixed)
    same = [fixed | {"max_destroy": 3}, fixed | {"readable_by": ["stage"]}]
    other = [
        fixed | {"env": {"FILES_ROOT": "/srv/elsewhere"}},
        fixed | {"env": {"FILES_ROOT": "/srv/world", "AWS_REGION": "eu-west-1"}},
        fixed | {"allowed_account_ids": ["111111111111"]},
        fixed | {"backend": {"local": {"path": "/srv/others"}}},
    ]
    for number, words in enumerate(same, 1):
        assert part(tmp_path / f"same-{number}", **words).digest == plain.digest
    digests = {part(tmp_path / f"other-{number}", **words).digest for number, words in enumerate(other)}
    assert len(digests | {plain.digest}) == 5


def test_a_secret_that_nobody_should_use_is_not_published(tmp_path: Path) -> None:
    made = ground(tmp_path / "a", ENTRIES)
    host, file = open_host(made), made.folder / "secrets" / "prod" / "db_password"
    file.chmod(0o644)
    assert host.facts().environments["prod"].secrets == {}
    with pytest.raises(HeldError, match="may be read by any user"):
        host.secret(host.environment("prod"), "db_password")
    file.unlink()
    assert host.facts().environments["prod"].secrets == {}
    with pytest.raises(HeldError, match="cannot be read"):
        host.secret(host.environment("prod"), "db_password")


def test_a_secret_that_changes_changes_its_own_seal_only(tmp_path: Path) -> None:
    made = ground(tmp_path / "a", ENTRIES)
    host = open_host(made)
    before = host.facts().environments["prod"]
    (made.folder / "secrets" / "prod" / "db_password").write_text("another")
    after = host.facts().environments["prod"]
    assert after.digest == before.digest
    assert after.secrets == {"db_password": host.memory.seal("another")}


@pytest.mark.parametrize(
    ("more", "env", "endpoint"),
    [
        ({}, {}, None),
        ({}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "http://127.0.0.1:1"),
        (
            {},
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:2"},
            "http://127.0.0.1:2",
        ),
        ({"endpoint": "http://127.0.0.1:3"}, {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:2"}, "http://127.0.0.1:3"),
    ],
)
def test_states_are_read_where_the_engine_reads_them(
    tmp_path: Path, more: dict[str, str], env: dict[str, str], endpoint: str | None
) -> None:
    backend = {"local": None, "s3": {"bucket": "states", "region": "eu-west-1", **more}}
    made = ground(tmp_path / "a", ENTRIES, environments={"prod": {"backend": backend, "env": env}})
    found = open_host(made).environment("prod").backend
    assert isinstance(found, S3Backend)
    assert found.endpoint == endpoint


def test_an_environment_that_is_not_listed_is_held(tmp_path: Path) -> None:
    host = open_host(ground(tmp_path / "a", ENTRIES))
    with pytest.raises(HeldError, match=r"runner.yaml does not list the environment stage") as held:
        host.environment("stage")
    assert held.value.reason == "EnvironmentNotHosted"
    with pytest.raises(HeldError, match=r"environments\.prod\.secrets has no other; it has: db_password"):
        host.secret(host.environment("prod"), "other")


def test_each_operation_has_its_own_credentials(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("plan", "apply")}
    for name, path in files.items():
        put(path, f"TOKEN=of-{name}\nHOME_REGION=eu\n".encode())
        path.chmod(0o600)
    credentials = {name: {"static_file": str(path)} for name, path in files.items()}
    made = ground(tmp_path / "a", ENTRIES, environments={"prod": {"credentials": credentials, "max_destroy": 2}})
    host = open_host(made)
    plan, apply = host.environment("prod"), host.environment("prod", Operation.APPLY)
    assert (plan.variables["TOKEN"], apply.variables["TOKEN"]) == ("of-plan", "of-apply")
    assert plan.variables["FILES_ROOT"] == str(made.world)
    assert apply.secrets == {"of-apply", "eu"}
    assert (apply.max_destroy, apply.backend) == (2, LocalBackend(made.folder / "states"))
    files["apply"].chmod(0o604)
    assert host.environment("prod").variables["TOKEN"] == "of-plan"
    with pytest.raises(HeldError, match=r"credentials: .* may be read by any user"):
        host.environment("prod", Operation.APPLY)


def test_what_it_says_of_itself_is_data_and_no_secret(tmp_path: Path) -> None:
    host = open_host(ground(tmp_path / "a", ENTRIES))
    host.memory.pause("a migration")
    about = json.loads(json.dumps(host.about()))
    assert about["paused"] == "a migration"
    assert about["accepted_head"] is None
    assert about["environments"]["prod"]["secrets"] == ["db_password"]
    assert PASSWORD not in json.dumps(about)


def test_warming_up_needs_no_network_and_never_fails(tmp_path: Path) -> None:
    made = ground(tmp_path / "a", ENTRIES)
    host = open_host(made)
    host.warm()
    host.history.newest(made.environments.head, Operation.PLAN)
    made.environments.folder.rename(tmp_path / "gone")
    host.warm(UnitId("prod/a"))
    host.warm(UnitId("prod/none"))
    assert host.history.known() is not None


def test_a_commit_that_nobody_foresaw_does_not_end_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = open_host(ground(tmp_path / "a", ENTRIES))
    monkeypatch.setattr(host.history, "known", lambda: 1 / 0)
    host.warm()
    assert "ZeroDivisionError" in capsys.readouterr().err
    host.warm()  # that commit is left to the jobs from now on
    assert capsys.readouterr().err == ""


def test_a_commit_that_killed_a_service_is_read_by_jobs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ground(tmp_path / "a", ENTRIES)
    host = open_host(made)
    host.history.newest(made.environments.head, Operation.PLAN)

    def read() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        host.history.known = read  # type: ignore[method-assign]
        host.warm()
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL

    asked = []
    after = open_host(made)
    monkeypatch.setattr(after.history, "known", lambda: asked.append("known"))
    after.warm()
    assert asked == []
    made.environments.merge({"environments/prod/other.yaml": "module: acme/app\n"}, "another")
    open_host(made).history.newest(made.environments.head, Operation.PLAN)
    after.warm()
    assert asked == ["known"]


def test_a_half_written_state_does_not_stay(tmp_path: Path) -> None:
    made = ground(tmp_path / "a", ENTRIES)
    host = open_host(made)
    left = [made.state("prod/a").with_name(".a.tfstate.abcd1234"), host.memory.folder / "units" / ".a.json.abcd1234"]
    for path in left:
        put(path, b"half")
        os.utime(path, (0, 0))
    host.sweep()
    assert not any(path.exists() for path in left)
