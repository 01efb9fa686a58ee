"""Ways to somebody else. The sinks tell what came."""

from __future__ import annotations

import socket

from .book import Context, one


@one
def tcp(context: Context) -> str | None:
    with socket.create_connection(("127.0.0.1", context["tcp"]), 2) as connection:
        connection.sendall(b"tcp")
    return "connected"


@one
def udp(context: Context) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        any_socket.sendto(b"udp", ("127.0.0.1", context["udp"]))
    return None  # loopback takes it in either case


@one
def unix_socket(context: Context) -> str | None:
    return _connected(context["unix"])


@one
def abstract_socket(context: Context) -> str | None:
    return _connected("\0" + context["abstract"])


@one
def a_route(_: Context) -> str | None:
    """Connecting a datagram socket sends nothing; it tells whether there would be a way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        any_socket.connect(("192.0.2.1", 53))
        return str(any_socket.getsockname()[0])


@one
def other_interfaces(_: Context) -> str | None:
    return ", ".join(name for _, name in socket.if_nameindex() if name != "lo") or None


@one
def through_the_proxy(context: Context) -> str | None:
    return _tunnelled(context, f"127.0.0.1:{context['tcp']}")


@one
def metadata_through_the_proxy(context: Context) -> str | None:
    return _tunnelled(context, "169.254.169.254:80")


@one
def mapped_through_the_proxy(context: Context) -> str | None:
    return _tunnelled(context, f"[::ffff:127.0.0.1]:{context['tcp']}")


@one
def plain_through_the_proxy(context: Context) -> str | None:
    request = f"GET http://127.0.0.1:{context['tcp']}/ HTTP/1.1\r\nHost: listed.example\r\n\r\n"
    return _said_to_proxy(context, request)


@one
def packet_socket(_: Context) -> str | None:
    return _socket(socket.AF_PACKET, socket.SOCK_RAW, 3)


@one
def crypto_socket(_: Context) -> str | None:
    return _socket(38, socket.SOCK_SEQPACKET, 0)


@one
def machine_socket(_: Context) -> str | None:
    return _socket(40, socket.SOCK_STREAM, 0)


@one
def audit_socket(_: Context) -> str | None:
    return _socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)


@one
def raw_socket(_: Context) -> str | None:
    return _socket(socket.AF_INET, socket.SOCK_RAW, 1)


def _connected(path: str) -> str | None:
    with socket.socket(socket.AF_UNIX) as any_socket:
        any_socket.settimeout(2)
        any_socket.connect(path)
        any_socket.sendall(b"unix")
    return "connected"


def _tunnelled(context: Context, target: str) -> str | None:
    return _said_to_proxy(context, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")


def _said_to_proxy(context: Context, request: str) -> str | None:
    with socket.create_connection(("127.0.0.1", context["proxy"]), 3) as proxy:
        proxy.sendall(request.encode())
        said = proxy.recv(100).decode(errors="replace")
    return None if said.startswith(("HTTP/1.1 403", "HTTP/1.1 502")) or not said else said


def _socket(family: int, kind: int, protocol: int) -> str:
    socket.socket(family, kind, protocol).close()
    return "made"
