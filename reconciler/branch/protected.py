"""The protected branch as both planes read it: commits that passed the ratchet, and what each of them means."""

from __future__ import annotations

import gc
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.branch.before import Before, PullOf
from reconciler.branch.files import Files, files_of
from reconciler.branch.kept import KeptEntries
from reconciler.cabinet import Cabinet, FolderCabinet, cabinet_of
from reconciler.config import ControllerConfig, RunnerConfig
from reconciler.config import Repository as Configured
from reconciler.desired.load import Loader, ResolveRefs
from reconciler.desired.pins import Refs
from reconciler.errors import PassError, ReconcilerError, UnitError
from reconciler.forge import open_forge
from reconciler.git.catalog import CatalogRepo, digest_of
from reconciler.git.head import AcceptedHead
from reconciler.git.pinned import CatalogStore
from reconciler.git.provenance import Provenance, open_proofs
from reconciler.git.remote import Patience, Remote
from reconciler.git.signers import HostKeys
from reconciler.git.source import EnvironmentsSource
from reconciler.git.tree import TOO_LARGE
from reconciler.git.vouching import Vouching
from reconciler.layered import differing, layered
from reconciler.model import Commit, Desired, Digest, Pin, Policy, Problem, Unit, UnitId

Pinned = tuple[str, str, Commit, str]  # module, version, commit and tag of a pin


class Catalogs:
    """The catalog repositories that the host's configuration names, and the pinned trees taken from them."""

    def __init__(
        self,
        repositories: Mapping[str, CatalogRepo],
        folder: Path,
        beside: Path | Cabinet | None = None,
        keys: Mapping[str, HostKeys] | None = None,
    ) -> None:
        """`beside`: where it is remembered what was proven; `keys`: who signs the tags of a catalog, by its name."""
        proofs = cabinet_of(beside or folder).within("catalogs")
        self._repositories = repositories
        self._vouching = {
            name: Vouching(catalog, proofs, name, (keys or {}).get(name)) for name, catalog in repositories.items()
        }
        self._store = CatalogStore(folder)
        self._digests: dict[Commit, Digest] = {}
        self._branches: dict[tuple[str, str], Pin] = {}

    def tree(self, pin: Pin) -> Path:
        """The folder with exactly the pinned tree, its digest proven now.

        Raises:
            UnitError: the catalog is not configured, the commit has another digest, is refused, or was never on the
                catalog's protected branch (a forge may serve the commits of anybody's fork), or its tag is not signed.
            PassError: the catalog cannot be fetched, or was rewritten, or the disk.
        """
        catalog = self._repository(pin.module)
        if not pin.floating:
            self._vouching[pin.repository].prove(pin)
        if not self._store.holds(pin.digest) and not catalog.has(pin.commit):  # that is a process
            catalog.update()
        return self._store.open(pin.digest, catalog, pin.commit)

    def vouches(self, pin: Pin) -> bool:
        """Whether the pin was proven before. Asks no network.

        Raises:
            UnitError: the catalog is not configured.
            PassError: what is remembered cannot be read.
        """
        self._repository(pin.module)
        return self._vouching[pin.repository].remembers(pin)

    def unproven(self, pins: Iterable[Pin], *, offline: bool = False) -> list[tuple[Pin, ReconcilerError]]:
        """Prove each pin, once, and tell why that failed. Fetches a catalog at most once; with `offline` none at all."""
        found: list[tuple[Pin, ReconcilerError]] = []
        asked: dict[str, PassError | None] = {}  # by catalog: what its fetch said
        for pin in pins:
            name = pin.repository
            try:
                self._repository(pin.module)
                if (failed := asked.get(name)) is not None and not self._vouching[name].remembers(pin):
                    raise failed
                self._vouching[name].prove(pin, fetch=not offline and name not in asked)
            except (PassError, UnitError) as error:
                found.append((pin, error))
                asked[name] = asked.get(name) or (error if isinstance(error, PassError) else None)
        return found

    @property
    def moved_tags(self) -> tuple[str, ...]:
        """The catalogs in which a tag was seen to stand for another commit than before."""
        return tuple(sorted(name for name, catalog in self._repositories.items() if catalog.moved_tags))

    def refs(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Pin]:
        """What each branch that a sandbox names is now; what it was, where its catalog does not answer.

        A branch that does not exist has no pin: its entry says so, with its place. Nothing else waits for it.
        """
        for module, ref in sorted(wanted):
            try:
                catalog = self._repository(module)
                commit = catalog.fetch_branch(ref)
                pin = Pin(module, ref, "", ref, commit, self._digest(catalog, commit), floating=True)
                self._branches[module, ref] = pin
            except UnitError:
                self._branches.pop((module, ref), None)
            except PassError:
                continue
        return self.known_refs(wanted)

    def known_refs(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Pin]:
        """As `refs`, from what was seen last: asks no network."""
        return {which: self._branches[which] for which in wanted if which in self._branches}

    def _digest(self, catalog: CatalogRepo, commit: Commit) -> Digest:
        if commit not in self._digests:
            self._digests[commit] = digest_of(catalog.contents(commit))
        return self._digests[commit]

    def _repository(self, module: str) -> CatalogRepo:
        name = module.partition("/")[0]
        if name not in self._repositories:
            known = ", ".join(sorted(self._repositories)) or "none"
            message = f"{module}: catalog_repos of this host's configuration has no {name}; it has: {known}."
            raise UnitError("CatalogUnknown", message)
        return self._repositories[name]


