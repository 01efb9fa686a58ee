"""The whole way from a poll to a proof, on both planes: what counts, what is remembered, and what ends it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from reconciler.branch.protected import open_branch
from reconciler.config import load_controller, load_runner
from reconciler.errors import ConfigError, PassError
from reconciler.forge.facts import Merged, Protection, Pull
from reconciler.git.command import Git, Remote
from reconciler.git.head import Head
from reconciler.git.proofs import Proof, Proofs
from reconciler.git.provenance import Provenance
from reconciler.git.sights import Sights
from reconciler.git.signers import HostKeys
from reconciler.git.source import EnvironmentsSource
from reconciler.model import Commit
from tests.kit.forge import ForgeSite, forge_site
from tests.kit.gitrepo import Memory, RepoBuilder
from tests.kit.signing import NOON, PgpKeys, SshKeys, payload, signed, with_signature, write

MINUTE = 60
AT = datetime.fromtimestamp(NOON, UTC)
CONTROLLER = """
environments_repo: {{url: {url}, allow_file: true, genesis: {genesis}, signatures: {{allowed_signers: signers, revoked_keys: revoked}}}}
store: {{path: store/journal.db}}
executor: {{local: {{socket: runner.sock}}}}
"""
RUNNER = """
environments_repo: {{url: {url}, allow_file: true, genesis: {genesis}, signatures: {{allowed_signers: signers, revoked_keys: revoked}}}}
memory: {{path: store}}
allow: []
engine: auto
environments: {{}}
"""


@dataclass
class Plane:
    """One plane as its configuration describes it; only its clock is ours."""

    kind: str
    folder: Path
    ssh: SshKeys
    repo: RepoBuilder = field(init=False)
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self.repo = RepoBuilder.create(self.folder / "repo.git")
        self.genesis = self.repo.commit({"environments/prod/a.yaml": "1"})
        self.signers(self.ssh["ada"].line())
        self.revoked("")
        text = {"controller": CONTROLLER, "runner": RUNNER}[self.kind]
        self.config = self.folder / f"{self.kind}.yaml"
        self.config.write_text(text.format(url=self.repo.folder, genesis=self.genesis))

    def signers(self, text: str) -> None:
        (self.folder / "signers").write_text(text)

    def revoked(self, text: str) -> None:
        (self.folder / "revoked").write_text(text)

    def limited(self, window: str, at: int) -> Commit:
        """A commit by a key that has a window."""
        self.signers(self.ssh["ada"].line(options=window))
        return signed(self.repo, self.ssh["ada"], at=at)

    @property
    def proofs(self) -> Proofs:
        return Proofs(self.folder / "store" / "proofs")

    def source(self) -> EnvironmentsSource:
        """Made anew, as after a restart."""
        config = load_controller(self.config) if self.kind == "controller" else load_runner(self.config)
        return open_branch(config, self.memory).source

    def accept(self) -> Head:
        source = self.source()
        head = source.poll()
        source.accept(head)
        return head

    def refused(self) -> PassError:
        """What ends the poll, or why its newest commit waits."""
        try:
            head = self.source().poll()
        except PassError as error:
            return error
        assert head.unproven is not None
        assert head.unproven.commit not in head.chain
        return PassError(head.unproven.reason, head.unproven.message)


@pytest.fixture(params=["controller", "runner"])
def plane(request: pytest.FixtureRequest, tmp_path: Path, ssh_keys: SshKeys) -> Plane:
    return Plane(request.param, tmp_path, ssh_keys)


def raw(plane: Plane, sign: Callable[[bytes], bytes], *, at: int = NOON) -> Commit:
    head = plane.repo.head()
    assert head
    data = payload((head,), at=at, tree=plane.repo.git("rev-parse", f"{head}^{{tree}}"))
    return write(plane.repo, sign(data))


ROWS: dict[str, tuple[Callable[[Plane], object], str]] = {
    "signed by an allowed key": (lambda p: signed(p.repo, p.ssh["ada"]), ""),
    "unsigned": (lambda p: p.repo.commit({"b": "1"}), "SignatureMissing"),
    "unknown signer": (lambda p: signed(p.repo, p.ssh["eve"]), "SignerUnknown"),
    "key expired": (
        lambda p: p.limited('valid-before="20200101"', NOON),
        "SignerUnknown",
    ),
    "not yet valid": (
        lambda p: p.limited('valid-after="20250101"', NOON),
        "SignerUnknown",
    ),
    "revoked": (
        lambda p: (signed(p.repo, p.ssh["ada"]), (p.folder / "revoked").write_text(p.ssh["ada"].public)),
        "SignerRevoked",
    ),
    "wrong namespace": (
        lambda p: raw(p, lambda data: with_signature(data, p.ssh["ada"].sign(data, "file"))),
        "SignatureInvalid",
    ),
    "tampered": (
        lambda p: raw(p, lambda data: with_signature(data.replace(b"change", b"chance"), p.ssh["ada"].sign(data))),
        "SignatureInvalid",
    ),
    "expired key, committer date set back": (
        lambda p: p.limited('valid-before="20200101"', 1_500_000_000),
        "DateInvalid",
    ),
    "dated in the future": (lambda p: signed(p.repo, p.ssh["ada"], at=9_999_999_999), "DateInvalid"),
    "a PGP key where none is trusted": (
        lambda p: raw(
            p, lambda data: with_signature(data, b"-----BEGIN PGP SIGNATURE-----\n\nowGb\n-----END PGP SIGNATURE-----")
        ),
        "SignerUnknown",
    ),
    "the signers' file is gone": (
        lambda p: (signed(p.repo, p.ssh["ada"]), (p.folder / "signers").rename(p.folder / "gone")),
        "SignersUnreadable",
    ),
    "the revocation file is gone": (
        lambda p: (signed(p.repo, p.ssh["ada"]), (p.folder / "revoked").rename(p.folder / "gone")),
        "SignersUnreadable",
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_table(plane: Plane, row: str) -> None:
    make, reason = ROWS[row]
    make(plane)
    if not reason:
        head = plane.accept()
        assert head.commit == plane.repo.head()
        found = plane.proofs.get(head.commit)
        assert found is not None
        assert (found.signer, found.key, found.pull) == ("ada@example.org", plane.ssh["ada"].name, None)
    else:
        assert plane.refused().reason == reason
        assert plane.memory.commit is None
        assert plane.proofs.get(plane.repo.head() or Commit("")) is None


def test_keys_rotate_and_what_was_proven_stays_so(plane: Plane) -> None:
    first = signed(plane.repo, plane.ssh["ada"])
    plane.accept()
    plane.signers(plane.ssh["bob"].line("bob@example.org"))
    second = signed(plane.repo, plane.ssh["bob"], at=NOON + 1)
    plane.memory.commit = None  # and even if the head is judged again from the genesis
    assert plane.accept().chain == (first, second)
    signed(plane.repo, plane.ssh["ada"], at=NOON + 2)
    assert plane.refused().reason == "SignerUnknown"


def test_a_revoked_key_ends_what_it_signed_before(plane: Plane) -> None:
    plane.signers(plane.ssh["eve"].line("eve@example.org"))
    bad = signed(plane.repo, plane.ssh["eve"])
    plane.accept()
    plane.signers(plane.ssh["ada"].line())
    good = signed(plane.repo, plane.ssh["ada"], at=NOON + 1)
    plane.accept()
    plane.revoked(f"# stolen\n{plane.ssh['eve'].public}\n")
    error = plane.refused()
    assert error.reason == "SignatureRevoked"
    for word in (bad, plane.ssh["eve"].name, "eve@example.org", f"accept-history {good} NEW"):
        assert word in str(error)
    with pytest.raises(PassError, match="is in revoked_keys") as held:
        plane.source().uphold(good)  # without a look at the network too
    assert held.value.reason == "SignatureRevoked"
    plane.revoked("")
    plane.source().uphold(good)


def test_a_revoked_key_of_others_ends_nothing(plane: Plane) -> None:
    signed(plane.repo, plane.ssh["ada"])
    plane.accept()
    plane.revoked(plane.ssh["eve"].public)
    assert plane.accept().chain == ()


def test_a_krl_ends_what_was_signed_before(plane: Plane) -> None:
    signed(plane.repo, plane.ssh["ada"])
    head = plane.accept()
    plane.ssh.krl(plane.folder / "krl", "bob", "eve")
    plane.config.write_text(plane.config.read_text().replace("revoked_keys: revoked", "revoked_keys: krl"))
    plane.source().uphold(head.commit)
    plane.ssh.krl(plane.folder / "krl", "ada")
    assert plane.refused().reason == "SignatureRevoked"


def test_the_signers_version_never_goes_back(plane: Plane) -> None:
    line = plane.ssh["ada"].line()
    signed(plane.repo, plane.ssh["ada"])
    plane.signers(f"# version: 6\n{line}")
    plane.accept()
    for older in (f"# version: 5\n{line}", line):
        plane.signers(older)
        error = plane.refused()
        assert (error.reason, "version 6" in str(error)) == ("SignersRolledBack", True)
    for newer in (f"# version: 6\n{line}", f"#version:7\n{line}"):
        plane.signers(newer)
        plane.accept()
    assert plane.proofs.version() == 7


def test_a_malformed_line_holds_with_its_place(plane: Plane) -> None:
    signed(plane.repo, plane.ssh["ada"])
    plane.signers(plane.ssh["ada"].line() + "bob@example.org ssh-ed25519 AAAA\n")
    assert str(plane.refused()).startswith(f"{plane.folder / 'signers'}:2:1: ")


def test_a_stolen_old_key_on_a_branch_that_lies_still(plane: Plane) -> None:
    """The date is after the parent's, and in the key's window: only when it was first seen tells the truth."""
    end = datetime.fromtimestamp(NOON + MINUTE, UTC).strftime("%Y%m%d%H%M%S")
    plane.signers(plane.ssh["ada"].line(options=f'valid-before="{end}"'))
    plane.accept()  # long after the key's end
    signed(plane.repo, plane.ssh["ada"])
    error = plane.refused()
    assert (error.reason, "came onto the branch after" in str(error)) == ("SignerUnknown", True)
    assert plane.refused().reason == "SignerUnknown"  # it does not get old enough by waiting


def test_a_replica_that_lags_for_once_moves_no_first_sight(tmp_path: Path) -> None:
    genesis, a, b = (Commit(one * 40) for one in "0ab")
    for hours, chain in enumerate([(), (a, b), (a,), (), (a, b)]):
        sights = Sights(tmp_path)
        sights.look(Head(chain[-1] if chain else genesis, chain, AT, genesis), AT + timedelta(hours=hours))
    assert [sights.looked_before(one) for one in (a, b)] == [AT, AT]
    for number in range(300):  # and what it ever showed does not pile up
        one = Commit(f"{number:040x}")
        Sights(tmp_path).look(Head(one, (one,), AT, genesis), AT)
    assert len(json.loads((tmp_path / "sights.json").read_bytes())) == 101


def test_what_came_while_nobody_looked_stays_so_however_long_it_waits(tmp_path: Path) -> None:
    a, b, c, d = (Commit(letter * 40) for letter in "abcd")
    genesis = Commit("0" * 40)

    def look(hours: int, since: Commit, *chain: Commit) -> Sights:
        sights = Sights(tmp_path)  # a new process each time
        sights.look(Head(chain[-1] if chain else since, chain, AT, since), AT + timedelta(hours=hours))
        return sights

    assert look(0, genesis, a).looked_before(a) is None  # the first look ever
    look(1, genesis, a)
    sights = look(9, genesis, a, b, c)  # a waits for its proof; b and c came meanwhile
    before = AT + timedelta(hours=1)
    assert [sights.looked_before(commit) for commit in (a, b, c)] == [None, before, before]
    sights = look(10, a, b, c, d)
    assert [sights.looked_before(commit) for commit in (b, c, d)] == [before, before, AT + timedelta(hours=9)]
    look(11, d)
    assert look(12, d).looked_before(a) == AT + timedelta(hours=12)  # a stranger: it was in no look so far


def test_an_expired_key_counts_for_what_it_signed_while_the_daemon_was_away(desk: Desk) -> None:
    end = (AT + timedelta(seconds=30)).strftime("%Y%m%d%H%M%S")
    (desk.folder / "signers").write_text(desk.ssh["ada"].line(options=f'valid-before="{end}"'))
    keys = HostKeys(desk.folder / "copies", desk.folder / "signers", None, None)
    now = [AT - timedelta(days=3)]
    provenance = Provenance(Proofs(desk.folder / "proofs"), keys=keys, now=lambda: now[0])
    provenance.begin(Head(desk.genesis, (), AT, desk.genesis))
    commit = signed(desk.repo, desk.ssh["ada"])
    now[0] = AT + timedelta(days=3)
    head = Head(commit, (commit,), AT, desk.genesis)
    for _ in range(2):  # the first try may fail for another reason
        provenance.begin(head)
    provenance.prove(desk.git, commit)
    later = signed(desk.repo, desk.ssh["ada"], at=NOON + 1)
    provenance.begin(Head(later, (later,), AT, commit))
    with pytest.raises(PassError, match="came onto the branch after"):
        provenance.prove(desk.git, later)


# --- the forge


@dataclass
class Word:
    """A forge that answers as it is told. (The real ones are tested where they live.)"""

    answers: dict[Commit, Merged | PassError] = field(default_factory=dict)
    asked: list[Commit] = field(default_factory=list)

    def merged(self, commit: Commit) -> Merged:
        self.asked.append(commit)
        answer = self.answers[commit]
        if isinstance(answer, PassError):
            raise answer
        return answer

    def open_pulls(self) -> tuple[Pull, ...]:
        return ()

    def protections(self) -> tuple[Protection, ...]:
        return ()

    def head_ref(self, number: int) -> str:
        return f"refs/pull/{number}/head"


@dataclass
class Desk:
    """One commit on a genesis, and a `Provenance` made by hand."""

    folder: Path
    ssh: SshKeys
    pgp: PgpKeys
    word: Word = field(default_factory=Word)

    def __post_init__(self) -> None:
        self.repo = RepoBuilder.create(self.folder / "repo.git")
        self.genesis = self.repo.commit({"a": "1"})
        self.git = Git(self.repo.folder, Remote(self.repo.url))

    def keys(self) -> HostKeys:
        for name, data in (("signers", self.ssh["ada"].line().encode()), ("pgp", self.pgp.export("web-flow"))):
            (self.folder / name).write_bytes(data)
        return HostKeys(self.folder / "copies", self.folder / "signers", None, self.folder / "pgp")

    def provenance(self, *, keys: bool, forge: bool) -> Provenance:
        return Provenance(
            Proofs(self.folder / "proofs"),
            keys=self.keys() if keys else None,
            forge=self.word if forge else None,
            now=lambda: AT + timedelta(minutes=1),
        )

    def by_forge(self) -> Commit:
        data = payload((self.genesis,))
        return write(self.repo, with_signature(data, self.pgp.sign(data, "web-flow")))


@pytest.fixture
def desk(tmp_path: Path, ssh_keys: SshKeys, pgp_keys: PgpKeys) -> Desk:
    return Desk(tmp_path, ssh_keys, pgp_keys)


def merged(commit: Commit) -> Merged:
    return Merged(12, "bob", ("carol",), commit)


def test_the_forges_word_and_its_key_together(desk: Desk) -> None:
    commit = desk.by_forge()
    desk.word.answers[commit] = merged(commit)
    desk.provenance(keys=True, forge=True).prove(desk.git, commit)
    key = f"PGP:{desk.pgp.key('web-flow')}"
    who = "web-flow <web-flow@forge.example>"
    expected = Proof(commit, AT + timedelta(minutes=1), who, key, 12, "bob", ("carol",))
    assert desk.provenance(keys=True, forge=True).proof(commit) == expected
    desk.provenance(keys=True, forge=True).prove(desk.git, commit)
    assert desk.word.asked == [commit]  # once


def test_the_forges_key_alone_proves_nothing(desk: Desk) -> None:
    commit = desk.by_forge()
    with pytest.raises(PassError, match="for whoever pressed its button"):
        desk.provenance(keys=True, forge=False).prove(desk.git, commit)
    assert Proofs(desk.folder / "proofs").get(commit) is None


@pytest.mark.parametrize("reason", ["PullRequestMissing", "ApprovalMissing", "ForgeUnreachable"])
def test_without_the_forges_word_nothing_is_remembered(desk: Desk, reason: str) -> None:
    commit = signed(desk.repo, desk.ssh["ada"])
    desk.word.answers[commit] = PassError(reason, "no")
    with pytest.raises(PassError) as error:
        desk.provenance(keys=True, forge=True).prove(desk.git, commit)
    assert error.value.reason == reason
    assert Proofs(desk.folder / "proofs").get(commit) is None
    desk.word.answers[commit] = merged(commit)
    desk.provenance(keys=True, forge=True).prove(desk.git, commit)


def test_an_unsigned_commit_is_not_asked_about(desk: Desk) -> None:
    commit = desk.repo.commit({"b": "1"})
    with pytest.raises(PassError) as error:
        desk.provenance(keys=True, forge=True).prove(desk.git, commit)
    assert (error.value.reason, desk.word.asked) == ("SignatureMissing", [])


def test_the_forges_word_alone_where_signatures_are_off(desk: Desk) -> None:
    commit = desk.repo.commit({"b": "1"})
    desk.word.answers[commit] = merged(commit)
    desk.provenance(keys=False, forge=True).prove(desk.git, commit)
    found = Proofs(desk.folder / "proofs").get(commit)
    assert found is not None
    assert (found.signer, found.pull) == ("", 12)


def test_a_proof_counts_for_no_more_than_what_was_asked(desk: Desk) -> None:
    commit = signed(desk.repo, desk.ssh["ada"])
    desk.provenance(keys=True, forge=False).prove(desk.git, commit)
    desk.word.answers[commit] = PassError("PullRequestMissing", "no")
    with pytest.raises(PassError):  # a forge was configured meanwhile
        desk.provenance(keys=True, forge=True).prove(desk.git, commit)


def test_nothing_configured_asks_nothing_and_writes_nothing(desk: Desk) -> None:
    commit = desk.repo.commit({"b": "1"})
    desk.provenance(keys=False, forge=False).prove(desk.git, commit)
    assert not (desk.folder / "proofs").exists()


def test_a_chain_is_read_in_few_processes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = tuple(signed(desk.repo, desk.ssh["ada"], at=NOON + number) for number in range(6))
    provenance = desk.provenance(keys=True, forge=False)
    provenance.begin(Head(chain[-1], chain, AT, desk.genesis))
    commands: list[str] = []
    was = Git._argv

    def noted(self: Git, command: str, *more: object) -> list[str]:
        commands.append(command)
        return was(self, command, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Git, "_argv", noted)
    for commit in chain:
        provenance.prove(desk.git, commit)
    assert commands == ["cat-file", *["verify-commit"] * 6]


def test_a_broken_commit_does_not_hide_those_before_it(desk: Desk) -> None:
    good = signed(desk.repo, desk.ssh["ada"])
    huge = write(desk.repo, payload((good,), at=NOON, message="x" * (1 << 19)))
    provenance = desk.provenance(keys=True, forge=False)
    provenance.begin(Head(huge, (good, huge), AT, desk.genesis))
    provenance.prove(desk.git, good)
    with pytest.raises(PassError) as error:
        provenance.prove(desk.git, huge)
    assert error.value.reason == "CommitTooLarge"


def test_a_missing_program_is_said_at_the_start(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(desk.folder))
    with pytest.raises(ConfigError, match="ssh-keygen is not installed"):
        HostKeys(desk.folder, desk.folder / "signers", None, None)
    (desk.folder / "ssh-keygen").symlink_to("/bin/true")
    HostKeys(desk.folder, desk.folder / "signers", None, None)
    with pytest.raises(ConfigError, match="gpgv is not installed"):
        HostKeys(desk.folder, None, None, desk.folder / "pgp")


def test_a_poll_with_nothing_new_is_one_process(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    signed(plane.repo, plane.ssh["ada"])
    plane.revoked(plane.ssh["eve"].public)
    source = plane.source()
    source.accept(source.poll())
    source.poll()
    started: list[object] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, argv: list[str], **more: Any) -> None:
            started.append(argv)
            super().__init__(argv, **more)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    source.poll()
    assert len(started) == 1
    signed(plane.repo, plane.ssh["ada"], at=NOON + 1)
    source.poll()
    assert len(started) > 2  # and so they are counted


# --- plain GitHub: its own key signs what its buttons make, and its word says who approved


GITHUB = """
environments_repo:
  url: {url}
  allow_file: true
  genesis: {genesis}
  signatures: {{pgp_keys: pgp}}
  forge: {forge}
