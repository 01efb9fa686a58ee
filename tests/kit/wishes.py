"""Entries as people want them, over modules whose every creation stands in the provider's log; and whether the world is so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground
from tests.kit.proof import state_of
from tests.provider.log import calls

OBJECT = """\
terraform {
  required_providers {
    files = { source = "reconciler/files" }
  }
}
variable "path" { type = string }
variable "content" { type = string }
resource "files_file" "this" {
  path    = var.path
  content = var.content
}
output "id" { value = files_file.this.content }
"""
# Terraform's builtin resource: quick, and its creation stands in the same log as the provider's.
NOTE = """\
variable "path" { type = string }
variable "note" { type = string }
resource "terraform_data" "this" {
  input = var.note
  provisioner "local-exec" {
    interpreter = ["/bin/sh", "-c"]
    environment = { OBJECT = var.path }
    command     = <<-EOT
      (set -C; : > "$FILES_ROOT/$OBJECT") 2> /dev/null && became=created || became=exists
      printf '{"at": 0, "pid": %d, "op": "create", "type": "note", "path": "%s", "outcome": "%s"}\\n' \
        $$ "$OBJECT" $became >> "$FILES_ROOT/calls.log"
    EOT
  }
}
output "id" { value = terraform_data.this.output }
"""
CATALOG: dict[str, Files] = {"v1.0.0": {"modules/object/main.tf": OBJECT, "modules/note/main.tf": NOTE}}


@dataclass(slots=True, eq=False)
class Wish:
    """One entry as it is wanted. `path` is its object's name in the world, for good."""

    environment: str
    name: str
    kind: str  # object or note
    path: str
    text: str
    reads: Wish | None = None
    version: str = "1.0.0"
    moved_from: str | None = None
    absent: bool = False
    broken: str | None = None

    @property
    def unit(self) -> str:
        return f"{self.environment}/{self.name}"

    @property
    def file(self) -> str:
        return f"environments/{self.unit}.yaml"

    @property
    def depth(self) -> int:
        return 1 + (self.reads.depth if self.reads else 0)

    @property
    def output(self) -> str:
        """What it gives, once everything has converged."""
        return f"{self.text} of {self.reads.output}" if self.reads else self.text

    def entry(self) -> str:
        """The entry's file."""
        if self.broken is not None:
            return self.broken
        said = f"{self.text} of ${{{{ {self.reads.name}.id }}}}" if self.reads else self.text
        inputs = {"object": "content", "note": "note"}[self.kind]
        lines = [
            f'module: acme/{self.kind}\nversion: "{self.version}"\n',
            f'inputs: {{path: {self.path}, {inputs}: "{said}"}}\n',
        ]
        lines += [f"moved_from: {self.moved_from}\n"] if self.moved_from else []
        lines += ["state: absent\nallow_destroy: 1\n"] if self.absent else []
        return "".join(lines)


def files_of(wishes: Iterable[Wish]) -> dict[str, str | bytes | None]:
    """The wishes' entries, as they are merged."""
    return {wish.file: wish.entry() for wish in wishes}


def wrong_outputs(ground: Playground, wishes: Iterable[Wish]) -> Iterator[str]:
    """Units whose state does not give what is wanted: something was lost, or came in the wrong order."""
    for wish in wishes:
        path = ground.state(wish.unit)
        gives = state_of(path)["outputs"].get("id", {}).get("value") if path.exists() else None
        if gives != wish.output and not wish.absent:
            yield f"{wish.unit} gives {gives!r}, and not {wish.output!r}"


def wrong_objects(ground: Playground, wishes: Iterable[Wish]) -> Iterator[str]:
    """Objects that are not as wanted."""
    for wish in wishes:
        path = ground.world / wish.path
        if wish.kind == "object" and not wish.absent and not (path.exists() and path.read_text() == wish.output):
            yield f"{wish.unit}: the object {wish.path} is not as wanted"


def wrong_world(ground: Playground, wishes: list[Wish], gone: list[Wish], lost: Mapping[str, int]) -> Iterator[str]:
    """Every wish's object was created once, and no other was. `gone`: destroyed ones; `lost`: taken away by hand, how often."""
    yield from wrong_outputs(ground, wishes)
    yield from wrong_objects(ground, wishes)
    made = Counter(call.path for call in calls(ground.world, op="create", outcome="created"))
    lives = [*wishes, *gone]
    for wish in lives:
        if not 1 <= made[wish.path] <= 1 + lost.get(wish.path, 0):
            yield f"{wish.unit}: {wish.path} was created {made[wish.path]} times"
    yield from (f"nobody's object: {path}" for path in sorted(made.keys() - {wish.path for wish in lives}))
    for wish in gone:
        if wish.kind == "object" and (ground.world / wish.path).exists():
            yield f"{wish.unit}: {wish.path} was to be destroyed"
