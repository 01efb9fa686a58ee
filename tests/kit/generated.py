"""Modules that nobody wrote: drawn by a seed, valid by construction, with the inputs and the edits of several steps.

They take what is in Terraform itself (`terraform_data`, expressions, submodules), and say the same at every run: nothing in them asks a
clock or for a random number but the ids of their objects, and those are only ever passed on as they are.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Files = Mapping[str, str]
HOME = "modules/app"  # where it is in its tree
STEPS = 3  # created, changed by other inputs, changed by an edit
WORDS = ("alpha", "beta", "gamma", "delta", "ünï", "a b", "x${y}", 'say "so"', "", "0", "true", "%{if}")
KINDS = (
    "string",
    "number",
    "bool",
    "list(string)",
    "map(string)",
    "object({ name = string, size = optional(number, 3) })",
)


@dataclass(frozen=True, slots=True)
class Step:
    """What the tree is at a step (paths to texts), and what the module is given."""

    files: Files
    inputs: Mapping[str, Any]


@dataclass(slots=True)
class _Resource:
    name: str
    value: str  # the expression of its input
    meta: list[str]
    many: str = ""  # count or for_each, as it is written

    def text(self) -> str:
        body = [f"  {self.many}"] if self.many else []
        return "\n".join(
            [f'resource "terraform_data" "{self.name}" {{', *body, f"  input = {self.value}", *self.meta, "}"]
        )

    @property
    def output(self) -> str:
        """What it gives, as a string that may be unknown."""
        if self.many.startswith("count"):
            return f"jsonencode(terraform_data.{self.name}[*].output)"
        if self.many:
            return f"jsonencode({{ for k, v in terraform_data.{self.name} : k => v.output }})"
        return f"jsonencode(terraform_data.{self.name}.output)"

    @property
    def ids(self) -> str:
        """Its ids, as they are."""
        if self.many.startswith("count"):
            return f'join(",", terraform_data.{self.name}[*].id)'
        if self.many:
            return f'join(",", [for k in sort(keys(terraform_data.{self.name})) : terraform_data.{self.name}[k].id])'
        return f'"${{terraform_data.{self.name}.id}}"'


@dataclass(slots=True)
class Draft:
    """A module as it is drawn."""

    rng: random.Random
    variables: dict[str, str] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    locals: dict[str, str] = field(default_factory=dict)
    resources: list[_Resource] = field(default_factory=list)
    moved: list[tuple[str, str]] = field(default_factory=list)
    child: str = ""  # how the submodule is repeated; empty: there is none
    edit: int = 0

    # --- expressions that are known before anything exists ------------------------------------------------------------

    def known(self, depth: int = 3) -> str:
        """An expression of a string."""
        rng = self.rng
        leaves = [self._literal, lambda: self._named("string"), self._local]
        if depth <= 0 or rng.random() < 0.25:
            return rng.choice(leaves)()
        return rng.choice(self._strings())(depth - 1)

    def _strings(self) -> list[Callable[[int], str]]:
        return [
            lambda d: f"upper({self.known(d)})",
            lambda d: f'format("%s-%03d", {self.known(d)}, {self._number(d)})',
            lambda d: f'join("/", {self._list(d)})',
            lambda d: f"jsonencode({self._map(d)})",
            lambda d: f"{self._bool(d)} ? {self.known(d)} : {self.known(d)}",
            lambda d: f'"${{{self.known(d)}}}:${{{self._number(d)}}}"',
            lambda d: f'"%{{ for one in {self._list(d)} }}<${{one}}>%{{ endfor }}"',
            lambda d: f'lookup({self._map(d)}, "k", {self.known(d)})',
            lambda d: f"sha256({self.known(d)})",
            lambda d: f"base64decode(base64encode({self.known(d)}))",
            lambda d: f'try({self._map(d)}["absent"], {self.known(d)})',
            lambda d: f'replace({self.known(d)}, "/[aeiou]+/", "_")',
            lambda d: f"yamlencode({self._list(d)})",
            lambda d: f'cidrsubnet("10.{self.rng.randrange(256)}.0.0/16", 8, {self._number(d)} % 256)',
            lambda d: f"tostring(length({self._list(d)}))",
            lambda _: f"{self._object()}.name",
            lambda d: f"tostring({self._object()}.size + {self._number(d)})",
        ]  # fmt: skip

    def _number(self, depth: int) -> str:
        rng = self.rng
        if depth <= 0 or rng.random() < 0.4:
            return rng.choice(
                [str(rng.randrange(40)), self._named("number") if "number" in self.variables.values() else "7"]
            )
        return rng.choice([
            f"length({self._list(depth - 1)})", f"abs({self._number(depth - 1)} - {rng.randrange(60)})",
            f"max({self._number(depth - 1)}, {self._number(depth - 1)})", f"ceil({self._number(depth - 1)} / 3)",
        ])  # fmt: skip

    def _bool(self, depth: int) -> str:
        named = self._named("bool") if "bool" in self.variables.values() else "true"
        return self.rng.choice(
            [named, f"{self._number(depth)} > {self._number(depth)}", f'startswith({self.known(depth)}, "a")']
        )

    def _list(self, depth: int) -> str:
        plain = [f"[{', '.join(self.known(depth - 1) for _ in range(self.rng.randrange(1, 4)))}]"]
        if "list(string)" in self.variables.values():
            plain += [self._named("list(string)"), f"sort({self._named('list(string)')})"]
            plain += [f"distinct(concat({self._named('list(string)')}, [{self.known(depth - 1)}]))"]
        plain += [f'[for k, v in {self._map(depth - 1)} : "${{k}}=${{v}}"]'] if depth > 0 else []
        return self.rng.choice(plain)

    def _map(self, depth: int) -> str:
        plain = [f"{{ k = {self.known(depth - 1)}, l = {self.known(depth - 1)} }}"]
        if "map(string)" in self.variables.values():
            plain += [
                self._named("map(string)"),
                f"merge({self._named('map(string)')}, {{ z = {self.known(depth - 1)} }})",
            ]
        return self.rng.choice(plain)

    def _object(self) -> str:
        return self._named(KINDS[-1]) if KINDS[-1] in self.variables.values() else '{ name = "n", size = 1 }'

    def _literal(self) -> str:
        return _quoted(self.rng.choice(WORDS))

    def _named(self, kind: str) -> str:
        names = [name for name, one in self.variables.items() if one == kind]
        return f"var.{self.rng.choice(names)}" if names else self._literal()

    def _local(self) -> str:
        return f"local.{self.rng.choice(list(self.locals))}" if self.locals else self._literal()

    # --- what there is ------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """A module of a few variables, locals and objects."""
        rng = self.rng
        self.variables = {f"v{n}": rng.choice(KINDS) for n in range(rng.randrange(1, 6))} | {"text": "string"}
        self.private = {name for name, kind in self.variables.items() if kind == "string" and rng.random() < 0.2}
        for number in range(rng.randrange(4)):
            self.locals[f"l{number}"] = self.known()
        for _ in range(rng.randrange(1, 7)):
            self.resources.append(self._resource(f"r{len(self.resources)}"))
        self.child = rng.choice(["", "", "once", "count = 2", 'for_each = toset(split(",", "p,q"))'])

    def _resource(self, name: str) -> _Resource:
        rng = self.rng
        value = rng.choice([self.known, self._list_of_known, self._later])()
        many = rng.choice(["", "", "", f"count = {rng.randrange(4)}", self._each()])
        return _Resource(name, value, list(self._meta()), many)

    def _list_of_known(self) -> str:
        return f"{{ all = {self._list(2)}, one = {self.known()}, none = null }}"

    def _later(self) -> str:
        """Of what another gives, or is."""
        if not self.resources:
            return self.known()
        other = self.rng.choice(self.resources)
        return self.rng.choice([other.output, other.ids, f"[{other.ids}, {self.known()}]"])

    def _each(self) -> str:
        keys = self.rng.sample(["a", "b", "c", "d e"], self.rng.randrange(1, 4))
        return self.rng.choice(
            [f"for_each = toset({json.dumps(keys)})", f"for_each = {{ for k in {json.dumps(keys)} : k => upper(k) }}"]
        )

    def _meta(self) -> Iterator[str]:
        rng = self.rng
        if rng.random() < 0.3:
            yield f"  triggers_replace = {self._later() if rng.random() < 0.4 else self.known()}"
        if self.resources and rng.random() < 0.2:
            yield f"  depends_on = [terraform_data.{rng.choice(self.resources).name}]"
        if rng.random() < 0.4:
            yield f"  lifecycle {{\n    {rng.choice(self._lifecycles())}\n  }}"

    def _lifecycles(self) -> list[str]:
        found = [
            "create_before_destroy = true",
            "ignore_changes = [input]",
            f'precondition {{\n      condition     = length(var.text) >= 0 || {self._bool(1)}\n      error_message = "never"\n    }}',
            'postcondition {\n      condition     = self.id != ""\n      error_message = "never"\n    }',
        ]
        single = [one.name for one in self.resources if not one.many]
        return [*found, f"replace_triggered_by = [terraform_data.{self.rng.choice(single)}]"] if single else found

    def change(self) -> None:
        """An edit of the module, as people make them."""
        self.edit += 1
        self.rng.choice([self._add, self._rename, self._rewrite, self._shrink])()

    def _add(self) -> None:
        self.resources.append(self._resource(f"e{self.edit}"))

    def _rename(self) -> None:
        one = self.rng.choice(self.resources)
        if any(f"terraform_data.{one.name}" in text for text in self._texts(without=one)):
            return self._rewrite()
        self.moved.append((one.name, f"m{self.edit}"))
        one.name = f"m{self.edit}"
        return None

    def _rewrite(self) -> None:
        self.rng.choice(self.resources).value = self.known()

    def _shrink(self) -> None:
        """The last one goes: nobody refers to it."""
        if len(self.resources) > 1:
            self.resources.pop()
        else:
            self._rewrite()

    def _texts(self, without: _Resource) -> list[str]:
        return [one.text() for one in self.resources if one is not without]

    # --- as text ------------------------------------------------------------------------------------------------------

    def files(self) -> dict[str, str]:
        """The module's files."""
        found = {f"{HOME}/main.tf": "\n\n".join(self._blocks()) + "\n"}
        return found | ({f"{HOME}/child/main.tf": CHILD} if self.child else {})

    def _blocks(self) -> Iterator[str]:
        for name, kind in self.variables.items():
            extra = "  sensitive = true\n" if name in self.private else ""
            yield f'variable "{name}" {{\n  type = {kind}\n{extra}}}'
        if self.locals:
            yield "\n".join(["locals {", *(f"  {name} = {value}" for name, value in self.locals.items()), "}"])
        yield from (one.text() for one in self.resources)
        yield from (
            f"moved {{\n  from = terraform_data.{old}\n  to   = terraform_data.{new}\n}}" for old, new in self.moved
        )
        if self.child:
            repeated = "" if self.child == "once" else f"  {self.child}\n"
            yield f'module "child" {{\n  source = "./child"\n{repeated}  text   = {self.resources[0].output}\n  items  = {self._shown()}\n}}'
        yield from self._outputs()

    def _shown(self) -> str:
        return '["one", "two"]'

    def _outputs(self) -> Iterator[str]:
        """Marked as sensitive wherever something might be."""
        mark = "  sensitive = true\n" if self.private else ""
        for one in self.resources:
            yield f'output "{one.name}" {{\n  value = {one.output}\n{mark}}}'
        yield f'output "ids" {{\n  value = [{", ".join(one.ids for one in self.resources)}]\n{mark}}}'
        if self.child:
            yield f'output "child" {{\n  value = module.child\n{mark}}}'


