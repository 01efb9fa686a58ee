"""What an engine says went wrong, turned into a reason and a sentence that names the line to change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.errors import UnitError
from reconciler.model import THROTTLED, Entry, Unit
from reconciler.runner.terraform.module import ModuleInterface
from reconciler.runner.terraform.workspace import MODULE, ROOT_FILE

LONGEST = 1500  # characters of a message: it is shown in tables and comments
MOST_NAMED = 3

REASONS = {"init": "InitFailed", "plan": "PlanFailed", "show": "PlanFailed", "apply": "ApplyFailed"}
SENSITIVE_OUTPUT = "Output refers to sensitive values"
INVALID = ("Invalid value for input variable", "Invalid value for variable", "Invalid value for module argument")
UNKNOWN = ("Unsupported argument", "Extraneous JSON object property")
MISSING = ("Missing required argument", "Missing required property")
NO_TARGET = "Configuration for import target does not exist"
NOT_LOCKED = re.compile(
    r"Provider dependency changes detected|Inconsistent dependency lock file|match any of the checksums|"
    r"does not have a package available|not available from any of the|Required plugins are not installed",
)
# What the engine's own core says of a configuration, by its summary, before it asks any provider about any object: the same
# input gives the same answer. Not here is what depends on values that a data source may have read (an index, a function's
# argument, a condition), and whatever a provider says: those may pass without new input, a denied call too.
OF_CONFIGURATION: Mapping[str, str] = {
    **dict.fromkeys(UNKNOWN, "no such argument in the module or the provider's schema"),
    **dict.fromkeys(MISSING, "an argument that the module or the provider's schema requires"),
    "Unsupported block type": "no such block in the provider's schema",
    "Insufficient blocks": "a block that the provider's schema requires",
    "Invalid resource type": "the pinned provider has no such resource",
    "Invalid data source": "the pinned provider has no such data source",
    "Reference to undeclared resource": "a name that the module does not define",
    "Reference to undeclared input variable": "as above",
    "Reference to undeclared local value": "as above",
    "Reference to undeclared module": "as above",
    "Call to unknown function": "the pinned engine has no such function",
    "Invalid value for input variable": "the type of a value that the entry gives",
    "Invalid value for module argument": "as above, in another engine's words",
    NO_TARGET: "an address in the entry's `import` that the module does not define",
    SENSITIVE_OUTPUT: "an output of the module that must be marked",
}
# How clouds word that they are asked too often, after the provider's own tries: AWS's codes for it and its SDK's refusal to try again,
# HTTP's 429 as other providers print it. Not LimitExceeded: that is a quota, which waiting does not raise.
TOO_OFTEN = re.compile(
    r"\b(?:EC2)?(?:Request)?Thrott(?:ling|led)(?:Exception)?\b|\bRequestLimitExceeded\b|\bTooManyRequests(?:Exception)?\b|"
    r"\bProvisionedThroughputExceededException\b|\bBandwidthLimitExceeded\b|\bPriorRequestNotComplete\b|\bSlowDown\b|"
    r"\b[Rr]ate exceeded\b|\bretry quota exceeded\b|\b[Tt]oo [Mm]any [Rr]equests\b|\brateLimitExceeded\b|"
    r"\b(?:[Ss]tatus(?: ?[Cc]ode)?|HTTP(?:/[\d.]+)?|Error):? ?429\b",
)
# A rule of the module's own for a variable: of the input alone, unless it looks at what was read in this very plan.
RULE = "Invalid value for variable"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One diagnostic of the engine. `subject` is the property of the generated root that it points at, if it does."""

    severity: str
    summary: str
    detail: str = ""
    address: str = ""
    file: str = ""
    line: int = 0
    context: str = ""
    subject: str = ""

    @property
    def in_module_call(self) -> bool:
        """Whether it is about what the root hands to the module."""
        return self.file == ROOT_FILE and self.context in ("", f"module.{MODULE}", "module")


