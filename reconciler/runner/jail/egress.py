"""Where a jailed engine may connect to: the host's own list, by name and port, and what a name may stand for.

Names are resolved outside of the jail and only if they are listed; the address that was judged is the one that is used.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from reconciler.errors import ConfigError

ENDPOINT = re.compile(r"(\*\.)?([a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?|\[[0-9a-f:.]+\]):([0-9]{1,5})")
HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?|[0-9a-f:.]*:[0-9a-f:.]*")
PORTS = {"https": 443, "http": 80}
POINTERS = (
    "AWS_ENDPOINT_URL",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # variables that name an endpoint, by their beginning
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")
MOST = 1000  # refusals that are told of one job
MOST_SHOWN = 5

# What answers there is told who asks, and gives out credentials: never, not by any name. Link-local addresses are refused
# besides. These are AWS (instances, and pods by fd00:ec2::23), Google, Azure, Alibaba and Oracle.
METADATA = tuple(
    map(
        ipaddress.ip_network,
        ("fd00:ec2::/32", "fd20:ce::254", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
    )
)
WRAPPED = ipaddress.ip_network("64:ff9b::/96")  # IPv4 through NAT64

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port; with `below`, every name below that host instead."""

    host: str
    port: int
    below: bool = False

    def __str__(self) -> str:
        """As it is written."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'*.' if self.below else ''}{host}:{self.port}"

    def means(self, host: str, port: int) -> bool:
        """Whether that is what it means."""
        fits = host.endswith(f".{self.host}") if self.below else host == self.host
        return fits and port == self.port

    @property
    def is_loopback(self) -> bool:
        """Whether it is on the runner's own host."""
        found = _address(self.host)
        return self.host == "localhost" or (found is not None and found.is_loopback)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A connection that was not made. `target` is as the jailed program named it, shortened and printable."""

    target: str
    why: str


@dataclass(frozen=True, slots=True)
class Egress:
    """The list of one environment."""

    endpoints: tuple[Endpoint, ...] = ()

    def listed(self, host: str, port: int) -> Endpoint | None:
        """The line that lets it through, an exact one before a wildcard's."""
        fits = [one for one in self.endpoints if one.means(host, port)]
        return min(fits, key=lambda one: one.below, default=None)

    @property
    def loopback(self) -> tuple[Endpoint, ...]:
        """Endpoints on the runner's own host: programs use no proxy for such, so the jail has the same addresses."""
        return tuple(one for one in self.endpoints if one.is_loopback and not one.below)


def parse_endpoint(text: str) -> Endpoint | None:
    """An endpoint as the configuration has it (`*.eu-west-1.amazonaws.com:443`), or None: it is none."""
    found = ENDPOINT.fullmatch(text.lower())
    if found is None or not 0 < int(found[3]) < 65536:
        return None
    host = found[2].strip("[]")
    if (found[1] and (_address(host) or "." not in host)) or (found[2] != host and not _address(host)):
        return None  # a wildcard over a whole top-level domain is a list of nothing
    return Endpoint(host, int(found[3]), bool(found[1]))


def endpoint_of(url: str) -> Endpoint | None:
    """Where a URL leads."""
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    host = (parts.hostname or "").lower()
    return Endpoint(host, port) if HOST.fullmatch(host) and port else None


def endpoints_of(variables: Mapping[str, str]) -> Iterator[Endpoint]:
    """What the variables of an environment point at."""
    for name, value in variables.items():
        if name.startswith(POINTERS) and (found := endpoint_of(value)):
            yield found


def s3_endpoints(bucket: str, region: str) -> tuple[Endpoint, ...]:
    """What the engine's S3 backend asks where no other endpoint is configured."""
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    hosts = (f"s3.{region}.{domain}", f"{bucket}.s3.{region}.{domain}", f"sts.{region}.{domain}")
    return tuple(Endpoint(host, 443) for host in hosts)


def check_no_proxy(name: str, variables: Mapping[str, str]) -> None:
    """A proxy of the host's own behind that of the jail is not supported.

    Raises:
        ConfigError: a variable names one.
    """
    if found := sorted(set(PROXIES) & variables.keys()):
        what = f"environments.{name}.env: {found[0]} and `sandbox` exclude each other: in the jail every connection goes through"
        raise ConfigError(f"{what} the runner's own proxy. Remove it, and list under `egress` what the engine needs.")


def why_not(address: str, listed: Endpoint) -> str | None:
    """Why an address that the listed name stands for is not connected to; None: it is."""
    found = _address(address)
    if found is None or found.is_link_local or found.is_multicast or found.is_unspecified or _tells(found):
        return "a name must not stand for an address of that kind"
    if found.is_global:
        return None
    return "it stands for a private address, and only an exact name may" if listed.below else None


def note(path: Path, refusal: Refusal) -> None:
    """Remember a refusal, one of the first so many."""
    with path.open("a+", encoding="utf-8") as file:
        file.seek(0)
        if sum(1 for _ in file) < MOST:
            file.write(json.dumps([refusal.target, refusal.why]) + "\n")


def noted(path: Path) -> tuple[Refusal, ...]:
    """The refusals of a job, all but one that is half written."""
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return ()
    return tuple(Refusal(*json.loads(line)) for line in lines)


def told(refusals: Iterable[Refusal], environment: str) -> str:
    """For the message of a job that failed."""
    targets = sorted({one.target for one in refusals})
    if not targets:
        return ""
    rest = f" and {len(targets) - MOST_SHOWN} more" if len(targets) > MOST_SHOWN else ""
    what = f"The jail refused connections to {', '.join(targets[:MOST_SHOWN])}{rest}"
    return f" {what}; list under environments.{environment}.egress in runner.yaml what the engine needs."


def _tells(address: Address) -> bool:
    return any(address in network for network in METADATA)


def _address(text: str) -> Address | None:
    """The address, as itself if it is wrapped in another."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found in WRAPPED:
            return ipaddress.IPv4Address(found.packed[-4:])
        return found.ipv4_mapped or found.sixtofour or found
    return found
