"""Modules that a catalog must not have, each beside its twin: the nearest form that is fine.

A class is a name, the files of the bad tree, where the audit must point, and the files of the twin. Files are put under
`modules/m/`, unless their name begins with `/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.vetting import Files

Tree = Mapping[str, str | bytes]


@dataclass(frozen=True)
class Case:
    """`rule` at `place` (`file:line`, or `file` for the whole) must be among the findings of `bad`; `twin` has none."""

    name: str
    rule: str
    place: str
    bad: Tree
    twin: Tree
    programs: frozenset[str] = field(default_factory=frozenset)  # files of `bad` with the executable bit


def files(tree: Tree, programs: frozenset[str] = frozenset()) -> Files:
    """The tree as the audit takes it."""
    found = {}
    for name, content in tree.items():
        path = name[1:] if name.startswith("/") else f"modules/m/{name}"
        mode = "100755" if name in programs else "100644"
        found[path] = (mode, content.encode() if isinstance(content, str) else content)
    return found


def one(name: str, rule: str, line: int, bad: str, twin: str, file: str = "main.tf", **more: str | bytes) -> Case:
    """Both are one file; `more` are files of both."""
    others: Tree = {key.replace("__", "."): text for key, text in more.items()}
    return Case(name, rule, f"modules/m/{file}:{line}", {file: bad, **others}, {file: twin, **others})


def resource(body: str) -> str:
    return f'resource "terraform_data" "x" {{\n{body}}}\n'


def output(value: str) -> str:
    return f'output "x" {{\n  value = {value}\n}}\n'


def required(body: str) -> str:
    return f"terraform {{\n  required_providers {{\n    {body}\n  }}\n}}\n"


PLAIN = resource("  input = 1\n")
EMPTY: Tree = {"main.tf": PLAIN}
MODULE = 'module "n" {{\n  source = "{}"\n}}\n'
LOCAL_EXEC = resource('  provisioner "local-exec" {\n    command = "true"\n  }\n')
FILE = "${path.module}/x.txt"


def called(name: str, source: str, rule: str = "module-source") -> Case:
    return Case(
        name,
        rule,
        "modules/m/main.tf:2",
        {"main.tf": MODULE.format(source), "n/main.tf": PLAIN},
        {"main.tf": MODULE.format("./n"), "n/main.tf": PLAIN},
    )


def value(name: str, rule: str, bad: str, twin: str) -> Case:
    """An expression of an output, on its second line."""
    return one(name, rule, 2, output(bad), output(twin), x__txt="text")


def beside(name: str, rule: str, file: str, twin: str, content: str | bytes = "x = 1\n") -> Case:
    return Case(name, rule, f"modules/m/{file}", {**EMPTY, file: content}, {**EMPTY, twin: content})


def program(name: str, content: bytes) -> Case:
    return Case(name, "binary", "modules/m/tool.dat", {**EMPTY, "tool.dat": content}, {**EMPTY, "tool.dat": b"text\n"})


RUNNING = [
    one("local-exec", "local-exec", 2, LOCAL_EXEC, PLAIN),
    one("remote-exec", "remote-exec", 2, LOCAL_EXEC.replace("local-exec", "remote-exec"), PLAIN),
    one("provisioner-file", "provisioner", 2, LOCAL_EXEC.replace("local-exec", "file"), PLAIN),
    one("provisioner-unknown", "provisioner", 2, LOCAL_EXEC.replace("local-exec", "chef"), PLAIN),
    one("provisioner-bare-label", "local-exec", 2, LOCAL_EXEC.replace('"local-exec"', "local-exec"), PLAIN),
    one("provisioner-at-destroy", "local-exec", 2, LOCAL_EXEC.replace("command", "when = destroy\n    command"), PLAIN),
    one(
        "provisioner-null-resource", "local-exec", 2,
        LOCAL_EXEC.replace("terraform_data", "null_resource"), 'resource "null_resource" "x" {\n}\n',
    ),
    one(
        "provisioner-escaped-label", "ambiguous-syntax", 2,
        LOCAL_EXEC.replace("local-exec", "local\\u002dexec"), PLAIN,
    ),
    one(
        "provisioner-dynamic", "provisioner", 2,
        resource('  dynamic "provisioner" {\n    for_each = [1]\n    content {}\n  }\n'),
        resource('  dynamic "input" {\n    for_each = [1]\n    content {}\n  }\n'),
    ),
    one(
        "provisioner-json", "local-exec", 3,
        '{"resource": {"terraform_data": {"x": {\n "provisioner":\n  {"local-exec": {"command": "true"}}\n}}}}',
        '{"resource": {"terraform_data": {"x": {\n "input":\n  {"local-exec": {"command": "true"}}\n}}}}',
        "main.tf.json",
    ),
    one(
        "provisioner-json-lists", "local-exec", 2,
        '[{"resource": [{"terraform_data": [{"x": [{"provisioner": [\n{"local-exec": [{"command": "a"}]}]}]}]}]}]',
        '[{"resource": [{"terraform_data": [{"x": [{"input": [\n{"local-exec": [{"command": "a"}]}]}]}]}]}]',
        "main.tf.json",
    ),
    one("provisioner-after-crlf", "local-exec", 2, LOCAL_EXEC.replace("\n", "\r\n"), PLAIN.replace("\n", "\r\n")),
    one(
        "provisioner-after-heredoc", "local-exec", 5,
        "locals {\n  a = <<E\nE\n}\n" + LOCAL_EXEC.replace('resource "terraform_data" "x" {\n', 'resource "terraform_data" "x" {'),
        "locals {\n  a = <<E\n" + LOCAL_EXEC + "E\n}\n",
    ),
    one(
        "provisioner-after-comment", "local-exec", 3,
        "/* /* */\n" + LOCAL_EXEC,
        "/* /* \n" + LOCAL_EXEC + "*/\n",
    ),
    one("connection", "connection", 2, resource('  connection {\n    host = "x"\n  }\n'), PLAIN),
    one("tofu-file", "local-exec", 2, LOCAL_EXEC, PLAIN, "main.tofu"),
    one("tofu-beside-tf", "local-exec", 2, LOCAL_EXEC, PLAIN, "main.tofu", main__tf=PLAIN),
    one("tofu-json", "local-exec", 1, '{"resource":{"a_b":{"c":{"provisioner":{"local-exec":{}}}}}}', "{}", "x.tofu.json", main__tf=PLAIN),
    Case(
        "provisioner-two-modules-down", "local-exec", "modules/o/main.tf:2",
        {"main.tf": MODULE.format("./n"), "n/main.tf": MODULE.format("../../o"), "/modules/o/main.tf": LOCAL_EXEC},
        {"main.tf": MODULE.format("./n"), "n/main.tf": MODULE.format("../../p"), "/modules/p/main.tf": PLAIN, "/modules/o/main.tf": LOCAL_EXEC},
    ),
    one("removed-provisioner", "local-exec", 6, 'removed {\n  from = terraform_data.x\n  lifecycle {\n    destroy = true\n  }\n  provisioner "local-exec" {}\n}\n', "removed {\n  from = terraform_data.x\n  lifecycle {\n    destroy = true\n  }\n}\n"),
]  # fmt: skip

READING = [
    one("data-external", "external-data", 1, 'data "external" "x" {\n}\n', 'data "aws_region" "x" {\n}\n'),
    one("data-http", "http-data", 1, 'data "http" "x" {\n}\n', 'data "aws_ami" "x" {\n}\n'),
    one("data-remote-state", "remote-state", 1, 'data "terraform_remote_state" "x" {\n}\n', 'data "aws_ami" "x" {\n}\n'),
    one("data-external-json", "external-data", 1, '{"data": {"external": {"x": {}}}}', '{"data": {"aws_ami": {"x": {}}}}', "main.tf.json"),
    one("data-external-renamed-provider", "external-data", 1, 'data "external" "x" {\n  provider = aws\n}\n', 'data "aws_ami" "x" {\n  provider = aws\n}\n'),
    one("provider-external-required", "external-data", 3, required('e = { source = "hashicorp/external" }'), required('e = { source = "hashicorp/aws" }')),
    one("check-http", "http-data", 2, 'check "x" {\n  data "http" "y" {}\n}\n', 'check "x" {\n  data "aws_ami" "y" {}\n}\n'),
    one("ephemeral-http", "http-data", 1, 'ephemeral "http" "x" {\n}\n', 'ephemeral "aws_secret" "x" {\n}\n'),
    one("local-file", "host-files", 1, 'data "local_file" "x" {\n}\n', 'data "aws_ami" "x" {\n}\n'),
    value("file-absolute", "file-path", 'file("/proc/self/environ")', f'file("{FILE}")'),
    value("file-home", "file-path", 'file("~/.aws/credentials")', f'file("{FILE}")'),
    value("file-variable", "file-path", 'file("${path.module}/${var.x}")', f'file("{FILE}")'),
    value("file-leaves-the-tree", "file-path", 'file("${path.module}/../../../x")', 'file("${path.module}/../../x")'),
    value("file-sidestep", "file-path", 'file("${path.module}x/../../../../etc")', f'file("{FILE}")'),
    value("file-escape", "file-path", 'file("${path.module}/\\u002e\\u002e/x")', f'file("{FILE}")'),
    value("file-namespaced", "file-path", 'core::file("/etc/passwd")', f'core::file("{FILE}")'),
    value("file-spaced", "file-path", 'file /* x */ ("/etc/passwd")', f'file /* x */ ("{FILE}")'),
    value("file-in-template", "file-path", '"a ${file("/etc/passwd")} b"', f'"a ${{file("{FILE}")}} b"'),
    value("file-in-directive", "file-path", '"%{ if fileexists("/etc/x") }%{ endif }"', f'"%{{ if fileexists("{FILE}") }}%{{ endif }}"'),
    value("file-escaped-template", "file-path", '"$$ ${file("/etc/passwd")}"', '"$${file("'),
    value("fileset-climbs", "file-path", 'fileset(path.module, "../../../*")', 'fileset(path.module, "*.json")'),
    value("fileset-computed", "file-path", "fileset(path.module, var.x)", 'fileset(path.module, "**")'),
    value("fileset-absolute", "file-path", 'fileset("/etc", "*")', 'fileset("${path.module}/a", "*")'),
    value("pathexpand", "file-path", 'pathexpand("~/.ssh")', 'basename("~/.ssh")'),
    value("filebase64", "file-path", "filebase64(var.x)", f'filebase64("{FILE}")'),
    value("hidden-path-module", "file-path", '[for path in var.x : file("${path.module}/x")]', '[for p in var.x : file("${path.module}/x.txt")]'),
    value("hidden-path-as-key", "file-path", "{for path, v in var.x : path => v}", "{for k, v in var.x : k => v}"),
    value("path-root", "host-path", '"${path.root}/x"', '"${path.module}/x"'),
    value("path-cwd", "host-path", "path.cwd", "var.o.path.cwd"),
    value("path-index", "host-path", 'path["cwd"]', 'var.path["cwd"]'),
    value("timestamp", "impure-function", "timestamp()", 'timeadd(var.at, "1h")'),
    value("uuid", "impure-function", "uuid()", 'uuidv5("dns", "x")'),
    value("unknown-function", "unknown-function", "readfile()", "length([])"),
    value("unknown-namespace", "unknown-function", "other::length([])", "core::length([])"),
    value("templatestring", "template", "templatestring(var.x, {})", 'replace(var.x, "a", "b")'),
    one("file-in-heredoc", "file-path", 3, output('<<E\n  ${file("/etc/passwd")}\nE'), output('<<E\n  $${file("/etc/passwd")}\nE')),
    one("file-json", "file-path", 1, '{"output": {"x": {"value": "${file(\\"/etc/passwd\\")}"}}}', '{"output": {"x": {"value": "$${file(\\"/etc/passwd\\")}"}}}', "main.tf.json"),
    one("file-json-unicode", "file-path", 1, '{"output": {"x": {"value": "\\u0024{file(\\"/etc/passwd\\")}"}}}', '{"output": {"x": {"value": "\\u0024"}}}', "main.tf.json"),
    one("file-json-key", "file-path", 1, '{"output": {"x": {"value": {"${file(\\"/x\\")}": 1}}}}', '{"output": {"x": {"value": {"file": 1}}}}', "main.tf.json"),
    one("file-json-reference", "ambiguous-syntax", 1, '{"resource": {"a_b": {"c": {"depends_on": ["a.b[file(1)]"]}}}}', '{"resource": {"a_b": {"c": {"depends_on": ["a.b"]}}}}', "main.tf.json"),
    one("file-json-comment", "ambiguous-syntax", 1, '{"//": {"a": 1}}', '{"//": "${file(1)}"}', "main.tf.json", x__tf=PLAIN),
    Case("template-reads", "template", "modules/m/x.tpl:2", {"main.tf": output('templatefile("${path.module}/x.tpl", {})'), "x.tpl": 'a\n${file("x")}'}, {"main.tf": output('templatefile("${path.module}/x.tpl", {})'), "x.tpl": "a\n$${file(1)} ${upper(b)} $"}),
    Case("template-missing", "template", "modules/m/main.tf:2", {"main.tf": output('templatefile("${path.module}/y.tpl", {})')}, {"main.tf": output('templatefile("${path.module}/y.tpl", {})'), "y.tpl": ""}),
    Case("template-computed", "file-path", "modules/m/main.tf:2", {"main.tf": output("templatefile(var.x, {})")}, {"main.tf": output('templatefile("${path.module}/y.tpl", {})'), "y.tpl": ""}),
]  # fmt: skip

CALLING = [
    called("source-registry", "terraform-aws-modules/vpc/aws"),
    called("source-git", "git::https://example.com/x.git"),
    called("source-git-ref", "git::ssh://git@example.com/x.git?ref=main"),
    called("source-http", "https://example.com/x.zip"),
    called("source-absolute", "/etc"),
    called("source-windows", ".\\\\n"),
    called("source-ref", "./n?ref=main"),
    called("source-subdirectory", ".//n"),
    called("source-bare", "n"),
    called("source-dot", "."),
    called("source-computed", "./${var.n}"),
    called("source-escaped", ".\\u002fn"),
    called("source-outside", "../../../n"),
    called("source-nowhere", "./nowhere"),
    one("source-missing", "module-source", 1, 'module "n" {\n}\n', 'module "n" {\n  source = "./n"\n}\n', **{"n/main__tf": PLAIN}),
    one("source-expression", "module-source", 2, 'module "n" {\n  source = var.n\n}\n', 'module "n" {\n  source = "./n"\n}\n', **{"n/main__tf": PLAIN}),
    one("source-version", "module-source", 3, 'module "n" {\n  source = "./n"\n  version = "1.0.0"\n}\n', 'module "n" {\n  source = "./n"\n  count = 1\n}\n', **{"n/main__tf": PLAIN}),
    one("source-json", "module-source", 1, '{"module": {"n": {"source": "a/b/c"}}}', '{"module": {"n": {"source": "./n"}}}', "main.tf.json", **{"n/main__tf": PLAIN}),
    Case("circle", "module-cycle", "modules/m", {"main.tf": MODULE.format("./n"), "n/main.tf": MODULE.format("../")}, {"main.tf": MODULE.format("./n"), "n/main.tf": PLAIN}),
    Case("itself", "module-cycle", "modules/m", {"main.tf": MODULE.format("./")}, EMPTY),
    Case(
        "bomb", "too-large", "modules/m",
        {f"{'n/' * depth}main.tf": MODULE.format("./n") + MODULE.format("./n").replace('"n"', '"o"', 1) for depth in range(12)} | {"n/" * 12 + "main.tf": PLAIN},
        {f"{'n/' * depth}main.tf": MODULE.format("./n") for depth in range(12)} | {"n/" * 12 + "main.tf": PLAIN},
    ),
]  # fmt: skip

SETTING = [
    one("backend", "backend", 2, 'terraform {\n  backend "s3" {}\n}\n', 'terraform {\n  required_version = ">= 1.5"\n}\n'),
    one("backend-json", "backend", 1, '{"terraform": {"backend": {"s3": {}}}}', '{"terraform": {"required_version": ">= 1"}}', "main.tf.json"),
    one("cloud", "cloud", 2, "terraform {\n  cloud {}\n}\n", "terraform {\n}\n"),
    one("provider-meta", "provider-meta", 2, 'terraform {\n  provider_meta "aws" {}\n}\n', "terraform {\n}\n"),
    one("encryption", "engine-setting", 2, "terraform {\n  encryption {}\n}\n", "terraform {\n}\n"),
    one("experiments", "engine-setting", 2, "terraform {\n  experiments = [x]\n}\n", "terraform {\n}\n"),
    one("provider-block", "provider-block", 1, 'provider "aws" {\n}\n', required('aws = {\n source = "hashicorp/aws"\n configuration_aliases = [aws.b]\n}')),
    one("provider-unlisted", "provider", 3, required('e = { source = "evil/aws" }'), required('e = { source = "registry.terraform.io/HashiCorp/AWS" }')),
    one("provider-implied", "provider", 1, 'resource "evil_x" "y" {\n}\n', 'resource "aws_x" "y" {\n}\n'),
    one("provider-by-name", "provider", 1, 'resource "aws_x" "y" {\n  provider = evil.a\n}\n', 'resource "aws_x" "y" {\n  provider = aws.a\n}\n'),
    one("provider-function", "provider", 2, output("provider::evil::f(1)"), output("provider::aws::f(1)")),
    one("provider-ephemeral", "provider", 1, 'ephemeral "evil_x" "y" {\n}\n', 'ephemeral "aws_x" "y" {\n}\n'),
    one("provider-shadows-builtin", "provider", 3, required('terraform = { source = "evil/terraform" }'), required('aws = { source = "hashicorp/aws", version = "~> 5.0" }')),
    one("provider-source-computed", "provider-source", 3, required("aws = { source = var.x }"), required('aws = { "source" : "hashicorp/aws" }')),
    one("provider-source-twice", "provider-source", 3, required('aws = { source = "hashicorp/aws", source = "evil/aws" }'), required('aws = "~> 5.0"')),
    one("import", "import-block", 1, "import {\n  to = terraform_data.x\n  id = 1\n}\n", "moved {\n  from = terraform_data.x\n  to = terraform_data.y\n}\n"),
    one("removed-forgets", "removed-block", 1, "removed {\n  from = a_b.c\n  lifecycle {\n    destroy = false\n  }\n}\n", "removed {\n  from = a_b.c\n  lifecycle {\n    destroy = true\n  }\n}\n"),
    one("removed-by-default", "removed-block", 1, "removed {\n  from = a_b.c\n}\n", "removed {\n  from = a_b.c\n  lifecycle {\n    destroy = true\n  }\n}\n"),
    one("lifecycle-forgets", "removed-block", 3, resource("  lifecycle {\n    destroy = false\n  }\n"), resource("  lifecycle {\n    prevent_destroy = true\n  }\n")),
    one("lifecycle-action", "unknown-block", 3, resource("  lifecycle {\n    action_trigger {}\n  }\n"), resource("  lifecycle {\n    precondition {}\n  }\n")),
    one("action", "unknown-block", 1, 'action "aws_x" "y" {\n}\n', PLAIN),
    one("unknown-block", "unknown-block", 1, "anything {\n}\n", "locals {\n}\n"),
    one("top-level-argument", "unknown-block", 1, "a = 1\n", "locals {\n  a = 1\n}\n"),
]  # fmt: skip

NAMING = [
    *(beside(f"names-{name}", "override-file", name, f"x{name[1:]}", "{}" if "json" in name else PLAIN.replace('"x"', '"y"')) for name in ("override.tf", "override.tf.json", "override.tofu")),
    beside("names-suffix", "override-file", "main_override.tf", "main_overrides.tf", PLAIN.replace('"x"', '"y"')),
    beside("variables", "variables-file", "terraform.tfvars", "example.tfvars"),
    beside("variables-json", "variables-file", "terraform.tfvars.json", "example.tfvars.json", "{}"),
    beside("variables-auto", "variables-file", "x.auto.tfvars", "x.tfvars"),
    beside("lock-file", "engine-file", ".terraform.lock.hcl", ".terraform-version"),
    beside("cli-configuration", "engine-file", ".terraformrc", ".tflint.hcl"),
    beside("state", "engine-file", "terraform.tfstate", "main.tftest.hcl"),
    beside("state-backup", "engine-file", "terraform.tfstate.backup", ".tfmigrate.hcl"),
    beside("engine-folder", "engine-file", ".terraform/modules/modules.json", "terraform/modules.json"),
    beside("plugins", "engine-file", "terraform.d/plugins/x", "plugins/x"),
    program("elf", b"\x7fELF\x02\x01\x01\0"),
    program("mach-o", b"\xcf\xfa\xed\xfe\x07\0\0\1"),
    program("pe", b"MZ\x90\0\3\0\0\0"),
    program("zip", b"PK\x03\x04\x14\0"),
    program("gzip", b"\x1f\x8b\x08\0"),
    program("tar", b"\0" * 257 + b"ustar\x0000"),
    program("wasm", b"\0asm\1\0\0\0"),
    Case("executable", "executable", "modules/m/x.sh", {**EMPTY, "x.sh": "#!/bin/sh\n"}, {**EMPTY, "x.sh": "#!/bin/sh\n"}, frozenset(("x.sh",))),
]  # fmt: skip

SYNTAX = [
    one("bom", "ambiguous-syntax", 1, "\ufeff" + PLAIN, PLAIN),
    one("lone-cr", "ambiguous-syntax", 1, "# a\r" + PLAIN, "# a\r\n" + PLAIN),
    one("bidi", "ambiguous-syntax", 1, "# a\u202e\n" + PLAIN, "# ä\n" + PLAIN),
    one("line-separator", "ambiguous-syntax", 1, "# a\u2028" + PLAIN, "# a\n" + PLAIN),
    one("nul", "ambiguous-syntax", 1, "# \0\n" + PLAIN, "#\n" + PLAIN),
    Case("not-utf-8", "invalid-syntax", "modules/m/main.tf:2", {"main.tf": b"# a\n# \xff\n"}, EMPTY),
    one("heredoc-odd-end", "ambiguous-syntax", 3, "locals {\n  a = <<E\nE\u00a0\nE\n}\n", "locals {\n  a = <<E\n\u00a0\nE\n}\n"),
    one("three-dollars", "ambiguous-syntax", 2, output('"$$${1}"'), output('"$${1}"')),
    one("doubled-argument", "ambiguous-syntax", 3, "locals {\n  a = 1\n  a = 2\n}\n", "locals {\n  a = 1\n  b = 2\n}\n"),
    one("doubled-key", "ambiguous-syntax", 1, '{"locals": {"a": 1, "a": 2}}', '{"locals": {"a": 1, "b": 2}}', "main.tf.json"),
    one("surrogate", "ambiguous-syntax", 1, '{"locals": {"a": "\\ud800"}}', '{"locals": {"a": "\\ud83d\\ude00"}}', "main.tf.json"),
    one("json-nan", "invalid-syntax", 1, '{"locals": {"a": NaN}}', '{"locals": {"a": null}}', "main.tf.json"),
    one("json-comment", "invalid-syntax", 1, "{} // x", "{}", "main.tf.json"),
    one("not-hcl", "invalid-syntax", 1, "resource {{\n", PLAIN),
    one("odd-name", "invalid-syntax", 2, "locals {\n  fi\u0142e = 1\n}\n", 'locals {\n  a = "fi\u0142e"\n}\n'),
    one("unclosed-comment", "invalid-syntax", 1, "/* " + PLAIN, "/* */" + PLAIN),
    one("deep", "too-large", 2, output("[" * 60 + "]" * 60), output("[" * 40 + "]" * 40)),
    one("deep-json", "too-large", 1, '{"locals": {"a": ' + "[" * 60 + "]" * 60 + "}}", '{"locals": {"a": ' + "[" * 30 + "]" * 30 + "}}", "main.tf.json"),
    one("long", "too-large", 1, "#" * (513 << 10), "#" * (500 << 10)),
]  # fmt: skip

CASES = [*RUNNING, *READING, *CALLING, *SETTING, *NAMING, *SYNTAX]
