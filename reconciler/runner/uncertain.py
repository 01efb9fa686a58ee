"""After an apply whose end nobody saw: is there anything that it made and that no state knows? Until that is answered nothing is applied."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from reconciler.errors import HeldError, UnitError
from reconciler.model import UNCERTAIN, Json, Operation, Stray, Unit, UnitId
from reconciler.runner.access.policy import for_search
from reconciler.runner.access.sts import NOBODY, Errand
from reconciler.runner.host import Host, Hosted
from reconciler.runner.memory import Suspicion, UnitMemory
from reconciler.runner.progress import Progress
from reconciler.runner.search.account import NETWORKS, Account, Found, SearchError
from reconciler.runner.search.kinds import (
    AWS,
    GLOBAL,
    KINDS,
    ROLE,
    USER,
    Arn,
    delete_command,
    parse_arn,
    untag_command,
)  # fmt: skip
from reconciler.runner.terraform.creation import BUCKET, Creation
from reconciler.runner.terraform.plan import scalars
from reconciler.runner.terraform.state import State, instances_of

TOLD = 5  # objects that one message names
EARLIER = timedelta(minutes=5)  # that this host's clock may be ahead of AWS's, which refuses more
REGION = re.compile(r"[a-z]{2,3}(-[a-z]+)+-\d{1,2}")
# What makes a provider work elsewhere than where the environment's own credentials look.
ELSEWHERE = frozenset({
    "access_key", "assume_role", "assume_role_with_web_identity", "endpoints", "profile", "secret_key",
    "shared_config_files", "shared_credentials_files", "token",
})  # fmt: skip

Providers = Mapping[str, Mapping[str, Json]]


def look(host: Host, hosted: Hosted, unit: Unit, memory: UnitMemory, progress: Progress, errand: Errand) -> UnitMemory:
    """Go on only if nothing that is suspected of the unit is there; the memory, without a suspicion whose time is over.

    Raises:
        HeldError: "Uncertain": something is there, or nobody can say.
        UnitError: there are no credentials now, or a state cannot be read.
    """
    suspicion, now = memory.suspicion, datetime.now(UTC)
    if suspicion is None:
        progress.strays = ()
        return memory
    blind = tuple(one for one in suspicion.suspects if not searchable(one, unit.environment.providers))
    progress.strays = tuple(map(_blind, blind))
    if any(one.provider == AWS for one in suspicion.suspects if one not in blind):
        progress.strays = (*_found(host, hosted, unit, suspicion, errand), *progress.strays)
    if progress.strays:
        raise HeldError(UNCERTAIN, _told(unit.id, suspicion, progress.strays))
    if now < suspicion.until:
        return memory
    settled = replace(memory, suspicion=None)
    host.memory.save(settled)
    return settled


def searchable(one: Creation, providers: Providers) -> bool:
    """Whether anybody but a person can look for it."""
    known = one.provider == AWS and one.type in KINDS and (one.tagged or one.type == BUCKET)
    return known and not any(ELSEWHERE & settings.keys() for settings in providers.values())


def _blind(one: Creation) -> Stray:
    """What nobody but a person can look for. The id of another provider's object may be a secret."""
    told = one.id if one.provider == AWS else ""
    return Stray(one.type, one.address, told, one.region, "begun", "look whether it is there, and delete it if so")


def _told(unit: UnitId, suspicion: Suspicion, strays: tuple[Stray, ...]) -> str:
    what = f"An apply that began at {suspicion.since:%Y-%m-%d %H:%M:%S} UTC died, and may have made what no state knows"
    named = " ".join(f"{_named(stray)}: {stray.remedy}." for stray in strays[:TOLD])
    more = f" And {len(strays) - TOLD} more: `reconciler orphans {unit}` lists them." if len(strays) > TOLD else ""
    found = all(stray.found != "begun" for stray in strays)
    by_itself = (
        "What was deleted or let go is noticed by itself" if found else "Nobody can look for all of it by itself"
    )
    how = f"when all of it is as it shall be, `reconciler runner settle {unit} --reason R` on the runner's host goes on"
    return f"{what}; nothing is applied before that is settled. {named}{more} {by_itself}; {how}."


def _named(stray: Stray) -> str:
    where = f" in {stray.region}" if stray.region else ""
    begun = "its creation had begun" if stray.found == "begun" else stray.found
    return f"{' '.join(filter(None, (stray.type, stray.address, stray.id)))}{where} ({begun})"


# --- the search


def _found(host: Host, hosted: Hosted, unit: Unit, suspicion: Suspicion, errand: Errand) -> tuple[Stray, ...]:
    """What is there with the unit's tags, or might be its own, and is in no state.

    Raises:
        HeldError: "Uncertain": it could not be looked. UnitError: see `look`.
    """
    account = _account(host, hosted.name, errand)
    regions = _regions(hosted, unit.environment.providers, suspicion.suspects)
    try:
        there = list(_listed(account, regions, suspicion))
    except SearchError as error:
        what = f"An apply died, and whether it made what no state knows could not be looked up: {error}"
        how = f"or look yourself, and then run `reconciler runner settle {unit.id} --reason R` on the runner's host"
        raise HeldError(UNCERTAIN, f"{what}. It is tried again by itself; {how}.") from None
    left = _unknown(there, [hosted.backend.read(unit.id)])
    if left:
        left = _unknown(left, _states(hosted))
    return tuple(_stray(one, suspicion.suspects) for one in left)


def _account(host: Host, environment: str, errand: Errand) -> Account:
    looking = host.environment(environment, Operation.PLAN, errand)
    keys = looking.access.keys(lambda _: for_search())
    return Account(host.config.installation, looking.variables, keys, looking.allowed_account_ids)


