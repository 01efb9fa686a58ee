from __future__ import annotations

import pytest

from reconciler.vetting import LIFTABLE, RULES, Finding, vet
from tests.kit.hostile_modules import CASES, EMPTY, Case, files
from tests.kit.stopwatch import beside, within

PROVIDERS = frozenset(("hashicorp/aws", "hashicorp/null", "hashicorp/a"))


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_hostile_module_is_found_at_its_line_and_its_twin_passes(case: Case) -> None:
    with within(), beside(256):
        found = vet(files(case.bad, case.programs), "modules/m", PROVIDERS)
    assert (case.rule, case.place) in {(one.rule, place(one)) for one in found}, found
    assert vet(files(case.twin), "modules/m", PROVIDERS) == ()


def place(finding: Finding) -> str:
    return f"{finding.path}:{finding.line}" if finding.line else finding.path


def test_there_are_many_classes_and_every_rule_has_one() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60
    unmet = set(RULES) - {case.rule for case in CASES}
    assert unmet == {"link"}  # below: a mode is no content


def test_links_and_submodules_anywhere_in_the_tree() -> None:
    tree = {**files(EMPTY), "elsewhere/link": ("120000", b"/etc"), "elsewhere/sub": ("160000", b"")}
    assert [(one.rule, one.path) for one in vet(tree, "modules/m")] == [
        ("link", "elsewhere/link"),
        ("link", "elsewhere/sub"),
    ]


def test_what_is_not_reached_is_not_looked_at() -> None:
    bad = next(case for case in CASES if case.name == "local-exec").bad
    tree = {**files(EMPTY), "modules/other/main.tf": ("100644", str(bad["main.tf"]).encode()), "tool": ("100755", b"")}
    assert vet(tree, "modules/m") == ()
    assert {one.rule for one in vet(tree, "modules/other")} == {"local-exec"}
    assert {one.rule for one in vet({**tree, "main.tf": ("100644", b"")}, ".")} == {"executable"}


def test_a_folder_without_a_module() -> None:
    assert [(one.rule, one.path) for one in vet(files(EMPTY), "modules/none")] == [("module-source", "modules/none")]


def test_a_message_says_what_to_do_and_where() -> None:
    (found,) = vet(files(next(case for case in CASES if case.name == "timestamp").bad), "modules/m")
    assert str(found) == (
        "modules/m/main.tf:2:11: impure-function: timestamp() differs at every plan: take the value as a variable"
    )


def test_findings_are_told_up_to_a_number_and_then_counted() -> None:
    text = "".join(f"x{number} {{\n}}\n" for number in range(1000))
    found = vet({"main.tf": ("100644", text.encode())}, "")
    assert len(found) == 201
    assert "too-large" in {one.rule for one in found}
    assert "too-large" not in LIFTABLE


BEGINNINGS = {
    "main.tf": ("", "locals {\n  a = ["),
    "main.tf.json": ('{"a":', '{"locals":{"a":["'),
    "x.tpl": ("",),
}


@pytest.mark.parametrize(
    "unit", ["-,", "[],", "[", "{a=", '"', '"$', "$", "${", "<<A\n", "/*", "#\n", "a{\n", "a{}\n", "(", "%{", "\\", '"a"{'],
)  # fmt: skip
@pytest.mark.parametrize(("name", "head"), [(name, head) for name, heads in BEGINNINGS.items() for head in heads])
def test_bombs_are_judged_in_time_and_space(unit: str, name: str, head: str) -> None:
    bomb = (head + unit * (512 << 10))[: 512 << 10].encode()
    caller = b'output "x" {\n  value = templatefile("${path.module}/x.tpl", {})\n}\n'
    tree = {"m/a.tf": ("100644", caller), f"m/{name}": ("100644", bomb)}
    with within(), beside(256):
        vet(tree, "m")


def test_thousands_of_files_are_judged_in_time_and_space() -> None:
    tree = {f"m/{number}.tf": ("100644", b"locals {\n}\n") for number in range(20_000)}
    with within(), beside(256):
        found = vet(tree, "m")
    assert found == ()
