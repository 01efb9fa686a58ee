"""The dashboards for Grafana 11, as code. `make dashboards` writes dashboards/*.json; a test holds the two together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as Series
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh, VariableSort
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
THIRD, HALF, WHOLE = 8, 12, 24  # of Grafana's 24 columns
HIGH = 8  # rows of a panel
Query = tuple[str, str]  # expression, legend


def overview() -> Dashboard:
    """How everything fares, and whether the daemon itself does."""
    return (
        _dashboard("reconciler-overview", "reconciler / overview", "How everything fares, and the daemon itself.")
        .with_row(Row("Environments"))
        .with_panel(_stat("Units in order", "percentunit", '1 - reconciler:units_out_of_order:ratio{environment=~"$environment"}', "{{environment}}"))
        .with_panel(_stat("Degraded units", "none", 'sum by (environment) (reconciler_units{environment=~"$environment",health_status="Degraded"})', "{{environment}}"))
        .with_panel(_stat("Paused scopes", "none", "sum(reconciler_paused)", "paused"))
        .with_panel(_series("Units by sync status", "none", [('sum by (sync_status) (reconciler_units{environment=~"$environment"})', "{{sync_status}}")], HALF))
        .with_panel(_series("Held units by reason", "none", [('sum by (reason) (reconciler_units_held{environment=~"$environment"}) > 0', "{{reason}}")], HALF))
        .with_panel(_series("Error budget: out of order, by window", "percentunit", [
            ('reconciler:units_out_of_order:ratio_1h{environment=~"$environment"}', "{{environment}}, 1 h"),
            ('reconciler:units_out_of_order:ratio_6h{environment=~"$environment"}', "{{environment}}, 6 h"),
        ], HALF))
        .with_panel(_series("Merge to applied, 95th percentile", "s", [('reconciler:merge_to_applied_seconds:p95_1h{environment=~"$environment"}', "{{environment}}")], HALF))
        .with_row(Row("The daemon"))
        .with_panel(_series("Since the loop's last pass", "s", [("time() - reconciler_loop_heartbeat_timestamp_seconds", "seconds")], THIRD))
        .with_panel(_series("Since a repository was reached", "s", [("time() - (reconciler_git_last_success_timestamp_seconds > 0)", "{{repository}}")], THIRD))
        .with_panel(_series("Parts that answer", "none", [("reconciler_ready", "{{check}}")], THIRD))
        .with_panel(_series("Polls", "ops", [("sum by (repository, result) (rate(reconciler_git_polls_total[5m]))", "{{repository}}, {{result}}")], HALF))
        .with_panel(_series("Time of a poll, 95th percentile", "s", [("histogram_quantile(0.95, sum by (repository, le) (rate(reconciler_git_poll_duration_seconds_bucket[5m])))", "{{repository}}")], HALF))
        .with_row(Row("Trust and audit"))
        .with_panel(_series("What stops applies", "none", [
            ("reconciler_unverified_head", "head not proven: {{repository}}"),
            ("reconciler_runner_unverified_head", "head not proven: runner"),
            ("(reconciler_frozen_since_timestamp_seconds > 0) * 0 + 1", "frozen: {{reason}}"),
            ("(reconciler_runner_frozen_since_timestamp_seconds > 0) * 0 + 1", "frozen on the runner: {{reason}}"),
        ], HALF))
        .with_panel(_series("Audit records without an anchor", "none", [('reconciler_audit_records{in="log"} - on () reconciler_audit_records{in="anchor"}', "records")], HALF))
        .with_panel(_series("States that no job made", "none", [('increase(reconciler_unexplained_serials_total{environment=~"$environment"}[1h])', "{{environment}}")], THIRD))
        .with_panel(_series("Written by others in the accounts", "none", [('sum by (environment, by) (increase(reconciler_out_of_band_changes_total{environment=~"$environment"}[1h]))', "{{environment}}, {{by}}")], THIRD))
        .with_panel(_series("Connections that jails refused", "none", [('increase(reconciler_egress_refused_total{environment=~"$environment"}[1h])', "{{environment}}")], THIRD))
        .with_panel(_series("Asked by admins and CI", "none", [
            ("sum by (action, result) (increase(reconciler_admin_actions_total[1h])) > 0", "{{action}}, {{result}}"),
            ("sum by (result) (increase(reconciler_trigger_requests_total[1h])) > 0", "trigger, {{result}}"),
        ], THIRD))
    )  # fmt: skip


def units() -> Dashboard:
    """What is not in order, and what was done."""
    ages = 'time() - (reconciler_unit_drift_since_timestamp_seconds{environment=~"$environment"} > 0)'
    return (
        _dashboard("reconciler-units", "reconciler / units and jobs", "What is not in order, and what was done about it.")
        .with_row(Row("Not in order"))
        .with_panel(_table("Degraded", 'reconciler_unit_health_status{environment=~"$environment",status="Degraded"} == 1'))
        .with_panel(_table("Out of sync", 'reconciler_unit_sync_status{environment=~"$environment",status="OutOfSync"} == 1'))
        .with_panel(_table("Changes that wait", 'reconciler_unit_pending_changes{environment=~"$environment"} > 0'))
        .with_panel(_table("Failures in a row", 'topk(50, reconciler_unit_consecutive_failures{environment=~"$environment"} > 0)'))
        .with_panel(_series("Open drift, by unit", "s", [(ages, "{{unit}}")], HALF))
        .with_panel(_series("Next look overdue", "s", [('time() - (reconciler_next_check_timestamp_seconds{environment=~"$environment"} > 0) > 0', "{{environment}}")], HALF))
        .with_row(Row("Jobs"))
        .with_panel(_series("Jobs that ended", "ops", [('sum by (operation, outcome) (reconciler:jobs:rate5m{environment=~"$environment"}) > 0', "{{operation}} {{outcome}}")], HALF))
        .with_panel(_series("Time of a job by phase, median", "s", [('histogram_quantile(0.5, sum by (phase, le) (rate(reconciler_job_duration_seconds_bucket{environment=~"$environment"}[15m])))', "{{phase}}")], HALF))
        .with_panel(_series("Running and waiting", "none", [
            ('sum by (environment) (reconciler_jobs_in_progress{environment=~"$environment"})', "{{environment}} runs"),
            ('sum by (environment) (reconciler_queue_depth{environment=~"$environment"})', "{{environment}} waits"),
        ], HALF))
        .with_panel(_series("Jobs that wait for a cloud, and accounts that throttle", "none", [
            ('sum by (environment) (reconciler_jobs_idle{environment=~"$environment"}) > 0', "{{environment}} waits for a cloud"),
            ('reconciler_account_jobs_limit{environment=~"$environment"} > 0', "{{environment}} may have at most"),
            ('sum by (environment) (increase(reconciler_jobs_throttled_total{environment=~"$environment"}[15m])) > 0', "{{environment}} throttled"),
        ], HALF))
        .with_panel(_series("What the queue waits for", "none", [('reconciler_queue_limit{environment=~"$environment"} > 0', "{{environment}} {{limit}}")], HALF))
        .with_panel(_series("Memory of jobs", "bytes", [("reconciler_jobs_memory_bytes", "taken"), ("reconciler_jobs_memory_limit_bytes > 0", "limit")], HALF))
        .with_panel(_series("CPU of jobs", "none", [('sum by (environment) (rate(reconciler_job_cpu_seconds_total{environment=~"$environment"}[5m]))', "{{environment}}")], HALF))
        .with_panel(_series("Objects changed", "none", [('sum by (action) (increase(reconciler_resources_changed_total{environment=~"$environment"}[1h]))', "{{action}}")], HALF))
        .with_panel(_series("Open pull requests", "none", [("reconciler_open_pull_requests", "open")], HALF))
        .with_panel(_series("Plans of pull requests", "ops", [("sum by (outcome) (rate(reconciler_pull_request_plans_total[15m])) > 0", "{{outcome}}")], HALF))
    )  # fmt: skip


DASHBOARDS = {"overview": overview, "units": units}


def _dashboard(uid: str, title: str, about: str) -> Dashboard:
    environments = (
        QueryVariable("environment")
        .label("Environment")
        .datasource(SOURCE)
        .query("label_values(reconciler_units, environment)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
    )
    return (
        Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["reconciler", "generated"])
        .timezone("browser")
        .refresh("30s")
        .time("now-6h", "now")
        .readonly()
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(environments)
    )


def _query(expr: str, legend: str) -> Dataquery:
    return Dataquery().datasource(SOURCE).expr(expr).legend_format(legend).ref_id("A")


def _stat(title: str, unit: str, expr: str, legend: str) -> Stat:
    asked = _query(expr, legend).instant()
    return Stat().title(title).datasource(SOURCE).unit(unit).span(THIRD).height(HIGH // 2).with_target(asked)


def _series(title: str, unit: str, queries: Sequence[Query], width: int) -> Series:
    legend = (
        VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
    )
    panel = Series().title(title).datasource(SOURCE).unit(unit).min(0).span(width).height(HIGH).legend(legend)
    for number, (expr, said) in enumerate(queries):
        panel = panel.with_target(_query(expr, said).ref_id(chr(ord("A") + number)))
    return panel


def _table(title: str, expr: str) -> Table:
    asked = _query(expr, "").instant().format(PromQueryFormat.TABLE)
    return Table().title(title).datasource(SOURCE).span(HALF).height(HIGH).with_target(asked)


def texts() -> dict[str, str]:
    """Each dashboard's name and its JSON."""
    return {
        name: JSONEncoder(sort_keys=True, indent=2).encode(make().build()) + "\n" for name, make in DASHBOARDS.items()
    }


def main() -> None:
    """Write them where Grafana's provisioning, and a test, look."""
    for name, text in texts().items():
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
