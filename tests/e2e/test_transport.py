"""Polling over real OpenSSH and over https with a private authority: what works, and each way to fail by its reason."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import PassError
from reconciler.git.catalog import CatalogRepo
from reconciler.git.command import Patience, Remote
from reconciler.git.source import EnvironmentsSource
from tests.kit.gitrepo import Memory, RepoBuilder
from tests.kit.gitserver import HttpsServer, SshServer, make_key, running

pytestmark = pytest.mark.e2e

IMPATIENT = Patience(deadline=2.0, clone_deadline=2.0)


@pytest.fixture
def repo(tmp_path: Path) -> RepoBuilder:
    repo = RepoBuilder.create(tmp_path / "srv" / "environments.git")
    repo.commit({"environments/prod/a.yaml": "1"})
    return repo


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshServer]:
    server = SshServer(tmp_path / "ssh")
    with running(server):
        yield server


@pytest.fixture
def https(tmp_path: Path, repo: RepoBuilder) -> Iterator[HttpsServer]:
    server = HttpsServer(tmp_path / "https", repo.folder.parent)
    with running(server):
        yield server


def over_ssh(server: SshServer, repo: RepoBuilder) -> Remote:
    return Remote(server.url(repo.folder), ssh_key=str(server.user_key), known_hosts=str(server.known_hosts))


def over_https(server: HttpsServer, repo: RepoBuilder) -> Remote:
    return Remote(server.url(repo.folder), ca_file=str(server.ca_file))


def source_of(
    remote: Remote,
    tmp_path: Path,
    repo: RepoBuilder,
    patience: Patience | None = None,
    memory: Memory | None = None,
) -> EnvironmentsSource:
    genesis = repo.git("rev-list", "--max-parents=0", "refs/heads/main")
    return EnvironmentsSource(
        remote,
        "main",
        tmp_path / "mirror",
        memory or Memory(),
        genesis=genesis,  # type: ignore[arg-type]  # plain text from git
        patience=patience,
    )


def refused(source: EnvironmentsSource) -> PassError:
    with pytest.raises(PassError) as error:
        source.poll()
    return error.value


def clone_and_poll(source: EnvironmentsSource, repo: RepoBuilder) -> None:
    """First fetch, nothing new, something new, and its content."""
    source.accept(source.poll())
    assert source.poll().chain == ()
    new = repo.commit({"environments/prod/b.yaml": "2"})
    head = source.poll()
    assert (head.commit, head.chain) == (new, (new,))
    entries = list(source.read_tree(new, "environments"))
    assert source.read_blobs([entry.blob_id for entry in entries]) == {repo.blob("1"): b"1", repo.blob("2"): b"2"}


# --- ssh ---------------------------------------------------------------------------------------------------------


def test_ssh_clones_and_polls(tmp_path: Path, ssh: SshServer, repo: RepoBuilder) -> None:
    clone_and_poll(source_of(over_ssh(ssh, repo), tmp_path, repo), repo)


def test_ssh_files_may_have_blanks_in_their_names(tmp_path: Path, ssh: SshServer, repo: RepoBuilder) -> None:
    folder = tmp_path / "a folder 100% 'odd'"
    folder.mkdir()
    known = ssh.trusting(ssh.host_key, folder / "known hosts")
    key = folder / "my key"
    key.write_bytes(ssh.user_key.read_bytes())
    key.chmod(0o600)
    remote = replace(over_ssh(ssh, repo), known_hosts=str(known), ssh_key=str(key))
    clone_and_poll(source_of(remote, tmp_path, repo), repo)


def test_a_catalog_comes_over_ssh_with_its_tags(tmp_path: Path, ssh: SshServer, repo: RepoBuilder) -> None:
    commit = repo.commit({"modules/vpc/main.tf": ""})
    repo.tag("v1.0.0", annotated=True)
    catalog = CatalogRepo(over_ssh(ssh, repo), "main", tmp_path / "catalog")
    assert catalog.update() == commit
    assert catalog.pin("modules/vpc", "v1.0.0").commit == commit


def test_ssh_refuses_another_host_key(tmp_path: Path, ssh: SshServer, repo: RepoBuilder) -> None:
    source = source_of(over_ssh(ssh, repo), tmp_path, repo)
    source.accept(source.poll())
    ssh.trusting(make_key(tmp_path / "another"), ssh.known_hosts)
    error = refused(source)
    assert error.reason == "HostKeyInvalid"
    assert "known_hosts" in str(error)


def test_ssh_refuses_a_host_that_it_does_not_know(tmp_path: Path, ssh: SshServer, repo: RepoBuilder) -> None:
    ssh.known_hosts.write_text("")
    assert refused(source_of(over_ssh(ssh, repo), tmp_path, repo)).reason == "HostKeyInvalid"
    assert ssh.known_hosts.read_text() == ""


def test_ssh_with_a_key_that_is_not_authorized(tmp_path: Path, ssh: SshServer, repo: RepoBuilder) -> None:
    remote = replace(over_ssh(ssh, repo), ssh_key=str(make_key(tmp_path / "stranger")))
    error = refused(source_of(remote, tmp_path, repo))
    assert error.reason == "AuthFailed"
    assert "ssh_key" in str(error)


@pytest.mark.parametrize("mode", ["silent", "stuck"])
def test_a_hanging_ssh_server_is_cut_by_the_deadline(
    tmp_path: Path, ssh: SshServer, repo: RepoBuilder, mode: str
) -> None:
    source = source_of(over_ssh(ssh, repo), tmp_path, repo, IMPATIENT)
    ssh.mode = mode
    before = time.monotonic()
    assert refused(source).reason == "GitTimeout"
    assert time.monotonic() - before < 30
    ssh.mode = "serve"
    patient = source_of(over_ssh(ssh, repo), tmp_path, repo)
    assert patient.poll().commit == repo.head()


def test_ssh_to_a_port_where_nobody_listens(tmp_path: Path, ssh: SshServer, repo: RepoBuilder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.close()
        remote = replace(over_ssh(ssh, repo), url=f"ssh://git@127.0.0.1:{port}/x")
        assert refused(source_of(remote, tmp_path, repo)).reason == "GitUnreachable"


def test_ssh_to_a_repository_that_is_not_there(tmp_path: Path, ssh: SshServer, repo: RepoBuilder) -> None:
    remote = replace(over_ssh(ssh, repo), url=ssh.url(tmp_path / "nothing.git"))
    assert refused(source_of(remote, tmp_path, repo)).reason == "GitUnreachable"


def test_a_rewrite_over_ssh_is_refused(tmp_path: Path, ssh: SshServer, repo: RepoBuilder) -> None:
    source = source_of(over_ssh(ssh, repo), tmp_path, repo)
    source.accept(source.poll())
    repo.point("main", repo.commit_tree(repo.tree({})))
    assert refused(source).reason == "HistoryRewritten"


# --- https -------------------------------------------------------------------------------------------------------


def test_https_clones_and_polls_with_a_private_authority(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    clone_and_poll(source_of(over_https(https, repo), tmp_path, repo), repo)


def test_https_without_the_authority(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    error = refused(source_of(Remote(https.url(repo.folder)), tmp_path, repo))
    assert error.reason == "TlsInvalid"
    assert "ca_file" in str(error)
    assert https.requests == []


def test_https_with_another_authority(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    other = HttpsServer(tmp_path / "other", repo.folder.parent)
    with running(other):
        remote = replace(over_https(https, repo), ca_file=str(other.ca_file))
        assert refused(source_of(remote, tmp_path, repo)).reason == "TlsInvalid"
    assert https.requests == []


def test_https_with_a_certificate_for_another_name(tmp_path: Path, repo: RepoBuilder) -> None:
    server = HttpsServer(tmp_path / "https", repo.folder.parent, name="git.example.org")
    with running(server):
        assert refused(source_of(over_https(server, repo), tmp_path, repo)).reason == "TlsInvalid"


def test_an_authority_file_that_is_missing(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    remote = replace(over_https(https, repo), ca_file=str(tmp_path / "nothing.pem"))
    assert refused(source_of(remote, tmp_path, repo)).reason == "TlsInvalid"


def test_a_redirect_is_not_followed(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    target = HttpsServer(tmp_path / "target", repo.folder.parent)
    with running(target):
        https.mode, https.target = "redirect", f"https://127.0.0.1:{target.port}"
        error = refused(source_of(over_https(https, repo), tmp_path, repo))
    assert error.reason == "RedirectRefused"
    assert "configure the final address" in str(error)
    assert target.requests == []


def test_a_token_opens_the_repository_and_may_rotate(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    https.login = "x-access-token:first"
    source = source_of(replace(over_https(https, repo), token_file=str(token)), tmp_path, repo)
    assert source.poll().commit == repo.head()
    https.login = "bot:second"
    error = refused(source)
    assert error.reason == "AuthFailed"
    assert "first" not in str(error)
    token.write_text("bot:second")
    assert source.poll().commit == repo.head()


def test_https_without_a_token_where_one_is_needed(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    https.login = "bot:secret"
    error = refused(source_of(over_https(https, repo), tmp_path, repo))
    assert error.reason == "AuthFailed"
    assert "token_file" in str(error)


def test_a_hanging_https_server_is_cut_by_the_deadline(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    memory = Memory()
    source = source_of(over_https(https, repo), tmp_path, repo, memory=memory)
    source.accept(source.poll())
    https.mode = "silent"
    impatient = source_of(over_https(https, repo), tmp_path, repo, IMPATIENT, memory)
    before = time.monotonic()
    error = refused(impatient)
    assert error.reason == "GitTimeout"
    assert "the last good commit stays in force" in str(error)
    assert time.monotonic() - before < 30
    https.mode = "serve"
    assert source.poll().commit == repo.head()


def test_a_crawling_server_is_cut_before_the_deadline(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    https.mode = "crawl"
    patience = Patience(deadline=90.0, clone_deadline=90.0, low_speed_bytes=1000, low_speed=1)
    before = time.monotonic()
    error = refused(source_of(over_https(https, repo), tmp_path, repo, patience))
    assert error.reason == "GitTimeout"
    assert "too slow" in str(error)
    assert time.monotonic() - before < 45


def test_a_server_that_fails(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    https.mode = "broken"
    assert refused(source_of(over_https(https, repo), tmp_path, repo)).reason == "GitUnreachable"


def test_a_transfer_that_breaks_off_leaves_the_mirror_as_it_was(
    tmp_path: Path, https: HttpsServer, repo: RepoBuilder
) -> None:
    source = source_of(over_https(https, repo), tmp_path, repo)
    before = source.poll().commit
    new = repo.commit({"environments/prod/b.yaml": "2" * 5000})
    https.mode = "cut"
    assert refused(source).reason == "GitUnreachable"
    assert [entry.path for entry in source.read_tree(before)] == ["environments/prod/a.yaml"]
    https.mode = "serve"
    assert source.poll().commit == new


def test_https_to_a_port_where_nobody_listens(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    remote = replace(over_https(https, repo), url=f"https://127.0.0.1:{port}/x")
    assert refused(source_of(remote, tmp_path, repo)).reason == "GitUnreachable"


def test_a_branch_that_the_server_does_not_have(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    source = source_of(over_https(https, repo), tmp_path, repo)
    repo.branch_off("trunk")
    repo.git("update-ref", "-d", "refs/heads/main")
    assert refused(source).reason == "BranchMissing"


def test_the_secret_is_in_no_command_line(tmp_path: Path, https: HttpsServer, repo: RepoBuilder) -> None:
    """Every process that runs while the server lets git wait is looked at."""
    token = tmp_path / "token"
    token.write_text("bot:hunter2-hunter2")
    https.mode = "silent"
    seen: list[bytes] = []
    original = https.requests

    class Watching(list[str]):
        def append(self, path: str) -> None:
            super().append(path)
            seen.extend(file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists())

    https.requests = Watching(original)
    remote = replace(over_https(https, repo), token_file=str(token))
    assert refused(source_of(remote, tmp_path, repo, IMPATIENT)).reason == "GitTimeout"
    header = b"Ym90Omh1bnRlcjItaHVudGVyMg"
    ours = [line for line in seen if remote.url.encode() in line]
    assert ours
    assert not any(b"hunter2" in line or header in line for line in ours)
