"""Files that are hostile as YAML, as entries, as environments, as locks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tests.hostile.site import ENTRY, ENTRY_PATH, ENVIRONMENT, ENVIRONMENT_PATH, LOCK, LOCK_PATH
from tests.hostile.table import Trait, file_at, several, these, trait, whole

ENTRY_FILE, ENVIRONMENT_FILE, LOCK_FILE = file_at(ENTRY_PATH), file_at(ENVIRONMENT_PATH), file_at(LOCK_PATH)
Make = Callable[[Random], Any] | Sequence[Any]  # cases by chance, or written out
WORDS = ("alpha", "beta", "gamma", "delta", "omega")


def value(text: str) -> str:
    """An entry with this as an input."""
    return f"{ENTRY}inputs:\n  a: {text}\n"


def yaml(name: str, make: Make, twin: str | bytes, *reasons: str, line: bool = True) -> Trait:
    cases = several(make) if callable(make) else these(*make)
    return trait(name, ENTRY_FILE, cases, twin, ENTRY_PATH, *(reasons or ("YamlInvalid",)), line=line)


def inside(random: Random, *pieces: str) -> str:
    """One of the pieces in the middle of a word of an input."""
    left, right = random.choice(WORDS), random.choice(WORDS)
    return value(f"{left}{random.choice(pieces)}{right}")


def bomb(random: Random) -> str:
    width, depth = random.randint(5, 10), random.randint(5, 12)
    lines = [f"  a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, depth)]
    return f"{ENTRY}inputs:\n" + "\n".join(lines) + "\n"


def nested(random: Random, opening: str, closing: str) -> str:
    depth = random.choice((20, 21, 50, 500, 5000, 12_000))
    return value(opening * depth + "1" + closing * (depth if depth < 1000 else 0))


def blocks(random: Random) -> str:
    depth = random.randint(20, 60)
    return f"{ENTRY}inputs:\n" + "".join(f"{' ' * (n + 1)}a:\n" for n in range(depth)) + " " * (depth + 1) + "b: 1\n"


def badly_encoded(random: Random) -> bytes:
    bad = random.choice(
        (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80", b"\xf8\x88\x80\x80\x80")
    )
    return value("x").encode()[:-1] + bad + b"\n" * random.randint(1, 3)


def oversized(random: Random) -> str:
    return value(f'"{random.choice("xyz") * (65536 + random.randint(0, 200_000))}"')


YAML = (
    yaml("alias bomb", bomb, value("[[x, x], [x, x]]")),
    yaml("nested flow sequences", lambda r: nested(r, "[", "]"), value("[" * 18 + "]" * 18)),
    yaml("nested flow mappings", lambda r: nested(r, "{a: ", "}"), value("{a: " * 18 + "1" + "}" * 18)),
    yaml("nested blocks", blocks, f"{ENTRY}inputs:\n a:\n  a:\n   b: 1\n"),
    yaml("nested compact sequences", lambda r: value("\n    " + "- " * r.randint(20, 3000) + "x"), value("\n    - - x")),
    yaml("anchors", lambda r: value(f"&{r.choice(WORDS)}{r.randint(0, 9)} {r.choice(('x', '[1]', '{b: 1}'))}"), value("x")),
    yaml("aliases", lambda r: value(f"*{r.choice(WORDS)}"), value("'*x'")),
    yaml("tags", lambda r: value(f"!{r.choice(('', '!', '!str', 'x', '<tag:x>', '!binary'))} x"), value("'!x'")),
    yaml("tags that build objects",
         lambda r: value(f"!!python/{r.choice(('object/apply:os.system', 'name:os.system', 'module:os', 'object/new:eval'))} [x]"),
         value("['x']")),
    yaml("merge keys", lambda r: value(f"{{<<: {{b: {r.randint(0, 9)}}}, c: 1}}"), value('{"<<": {b: 1}}')),
    yaml("keys that stand twice", lambda r: value(f"{{alpha: 1, b: 2, {r.choice(('alpha', 'b', chr(34) + 'alpha' + chr(34)))}: {r.randint(0, 9)}}}"),
         value("{a: 1, b: 2}")),
    yaml("fields that stand twice", lambda r: ENTRY + r.choice(('version: "1.0.1"\n', "module: acme/vpc\n", '"version": "9"\n')), ENTRY),
    yaml("NUL", lambda r: inside(r, "\0"), value("x")),
    yaml("control characters", lambda r: inside(r, *(chr(n) for n in (1, 7, 8, 11, 12, 27, 31, 127, 128, 155, 159))), value("x")),
    yaml("byte order mark", lambda r: r.choice(("\ufeff" + ENTRY, inside(r, "\ufeff"))), ENTRY),
    yaml("other encodings", [ENTRY.encode(one) for one in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")],
         ENTRY.encode()),
    yaml("bytes that are no UTF-8", badly_encoded, value("é").encode()),
    yaml("text that is not NFC", lambda r: inside(r, "e\u0301", "\u1100\u1161", "\u212b", "\u0340", "\u2126"), value("\u00e9")),
    yaml("marks that turn text", lambda r: inside(r, *(chr(n) for n in (0x202A, 0x202B, 0x202D, 0x202E, 0x2066, 0x2067, 0x2069))),
         value("\u05d0")),
    yaml("line ends that only YAML knows", lambda r: inside(r, "\x85", "\u2028", "\u2029"), value("x")),
    yaml("lone carriage returns", lambda r: r.choice((ENTRY.replace("\n", "\r"), inside(r, "\r"))), ENTRY.replace("\n", "\r\n")),
    yaml("a second document", lambda r: ENTRY + r.choice(("---\n", "...\n---\n", "--- \n")) + f"a: {r.randint(0, 9)}\n", "---\n" + ENTRY),
    yaml("directives", lambda r: r.choice(("%YAML 1.1", "%YAML 1.2", "%TAG ! tag:x,2000:", "%TAG !! tag:y,2000:")) + "\n---\n" + ENTRY, ENTRY),
    yaml("tabs as indentation", lambda r: ENTRY + "inputs:\n" + "\t" * r.randint(1, 4) + "a: 1\n", ENTRY + "inputs:\n  a: 1\n"),
    yaml("more than 64 KiB", oversized, value('"' + "x" * 60_000 + '"'), line=False),
    yaml("endless numbers", lambda r: value(("-" if r.random() < 0.5 else "") + "9" * r.randint(101, 60_000)), value("9" * 100)),
    yaml("numbers beyond all floats", lambda r: value(f"{r.choice(('', '-'))}1e{r.randint(309, 99_999)}"), value("1e308")),
    yaml("keys that are no text", lambda r: value(f"{{{r.choice(('1', 'true', 'null', '1.5', '-0', '1e3'))}: x}}"), value('{"1": x}')),
    yaml("keys that are structures", lambda r: value(f"\n    ? {r.choice(('[a]', '{a: 1}', '- a'))}\n    : b"), value("\n    ? a\n    : b")),
    yaml("keys that hide behind escapes", lambda r: value(f'{{"{r.choice(WORDS)}e\\u0301": 1}}'), value('{"\\u00e9": 1}')),
    yaml("no end", lambda r: value(r.choice(("[1, 2", "{a: 1", '"x', "'x", "[{", '{"a": [', "@x", "`x"))), value("[1, 2]")),
    yaml("missing values", lambda r: f"{ENTRY}inputs:\n  {r.choice(WORDS)}:{' ' * r.randint(0, 3)}\n", value('""')),
    yaml("no mapping at all", ["- a\n", "a\n", "1\n", "[]\n", "null\n", "'x'\n", "true\n"], ENTRY),
    yaml("nothing at all", ["", "\n", "# x\n", "---\n", "--- # x\n", "...\n", " \n \n"], "# x\n" + ENTRY, line=False),
    yaml("surrogates in escapes", lambda r: value(f'"\\u{r.choice(("d800", "dbff", "dc00", "dfff"))}"'), value('"\\u00e9"')),
    yaml("a thousand mistakes", lambda r: value("[" + "&a 1," * r.randint(2000, 10_000) + "1]"), value("[1, 1]")),
)  # fmt: skip


def entry(name: str, make: Make, twin: str, *reasons: str) -> Trait:
    return yaml(name, make, twin, *(reasons or ("SchemaInvalid",)))


def field(name: str, *bad: str, good: str) -> tuple[list[str], str]:
    """An entry with a field, for each of the values."""
    return [f"{ENTRY}{name}: {one}\n" for one in bad], f"{ENTRY}{name}: {good}\n"


NAMES = (
    "'..'",
    "../x",
    "a/../b",
    "-a",
    "_a",
    "'%2e'",
    "a%b",
    "A",
    "a b",
    "a//b",
    "a/",
    "//a",
    "'.git'",
    "a.b",
    "~",
    "'a\\b'",
    "''",
    "аpp",
)
ENTRIES = (
    entry("unknown fields", lambda r: f"{ENTRY}{r.choice(('modul', 'inptus', 'x', 'лок', '__class__', 'run', 'backend', 'Module'))}: 1\n", ENTRY),
    entry("fields that look alike", lambda r: ENTRY + r.choice(("inрuts", "ѕtate", "ｓtate", "s\u200btate", "statе")) + ": present\n",
          ENTRY + "state: present\n"),
    entry("values of another type", lambda r: ENTRY + r.choice(("inputs: []", "depends_on: x", "depends_on: {a: 1}", "state: 1", "replace: x",
          "providers: [aws]", "allow_destroy: '2'", "inputs: null", "state: null", "state: [present]")) + "\n", ENTRY + "inputs: {}\n"),
    entry("words that other YAML takes for truth", *field("allow_downgrade", "yes", "on", "True", "TRUE", "y", "1", "'true'", good="true")),
    entry("numbers as other YAML writes them", *field("allow_destroy", "0o7", "010", "0x1F", "1_000", "1:30", "+1", ".5e1", "1.0", "1e1", good="7")),
    entry("numbers that are none", *field("allow_destroy", ".inf", "-.inf", ".nan", "nan", "inf", "-1", "1000001", "9" * 50, good="1000000")),
    entry("versions without quotes", lambda r: ENTRY.replace('"1.0.0"', r.choice(("1.0", "1", "1e0", "true", "null"))), ENTRY),
    entry("versions that the lock does not have",
          lambda r: ENTRY.replace("1.0.0", r.choice(("1.0.1", "v1.0.0", "1.0", "latest", ">=1", "*", "1.0.0 ", "../1.0.0", "１.0.0"))),
          ENTRY, "CatalogPinMissing"),
    entry("modules that are no names", lambda r: ENTRY.replace("acme/vpc", r.choice(("acme", "'../vpc'", "acme/../vpc", "/acme/vpc", "acme//vpc",
          "git::https://x/y", "acme/vpc?ref=x", "'acme/vpc '", "Acme/vpc", "-a/b", "acme/.", "acme/-x", "'https://x/y'"))), ENTRY),
    entry("modules that the lock does not have", lambda r: ENTRY.replace("acme/vpc", f"acme/{r.choice(WORDS)}"), ENTRY, "CatalogPinMissing"),
    entry("dependencies that are no names", *([f"{ENTRY}depends_on: [{one}]\n" for one in NAMES], ENTRY + "depends_on: []\n")),
    entry("dependencies on nothing", lambda r: f"{ENTRY}depends_on: [{r.choice(WORDS)}{r.randint(0, 99)}]\n", ENTRY, "ReferenceMissing"),
    entry("dependencies on itself", [f"{ENTRY}depends_on: [{one}]\n" for one in ("network", "/prod/network", "/prod")], ENTRY),
    entry("former names that are none", *([f"{ENTRY}moved_from: {one}\n" for one in NAMES], ENTRY + "moved_from: old\n")),
    entry("moves out of the environment", [f"{ENTRY}moved_from: {one}\n" for one in ("/stage/x", "network", "/prod/network", "/prod")],
          ENTRY + "moved_from: old\n", "MoveInvalid"),
    entry("both version and branch", lambda r: f"{ENTRY}ref: {r.choice(WORDS)}\n", ENTRY),
    entry("neither version nor branch", ["module: acme/vpc\n", "module: acme/vpc\nversion: null\n"], ENTRY),
    entry("a branch where only versions may be", lambda r: f"module: acme/vpc\nref: {r.choice(WORDS)}\n", ENTRY, "RefNotAllowed"),
    entry("branches that are options or paths", [f"module: acme/vpc\nref: {one}\n" for one in ("-x", "'--upload-pack=x'", "a..b", "'a b'", "a:b",
          "'a\\nb'", "refs/../x", "'a~1'", "'a^'", "/a", "a//b", "'@{u}'", "'*'", "a.lock", "a.lock/b")], ENTRY),
    entry("addresses in several lines", *field("replace", '["a\\nb"]', '["\\u0000"]', '[""]', "[1]", '["\\u001b[31m"]', good='["aws_x.y[0]"]')),
    entry("providers that are no names", *([f"{ENTRY}providers: {{{one}}}\n" for one in ("'../x': aws", "aws: '-x'", "aws: a.b.c", "'A': aws",
          "aws: 'a b'", "aws: 1", "'': aws", "aws: ''")], ENTRY + "providers: {}\n")),
    entry("providers that nobody configures", lambda r: f"{ENTRY}providers: {{aws: {r.choice(WORDS)}}}\n", ENTRY, "ProviderMissing"),
    entry("inputs that are no names", *([f"{ENTRY}inputs: {{{one}: 1}}\n" for one in ("'../x'", "'a b'", "'1a'", "''", "'${x}'", "'a.b'", "'ä'")],
          ENTRY + "inputs: {a: 1}\n")),
    entry("templates outside of inputs", lambda r: ENTRY + r.choice(("promotion_skip: '${{ a.b }}'\n", "replace: ['${{ a.b }}']\n",
          "depends_on: ['${{ a.b }}']\n", "moved_from: '${{ secret.x }}'\n")), ENTRY,
          "TemplateInvalid", "SchemaInvalid"),
    entry("templates without an end", lambda r: value(f"'{r.choice(WORDS)} ${{{{ {r.choice(WORDS)}.x }}'"), value("'$${{ a.x }'"), "TemplateInvalid"),
    entry("templates that are no reference", lambda r: value("'${{ " + r.choice(("", "a", "a.", ".a", "a b.c", "a..b", "file(a)", "a.b | c", "${{ a.b }}",
          "a.b[-1]", "a.b[01]", "a.b[*]", "a.b['x']", "../a.b", "/a.b", "//a/b.c", "A.b", "a.b.", "secret", "secret.", "secret.a.b", "a.b[9999999999]",
          "env.HOME", "a.b + c", "self.x.", "a/.b", "-a.b")) + " }}'"), value("'$${{ a }}'"), "TemplateInvalid", "ReferenceMissing"),
    entry("templates as keys", lambda r: value("{'${{ " + r.choice(WORDS) + ".b }}': 1}"), value("{'$ {{ a.b }}': 1}"), "TemplateInvalid"),
    entry("references to nothing", lambda r: value(f"${{{{ {r.choice(WORDS)}.x }}}}"), value("x"), "ReferenceMissing"),
    entry("references to other environments that are not there", lambda r: value(f"${{{{ /{r.choice(WORDS)}/net.x }}}}"), value("x"), "ReferenceMissing"),
    entry("references to itself", [value("${{ network.x }}"), value("${{ /prod/network.x }}"), value("'a${{ network.x }}'")], value("x"),
          "DependencyCycle"),
    entry("thousands of references", lambda r: value("'" + "".join(f"${{{{x{n}.y}}}}" for n in range(r.randint(3000, 5000))) + "'"), value("x"),
          "ReferenceMissing"),
    entry("paths without end", lambda r: value("${{ a.b" + r.choice((".c", "[0]", '["k"]')) * r.randint(5000, 10_000) + " }}"), value("x"),
          "ReferenceMissing"),
    entry("openings without end", lambda r: value("'" + "${{" * r.randint(1000, 20_000) + "'"), value("'" + "$${{" * 10_000 + "'"), "TemplateInvalid"),
)  # fmt: skip


def environment(name: str, bad: list[str], good: str, *reasons: str) -> Trait:
    return trait(
        name, ENVIRONMENT_FILE, lambda _: bad, good, ENVIRONMENT_PATH, *(reasons or ("SchemaInvalid",)), line=True
    )


def setting(name: str, *bad: str, good: str) -> tuple[list[str], str]:
    return [f"{ENVIRONMENT}{name}: {one}\n" for one in bad], f"{ENVIRONMENT}{name}: {good}\n"


def window(name: str, *bad: str, good: str) -> tuple[list[str], str]:
    parts = {"cron": "0 16 * * FRI", "duration": "1h", "timezone": "UTC", "reason": "x"}
    made = [
        "freeze: [{" + ", ".join(f"{k}: {one if k == name else repr(v)}" for k, v in parts.items()) + "}]"
        for one in (*bad, good)
    ]
    return [f"{ENVIRONMENT}{one}\n" for one in made[:-1]], f"{ENVIRONMENT}{made[-1]}\n"


_ENVIRONMENTS = (
    environment("classes that do not exist", [f"class: {one}\n" for one in ("yes", "1", "null", "[]", "''", "'protected '", "ѕandbox", "Protected")],
                ENVIRONMENT),
    environment("no class", ["drift: report\n", "{}\n", "limits: {}\n"], ENVIRONMENT),
    environment("durations that are none", *setting("drift_interval", "1", "'1'", "0s", "-1h", "1w", "1.5h", "1h30m", "99999d", "١h", "1H", "' 1h'",
                "9999999999s", good="366d")),
    environment("limits that are none", *setting("limits", "{destroy: -1}", "{destroy: 1.5}", "{destroy: '0'}", "{destroy: .inf}", "{destroy: 1e9}",
                "{destory: 1}", "{recreate: true}", "[]", "null", "{free_replace: x}", good="{destroy: 1}")),
    environment("windows that never open", *window("cron", "'x'", "'* * * *'", "'61 * * * *'", "'0 0 30 2 *'", "'* * * * * *'", "'@daily'", "'0 0 31 4 *'",
                "'*/0 * * * *'", "'-1 * * * *'", "'0 0 L L L'", "''", "'1-99999999999 * * * *'", good="'0 16 * * FRI'")),
    environment("windows without end", *window("duration", "32d", "366d", "0s", "'x'", "1", good="31d")),
    environment("time zones that are files", *window("timezone", "'../../etc/passwd'", "'/etc/localtime'", "'localtime'", "'Europe/../UTC'", "'Europe/Nowhere'",
                "'UTC\\0'", "''", "'posixrules'", "'Europe/Berlin '", good="'Europe/Berlin'")),
    environment("more windows than are counted", [f"{ENVIRONMENT}freeze: [{', '.join(['{cron: 0 1 * * *, duration: 1h, reason: x}'] * n)}]\n"
                for n in (11, 100, 1000)], f"{ENVIRONMENT}freeze: [{', '.join(['{cron: 0 1 * * *, duration: 1h, reason: x}'] * 10)}]\n"),
    environment("environments that follow themselves", *setting("depends_on", "[prod]", "['../prod']", "[-a]", "['*']", "['prod/x']", good="[]")),
    environment("environments that follow nothing", [f"{ENVIRONMENT}depends_on: [{one}]\n" for one in WORDS], ENVIRONMENT, "ReferenceMissing"),
    environment("templates in settings", *setting("providers", "{aws: {region: '${{ a.b }}'}}", "{aws: {a: ['${{ secret.x }}']}}",
                '{aws: {r: "\\x24{{ a.b }}"}}', good="{aws: {region: '${x}'}}"), "TemplateInvalid"),
    environment("settings of other files", [f"{ENVIRONMENT}{one}: 1\n" for one in ("backend", "secrets", "credentials", "allow", "module")], ENVIRONMENT),
)  # fmt: skip
# The place of a problem that only the whole shows is the file.
ENVIRONMENTS = tuple(
    Trait(t.name, t.judge, t.cases, t.twin, t.place, t.reasons, line="ReferenceMissing" not in t.reasons)
    for t in _ENVIRONMENTS
)


def locked(
    name: str, old: str, *new: str, good: str | None = None, reasons: tuple[str, ...] = ("LockInvalid",)
) -> Trait:
    """A lock in which a part is another."""
    assert old in LOCK
    return trait(
        name,
        LOCK_FILE,
        these(*(LOCK.replace(old, one) for one in new)),
        LOCK.replace(old, good or old),
        LOCK_PATH,
        *reasons,
        line=True,
    )


A, ONE = "a" * 40, f"sha256:{'1' * 64}"
LOCKS = (
    locked("commits that are none", A, "a" * 39, "a" * 41, "A" * 40, "HEAD", "refs/heads/main", "'--upload-pack=x'", "g" * 40, "''", "null", "１" * 40, good="b" * 40),
    locked("digests that are none", ONE, "1" * 64, "sha1:" + "1" * 40, "sha256:" + "1" * 63, "sha256:" + "G" * 64, "SHA256:" + "1" * 64, "", "md5:x", good=f"sha256:{'2' * 64}"),
    locked("folders that lead elsewhere", "path: modules/vpc", "path: ../vpc", "path: /etc", "path: modules/../../x", "path: ''", "path: .", "path: -x", "path: 'a b'",
           "path: 'a\\b'", "path: a//b", "path: a/", "path: .git", "path: 'a\\0b'", "path: ~", good="path: other"),
    locked("versions that are none", '"1.0.0":', '"1.0":', '"v1.0.0":', '"1.0.0.0":', '"01.0.0":', '"latest":', '"":', '"1.0.0 ":', "1.0:", '"1.0.0-":', '"../1":'),
    locked("tags that are options or paths", "ref: v1.0.0", "ref: -x", "ref: '--help'", "ref: a..b", "ref: 'a b'", "ref: 'a:b'", "ref: ''", "ref: 'x~1'", "ref: a.lock", good="ref: release/1"),
    locked("locks of another time", "lock_version: 1", "lock_version: 2", "lock_version: '1'", "lock_version: 1.0", "lock_version: true", "lock_version: null", "x: 1"),
    locked("modules of the lock that are no names", "acme/vpc:", "acme:", "../vpc:", "'acme/../vpc':", "acme//vpc:", "Acme/vpc:", "'acme/vpc ':", "'':", good="acme/vpc:"),
    locked("fields that the lock does not know", f'digest: "{ONE}"', f'digest: "{ONE}", url: x', f'digest: "{ONE}", Ref: x', f'digest: "{ONE}", digest2: x'),
    locked("hashes that are none", f'digest: "{ONE}"', *(f'digest: "{ONE}", providers: {{hashicorp/aws: {{version: 5.0.0, hashes: {{r.io: {one}}}}}}}' for one in
           ("[]", "[x]", "['h2:a']", "['h1:']", "h1:a", "['h1:a b']", "[1]", "['h1:" + "a" * 200 + "']")),
           good=f'digest: "{ONE}", providers: {{hashicorp/aws: {{version: 5.0.0, hashes: {{r.io: ["h1:abc="]}}}}}}'),
    locked("providers from nowhere", f'digest: "{ONE}"', *(f'digest: "{ONE}", providers: {{{one}: {{version: 5.0.0, hashes: {{r.io: ["h1:a"]}}}}}}' for one in
           ("aws", "'../aws'", "a/b/c/d", "'a b/c'", "'/aws'", "'https://x/y'")),
           good=f'digest: "{ONE}", providers: {{r.io/hashicorp/aws: {{version: 5.0.0, hashes: {{r.io: ["h1:a"]}}}}}}'),
    trait("locks of megabytes", LOCK_FILE, these(*(LOCK + one * ((7 << 20) // len(one)) for one in ("x: 1\n", "- a\n", "# a\n- {}\n")),
          "a: [" + "1," * 3_000_000 + "1]", "[" * 4_000_000), LOCK + "# x\n" * 1_000_000, LOCK_PATH, "LockInvalid", line=True),
    trait("a lock over eight megabytes", LOCK_FILE, these("#" * (8 << 20) + "\n" + LOCK), "#" * 1000 + "\n" + LOCK, LOCK_PATH, "LockInvalid"),
)  # fmt: skip

PROD = "environments/prod/"
SITES = (
    trait("circles", whole, these(*(
        {f"{PROD}u{n}.yaml": f"{ENTRY}inputs: {{a: '${{{{ u{(n + 1) % size}.x }}}}'}}\n" for n in range(size)} for size in (2, 3, 10, 200))),
        {f"{PROD}u{n}.yaml": f"{ENTRY}inputs: {{a: '${{{{ u{n + 1}.x }}}}'}}\n" for n in range(3)} | {f"{PROD}u3.yaml": ENTRY}, PROD, "DependencyCycle", line=True),
    trait("an environment without its file", whole, these({"environments/x/a.yaml": ENTRY}, {"environments/x/y/a.yaml": ENTRY}),
          {"environments/x/a.yaml": ENTRY, "environments/x/environment.yaml": ENVIRONMENT}, "environments/x/", "EnvironmentMissing"),
    trait("a protected environment that reads a sandbox", whole, these(*(
        {"environments/lab/environment.yaml": "class: sandbox\n", "environments/lab/a.yaml": ENTRY, f"{PROD}b.yaml": ENTRY + more}
        for more in ("inputs: {a: '${{ /lab/a.x }}'}\n", "depends_on: [/lab/a]\n"))),
        {"environments/lab/environment.yaml": "class: protected\n", "environments/lab/a.yaml": ENTRY, f"{PROD}b.yaml": f"{ENTRY}depends_on: [/lab/a]\n"},
        PROD, "ReadsSandbox", line=True),
    trait("two that take one state", whole, these({f"{PROD}{one}.yaml": f"{ENTRY}moved_from: old\n" for one in "ab"}),
          {f"{PROD}a.yaml": f"{ENTRY}moved_from: old\n"}, PROD, "MoveInvalid", line=True),
)  # fmt: skip
FILES = (*YAML, *ENTRIES, *ENVIRONMENTS, *LOCKS, *SITES)
