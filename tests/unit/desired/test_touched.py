"""Whatever came before, a commit means the same: what it means is worked out from what differs, and nothing is forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.desired.load import Loader
from reconciler.desired.paths import LOCK_PATH
from reconciler.errors import Place
from reconciler.model import Commit, Desired, Digest, DriftMode, EnvironmentClass, Limits, Pin, Policy, Problem

ENVIRONMENTS = ("a", "b", "box")
NAMES = ("x", "y", "z", "deep/x")
UNITS = [f"{environment}/{name}" for environment in (*ENVIRONMENTS, "none") for name in NAMES]
VERSION = '{{ref: v{0}, commit: {1}, digest: "sha256:{2}"}}'
ONE, TWO = VERSION.format(1, "a" * 40, "1" * 64), VERSION.format(2, "b" * 40, "2" * 64)
MODULES = {
    "acme/vpc": [f'{{path: vpc, versions: {{"1.0.0": {one}}}}}' for one in (ONE, TWO)]
    + [f'{{path: vpc, versions: {{"1.0.0": {ONE}, "2.0.0": {TWO}}}}}', '{path: vpc, versions: {"1.0.0": {ref: v1}}}'],
    "acme/dns": [f'{{path: dns, versions: {{"1.0.0": {ONE}}}}}', "{path: ../x, versions: {}}"],
}
POLICIES = (None, Policy(EnvironmentClass.PROTECTED, DriftMode.REPORT, limits=Limits(1, 2)))


@dataclass
class History:
    """Files by path, what the tree says of others, branches of the catalog, and what was in force before."""

    files: dict[str, str] = field(default_factory=dict)
    troubles: tuple[Problem, ...] = ()
    branches: dict[tuple[str, str], Pin] = field(default_factory=dict)
    before: dict[str, Policy | None] = field(default_factory=dict)

    def load(self, loader: Loader) -> Desired:
        blobs = {path: f"blob of {text}" for path, text in self.files.items()}
        return loader.load(
            Commit("c" * 40), blobs, _read, self.troubles,
            refs=lambda names: {name: self.branches[name] for name in names if name in self.branches},
            before=self.before,
        )  # fmt: skip


def _read(ids: Iterable[str]) -> Mapping[str, bytes]:
    return {one: one.removeprefix("blob of ").encode() for one in ids}


def an_entry(draw: Random, unit: str) -> str:
    if draw.random() < 0.05:
        return draw.choice(["[", "module: 1\n"])
    near = unit.partition("/")[0] if draw.random() < 0.6 else draw.choice(["a", "a", "b", "box", "none"])
    others = [one for one in UNITS if one != unit and one.startswith(f"{near}/")]
    reads, after = draw.sample(others, draw.choice([0, 0, 0, 1, 2])), draw.sample(others, draw.choice([0, 0, 0, 0, 1]))
    reading = ", ".join(f"'${{{{ /{one}.id }}}}'" for one in reads)
    ref = draw.choice(["ref: mine", "ref: yours"]) if draw.random() < (0.4 if unit.startswith("box") else 0.03) else ""
    lines = [
        f"module: {draw.choice(['acme/vpc'] * 8 + ['acme/dns'] * 4 + ['acme/none'])}",
        ref or f'version: "{draw.choice(["1.0.0"] * 8 + ["2.0.0"])}"',
        f"inputs: {{n: {draw.randint(0, 2)}, r: [{reading}]}}",
        f"depends_on: [{', '.join(f'/{one}' for one in after)}]",
    ]
    more = (
        "state: absent",
        "moved_from: x",
        "moved_from: gone",
        "adopt: {state: 's3://bucket/key'}",
        "providers: {aws: aws.b}",
    )
    return "\n".join([*lines, *([draw.choice(more)] if draw.random() < 0.3 else [])]) + "\n"


def an_environment(draw: Random, name: str) -> str:
    klass = "sandbox" if (name == "box") is (draw.random() < 0.75) else "protected"
    follows = draw.choice([[], [], [], *([one] for one in ENVIRONMENTS if one not in (name, "box"))])
    lines = [f"class: {klass if draw.random() < 0.97 else 'other'}", f"depends_on: [{', '.join(follows)}]"]
    more = ("limits: {destroy: 3}", "providers: {aws.b: {}}", "timeouts: {plan: 5m}", "promotion: {after: a, soak: 1h}")
    return "\n".join([*lines, *draw.sample(more, draw.randint(0, 2))]) + "\n"


def a_lock(draw: Random) -> str:
    modules = {name: draw.choice([texts[0]] * 8 + texts) for name, texts in MODULES.items()}
    whole = "lock_version: 1\nmodules:\n" + "".join(f"  {name}: {text}\n" for name, text in modules.items())
    return whole if draw.random() < 0.9 else draw.choice(["lock_version: 2\n", "["])


def change(draw: Random, history: History) -> None:
    """One merge."""
    unit, name = draw.choice(UNITS[:12] * 4 + UNITS), draw.choice(ENVIRONMENTS)
    match draw.choice(["entry"] * 8 + ["environment"] * 3 + ["lock", "gone", "odd", "moved", "elsewhere", "elsewhere"]):
        case "entry":
            history.files[f"environments/{unit}.yaml"] = an_entry(draw, unit)
        case "environment":
            history.files[f"environments/{name}/environment.yaml"] = an_environment(draw, name)
        case "lock":
            history.files[LOCK_PATH] = a_lock(draw)
        case "gone" if history.files:
            del history.files[draw.choice(sorted(history.files))]
        case "odd":
            history.files[f"environments/{unit}.yml"] = "class: x\n"
        case "moved":  # an environment gets another name, its entries with it
            old, new = draw.sample(ENVIRONMENTS, 2)
            inside = [path for path in history.files if path.startswith(f"environments/{old}/")]
            history.files |= {path.replace(f"/{old}/", f"/{new}/", 1): history.files.pop(path) for path in inside}
        case "elsewhere":
            elsewhere(draw, history)


def elsewhere(draw: Random, history: History) -> None:
    """A change of what is in no file: a branch of the catalog, a link in the tree, what was in force before."""
    match draw.choice(["branch", "branch", "trouble", "before"]):
        case "branch":
            number = draw.choice("12")
            pin = Pin("", "", "", "", Commit(number * 40), Digest("sha256:" + number * 64))
            history.branches["acme/vpc", draw.choice(["mine", "yours"])] = pin
        case "trouble":
            path = f"environments/{draw.choice(UNITS)}.yaml"
            history.files.pop(path, None)
            history.troubles = draw.choice([(), (Problem(Place(path), "PathInvalid", "a link"),)])
        case _:
            history.before = draw.choice([{}, {draw.choice(ENVIRONMENTS): draw.choice(POLICIES)}])


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 1 << 32))
def test_what_a_commit_means_does_not_hang_on_what_came_before(seed: int) -> None:
    draw, history = Random(seed), History()  # noqa: S311 - a test's
    history.files[LOCK_PATH] = a_lock(draw)
    for name in ENVIRONMENTS:
        history.files[f"environments/{name}/environment.yaml"] = an_environment(draw, name)
    for unit in draw.sample(UNITS[: 3 * len(NAMES)], draw.randint(6, 12)):
        history.files[f"environments/{unit}.yaml"] = an_entry(draw, unit)
    loader = Loader()
    for _ in range(12):
        for _ in range(draw.randint(0, 2)):
            change(draw, history)
        found, fresh = history.load(loader), history.load(Loader())
        assert found == fresh
        assert history.load(loader.fork()) == fresh


def plain(**more: str) -> History:
    """Two environments and a lock, and these entries: a double underscore stands for the slash."""
    files = {f"environments/{name}/environment.yaml": "class: protected\n" for name in ("a", "b")}
    lock = f"lock_version: 1\nmodules:\n  acme/vpc: {MODULES['acme/vpc'][0]}\n"
    entries = {f"environments/{name.replace('__', '/')}.yaml": ENTRY + text for name, text in more.items()}
    return History({LOCK_PATH: lock, **files, **entries})


ENTRY = 'module: acme/vpc\nversion: "1.0.0"\n'


def reasons(desired: Desired) -> dict[str, str]:
    return {unit: problem.reason for unit, problem in desired.broken.items()}


def test_an_environment_that_becomes_a_sandbox_breaks_who_reads_it() -> None:
    history, loader = plain(a__x="inputs: {id: '${{ /b/x.id }}'}\n", b__x=""), Loader()
    assert reasons(history.load(loader)) == {}
    history.files["environments/b/environment.yaml"] = "class: sandbox\n"
    assert reasons(history.load(loader)) == {"a/x": "ReadsSandbox"}
    history.files["environments/b/environment.yaml"] = "class: protected\n"
    assert reasons(history.load(loader)) == {}


def test_a_second_that_adopts_or_takes_over_the_same_breaks_the_first() -> None:
    for line, reason in (
        ("adopt: {state: 's3://bucket/key'}\n", "AdoptInvalid"),
        ("moved_from: gone\n", "MoveInvalid"),
    ):
        history, loader = plain(a__x=line), Loader()
        assert reasons(history.load(loader)) == {}
        history.files["environments/a/y.yaml"] = ENTRY + line
        assert reasons(history.load(loader)) == {"a/x": reason, "a/y": reason}
        del history.files["environments/a/y.yaml"]
        assert reasons(history.load(loader)) == {}


def test_a_circle_that_is_closed_breaks_all_in_it_and_ends_with_it() -> None:
    history, loader = plain(a__x="depends_on: [y]\n", a__y="", b__x=""), Loader()
    assert history.load(loader).order == ("a/y", "a/x", "b/x")
    history.files["environments/a/y.yaml"] = ENTRY + "depends_on: [x]\n"
    assert reasons(history.load(loader)) == {"a/x": "DependencyCycle", "a/y": "DependencyCycle"}
    history.files["environments/b/x.yaml"] = ENTRY + "inputs: {n: 1}\n"
    assert history.load(loader).order == ("b/x",)
    history.files["environments/a/y.yaml"] = ENTRY
    assert history.load(loader).order == ("a/y", "a/x", "b/x")
