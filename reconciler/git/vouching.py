"""What one plane has proven of pins, once and for all: that a commit was on its catalog's protected branch, and its tag.

One file per catalog, beside the plane's memory and as little to be thrown away: the branch's head as it was accepted, which
may not go back, the highest version of the signers' file, and a proof for each pin that was ever used. A pin is a commit and
a digest, so what was proven of it stays true when a tag moves, a key rotates or a branch is rewritten; only a key that is
revoked takes its proofs with it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from reconciler import codec
from reconciler.cabinet import Cabinet, again
from reconciler.errors import PassError, UnitError
from reconciler.git.catalog import CatalogRepo
from reconciler.git.signers import HostKeys, Keys
from reconciler.git.tags import check_tag
from reconciler.model import Commit, Pin


@dataclass(frozen=True, slots=True)
class Vouch:
    """A pin that was proven. `signer` and `key` are of its tag; empty where the catalog's tags need no signature."""

    at: datetime
    signer: str = ""
    key: str = ""
    public: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """All that is remembered of a catalog. `pins` is by `<commit> <tag>`."""

    head: Commit | None = None
    version: int = 0
    pins: Mapping[str, Vouch] = field(default_factory=dict)


class Vouching:
    """One catalog's proofs. `keys` are those that sign its tags; None: tags need no signature."""

    def __init__(self, catalog: CatalogRepo, proofs: Cabinet, name: str, keys: HostKeys | None = None) -> None:
        """`name`: the catalog's, under which `proofs` remember it."""
        self.catalog, self._proofs, self._keys = catalog, proofs, keys
        self._name, self._file = name, f"{name}.json"
        self._read: tuple[Hashable, Known] | None = None

    def remembers(self, pin: Pin) -> bool:
        """Whether the pin was proven before, by a key that still counts. Asks no network.

        Raises:
            PassError: what is remembered, or the host's keys, cannot be read.
        """
        found = self._known().pins.get(_name(pin, self._keys))
        return found is not None and (self._keys is None or not self._revoked(found))

    def prove(self, pin: Pin, *, fetch: bool = True) -> None:
        """Prove the pin, by what was fetched if that suffices or must, and remember it.

        Raises:
            UnitError: "CatalogUnreachable", or what `tags.check_tag` raises.
            PassError: the catalog cannot be fetched, "CatalogRewritten", or the host's keys.
        """
        if self.remembers(pin):
            return
        keys = self._current()
        try:
            vouch = self._proof(pin, keys)
        except (UnitError, PassError):
            if not fetch:
                raise
            self.update()
            vouch = self._proof(pin, keys)
        again(lambda: self._remember(pin, vouch))

    def update(self) -> Commit:
        """Fetch, and return the branch's head, which contains every head that was accepted before.

        Raises:
            PassError: the fetch failed, or "CatalogRewritten".
        """
        try:
            self.catalog.update()
        except PassError as error:
            raise self._rewritten(str(error)) if error.reason == "HistoryRewritten" else error from error
        return again(self._go_on)

    def _remember(self, pin: Pin, vouch: Vouch) -> None:
        with self._held() as known:
            self._save(replace(known, pins={**known.pins, _name(pin, self._keys): vouch}))

    def _go_on(self) -> Commit:
        """Accept the head that was fetched. Raises as `update`."""
        with self._held() as known:
            head = self.catalog.head()
            if known.head == head:
                return head
            if known.head is not None and not self.catalog.reachable(known.head):
                raise self._rewritten(f"its branch is at {head}, which does not contain {known.head}, accepted before")
            self._save(replace(known, head=head))
            return head

    def accepted(self) -> bool:
        """Whether the mirror's branch contains the head that was accepted last: if not, nothing new is proven by it."""
        try:
            head = self.catalog.head()
        except PassError:  # never fetched yet
            return False
        known = self._known().head
        return known is not None and (known == head or self.catalog.reachable(known))

    def _proof(self, pin: Pin, keys: Keys | None) -> Vouch:
        if not self.accepted() or not self.catalog.reachable(pin.commit):
            what = f"catalog-lock.yaml: {pin.module} {pin.version} is pinned to {pin.commit}"
            remedy = "merge it there, or write a released version into the lock (`reconciler catalog add`)"
            raise UnitError("CatalogUnreachable", f"{what}, which is not on the catalog's protected branch: {remedy}.")
        if keys is None:
            return Vouch(datetime.now(UTC))
        signed = check_tag(self.catalog.git, pin.ref, pin.commit, keys)
        return Vouch(datetime.now(UTC), signed.signer, signed.key, signed.public)

    def _revoked(self, vouch: Vouch) -> bool:
        assert self._keys is not None  # noqa: S101 - whoever asks has looked
        return bool(self._keys.read().which_revoked({vouch.key: vouch.public}))

    def _current(self) -> Keys | None:
        """The keys as they are now, of a version that is not older than one seen before."""
        if self._keys is None:
            return None
        keys = self._keys.read()
        again(lambda: self._raise_version(keys))
        return keys

    def _raise_version(self, keys: Keys) -> None:
        assert self._keys is not None  # noqa: S101 - whoever asks has looked
        with self._held() as known:
            if keys.version < known.version:
                what = (
                    f"{self._keys.place}: version {known.version} was in force here before, and this is {keys.version}"
                )
                raise PassError("SignersRolledBack", f"{what}: put the newer file back; a higher one may follow it.")
            if keys.version > known.version:
                self._save(replace(known, version=keys.version))

    def _rewritten(self, what: str) -> PassError:
        remedy = (
            "versions that were used before go on, no new one is trusted: find out who rewrote it and put the branch back, or "
            f"merge the old head into the new branch; if it is lost for good, remove {self._proofs.place}/{self._file} on this plane's host"
        )
        return PassError("CatalogRewritten", f"{self.catalog.git.where}: {what}: {remedy}.")

    # --- the file

    def _known(self) -> Known:
        """Read again only when it is another file."""
        look = self._proofs.look(self._file)
        if look is None:
            return Known()
        try:
            if self._read is None or self._read[0] != look:
                self._read = look, codec.decode(Known, self._proofs.read(self._file) or b"")
            return self._read[1]
        except ValueError as error:
            raise PassError(
                "FileCorrupt",
                f"{self._proofs.place}/{self._file}: {error}; something else wrote it: restore it from a backup or remove it.",
            ) from error

    @contextmanager
    def _held(self) -> Iterator[Known]:
        """The right to change the file, and what it holds now."""
        with self._proofs.exclusive(f"{self._name}.lock", self._file):
            yield self._known()

    def _save(self, known: Known) -> None:
        self._proofs.write(self._file, codec.encode(known))


def _name(pin: Pin, keys: HostKeys | None) -> str:
    """What a proof is about: the commit alone, where nobody signs tags."""
    return f"{pin.commit} {pin.ref if keys is not None else ''}".strip()
