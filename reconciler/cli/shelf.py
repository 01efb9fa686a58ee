"""The catalogs as someone who changes the lock sees them: fetched afresh, so that a tag that was moved shows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import semver
from pydantic import ValidationError

from reconciler.branch.protected import remote_of
from reconciler.config import CatalogRepo as Configured
from reconciler.config import load_controller
from reconciler.errors import ConfigError, PassError, Place, UnitError
from reconciler.git.catalog import CatalogRepo
from reconciler.git.pinned import CatalogStore
from reconciler.git.signers import HostKeys
from reconciler.git.tags import check_tag
from reconciler.lockfile import Lines
from reconciler.model import Commit, Digest, Pin, Problem
from reconciler.vetting import Waiver

# What a host says of a catalog's modules and releases, wherever the repository is fetched from.
_SAID = ("allow_providers", "exceptions", "allowed_signers", "revoked_keys")


class Release(NamedTuple):
    """A tag, its commit, and the digest of everything at it."""

    ref: str
    commit: Commit
    digest: Digest


class Shelf:
    """The catalog repositories by name. Fetches each once, when it is first needed, into a folder that goes away."""

    def __init__(self, catalogs: Mapping[str, Configured], folder: Path) -> None:
        self._configured, self._folder = catalogs, folder
        self._open: dict[str, CatalogRepo] = {}
        self._store = CatalogStore(folder / "trees")

    def repository(self, module: str) -> CatalogRepo:
        """The fetched repository that a module is in.

        Raises:
            ConfigError: nobody said where it is.
            PassError: it cannot be fetched.
        """
        name = module.partition("/")[0]
        if name not in self._open:
            wanted = self._wanted(name)
            mirror = self._folder / f"{name}.git"
            repository = CatalogRepo(remote_of(wanted), wanted.branch, mirror, wanted.allow_file, tags=wanted.tags)
            repository.update()
            self._open[name] = repository
        return self._open[name]

    def release(self, module: str, version: str, path: str, ref: str | None) -> Release:
        """The release of a version: at the tag `v<version>`, or `<module>/v<version>`, or the one that `ref` names.

        Raises:
            UnitError: no such tag, two that disagree, or a commit that the protected branch does not contain.
        """
        repository = self.repository(module)
        forms = (ref,) if ref else (f"v{version}", f"{module.partition('/')[2]}/v{version}")
        there = {tag.name: tag.commit for tag in repository.tags() if tag.name in forms}
        if len(set(there.values())) > 1:
            raise UnitError(
                "CatalogPinConflict",
                f"{module} {version}: the tags {' and '.join(there)} are different commits: say --ref TAG",
            )
        name = next(iter(there), forms[0])
        commit = repository.resolve_version(name)
        self._check_signed(repository, module, name, commit)
        return Release(name, commit, repository.module_digest(commit, path))

    def tags(self, module: str) -> Iterator[tuple[str, str]]:
        """(version, tag) of every release that may be one of the module's; its own tags win over the repository's."""
        own = f"{module.partition('/')[2]}/v"
        tags = [tag.name for tag in self.repository(module).tags()]
        for start in ("v", own):
            for name in tags:
                if name.startswith(start) and semver.Version.is_valid(name.removeprefix(start)):
                    yield name.removeprefix(start), name

    def offers(self, pin: Pin, tag: str) -> bool:
        """Whether the module is there at the tag, on the protected branch."""
        repository = self.repository(pin.module)
        try:
            return repository.module_digest(repository.resolve_version(tag), pin.path) is not None
        except UnitError:
            return False

    def tree(self, pin: Pin) -> Path:
        """The pinned tree on disk, its digest proven."""
        return self._store.open(pin.digest, self.repository(pin.module), pin.commit)

    def allowed(self, module: str) -> frozenset[str]:
        """The providers that the catalog's modules may use; empty: any."""
        return frozenset(self._wanted(module.partition("/")[0]).allow_providers)

    def waivers(self, module: str) -> tuple[Waiver, ...]:
        """The host's exceptions from the audit of the catalog's modules."""
        return self._wanted(module.partition("/")[0]).waivers

    def check(self, lines: Lines, pin: Pin) -> Iterator[Problem]:
        """Everything in a pin that is not as the catalog has it."""
        try:
            repository = self.repository(pin.module)
        except (ConfigError, PassError) as error:
            yield Problem(lines.place(pin.module), error.reason, str(error))
            return
        yield from self._check_tag(repository, lines, pin)
        yield from self._check_tree(repository, lines, pin)

    def _check_tag(self, repository: CatalogRepo, lines: Lines, pin: Pin) -> Iterator[Problem]:
        tags = {tag.name: tag.commit for tag in repository.tags()}
        place = lines.place(pin.module, pin.version, "ref")
        found = tags.get(pin.ref)
        if found is None:
            known = ", ".join(list(tags)[-5:]) or "none"
            yield _wrong(place, "CatalogPinMissing", f"{pin.module} {pin.version}: the catalog has no tag {pin.ref}; its "
                         f"newest tags: {known}. Correct ref, or push the tag again to {pin.commit}")  # fmt: skip
        elif found == pin.commit:
            try:
                self._check_signed(repository, pin.module, pin.ref, pin.commit)
            except (UnitError, PassError) as error:
                yield _wrong(place, error.reason, f"{pin.module} {pin.version}: {error}")
        else:
            yield _wrong(place, "CatalogTagMoved", f"{pin.module} {pin.version}: the tag {pin.ref} is {found}, the lock says "
                         f"{pin.commit}: find out who moved the tag and put it back")  # fmt: skip

    def _check_signed(self, repository: CatalogRepo, module: str, ref: str, commit: Commit) -> None:
        """Where the catalog's tags must be signed: that this one is. Raises UnitError, PassError."""
        wanted = self._wanted(module.partition("/")[0])
        if wanted.allowed_signers is not None:
            keys = HostKeys(self._folder / "keys", wanted.allowed_signers, wanted.revoked_keys, None)
            check_tag(repository.git, ref, commit, keys.read())

    def _check_tree(self, repository: CatalogRepo, lines: Lines, pin: Pin) -> Iterator[Problem]:
        name = f"{pin.module} {pin.version}"
        again = f"see who wrote this line; `reconciler catalog add {pin.module}@{pin.version} --replace` writes it anew"
        if not repository.reachable(pin.commit):
            place = lines.place(pin.module, pin.version, "commit")
            yield _wrong(
                place, "CatalogUnreachable", f"{name}: the protected branch does not contain {pin.commit}: {again}"
            )
            return
        try:
            digest = repository.module_digest(pin.commit, pin.path)
        except UnitError as error:
            at_path = error.reason == "CatalogModuleMissing"
            place = lines.place(pin.module, None, "path") if at_path else lines.place(pin.module, pin.version, "commit")
            yield _wrong(place, error.reason, f"{name}: {error}")
            return
        if digest != pin.digest:
            place = lines.place(pin.module, pin.version, "digest")
            yield _wrong(
                place, "CatalogDigestMismatch", f"{name}: the tree at {pin.commit} has the digest {digest}: {again}"
            )

    def _wanted(self, name: str) -> Configured:
        if name not in self._configured:
            known = ", ".join(sorted(self._configured)) or "none"
            raise ConfigError(
                f"where the catalog {name} is, is not known (known: {known}): say --catalog {name}=URL, or --config reconciler.yaml"
            )
        return self._configured[name]


