"""`reconciler init DIR`: an environments repository to start with, and the configurations of the two planes beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
from pydantic import ValidationError

from reconciler import __version__
from reconciler.cli.ask import output_option
from reconciler.cli.exits import FINE
from reconciler.cli.placing import make_folders
from reconciler.cli.schema import published
from reconciler.cli.show import as_json_text, progress, table
from reconciler.cli.who import user
from reconciler.cli.worktree import asked, git
from reconciler.config import SCHEMAS, EnvironmentsRepo
from reconciler.desired.paths import LOCK_PATH
from reconciler.durable import write_new
from reconciler.errors import ConfigError
from reconciler.lockfile import HEADER

HERE = Path(__file__).parent / "scaffold"
HOST = "host"
EXAMPLE, RELEASE = "example", "v1.0.0"

# path in the repository -> the text's file in scaffold/
EVERYWHERE = {
    "README.md": "README.md",
    "CODEOWNERS": "CODEOWNERS",
    ".gitignore": "gitignore",
    ".pre-commit-config.yaml": "pre-commit-config.yaml",
    "environments/dev/environment.yaml": "environment.yaml",
    "forge/README.md": "forge.md",
    "forge/ruleset.json": "ruleset.json",
}
ACTIONS = {".github/workflows/validate.yaml": "validate.github.yaml"}  # Gitea and Forgejo read them there, too
CHECKS = {"github": ACTIONS, "gitea": ACTIONS, "gitlab": {".gitlab-ci.yml": "validate.gitlab.yaml"}}
ON_HOST = ("reconciler.yaml", "runner.yaml", "allowed_signers")

SIGNED = """\
  branch: {branch}
  genesis: {genesis}    # the commit where trust starts
  signatures: {{allowed_signers: allowed_signers}}    # nobody's count until their keys stand there
  # forge: {{kind: {forge}, repository: acme/environments, token_file: forge-token}}    # says who approved what"""
TRIAL = """\
  allow_file: true    # a folder of this host: for a trial
  branch: {branch}
  genesis: {genesis}    # the commit where trust starts
  poll_interval: 5s
  signatures: off    # whoever commits there changes what is real. Then: {{allowed_signers: allowed_signers}}"""


@dataclass
class Tree:
    """A folder, and what was done to each file of it: true where it was written, false where it was there."""

    folder: Path
    done: dict[str, bool] = field(default_factory=dict)

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write the file if there is none.

        Raises:
            ConfigError: its folder cannot be made, or leads out of the tree.
        """
        target = self.folder / path
        try:
            make_folders(self.folder, target.parent)
            self.done[path] = write_new(target, text.encode(), mode, durable=False)
        except OSError as error:
            raise ConfigError(f"{target}: {error.strerror}: look at what is in its way") from error


@click.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--url", help="Where both planes fetch it from.  [default: the clone's origin, else DIR itself, for a trial]"
)
@click.option("--branch", default="main", show_default=True, help="The protected branch.")
@click.option(
    "--forge", type=click.Choice(sorted(CHECKS)), default="github", show_default=True, help="Whose CI checks."
)
@click.option("--owner", default="your-organization/platform", help="Who reviews, as CODEOWNERS has it.")
@click.option(
    "--example-catalog",
    type=click.Path(file_okay=False, path_type=Path),
    help="Make a catalog with one small module there, to try things with.",
)
@output_option
def command(
    folder: Path, url: str | None, branch: str, forge: str, owner: str, example_catalog: Path | None, as_json: bool
) -> int:
    """Write what an environments repository starts with into DIR, and never over anything.

    Says of each file whether it was written, or kept as it was. Makes DIR a git repository with a first commit where it is
    none; in one that has commits it commits nothing. DIR/host, which is in no commit, gets the configurations of the two planes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tree = Tree(folder.resolve())
    _check_top(tree.folder)
    url = url or _origin(tree.folder) or str(tree.folder)
    local = url.startswith(("/", "file://"))
    _check(url, branch, local=local)
    fill = {"VERSION": __version__, "BRANCH": branch, "OWNER": owner.removeprefix("@")}
    for path, source in {**EVERYWHERE, **CHECKS[forge]}.items():
        tree.put(path, _filled(source, fill))
    tree.put(LOCK_PATH, HEADER)
    for name in SCHEMAS:
        tree.put(f"schemas/{name}.schema.json", published(name))
    genesis = _first_commit(tree, branch, "What the environments start with")
    catalog = _example(example_catalog) if example_catalog else None
    trust = (TRIAL if local else SIGNED).format(branch=json.dumps(branch), genesis=json.dumps(genesis), forge=forge)
    fill |= {"URL": json.dumps(url), "TRUST": trust, "CATALOGS": _catalogs(catalog), "USER": json.dumps(user())}
    make_folders(tree.folder, tree.folder / HOST, 0o700)
    for name in ON_HOST:
        tree.put(f"{HOST}/{name}", _filled(name, fill), 0o600)
    _tell(tree, as_json=as_json)
    return FINE