class EngineError(UnitError):
    """A command of the engine failed. `step` is init, plan, show or apply."""

    def __init__(self, step: str, diagnostics: Sequence[Diagnostic], *, has_read: bool = False) -> None:
        """`has_read`: the step had read a data source when it failed."""
        self.step = step
        self.diagnostics = tuple(diagnostics)
        self.errors = tuple(d for d in diagnostics if d.severity == "error")
        first = _sentence(self.errors[0]) if self.errors else "the engine ended without saying why; see the job's log"
        refused = step in ("init", "plan") and is_of_configuration(self.errors, has_read=has_read)
        super().__init__(REASONS[step], first, transient=not refused)

    @property
    def throttled(self) -> Diagnostic | None:
        """By which a cloud says that it wants to be asked less, if it does. What `init` asks is no cloud but a registry."""
        found = (e for e in self.errors if TOO_OFTEN.search(f"{e.summary} {e.detail}"))
        return next(found, None) if self.step != "init" else None


class SensitiveOutputs(EngineError):
    """The plan was refused because these outputs hold sensitive values: mark them in the root and plan again."""

    def __init__(self, names: frozenset[str], diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__("plan", diagnostics)
        self.names = names


def parse_diagnostic(raw: Mapping[str, Any], root: Sequence[str]) -> Diagnostic:
    """A diagnostic of the machine-readable output; `root` are the lines of the generated root.

    Raises:
        AttributeError, TypeError: it is none.
    """
    place = raw.get("range") or {}
    line = (place.get("start") or {}).get("line", 0)
    file = place.get("filename", "")
    subject = ""
    if file == ROOT_FILE and 0 < line <= len(root) and (named := re.match(r'\s*"([^"]+)"\s*:', root[line - 1])):
        subject = named[1]
    context = (raw.get("snippet") or {}).get("context") or ""
    words = raw.get("severity", "error"), raw.get("summary", ""), raw.get("detail", ""), raw.get("address", ""), file
    if not all(isinstance(word, str) for word in (*words, context)) or not isinstance(line, int):
        raise TypeError("no diagnostic has such parts")
    return Diagnostic(*words, line, context, subject)


def sensitive_outputs(diagnostics: Iterable[Diagnostic]) -> frozenset[str]:
    """The root's outputs that the engine refuses to show in clear."""
    return frozenset(d.subject for d in diagnostics if d.summary == SENSITIVE_OUTPUT and d.subject)


def is_of_configuration(errors: Sequence[Diagnostic], *, has_read: bool = False) -> bool:
    """Whether the engine refused the configuration itself, so that the same input is refused again.

    One error that may pass by itself is enough for another try: it may have hidden what comes after it.
    """
    summaries = {e.summary for e in errors}
    return bool(summaries) and all(s in OF_CONFIGURATION or (s == RULE and not has_read) for s in summaries)


def check_entry(entry: Entry, interface: ModuleInterface) -> None:
    """What can be said of an entry's inputs before an engine is asked.

    Raises:
        UnitError: "InputUnknown" or "InputMissing", with the place in the entry.
    """
    known = ", ".join(sorted(interface.variables)) or "none"
    for name in entry.inputs:
        if name not in interface.variables:
            raise UnitError("InputUnknown", _unknown(entry, name) + f" It has: {known}.")
    missing = sorted(n for n, v in interface.variables.items() if v.required and n not in entry.inputs)
    if missing:
        kinds = ", ".join(f"{name} ({interface.variables[name].type or 'any'})" for name in missing)
        raise UnitError(
            "InputMissing",
            f"{entry.at('inputs')}: {entry.module} needs more inputs: {kinds}. Write them under `inputs`.",
        )


def diagnose(failure: UnitError, unit: Unit, mask: Callable[[str], str] = str) -> UnitError:
    """The same failure with the reason and the place that its first error tells. `mask` hides secrets."""
    if not isinstance(failure, EngineError) or not failure.errors:
        return (
            type(failure)(failure.reason, mask(str(failure)), transient=failure.transient)
            if _plain(failure)
            else failure
        )
    told = (_input(e, unit) or _import(e, unit) for e in failure.errors)
    reason, message = next(filter(None, told), None) or _other(failure, unit)
    # First hidden, then cut: half a secret would not be found.
    return UnitError(reason, _short(mask(message)), transient=failure.transient)


def _plain(failure: UnitError) -> bool:
    return type(failure) is UnitError


def _import(error: Diagnostic, unit: Unit) -> tuple[str, str] | None:
    """Errors of a line of `import`: no such object, or no such address in the module."""
    text = f"{error.summary} {error.detail} {error.address}"
    if "import" not in error.summary.lower():
        return None
    ends = r"(?![\w\[-]|\.\w)"
    named = [one for one in unit.entry.imports if re.search(rf"module\.{MODULE}\.{re.escape(one)}{ends}", text)]
    if not named:
        return None
    entry, what = unit.entry, _sentence(error)
    if error.summary == NO_TARGET:
        what = f"{entry.module} has no resource {named[0]}."
    return (
        "ImportFailed",
        f"{entry.at(f'import.{named[0]}')}: {what} Correct the address or the id, or remove the line.",
    )


def _input(error: Diagnostic, unit: Unit) -> tuple[str, str] | None:
    """Errors that a line of the entry makes."""
    entry = unit.entry
    if error.summary in INVALID and (name := _variable(error)):
        rule = error.detail.partition("\n\nThis was checked by")[0]
        rule = re.sub(r"^The given value is not suitable for \S+ declared at [^ ]+: ", "", rule)
        return "InputInvalid", f"{entry.at(f'inputs.{name}')}: the value of {name} does not suit {entry.module}: {rule}"
    if not error.in_module_call:
        return None
    quoted = re.search(r'"([^"]+)"', error.detail)
    name = quoted[1] if quoted else error.subject
    if error.summary in MISSING:
        return "InputMissing", f"{entry.at('inputs')}: {entry.module} needs the input {name}. Write it under `inputs`."
    if error.summary in UNKNOWN:
        return "InputUnknown", _unknown(entry, name)
    return None


def _variable(error: Diagnostic) -> str:
    """The module's own variable that the error is about; that of a nested module is the module's fault."""
    if found := re.search(rf"module\.{MODULE}\.var\.([\w-]+)", error.detail):
        return found[1]
    return error.subject if error.in_module_call else ""


def _unknown(entry: Entry, name: str) -> str:
    place = entry.at(f"inputs.{name}")
    return f"{place}: {entry.module} has no input {name}. Remove the line or mend its name."


def _other(failure: EngineError, unit: Unit) -> tuple[str, str]:
    first = failure.errors[0]
    text = f"{first.summary} {first.detail}"
    if failure.step == "init" and NOT_LOCKED.search(text):
        pin = unit.pin
        remedy = f"Write the pins with `reconciler catalog add {pin.module}@{pin.version}` and merge that"
        return (
            "ProviderNotLocked",
            f"catalog-lock.yaml: {_sentence(first)} {remedy}, or put the provider into the mirror.",
        )
    more = len(failure.errors) - 1
    tail = f" (and {more} more errors; see the job's log)" if more else ""
    if failure.throttled is not None:
        why = f"{_sentence(failure.throttled)}{tail}"
        return THROTTLED, f"The cloud is asked too often, and fewer jobs go there for a while: {why}"
    head = f"{unit.environment.place}: " if first.file == ROOT_FILE and first.context.startswith("provider") else ""
    return failure.reason, f"{head}{_sentence(first)}{tail}"


def _sentence(diagnostic: Diagnostic) -> str:
    text = ": ".join(part for part in (diagnostic.summary, " ".join(diagnostic.detail.split())) if part)
    where = diagnostic.address or (
        f"{diagnostic.file}:{diagnostic.line}" if diagnostic.file not in ("", ROOT_FILE) else ""
    )
    return f"{where}: {text}" if where else text


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… (see the job's log)"
