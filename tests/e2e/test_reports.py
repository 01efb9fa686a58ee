"""What people see at the forge, from the open pull request to the applied merge: three dialects, both planes, real Terraform."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.controller.reports import marker
from tests.e2e.test_reviews import ENTRIES, entry, living
from tests.kit.forge import KINDS
from tests.kit.plane import CATALOG, note

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pull_request_is_followed_to_its_apply(tmp_path: Path, kind: str) -> None:
    with living(tmp_path, ENTRIES, CATALOG, kind, reports=True) as street:
        wall, until = street.site.wall, street.house.until
        pull = street.open({entry("a"): note("b")}, "change")
        until(lambda: wall.of(pull.number) and "1 to" in wall.of(pull.number)[0].body, "the comment shows the plan")
        (remark,) = wall.of(pull.number)
        assert remark.body.startswith(marker("reconciler"))
        assert "<code>prod/a</code>" in remark.body
        fine = {"success"}
        until(lambda: {s["state"] for s in wall.marks(pull.head).values()} == fine, "validate and plan succeed")
        assert set(wall.marks(pull.head)) == {"reconciler/validate", "reconciler/plan"}

        merged = street.merge(pull)
        street.house.synced(commit=merged)
        context = "reconciler/apply: prod/a"
        until(lambda: wall.marks(merged).get(context, {}).get("state") == "success", "the merge commit says applied")
        assert set(wall.marks(merged)) == {context}
        assert len(wall.of(pull.number)) == 1
        assert wall.violations == []


def test_a_forge_that_takes_no_reports_holds_nothing(tmp_path: Path) -> None:
    """Reading works, writing does not: a token without the right, a limit, an outage of that part."""
    with living(tmp_path, ENTRIES, CATALOG, "github", reports=True) as street:
        street.site.deaf = True
        pull = street.open({entry("a"): note("b")}, "change")
        street.state(pull, "prod/a", "planned")
        merged = street.merge(pull)
        street.house.synced(commit=merged)
        assert street.site.wall.of(pull.number) == []
        street.site.deaf = False
        marks = street.site.wall.marks
        street.house.until(lambda: marks(merged), "what became of the merge is said in the end", patience=90)
        metrics = street.house.text("/metrics")
        assert 'reconciler_reports_total{result="failed",sink="status"}' in metrics
