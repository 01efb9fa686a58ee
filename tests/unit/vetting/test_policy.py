from __future__ import annotations

from pathlib import Path

from reconciler.vetting import LIFTABLE, RULES, Finding, Waiver, judge_findings, usable

DOCUMENT = Path(__file__).parents[3] / "docs" / "security.md"


def finding(rule: str = "local-exec", path: str = "m/main.tf") -> Finding:
    return Finding(rule, path, 1, 1, "mend it")


def waiver(rule: str = "local-exec", path: str | None = None, version: str = "1.0.0") -> Waiver:
    return Waiver("acme/m", version, rule, "looked at", path)


def test_what_is_let_pass_and_what_is_not_needed() -> None:
    found = (finding(), finding(path="m/n/main.tf"), finding("connection"))
    given = (waiver(path="m/main.tf"), waiver("http-data"), waiver("connection", version="2.0.0"))
    verdict = judge_findings(found, given, "acme/m", "1.0.0")
    assert verdict.findings == found[1:]
    assert verdict.waived == found[:1]
    assert verdict.idle == (given[1],)


def test_no_exception_lifts_what_everything_else_rests_on() -> None:
    for rule in set(RULES) - set(LIFTABLE):
        verdict = judge_findings((finding(rule),), (waiver(rule),), "acme/m", "1.0.0")
        assert verdict.findings == (finding(rule),)


def test_providers_of_the_pin_as_far_as_the_catalog_allows_them() -> None:
    aws, random = "hashicorp/aws", "hashicorp/random"
    assert usable(None, []) is None
    assert usable(None, [aws]) == frozenset((aws,))
    assert usable([aws, random], []) == frozenset((aws, random))
    assert usable([aws, random], [f"registry.terraform.io/{aws}"]) == frozenset((aws,))
    assert usable([], [aws]) == frozenset()


def test_the_document_has_every_rule_in_its_words() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for rule, what in RULES.items():
        assert f"| `{rule}` | {what} |{'' if rule in LIFTABLE else ' no'} |" in text