def _regions(hosted: Hosted, providers: Providers, suspects: Iterable[Creation] = ()) -> tuple[str, ...]:
    """Every region that the unit's providers work in."""
    said = [settings.get("region") for settings in providers.values()] + [one.region for one in suspects]
    said += [hosted.variables.get("AWS_REGION"), hosted.variables.get("AWS_DEFAULT_REGION")]
    return tuple(dict.fromkeys(one for one in said if isinstance(one, str) and REGION.fullmatch(one)))


def _listed(account: Account, regions: tuple[str, ...], suspicion: Suspicion) -> Iterator[Found]:
    """All that may be the unit's own."""
    kinds, unit, since = {one.type for one in suspicion.suspects}, suspicion.unit, suspicion.since - EARLIER
    services = {KINDS[kind].service for kind in kinds if kind in KINDS}
    if not regions:
        raise SearchError("no region is known; write one in the provider of environment.yaml, or AWS_REGION in `env`")
    number, partition = account.identity(regions[0])
    everywhere = (GLOBAL[partition],) if "iam" in services and partition in GLOBAL else ()
    for region in dict.fromkeys((*regions, *everywhere)):
        yield from _elsewhere(account.tagged(region, unit))
        yield from account.networks(sorted(kinds & NETWORKS.keys()), region, (number, partition), unit)
        if BUCKET in kinds:
            found = account.buckets(region, partition, since, _names(suspicion.suspects))
            yield from (one for one in found if one.unit in (unit, None))
    for kind, word in ((ROLE, "Role"), (USER, "User")):
        if kind in kinds:
            yield from (one for one in account.people(word, partition, since) if one.unit == unit)


def _names(suspects: Iterable[Creation]) -> frozenset[str]:
    """What the suspected buckets are called; nothing, where the plan did not know the name of one."""
    names = frozenset(one.name for one in suspects if one.type == BUCKET)
    return frozenset() if "" in names else names


def _elsewhere(found: Iterable[Found]) -> Iterator[Found]:
    """Without what EC2 is asked for itself: others list what is deleted for a while."""
    return (one for one in found if parse_arn(one.arn).kind not in NETWORKS)


def _states(hosted: Hosted) -> Iterator[State | None]:
    return map(hosted.backend.read, hosted.backend.units(hosted.name))


def _unknown(found: Iterable[Found], states: Iterable[State | None]) -> list[Found]:
    """Those of them that are in none of the states; each once."""
    left = {one.arn: one for one in found}
    for state in states:
        if state is not None:
            words, ids = _words(state)
            left = {arn: one for arn, one in left.items() if not _has(parse_arn(arn), words, ids)}
    return list(left.values())


def _words(state: State) -> tuple[set[str], set[tuple[str, str]]]:
    """All that a state says of its objects, and each object's type and id."""
    words: set[str] = set()
    ids: set[tuple[str, str]] = set()
    for _, kind, instance in instances_of(state):
        attributes = instance.get("attributes")
        words.update(scalars(attributes))
        if isinstance(attributes, Mapping):
            ids.add((kind, str(attributes.get("id"))))
    return words, ids


def _has(arn: Arn, words: set[str], ids: set[tuple[str, str]]) -> bool:
    """By its ARN; by its id where that is nobody else's; a name counts for objects of the same type only."""
    if arn.text in words or (arn.service == "ec2" and arn.id in words):
        return True
    return any((arn.kind or "", name) in ids for name in (arn.id, arn.id.rpartition("/")[2]))


def _stray(one: Found, suspects: Iterable[Creation] = ()) -> Stray:
    arn = parse_arn(one.arn)
    same = [suspect for suspect in suspects if suspect.type == arn.kind]
    by_id = [suspect for suspect in same if suspect.id and suspect.id == arn.id]
    which = (by_id or same)[0].address if len(by_id or same) == 1 else ""
    untag = "settle it" if one.unit is None else f"let it go with {untag_command(arn, one.region)}"
    remedy = f"delete it with {delete_command(arn, one.region)}, or {untag}"
    return Stray(arn.kind or arn.service or "object", which, one.arn, one.region, one.how, remedy)


def orphans(host: Host, environment: str) -> tuple[Stray, ...]:
    """All of an environment's account that carries the tags of this installation and is in no state: looked up now.

    Raises:
        HeldError: "Uncertain": it could not be looked. UnitError: no credentials, or a state cannot be read.
    """
    hosted, desired = host.environment(environment), host.history.known()
    there = desired.environments.get(environment) if desired else None
    regions, account = _regions(hosted, there.providers if there else {}), _account(host, environment, NOBODY)
    try:
        found = [one for one in _everything(account, regions) if str(one.unit).partition("/")[0] == environment]
    except SearchError as error:
        raise UnitError("SearchFailed", f"{environment}: {error}.", transient=True) from None
    return tuple(replace(_stray(one), address=str(one.unit)) for one in _unknown(found, _states(hosted)))


def _everything(account: Account, regions: tuple[str, ...]) -> Iterator[Found]:
    if not regions:
        raise SearchError("no region is known; write one in the provider of environment.yaml, or AWS_REGION in `env`")
    number, partition = account.identity(regions[0])
    for region in dict.fromkeys((*regions, GLOBAL.get(partition, regions[0]))):
        yield from _elsewhere(account.tagged(region))
        yield from account.networks(NETWORKS, region, (number, partition))
    for word in ("Role", "User"):
        yield from account.people(word, partition)
