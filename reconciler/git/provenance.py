"""Why a commit counts: a signature by a key of this host, the word of the forge, or both. Proven once, then remembered."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

from reconciler.cabinet import Cabinet, cabinet_of
from reconciler.errors import PassError
from reconciler.forge.facts import Forge, Merged
from reconciler.git.command import Git
from reconciler.git.commits import CommitObject, read_commits
from reconciler.git.head import Head
from reconciler.git.proofs import Proof, Proofs
from reconciler.git.remade import check_merge
from reconciler.git.sights import Sights
from reconciler.git.signatures import Signed, check_dates, check_first_sight, verify
from reconciler.git.signers import HostKeys, Keys
from reconciler.git.tree import object_id
from reconciler.model import Commit

_AT_ONCE = 64  # commits that are read with one process


class Provenance:
    """The `CommitProver` of one plane. Without keys and forge it proves nothing, and asks for nothing."""

    def __init__(
        self,
        proofs: Proofs,
        *,
        keys: HostKeys | None = None,
        forge: Forge | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._proofs, self._keys, self._forge, self._now = proofs, keys, forge, now
        self._sights = Sights(proofs.cabinet)
        self._chain: tuple[Commit, ...] = ()
        self._read: dict[Commit, CommitObject] = {}
        self._sound: tuple[str, Commit, Commit] | None = None  # list, base and head for which nothing was revoked

    def proof(self, commit: Commit) -> Proof | None:
        """Why a commit was found to count, for whoever writes that down."""
        return self._proofs.get(commit)

    def begin(self, head: Head) -> None:
        """See `CommitProver`.

        Raises:
            PassError: what `HostKeys.read` raises; `SignersRolledBack`.
        """
        self._read = {}
        self._chain = (*([head.since] if head.since else []), *head.chain)
        if self._keys is not None:
            self._current(self._keys)
            self._sights.look(head, self._now())

    def uphold(self, git: Git, base: Commit, accepted: Commit) -> None:
        """See `CommitProver`. Free while nothing changed.

        Raises:
            PassError: `SignatureRevoked`, the key that signed one of them is revoked by now; or as `begin`.
        """
        if self._keys is None:
            return
        keys = self._current(self._keys)
        sound = keys.fingerprint, base, accepted
        if self._sound == sound:
            return
        if revoked := keys.which_revoked(self._proofs.keys()):
            self._none_of(git, revoked, base, accepted)
        self._sound = sound

    def prove(self, git: Git, commit: Commit) -> None:
        """See `CommitProver`.

        Raises:
            PassError: one of the reasons of `signatures.verify`, of the forge, `DateInvalid`, `MergeEdited`.
        """
        known = self._proofs.get(commit)
        keys = self._current(self._keys) if self._keys is not None else None
        if known is not None and self._suffices(known):
            if keys is not None and keys.which_revoked({known.key: self._proofs.keys().get(known.key, "")}):
                what = f"{commit} is signed by {known.signer} with {known.key}, which is in revoked_keys"
                raise PassError(
                    "SignerRevoked", f"{what}: take it out of the branch: nothing that this key signed counts."
                )
            return
        signed = self._signed(git, commit, keys) if keys is not None else None
        merged = self._forge.merged(commit) if self._forge is not None else None
        if signed is not None and signed.forge and merged is None:
            what = f"{commit} is signed by the forge ({signed.key}), for whoever pressed its button"
            raise PassError("SignatureInvalid", f"{what}: configure `forge`, so that it can be asked who approved.")
        if merged is not None:
            check_merge(git, commit)
        if signed is not None or merged is not None:
            self._proofs.add(_proof(commit, self._now(), signed, merged), signed.public if signed else "")

    def _suffices(self, proof: Proof) -> bool:
        """Whether what was asked then is all that is asked now."""
        return bool(proof.key or self._keys is None) and (proof.pull is not None or self._forge is None)

    def _signed(self, git: Git, commit: Commit, keys: Keys) -> Signed:
        found = self._object(git, commit)
        parent = self._object(git, found.parents[0]) if found.parents else None
        check_dates(found, parent, self._now())
        signed = verify(git, found, keys)
        check_first_sight(found, signed, self._sights.looked_before(commit))
        return signed

    def _current(self, host: HostKeys) -> Keys:
        """The keys as they are now, of a version that is not older than one seen before.

        Raises:
            PassError: `SignersRolledBack`; see `HostKeys.read`.
        """
        keys, seen = host.read(), self._proofs.version()
        if keys.version < seen:
            found = f"has version {keys.version}" if keys.version else "names no version"
            what = f"{host.place}: {found}, and version {seen} was in force here before"
            raise PassError(
                "SignersRolledBack", f"{what}: put the newer file back; a higher `# version: N` may follow it."
            )
        if keys.version > seen:
            self._proofs.raise_version(keys.version)
        return keys

    def _none_of(self, git: Git, revoked: Collection[str], base: Commit, accepted: Commit) -> None:
        """Raises PassError where one of the keys signed a commit after `base` up to `accepted`."""
        operands = object_id(accepted), f"^{object_id(base)}"
        for line in git.run("rev-list", "--first-parent", "--reverse", operands=operands).decode().split():
            proof = self._proofs.get(Commit(line))
            if proof is not None and proof.key in revoked:
                what = f"{proof.commit} was accepted with a signature by {proof.signer}, and {proof.key} is in revoked_keys"
                remedy = f"revert what it did by a signed merge, and run `accept-history {accepted} NEW` on both planes"
                raise PassError("SignatureRevoked", f"{what}: {remedy}; NEW is that merge.")

    def _object(self, git: Git, commit: Commit) -> CommitObject:
        """The commit; with it its parent and those that come next in the chain are read."""
        if commit not in self._read:
            start = self._chain.index(commit) if commit in self._chain else None
            wanted = [commit] if start is None else self._chain[max(start - 1, 0) : start + _AT_ONCE]
            self._read = {}
            try:
                for one in read_commits(git, wanted):
                    self._read[one.commit] = one
            except PassError:
                if commit not in self._read:  # what is wrong with a later one is said when it is that one's turn
                    raise
        return self._read[commit]


def _proof(commit: Commit, at: datetime, signed: Signed | None, merged: Merged | None) -> Proof:
    return Proof(
        commit,
        at,
        signed.signer if signed else "",
        signed.key if signed else "",
        merged.pull if merged else None,
        merged.author if merged else "",
        merged.approvers if merged else (),
    )


def open_proofs(beside: Path | Cabinet) -> Proofs:
    """The proofs of the plane whose memory is there: beside the controller's store, or in the runner's memory."""
    return Proofs(cabinet_of(beside).within("proofs"))
