"""Secrets that would be recognised anywhere: what a house did with them, and that no byte of them is outside its runner."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import httpx
import pytest
from click.testing import CliRunner

from reconciler import wire
from reconciler.cli import cli
from reconciler.demo.example import Releases
from reconciler.demo.playground import free_port
from reconciler.errors import ReconcilerError
from tests.kit.forge import ForgeSite, PullRequest, Repo, forge_site
from tests.kit.house import House, house
from tests.kit.issuer import Issuer
from tests.kit.modules import NEEDS_FILES, entry, environment, release
from tests.kit.story import at, env, look, results

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

ALLOW = [
    {"operations": ["plan", "apply"], "refs": "merged", "folders": ["environments/**"]},
    {"operations": ["plan"], "refs": "pulls", "folders": ["environments/**"]},
]
OURS = ("secrets", "states", "world", "providers")  # the runner's host, and the cloud itself
PEOPLE = ("environments.git", "catalog.git", "work")  # what people wrote, and hold themselves

# Keeps what it gets in attributes that its state marks: by the provider's schema, by a sensitive value, by the module.
KEEPER = (
    NEEDS_FILES
    + """\
variable "secret" { type = string }
variable "input" {
  type      = string
  sensitive = true
}
variable "more" {
  type    = string
  default = ""
}
resource "files_file" "schema" {
  path           = "keeper/schema"
  secret_content = var.secret
}
resource "terraform_data" "marked" {
  input = { secret = sensitive(var.secret), input = var.input, more = var.more }
}
output "token" {
  value     = "token ${var.secret} and ${terraform_data.marked.id}"
  sensitive = true
}
output "unmarked" { value = terraform_data.marked.output }
"""
)

READER = """\
variable "token" { type = string }
resource "terraform_data" "this" { input = var.token }
output "token" { value = terraform_data.this.output }
"""

# The provider quotes what it does not like; each comes to it written in another way.
QUOTER = (
    NEEDS_FILES
    + """\