@dataclass(frozen=True, slots=True)
class Basis:
    """A commit of the branch to build on: what it means, its files by path and blob, and a loader that knows them.

    `policies` are those that were in force before it, of the environments whose files it changed.
    """

    desired: Desired
    blobs: Mapping[str, str]
    loader: Loader
    refs: ResolveRefs
    policies: Mapping[str, Policy | None]


class ProtectedBranch:
    """One environments repository's branch. Keeps what the last commit that was asked for means."""

    def __init__(
        self,
        source: EnvironmentsSource,
        catalogs: Catalogs,
        pull_of: PullOf = lambda _: None,
        kept: KeptEntries | None = None,
    ) -> None:
        """`pull_of`: the pull request that a commit came by, where a forge has said; `kept`: what was parsed by earlier processes."""
        self.source = source
        self._pull_of = pull_of
        self._before = Before(source, pull_of)
        self._policies: Mapping[str, Policy | None] = {}
        self.catalogs = catalogs
        self._kept = kept
        self._loader = Loader(kept.find) if kept else Loader()
        self._files: Files | None = None  # of the commit that was asked for last
        self._hashed: dict[str, str] = {}
        self._pins = Pins()
        self._doubted: tuple[dict[Pinned, tuple[str, str]], Desired, Desired] | None = (
            None  # why, of what, and what is left
        )
        self._settled: Desired | None = None  # what the commit means, where no moving branch has a say in it

    def load(self, commit: Commit, *, offline: bool = False) -> Desired:
        """What the commit means. Reads the mirror, parses only what changed since the last call.

        Only the branches that sandboxes name are looked up over the network, at every call; not if `offline`.

        Raises:
            PassError: the mirror cannot be read.
        """
        if self._settled is not None and self._settled.commit == commit:
            return self._settled
        files = self._list(commit)
        look_up, asked = self.catalogs.known_refs if offline else self.catalogs.refs, False

        def refs(wanted: frozenset[tuple[str, str]]) -> Refs:
            nonlocal asked
            asked = True
            return look_up(wanted)

        problems, before = files.in_order(), self._policies
        with uncollected():
            desired = self._loader.load(commit, files.blobs, self._read, problems, refs=refs, before=before)
        self._settled = None if asked else desired
        return desired

    def beside(self) -> ProtectedBranch:
        """The same branch for another thread, which remembers by itself what commits mean."""
        return ProtectedBranch(self.source, self.catalogs, self._pull_of, self._kept and self._kept.beside())

    def keep(self) -> None:
        """Write down what was parsed, if that is worth it, so that the next start need not: for a moment in which nobody waits."""
        if self._kept is not None and self._kept.due():
            self._kept.keep(*self._loader.entries)

    def basis(self, commit: Commit) -> Basis:
        """What the commit means, and all that is needed to look at what may become of it. Asks no network.

        Raises:
            PassError: the mirror cannot be read.
        """
        desired = self.load(commit, offline=True)
        return Basis(desired, self._list(commit).blobs, self._loader.fork(), self.catalogs.known_refs, self._policies)

    def proven(self, desired: Desired, *, offline: bool = False) -> Desired:
        """The same, but that units whose pin is not proven are broken, and say why. Every pin is proven once."""
        self._pins.follow(desired.units)
        found = self.catalogs.unproven(self._pins.all(), offline=offline)
        reasons = {_pinned(pin): (error.reason, str(error)) for pin, error in found}
        if self._doubted is None or self._doubted[0] != reasons or self._doubted[1] is not desired:
            self._doubted = reasons, desired, _without(desired, reasons) if reasons else desired
        return self._doubted[2]

    def contains(self, commit: Commit, head: Commit) -> bool:
        """Whether `commit` is `head` or on its first-parent chain."""
        return commit == head or self.source.is_ancestor_on_first_parent(commit, head)

    def digest(self, commit: Commit, path: str) -> str | None:
        """The SHA-256 (hex) of a file of the commit that was loaded last; None: it has none. Remembered by its blob.

        Raises:
            PassError: the mirror cannot be read.
        """
        blob = self._list(commit).blobs.get(path)
        if blob is None:
            return None
        if blob not in self._hashed:
            self._hashed = {blob: hashlib.sha256(self._read([blob])[blob]).hexdigest()}
        return self._hashed[blob]

    def _list(self, commit: Commit) -> Files:
        if self._files is not None and self._files.commit == commit:
            return self._files
        try:
            found = files_of(self.source, commit, self._files)
            self._policies = self._before(commit)
        except PassError as error:  # the next fetch looks whether it is the mirror that is broken
            if error.reason != TOO_LARGE:
                self.source.suspect()
            raise
        self._files = found
        return found

    def _read(self, ids: Iterable[str]) -> Mapping[str, bytes]:
        return self.source.read_blobs(sorted(ids))


