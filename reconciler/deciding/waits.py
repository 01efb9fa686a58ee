"""What another try of the same is waiting for: the one table that tells what passes by itself from what does not. Pure.

A wrong entry costs more on one side than on the other: a try too many is a plan; a try too few is a unit that stands
still until somebody looks. So whatever is not proven to depend on the input alone is tried again by the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from reconciler.model import Outcome, Result


class Waits(StrEnum):
    """What may make the same job end otherwise.

    `TIME`: it may pass by itself, or by what a person does outside of git: a back-off that doubles. `LOOK`: only if the real
    world is another: the pace of looks for drift. `INPUT`: nothing but new input: no clock at all.
    """

    TIME = "time"
    LOOK = "look"
    INPUT = "input"


# By reason, and why. Every other reason waits for TIME: a provider's service, a network, a host's file, a forge's word, a
# lock or a credential may be another in a minute, and an AccessDenied that is mended in IAM changes no input.
TABLE: Mapping[str, tuple[Waits, str]] = {
    "InputInvalid": (Waits.INPUT, "the value that the entry gives does not suit the module's own rule for it"),
    "InputUnknown": (Waits.INPUT, "the pinned module has no such input"),
    "InputMissing": (Waits.INPUT, "the entry gives no value that the pinned module needs"),
    "PlanFailed": (Waits.INPUT, "only where it is not transient: the engine refused the configuration itself"),
    "ProviderMissing": (Waits.INPUT, "only where it is not held: the module and environment.yaml name other providers"),
    "ProviderNotLocked": (Waits.INPUT, "only where it is not held: catalog-lock.yaml pins no version of it"),
    "ImportFailed": (Waits.INPUT, "only where it is not transient: the pinned module has no such address"),
    "ModuleInvalid": (Waits.INPUT, "the pinned module cannot be read; its digest is in the fingerprint"),
    "ProviderInvalid": (
        Waits.INPUT,
        "what environment.yaml and the pinned module say of providers does not go together",
    ),
    "CatalogModuleRemote": (Waits.INPUT, "the pinned module calls one from elsewhere"),
    "DestroyLimit": (Waits.LOOK, "the plan is beyond a limit, and is another once the objects are"),
    "RecreateLimit": (Waits.LOOK, "objects are gone, and may be back"),
    "AdoptionDestroys": (Waits.LOOK, "what is taken over would go, and the plan is another once the objects are"),
    "PlanExceedsReview": (Waits.LOOK, "the plan is more than was shown, and is another once the objects are"),
    "ReviewMissing": (Waits.LOOK, "nobody was shown the plan; an empty one needs no review"),
    "OutputTooLarge": (Waits.LOOK, "the engine says too much, and says less once the objects or the module are others"),
    "MemoryExceeded": (
        Waits.LOOK,
        "the job was too large for its memory, and is smaller once the objects or the module are",
    ),
    "PerpetualDiff": (Waits.LOOK, "the same change again, until the objects or the module are others"),
    "RuleViolated": (Waits.LOOK, "the plan is none that a rule lets pass, and is another once the objects are"),
    "RuleUndecided": (Waits.LOOK, "a rule cannot be worked out on this plan; another rule or another plan it may be"),
    "Downgrade": (Waits.LOOK, "an allowance opens by a merge, which may leave the entry as it was before"),
}


def waits(result: Result) -> Waits:
    """What another try of a job that ended so waits for."""
    kind, _why = TABLE.get(result.reason, (Waits.TIME, ""))
    if result.outcome not in (Outcome.FAILED, Outcome.HELD):
        return Waits.TIME
    return Waits.TIME if kind is Waits.INPUT and result.transient else kind
