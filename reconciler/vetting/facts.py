"""What the audit says, what it may not lift, and how much it reads at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Part of the key under which a verdict is remembered: raise it whenever the same bytes may be judged differently.
RULE_SET = 1

# The whole language of findings: a rule, and what it is about. docs/security.md shows the same table; a test compares.
RULES: Mapping[str, str] = {
    "invalid-syntax": "a file that is not strictly HCL or JSON in UTF-8",
    "ambiguous-syntax": "text that two readers could read differently: a byte order mark, a lone carriage return, marks that "
    "turn the direction of text, escapes in labels, doubled keys",
    "too-large": "more bytes, tokens, nesting, modules or findings than are read",
    "link": "a symbolic link, a submodule or another odd mode anywhere in the tree",
    "local-exec": "a provisioner that runs commands on the runner's host",
    "remote-exec": "a provisioner that runs commands on another host",
    "provisioner": "any other provisioner",
    "connection": "a connection block",
    "external-data": "the provider external: it runs a program",
    "http-data": "the provider http: it talks to any address",
    "remote-state": "terraform_remote_state: it reads another unit's state, past readable_by",
    "host-files": "the providers local and archive: they read and write files of the runner's host",
    "file-path": "a file function whose path is not literal below path.module, or leaves the tree",
    "template": "a template that cannot be followed: templatestring, a missing file, a file function inside of it",
    "host-path": "path.root and path.cwd: they lead out of the catalog",
    "impure-function": "a function that reads the clock or chance: every plan would differ",
    "unknown-function": "a function that this release does not know",
    "module-source": "a module that is no folder of this tree: registry, git, http, absolute, with a ref, computed",
    "module-cycle": "modules that call each other in a circle",
    "backend": "a backend block",
    "cloud": "a cloud block",
    "provider-block": "a provider block: a vetted module gets its providers from the environment",
    "provider-meta": "a provider_meta block",
    "engine-setting": "anything else in a terraform block but required_version and required_providers",
    "provider": "a provider that neither the pin nor allow_providers lists",
    "provider-source": "a provider's source that is not a plain literal address",
    "override-file": "a file that overrides others: override.tf, *_override.tf and their kin",
    "variables-file": "terraform.tfvars, *.auto.tfvars and their kin",
    "engine-file": "what an engine writes or reads beside modules: .terraform, states, plans, lock files, its configuration",
    "executable": "a file with the executable bit",
    "binary": "a program, a library or an archive",
    "import-block": "an import block: it works in root modules only",
    "removed-block": "a removed block, or a lifecycle, that lets objects go without destroying them",
    "unknown-block": "a block that this release does not know",
}

# Without these, nothing that the audit says would hold: no exception lifts them.
_FINAL = ("invalid-syntax", "ambiguous-syntax", "too-large", "link", "module-source", "module-cycle", "provider-source")
LIFTABLE = tuple(rule for rule in RULES if rule not in _FINAL)

FILE_BYTES = 512 << 10  # of one configuration file or template
TOTAL_BYTES = 2 << 20  # of all that is read for one module
TOKENS = 150_000  # about 0.3 s
DEEPEST = 50  # brackets, templates and blocks in each other
FOLDERS = 100  # modules that one module reaches
INSTANCES = 1_000  # of modules, once every call is followed
FINDINGS = 200

Files = Mapping[str, tuple[str, bytes]]  # path in the tree -> git's mode, content (its first FILE_BYTES + 1 at least)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a vetted module must not have. Lines and columns count from 1; 0 means the whole file."""

    rule: str
    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        return f"{where}: {self.rule}: {self.message}"


class Refused(Exception):
    """A file cannot be read on. Never leaves the audit: it becomes a finding. `at` is an offset in the file's text."""

    def __init__(self, rule: str, at: int, message: str) -> None:
        super().__init__(message)
        self.rule, self.at = rule, at


Said = tuple[str, int, str]  # a rule, an offset in the file's text, a message
