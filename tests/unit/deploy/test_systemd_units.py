"""The units of deploy/systemd: what systemd-analyze says of them, and that they give what the two planes need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.confined import calls, kinds, settings

FOLDER = Path(__file__).parents[3] / "deploy" / "systemd"
UNITS = ("reconciler.service", "reconciler-runner.service")
PROGRAM = "/opt/reconciler/bin/reconciler"
# systemd's exposure times ten, at most: the 20 for both; with the namespaces of the jail, what it is.
MOST, MOST_WITH_JAIL = 20, 23


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The units as a host has them whose program is where this one's is."""
    for name in UNITS:
        text = (FOLDER / name).read_text()
        assert f"ExecStart={PROGRAM} " in text
        (tmp_path / name).write_text(text.replace(PROGRAM, str(Path(sys.executable).with_name("reconciler"))))
    return tmp_path


def with_jail(host: Path) -> None:
    folder = host / "reconciler-runner.service.d"
    folder.mkdir()
    (folder / "jail.conf").write_text((FOLDER / "jail.conf").read_text())


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *map(str, words)], capture_output=True, text=True, check=False)


def exposed(unit: Path, most: int) -> bool:
    return analyze("security", "--offline=yes", f"--threshold={most}", unit).returncode != 0


@pytest.mark.parametrize("jail", [False, True])
def test_systemd_understands_every_line(host: Path, jail: bool) -> None:
    if jail:
        with_jail(host)
    checked = analyze("verify", "--man=no", *(host / name for name in UNITS))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_line_that_systemd_does_not_know_would_be_noticed(host: Path) -> None:
    with (host / UNITS[0]).open("a") as unit:
        unit.write("[Service]\nProtectEverything=yes\n")
    assert "ProtectEverything" in analyze("verify", "--man=no", host / UNITS[0]).stderr


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_them_well_closed(host: Path, name: str) -> None:
    assert not exposed(host / name, MOST)
    assert exposed(host / name, 1)  # the command can say no


def test_what_the_jail_costs_is_known(host: Path) -> None:
    with_jail(host)
    assert not exposed(host / UNITS[1], MOST_WITH_JAIL)
    assert exposed(host / UNITS[1], MOST_WITH_JAIL - 1)
    assert f"{MOST_WITH_JAIL / 10}" in (FOLDER.parents[1] / "docs" / "operations.md").read_text()


def test_nothing_that_the_jail_can_bear_comes_to_less(host: Path) -> None:
    """docs/operations.md says so: with all that a site may add 2.2 is left, and what comes to 2.0 takes namespaces of the jail."""
    with_jail(host)
    drop_in = host / "reconciler-runner.service.d" / "jail.conf"
    closed = drop_in.read_text() + "IPAddressDeny=any\nIPAddressAllow=10.0.0.0/8\n"
    closed += "RestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n"
    drop_in.write_text(closed)
    assert not exposed(host / UNITS[1], 22)
    assert exposed(host / UNITS[1], MOST)
    drop_in.write_text(closed.replace(" ipc uts cgroup", ""))
    assert not exposed(host / UNITS[1], MOST)


def test_the_two_planes_have_nothing_in_common() -> None:
    controller, runner = (settings(FOLDER / name) for name in UNITS)
    for setting in ("User", "Group", "StateDirectory", "RuntimeDirectory", "ConfigurationDirectory"):
        assert controller[setting] != runner[setting]
    for unit in (controller, runner):
        assert unit["Type"] == ["notify"]
        assert unit["KillMode"] == ["mixed"]
        assert unit["NoNewPrivileges"] == ["yes"]
        assert unit["CapabilityBoundingSet"] == [""]
    names = (FOLDER / "reconciler.sysusers").read_text()
    assert all(f"u {unit['User'][0]} " in names for unit in (controller, runner))


def test_the_jail_needs_its_namespaces_and_the_service_none() -> None:
    runner = settings(FOLDER / UNITS[1])
    assert kinds(runner["RestrictNamespaces"][-1]) == 0
    assert not {"mount", "pivot_root", "capset"} & calls(runner["SystemCallFilter"])
    jailed = settings(FOLDER / UNITS[1], FOLDER / "jail.conf")
    assert kinds(jailed["RestrictNamespaces"][-1]) == 0x7E020000
    assert {"mount", "pivot_root", "capset", "unshare"} <= calls(jailed["SystemCallFilter"])
