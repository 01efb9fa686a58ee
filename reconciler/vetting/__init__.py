"""The catalog audit: what a vetted module must not have, found in the bytes of its pinned tree.

It reads as strictly as no engine does: where another reader could see something else in the same bytes, it refuses. It is
no boundary (a provider may do anything); it keeps out what a review would have to find by eye.
"""

from reconciler.vetting.audit import vet
from reconciler.vetting.facts import FILE_BYTES, LIFTABLE, RULE_SET, RULES, Files, Finding
from reconciler.vetting.policy import Verdict, Waiver, judge_findings, usable

__all__ = [
    "FILE_BYTES",
    "LIFTABLE",
    "RULES",
    "RULE_SET",
    "Files",
    "Finding",
    "Verdict",
    "Waiver",
    "judge_findings",
    "usable",
    "vet",
]
