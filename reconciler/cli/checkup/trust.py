"""What both planes have to reach and to trust: repositories, signers, the forge, the lock."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reconciler.branch.protected import open_branch, remote_of
from reconciler.cabinet import FolderCabinet
from reconciler.cli.checkup.finding import Finding, attempt, ok, problem, warning
from reconciler.cli.checkup.host import Config
from reconciler.cli.locked import read_lock
from reconciler.cli.shelf import Shelf
from reconciler.forge import open_forge
from reconciler.git.command import Git, Patience
from reconciler.git.head import Head
from reconciler.git.signers import HostKeys
from reconciler.lockfile import Lines
from reconciler.model import Commit

PATIENCE = Patience(deadline=30.0)
PROVING = Patience(proving=300.0)  # as long as a whole history may take here


def repository(check: str, config: Config) -> Iterator[Finding]:
    """The environments repository answers this plane, and has the branch."""
    repo = config.environments_repo
    with tempfile.TemporaryDirectory(prefix="reconciler-doctor-") as folder:
        git = Git(Path(folder, "empty"), remote_of(repo), allow_file=repo.allow_file, patience=PATIENCE)
        git.run("init", "--bare", "--quiet", "--template=", "--initial-branch=unused")
        said = git.run("ls-remote", operands=(repo.url, f"refs/heads/{repo.branch}")).decode()
    if not said:
        yield problem(
            check, f"{repo.url} has no branch {repo.branch}", "correct environments_repo.branch, or push the branch"
        )
        return
    yield ok(check, f"{repo.branch} of {repo.url} is {said[:12]}")
    if repo.genesis is None:
        yield warning(
            check,
            "genesis is not written: trust starts at whatever is there first",
            f'genesis: "{said[:40]}"    # below environments_repo',
        )


def signatures(check: str, config: Config) -> Iterator[Finding]:
    """Who may sign, as far as the files say it."""
    wanted = config.environments_repo.signatures
    if wanted == "off":
        yield warning(
            check,
            "off: whoever gets a commit onto the branch changes what is real",
            "signatures: {allowed_signers: allowed_signers}    # and keys in that file",
        )
        return
    with tempfile.TemporaryDirectory(prefix="reconciler-doctor-") as folder:
        keys = HostKeys(Path(folder), wanted.allowed_signers, wanted.revoked_keys, wanted.pgp_keys).read()
    forge = ", and the forge's PGP keys (rebase merges are signed by nobody, and are held)" if wanted.pgp_keys else ""
    yield ok(check, f"{len(keys.signers)} keys{forge}")


class Nothing:
    """What a plane that was never started has accepted."""

    def load(self) -> Commit | None:
        """The accepted head: none."""
        return None

    def base(self) -> Commit | None:
        """Where trust starts: at the genesis."""
        return None

    def was_accepted(self, _commit: Commit) -> bool:
        """Nothing was."""
        return False

    def save(self, _head: Head) -> None:
        """Forget it: this is a look."""


def history(check: str, config: Config) -> Iterator[Finding]:
    """The whole branch, from its genesis on, is signed as this plane wants it: as it would find out on a new host.

    What was accepted here counts for nothing, and the forge is not asked about each commit.
    """
    repo = config.environments_repo
    if repo.signatures == "off" or repo.genesis is None:
        return  # that is warned about already
    with tempfile.TemporaryDirectory(prefix="reconciler-doctor-", ignore_cleanup_errors=True) as folder:
        alone = {"work": Path(folder, "work"), "environments_repo": repo.model_copy(update={"forge": None})}
        branch = open_branch(config.model_copy(update=alone), Nothing(), PROVING, FolderCabinet(Path(folder, "proofs")))
        head = branch.source.poll()
    if head.unproven is None:
        yield ok(
            check, f"{len(head.chain)} commits since {repo.genesis[:12]}, each as environments_repo.signatures wants it"
        )
        return
    told = (
        f"{head.unproven.commit[:12]} is not proven ({head.unproven.reason}); {len(head.chain)} commits before it are"
    )
    yield problem(check, told, head.unproven.message)


def protection(check: str, config: Config) -> Iterator[Finding]:
    """What guards the branch, by the forge's own word."""
    repo = config.environments_repo
    if repo.forge is None:
        yield warning(
            check,
            "no forge is asked who approved what, nor whether the branch is protected",
            "forge: {kind: github, repository: acme/environments, token_file: ...}    # below environments_repo",
        )
        return
    rules = open_forge(repo.forge, repo.branch, signed=repo.signatures != "off").protections()
    wanting = [rule for rule in rules if not rule.holds]
    yield from (problem(check, f"{rule.rule} does not hold", rule.message) for rule in wanting)
    if not wanting:
        yield ok(check, f"{repo.branch} of {repo.forge.repository}: all {len(rules)} rules hold")


def catalogs(check: str, config: Config, lock_path: Path | None) -> Iterator[Finding]:
    """Each catalog answers this plane; and every version of the lock is there as it was locked."""
    if not config.catalog_repos:
        yield warning(check, "no catalog is configured: no entry can be applied", 'catalog_repos: {acme: {url: "..."}}')
    with tempfile.TemporaryDirectory(prefix="reconciler-doctor-", ignore_cleanup_errors=True) as folder:
        shelf = Shelf(config.catalog_repos, Path(folder))
        for name, repo in config.catalog_repos.items():
            yield from attempt(
                check,
                f"correct catalog_repos.{name}, or what opens it",
                partial(_catalog, check, shelf, name, repo.branch),
            )
        if lock_path is not None:
            yield from attempt("lock", "reconciler validate", partial(_lock, shelf, lock_path))


def _catalog(check: str, shelf: Shelf, name: str, branch: str) -> Iterator[Finding]:
    found = shelf.repository(f"{name}/any").tags()
    if found:
        yield ok(check, f"{name}: {len(found)} releases on {branch}")
    else:
        yield warning(
            check, f"{name}: no tag is a release", f"tag a release on {branch}, or correct catalog_repos.{name}.tags"
        )


def _lock(shelf: Shelf, path: Path) -> Iterator[Finding]:
    lock, text = read_lock(path)
    pins, lines = list(lock.pins()), Lines(str(path), text)
    wrong = [one for pin in pins for one in shelf.check(lines, pin)]
    yield from (problem("lock", str(one), "reconciler catalog verify") for one in wrong)
    if not wrong:
        yield ok("lock", f"{path}: {len(pins)} versions, each as its catalog has it")
