"""One commit and the host's keys: each row of the table in docs/security.md, and what hides around a signature."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.errors import PassError
from reconciler.git.command import Git
from reconciler.git.commits import COMMIT_LIMIT, CommitObject, parse, read_commits
from reconciler.git.signatures import Signed, check_dates, check_first_sight, verify
from reconciler.git.signers import HostKeys
from reconciler.model import Commit
from tests.kit.gitrepo import RepoBuilder
from tests.kit.signing import NOON, PgpKeys, SshKeys, payload, with_signature, write

DAY = 86_400
AT = datetime.fromtimestamp(NOON, UTC)


@dataclass
class Host:
    """A repository, and the files of a host that judges its commits."""

    folder: Path
    ssh: SshKeys
    pgp: PgpKeys
    repo: RepoBuilder = field(init=False)

    def __post_init__(self) -> None:
        self.repo = RepoBuilder.create(self.folder / "repo.git")

    def file(self, name: str, data: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def keys(self, allowed: str | bytes = "", revoked: str | bytes = "", pgp: bytes = b"") -> HostKeys:
        return HostKeys(
            self.folder / "copies",
            self.file("allowed_signers", allowed or self.ssh["ada"].line()),
            self.file("revoked", revoked) if revoked else None,
            self.file("pgp", pgp) if pgp else None,
        )

    def judge(self, data: bytes, keys: HostKeys | None = None) -> Signed:
        commit = write(self.repo, data)
        git = Git(self.repo.folder)
        (found,) = read_commits(git, [commit])
        return verify(git, found, (keys or self.keys()).read())

    def refusal(self, data: bytes, keys: HostKeys | None = None) -> PassError:
        with pytest.raises(PassError) as error:
            self.judge(data, keys)
        assert str(error.value).startswith(str(self.repo.head()))  # every refusal names the commit
        return error.value

    def ada(self, data: bytes | None = None, namespace: str = "git") -> bytes:
        data = data or payload()
        return with_signature(data, self.ssh["ada"].sign(data, namespace))


@pytest.fixture
def host(tmp_path: Path, ssh_keys: SshKeys, pgp_keys: PgpKeys) -> Host:
    return Host(tmp_path, ssh_keys, pgp_keys)


# --- the table


@pytest.mark.parametrize("name", ["ada", "rsa-1", "ecdsa-1"])
def test_an_allowed_key_counts(host: Host, name: str) -> None:
    data, key = payload(), host.ssh[name]
    found = host.judge(with_signature(data, key.sign(data)), host.keys(key.line()))
    assert found == Signed("ada@example.org", key.name, key.public)


def test_unsigned(host: Host) -> None:
    assert host.refusal(payload()).reason == "SignatureMissing"


def test_an_unknown_signer(host: Host) -> None:
    error = host.refusal(host.ada(), host.keys(host.ssh["bob"].line()))
    assert error.reason == "SignerUnknown"
    assert host.ssh["ada"].name in str(error)


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ('valid-before="20200101"', "until 2020-01-01 00:00:00 UTC"),
        ('valid-after="20300101"', "from 2030-01-01 00:00:00 UTC"),
        ('valid-after="20200101",valid-before="202101011200"', "until 2021-01-01 12:00:00 UTC"),
    ],
)
def test_a_key_outside_its_window(host: Host, window: str, said: str) -> None:
    error = host.refusal(host.ada(), host.keys(host.ssh["ada"].line(options=window)))
    assert error.reason == "SignerUnknown"
    assert said in str(error)


def test_git_and_we_agree_on_the_last_second_of_a_window(host: Host) -> None:
    last = datetime.fromtimestamp(NOON, UTC).strftime("%Y%m%d%H%M%S")
    before = (datetime.fromtimestamp(NOON, UTC) - timedelta(seconds=1)).strftime("%Y%m%d%H%M%S")
    key = host.ssh["ada"]
    found = host.judge(host.ada(), host.keys(key.line(options=f'valid-before="{last}"')))
    assert found.expires == AT
    assert host.judge(host.ada(), host.keys(key.line(options=f'valid-after="{last}"'))).expires is None
    error = host.refusal(host.ada(), host.keys(key.line(options=f'valid-before="{before}"')))
    assert error.reason == "SignerUnknown"


def test_a_second_line_of_a_key_may_have_the_window_that_counts(host: Host) -> None:
    key = host.ssh["ada"]
    lines = key.line("old@example.org", 'valid-before="20200101"') + key.line("new@example.org", 'namespaces="git"')
    assert host.judge(host.ada(), host.keys(lines)).signer == "new@example.org"


def test_revoked_by_a_list(host: Host) -> None:
    error = host.refusal(host.ada(), host.keys(revoked=f"# left\n{host.ssh['ada'].public} ada\n"))
    assert error.reason == "SignerRevoked"


def test_revoked_by_a_krl(host: Host) -> None:
    krl = host.ssh.krl(host.folder / "krl", "ada").read_bytes()
    assert host.refusal(host.ada(), host.keys(revoked=krl)).reason == "SignerRevoked"
    other = host.ssh.krl(host.folder / "krl2", "bob").read_bytes()
    assert host.judge(host.ada(), host.keys(revoked=other)).signer == "ada@example.org"


def test_the_wrong_namespace(host: Host) -> None:
    assert host.refusal(host.ada(namespace="file")).reason == "SignatureInvalid"


def test_a_line_that_is_for_something_else_than_git(host: Host) -> None:
    keys = host.keys(host.ssh["ada"].line(options='namespaces="file"'))
    assert host.refusal(host.ada(), keys).reason == "SignatureInvalid"


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b"change", b"chance"),
        (b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904", b"tree " + b"1" * 40),
        (b"committer Ada", b"committer Eve"),
        (str(NOON).encode() + b" +0000\ngpgsig", str(NOON - 1).encode() + b" +0000\ngpgsig"),
        (b"\ngpgsig", b"\nencoding latin-1\ngpgsig"),
        (b"author Ada", b"parent " + b"2" * 40 + b"\nauthor Ada"),
    ],
)
def test_tampered(host: Host, was: bytes, becomes: bytes) -> None:
    data = host.ada()
    assert was in data
    assert host.refusal(data.replace(was, becomes)).reason == "SignatureInvalid"


def test_an_expired_key_and_a_committer_date_set_back(host: Host) -> None:
    """git says that it is fine: the bounds of dates have to say no."""
    keys = host.keys(host.ssh["ada"].line(options='valid-before="20200101"'))
    back = payload(at=1_500_000_000)
    found = host.judge(host.ada(back), keys)
    assert found.expires == datetime(2020, 1, 1, tzinfo=UTC)
    commit, parent = parsed(back), parsed(payload(at=NOON - DAY))
    with pytest.raises(PassError, match=r"before its parent") as error:
        check_dates(commit, parent, AT)
    assert error.value.reason == "DateInvalid"
    with pytest.raises(PassError, match="came onto the branch after 2023-11-14") as error:  # on a branch that lay still
        check_first_sight(commit, found, AT - timedelta(days=1))
    assert error.value.reason == "SignerUnknown"
    check_first_sight(
        commit, found, datetime(2019, 12, 31, tzinfo=UTC)
    )  # nobody was looking: it may be as old as it says
    check_first_sight(commit, found, None)


# --- dates


def parsed(data: bytes) -> CommitObject:
    import hashlib

    return parse(Commit(hashlib.sha1(b"commit %d\0" % len(data) + data, usedforsecurity=False).hexdigest()), data)


def test_a_date_is_neither_after_now_nor_before_the_parents() -> None:
    commit = parsed(payload())
    check_dates(commit, None, AT - timedelta(minutes=5))
    check_dates(commit, commit, AT)
    with pytest.raises(PassError, match="in the future"):
        check_dates(commit, None, AT - timedelta(minutes=5, seconds=1))
    with pytest.raises(PassError, match="before its parent"):
        check_dates(commit, parsed(payload(at=NOON + 1)), AT)
    with pytest.raises(PassError, match="in the future"):
        check_dates(parsed(payload(at=999_999_999_999)), None, AT)


# --- who


@pytest.mark.parametrize(
    "who", ["*@example.org", "ada@example.org,eve@example.org", "*@example.org,!mallory@example.org"]
)
def test_principals_may_be_patterns(host: Host, who: str) -> None:
    assert host.judge(host.ada(), host.keys(host.ssh["ada"].line(who))).signer in (who, *who.split(","))


def test_a_name_with_blanks(host: Host) -> None:
    assert host.judge(host.ada(), host.keys(host.ssh["ada"].line('"Ada Lovelace"'))).signer == "Ada Lovelace"


def test_a_certificate_does_not_count(host: Host) -> None:
    certificate = host.ssh.certificate("authority", "carol", "carol@example.org")
    data = payload()
    signed = with_signature(data, host.ssh["carol"].sign(data, with_key=certificate))
    error = host.refusal(signed, host.keys(host.ssh["carol"].line()))
    assert (error.reason, "certificate" in str(error)) == ("SignerUnknown", True)


# --- the signature's format is the commit's choice


@pytest.mark.parametrize(
    "signature",
    [
        b"-----BEGIN SIGNED MESSAGE-----\nMIIB\n-----END SIGNED MESSAGE-----",
        b"-----BEGIN PGP MESSAGE-----\n\nowGb\n-----END PGP MESSAGE-----",
        b"-----BEGIN PGP SIGNATURE-----\n\nowGb\n-----END PGP SIGNATURE-----",
        b"-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----",
        b"-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----",
        b"-----BEGIN SSH SIGNATURE-----\n====\n-----END SSH SIGNATURE-----",
        b"x",
        b"-----BEGIN OF NOTHING",
    ],
)
def test_a_format_that_is_not_trusted(host: Host, signature: bytes) -> None:
    assert host.refusal(with_signature(payload(), signature)).reason in ("SignatureInvalid", "SignerUnknown")


def test_text_around_a_good_signature(host: Host) -> None:
    data = payload()
    good = host.ssh["ada"].sign(data).strip()
    for bad in (
        b"x\n" + good,
        good + b"\nx",
        good + b"\n" + good,
        good.replace(b"SIGNATURE-----\nU1", b"SIGNATURE-----\n\0U1", 1),
    ):
        assert host.refusal(with_signature(data, bad)).reason in ("SignatureInvalid", "CommitInvalid")
    assert host.judge(with_signature(data, good + b"\n")).signer == "ada@example.org"


# --- the commit around it


HIDDEN: dict[str, Callable[[bytes, bytes], bytes]] = {
    "two signatures": lambda data, good: with_signature(with_signature(data, good), good),
    "a header that only begins like one": lambda data, good: with_signature(
        with_signature(data, b"x", "gpgsig-more"), good
    ),
    "a signature for another hash": lambda data, good: with_signature(
        with_signature(data, good, "gpgsig-sha256"), good
    ),
    "a header without a blank": lambda data, good: with_signature(data, good).replace(
        b"\ngpgsig ", b"\ngpgsigx y\ngpgsig ", 1
    ),
    "a NUL": lambda data, good: with_signature(data.replace(b"change", b"chan\0ge"), good),
    "a second tree": lambda data, good: with_signature(
        data.replace(b"\n\n", b"\ntree " + b"1" * 40 + b"\n\n", 1), good
    ),
    "a second committer": lambda data, good: with_signature(
        data.replace(b"\n\n", b"\ncommitter E <e> 1 +0000\n\n", 1), good
    ),
    "no committer": lambda data, good: with_signature(data.replace(b"\ncommitter", b"\ncommitted"), good),
    "a date of a thousand years": lambda data, good: with_signature(data.replace(str(NOON).encode(), b"9" * 20), good),
    "a negative date": lambda data, good: with_signature(data.replace(str(NOON).encode(), b"-1"), good),
    "no message": lambda data, good: with_signature(data, good).partition(b"\n\n")[0] + b"\n",
    "it begins in the middle": lambda data, good: with_signature(data.replace(b"\n\n", b"\n x\n\n", 1), good).replace(
        b"+0000\n x", b"+0000\n x", 1
    ),
    "two thousand million lines": lambda data, good: with_signature(
        data.replace(b"\n\n", b"\nx y" * 20_000 + b"\n\n", 1), good
    ),
    "a signature without end": lambda data, good: with_signature(data, good + b"A\n" * (40 << 10)),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_git_would_let_pass_around_a_signature(host: Host, name: str) -> None:
    data = payload()
    error = host.refusal(HIDDEN[name](data, host.ssh["ada"].sign(data)))
    assert error.reason == "CommitInvalid"


def test_headers_that_are_signed_too_may_stand_there(host: Host) -> None:
    tag = b"object " + b"3" * 40 + b"\ntype commit\ntag v1\ntagger A <a> 1 +0000\n\ngpgsig none\n"
    more = b"encoding ISO-8859-1\nmergetag " + tag.rstrip(b"\n").replace(b"\n", b"\n ") + b"\nHG:extra x\n"
    data = payload(more=more, message="caf\udce9\r\n".encode(errors="surrogateescape").decode("latin-1"))
    assert host.judge(host.ada(data)).signer == "ada@example.org"
    body = payload(message="gpgsig looks like one\n\n gpgsig too")  # in a message it is only text
    assert host.judge(host.ada(body)).signer == "ada@example.org"


def test_a_huge_commit_is_not_read_to_its_end(host: Host) -> None:
    commit = write(host.repo, payload(message="x" * COMMIT_LIMIT))
    with pytest.raises(PassError) as error:
        list(read_commits(Git(host.repo.folder), [commit]))
    assert error.value.reason == "CommitTooLarge"
    assert host.judge(host.ada(payload(message="x" * (COMMIT_LIMIT - 2000)))).signer == "ada@example.org"


def test_what_is_no_commit_or_not_there(host: Host) -> None:
    blob = host.repo.blob("x")
    for name in (blob, "1" * 40):
        with pytest.raises(PassError) as error:
            list(read_commits(Git(host.repo.folder), [Commit(name)]))
        assert error.value.reason == "ObjectMissing"
    with pytest.raises(PassError, match="under this name is something else"):
        parse(Commit("1" * 40), payload())


# --- a forge's own key


def forge_keys(host: Host) -> HostKeys:
    host.pgp.key("web-flow")
    return host.keys(pgp=host.pgp.export("web-flow"))


def by_forge(
    host: Host, name: str = "web-flow", *, at: int = NOON, options: tuple[str, ...] = (), signed_at: int = 0
) -> bytes:
    data = payload(at=at)
    return with_signature(data, host.pgp.sign(data, name, at=signed_at or at, options=options))


@pytest.mark.parametrize("armor", [True, False])
def test_a_forges_key_counts_as_the_forge(host: Host, armor: bool) -> None:
    fingerprint = host.pgp.key("web-flow")
    found = host.judge(by_forge(host), host.keys(pgp=host.pgp.export("web-flow", armor=armor)))
    assert found == Signed("web-flow <web-flow@forge.example>", f"PGP:{fingerprint}", "", forge=True)


def test_several_blocks_of_keys(host: Host) -> None:
    host.pgp.key("web-flow"), host.pgp.key("other")
    both = b"GitHub's keys\n" + host.pgp.export("other") + b"\n" + host.pgp.export("web-flow")
    assert host.judge(by_forge(host), host.keys(pgp=both)).forge


def test_pgp_without_trusted_keys(host: Host) -> None:
    forge_keys(host)
    assert host.refusal(by_forge(host)).reason == "SignerUnknown"


def test_an_unknown_pgp_key(host: Host) -> None:
    keys = forge_keys(host)
    host.pgp.key("stranger")
    assert host.refusal(by_forge(host, "stranger"), keys).reason == "SignerUnknown"


@pytest.mark.parametrize(("was", "becomes"), [(b"change", b"chance"), (b"committer Ada", b"committer Eve")])
def test_tampered_with_pgp(host: Host, was: bytes, becomes: bytes) -> None:
    assert host.refusal(by_forge(host).replace(was, becomes), forge_keys(host)).reason == "SignatureInvalid"


def test_an_expired_pgp_key_counts_for_what_it_signed_before(host: Host) -> None:
    host.pgp.key("old", expire="2024-01-16", at=1_600_000_000)
    keys = host.keys(pgp=host.pgp.export("old"))
    found = host.judge(by_forge(host, "old"), keys)
    assert found.expires is not None
    assert found.expires.year == 2024
    with pytest.raises(PassError, match="came onto the branch after"):
        check_first_sight(parsed(payload()), found, datetime(2024, 2, 1, tzinfo=UTC))
    later = 1_710_000_000  # the signature set back: what it says of itself must be near the commit's date
    error = host.refusal(by_forge(host, "old", at=later, signed_at=NOON), keys)
    assert error.reason == "DateInvalid"


def test_a_revoked_pgp_key(host: Host) -> None:
    host.pgp.key("gone")
    data = by_forge(host, "gone")
    fingerprint = host.pgp.key("gone")
    keys = host.keys(pgp=host.pgp.export("gone"), revoked=f"pgp {fingerprint.lower()} the forge said so\n")
    assert host.refusal(data, keys).reason == "SignerRevoked"
    host.pgp.revoke("gone")  # and by its owner
    assert host.refusal(data, host.keys(pgp=host.pgp.export("gone"))).reason == "SignerRevoked"


@pytest.mark.parametrize("options", [("--digest-algo", "SHA1"), ("--textmode",)])
def test_a_weak_digest_or_a_text_signature(host: Host, options: tuple[str, ...]) -> None:
    assert host.refusal(by_forge(host, options=options), forge_keys(host)).reason == "SignatureInvalid"


def test_two_pgp_signatures_in_one(host: Host) -> None:
    keys = forge_keys(host)
    host.pgp.key("other")
    data = payload()
    packets = b"".join(
        base64.b64decode(
            b"".join(line for line in host.pgp.sign(data, name).splitlines() if not line.startswith((b"-", b"=")))
        )
        for name in ("other", "web-flow")
    )
    armored = b"-----BEGIN PGP SIGNATURE-----\n\n" + base64.encodebytes(packets) + b"-----END PGP SIGNATURE-----\n"
    assert host.refusal(with_signature(data, armored), keys).reason == "SignatureInvalid"
    both = host.pgp.sign(data, "other") + host.pgp.sign(data, "web-flow")
    assert host.refusal(with_signature(data, both), keys).reason == "SignatureInvalid"


# --- the host's files


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        ("ada@example.org\n", ":1:1: expected"),
        ("# fine\n\nada@example.org ssh-ed25519 AAAA\n", ":3:1: what follows ssh-ed25519 is no such key"),
        ("ada@example.org ssh-dss AAAA\n", ":1:1: "),
        ("ada@example.org ssh-ed25519\n", ":1:1: what follows"),
        ("* cert-authority {}\n", ":1:1: certificate authorities are not supported"),
        ('a@b cert-authority,namespaces="git" {}\n', ":1:1: certificate authorities"),
        ('a@b namespaces="git",fun {}\n', ":1:1: fun is no option"),
        ('a@b valid-before="soon" {}\n', ":1:1: 'soon' is no date"),
        ('a@b valid-before="20231301" {}\n', ":1:1: '20231301' is no date"),
        ('a@b valid-before="20230101",valid-before="20240101" {}\n', "stands twice"),
        ('"a@b {}\n', ":1:1: expected"),
        ("# version: 0\n", ":1:1: the version"),
        ("# version: 1\n# version: 2\n", ":2:1: the version"),
        ("# version: seven\n", ":1:1: the version"),
        (b"\xff\n", ":1:1: not UTF-8"),
        (b"a\0b\n", ":1:1: it holds a NUL byte"),
    ],
)
def test_a_malformed_line_is_named_and_none_is_skipped(host: Host, allowed: str | bytes, said: str) -> None:
    good = host.ssh["ada"].public
    data = allowed.replace("{}", good) if isinstance(allowed, str) else allowed
    keys = host.keys(data)
    with pytest.raises(PassError) as error:
        keys.read()
    assert error.value.reason == "SignersInvalid"
    assert f"{host.folder / 'allowed_signers'}" in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("allowed", ["\n", "# nobody yet\n# version: 3\n"])
def test_a_signers_file_with_nobody_fails_closed(host: Host, allowed: str) -> None:
    with pytest.raises(PassError, match="holds no key: write a line") as error:
        host.keys(allowed).read()
    assert error.value.reason == "SignersUnreadable"


@pytest.mark.parametrize("name", ["allowed_signers", "revoked", "pgp"])
def test_a_file_that_is_gone_fails_closed(host: Host, name: str) -> None:
    host.pgp.key("web-flow")
    keys = host.keys(revoked=host.ssh["bob"].public, pgp=host.pgp.export("web-flow"))
    keys.read()
    (host.folder / name).unlink()
    with pytest.raises(PassError, match="cannot be read") as error:
        keys.read()
    assert error.value.reason == "SignersUnreadable"
    (host.folder / name).write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(PassError, match="more than") as error:
        keys.read()
    assert error.value.reason == "SignersInvalid"


@pytest.mark.parametrize("revoked", ["junk\n", "SHA256:abc\n", "pgp 1234\n", b"SSHKRL\n\0broken"])
def test_a_revocation_file_that_cannot_be_read_revokes_everything(host: Host, revoked: str | bytes) -> None:
    data, keys = host.ada(), host.keys(revoked=revoked)
    with pytest.raises(PassError) as error:
        host.judge(data, keys)
    assert error.value.reason == "SignersInvalid"


@pytest.mark.parametrize("pgp", [b"x", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n", b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n", b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n"])  # fmt: skip
def test_a_file_of_pgp_keys_that_has_none(host: Host, pgp: bytes) -> None:
    with pytest.raises(PassError) as error:
        host.keys(pgp=pgp).read()
    assert error.value.reason == "SignersInvalid"


def test_a_copy_that_was_changed_is_written_again(host: Host) -> None:
    data, keys = host.ada(), host.keys()
    copy = keys.read().allowed
    copy.write_text(host.ssh["bob"].line())
    assert host.keys().read().allowed.read_text() == host.ssh["ada"].line()
    copy.unlink()
    assert keys.read().allowed == copy
    assert copy.exists()  # also where the same files were read before
    assert host.judge(data).signer == "ada@example.org"


def test_nothing_of_our_environment_decides(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    config = host.file("gitconfig", f'[gpg "ssh"]\nallowedSignersFile = {host.file("evil", host.ssh["bob"].line())}\n')
    for name, value in {
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_CONFIG_NOSYSTEM": "0",
        "TZ": "Pacific/Kiritimati",
    }.items():
        monkeypatch.setenv(name, value)
    data = payload()
    assert host.refusal(with_signature(data, host.ssh["bob"].sign(data))).reason == "SignerUnknown"
    host.repo.git(
        "config", "gpg.ssh.allowedSignersFile", str(host.folder / "evil")
    )  # not that of the repository either
    host.repo.git("config", "gpg.ssh.program", "/bin/true")
    assert host.refusal(with_signature(data, host.ssh["bob"].sign(data))).reason == "SignerUnknown"
    moment = datetime.fromtimestamp(NOON, UTC).strftime("%Y%m%d%H%M%S")
    assert host.judge(host.ada(), host.keys(host.ssh["ada"].line(options=f'valid-after="{moment}"'))).signer