variable "secret" { type = string }
locals {
  forms = {
    raw    = nonsensitive(var.secret)
    json   = jsonencode(nonsensitive(var.secret))
    twice  = jsonencode(jsonencode({ password = nonsensitive(var.secret) }))
    base64 = base64encode(nonsensitive(var.secret))
    basic  = base64encode("user:${nonsensitive(var.secret)}")
    url    = urlencode(nonsensitive(var.secret))
    html   = replace(replace(replace(nonsensitive(var.secret), "&", "&amp;"), "<", "&lt;"), "\\"", "&quot;")
    lines  = replace(nonsensitive(var.secret), " ", "\\n  ")
  }
}
resource "files_file" "refused" {
  for_each = toset(keys(local.forms))
  path     = "/${each.value} ${local.forms[each.value]}"
  content  = "x"
}
"""
)

# Fails when it is applied, half way, and quotes a secret that only the apply itself has made.
MAKER = (
    NEEDS_FILES
    + """\
variable "secret" { type = string }
resource "terraform_data" "made" { input = "x" }
resource "files_flaky" "this" {
  path        = "maker/flaky"
  content     = "x"
  fails_while = var.secret
  partial     = true
}
resource "files_file" "quotes" {
  path    = "/made ${terraform_data.made.id}"
  content = "x"
}
output "made" {
  value     = terraform_data.made.id
  sensitive = true
}
"""
)

# Lets everybody see a secret: as the key of an object, which is part of its address.
KEYED = (
    NEEDS_FILES
    + """\
variable "secret" { type = string }
resource "files_file" "this" {
  for_each = toset([nonsensitive(var.secret)])
  path     = "keyed/${sha256(each.value)}"
  content  = "x"
}
"""
)

CATALOG: Releases = {"v1.0.0": release(keeper=KEEPER, reader=READER, quoter=QUOTER, maker=MAKER, keyed=KEYED)}


@dataclass
class Canary:
    """A secret with everything in it that somebody writes differently, around words that are always written alike."""

    words: tuple[str, str, str] = field(default_factory=lambda: (_word(), _word(), _word()))

    @property
    def text(self) -> str:
        one, two, three = self.words
        return f"{one} <b>&\"{two}'+ ${{x}} {three}%"

    @property
    def traces(self) -> Iterator[bytes]:
        """What a word of it leaves in bytes, however the text around it is written down; worked out without the masks."""
        for word in self.words:
            raw = word.encode()
            yield raw
            yield raw.hex().encode()
            for before in range(3):  # base64 shows three bytes in four characters, wherever they stand
                whole = raw[(3 - before) % 3 :]
                yield base64.b64encode(whole[: len(whole) // 3 * 3])


def _word() -> str:
    return f"Canary{secrets.token_hex(9)}"


@dataclass
class Aviary:
    """A house with a forge, a trigger, and a canary in each place where a secret can be."""

    house: House
    site: ForgeSite
    repo: Repo
    trigger: list[str]
    canaries: dict[str, Canary]

    def open(self, files: dict[str, str | bytes | None], branch: str) -> PullRequest:
        return self.repo.open(self.site.person("ada"), files, branch)

    def merge(self, pull: PullRequest) -> None:
        pull.review(self.site.person("bob"))
        pull.merge(self.site.person("bob"))

    def shown(self, pull: PullRequest) -> None:
        """Wait until every unit of the pull request has been planned, or could not be."""

        def done() -> bool:
            units = [one for one in self.house.get("/api/v1/pulls")["pulls"] if one["number"] == pull.number]
            return bool(units) and all(u["state"] not in ("waiting", "running") for u in units[0]["units"])

        self.house.until(done, f"#{pull.number} is shown")


@pytest.fixture
def aviary(tmp_path: Path) -> Iterator[Aviary]:
    canaries = {name: Canary() for name in ("file", "input", "quoted", "keyed", "made_by_hand")}
    hidden = {name: canaries[name].text for name in ("file", "quoted", "keyed")}
    files = {
        env("prod"): environment(),
        at("prod/keeper"): entry(
            "keeper", {"secret": "${{ secret.file }}", "input": canaries["input"].text.replace("${", "$${")}
        ),
        at("prod/reader"): entry("reader", {"token": "${{ keeper.token }}"}),
        at("prod/keyed"): entry("keyed", {"secret": "${{ secret.keyed }}"}),
        at("prod/names"): entry("reader", {"token": "${{ secret.quoted }}"}),
    }
    issuer, port = Issuer(tmp_path / "issuer"), free_port()
    token = tmp_path / "token"
    token.write_text(issuer.token(exp=issuer.claims()["iat"] + 3600))
    with ExitStack() as stack:
        stack.callback(issuer.close)
        temporary = stack.enter_context(TemporaryDirectory(prefix="av"))  # short: a provider's socket is in it
        site = stack.enter_context(forge_site(tmp_path / "site"))
        both = {"environments_repo": {"forge": site.config("github", "acme/environments"), "poll_interval": "1s"}}
        trigger = {"listen": f"127.0.0.1:{port}", "oidc": [issuer.config()]}
        built = stack.enter_context(
            house(
                tmp_path / "house", files, CATALOG,
                controller={**both, "trigger": trigger}, runner={**both, "allow": ALLOW},
                environment={"TMPDIR": temporary},
            )
        )  # fmt: skip
        for name, text in hidden.items():
            (built.ground.folder / "secrets" / "prod" / name).write_text(text)
        repo = site.repository("acme/environments", built.ground.environments)
        for login in ("ada", "bob"):
            repo.access[site.person(login).login] = "write"
        built.start()
        built.synced()
        words = ["--server", f"http://127.0.0.1:{port}", "--token-file", str(token)]
        yield Aviary(built, site, repo, words, canaries)


def test_no_canary_is_seen_outside_of_the_runner(aviary: Aviary) -> None:
    home, world = aviary.house, aviary.house.ground.world
    said = [*live(aviary)]

    # Drift, with something secret in it.
    (world / "keeper" / "schema").write_text(aviary.canaries["made_by_hand"].text)
    assert look(home, "prod/keeper")["reason"] == "Applied"

    # A review, of what goes well and of what does not; then its merge, and what fails by it.
    (world / aviary.canaries["quoted"].text.replace("/", "")).touch()
    wrong: dict[str, str | bytes | None] = {
        at("prod/quoter"): entry("quoter", {"secret": "${{ secret.quoted }}"}),
        at("prod/maker"): entry("maker", {"secret": "${{ secret.quoted }}"}),
        at("prod/keyed"): entry("keyed", {"secret": "${{ secret.keyed }}"}, state="absent"),
    }
    pull = aviary.open(wrong, "wrong")
    aviary.shown(pull)
    said += live(aviary)
    aviary.merge(pull)
    assert "refused" in home.held("prod/quoter", "PlanFailed")["message"]
    assert home.held("prod/maker", "ApplyFailed")["health"] == "Degraded"
    held = home.held("prod/keyed", "DestroyLimit")
    assert 'files_file.this["(sensitive)"]' in json.dumps(held).replace('\\"', '"')
    failed = home.command("reconcile", "prod", *aviary.trigger, "--wait", "--timeout", "10s")
    assert failed.returncode not in (0, 5), failed.stderr
    said.append(failed.stdout + failed.stderr)

    canaries: Canaries = {**aviary.canaries, "made": made(home)}
    said += live(aviary)
    home.stop()
    found = [*leaks(canaries, ((f"answer {n}", text.encode()) for n, text in enumerate(said)))]
    found += leaks(canaries, files(home.ground.folder, Path(home.environment["TMPDIR"])))
    # What a review showed stays as it is in the runner's own memory: the plan after the merge is compared with it.
    assert [one for one in found if not one.startswith("keyed: runner/reviews/")] == []
    assert_they_were_there(aviary, canaries)


@dataclass
class Made:
    """What the apply made by itself."""

    text: str

    @property
    def traces(self) -> Iterator[bytes]:
        yield self.text.encode()


Canaries = dict[str, Canary | Made]


def made(home: House) -> Made:
    """The secret that no one has thought of: an id, in an output that the module calls sensitive."""
    state = json.loads(home.ground.state("prod/maker").read_bytes())
    assert state["outputs"]["made"]["sensitive"]
    return Made(state["outputs"]["made"]["value"])


def assert_they_were_there(aviary: Aviary, canaries: Canaries) -> None:
    """The search finds what is there: in the states and in the world; and hidden places are seen in logs and messages."""
    folder = aviary.house.ground.folder
    kept = [(path.name, path.read_bytes()) for part in ("states", "world", "secrets") for path in (folder / part).rglob("*") if path.is_file()]  # fmt: skip
    assert {one.partition(":")[0] for one in leaks(canaries, kept)} >= {"file", "input", "quoted", "made"}
    logs = [path.read_text() for path in (folder / "runner" / "spool").glob("*/log.txt")]
    assert sum("(sensitive)" in log for log in logs) >= 3


def leaks(canaries: Canaries, texts: object) -> Iterator[str]:
    """Where which canary is, and what is around it."""
    traces = [(name, trace) for name, canary in canaries.items() for trace in canary.traces]
    for where, data in texts:  # type: ignore[attr-defined]
        seen = {name: place for name, trace in traces if (place := data.find(trace)) >= 0}
        yield from (f"{name}: {where}: {data[max(0, at - 120) : at + 120]!r}" for name, at in seen.items())


def files(house: Path, *more: Path) -> Iterator[tuple[str, bytes]]:
    """Every file outside of the runner's states and workspaces, in whatever it is written."""
    for top in (house, *more):
        for path in sorted(top.rglob("*")):
            inside = path.relative_to(top).parts
            work = inside[:2] == ("runner", "spool") and "work" in inside
            if path.is_file() and not path.is_symlink() and inside[0] not in (*OURS, *PEOPLE) and not work:
                yield str(path.relative_to(top)), path.read_bytes()


def live(aviary: Aviary) -> Iterator[str]:
    """Every answer that anybody can get now."""
    home = aviary.house
    units = [one["unit"] for one in home.units()]
    jobs = [one["job"]["id"] for one in results(home, "all")]
    with httpx.Client(base_url=home.ground.address) as client:
        yield from (client.get(path).text for path in paths(home, units, jobs))
    yield from (commanded(home, *words) for words in [["status"], ["status", "-o", "json"], ["pulls"], ["history"]])
    yield from (commanded(home, "logs", job) for job in jobs)
    yield from (commanded(home, verb, unit) for unit in units for verb in ("diff", "explain", "history", "logs"))
    socket = home.ground.runtime / "runner.sock"
    yield json.dumps(wire.ask(socket, {"verb": "describe"}))
    yield from (json.dumps(wire.ask(socket, {"verb": "poll", "job": job})) for job in jobs)
    yield from (base64.b64decode(str(wire.ask(socket, {"verb": "log", "job": j})["data"])).decode() for j in jobs)


def commanded(home: House, *words: str) -> str:
    """What a command of the command line says; in this process, where it costs no start."""
    done = CliRunner().invoke(cli, [*words], env={"RECONCILER_SERVER": home.ground.address})
    assert isinstance(done.exception, SystemExit | ReconcilerError | None), (words, done.exception)
    return f"{done.output}{done.exception or ''}"


def paths(home: House, units: list[str], jobs: list[str]) -> Iterator[str]:
    yield from ("/", "/healthz", "/readyz", "/metrics", "/api/v1/status", "/api/v1/history?limit=1000", "/api/v1/units")
    yield from ("/api/v1/pulls", f"/api/v1/commits/{home.head()}")
    for unit in map(quote, units):
        yield from (f"/api/v1/units/{unit}", f"/api/v1/units/{unit}/history")
    yield from (f"/api/v1/jobs/{job}/log" for job in jobs)
