"""`reconciler doctor`: each look finds what is wrong, and says what to do. The whole of it runs in tests/e2e/test_first_merge.py."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler import __version__, wire
from reconciler.cli import main
from reconciler.cli.checkup import host, plane, sockets, trust
from reconciler.cli.checkup.finding import Finding, attempt
from reconciler.config import ControllerConfig, RunnerConfig, load_controller, load_runner
from reconciler.demo.example import LOCK, lock_of
from reconciler.demo.forge import Forge
from tests.kit.gitrepo import RepoBuilder
from tests.kit.signing import SshKey, SshKeys, with_signature
from tests.kit.signing import write as write_commit

RELEASES = {"v1.0.0": {"modules/thing/main.tf": 'variable "a" {}\n'}}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Both configurations, their repositories, and a clone's lock."""
    catalog, environments = Forge.create(tmp_path / "catalog.git"), Forge.create(tmp_path / "environments.git")
    catalog.commit(RELEASES["v1.0.0"], "Release")
    catalog.tag("v1.0.0")
    genesis = environments.commit({"environments/dev/environment.yaml": "class: protected\n"}, "First")
    (tmp_path / LOCK).write_text(lock_of(catalog, RELEASES, "acme"))
    repositories = {
        "environments_repo": {"url": environments.url, "allow_file": True, "genesis": genesis, "signatures": "off"},
        "catalog_repos": {"acme": {"url": catalog.url, "allow_file": True}},
    }
    controller = {
        "store": {"path": "c/db"},
        "executor": {"local": {"socket": "r.sock"}},
        "http": {"listen": "127.0.0.1:1"},
    }
    runner = {
        "memory": {"path": "r"}, "socket": "r.sock", "engine": "auto",
        "allow": [{"operations": ["plan"], "folders": ["environments/**"]}],
        "environments": {"dev": {"class": "protected", "backend": {"local": {"path": "states"}}}},
    }  # fmt: skip
    write(tmp_path / "reconciler.yaml", repositories | controller)
    write(tmp_path / "runner.yaml", repositories | runner)
    return tmp_path


def write(path: Path, config: dict[str, Any]) -> None:
    path.write_text(json.dumps(config))
    path.chmod(0o600)


def changed(path: Path, **fields: Any) -> None:
    write(path, yaml.safe_load(path.read_text()) | fields)


def both(place: Path) -> tuple[ControllerConfig, RunnerConfig]:
    return load_controller(place / "reconciler.yaml"), load_runner(place / "runner.yaml")


def levels(findings: Iterator[Finding]) -> list[str]:
    return [one.level for one in findings]


def told(findings: Iterator[Finding]) -> str:
    return "\n".join(f"{one.level}: {one.message} -> {one.fix}" for one in findings)