"""
REST = {
    "controller": "store: {path: store/journal.db}\nexecutor: {local: {socket: runner.sock}}\n",
    "runner": "memory: {path: store}\nallow: []\nengine: auto\nenvironments: {}\n",
}


@dataclass
class AtGitHub:
    """A repository at a forge, and one plane of a host that trusts the forge's key."""

    kind: str
    folder: Path
    pgp: PgpKeys
    site: ForgeSite
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self.home = self.site.repository("acme/environments")
        self.ada, self.bob = self.site.person("ada"), self.site.person("bob")
        self.home.access = {"ada": "write", "bob": "write"}
        self.repo = RepoBuilder(self.home.git.folder)
        self.pgp.key("web-flow")
        (self.folder / "pgp").write_bytes(self.pgp.export("web-flow"))
        config = self.folder / "config.yaml"
        forge = json.dumps(self.site.config("github", "acme/environments"))
        text = GITHUB.format(url=self.home.git.folder, genesis=self.home.git.head, forge=forge)
        config.write_text(text + REST[self.kind])
        loaded = load_controller(config) if self.kind == "controller" else load_runner(config)
        self.source = open_branch(loaded, self.memory).source

    def signed_by_forge(self, commit: Commit) -> Commit:
        """The same commit with the forge's signature, and the branch there."""
        data = f"{self.repo.git('cat-file', 'commit', commit)}\n".encode()
        at = int(self.repo.git("show", "--no-patch", "--format=%ct", commit))
        return write(self.repo, with_signature(data, self.pgp.sign(data, "web-flow", at=at)))


