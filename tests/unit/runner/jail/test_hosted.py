"""A host whose jobs run in a jail: what it says of itself, what each environment's jobs may reach, what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reconciler.cli.runner import _lines
from reconciler.errors import ConfigError, HeldError
from reconciler.model import JobId
from reconciler.runner.host import Host
from reconciler.runner.jail.tier import FALLBACK, find_bwrap, open_sandbox
from reconciler.runner.jail.users import Users
from reconciler.runner.supply import check_unpacked
from reconciler.runner.terraform.packages import unpacked, wanted
from tests.kit.plane import ground, open_host
from tests.kit.terraform import static_engine
from tests.kit.workbench import FILES, pin

linux = pytest.mark.skipif(sys.platform != "linux", reason="jails are made of Linux's namespaces")
STRICT = {"tier": "strict"}


def hosted(folder: Path, **prod: object) -> Host:
    static_engine()
    return open_host(ground(folder, sandbox=STRICT, environments={"prod": prod}))


@linux
def test_it_tells_its_tier_and_what_may_be_reached(tmp_path: Path) -> None:
    s3 = {"local": None, "s3": {"bucket": "states", "region": "eu-west-1"}}
    env = {"AWS_ENDPOINT_URL_SSM": "http://127.0.0.1:9"}
    host = hosted(tmp_path, backend=s3, env=env, egress=["*.eu-west-1.amazonaws.com:443", "STS.amazonaws.com:443"])
    assert host.facts().sandbox == host.about()["sandbox_tier"] == "strict"
    environments = host.about()["environments"]
    assert isinstance(environments, dict)
    listed = [
        "*.eu-west-1.amazonaws.com:443", "127.0.0.1:9", "s3.eu-west-1.amazonaws.com:443",
        "states.s3.eu-west-1.amazonaws.com:443", "sts.amazonaws.com:443", "sts.eu-west-1.amazonaws.com:443",
    ]  # fmt: skip
    assert environments["prod"]["egress"] == listed
    folder = host.spool.job(JobId("one"))
    tmp_path.chmod(0o755)  # the user that a job runs as has to read it
    jailer = host.jail(host.environment("prod"), folder, tmp_path)
    assert jailer is not None
    assert (jailer.cell.work, jailer.cell.readable) == (folder.work, (host.engine.binary, tmp_path))
    assert sorted(map(str, jailer.cell.egress.endpoints)) == listed
    assert list((host.memory.folder / "probes").iterdir()) == []


@linux
def test_endpoints_that_are_configured_stand_for_those_of_aws(tmp_path: Path) -> None:
    s3 = {"local": None, "s3": {"bucket": "states", "region": "eu-west-1", "endpoint": "https://minio.example"}}
    environments = hosted(tmp_path, backend=s3).about()["environments"]
    assert isinstance(environments, dict)
    assert environments["prod"]["egress"] == ["minio.example:443"]


def test_without_one_it_says_so_aloud(tmp_path: Path) -> None:
    host = open_host(ground(tmp_path))
    assert host.facts().sandbox == host.about()["sandbox_tier"] == "none"
    assert host.jail(host.environment("prod"), host.spool.job(JobId("one"))) is None
    assert any(line.startswith("NO SANDBOX: modules and providers run with all") for line in _lines(host.about()))


def test_a_network_is_not_promised_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that needs one does not fall back to a tier without."""
    static_engine()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr("reconciler.runner.jail.tier.open_users", Users)
    with pytest.raises(ConfigError) as caught:
        open_sandbox(FALLBACK, Path("/x"), embedded=False, scratch=tmp_path / "m" / "probes", networked=("prod",))
    assert "bubblewrap (bwrap) is not on PATH" in str(caught.value)
    assert "tier fallback gives jobs no network, and prod need one" in str(caught.value)


@linux
def test_a_proxy_of_the_hosts_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"environments\.prod\.env: https_proxy and `sandbox` exclude each other"):
        hosted(tmp_path, env={"https_proxy": "http://proxy:3128"})


def test_what_cannot_be_in_a_jail_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="the embedded engine needs Python"):
        open_sandbox("strict", Path("/x"), embedded=True, scratch=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    with pytest.raises(ConfigError, match=r"bubblewrap .* is not on PATH; install it"):
        find_bwrap()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bwrap").touch()
    assert find_bwrap() == tmp_path / "bin" / "bwrap"


def test_archives_are_not_unpacked_into_a_jail(tmp_path: Path) -> None:
    registry = "registry.terraform.io"
    folder = unpacked(tmp_path, wanted(FILES, registry))
    folder.mkdir(parents=True)
    check_unpacked(pin(FILES), registry, tmp_path)
    archive = folder.parent.parent / f"terraform-provider-files_{FILES.version}_{folder.name}.zip"
    archive.touch()
    with pytest.raises(HeldError, match=r"unpack it into .* and remove the archive") as caught:
        check_unpacked(pin(FILES), registry, tmp_path)
    assert caught.value.reason == "ProviderPacked"
