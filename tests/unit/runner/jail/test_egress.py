"""What a jail may connect to: names, addresses, and a proxy that takes nothing that it does not understand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from reconciler.errors import ConfigError
from reconciler.runner.jail.egress import (
    MOST,
    Egress,
    Endpoint,
    Refusal,
    check_no_proxy,
    endpoint_of,
    endpoints_of,
    note,
    noted,
    parse_endpoint,
    s3_endpoints,
    told,
    why_not,
)
from reconciler.runner.jail.proxy import Proxy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sts.amazonaws.com:443", Endpoint("sts.amazonaws.com", 443)),
        ("STS.Amazonaws.com:443", Endpoint("sts.amazonaws.com", 443)),
        ("*.eu-west-1.amazonaws.com:443", Endpoint("eu-west-1.amazonaws.com", 443, below=True)),
        ("127.0.0.1:4566", Endpoint("127.0.0.1", 4566)),
        ("[::1]:4566", Endpoint("::1", 4566)),
        ("*.com:443", None),
        ("*.10.0.0.1:443", None),
        ("a.example", None),
        ("a.example:0", None),
        ("a.example:65536", None),
        ("https://a.example:443", None),
        ("[a.example]:443", None),
    ],
)
def test_endpoints_are_written(text: str, expected: Endpoint | None) -> None:
    found = parse_endpoint(text)
    assert found == expected
    assert found is None or str(found) == text.lower()


def test_a_wildcard_means_names_below_and_not_beside() -> None:
    egress = Egress((Endpoint("amazonaws.com", 443, below=True), Endpoint("a.amazonaws.com", 443)))
    assert egress.listed("a.amazonaws.com", 443) == Endpoint("a.amazonaws.com", 443)
    assert egress.listed("x.y.amazonaws.com", 443) == Endpoint("amazonaws.com", 443, below=True)
    for host, port in (("amazonaws.com", 443), ("evilamazonaws.com", 443), ("a.amazonaws.com", 80), ("", 443)):
        assert egress.listed(host, port) is None


EXACT, BELOW = Endpoint("a.example", 443), Endpoint("example", 443, below=True)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_public_addresses_are_fine(address: str) -> None:
    assert why_not(address, EXACT) is why_not(address, BELOW) is None


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
)
def test_private_addresses_are_for_exact_names(address: str) -> None:
    assert why_not(address, EXACT) is None
    assert why_not(address, BELOW) == "it stands for a private address, and only an exact name may"


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fd00:ec2::254", "fe80::1",
     "169.254.170.2", "168.63.129.16", "100.100.100.200", "fd00:ec2::23", "fd20:ce::254", "192.0.0.192",
     "::ffff:192.0.0.192", "224.0.0.1", "0.0.0.0", "::", "no-address"],
)  # fmt: skip
def test_metadata_is_for_nobody(address: str) -> None:
    assert why_not(address, EXACT) == "a name must not stand for an address of that kind"


def test_what_variables_point_at() -> None:
    variables = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:4566",
        "AWS_ENDPOINT_URL_SSM": "https://ssm.example/path",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9000/creds",
        "OTHER": "https://other.example",
    }
    found = tuple(endpoints_of(variables))
    assert list(map(str, found)) == ["127.0.0.1:4566", "ssm.example:443", "127.0.0.1:9000"]
    assert Egress((*found, Endpoint("localhost", 1))).loopback == (found[0], found[2], Endpoint("localhost", 1))
    for url in ("", "a.example", "http://a.example:x", "http://[1", "http://a b/"):
        assert endpoint_of(url) is None


def test_where_the_s3_backend_leads() -> None:
    hosts = [str(one) for one in s3_endpoints("states", "cn-north-1")]
    assert hosts == [
        "s3.cn-north-1.amazonaws.com.cn:443",
        "states.s3.cn-north-1.amazonaws.com.cn:443",
        "sts.cn-north-1.amazonaws.com.cn:443",
    ]
    assert s3_endpoints("states", "eu-west-1")[0].host == "s3.eu-west-1.amazonaws.com"


def test_a_proxy_of_the_host_is_said_at_the_start() -> None:
    check_no_proxy("prod", {"AWS_REGION": "x"})
    with pytest.raises(ConfigError, match=r"environments.prod.env: HTTPS_PROXY and `sandbox` exclude each other"):
        check_no_proxy("prod", {"HTTPS_PROXY": "http://proxy:3128"})


def test_refusals_are_noted_up_to_a_bound_and_told(tmp_path: Path) -> None:
    path = tmp_path / "refusals"
    assert noted(path) == ()
    for n in range(MOST + 5):
        note(path, Refusal(f"h{n % 7}.example:443", "it is not listed"))
    with path.open("a") as file:
        file.write('["torn')
    assert len(noted(path)) == MOST
    assert told(noted(path), "prod").startswith(" The jail refused connections to h0.example:443, h1.example:443, ")
    assert " and 2 more; list under environments.prod.egress in runner.yaml" in told(noted(path), "prod")
    assert told((), "prod") == ""


# --- the proxy: real sockets, and what it refuses beside what it lets through


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


class House:
    """An upstream that says what it heard, and a proxy before it."""

    def __init__(self, stack: ExitStack, endpoints: Callable[[int], tuple[Endpoint, ...]]) -> None:
        self.heard: list[bytes] = []
        self.refused: list[Refusal] = []
        self._upstream = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port = self._upstream.getsockname()[1]
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=self._answer, daemon=True).start()
        self.proxy = Proxy(Egress(endpoints(self.port)), self.refused.append)
        self.proxy.serve(self._listener)
        stack.callback(self._close)

    def _close(self) -> None:
        for one in (self._listener, self._upstream):
            one.shutdown(socket.SHUT_RDWR)

    def _answer(self) -> None:
        while True:
            try:
                client, _ = self._upstream.accept()
            except OSError:
                return
            with client:
                self.heard.append(client.recv(65536))
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")

    def say(self, *parts: bytes) -> bytes:
        with socket.socket() as client:
            client.settimeout(20)
            client.connect(self._listener.getsockname())
            client.sendall(parts[0])
            said = b""
            for part in parts[1:]:
                said += client.recv(4096)
                client.sendall(part)
            while chunk := client.recv(4096):
                said += chunk
            return said


def exact(port: int) -> tuple[Endpoint, ...]:
    return (Endpoint("127.0.0.1", port), Endpoint("localhost", port))


def test_it_tunnels_to_what_is_listed(stack: ExitStack) -> None:
    home = House(stack, exact)
    said = home.say(f"CONNECT localhost:{home.port} HTTP/1.1\r\n\r\n".encode(), b"through")
    assert said == b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello"
    assert home.heard == [b"through"]
    assert home.refused == []


def test_it_passes_plain_requests_on_under_their_own_name(stack: ExitStack) -> None:
    home = House(stack, exact)
    head = f"POST http://127.0.0.1:{home.port}/a?b=c HTTP/1.1\r\nHost: other.example\r\nProxy-Authorization: x\r\n"
    assert home.say(f"{head}Content-Length: 2\r\nConnection: keep-alive\r\n\r\nhi".encode()).endswith(b"hello")
    assert home.heard == [
        f"POST /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:{home.port}\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi".encode()
    ]


@pytest.mark.parametrize(
    ("request_line", "target"),
    [
        ("CONNECT elsewhere.example:443", "elsewhere.example:443"),
        ("CONNECT 169.254.169.254:80", "169.254.169.254:80"),
        ("CONNECT [::ffff:127.0.0.1]:{port}", "[::ffff:127.0.0.1]:{port}"),
        ("CONNECT localhost.:1", "localhost:1"),
        ("CONNECT 2130706433:{port}", "2130706433:{port}"),
        ("CONNECT 127.1:{port}", "127.1:{port}"),
        ("CONNECT localhost", "localhost"),
        ("CONNECT user@localhost:{port}", "user?localhost:{port}"),
        ("GET http://elsewhere.example/", "elsewhere.example:80"),
        ("GET http://127.0.0.1:{port}@elsewhere.example/", "127.0.0.1:{port}?elsewhere.example"),
        ("GET https://127.0.0.1:{port}/", "https://127.0.0.1:{port}/"),
        ("GET /", "/"),
        ("nonsense", "unreadable"),
    ],
)
def test_it_refuses_and_tells(stack: ExitStack, request_line: str, target: str) -> None:
    home = House(stack, exact)
    said = home.say(f"{request_line.format(port=home.port)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert [one.target for one in home.refused] == [target.format(port=home.port)]
    assert home.heard == []


def test_a_wildcard_does_not_lead_to_this_host(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    home = House(stack, lambda port: (Endpoint("wild.example", port, below=True),))
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", home.port))]
    monkeypatch.setattr("reconciler.runner.jail.proxy.socket.getaddrinfo", lambda *_, **__: answer)
    said = home.say(f"CONNECT a.wild.example:{home.port} HTTP/1.1\r\n\r\n".encode())
    assert b"only an exact name may" in said
    assert home.heard == []


def test_a_long_head_is_refused_and_nobody_there_is_said(stack: ExitStack) -> None:
    home = House(stack, lambda port: (*exact(port), Endpoint("127.0.0.1", 1)))
    assert b"too long" in home.say(b"CONNECT " + b"a" * 17_000)
    assert home.say(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 502 ")
    assert len(home.refused) == 1  # nobody there is no refusal


def test_a_way_straight_to_this_host(stack: ExitStack) -> None:
    home = House(stack, exact)
    way = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    home.proxy.serve(way, Endpoint("127.0.0.1", home.port))
    with socket.create_connection(way.getsockname(), 20) as client:
        client.sendall(b"plain")
        assert client.recv(4096).endswith(b"hello")
    assert home.heard == [b"plain"]
    way.shutdown(socket.SHUT_RDWR)