def _wrong(place: Place, reason: str, message: str) -> Problem:
    return Problem(place, reason, message)


@contextmanager
def open_shelf(named: Mapping[str, str], config: Path | None, branch: str) -> Iterator[Shelf]:
    """The catalogs of a reconciler.yaml, and over them those that were named with their addresses."""
    catalogs = dict(load_controller(config).catalog_repos) if config else {}
    catalogs |= {name: _configured(name, url, branch, catalogs.get(name)) for name, url in named.items()}
    with tempfile.TemporaryDirectory(prefix="reconciler-catalog-", ignore_cleanup_errors=True) as folder:
        try:
            yield Shelf(catalogs, Path(folder))
        finally:
            _writable(Path(folder))


def _configured(name: str, url: str, branch: str, known: Configured | None) -> Configured:
    """A catalog that was named on the command line: whoever types a folder's path means it.

    What the host says of its modules stays in force.
    """
    address = str(Path(url).resolve()) if url.startswith((".", "/")) else url
    try:
        made = Configured(url=address, branch=branch, tags="*", allow_file=True)
    except ValidationError as error:
        raise ConfigError(f"--catalog {name}: {error.errors()[0]['msg']}") from None
    return made.model_copy(update={field: getattr(known, field) for field in _SAID} if known else {})


def _writable(folder: Path) -> None:
    """Let the trees be removed: they are written read-only."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
