"""What an open pull request would make of the units, as both planes work it out, each for itself.

What a pull request says of policy does not count before it is merged: environment.yaml, and with it class and limits, is
that of the branch; a version that the branch has yanked stays so; a branch of a catalog (`ref:`) is never planned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.branch.before import ENVIRONMENTS
from reconciler.branch.files import sorted_out
from reconciler.branch.protected import Basis, remote_of
from reconciler.config import ControllerConfig, RunnerConfig
from reconciler.desired.paths import LOCK_PATH, EnvironmentPath, classify
from reconciler.errors import PassError
from reconciler.forge import open_forge
from reconciler.forge.facts import Forge, Merged, Protection, Pull
from reconciler.git.pulls import PullMirror
from reconciler.git.remote import Patience
from reconciler.model import Commit, Desired, Lock, Problem, Unit, UnitId

MOST_UNITS = 200  # of one pull request that are planned


@dataclass(frozen=True, slots=True)
class Untold:
    """Why something of a pull request is not planned."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one open pull request would make of the branch, were it merged now.

    `units` are those to be planned; `untold` says of others that it touches why they are not. `follows` are units whose
    plan cannot be known yet, as something that they read would change with it. `refused`: none of it is planned.
    """

    pull: Pull
    base: Commit
    units: Mapping[UnitId, Unit] = field(default_factory=dict)
    untold: Mapping[UnitId, Untold] = field(default_factory=dict)
    follows: frozenset[UnitId] = frozenset()
    refused: Untold | None = None


def ineligible(pull: Pull, branch: str) -> Untold | None:
    """Why a pull request is not planned at all, by what the forge says of it now."""
    if pull.base != branch:
        return Untold("PullElsewhere", f"It is to be merged into {pull.base}, not into {branch}.")
    if not pull.writes:
        what = f"{pull.author} has no write access to the repository"
        remedy = "somebody who has may open a pull request with the same commits"
        return Untold("PullAuthorUnknown", f"{what}, and plans read real states; {remedy}.")
    return None


class Proposals:
    """Works out proposals, with a mirror of its own."""

    def __init__(self, mirror: PullMirror, branch: str) -> None:
        self.mirror, self.branch = mirror, branch

    def of(self, pull: Pull, ref: str, basis: Basis) -> Proposal:
        """What the pull request would make of the branch; `ref` is where its head is fetched from.

        Raises:
            PassError: it cannot be told, and why: git, a conflict, too large, another head by now.
        """
        base = basis.desired.commit
        refused = ineligible(pull, self.branch)
        if refused is not None:
            return Proposal(pull, base, refused=refused)
        self.mirror.bring(pull.number, ref, pull.head, base)
        self.mirror.changed(base, pull.head)
        found = self.mirror.read_tree(self.mirror.merge(base, pull.head), ENVIRONMENTS, LOCK_PATH)
        blobs, problems = sorted_out(found)
        loader = basis.loader.fork()
        policy = _policy(basis.blobs)
        merged = loader.load(
            pull.head,
            {path: blob for path, blob in blobs.items() if not _is_policy(path)} | policy,
            lambda ids: self.mirror.read_blobs(sorted(ids)),
            problems,
            refs=basis.refs,
            before=basis.policies,
        )
        changed = frozenset(
            path for path in blobs.keys() | basis.blobs.keys() if blobs.get(path) != basis.blobs.get(path)
        )
        return compare(pull, basis.desired, merged, changed, basis.loader.lock.lock)


def compare(pull: Pull, base: Desired, merged: Desired, changed: frozenset[str], lock: Lock) -> Proposal:
    """What differs. `merged` has the policy of `base`; `changed` are the files that differ; `lock` is the branch's. Pure."""
    touched = [unit for unit in merged.units.values() if _touches(unit, base, changed)]
    fresh = frozenset(kind.name for path in changed if isinstance(kind := classify(path), EnvironmentPath))
    untold = {unit.id: why for unit in touched if (why := _untold(unit, base, fresh, lock)) is not None}
    untold |= {
        unit: _said(problem, fresh) for unit, problem in merged.broken.items() if base.broken.get(unit) != problem
    }
    untold |= dict.fromkeys(_gone(base, merged), _ORPHANS)
    units = {unit.id: unit for unit in touched if unit.id not in untold}
    if len(units) > MOST_UNITS:
        what = f"It changes {len(units)} units, and at most {MOST_UNITS} of one pull request are planned; split it."
        return Proposal(pull, base.commit, refused=Untold("PullTooLarge", what))
    return Proposal(pull, base.commit, units, untold, _followers(units, {unit.id for unit in touched}, merged))


_ORPHANS = Untold(
    "Orphaned", "Its file goes. That destroys nothing: write `state: absent` or `state: forgotten` instead."
)


