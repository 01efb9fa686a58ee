"""Which pins are proven: attacks on a catalog's branch, its tags and their signatures, each with what must come of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.cabinet import FolderCabinet
from reconciler.errors import PassError, ReconcilerError, UnitError
from reconciler.git.catalog import CatalogRepo
from reconciler.git.remote import Remote
from reconciler.git.signers import HostKeys
from reconciler.git.vouching import Vouching
from reconciler.model import Commit, Digest, Pin
from tests.kit.gitrepo import RepoBuilder
from tests.kit.signing import NOON, SshKey, SshKeys

FILES = {"modules/net/main.tf": "# 1\n"}


class Site:
    """A catalog whose releases are signed, and one plane that reads it."""

    def __init__(self, folder: Path, keys: SshKeys, *, signed: bool = True) -> None:
        self.folder, self.keys = folder, keys
        self.repo = RepoBuilder.create(folder / "catalog.git")
        self.allowed, self.revoked = folder / "allowed_signers", folder / "revoked_keys"
        self.allowed.write_text(keys["release"].line())
        self.revoked.write_text("")
        self.signed = signed
        self.first = self.repo.commit(FILES)
        self.reopen()

    def reopen(self) -> None:
        """The same plane after a restart."""
        remote = Remote(self.repo.url)
        catalog = CatalogRepo(remote, "main", self.folder / "mirror", allow_file=True)
        keys = HostKeys(self.folder / "copies", self.allowed, self.revoked, None) if self.signed else None
        self.vouching = Vouching(catalog, FolderCabinet(self.folder / "memory"), "acme", keys)

    def tag(self, name: str, commit: Commit, key: SshKey | None, **words: str) -> str:
        """A tag object, signed, at refs/tags/<name>; `words` replace what it says of itself."""
        said = {"object": commit, "type": "commit", "tag": name, "at": str(NOON), "more": "", "end": ""} | words
        head = f"object {said['object']}\ntype {said['type']}\ntag {said['tag']}\n"
        payload = f"{head}tagger Ada <ada@example.org> {said['at']} +0000\n{said['more']}\nrelease\n".encode()
        signature = key.sign(payload) if key else b""
        data = payload + signature + said["end"].encode()
        made = self.repo.git("hash-object", "-w", "--literally", "-t", "tag", "--stdin", stdin=data)
        self.repo.git("update-ref", f"refs/tags/{words.get('at_ref', name)}", made)
        return made

    def pin(self, commit: Commit | None = None, ref: str = "v1.0.0") -> Pin:
        digest = Digest("sha256:" + "0" * 64)
        return Pin("acme/net", "1.0.0", "modules/net", ref, commit or self.first, digest)

    def refused(self, pin: Pin | None = None) -> str:
        with pytest.raises(ReconcilerError) as caught:
            self.vouching.prove(pin or self.pin())
        assert not self.vouching.remembers(pin or self.pin())
        assert str(caught.value)
        return caught.value.reason


@pytest.fixture
def keys(tmp_path: Path) -> SshKeys:
    folder = tmp_path / "keys"
    folder.mkdir()
    return SshKeys(folder)


@pytest.fixture
def site(tmp_path: Path, keys: SshKeys) -> Site:
    return Site(tmp_path, keys)


def lightweight(site: Site) -> None:
    site.repo.tag("v1.0.0", site.first)


def tag_of_a_tag(site: Site) -> None:
    inner = site.tag("inner", site.first, site.keys["release"])
    site.tag("v1.0.0", site.first, site.keys["release"], object=inner, type="tag")


TAGS: list[tuple[str, Callable[[Site], object], str | None]] = [
    ("signed by an allowed key", lambda s: s.tag("v1.0.0", s.first, s.keys["release"]), None),
    ("no tag", lambda _: None, "CatalogTagMissing"),
    ("plain", lightweight, "CatalogTagInvalid"),
    ("not signed", lambda s: s.tag("v1.0.0", s.first, None), "SignatureMissing"),
    ("unknown signer", lambda s: s.tag("v1.0.0", s.first, s.keys["mallory"]), "SignerUnknown"),
    ("another commit", lambda s: s.tag("v1.0.0", s.repo.commit({"x": "y"}), s.keys["release"]), "CatalogTagMoved"),
    ("renamed", lambda s: s.tag("v0.9.0", s.first, s.keys["release"], at_ref="v1.0.0"), "CatalogTagInvalid"),
    ("tag of a tag", tag_of_a_tag, "CatalogTagMoved"),
    ("in the future", lambda s: s.tag("v1.0.0", s.first, s.keys["release"], at="4102444800"), "DateInvalid"),
    ("more headers", lambda s: s.tag("v1.0.0", s.first, s.keys["release"], more="gpgsig x\n"), "CatalogTagInvalid"),
    ("tampered", lambda s: s.tag("v1.0.0", s.first, s.keys["release"], end="more\n"), "SignatureInvalid"),
    ("two signatures", lambda s: s.tag("v1.0.0", s.first, s.keys["release"], end=s.keys["mallory"].sign(b"x").decode()), "CatalogTagInvalid"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), [row[1:] for row in TAGS], ids=[row[0] for row in TAGS])
def test_tags(site: Site, make: Callable[[Site], object], reason: str | None) -> None:
    make(site)
    if reason is not None:
        assert site.refused() == reason
        return
    site.vouching.prove(site.pin())
    assert site.vouching.remembers(site.pin())
    assert not site.vouching.remembers(site.pin(ref="v2.0.0"))


def test_git_itself_minds_neither_name_nor_nesting(site: Site) -> None:
    """Why the tag's own bytes are read: these two verify."""
    site.tag("v0.9.0", site.first, site.keys["release"], at_ref="v1.0.0")
    tag_of_a_tag_of = site.tag("inner", site.first, site.keys["release"])
    site.tag("v2.0.0", site.first, site.keys["release"], object=tag_of_a_tag_of, type="tag")
    for name in ("v1.0.0", "v2.0.0"):
        site.repo.git("-c", f"gpg.ssh.allowedSignersFile={site.allowed}", "-c", "gpg.format=ssh", "verify-tag", name)


