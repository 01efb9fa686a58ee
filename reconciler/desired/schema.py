"""The shape of the three files of the environments repository, and their JSON Schemas."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError

from reconciler.desired.rules import wrong_expression
from reconciler.desired.shape import (
    Address,
    Closed,
    Duration,
    GitRef,
    Line,
    ModuleName,
    Name,
    ProviderName,
    Sha,
    Sha256,
    StateSource,
    UnitName,
    Variable,
    Version,
    matching,
    short,
)
from reconciler.model import Over, Rule

Count = Annotated[int, Field(ge=0, le=1_000_000)]
RepositoryPath = Annotated[str, matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*", "a folder")]
ProviderSource = Annotated[
    str, matching(r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[A-Za-z0-9-]+/[A-Za-z0-9-]+", "a provider's source")
]
Expression = Annotated[str, matching(r"[^\x00-\x08\x0b-\x1f\x7f]{1,4000}", "an expression of CEL")]
ProviderHash = Annotated[str, matching(r"(?:h1|zh):[A-Za-z0-9+/=]{1,128}", "an h1: or zh: hash")]


class LimitsModel(Closed):
    """What one apply may do without an allowance; objects."""

    destroy: Count = Field(default=0, description="objects that one apply may destroy or replace")
    recreate: Count = Field(default=3, description="objects in the state that refresh no longer finds")
    free_replace: list[Line] = Field(default=[], description="types whose replacement is routine and does not count")


class TimeoutsModel(Closed):
    """How long one plan and one apply may take."""

    plan: Duration = timedelta(minutes=15)
    apply: Duration = timedelta(hours=6)


class PromotionModel(Closed):
    """A module digest enters only after it was healthy elsewhere for a while."""

    after: Name = Field(description="the environment where it must have been in order")
    soak: Duration = Field(description="for how long, without a failure and without drift")


class FreezeModel(Closed):
    """A window in which nothing is applied."""

    cron: Line = Field(description="when it opens: minute, hour, day of month, month, day of week")
    duration: Duration = Field(description="how long it lasts in real time, at most 31d")
    timezone: Line = Field(default="UTC", description="whose clock `cron` means: a name like Europe/Berlin")
    reason: Line


class RuleModel(Closed):
    """An expression of CEL that must be true of every plan, or of each resource that a plan changes."""

    name: Name = Field(description="what the hold calls it")
    plan: Expression | None = Field(default=None, description="true of the plan: `plan` and `unit` are known")
    resource: Expression | None = Field(
        default=None, description="true of each resource that changes: `resource` and `unit` are known"
    )
    message: Line = Field(description="what people are told where it is not true")

    @model_validator(mode="after")
    def _sound(self) -> RuleModel:
        if (self.plan is None) is (self.resource is None):
            raise PydanticCustomError(
                "rule", "a rule is over the plan or over each resource; write one of plan and resource"
            )
        return self

    @field_validator("plan", "resource")
    @classmethod
    def _compiles(cls, text: str | None, info: ValidationInfo) -> str | None:
        wrong = None if text is None else wrong_expression(text, Over(str(info.field_name)))
        if wrong is not None:
            raise PydanticCustomError("cel", "{wrong}", {"wrong": wrong})
        return text

    @property
    def fact(self) -> Rule:
        """The rule as the model has it."""
        over = Over.PLAN if self.resource is None else Over.RESOURCE
        return Rule(self.name, over, self.resource or self.plan or "", self.message)


def _named_once(rules: list[RuleModel]) -> list[RuleModel]:
    """Raises PydanticCustomError: two have one name."""
    names = [rule.name for rule in rules]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PydanticCustomError("rules", "two rules are called {name}; give each a name of its own", {"name": twice})
    return rules


Rules = Annotated[list[RuleModel], Field(max_length=50), AfterValidator(_named_once)]


class EnvironmentModel(Closed):
    """environments/<environment>/environment.yaml"""

    klass: Literal["protected", "sandbox"] = Field(alias="class", description="may people write to it directly?")
    providers: dict[ProviderName, dict[Variable, Any]] = Field(
        default={}, description="provider configuration by name or name.alias; credentials never stand here"
    )
    drift: Literal["correct", "report"] = Field(
        default="correct", description="what happens to a change made elsewhere"
    )
    drift_interval: Duration = timedelta(hours=1)
    depends_on: list[Name] = Field(default=[], description="environments whose units come first")
    review: Literal["required", "when_available", "off"] = Field(
        default="when_available", description="is the plan bound to what the review showed?"
    )
    limits: LimitsModel = Field(default_factory=LimitsModel)
    timeouts: TimeoutsModel = Field(default_factory=TimeoutsModel)
    promotion: PromotionModel | None = Field(
        default=None, description="a module's code enters only after it was in order elsewhere for a while"
    )
    freeze: Annotated[list[FreezeModel], Field(max_length=10)] = Field(
        default=[], description="windows in which nothing is applied; a running apply ends, plans go on"
    )
    rules: Rules = Field(default=[], description="what must be true of every plan before it is applied")


class AdoptModel(Closed):
    """A whole state that others made."""

    state: StateSource = Field(description="s3://<bucket>/<key>, or a path on the runner's host")


class EntryModel(Closed):
    """environments/<environment>/**/<name>.yaml"""

    module: ModuleName = Field(description="<catalog repository>/<module>")
    version: Line | None = Field(default=None, description="a version of catalog-lock.yaml; quote it")
    ref: GitRef | None = Field(
        default=None, description="a branch of the catalog repository, in a sandbox instead of version"
    )
    inputs: dict[Variable, Any] = Field(
        default={}, description="the module's variables; ${{ unit.output }} names a value"
    )
    providers: dict[ProviderName, ProviderName] = Field(
        default={}, description="the module's provider names -> the environment's"
    )
    depends_on: list[UnitName] = Field(default=[], description="units that come first although nothing of them is read")
    state: Literal["present", "absent", "forgotten"] = Field(
        default="present", description="absent: destroy it; forgotten: let it go and destroy nothing"
    )
    allow_destroy: Count = Field(default=0, description="objects that the next apply may destroy or replace")
    allow_downgrade: bool = Field(
        default=False, description="the next apply may use an older version than the last one"
    )
    replace: list[Line] = Field(default=[], description="addresses of objects that the next apply shall replace")
    promotion_skip: Line | None = Field(
        default=None, description="why the next apply may bring in code that `promotion` would hold"
    )
    moved_from: UnitName | None = Field(default=None, description="the entry's former name in the same environment")
    imports: dict[Address, Line] = Field(
        default={}, alias="import", description="addresses inside the module -> ids of existing objects to take over"
    )
    adopt: AdoptModel | None = Field(
        default=None, description="a state that others made becomes the unit's; its first plan may destroy nothing"
    )


class LockedProviderModel(Closed):
    """The one version of a provider that a locked module version runs with."""

    version: Version
    hashes: dict[Line, Annotated[list[ProviderHash], Field(min_length=1)]] = Field(
        description="the registry's host -> h1: and zh: hashes of the provider's packages"
    )


class LockedVersionModel(Closed):
    """One released version of a module, pinned to its content."""

    ref: GitRef
    commit: Sha
    digest: Sha256 = Field(description="over mode, path and SHA-256 of every file of the tree at that commit")
    providers: dict[ProviderSource, LockedProviderModel] = Field(default={})
    yanked: Line | None = Field(default=None, description="why it may not be used anew")


class LockedModuleModel(Closed):
    """One module of a catalog."""

    path: RepositoryPath = Field(description="the module's folder in the catalog repository")
    versions: dict[Version, LockedVersionModel]


def _whole(value: object) -> object:
    """True and 1.0 equal 1, and are no version. Raises PydanticCustomError."""
    if isinstance(value, bool | float):
        raise PydanticCustomError("version", "the version of a lock is the whole number 1; write it so")
    return value


class LockModel(Closed):
    """catalog-lock.yaml"""

    lock_version: Annotated[Literal[1], BeforeValidator(_whole)]
    modules: dict[ModuleName, LockedModuleModel] = Field(default={})


SCHEMAS: dict[str, type[BaseModel]] = {
    "entry": EntryModel,
    "environment": EnvironmentModel,
    "lock": LockModel,
}


def draft7(model: type[BaseModel], title: str) -> dict[str, Any]:
    """The model's JSON Schema in the draft that editors understand."""
    schema = model.model_json_schema(ref_template="#/definitions/{model}", schema_generator=_Generator)
    definitions = schema.pop("$defs", {})
    whole = {"$schema": "http://json-schema.org/draft-07/schema#", **_rewritten(schema), "title": title}
    if definitions:
        whole["definitions"] = {name: _rewritten(one) for name, one in definitions.items()}
    return whole


class _Generator(GenerateJsonSchema):
    """Defaults as they are written in a file."""

    def encode_default(self, dft: Any) -> Any:
        return short(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def _rewritten(value: Any) -> Any:
    """Without what draft-07 would not understand, an editor would offer in vain, and titles that only repeat names."""
    if isinstance(value, list):
        return [_rewritten(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {k: _rewritten(v) for k, v in value.items() if not (k == "title" and isinstance(v, str))}
    alternatives = kept.get("anyOf", [])
    if {"type": "null"} in alternatives:  # leaving a field out is how it is said to be empty
        del kept["anyOf"], kept["default"]
        kept |= next(one for one in alternatives if one != {"type": "null"})
    if "patternProperties" in kept:
        kept["additionalProperties"] = False
    if "$ref" in kept and len(kept) > 1:  # draft-07 ignores what stands beside $ref
        kept["allOf"] = [{"$ref": kept.pop("$ref")}]
    return kept
