"""Names, addresses and requests that are hostile."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tests.hostile.site import ENTRY_PATH
from tests.hostile.table import Trait, address, admin, branch, forge_config, job, named, several, these, trait

PROD = "environments/prod/"
SOUND = {"id": "job-1", "operation": "plan", "unit": "prod/network", "commit": "c" * 40, "fence": 1, "pull": None}
PAUSE = {"action": "pause", "scope": "prod", "reason": "migration", "until": "2026-11-24T12:00:00+00:00"}
DEEP = "[" * 100_000


def path(name: str, *bad: str, good: str = ENTRY_PATH) -> Trait:
    return trait(name, named, these(*bad), good, "environments/", "PathInvalid")


PATHS = (
    path("paths that climb", f"{PROD}../x.yaml", "environments/../x/a.yaml", f"{PROD}./a.yaml", f"{PROD}a/../../b.yaml"),
    path("names in other letters", f"{PROD}Network.yaml", "environments/Prod/a.yaml", f"{PROD}nEt.yaml", f"{PROD}а.yaml", f"{PROD}ｎ.yaml", f"{PROD}é.yaml", f"{PROD}a\u202e.yaml"),
    path("names that begin as options do", f"{PROD}-a.yaml", "environments/-x/a.yaml", f"{PROD}--help.yaml", f"{PROD}_a.yaml"),
    path("names with characters that mean something", *(f"{PROD}a{one}b.yaml" for one in "%:*?\"'<>|\\ $&;`!#@=+,~[]{}()^\t\n\x1b\x7f")),
    path("names that are taken", f"{PROD}secret.yaml", f"{PROD}x/environment.yaml", "environments/all/environment.yaml", f"{PROD}x/secret.yaml"),
    path("names without end", f"{PROD}{'a' * 64}.yaml", f"{PROD}{'a/' * 100}b.yaml", f"{PROD}{'a' * 5000}.yaml", f"environments/{'a' * 64}/b.yaml", f"{PROD}{'a/' * 3000}b.yaml"),
    path("names with another ending", *(f"{PROD}network.{one}" for one in ("yml", "YAML", "json", "yaml.bak", "yaml~", "tf", "yaml.", "Yaml", "tfvars"))),
    path("files at the top", "environments/a.yaml", "environments/environment.yaml", "environments/prod.yaml", "environments/b.json"),
    path("trailing dots and empty parts", f"{PROD}a./b.yaml", f"{PROD}/b.yaml", f"{PROD}a..yaml", f"{PROD}.yaml/b.yaml", "environments//a.yaml"),
)  # fmt: skip

HTTPS = "https://host/acme/environments.git"


def url(name: str, *bad: str, good: str = HTTPS) -> Trait:
    return trait(
        name, address, these(*bad), good, "environments_repo.url in reconciler.yaml:", "ConfigInvalid", line=True
    )


ADDRESSES = (
    url("addresses that run a program", "ext::sh -c x", "ext::x", "fd::17", "transport::https://x/y", "git-remote-x::y", "EXT::x", "ext::ssh://x/y"),
    url("addresses that are options", "--upload-pack=x", "-u", "--", "-oProxyCommand=x", "--config=x", "-o", "-"),
    url("addresses of other protocols", "http://host/x", "git://host/x", "ftp://h/x", "ssh+git://h/x", "HTTPS://h/x", "rsync://h/x", "data://x", "svn://x/y"),
    url("addresses with a password", "https://user:pw@host/x", "https://token@host/x", "https://@host/x", "https://a:b@c@host/x", good=HTTPS),
    url("addresses with other characters", *(f"https://host/x{one}y" for one in ("\n", "\0", " ", "\r", "\t", "\x7f", "\x1b"))),
    url("hosts that are options", "-oProxyCommand=x:path", "-x@host:path", "user@-host:p ath", "host:", "a b:c", "-host:path", "ssh://-oProxyCommand=x/y", "ssh://-x@host/y", good="git@host:acme/x.git"),
)  # fmt: skip

BRANCH, FORGE = "environments_repo.branch in reconciler.yaml:", "environments_repo.forge"
BRANCHES = (
    trait("branches that mean more in a refspec", branch, these("+main", "main:x", "*", "a*", "^main", "main~1", "main^", "a:b:c", "@", "@{u}", "a@{1}", "?x", "[a]"), "main", BRANCH, line=True),
    trait("branches that climb", branch, these("..", "a..b", "../x", "a/../b", "a//b", "/a", "a/", "a.", "a/.", ".a", "a.lock", "a.lock/b"), "release/1.0", BRANCH, line=True),
    trait("branches that are options", branch, these("-x", "--help", "-", "--upload-pack=x"), "x-y", BRANCH, line=True),
    trait("branches with other characters", branch, these("a b", "a\nb", "a\0b", "a\tb", "é", "a\\b", "а", "main\u202e", "", " ", "a\x7f"), "a_b", BRANCH, line=True),
    trait("forges that lead elsewhere", forge_config, these({"repository": "../x"}, {"repository": "a"}, {"repository": "/a/b"}, {"repository": "a/b c"}, {"repository": "a/b?c"},
          {"repository": "a/b\n"}, {"repository": "a/.."}, {"repository": "a/b#c"}, {"kind": "svn"}, {"url": "http://x"}, {"url": "file:///x"}, {"url": "https://u:p@x"},
          {"min_approvals": 0}, {"min_approvals": -1}), {"min_approvals": 2}, FORGE, line=True),
)  # fmt: skip


def start(**words: Any) -> bytes:
    return json.dumps({"verb": "start", "job": json.dumps(SOUND | words)}).encode()


def asked(name: str, *bad: bytes, at: str | tuple[str, ...]) -> Trait:
    return trait(name, job, these(*bad), start(), at, "BadRequest")


def cut(random: Random) -> bytes:
    line = bytearray(start())
    line[random.randrange(len(line))] = random.randrange(256)
    return bytes(line[: random.randrange(len(line) - 3)])


def told(**words: Any) -> bytes:
    return json.dumps(PAUSE | words).encode()


def ordered(name: str, *bad: bytes, at: str | tuple[str, ...]) -> Trait:
    return trait(name, admin, these(*bad), told(), at, "RequestInvalid", "BadRequest")


REQUESTS = (
    trait("lines that are cut and flipped", job, several(cut, 60), start(), ("request", "job", *SOUND), "BadRequest"),
    asked("lines that are no JSON object", b"", b"[]", b"null", b"1", b'"x"', b"{", b"\xff\xfe", b"{}x", DEEP.encode(), b'{"job":' + b"9" * 5000 + b"}", at=("request", "job")),
    asked("jobs that are none", b"{}", b'{"job": 1}', b'{"job": null}', b'{"job": {}}', b'{"job": "{}"}', b'{"job": "[]"}', json.dumps({"job": DEEP}).encode(),
          json.dumps({"job": '"\\ud800"'}).encode(), b'{"job": "\\ud800"}', at=("job", "id")),
    asked("jobs with more words", start(variables={"a": 1}), start(args=["-auto-approve"]), start(env={}), start(target="x"), start(commit2="x"), start(__class__="x"), at=("variables", "args", "env", "target", "commit2", "__class__")),
    asked("jobs with ids that are paths", *(start(id=one) for one in ("../x", "a/b", "", "a" * 65, "a b", "a\n", ".", "-x", "é", "a\0", 1, None, ["x"])), at="id"),
    asked("jobs of units that are paths", *(start(unit=one) for one in ("../x", "prod", "prod/", "/prod/x", "prod/../x", "prod/x/", "Prod/x", "prod/" + "a" * 64, "prod/x\n",
          "prod/-x", "prod/%2e", "", "*", "all", 1, None)), at="unit"),
    asked("jobs at what is no commit", *(start(commit=one) for one in ("HEAD", "main", "c" * 39, "c" * 41, "C" * 40, "c" * 40 + "\n", "refs/heads/main", "-x", "", None, 1)), at="commit"),
    asked("jobs with fences beyond all", *(start(fence=one) for one in (-1, 2**53 + 1, 2**64, 1.5, "1", None, True, 10**400)), at="fence"),
    asked("operations that do not exist", *(start(operation=one) for one in ("destroy", "APPLY", "", "plan ", None, 1, "init", "apply\n")), at="operation"),
    asked("a pull request that is applied", start(operation="apply", pull=1), start(pull=0), start(pull=-1), start(pull=2**31 + 1), start(pull="1"), start(pull=1.0), at="pull"),
    ordered("orders that do not exist", told(action="destroy"), told(action=""), told(action=None), told(action=["pause"]), told(action="\ud800"), told(action="Pause"), b"{}", at="action"),
    ordered("scopes that do not exist", *(told(scope=one) for one in ("", "prod/x", "..", "*", "Prod", "\n", "\ud800", "a" * 501, None, ["prod"], {"a": 1}, "prod ", "prоd")), at="scope"),
    ordered("reasons that are none", *(told(reason=one) for one in ("", " ", "a\nb", "x" * 501, None, 1, ["x"], "\x1b[31m", "\ud800", "\u202ex")), at="reason"),
    ordered("times that are none", *(told(until=one) for one in ("", "tomorrow", "2026-11-24", "2026-11-24T12:00:00", "2020-01-01T00:00:00Z", "2027-11-24T12:00:00Z", None, 1, "9" * 5000,
            "2026-13-45T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59")), at="until"),
    ordered("histories that are no commits", *(json.dumps({"action": "accept-history", "reason": "x", "old": a, "new": b}).encode() for a, b in
            (("HEAD", "c" * 40), ("c" * 40, "HEAD"), ("", ""), (None, None), ("C" * 40, "c" * 40), ("c" * 40 + "\n", "d" * 40), (1, 2), ("-x", "c" * 40))), at=("old", "new")),
    ordered("ends of what was never stopped", *(json.dumps({"action": "resume", "scope": one}).encode() for one in ("prod", "", "..", "\ud800")), at="scope"),
    ordered("lines of an admin that are no JSON object", b"", b"[]", b"null", b"{", b"\xff", DEEP.encode(), b"9" * 5000, at=("request", "action")),
)  # fmt: skip
WORDS = (*PATHS, *ADDRESSES, *BRANCHES, *REQUESTS)