@pytest.fixture(params=["controller", "runner"])
def github(request: pytest.FixtureRequest, tmp_path: Path, pgp_keys: PgpKeys) -> Iterator[AtGitHub]:
    with forge_site(tmp_path / "forge") as site:
        yield AtGitHub(request.param, tmp_path, pgp_keys, site)


@pytest.mark.parametrize("method", ["merge", "squash"])
def test_an_approved_merge_by_the_forges_button_counts(github: AtGitHub, method: Literal["merge", "squash"]) -> None:
    pull = github.home.open(github.ada, {"environments/prod/a.yaml": "1"}, "change")
    pull.review(github.bob)
    commit = pull.result = pull.squashed = github.signed_by_forge(pull.merge(method=method))
    head = github.source.poll()
    assert (head.commit, head.unproven) == (commit, None)
    found = Proofs(github.folder / "store" / "proofs").get(commit)
    assert found is not None
    assert (found.pull, found.author, found.approvers) == (1, "ada", ("bob",))
    assert found.key == f"PGP:{github.pgp.key('web-flow')}"


def test_the_forges_key_on_a_commit_that_no_pull_request_brought(github: AtGitHub) -> None:
    """As one that was made by its editor in another repository, and pushed here."""
    github.signed_by_forge(github.home.push({"environments/prod/a.yaml": "evil"}, github.ada))
    head = github.source.poll()
    assert head.unproven is not None
    assert head.unproven.reason == "PullRequestMissing"