def test_a_proof_is_for_good_until_its_key_is_revoked(site: Site) -> None:
    site.tag("v1.0.0", site.first, site.keys["release"])
    site.vouching.prove(site.pin())
    site.allowed.write_text(site.keys["next"].line())  # the key rotates away
    site.repo.git("tag", "-d", "v1.0.0")
    shutil.rmtree(site.repo.folder)  # and the catalog is gone for now
    site.reopen()
    site.vouching.prove(site.pin())

    site.revoked.write_text(site.keys["release"].public + "\n")
    assert not site.vouching.remembers(site.pin())
    with pytest.raises(PassError):
        site.vouching.prove(site.pin())


def test_an_older_list_of_signers_does_not_come_back(site: Site) -> None:
    site.tag("v1.0.0", site.first, site.keys["release"])
    site.allowed.write_text("# version: 2\n" + site.keys["release"].line())
    site.vouching.prove(site.pin())
    site.allowed.write_text("# version: 1\n" + site.keys["release"].line() + site.keys["mallory"].line())
    site.tag("v2.0.0", site.first, site.keys["mallory"])
    assert site.refused(site.pin(ref="v2.0.0")) == "SignersRolledBack"
    assert site.vouching.remembers(site.pin())


def test_a_tag_that_moves_does_not_matter_for_what_is_pinned(site: Site) -> None:
    site.tag("v1.0.0", site.first, site.keys["release"])
    site.vouching.prove(site.pin())
    later = site.repo.commit({"x": "y"})
    site.tag("v1.0.0", later, site.keys["release"])
    site.vouching.update()
    assert site.vouching.catalog.moved_tags
    site.vouching.prove(site.pin())
    assert site.refused(site.pin(later)) == "CatalogTagMoved"  # the mirror keeps what it saw first


# --- the branch


@pytest.fixture
def plain(tmp_path: Path, keys: SshKeys) -> Site:
    """Without signed tags."""
    return Site(tmp_path, keys, signed=False)


def test_a_commit_of_a_fork_that_the_server_serves(plain: Site) -> None:
    """Some forges answer to the SHA of any fork's commit; here it even comes into the mirror, by a tag and by a branch."""
    plain.repo.branch_off("fork")
    stray = plain.repo.commit({"evil": "x"}, branch="fork")
    plain.repo.tag("v9.9.9", stray)
    plain.vouching.update()
    plain.vouching.catalog.fetch_branch("fork")
    assert plain.vouching.catalog.has(stray)
    assert plain.refused(plain.pin(stray)) == "CatalogUnreachable"

    plain.repo.merge("fork")
    plain.vouching.prove(plain.pin(stray))


@pytest.mark.parametrize("mirror", ["kept", "lost"])
def test_a_rewritten_branch_proves_nothing_new_and_takes_nothing_away(plain: Site, mirror: str) -> None:
    second = plain.repo.commit({"modules/net/main.tf": "# 2\n"})
    plain.vouching.prove(plain.pin(second))
    plain.repo.point("main", plain.first)  # somebody puts the branch back and goes on from there
    evil = plain.repo.commit({"modules/net/main.tf": "# evil\n"})
    if mirror == "lost":
        shutil.rmtree(plain.folder / "mirror")
    plain.reopen()

    assert plain.refused(plain.pin(evil)) == "CatalogRewritten"
    plain.vouching.prove(plain.pin(second))
    plain.reopen()
    assert plain.refused(plain.pin(evil)) == "CatalogRewritten"

    plain.repo.branch_off("old", second)
    plain.repo.record({}, "Take the old history back in", parents=(evil, second), base=evil)
    if mirror == "kept":
        shutil.rmtree(plain.folder / "mirror")
        plain.reopen()
    plain.vouching.prove(plain.pin(evil))


def test_a_branch_that_is_put_back_goes_on(plain: Site) -> None:
    second = plain.repo.commit({"x": "2"})
    plain.vouching.prove(plain.pin(second))
    plain.repo.point("main", plain.first)
    with pytest.raises(PassError, match="merge the old head into the new branch; if it is lost for good, remove"):
        plain.vouching.update()
    plain.repo.point("main", second)
    third = plain.repo.commit({"x": "3"})
    plain.vouching.prove(plain.pin(third))


def test_what_is_remembered_is_damaged(plain: Site) -> None:
    plain.vouching.prove(plain.pin())
    (plain.folder / "memory" / "acme.json").write_text("{")
    plain.reopen()
    with pytest.raises(PassError, match="restore it from a backup"):
        plain.vouching.remembers(plain.pin())


def test_a_pin_without_signatures_is_its_commit(plain: Site) -> None:
    plain.vouching.prove(plain.pin())
    assert plain.vouching.remembers(replace(plain.pin(), ref="v3.0.0", module="acme/other"))
    with pytest.raises(UnitError, match="merge it there, or write a released version"):
        plain.vouching.prove(plain.pin(Commit("1" * 40)))
