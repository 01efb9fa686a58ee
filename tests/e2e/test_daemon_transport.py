"""Both planes fetch over real OpenSSH, and over https with a private authority and a token; then the server misbehaves."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from reconciler.demo.playground import laid_over
from tests.kit.gitserver import HttpsServer, SshServer, make_key, running
from tests.kit.house import House, Json, house
from tests.kit.modules import CATALOG, data, environment
from tests.kit.story import at, did, env, look, settled

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE = 180.0  # seconds
INTERVAL = 1  # second between two polls; the last success is old after ten of them
LOGIN = "bot:token-0123456789"
ENTRIES = {env("prod"): environment(), at("prod/a"): data("one"), at("prod/b"): data("${{ a.value }}")}


def over(url: Callable[[Path], str], folder: Path, opened_by: Json) -> Json:
    """What either plane's configuration says of its repositories. `folder` is the house's."""
    place: Json = {"allow_file": None, **opened_by}
    return {
        "environments_repo": {**place, "url": url(folder / "environments.git")},
        "catalog_repos": {"acme": {**place, "url": url(folder / "catalog.git")}},
    }


def live(home: House) -> None:
    """It deploys, and a merge on the server arrives."""
    home.start()
    home.synced(patience=PATIENCE)
    merge(home, "two")
    checks = home.get("/readyz")
    assert checks["ready"] is True
    assert checks["checks"].pop("leader")["ok"] is True  # its message says who leads
    assert all(check == {"ok": True, "message": ""} for check in checks["checks"].values())


def merge(home: House, value: str) -> None:
    """Merge a new value, and wait until it is where the last one reads it."""
    home.ground.merge({at("prod/a"): data(value)})
    home.synced(patience=PATIENCE)
    settled(home)
    assert f'"value": "{value}"' in home.ground.state("prod/b").read_text()


def goes_on_without(home: House, *words: str) -> None:
    """The server serves no more: everybody is told why and what to do; what was merged before stays in force."""
    good = home.head()
    before = home.ground.state("prod/a").read_text()
    home.until(lambda: _told(home.get("/api/v1/status")["checks"]["git"], *words), f"status says {words}", PATIENCE)
    merged = home.ground.merge({at("prod/a"): data("three")})  # no poll is under way any more that it could slip into
    shown = home.command("status").stdout
    assert _told({"message": " ".join(shown.split())}, *words), shown
    home.until(lambda: httpx.get(f"{home.ground.address}/readyz", timeout=20).status_code == 503, "not ready", PATIENCE)
    assert _told(home.get("/readyz")["checks"]["git"], *words)
    assert home.get("/readyz")["checks"]["runner"]["ok"] is True

    # The last good commit stays in force: it is still looked after.
    assert home.head() == good != merged
    known = len(did(home, "prod/b"))
    found = home.until(lambda: look(home, "prod/b"), "drift is looked for", PATIENCE)
    assert (found["outcome"], found["reason"], found["commit"]) == ("Succeeded", "InSync", good)
    assert len(did(home, "prod/b")) == known + 1
    assert home.ground.state("prod/a").read_text() == before


def _told(check: Json, *words: str) -> bool:
    return all(word in check["message"] for word in words)


def is_back(home: House) -> None:
    """The server serves again: what was merged meanwhile arrives by itself."""
    home.synced(patience=PATIENCE)
    assert '"value": "three"' in home.ground.state("prod/b").read_text()
    assert home.get("/readyz")["ready"] is True
    assert home.get("/api/v1/status")["checks"]["git"] == {"ok": True, "message": ""}


def ends_soon(home: House) -> None:
    """A server that hangs does not hold up the end of either plane."""
    began = time.monotonic()
    home.stop()
    assert time.monotonic() - began < 15


@contextmanager
def over_ssh(tmp_path: Path) -> Iterator[tuple[SshServer, House]]:
    """A house whose planes fetch everything with a key from sshd."""
    server, folder = SshServer(tmp_path / "ssh"), tmp_path / "h"
    opened_by = {"ssh_key": str(server.user_key), "known_hosts": str(server.known_hosts)}
    with running(server), _house(folder, over(server.url, folder, opened_by)) as home:
        yield server, home


@contextmanager
def over_https(tmp_path: Path) -> Iterator[tuple[HttpsServer, House]]:
    """A house whose planes fetch everything with a token over https."""
    folder = tmp_path / "h"
    server = HttpsServer(tmp_path / "https", folder)
    server.login = LOGIN
    token = tmp_path / "token"
    token.write_text(LOGIN)
    opened_by = {"ca_file": str(server.ca_file), "token_file": str(token)}
    with running(server), _house(folder, over(server.url, folder, opened_by)) as home:
        yield server, home


@contextmanager
def _house(folder: Path, repositories: Json) -> Iterator[House]:
    often = {"environments_repo": {"poll_interval": f"{INTERVAL}s"}}
    with house(folder, ENTRIES, CATALOG, controller=laid_over(repositories, often), runner=repositories) as home:
        yield home


def test_another_host_key(tmp_path: Path) -> None:
    with over_ssh(tmp_path) as (server, home):
        live(home)
        genuine, server.host_key = server.host_key, make_key(tmp_path / "another")
        goes_on_without(home, "the host key is not the expected one", "add it to known_hosts")
        server.host_key = genuine
        is_back(home)


def test_an_ssh_server_that_hangs(tmp_path: Path) -> None:
    with over_ssh(tmp_path) as (server, home):
        live(home)
        server.mode = "silent"
        goes_on_without(home, "check", "the next poll tries again")
        ends_soon(home)
        home.start()  # the last good commit is known without the server
        home.until(lambda: home.get("/api/v1/status")["resolved"] == home.head(), "it is what counts again")
        server.mode = "serve"
        is_back(home)


def test_a_certificate_of_another_authority(tmp_path: Path) -> None:
    with over_https(tmp_path) as (server, home):
        live(home)
        server.show(trustme.CA())
        goes_on_without(home, "the server's certificate is not trusted", "ca_file")
        server.show(server.authority)
        is_back(home)
        _token_is_nowhere(home)


def test_a_redirect(tmp_path: Path) -> None:
    elsewhere = HttpsServer(tmp_path / "elsewhere", tmp_path / "h")
    with running(elsewhere), over_https(tmp_path) as (server, home):
        live(home)
        server.mode, server.target = "redirect", f"https://127.0.0.1:{elsewhere.port}"
        goes_on_without(home, "redirect", "configure the final address")
        server.mode = "serve"
        is_back(home)
    assert elsewhere.requests == []


def test_an_https_server_that_hangs(tmp_path: Path) -> None:
    with over_https(tmp_path) as (server, home):
        live(home)
        server.mode = "silent"
        goes_on_without(home, "check", "the next poll tries again")
        ends_soon(home)
        home.start()
        home.until(lambda: home.get("/api/v1/status")["resolved"] == home.head(), "it is what counts again")
        server.mode = "serve"
        is_back(home)


def _token_is_nowhere(home: House) -> None:
    home.stop()
    header = base64.b64encode(LOGIN.encode())
    for name in ("controller", "runner", "logs"):
        files = [path for path in (home.ground.folder / name).rglob("*") if path.is_file()]
        assert [path for path in files if any(form in path.read_bytes() for form in (LOGIN.encode(), header))] == []
