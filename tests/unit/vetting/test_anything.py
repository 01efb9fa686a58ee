"""Whatever the bytes: findings and nothing else, soon, at places that exist."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.vetting import RULES, Files, vet
from tests.kit.hostile_modules import CASES, Case, files
from tests.kit.stopwatch import beside, within

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = st.sampled_from(["main.tf", "main.tf.json", "x.tofu", "x.tofu.json", "x.tpl", "x_override.tf", "a.bin"])
WORDS = st.sampled_from(
    [
        '"', "${", "}", "{", "[", "]", "(", ")", "<<E\n", "E\n", "\n", "\r\n", "=", ",", ":", "::", ".", "$", "%", "%{", "~", "#",
        "/*", "*/", "//", "\\", " ", "file", "path", "module", "for", "in", "source", "resource", "provisioner", '"local-exec"',
        "templatefile", "terraform", "required_providers", "null", "1", "é", "\ufeff", "\\u0041", "-", "!", "provider",
    ]
)  # fmt: skip
TEXTS = st.lists(WORDS, max_size=60).map(lambda words: "".join(words).encode())
CALLER = ("100644", b'output "x" {\n  value = templatefile("${path.module}/x.tpl", {})\n}\n')
BAD = 'resource "terraform_data" "bad" {\n  provisioner "local-exec" {\n    command = "true"\n  }\n}\n'


def judged(tree: Files) -> None:
    with within(), beside(256):
        found = vet(tree, "modules/m", frozenset(("hashicorp/aws",)))
    for one in found:
        assert one.rule in RULES
        assert one.message
        if one.line:
            lines = tree[one.path][1].decode("utf-8", "replace").split("\n")
            assert 1 <= one.line <= len(lines)
            assert 1 <= one.column <= len(lines[one.line - 1]) + 1


@FUZZ
@given(st.dictionaries(NAMES, st.binary(max_size=400), max_size=4))
def test_random_bytes(made: dict[str, bytes]) -> None:
    judged({"modules/m/c.tf": CALLER, **{f"modules/m/{name}": ("100644", text) for name, text in made.items()}})


@FUZZ
@given(st.dictionaries(NAMES, TEXTS, max_size=4))
def test_pieces_of_the_language_in_any_order(made: dict[str, bytes]) -> None:
    judged({"modules/m/c.tf": CALLER, **{f"modules/m/{name}": ("100644", text) for name, text in made.items()}})


@FUZZ
@given(st.sampled_from(CASES), st.data())
def test_modules_that_were_cut_and_spliced(case: Case, data: st.DataObject) -> None:
    trees = [case.bad, case.twin]
    made = dict(files(data.draw(st.sampled_from(trees))))
    path = data.draw(st.sampled_from(sorted(made)))
    mode, text = made[path]
    start, end = (data.draw(st.integers(0, min(len(text), 2000))) for _ in range(2))
    piece = data.draw(st.one_of(st.binary(max_size=8), TEXTS))
    judged({**made, path: (mode, text[:start] + piece + text[end:])})


@FUZZ
@given(TEXTS)
def test_nothing_before_it_hides_a_provisioner(text: bytes) -> None:
    """Either the file cannot be read for certain, or what stands below is seen, or it is inside of what is no code."""
    tree = {"modules/m/main.tf": ("100644", text + b"\n" + BAD.encode())}
    rules = {one.rule for one in vet(tree, "modules/m")}
    inside = b"<<E" in text or b"/*" in text
    assert inside or rules & {"local-exec", "invalid-syntax", "ambiguous-syntax", "too-large"}
