"""The stricter of two policies: what both let through. A loosening counts from the next merge on.

Timeouts, order and providers are no policy: they say how and where to, not how much. A shorter deadline would even
kill an apply half way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from reconciler.model import DriftMode, Environment, EnvironmentClass, Limits, Policy, ReviewMode

LIMITS = ("limits.destroy", "limits.recreate", "limits.free_replace")
_BY_STRICTNESS = (ReviewMode.REQUIRED, ReviewMode.WHEN_AVAILABLE, ReviewMode.OFF)


def policy_of(environment: Environment) -> Policy:
    """What the environment lets through, as its fields are."""
    one = environment
    return Policy(class_of(one), one.drift, one.review, one.limits, one.freeze, one.promotion, one.rules)


def class_of(environment: Environment) -> EnvironmentClass:
    """The stricter of the classes of before and since."""
    return environment.strict_class or environment.klass


def class_mismatch(environment: Environment, host: EnvironmentClass) -> EnvironmentClass | None:
    """The class that is not the host's, if there is one: what the file says and what is in force must both be."""
    return next((one for one in (environment.klass, class_of(environment)) if one is not host), None)


def stricter(one: Policy, other: Policy) -> Policy:
    """What both let through: of drift the one that applies less, of windows, promotions and rules all."""
    klass = EnvironmentClass.PROTECTED if EnvironmentClass.PROTECTED in (one.klass, other.klass) else one.klass
    drift = DriftMode.REPORT if DriftMode.REPORT in (one.drift, other.drift) else one.drift
    review = min(one.review, other.review, key=_BY_STRICTNESS.index)
    windows = (*one.freeze, *(window for window in other.freeze if window not in one.freeze))
    promotions = (*one.promotion, *(more for more in other.promotion if more not in one.promotion))
    rules = (*one.rules, *(rule for rule in other.rules if rule not in one.rules))
    return Policy(klass, drift, review, stricter_limits(one.limits, other.limits), windows, promotions, rules)


def stricter_limits(one: Limits, other: Limits) -> Limits:
    """What both let through."""
    free = one.free_replace & other.free_replace
    return Limits(min(one.destroy, other.destroy), min(one.recreate, other.recreate), free)


def judged_with(environment: Environment, before: Policy) -> Environment:
    """The environment as the merge is judged by it that changed its file; `before` is what was in force until then."""
    says = policy_of(environment)
    both = stricter(says, before)
    if both == says:
        return environment
    return replace(
        environment,
        drift=both.drift,
        review=both.review,
        limits=both.limits,
        freeze=both.freeze,
        promotion=both.promotion,
        rules=both.rules,
        strict_class=both.klass,
        says=says,
    )


def before_the_first(environment: Environment) -> Policy:
    """What is in force for an environment that is new: what is not written."""
    return Policy(environment.klass)


def waiting(environment: Environment) -> Iterator[str]:
    """The fields of the file that do not count yet."""
    if environment.says is None:
        return
    says, both = environment.says, policy_of(environment)
    for field in ("klass", "drift", "review", "freeze", "promotion", "rules"):
        if getattr(says, field) != getattr(both, field):
            yield field if field != "klass" else "class"
    for name in LIMITS:
        field = name.removeprefix("limits.")
        if getattr(says.limits, field) != getattr(both.limits, field):
            yield name


def from_the_next_merge_on(environment: Environment, *fields: str) -> str:
    """The sentence for a hold that one of the fields would open; nothing, where none of them waits."""
    found = [name for name in waiting(environment) if name in fields]
    if not found:
        return ""
    return f" What {environment.place} says of {' and '.join(found)} since this merge counts from the next one on."