def _check(url: str, branch: str, *, local: bool) -> None:
    """Raises ConfigError where the planes would refuse it."""
    try:
        EnvironmentsRepo(url=url, branch=branch, allow_file=local, signatures="off")
    except ValidationError as error:
        raise ConfigError(f"--url, --branch: {error.errors()[0]['msg']}") from None  # the address may hold a secret


def _filled(name: str, fill: Mapping[str, str]) -> str:
    text = (HERE / name).read_text(encoding="utf-8")
    for word, value in fill.items():
        text = text.replace(f"@{word}@", value)
    return text


def _catalogs(example: Path | None) -> str:
    if example is None:
        return ' {}    # acme: {url: "git@git.example.com:acme/service-catalog.git", tags: "v*"}'
    return f"\n  {EXAMPLE}: {{url: {json.dumps(str(example))}, allow_file: true}}"


def _example(folder: Path) -> Path:
    """A catalog with one released module."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = Tree(folder.resolve())
    _check_top(tree.folder)
    tree.put("modules/greeting/main.tf", _filled("greeting.tf", {}))
    _first_commit(tree, "main", f"Release {RELEASE}")
    if not git(tree.folder, "tag", "--list", RELEASE):
        git(tree.folder, "tag", RELEASE)
    return tree.folder


def _check_top(folder: Path) -> None:
    """Raises ConfigError where the folder is a part of another repository."""
    top = asked(folder, "rev-parse", "--show-toplevel")
    if top is not None and Path(top).resolve() != folder:
        raise ConfigError(
            f"{folder} lies in the repository {top}, and must be one of its own: name a folder outside of it"
        )


def _origin(folder: Path) -> str | None:
    return asked(folder, "remote", "get-url", "origin") if (folder / ".git").exists() else None


def _first_commit(tree: Tree, branch: str, message: str) -> str:
    """The branch's commit; in a repository without any it is made, of the scaffold's files alone.

    Raises:
        ConfigError: git refuses (it may not know who commits), or there are commits and no such branch.
    """
    if not (tree.folder / ".git").exists():
        git(tree.folder, "init", "--quiet", f"--initial-branch={branch}")
    if found := asked(tree.folder, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}"):
        return found
    if asked(tree.folder, "rev-parse", "--verify", "--quiet", "HEAD"):
        raise ConfigError(f"{tree.folder} has no branch {branch}: say --branch NAME")
    git(tree.folder, "add", "--", *tree.done)
    git(tree.folder, "commit", "--quiet", f"--message={message}")
    return git(tree.folder, "rev-parse", "--verify", "HEAD")


# --- what is said


def _tell(tree: Tree, *, as_json: bool) -> None:
    if as_json:
        as_json_text(
            {"folder": str(tree.folder), "files": [{"path": path, "written": new} for path, new in tree.done.items()]}
        )
    else:
        table(("FILE", "DONE"), [(path, "written" if new else "kept") for path, new in tree.done.items()])
    for text in _advice(tree):
        progress(text)


def _advice(tree: Tree) -> Iterator[str]:
    if asked(tree.folder, "check-ignore", "--quiet", f"{HOST}/runner.yaml") is None:
        yield f".gitignore does not leave {HOST}/ out: add the line /{HOST}/, so that it is never committed."
    if asked(tree.folder, "status", "--porcelain"):
        yield "Not all of it is committed: look at `git status`, and merge it by a pull request."
    place = tree.folder / HOST
    yield f"Next: reconciler doctor --config {place}/reconciler.yaml --runner {place}/runner.yaml"
