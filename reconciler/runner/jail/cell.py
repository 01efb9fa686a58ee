"""What one job's engine is given, and bubblewrap's command line for that where there are namespaces."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.runner.jail.egress import Egress, Endpoint
from reconciler.runner.jail.proxy import PROXY
from reconciler.runner.jail.space import Address, Limits
from reconciler.runner.jail.users import Slot

TEMPORARY = "/.scratch"  # short: a provider's socket below it must stay under 108 characters
DEVICES = ("null", "zero", "random", "urandom")
HOSTS = b"127.0.0.1 localhost\n::1 localhost\n"  # there is nobody to ask

# Where systems keep the certificates that they trust, in the order in which Go looks.
AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
AUTHORITY_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Cell:
    """One job's jail. It sees `readable`, each path where it is on the host, and `work`, where it may also write.

    What it may not connect to is noted in `refusals`, which it does not see. Without `bwrap` it has no namespaces, and then
    `network` says whether it has the host's network or none. `user`: who runs it; None: the runner's own user.
    """

    bwrap: Path | None
    work: Path
    readable: tuple[Path, ...]
    refusals: Path
    egress: Egress = field(default_factory=Egress)
    limits: Limits = field(default_factory=Limits)
    user: Slot | None = None
    network: bool = False

    @property
    def outside(self) -> tuple[Path, ...]:
        """What of the host it needs, its own folder first."""
        return (self.work, *dict.fromkeys((*self.readable, *((self.bwrap,) if self.bwrap else ()))))

    def writable(self, env: Mapping[str, str]) -> tuple[Path, ...]:
        """Its own folder, and where temporary files go if not in there: only bubblewrap has a short name for that inside."""
        scratch = Path(env.get("TMPDIR", self.work))
        return (self.work,) if self.bwrap or scratch.is_relative_to(self.work) else (self.work, scratch)

    @property
    def ways(self) -> tuple[tuple[Address, Endpoint | None], ...]:
        """Where it listens inside: the proxy, and the ways to what is on the runner's own host."""
        straight = {(_numeric(one.host), one.port): one for one in self.egress.loopback}
        return ((PROXY, None), *straight.items())

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """The variables of a program inside. `localhost` and its like need no proxy."""
        if self.bwrap is None:
            return dict(env)
        proxy = "http://{}:{}".format(*PROXY)
        names = ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")
        direct = dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1")
        return {**env, **dict.fromkeys(names, proxy), **direct, "TMPDIR": TEMPORARY}

    def command(
        self,
        argv: Sequence[str | Path],
        env: Mapping[str, str],
        seccomp: int,
        info: int,
        hosts: int,
        found: Mapping[Path, Path],
    ) -> list[str]:
        """The whole command. The three are descriptors: the filter, where the engine's number goes, and names.

        `found`: where paths of the host are to be found, if not where they are.
        """
        words = [
            "bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup",
            "--disable-userns", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "jail",
        ]  # fmt: skip
        for device in DEVICES:
            words += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
        words += ["--ro-bind-data", str(hosts), "/etc/hosts"]
        for path in dict.fromkeys((*self.readable, *authorities(env))):
            words += ["--ro-bind", str(found.get(path, path)), str(path)]
        work = found.get(self.work, self.work)
        words += ["--bind", str(work), str(self.work), "--bind", str(work / "tmp"), TEMPORARY]
        words += ["--remount-ro", "/", "--chdir", str(self.work)]
        words += ["--seccomp", str(seccomp), "--info-fd", str(info), "--", *map(str, argv)]
        return words


def authorities(env: Mapping[str, str]) -> Iterator[Path]:
    """The host's certificates, and those that its configuration names."""
    named = [env[name] for name in AUTHORITY_VARIABLES if name in env]
    found = next(filter(os.path.exists, AUTHORITIES), None)
    yield from (Path(one) for one in (found, *named) if one)


def _numeric(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host