def _touches(unit: Unit, base: Desired, changed: frozenset[str]) -> bool:
    """Whether the pull request changes what the unit is, or any word of its entry."""
    known = base.units.get(unit.id)
    return known is None or known.intent != unit.intent or unit.entry.place.path in changed


def _untold(unit: Unit, base: Desired, fresh: frozenset[str], lock: Lock) -> Untold | None:
    entry, name = unit.entry, unit.environment.name
    if entry.ref is not None:
        return Untold("RefNotPlanned", f"{entry.at('ref')}: a branch of a catalog is planned only once it is merged.")
    if name in fresh:
        return _follows_merge(name)
    pin = lock.modules.get(entry.module, {}).get(unit.pin.version) or unit.pin
    yanked = pin.yanked or unit.pin.yanked
    known = base.units.get(unit.id)
    in_use = known is not None and (known.pin.module, known.pin.version) == (unit.pin.module, unit.pin.version)
    if yanked is not None and not in_use:
        return Untold("Yanked", f"{entry.at('version')}: {pin.module} {pin.version} was yanked: {yanked}. Use another.")
    return None


def _follows_merge(name: str) -> Untold:
    what = f"environments/{name}/environment.yaml changes too, and counts only once it is merged"
    return Untold("FollowsMerge", f"{what}: to see this plan, merge that file first, by itself.")


def _said(problem: Problem, fresh: frozenset[str]) -> Untold:
    if problem.unit is not None and problem.unit.partition("/")[0] in fresh:
        return _follows_merge(problem.unit.partition("/")[0])
    if problem.reason == "RefMissing":
        return Untold("RefNotPlanned", f"{problem.place}: a branch of a catalog is planned only once it is merged.")
    return Untold(problem.reason, str(problem))


def _gone(base: Desired, merged: Desired) -> Iterable[UnitId]:
    """The units whose files go, and whose states nobody takes over."""
    taken = {unit.entry.moved_from for unit in merged.units.values()}
    known = base.units.keys() - merged.units.keys() - merged.broken.keys()
    return sorted(unit for unit in known if unit not in taken)


def _followers(units: Mapping[UnitId, Unit], touched: set[UnitId], merged: Desired) -> frozenset[UnitId]:
    """Those of the units that read, near or far, an output of a unit which the pull request changes."""
    moving = set(touched)
    for unit in merged.order:  # upstream first
        if merged.units[unit].reads & moving:
            moving.add(unit)
    return frozenset(unit for unit, one in units.items() if one.reads & moving)


def _is_policy(path: str) -> bool:
    return isinstance(classify(path), EnvironmentPath)


def _policy(blobs: Mapping[str, str]) -> dict[str, str]:
    return {path: blob for path, blob in blobs.items() if _is_policy(path)}


class NoForge:
    """Where no forge is configured nobody can say which pull requests are open. Implements `Forge`."""

    def merged(self, commit: Commit) -> Merged:  # noqa: ARG002 - the Protocol's
        """See `Forge`."""
        raise _no_forge()

    def open_pulls(self) -> tuple[Pull, ...]:
        """See `Forge`."""
        raise _no_forge()

    def protections(self) -> tuple[Protection, ...]:
        """See `Forge`."""
        raise _no_forge()

    def head_ref(self, number: int) -> str:  # noqa: ARG002 - the Protocol's
        """See `Forge`."""
        raise _no_forge()


def _no_forge() -> PassError:
    where = "environments_repo.forge of this host's configuration is missing"
    return PassError(
        "ForgeMissing", f"{where}: without it no open pull request is planned, and none counts as reviewed."
    )


def forge_of(config: ControllerConfig | RunnerConfig, patience: Patience | None = None) -> Forge:
    """The forge that this plane's own configuration names, or one that says that there is none.

    Raises:
        ConfigError: the file of authorities cannot be used.
    """
    repo = config.environments_repo
    if repo.forge is None:
        return NoForge()
    ending = patience.ending if patience else None
    return open_forge(repo.forge, repo.branch, signed=repo.signatures != "off", ending=ending)


def open_proposals(config: ControllerConfig | RunnerConfig, patience: Patience | None = None) -> Proposals:
    """As one plane's own configuration describes the repository."""
    repo = config.environments_repo
    folder = config.work_path / "pulls.git"
    mirror = PullMirror(folder, remote_of(repo), repo.branch, allow_file=repo.allow_file, patience=patience)
    return Proposals(mirror, repo.branch)


def failed(pull: Pull, base: Commit, error: PassError) -> Proposal:
    """The proposal of a pull request that cannot be told."""
    return Proposal(pull, base, refused=Untold(error.reason, str(error)))
