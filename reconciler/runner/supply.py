"""What a unit's engine gets to install from: the providers that its pin names, each allowed, locked and proven before `init`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from reconciler.errors import HeldError, UnitError
from reconciler.model import Pin, ProviderPin
from reconciler.runner.host import Host
from reconciler.runner.jail.users import let_read
from reconciler.runner.terraform.closure import cached_needs
from reconciler.runner.terraform.depot import Depot
from reconciler.runner.terraform.engine import Conversation, EngineError, deadline_in
from reconciler.runner.terraform.fill import FILL_SECONDS, install_root, installed
from reconciler.runner.terraform.packages import Wanted, found_in, only_ours, unpacked, wanted

# What a download may need to know of the host, out of what it lists for the environment's providers.
NETWORK = (
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


@dataclass(frozen=True, slots=True)
class Supply:
    """The mirror to install from, and the pin with the `h1:` of each package that was proven in it.

    `proven` proves them once more, as `supply` did. `trusted`: the engine need not read them again, since no job could write there.
    """

    mirror: Path
    pin: Pin
    proven: tuple[Callable[[], str], ...]
    trusted: bool = False

    def check(self) -> None:
        """They are still what was proven: a look at each file, and more only if one looks different.

        Raises:
            HeldError: "ProviderHashMismatch" or "ProviderMissing". UnitError, PassError: see `supply`.
        """
        for prove in self.proven:
            prove()


def supply(host: Host, pin: Pin, tree: Path, variables: Mapping[str, str], log: Path) -> Supply:
    """Prove every provider of the pin; fetch what the runner's own mirror does not have yet.

    Raises:
        HeldError: "ProviderNotAllowed", "ProviderNotLocked", "ProviderMissing" or "ProviderHashMismatch".
        UnitError: "CatalogModuleRemote", "ModuleInvalid", or a package that could not be fetched.
        PassError: the disk.
    """
    check_allowed(pin, host.config.catalog_repos[pin.repository].allow_providers)
    check_locked(pin, cached_needs(host.memory.folder / "modules", pin.digest, pin.path, tree, host.engine.product))
    given = host.config.provider_mirror_path
    marks = host.memory.folder / "providers"
    fetch = None if given else Fetch(host, {k: v for k, v in variables.items() if k in NETWORK}, log)
    depot = Depot(given or host.config.work_path / "providers", marks, fetch)
    providers = tuple(_proven(host.engine.registry, depot, pin, one) for one in pin.providers)
    if given is None:
        depot.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        let_read(depot.folder)  # an engine may be started as another user
    if host.sandbox is not None:
        check_unpacked(pin, host.engine.registry, depot.folder)
    needed = [wanted(one, host.engine.registry) for one in pin.providers]
    trusted = host.config.verifies_once and all(only_ours(unpacked(depot.folder, one)) for one in needed)
    again = tuple(partial(depot.provide, one) for one in needed)
    return Supply(depot.folder, replace(pin, providers=providers), again, trusted)


def check_allowed(pin: Pin, allowed: list[str]) -> None:
    """The host's word on which providers a catalog's modules may use; an empty one lets any.

    Raises:
        HeldError: "ProviderNotAllowed".
    """
    if strangers := sorted({one.source for one in pin.providers} - set(allowed)) if allowed else []:
        what = f"{pin.module} {pin.version} uses {', '.join(strangers)}"
        where = f"catalog_repos.{pin.repository}.allow_providers in runner.yaml has {', '.join(sorted(allowed))}"
        raise HeldError("ProviderNotAllowed", f"{what}; {where}. Take it out of the module, or add it there.")


def check_locked(pin: Pin, needs: frozenset[str]) -> None:
    """Whatever the module or one that it calls uses is pinned.

    Raises:
        HeldError: "ProviderNotLocked".
    """
    if missing := sorted(needs - {one.source for one in pin.providers}):
        what = f"catalog-lock.yaml pins no version of {', '.join(missing)}, which {pin.module} {pin.version} uses"
        how = f"Write it with `reconciler catalog add {pin.module}@{pin.version} --replace` and merge that"
        raise HeldError("ProviderNotLocked", f"{what}. {how}.")


def check_unpacked(pin: Pin, registry: str, mirror: Path) -> None:
    """In a jail nothing runs that the engine has unpacked itself: it could be anything.

    Raises:
        HeldError: "ProviderPacked".
    """
    for provider in pin.providers:
        for found in found_in(mirror, wanted(provider, registry)):
            if not found.is_dir():
                where = unpacked(mirror, wanted(provider, registry))
                how = f"unpack it into {where} and remove the archive"
                raise HeldError(
                    "ProviderPacked", f"{found} is an archive, and a jail runs only what is unpacked: {how}."
                )


def _proven(registry: str, depot: Depot, pin: Pin, provider: ProviderPin) -> ProviderPin:
    one = wanted(provider, registry)
    if not one.hashes:
        what = f"catalog-lock.yaml has no hashes of {provider.source} {provider.version} from {one.host}"
        how = f"Write them with `reconciler catalog add {pin.module}@{pin.version}` and this engine, and merge that"
        raise HeldError("ProviderNotLocked", f"{what}. {how}.")
    hashes = {*one.hashes, depot.provide(one)}
    return replace(provider, hashes={**provider.hashes, one.host: tuple(sorted(hashes))})


@dataclass(frozen=True, slots=True)
class Fetch:
    """A package from its registry, by the engine's own `init`, which checks it against the lock's hashes. A `depot.Fill`."""

    host: Host
    variables: Mapping[str, str]
    log: Path

    def __call__(self, one: Wanted, scratch: Path, lock: int, /) -> Path:
        """See `Fill`."""
        install_root(scratch, one)
        env = {**self.variables, "HOME": str(scratch)}  # Terraform downloads nothing without one (measured)
        talk = Conversation(self.host.engine, scratch, env, self.log, locks=(lock,))
        try:
            talk.init(deadline_in(FILL_SECONDS))
        except EngineError as error:
            raise UnitError(
                "ProviderFetchFailed", f"{one} could not be fetched: {error}", transient=error.transient
            ) from error
        return installed(scratch, one)