CHILD = """\
variable "text" { type = string }
variable "items" { type = list(string) }
resource "terraform_data" "this" {
  for_each = toset(var.items)
  input    = "${each.key}: ${var.text}"
}
output "made" { value = { for k, one in terraform_data.this : k => one.output } }
"""


def steps(seed: int) -> list[Step]:
    """The module of this seed, in its steps."""
    rng = random.Random(seed)  # noqa: S311 - a story
    draft = Draft(rng)
    draft.draw()
    inputs = {name: _value(rng, kind) for name, kind in draft.variables.items()}
    found = [Step(draft.files(), dict(inputs))]
    changed = rng.sample(sorted(inputs), rng.randrange(1, len(inputs) + 1))
    inputs |= {name: _value(rng, draft.variables[name]) for name in changed}
    found.append(Step(draft.files(), dict(inputs)))
    draft.change()
    found.append(Step(draft.files(), dict(inputs)))
    return found


def _value(rng: random.Random, kind: str) -> Any:
    def word() -> str:
        return f"{rng.choice(WORDS)}{rng.randrange(1000)}"

    made: dict[str, Callable[[], Any]] = {
        "string": word,
        "number": lambda: rng.choice([0, 3, 17, 2.5]),
        "bool": lambda: rng.random() < 0.5,
        "list(string)": lambda: [word() for _ in range(rng.randrange(4))],
        "map(string)": lambda: {rng.choice("kmn"): word() for _ in range(rng.randrange(3))},
        KINDS[-1]: lambda: {"name": word()} | ({"size": rng.randrange(9)} if rng.random() < 0.5 else {}),
    }
    return made[kind]()


def _quoted(text: str) -> str:
    """As a literal of HCL."""
    return json.dumps(text, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")
