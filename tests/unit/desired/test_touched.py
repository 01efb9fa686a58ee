"""Whatever came before, a commit means the same: what it means is worked out from what differs, and nothing is forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

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


@st.composite
def entries(draw: DrawFn) -> str:
    lines = [f"module: {draw(st.sampled_from(['acme/vpc'] * 4 + ['acme/dns', 'acme/none']))}"]
    lines.append(draw(st.sampled_from(['version: "1.0.0"'] * 5 + ['version: "2.0.0"', "ref: mine", "ref: yours"])))
    reads = draw(st.lists(st.sampled_from(UNITS), max_size=2))
    reading = ", ".join(f"'${{{{ /{one}.id }}}}'" for one in reads)
    lines.append(f"inputs: {{n: {draw(st.integers(0, 2))}, r: [{reading}]}}")
    lines.append(f"depends_on: [{', '.join(f'/{one}' for one in draw(st.lists(st.sampled_from(UNITS), max_size=1)))}]")
    more = (
        "state: absent",
        "moved_from: x",
        "moved_from: gone",
        "adopt: {state: 's3://b/k'}",
        "providers: {aws: aws.b}",
    )
    lines += draw(st.lists(st.sampled_from(more), max_size=1))
    return draw(st.sampled_from(["\n".join(lines) + "\n"] * 8 + ["[", "module: 1\n"]))


@st.composite
def environments(draw: DrawFn) -> str:
    lines = [f"class: {draw(st.sampled_from(['protected', 'protected', 'sandbox', 'other']))}"]
    lines.append(f"depends_on: [{', '.join(draw(st.lists(st.sampled_from(ENVIRONMENTS), max_size=1)))}]")
    more = ("limits: {destroy: 3}", "providers: {aws.b: {}}", "timeouts: {plan: 5m}", "promotion: {after: a, soak: 1h}")
    return "\n".join([*lines, *draw(st.lists(st.sampled_from(more), max_size=1))]) + "\n"


@st.composite
def locks(draw: DrawFn) -> str:
    modules = {name: draw(st.sampled_from(texts)) for name, texts in MODULES.items()}
    whole = "lock_version: 1\nmodules:\n" + "".join(f"  {name}: {text}\n" for name, text in modules.items())
    return draw(st.sampled_from([whole] * 6 + ["lock_version: 2\n", "["]))


def pins() -> st.SearchStrategy[Pin]:
    return st.sampled_from(["1", "2"]).map(lambda n: Pin("", "", "", "", Commit(n * 40), Digest("sha256:" + n * 64)))


def troubles() -> st.SearchStrategy[tuple[Problem, ...]]:
    one = st.sampled_from(UNITS).map(lambda unit: Problem(Place(f"environments/{unit}.yaml"), "PathInvalid", "a link"))
    return st.lists(one, max_size=1).map(tuple)


@st.composite
def changes(draw: DrawFn, history: History) -> None:
    """One merge, drawn, carried out."""
    match draw(
        st.sampled_from(["entry"] * 8 + ["environment", "lock", "gone", "odd", "moved", "elsewhere", "elsewhere"])
    ):
        case "entry":
            history.files[f"environments/{draw(st.sampled_from(UNITS))}.yaml"] = draw(entries())
        case "environment":
            history.files[f"environments/{draw(st.sampled_from(ENVIRONMENTS))}/environment.yaml"] = draw(environments())
        case "lock":
            history.files[LOCK_PATH] = draw(locks())
        case "gone" if history.files:
            del history.files[draw(st.sampled_from(sorted(history.files)))]
        case "odd":
            history.files[f"environments/{draw(st.sampled_from(UNITS))}.yml"] = "class: x\n"
        case "moved":  # an environment gets another name, its entries with it
            old, new = draw(st.permutations(ENVIRONMENTS))[:2]
            inside = [path for path in history.files if path.startswith(f"environments/{old}/")]
            history.files |= {path.replace(f"/{old}/", f"/{new}/", 1): history.files.pop(path) for path in inside}
        case "elsewhere":
            draw(elsewhere(history))


@st.composite
def elsewhere(draw: DrawFn, history: History) -> None:
    """A change of what is in no file: a branch of the catalog, a link in the tree, what was in force before."""
    match draw(st.sampled_from(["branch", "trouble", "before"])):
        case "branch":
            history.branches["acme/vpc", draw(st.sampled_from(["mine", "yours"]))] = draw(pins())
        case "trouble":
            history.troubles = draw(troubles())
            for one in history.troubles:
                history.files.pop(one.place.path, None)
        case _:
            history.before = draw(st.dictionaries(st.sampled_from(ENVIRONMENTS), st.sampled_from(POLICIES), max_size=1))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_what_a_commit_means_does_not_hang_on_what_came_before(data: st.DataObject) -> None:
    history = History({LOCK_PATH: data.draw(locks())})
    for name in ENVIRONMENTS:
        history.files[f"environments/{name}/environment.yaml"] = data.draw(environments())
    for unit in data.draw(st.lists(st.sampled_from(UNITS), unique=True)):
        history.files[f"environments/{unit}.yaml"] = data.draw(entries())
    loader = Loader()
    for _ in range(data.draw(st.integers(1, 8))):
        for _ in range(data.draw(st.integers(0, 2))):
            data.draw(changes(history))
        found, fresh = history.load(loader), history.load(Loader())
        assert found == fresh
        assert history.load(loader.fork()) == fresh
        assert {**found.units} == {**fresh.units}
