"""Writing the lock: exactly one version's lines change, whatever stands around them."""

from __future__ import annotations

import difflib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.lock import parse_lock
from reconciler.errors import UnitError
from reconciler.lockfile import Lines, with_pin
from reconciler.model import Commit, Digest, Lock, Pin, ProviderPin

AWS = ProviderPin("hashicorp/aws", "5.100.0", {"registry.terraform.io": ("h1:b=", "zh:00")})
PATH = "catalog-lock.yaml"


def pin(module: str, version: str, letter: str = "a", *providers: ProviderPin) -> Pin:
    name = module.partition("/")[2]
    return Pin(
        module, version, f"modules/{name}", f"v{version}", Commit(letter * 40), Digest(f"sha256:{letter * 64}"), providers
    )  # fmt: skip


def locked(*pins: Pin, text: str = "") -> str:
    for one in pins:
        text = with_pin(PATH, text, one)
    return text


def read(text: str) -> Lock:
    found = parse_lock(PATH, text.encode())
    assert isinstance(found, Lock), found
    return found


def changes(before: str, after: str) -> list[str]:
    """What a review would show."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line for line in lines if line[:2] in ("+ ", "- ")]


COMMENTED = """\
# Ours.
lock_version: 1

modules:
  # the network team's
  acme/vpc:
    path: modules/vpc
    versions:
      # needed by prod until June
      "1.4.2":
        ref: v1.4.2
        commit: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"   # reviewed twice
        digest: 'sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'
        yanked: loses packets
      # the good one
      "1.10.0": {ref: v1.10.0, commit: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb, digest: sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb}

# the end
"""


def test_the_first_version_makes_the_file() -> None:
    text = locked(pin("acme/vpc", "1.4.2", "a", AWS))

    assert (
        text
        == """\
# yaml-language-server: $schema=schemas/lock.schema.json
# Written by `reconciler catalog add`, checked by `reconciler catalog verify`, reviewed like any change.
lock_version: 1
modules:
  acme/vpc:
    path: modules/vpc
    versions:
      "1.4.2":
        ref: v1.4.2
        commit: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        digest: sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        providers:
          hashicorp/aws:
            version: "5.100.0"
            hashes:
              registry.terraform.io:
                - "h1:b="
                - "zh:00"
