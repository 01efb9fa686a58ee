from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from pydantic import ValidationError

from reconciler.config.controller import Http
from reconciler.errors import ConfigError
from reconciler.web.door import Door
from reconciler.web.pulse import Pulse
from tests.kit.served import Served, serve

HEADER = "x-forwarded-user"
HTML = {"accept": "text/html"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    one = serve(tmp_path)
    with one.stack:
        yield one


def door(served: Served, **config: Any) -> Door:
    return Door(
        Http.model_validate({"listen": "127.0.0.1:0", **config}),
        served.installation,
        Pulse(),
        served.installation.observer,
        served.installation.clock.now,
    )


def ask(at: tuple[str, int], headers: dict[str, str] | list[tuple[str, str]], path: str = "/") -> httpx.Response:
    return httpx.get(f"http://{at[0]}:{at[1]}{path}", headers=headers, trust_env=False)


def test_who_looks_is_named_by_the_proxy_and_shown(served: Served) -> None:
    with door(served, proxy={"addresses": ["127.0.0.1"]}) as at:
        answer = ask(at, {**HTML, HEADER: "ann <b>"})
        assert answer.status_code == 200
        assert "ann &lt;b&gt;" in answer.text


@pytest.mark.parametrize("path", ["/", "/metrics", "/readyz", "/api/v1/status", "/stream", "/static/page.css", "/none"])
def test_nothing_is_answered_to_who_is_not_named(served: Served, path: str) -> None:
    with door(served, proxy={"addresses": ["127.0.0.1"]}) as at:
        for headers in ([], [(HEADER, "")], [(HEADER, "ann"), (HEADER, "bo")], [(HEADER, "a" * 257)]):
            answer = ask(at, headers, path)
            assert answer.status_code == 401, headers
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert ask(at, [], "/healthz").text == "ok\n"


@pytest.mark.parametrize("header", ["x-forwarded-for", "x-real-ip", "forwarded", "x-client-ip"])
def test_whose_connection_it_is_no_header_says(served: Served, header: str) -> None:
    with door(served, proxy={"addresses": ["10.0.0.7", "192.0.2.0/24"]}) as at:
        for value in ("10.0.0.7", "for=10.0.0.7", "192.0.2.1, 10.0.0.7"):
            assert ask(at, {HEADER: "ann", header: value}).status_code == 403


def test_only_the_listed_users_where_some_are(served: Served) -> None:
    with door(served, proxy={"addresses": ["127.0.0.0/8"], "users": ["ann"], "user_header": "Remote-User"}) as at:
        assert ask(at, {"remote-user": "ann"}).status_code == 200
        assert ask(at, {"remote-user": "Ann"}).status_code == 403
        assert ask(at, {HEADER: "ann"}).status_code == 401


def test_a_name_that_the_proxy_passes_on_is_known(served: Served) -> None:
    with door(served, hosts=["gitops.example"], proxy={"addresses": ["127.0.0.1"]}) as at:
        assert ask(at, {HEADER: "ann", "host": "gitops.example"}).status_code == 200
        assert ask(at, {HEADER: "ann", "host": "other.example"}).status_code == 421


def test_without_a_proxy_the_loopback_is_open_as_ever(served: Served) -> None:
    with door(served) as at:
        assert ask(at, {HEADER: "ann", **HTML}).status_code == 200
        assert "ann" not in ask(at, {HEADER: "ann", **HTML}).text


class Authority:
    """Certificates of a listener and of clients, in files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ca, self.foreign = folder, trustme.CA(), trustme.CA()
        self.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.issue("server", "127.0.0.1", self.ca)

    def issue(self, name: str, identity: str, ca: trustme.CA) -> tuple[str, str]:
        cert = ca.issue_cert(identity)
        paths = str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")
        cert.cert_chain_pems[0].write_to_path(paths[0])
        cert.private_key_pem.write_to_path(paths[1])
        return paths

    @property
    def tls(self) -> dict[str, str]:
        names = {"cert_file": "server.pem", "key_file": "server.key", "client_ca_file": "ca.pem"}
        return {field: str(self.folder / name) for field, name in names.items()}

    def trusted(self, client: tuple[str, str] | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if client:
            context.load_cert_chain(*client)
        return context


def test_the_proxy_proves_that_it_is_the_proxy(served: Served, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one = door(served, tls=authority.tls, proxy={"addresses": ["127.0.0.1"]})
    with one as (host, port):

        def get(client: tuple[str, str] | None) -> int:
            url = f"https://{host}:{port}/"
            return httpx.get(
                url, headers={HEADER: "ann"}, verify=authority.trusted(client), trust_env=False
            ).status_code

        good = authority.issue("proxy", "proxy.example", authority.ca)
        assert get(good) == 200
        for client in (None, authority.issue("other", "proxy.example", authority.foreign)):
            with pytest.raises(httpx.TransportError):
                get(client)
        assert [path.name for path in one.files] == ["server.pem", "server.key"]
        authority.issue("server", "127.0.0.1", authority.ca)
        one.renew()
        assert get(good) == 200
        (tmp_path / "server.key").write_text("half")
        with pytest.raises(ConfigError, match=r"http\.tls"):
            one.renew()
        assert get(good) == 200


PROXY = {"addresses": ["10.0.0.7"]}
TLS = {"cert_file": "a", "key_file": "b"}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"listen": "0.0.0.0:8080"}, "nobody there is asked who they are"),
        ({"listen": "[::]:8080"}, "nobody there is asked who they are"),
        ({"listen": "10.0.0.1:8080", "tls": {**TLS, "client_ca_file": "c"}}, "tls says nothing of who asks"),
        ({"listen": "10.0.0.1:8080", "proxy": PROXY}, "add tls with client_ca_file"),
        ({"listen": "10.0.0.1:8080", "proxy": PROXY, "tls": TLS}, "add tls with client_ca_file"),
        ({"tls": TLS}, "tls says nothing of who asks"),
        ({"proxy": {"addresses": []}}, "addresses"),
        ({"proxy": {"addresses": ["10.0.0.7/8"]}}, "whose last bits are 0"),
        ({"proxy": {"addresses": ["proxy.example"]}}, "no address and no network"),
        ({"proxy": {**PROXY, "user_header": "a b"}}, "should match pattern"),
        ({"hosts": ["a:8080"]}, "should match pattern"),
    ],
)
def test_whatever_would_leave_the_pages_open_is_refused_at_start(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Http.model_validate(config, context={"folder": Path()})
    assert says in str(caught.value)


def test_elsewhere_with_a_proxy_that_proves_itself_is_taken() -> None:
    tls = {**TLS, "client_ca_file": "c"}
    config = Http.model_validate({"listen": "10.0.0.1:8443", "proxy": PROXY, "tls": tls}, context={"folder": Path()})
    assert config.address == ("10.0.0.1", 8443)