def test_an_approved_merge_that_the_forge_did_not_sign(github: AtGitHub) -> None:
    pull = github.home.open(github.ada, {"environments/prod/a.yaml": "1"}, "change")
    pull.review(github.bob)
    pull.merge(method="rebase")
    head = github.source.poll()
    assert head.unproven is not None
    assert head.unproven.reason == "SignatureMissing"
    assert github.site.asked == []  # nobody is asked about what is not signed


def test_a_merge_that_somebody_edited_is_not_what_was_approved(github: AtGitHub) -> None:
    """The forge says that it merged the request: its second parent is the approved head."""
    pull = github.home.open(github.ada, {"environments/prod/a.yaml": "1"}, "change")
    pull.review(github.bob)
    merged = pull.merge()
    blob = github.repo.blob("nobody saw this")
    tree = github.repo.tree({"environments/prod/b.yaml": ("100644", blob)}, merged)
    parents = tuple(Commit(word) for word in github.repo.git("rev-parse", f"{merged}^@").split())
    edited = github.home.make(tree, "Merge", parents, "Ada <ada@example.com>")
    pull.result = github.signed_by_forge(edited)
    head = github.source.poll()
    assert head.unproven is not None
    assert head.unproven.reason == "MergeEdited"
    assert str(pull.result) in str(head.unproven)


def test_an_octopus_is_no_merge_of_a_forge(github: AtGitHub) -> None:
    pull = github.home.open(github.ada, {"environments/prod/a.yaml": "1"}, "change")
    pull.review(github.bob)
    merged = pull.merge()
    base, head = (Commit(word) for word in github.repo.git("rev-parse", f"{merged}^@").split())
    third = github.repo.commit_tree(github.repo.tree({}, base), "third", (base,))
    tree = github.repo.git("rev-parse", f"{merged}^{{tree}}")
    pull.result = github.signed_by_forge(github.home.make(tree, "Merge", (base, head, third), "Ada <ada@example.com>"))
    unproven = github.source.poll().unproven
    assert unproven is not None
    assert unproven.reason in ("MergeEdited", "PullRequestMissing")