def test_a_controller_that_lacks_nothing_but_what_a_trial_lacks(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["doctor", "--config", str(place / "reconciler.yaml"), "--lock", str(place / LOCK)]
    assert main([*words, "-o", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["problem"] == 0
    not_ok = [one["check"] for one in said["findings"] if one["level"] != "ok"]
    assert not_ok == ["controller: signatures", "controller: protection", "controller"]
    assert all(one["fix"] for one in said["findings"] if one["level"] != "ok")
    assert not (place / "c").exists()


def test_a_problem_is_an_exit_code_and_a_line_with_its_fix(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "reconciler.yaml").write_text("nonsense: 1\n")
    assert main(["doctor", "--config", str(place / "reconciler.yaml")]) == 1
    done = capsys.readouterr()
    assert "problem reconciler.yaml" in done.out
    assert "-> correct" in done.out
    assert done.err.endswith("1 ok, 0 warning, 1 problem\n")


def test_what_any_look_stumbles_over_ends_that_look_alone() -> None:
    def stumbling() -> Iterator[Finding]:
        raise RuntimeError("no such thing")

    assert told(attempt("x", "do y", stumbling)) == "problem: cannot be looked at: RuntimeError: no such thing -> do y"


def test_git_as_it_is_here() -> None:
    assert levels(host.git()) == ["ok"]


def test_who_else_may_write_or_read_a_configuration(place: Path) -> None:
    path = place / "runner.yaml"
    assert levels(host.file("x", path, secret=True)) == ["ok"]
    path.chmod(0o644)
    assert told(host.file("x", path, secret=True)).endswith(f"-> chmod o= {path}")
    assert levels(host.file("x", path, secret=False)) == ["ok"]
    path.chmod(0o660)
    assert told(host.file("x", path, secret=False)).endswith(f"-> chmod go-w {path}")
    place.chmod(0o777)
    assert f"chmod o-w {place}" in told(host.file("x", path, secret=False))


def test_every_file_with_a_secret_is_looked_at(place: Path) -> None:
    config = yaml.safe_load((place / "runner.yaml").read_text())
    config["environments"]["dev"] |= {
        "secrets": {"db": {"file": "db"}},
        "credentials": {"plan": {"static_file": "keys"}},
    }
    config["environments_repo"] |= {"ssh_key": "id"}
    write(place / "runner.yaml", config)
    for name, mode in (("db", 0o644), ("id", 0o600)):
        (place / name).write_text("x")
        (place / name).chmod(mode)
    found = told(host.secrets("x", load_runner(place / "runner.yaml")))
    exposed, absent = found.splitlines()
    assert exposed.startswith(f"problem: environments.dev.secrets.db.file: {place / 'db'} may be read by any user")
    assert exposed.endswith(f"-> chmod o= {place / 'db'}")
    assert absent.startswith(f"problem: environments.dev.credentials.plan.static_file: {place / 'keys'} cannot be read")
    assert absent.endswith(f"-> put the secret into {place / 'keys'}, readable by this plane's user")
    (place / "db").chmod(0o600)
    (place / "keys").write_text("A=b")
    (place / "keys").chmod(0o640)
    assert (
        told(host.secrets("x", load_runner(place / "runner.yaml")))
        == "ok: 3 files with secrets, none open to other users -> "
    )


def test_room_by_what_a_job_needs(tmp_path: Path) -> None:
    (free,) = host.room("x", {"memory": tmp_path / "not/yet"}, 0)
    assert free.level in {"ok", "warning"}
    assert levels(host.room("x", {"memory": tmp_path, "work": tmp_path / "work"}, 2**40)) == ["problem"]


def test_folders_that_any_user_may_read(tmp_path: Path) -> None:
    assert levels(host.writable("x", {"memory": tmp_path / "r"})) == ["ok"]
    (tmp_path / "r").mkdir(mode=0o755)
    (tmp_path / "r").chmod(0o755)
    assert told(host.writable("x", {"memory": tmp_path / "r"})).endswith(f"-> chmod o= {tmp_path / 'r'}")


@contextmanager
def dated(ahead: timedelta) -> Iterator[str]:
    """A server whose clock is so much ahead of ours."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", format_datetime(datetime.now(UTC) + ahead, usegmt=True))
            self.end_headers()

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("ahead", "level"), [(0, "ok"), (120, "warning"), (-3600, "problem")])
def test_the_clock_against_a_server(ahead: int, level: str) -> None:
    with dated(timedelta(seconds=ahead)) as server:
        assert levels(host.clock(server, None)) == [level]


def test_repositories_that_are_not_there(place: Path) -> None:
    controller, _ = both(place)
    assert levels(trust.repository("x", controller)) == ["ok"]
    changed(
        place / "reconciler.yaml",
        environments_repo={
            **controller.environments_repo.model_dump(mode="json", exclude_none=True),
            "branch": "trunk",
        },
    )
    assert "has no branch trunk" in told(trust.repository("x", load_controller(place / "reconciler.yaml")))
    (place / "catalog.git").rename(place / "gone.git")
    assert levels(trust.catalogs("x", controller, None)) == ["problem"]


def test_a_lock_that_is_not_as_its_catalog(place: Path) -> None:
    controller, _ = both(place)
    assert told(trust.catalogs("x", controller, place / LOCK)).splitlines()[1:] == [
        f"ok: {place / LOCK}: 1 versions, each as its catalog has it -> "
    ]
    catalog = Forge(place / "catalog.git")
    catalog.commit({"x": "1"}, "Moved")
    catalog.tag("v1.0.0")
    assert "problem" in levels(trust.catalogs("x", controller, place / LOCK))


def test_nobody_who_may_sign(place: Path) -> None:
    repo = yaml.safe_load((place / "reconciler.yaml").read_text())["environments_repo"]
    changed(place / "reconciler.yaml", environments_repo={**repo, "signatures": {"allowed_signers": "signers"}})
    (place / "signers").write_text("# version: 1\n")
    config = load_controller(place / "reconciler.yaml")
    assert "holds no key" in told(attempt("x", "y", lambda: trust.signatures("x", config)))


def test_the_whole_history_is_proven_and_the_first_commit_that_is_not_is_named(place: Path, ssh_keys: SshKeys) -> None:
    forge, ada = Forge(place / "environments.git"), ssh_keys["ada"]
    repo = yaml.safe_load((place / "reconciler.yaml").read_text())["environments_repo"]
    (place / "signers").write_text(ada.line())
    signed = {**repo, "signatures": {"allowed_signers": "signers"}}
    for name in ("reconciler.yaml", "runner.yaml"):
        changed(place / name, environments_repo=signed)

    def merged(number: int, key: SshKey) -> str:
        forge.point("staging", forge.head)
        commit = Forge(forge.folder, "staging").merge({"environments/dev/a.yaml": f"# {number}\n"}, "A change")
        builder = RepoBuilder(forge.folder)
        data = f"{builder.git('cat-file', 'commit', commit)}\n".encode()
        return str(write_commit(builder, with_signature(data, key.sign(data))))

    for number in range(3):
        merged(number, ada)
    for config in both(place):
        assert told(trust.history("x", config)) == (
            f"ok: 3 commits since {repo['genesis'][:12]}, each as environments_repo.signatures wants it -> "
        )
    stranger = merged(3, ssh_keys["eve"])
    merged(4, ada)
    said = told(trust.history("x", both(place)[0]))
    assert said.startswith(f"problem: {stranger[:12]} is not proven (")
    assert "3 commits before it are" in said
    assert not (place / "c").exists()

    changed(place / "reconciler.yaml", environments_repo={**signed, "genesis": "0" * 40})
    config = load_controller(place / "reconciler.yaml")
    assert "does not have the configured genesis" in told(attempt("x", "y", lambda: trust.history("x", config)))
    changed(place / "reconciler.yaml", environments_repo=repo)  # without signatures there is nothing to prove
    assert told(trust.history("x", load_controller(place / "reconciler.yaml"))) == ""


def test_sockets_by_their_path_and_their_rights(tmp_path: Path) -> None:
    assert "104 bytes" in told(sockets.path("x", Path("/" + "a" * 103)))
    assert levels(sockets.path("x", tmp_path / "not/yet.sock")) == ["ok"]
    (tmp_path / "s").write_text("")
    assert "is no socket" in told(sockets.path("x", tmp_path / "s"))
    tmp_path.chmod(0o777)
    assert "anybody may put another socket" in told(sockets.path("x", tmp_path / "s"))


@contextmanager
def answering(path: Path, version: str | None) -> Iterator[None]:
    """A runner of that version, for one question."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                wire.receive(peer)
                about = {"sandbox_tier": "none", "paused": None} | ({"version": version} if version else {})
                wire.send(peer, {"about": about})

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize(("version", "level"), [(__version__, "ok"), ("0.0.1", "problem"), (None, "problem")])
def test_a_runner_of_another_version(
    version: str | None, level: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with answering(Path("r.sock"), version):
        assert levels(sockets.runner(Path("r.sock"), Path("runner.yaml"))) == [level]


def test_a_runner_that_died_and_one_that_was_never_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert levels(sockets.runner(Path("r.sock"), Path("r.yaml"))) == ["warning"]
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind("r.sock")
    assert levels(sockets.runner(Path("r.sock"), Path("r.yaml"))) == ["problem"]


def test_states_and_who_they_belong_to(place: Path) -> None:
    _, runner = both(place)
    assert told(plane.states(runner)) == "ok: 0 states -> "
    listed = yaml.safe_load((place / "runner.yaml").read_text())["environments"]["dev"]
    listed["allowed_account_ids"] = ["111111111111"]
    changed(place / "runner.yaml", environments={"dev": listed, "try": {**listed, "class": "sandbox"}})
    assert "try (sandbox) and dev (protected)" in told(plane.accounts(load_runner(place / "runner.yaml")))


def test_two_files_that_mean_different_things(place: Path) -> None:
    assert levels(plane.together(*both(place))) == ["ok", "warning"]
    changed(place / "runner.yaml", socket="other.sock", controller_uid=1)
    assert "the socket is" in told(plane.together(*both(place)))