class Pins:
    """The different pins of a commit's units, kept from one commit to the next. A sandbox's branches are none."""

    def __init__(self) -> None:
        self._units: Mapping[UnitId, Unit] = {}
        self._pins: dict[Pinned, Pin] = {}
        self._uses: Counter[Pinned] = Counter()

    def follow(self, units: Mapping[UnitId, Unit]) -> None:
        """Bring it to what these units are pinned to."""
        for id_ in differing(self._units, units):
            for unit, step in ((units.get(id_), 1), (self._units.get(id_), -1)):
                if unit is not None and not unit.pin.floating:
                    self._uses[_pinned(unit.pin)] += step
                    self._pins.setdefault(_pinned(unit.pin), unit.pin)
        for pinned in [one for one in self._pins if self._uses[one] == 0]:
            del self._pins[pinned], self._uses[pinned]
        self._units = units

    def all(self) -> Collection[Pin]:
        """Each of them once."""
        return self._pins.values()


@contextmanager
def uncollected() -> Iterator[None]:
    """While millions of facts are made that all stay, looking for garbage among them again and again takes as long as making them."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _pinned(pin: Pin) -> Pinned:
    return pin.module, pin.version, pin.commit, pin.ref


def _without(desired: Desired, reasons: Mapping[Pinned, tuple[str, str]]) -> Desired:
    """What the commit means, with the units of these pins broken."""
    broken = {}
    for unit in desired.units.values():
        if not unit.pin.floating and (why := reasons.get(_pinned(unit.pin))) is not None:
            broken[unit.id] = Problem(unit.entry.at("version"), *why, unit.id)
    units = layered(desired.units).after(dict.fromkeys(broken))
    order = tuple(unit for unit in desired.order if unit in units)
    return replace(desired, units=units, broken={**desired.broken, **broken}, order=order)


def open_branch(
    config: ControllerConfig | RunnerConfig,
    accepted: AcceptedHead,
    patience: Patience | None = None,
    beside: Cabinet | None = None,
) -> ProtectedBranch:
    """The protected branch and its catalogs as one plane's own configuration describes them. `beside`: what the plane remembers,
    where that is not in its folder.
    """
    remembered = beside or FolderCabinet(_beside(config))
    repo, work = config.environments_repo, config.work_path
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    provenance = _provenance(config, patience or Patience(), remembered)
    source = EnvironmentsSource(
        remote_of(repo),
        repo.branch,
        work / "environments.git",
        accepted,
        genesis=Commit(repo.genesis) if repo.genesis else None,
        genesis_required=repo.signatures != "off",
        provers=(provenance,),
        allow_file=repo.allow_file,
        patience=patience,
    )
    catalogs = {
        name: CatalogRepo(
            remote_of(catalog),
            catalog.branch,
            work / f"catalog-{name}.git",
            catalog.allow_file,
            tags=catalog.tags,
            patience=patience,
        )
        for name, catalog in config.catalog_repos.items()
    }
    keys = {
        name: HostKeys(work / "keys", catalog.allowed_signers, catalog.revoked_keys, None)
        for name, catalog in config.catalog_repos.items()
        if catalog.allowed_signers
    }
    found = Catalogs(catalogs, work / "catalog", remembered, keys)
    kept = KeptEntries(work / "entries")
    return ProtectedBranch(source, found, lambda commit: _pull_of(provenance, commit), kept)


def _pull_of(provenance: Provenance, commit: Commit) -> int | None:
    proof = provenance.proof(commit)
    return proof.pull if proof else None


def _provenance(config: ControllerConfig | RunnerConfig, patience: Patience, remembered: Cabinet) -> Provenance:
    """What proves a commit on this plane. Its proofs lie with what the plane remembers, not with what it can fetch again.

    Raises:
        ConfigError: a program that looks at signatures is missing, or the forge's authorities cannot be used.
    """
    repo = config.environments_repo
    signatures, keys, forge = repo.signatures, None, None
    if signatures != "off":
        files = signatures.allowed_signers, signatures.revoked_keys, signatures.pgp_keys
        keys = HostKeys(config.work_path / "keys", *files)
    if repo.forge is not None:
        forge = open_forge(repo.forge, repo.branch, signed=keys is not None, ending=patience.ending)
    return Provenance(open_proofs(remembered), keys=keys, forge=forge)


def _beside(config: ControllerConfig | RunnerConfig) -> Path:
    """The folder of what the plane remembers. Whoever opens a branch for a runner whose memory is elsewhere says where that is."""
    assert not isinstance(config, RunnerConfig) or config.memory.s3 is None  # noqa: S101 - what is proven would be lost
    return config.memory_path if isinstance(config, RunnerConfig) else config.folder


def remote_of(repo: Configured) -> Remote:
    """The configured repository as git fetches it."""
    files = (repo.ssh_key, repo.known_hosts, repo.ca_file, repo.token_file)
    return Remote(repo.url, *(str(path) if path else None for path in files))
