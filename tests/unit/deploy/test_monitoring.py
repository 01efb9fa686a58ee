"""What deploy/monitoring says holds together: rules, tests of rules, dashboards, runbooks, and the metrics that there are."""

from __future__ import annotations

import re
import runpy
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from reconciler.actual.ledger import JobEnded
from reconciler.model import Outcome
from reconciler.store.sqlite import SqliteStore
from reconciler.web.view import Check
from tests.e2e import test_alerts, test_alerts_rare
from tests.kit.rules import (
    ALERTS,
    FOLDER,
    GIVEN,
    GIVEN_METRICS,
    RECORDED,
    Asked,
    asked,
    dashboards,
    expressions,
    rules,
    scaled,
)
from tests.kit.sample import NOW, FixedClock, dispatched, result
from tests.kit.served import Installation
from tests.kit.watched import NOT_DRIVEN
from tests.unit.test_observe import CHANGES, populate

RUNBOOKS = FOLDER.parents[1] / "docs" / "runbooks.md"
ASKED = {where: asked(expr) for where, expr in expressions().items()}
Labels = dict[str, dict[str, set[str]]]  # metric -> label -> values


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    """Every series of an installation to which something of everything has happened."""
    folder = tmp_path_factory.mktemp("scrape")
    store = SqliteStore(folder / "s.db", FixedClock())
    installation = Installation(store, folder)
    installation.ready["runner"] = Check(True)
    populate(installation)
    installation.observer.notifying(["ops"])
    asked_for = dispatched("prod/app")
    waits = replace(result(asked_for, Outcome.FAILED), plan=CHANGES)
    store.append(JobEnded(asked_for, waits, NOW, None))
    installation.observer.protection_seen("environments", {"force_push_forbidden": (False, "no")}, NOW)
    found: Labels = defaultdict(lambda: defaultdict(set))
    for family in text_string_to_metric_families(installation.metrics().decode()):
        for sample in family.samples:
            found[sample.name]["__name__"].add(sample.name)
            for label, value in sample.labels.items():
                found[sample.name][label].add(value)
    store.close()
    for rule in rules(RECORDED):
        found[rule["record"]]["__name__"].add(rule["record"])
        for label, values in _of(ASKED[rule["record"]], found).items():
            found[rule["record"]][label] |= values
    return found


def _of(one: Asked, known: Labels) -> dict[str, set[str]]:
    """The labels that an expression's result has, with their values: those that it groups by, or all."""
    inner = {label: values for metric in one.metrics for label, values in known[metric].items()}
    return {label: values for label, values in inner.items() if not one.grouped or label in one.grouped}


def test_promtool_accepts_every_rule_and_every_test_of_them_passes() -> None:
    checked = promtool("check", "rules", ALERTS, RECORDED)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool("test", "rules", *sorted((FOLDER / "tests").glob("*.yaml")))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_clears() -> None:
    shown: dict[str, set[bool]] = defaultdict(set)
    for path in (FOLDER / "tests").glob("*.yaml"):
        for one in yaml.safe_load(path.read_text())["tests"]:
            for ask in one["promql_expr_test"]:
                name = re.search(r'alertname="(\w+)"', ask["expr"])
                assert name is not None, ask
                shown[name[1]].add(bool(ask["exp_samples"]))
    assert shown == {rule["alert"]: {True, False} for rule in rules(ALERTS)}


def test_each_alert_is_driven_live_or_it_says_why_not() -> None:
    driven = {name for story in (test_alerts.STORY, test_alerts_rare.STORY) for _, names in story for name in names}
    assert driven & NOT_DRIVEN.keys() == set()
    assert driven | NOT_DRIVEN.keys() == {rule["alert"].removeprefix("Reconciler") for rule in rules(ALERTS)}


def test_each_alert_says_what_it_is_and_where_to_read_on() -> None:
    sections = set(re.findall(r"^## (Reconciler\w+)$", RUNBOOKS.read_text(), re.MULTILINE))
    names = [rule["alert"] for rule in rules(ALERTS)]
    assert sections == set(names)
    assert len(names) == len(set(names))
    for rule in rules(ALERTS):
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}
        assert notes["runbook_url"].endswith(f"#{rule['alert'].lower()}")
        assert rule["labels"]["severity"] in {"critical", "warning"}


@pytest.mark.parametrize("where", sorted(ASKED))
def test_what_is_asked_for_exists(where: str, scrape: Labels) -> None:
    one = ASKED[where]
    unknown = {metric for metric in one.metrics if metric not in scrape} - GIVEN_METRICS
    assert unknown == set()
    for metric, label, operator, value in one.matchers:
        if label in GIVEN:
            continue
        assert label in scrape[metric], f"{metric} has no label {label}"
        seen = scrape[metric][label]
        for word in value.split("|") if operator in {"=~", "!~"} else [value]:
            assert word == ".*" or word in seen, f"{metric} never has {label}={word}"
    labels = {label for metric in one.metrics for label in scrape.get(metric, ())}
    assert one.grouped <= labels | GIVEN


def test_the_check_would_notice(scrape: Labels) -> None:
    assert "reconciler_nobody_exports" not in scrape
    assert "Degradet" not in scrape["reconciler_unit_health_status"]["status"]
    one = asked('sum by (nobody) (rate(reconciler_jobs_total{outcome=~"A|B"}[5m])) / on (x) reconciler_units > 1')
    assert one.metrics == {"reconciler_jobs_total", "reconciler_units"}
    assert one.matchers == {("reconciler_jobs_total", "outcome", "=~", "A|B")}
    assert one.grouped == {"nobody", "x"}
    with pytest.raises(ValueError):
        asked("sum by (")


def test_the_dashboards_are_what_the_code_makes() -> None:
    made = runpy.run_path(str(FOLDER / "dashboards.py"))["texts"]()
    on_disk = {path.stem: path.read_text() for path in (FOLDER / "dashboards").glob("*.json")}
    assert on_disk == made, "run `make dashboards`"


def test_a_dashboard_uses_the_data_source_that_its_reader_chooses() -> None:
    for board in dashboards().values():
        assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "environment"]
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        assert {panel["datasource"]["uid"] for panel in panels} == {"$datasource"}
        assert all(panel["targets"] for panel in panels)
        titles = [panel["title"] for panel in panels]
        assert len(titles) == len(set(titles))


def test_a_scaled_copy_differs_in_its_times_only(tmp_path: Path) -> None:
    for path in (ALERTS, RECORDED):
        copy = tmp_path / path.name
        copy.write_text(scaled(path, waits="1s", age=3, window="9s", ages={"ReconcilerLoopStalled": 15}))
        assert promtool("check", "rules", copy).returncode == 0
        assert [set(rule) for rule in rules(copy)] == [set(rule) for rule in rules(path)]
        assert not re.search(r"\* (60|3600)|\[\d+[mh]\]", copy.read_text())
    stalled = next(rule for rule in rules(tmp_path / ALERTS.name) if rule["alert"] == "ReconcilerLoopStalled")
    assert (stalled["expr"][-4:], stalled["for"]) == ("> 15", "1s")


def durations() -> Iterator[str]:
    for rule in rules(ALERTS):
        yield rule.get("for", "0s")


def test_no_alert_waits_for_longer_than_an_hour_beyond_its_threshold() -> None:
    units = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1)}
    assert max(int(text[:-1]) * units[text[-1]] for text in durations()) <= timedelta(hours=1)