"""
    )


@pytest.mark.parametrize(
    ("module", "version", "before"),
    [
        ("acme/vpc", "1.4.1", "# needed by prod until June"),
        ("acme/vpc", "1.9.0", "# the good one"),
        ("acme/vpc", "2.0.0", ""),
        ("acme/app", "1.0.0", "# the network team's"),
        ("acme/zone", "1.0.0", ""),
    ],
)
def test_a_new_version_adds_its_lines_and_touches_no_other(module: str, version: str, before: str) -> None:
    new = pin(module, version, "c")
    text = with_pin(PATH, COMMENTED, new)

    assert {line[0] for line in changes(COMMENTED, text)} == {"+"}
    assert read(text).modules[module][version] == new
    following = text.partition("c" * 64 + "\n")[2].split("\n")[0].strip()
    assert following == before


def test_adding_what_is_there_changes_nothing() -> None:
    text = locked(pin("acme/vpc", "1.0.0", "a", AWS), pin("acme/vpc", "1.1.0", "b"))
    assert locked(pin("acme/vpc", "1.0.0", "a", AWS), text=text) == text


def test_another_commit_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(UnitError) as refused:
        with_pin(PATH, COMMENTED, pin("acme/vpc", "1.4.2", "d"))
    assert refused.value.reason == "CatalogPinConflict"
    assert str(refused.value).startswith(
        f"{PATH}:10:7: acme/vpc 1.4.2 is locked at {'a' * 40}, and v1.4.2 is {'d' * 40} now"
    )
    assert "--replace" in str(refused.value)


def test_replacing_keeps_yanked_and_everything_around() -> None:
    text = with_pin(PATH, COMMENTED, pin("acme/vpc", "1.4.2", "d"), replaces=True)

    assert read(text).modules["acme/vpc"]["1.4.2"] == replace(pin("acme/vpc", "1.4.2", "d"), yanked="loses packets")
    touched = [line for line in changes(COMMENTED, text) if "1.10" in line or ("#" in line and "twice" not in line)]
    assert touched == []


def test_other_providers_are_refused() -> None:
    text = locked(pin("acme/vpc", "1.0.0", "a", AWS))
    with pytest.raises(UnitError, match=r"locked with hashicorp/aws 5.100.0, and the engine finds hashicorp/aws 6.0.0"):
        with_pin(PATH, text, pin("acme/vpc", "1.0.0", "a", replace(AWS, version="6.0.0")))
    assert "6.0.0" in with_pin(PATH, text, pin("acme/vpc", "1.0.0", "a", replace(AWS, version="6.0.0")), replaces=True)


def test_hashes_of_another_registry_join_those_that_are_there() -> None:
    text = locked(pin("acme/vpc", "1.0.0", "a", AWS))
    other = replace(AWS, hashes={"registry.opentofu.org": ("h1:c=",), "registry.terraform.io": ("h1:a=",)})
    (joined,) = read(locked(pin("acme/vpc", "1.0.0", "a", other), text=text)).modules["acme/vpc"]["1.0.0"].providers
    assert joined.hashes == {"registry.opentofu.org": ("h1:c=",), "registry.terraform.io": ("h1:a=", "h1:b=", "zh:00")}


def test_a_module_lies_in_one_folder() -> None:
    moved = replace(pin("acme/vpc", "2.0.0", "c"), path="network/vpc")
    with pytest.raises(UnitError, match=r"^catalog-lock.yaml:6:3: the other versions of acme/vpc lie in modules/vpc"):
        with_pin(PATH, COMMENTED, moved)


@pytest.mark.parametrize(
    "text",
    [
        "lock_version: 1\nmodules: {acme/vpc: {path: modules/vpc, versions: {}}}\n",
        'lock_version: 1\nmodules:\n  acme/vpc:\n    path: modules/vpc\n    versions: {"1.0.0": {ref: v1.0.0, commit: '
        + "e" * 40 + ", digest: sha256:" + "e" * 64 + "}}\n",
    ],
)  # fmt: skip
def test_what_cannot_be_edited_line_by_line_is_left_alone(text: str) -> None:
    assert isinstance(parse_lock(PATH, text.encode()), Lock)
    with pytest.raises(UnitError, match="write the file in block style") as refused:
        with_pin(PATH, text, pin("acme/vpc", "2.0.0", "c"))
    assert refused.value.reason == "LockInvalid"


@pytest.mark.parametrize(
    "text", ["lock_version: 1\nmodules: {}\n", "lock_version: 1", "modules: {}\nlock_version: 1\n"]
)
def test_a_lock_without_modules_gets_its_first(text: str) -> None:
    new = pin("acme/vpc", "1.0.0")
    assert list(read(with_pin(PATH, text, new)).pins()) == [new]


def test_a_lock_that_cannot_be_read_is_told_whole() -> None:
    broken = COMMENTED.replace("ref: v1.4.2", "reff: v1.4.2")
    with pytest.raises(UnitError, match=r'catalog-lock.yaml:11:9: unknown field "reff"'):
        with_pin(PATH, broken, pin("acme/vpc", "2.0.0"))
    with pytest.raises(UnitError, match=r"catalog-lock.yaml:1:"):
        Lines(PATH, "a: [")


def test_what_yaml_could_misread_is_quoted() -> None:
    digits = replace(pin("acme/vpc", "1.0.0"), commit=Commit("1" * 40), ref="true", yanked='no: it is "bad" # really')
    text = with_pin(PATH, "", replace(digits, yanked=None))
    text = text.replace("digest:", 'yanked: "no: it is \\"bad\\" # really"\n        digest:')
    assert read(with_pin(PATH, text, digits, replaces=True)).modules["acme/vpc"]["1.0.0"] == digits


VERSIONS = st.builds("{}.{}.{}".format, *[st.integers(0, 12)] * 3)
PINS = st.builds(
    pin, st.sampled_from(["acme/a", "acme/b", "zoo/a"]), VERSIONS, st.sampled_from("abc"), st.sampled_from([AWS])
)


@given(st.lists(PINS, unique_by=lambda one: (one.module, one.version), min_size=1), st.randoms())
def test_the_order_of_adding_does_not_show(pins: list[Pin], shuffler: object) -> None:
    text = locked(*pins)
    shuffler.shuffle(pins)  # type: ignore[attr-defined]  # a random.Random
    assert locked(*pins) == text
    assert sorted(read(text).pins(), key=str) == sorted(pins, key=str)
