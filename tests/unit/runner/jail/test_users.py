"""Users that jobs run as: each has its own, nobody else's, and what one leaves behind is ended before the next is it."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, HeldError, PassError
from reconciler.runner.jail import users
from reconciler.runner.jail.egress import Egress
from reconciler.runner.jail.tier import FALLBACK, STRICT, Sandbox, make_sandbox
from reconciler.runner.jail.users import Users, closed_above, end_all, hand_over, let_through, open_users

FIRST = 84_000  # not those of the runners of other tests
root = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root becomes another user")


@root
def test_no_two_jobs_are_one_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "MOST", 2)
    found = Users(FIRST)
    one, two = found.take(), found.take()
    assert (one.uid, two.uid) == (FIRST, FIRST + 1)
    with pytest.raises(PassError, match="all 2 users from 84000 on are taken"):
        found.take()
    del one
    assert found.take().uid == FIRST


@root
def test_what_a_user_left_running_is_ended_before_the_next_job() -> None:
    uid = FIRST + 300
    left = subprocess.Popen(["/bin/sleep", "300"], user=uid, group=uid, extra_groups=[], start_new_session=True)
    mine = subprocess.Popen(["/bin/sleep", "300"])
    try:
        assert Users(uid).take().uid == uid
        assert not Path("/proc", str(left.pid)).exists()  # nor waits for anybody to hear of its end
        assert mine.poll() is None
        end_all(uid)  # nobody is left
    finally:
        left.wait()
        mine.kill()
        mine.wait()


@root
def test_ids_of_people_are_not_taken() -> None:
    known = pwd.getpwnam("nobody")
    with pytest.raises(ConfigError, match=r"sandbox\.first_user: .* has one of the user ids"):
        open_users(known.pw_uid - 5)
    assert open_users(FIRST) == Users(FIRST)


def test_who_is_not_root_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert open_users(FIRST) is None
    assert make_sandbox(STRICT, tmp_path).users is None
    with pytest.raises(ConfigError, match="tier fallback runs jobs as other users, and the runner may not become one"):
        make_sandbox(FALLBACK, tmp_path)


@root
def test_a_folder_is_handed_over_and_no_link_of_it_is_followed(tmp_path: Path) -> None:
    work, outside = tmp_path / "work", tmp_path / "outside"
    (work / "deep").mkdir(parents=True)
    (work / "deep" / "file").touch()
    outside.mkdir()
    (outside / "file").touch()
    (work / "folder").symlink_to(outside)
    (work / "deep" / "link").symlink_to(outside / "file")
    hand_over(work, FIRST)
    assert {path.lstat().st_uid for path in (work, *work.rglob("*"))} == {FIRST}
    assert {path.stat().st_uid for path in (outside, outside / "file")} == {0}


def test_only_what_is_ours_is_opened(tmp_path: Path) -> None:
    home = tmp_path / "home"
    inner = home / "spool" / "job"
    inner.mkdir(parents=True)
    for path in (home, home / "spool", inner):
        path.chmod(0o700)
    assert closed_above(inner)[-2:] == [home, home / "spool"]
    let_through(inner, home)
    assert [oct(path.stat().st_mode & 0o777) for path in (home, home / "spool", inner)] == ["0o700", "0o701", "0o700"]


@root
def test_what_the_user_could_not_read_is_said(tmp_path: Path) -> None:
    closed = tmp_path / "mirror"
    closed.mkdir(mode=0o700)
    sandbox = Sandbox(STRICT, Path("/usr/bin/bwrap"), Users(FIRST + 600))
    with pytest.raises(HeldError, match=r"mirror cannot be read by the user .*chmod -R o\+rX") as caught:
        sandbox.jailer(tmp_path / "work", (closed,), Egress(), tmp_path / "refused")
    assert caught.value.reason == "SandboxClosed"
    closed.chmod(0o755)
    tmp_path.chmod(0o700)
    bare = Sandbox(FALLBACK, None, Users(FIRST + 600), tmp_path / "home")
    with pytest.raises(HeldError, match=r"not everybody may search .*chmod o\+x"):
        bare.jailer(tmp_path / "work", (closed,), Egress(), tmp_path / "refused")
