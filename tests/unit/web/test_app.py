from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from reconciler.actual.ledger import (
    BreakGlassClosed,
    BreakGlassOpened,
    Frozen,
    HeadAccepted,
    HoldChanged,
    JobDispatched,
    JobEnded,
    LossAccepted,
    OutOfBand,
    Paused,
)
from reconciler.deciding.budgets import Capacity
from reconciler.errors import ConfigError
from reconciler.model import BreakGlass, Commit, Hold, UnitId
from reconciler.trust import Seen as SeenOnce
from reconciler.trust import Unproven
from reconciler.web.app import make_app
from reconciler.web.sentences import next_step
from reconciler.web.server import WebServer
from reconciler.web.view import Check
from tests.kit.line import waiting
from tests.kit.sample import (
    APP,
    HEAD,
    NETWORK,
    NOW,
    desired,
    dispatched,
    failure,
    outsider,
    pause,
    plan,
    planned,
    result,
    unit,
)
from tests.kit.served import Installation, Served, serve

CHANGES = plan(("file.a", ("create",)), ("file.b", ("delete", "create")))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    one = serve(tmp_path)
    one.installation.desired = desired(
        unit("prod/network"), unit("prod/app", reads=["prod/network"]), unit("stage/app"), broken=["stage/bad"]
    )
    with one.stack:
        yield one


@pytest.fixture
def installation(served: Served) -> Installation:
    return served.installation


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.server, trust_env=False) as client:
        yield client


def apply(installation: Installation, name: str = "prod/network") -> None:
    """Let the unit be applied, as the commit says."""
    fingerprint = installation.picture().expected[UnitId(name)]
    assert fingerprint is not None
    asked = dispatched(name, fingerprint, job=f"job-{name.replace('/', '-')}")
    ended = result(asked, summary=CHANGES)
    installation.store.append(JobEnded(asked, ended, None, NOW + timedelta(hours=1)))


def get(client: httpx.Client, path: str, code: int = 200, **parameters: str | int) -> Any:
    answer = client.get(path, params=parameters)
    assert answer.status_code == code, answer.text
    return answer.json()


# --- health ------------------------------------------------------------------------------------------------------


def test_the_process_answers(client: httpx.Client) -> None:
    assert client.get("/healthz").text == "ok\n"


def test_readiness_names_each_check(client: httpx.Client, installation: Installation) -> None:
    assert get(client, "/readyz")["ready"] is True
    installation.ready["runner"] = Check(False, "start it")
    answer = get(client, "/readyz", 503)
    assert answer["ready"] is False
    assert answer["checks"]["runner"] == {"ok": False, "message": "start it"}


def test_a_check_that_fails_is_part_of_the_status(client: httpx.Client, installation: Installation) -> None:
    installation.ready["git"] = Check(True, "the last poll failed")
    checks = get(client, "/api/v1/status")["checks"]
    assert checks == {"git": {"ok": True, "message": "the last poll failed"}, "store": {"ok": True, "message": ""}}


def test_metrics(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE reconciler_units gauge" in answer.text


def test_the_front_page_is_text(client: httpx.Client, installation: Installation) -> None:
    installation.store.append(HeadAccepted(HEAD), Frozen(Hold("HistoryRewritten", "see docs")))
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/plain")
    assert f"at commit {HEAD}" in answer.text
    assert "frozen: HistoryRewritten: see docs" in answer.text
    assert "prod: 2 OutOfSync Missing" in answer.text


# --- guard -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/v1/units", "/none", "/api/v1/units/prod/none"])
def test_every_answer_gives_a_browser_nothing_to_run(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_is_read_only(client: httpx.Client, method: str) -> None:
    assert client.request(method, "/api/v1/status").status_code == 405


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[::1", "a@127.0.0.1x"]
)
def test_a_foreign_host_is_refused(client: httpx.Client, host: str) -> None:
    assert client.get("/api/v1/status", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "[::1]:8080", "127.0.0.1"])
def test_our_own_names_are_known(client: httpx.Client, host: str) -> None:
    assert client.get("/api/v1/status", headers={"host": host}).status_code == 200


def test_a_configured_host_is_known(installation: Installation) -> None:
    with WebServer(make_app(installation, ["gitops.example"]), "127.0.0.1", 0) as (host, port):
        url = f"http://{host}:{port}/healthz"
        assert httpx.get(url, headers={"host": "gitops.example"}, trust_env=False).status_code == 200
        assert httpx.get(url, trust_env=False).status_code == 421


# --- units -------------------------------------------------------------------------------------------------------


def names(answer: Any) -> list[str]:
    return [one["unit"] for one in answer["units"]]


def test_units_by_page_and_choice(client: httpx.Client, installation: Installation) -> None:
    assert names(get(client, "/api/v1/units")) == ["prod/app", "prod/network", "stage/app", "stage/bad"]
    page = get(client, "/api/v1/units", limit=2, offset=1)
    assert (names(page), page["total"], page["next"]) == (["prod/network", "stage/app"], 4, 3)
    assert get(client, "/api/v1/units", limit=2, offset=2)["next"] is None
    assert names(get(client, "/api/v1/units", environment="stage")) == ["stage/app", "stage/bad"]
    assert names(get(client, "/api/v1/units", health="Degraded")) == ["stage/bad"]
    assert names(get(client, "/api/v1/units", q="app")) == ["prod/app", "stage/app"]
    assert names(get(client, "/api/v1/units", scope="prod/app")) == ["prod/app"]
    assert names(get(client, "/api/v1/units", scope="prod")) == ["prod/app", "prod/network"]
    apply(installation)
    assert names(get(client, "/api/v1/units", sync="Synced")) == ["prod/network"]


@pytest.mark.parametrize("bad", ["-1", "x", "1.5", "９", "9" * 20])
def test_a_number_is_a_number(client: httpx.Client, bad: str) -> None:
    assert "whole number" in get(client, "/api/v1/units", 400, offset=bad)["error"]


def test_a_unit_with_all_that_explains_it(client: httpx.Client, installation: Installation) -> None:
    apply(installation)
    installation.store.append(
        HoldChanged(APP, Hold("DependencyNotReady", "waits")),
        Paused(pause("prod/network")),
        JobDispatched(dispatched("prod/app")),
    )
    network = get(client, "/api/v1/units/prod/network")
    assert (network["sync"], network["health"], network["reason"]) == ("Synced", "Suspended", "Paused")
    assert network["desired"] == {
        "commit": HEAD,
        "file": "environments/prod/network.yaml:1:1",
        "module": "acme/vpc",
        "version": "1.4.2",
        "digest": "sha256:" + "0" * 64,
        "state": "present",
    }
    assert network["applied"]["job"] == "job-prod-network"
    assert network["plan"]["pending"] is False
    assert network["plan"]["changes"][1] == {
        "address": "file.b",
        "type": "file",
        "actions": ["delete", "create"],
        "reason": "",
    }
    assert [one["unit"] for one in network["dependents"]] == ["prod/app"]
    assert network["pauses"][0]["owner"] == "ann"
    app = get(client, "/api/v1/units/prod/app")
    assert [(one["unit"], one["sync"]) for one in app["dependencies"]] == [("prod/network", "Synced")]
    assert app["job"]["id"] == "j1"
    assert app["problem"] is None


def test_a_difference_is_named_by_its_cause(client: httpx.Client, installation: Installation) -> None:
    apply(installation)
    record = installation.store.ledger().units[NETWORK]
    assert record.applied is not None
    other = replace(record.applied.fingerprint, module="other", upstream="other")
    asked = dispatched("prod/network", other)
    installation.store.append(JobEnded(asked, result(asked, summary=CHANGES), None, None))
    assert get(client, "/api/v1/units/prod/network")["differs"] == ["catalog", "upstream"]


def test_a_failure_and_a_broken_entry(client: httpx.Client, installation: Installation) -> None:
    asked = dispatched("prod/network")
    failed = replace(result(asked), outcome=failure().outcome, applied=None, reason="EngineFailed")
    installation.store.append(JobEnded(asked, failed, NOW + timedelta(minutes=5), None))
    said = get(client, "/api/v1/units/prod/network")["failure"]
    assert (said["outcome"], said["reason"], said["count"]) == ("Failed", "EngineFailed", 1)
    bad = get(client, "/api/v1/units/stage/bad")
    assert bad["desired"] is None
    assert bad["problem"]["line"] == 3


def test_no_unit_of_that_name_says_which_there_are(client: httpx.Client) -> None:
    assert get(client, "/api/v1/units/dev/app", 404)["error"] == "no unit dev/app; did you mean prod/app, stage/app?"
    assert "reconciler status" in get(client, "/api/v1/units/dev/zzz", 404)["error"]
    assert get(client, "/api/v1/nothing", 404)["error"] == "Not Found"


def test_a_session_and_what_it_left(client: httpx.Client, installation: Installation) -> None:
    apply(installation)
    session = BreakGlass("prod", "ann", "the site is down", NOW, NOW + timedelta(hours=1))
    installation.store.append(BreakGlassOpened(session))
    (one,) = get(client, "/api/v1/status")["break_glass"]
    assert (one["scope"], one["owner"], one["until"]) == ("prod", "ann", "2026-11-24T11:00:00Z")
    network = get(client, "/api/v1/units/prod/network")
    assert (network["health"], network["reason"], network["break_glass"]) == ("Suspended", "BreakGlass", one)
    assert next_step(network).startswith("nothing until 2026-11-24 11:00:00 UTC; `reconciler break-glass close prod`")
    assert get(client, "/api/v1/units/stage/app")["break_glass"] is None
    for page, words in (
        ("/", ("Break-glass in prod until", "break-glass until 2026-11-24 11:00")),
        ("/stopped", ("1 open by break-glass", "the site is down")),
        ("/units/prod/network", ("ann works by hand in prod",)),
        ("/journal", ("by ann until 2026-11-24 11:00:00 UTC: the site is down",)),
    ):
        text = client.get(page, headers={"accept": "text/html"}).text
        assert [word for word in words if word not in text] == []
    closed = BreakGlassClosed(session, NOW, "clock")
    installation.store.append(
        closed, HoldChanged(NETWORK, Hold("AfterBreakGlass", "m")), LossAccepted("prod", "why", "ann", (NETWORK,))
    )
    network = get(client, "/api/v1/units/prod/network")
    assert (network["health"], network["reason"], network["break_glass"]) == ("Degraded", "AfterBreakGlass", None)
    assert network["aftermath"]["accepted"] is True
    assert "a plan that changes nothing lets applies through" in next_step(network)
    text = client.get("/journal", headers={"accept": "text/html"}).text
    assert "the session of ann, by clock" in text
    assert "what was done by hand in 1 units may be put back: why" in text


def test_history_of_a_unit_and_of_a_scope(client: httpx.Client, installation: Installation) -> None:
    apply(installation)
    installation.store.append(Paused(pause("all")))
    events = get(client, "/api/v1/units/prod/network/history")["events"]
    assert [event["action"] for event in events] == ["paused", "job-ended"]
    assert len(get(client, "/api/v1/history", limit=1)["events"]) == 1
    assert get(client, "/api/v1/history", scope="stage")["events"][0]["unit"] == "all"


def test_a_unit_may_be_called_history(client: httpx.Client, installation: Installation) -> None:
    installation.desired = desired(unit("prod/history"))
    assert get(client, "/api/v1/units/prod/history")["unit"] == "prod/history"
    assert get(client, "/api/v1/units/prod/history/history")["events"] == []


# --- the rest ----------------------------------------------------------------------------------------------------


def test_status_has_the_whole_in_a_few_lines(client: httpx.Client, installation: Installation) -> None:
    installation.store.append(HeadAccepted(HEAD), Paused(pause("prod")), JobDispatched(dispatched("prod/app")))
    installation.observer.beat()
    installation.observer.queued(waiting(NETWORK), Capacity(2, 2))
    seen = get(client, "/api/v1/status")
    assert (seen["commit"], seen["resolved"], seen["frozen"], seen["troubled"]) == (HEAD, HEAD, None, True)
    assert {"environment": "stage", "sync": "Unknown", "health": "Degraded", "units": 1} in seen["counts"]
    assert [one["scope"] for one in seen["pauses"]] == ["prod"]
    assert seen["problems"][0]["file"] == "environments/stage/bad.yaml"
    assert [one["unit"] for one in seen["running"]] == ["prod/app"]
    assert [one["unit"] for one in seen["queued"]] == ["prod/network"]
    assert seen["heartbeat"] == "2026-11-24T10:00:00Z"
    assert seen["runner"] == {"engine": "tofu", "version": "1.12.3"}


def test_status_tells_what_of_the_branch_is_trusted(client: httpx.Client, installation: Installation) -> None:
    other, tip = Commit("a" * 40), Commit("b" * 40)
    installation.desired = desired(unit("prod/network"))
    apply(installation)
    installation.store.append(HeadAccepted(HEAD, (), other))
    nothing = {"accepted_head": HEAD, "base": other, "frozen": None, "unproven": None, "verified_at": None}
    assert get(client, "/api/v1/status")["trust"] == nothing
    assert get(client, "/api/v1/status")["troubled"] is False
    installation.seen = SeenOnce(NOW, Unproven(other, "SignatureMissing", "sign it", tip))
    seen = get(client, "/api/v1/status")
    waits = {"commit": other, "reason": "SignatureMissing", "message": "sign it", "head": tip}
    assert (seen["trust"]["unproven"], seen["trust"]["verified_at"]) == (waits, "2026-11-24T10:00:00Z")
    assert seen["troubled"] is True
    installation.store.append(Frozen(Hold("HistoryRewritten", "see docs"), NOW))
    frozen = {"reason": "HistoryRewritten", "message": "see docs", "since": "2026-11-24T10:00:00Z"}
    assert get(client, "/api/v1/status")["trust"]["frozen"] == frozen


def test_before_the_first_commit_there_is_an_answer_too(client: httpx.Client, installation: Installation) -> None:
    installation.desired = None
    seen = get(client, "/api/v1/status")
    assert (seen["commit"], seen["counts"], seen["troubled"]) == (None, [], False)
    assert get(client, f"/api/v1/commits/{HEAD}")["accepted"] is False


def test_which_units_wait_for_a_commit(client: httpx.Client, installation: Installation) -> None:
    older = Commit("a" * 40)
    installation.store.append(HeadAccepted(HEAD, (older,)))
    apply(installation)
    waiting = [one["unit"] for one in get(client, f"/api/v1/commits/{older}")["waiting"]]
    assert waiting == ["prod/app", "stage/app", "stage/bad"]
    installation.desired = desired(unit("prod/network"))
    assert get(client, f"/api/v1/commits/{HEAD}") == {
        "commit": HEAD,
        "accepted": True,
        "head": HEAD,
        "frozen": None,
        "stopped": None,
        "verified_at": None,
        "waiting": [],
    }
    assert get(client, f"/api/v1/commits/{'b' * 40}")["accepted"] is False
    assert "40 lower-case" in get(client, "/api/v1/commits/main", 400)["error"]


def test_a_commit_that_is_accepted_and_not_worked_out_yet_says_nothing(
    client: httpx.Client, installation: Installation
) -> None:
    newer = Commit("c" * 40)
    installation.store.append(HeadAccepted(HEAD, ()))
    installation.desired = desired(unit("prod/network"))
    installation.store.append(HeadAccepted(newer, (HEAD,)))
    answer = get(client, f"/api/v1/commits/{newer}")
    assert (answer["accepted"], answer["waiting"]) == (False, [])
    assert get(client, f"/api/v1/commits/{HEAD}")["accepted"] is True  # what is shown is of that one


def test_a_log_from_an_offset_on(client: httpx.Client, installation: Installation) -> None:
    (installation.logs / "j1").write_bytes(b"first\nsecond\n")
    installation.store.append(JobDispatched(dispatched("prod/app")))
    answer = client.get("/api/v1/jobs/j1/log", params={"offset": 6})
    assert answer.content == b"second\n"
    assert answer.headers["reconciler-next-offset"] == "13"
    assert answer.headers["reconciler-running"] == "true"
    assert client.get("/api/v1/jobs/j2/log").headers["reconciler-running"] == "false"


@pytest.mark.parametrize("job", ["..", ".hidden", "a%20b", "%2e%2e", "x" * 200])
def test_a_job_has_a_name(client: httpx.Client, job: str) -> None:
    assert client.get(f"/api/v1/jobs/{job}/log").status_code == 404


def test_a_silent_runner_is_a_503_with_its_remedy(client: httpx.Client, installation: Installation) -> None:
    installation.silent = True
    answer = get(client, "/api/v1/jobs/j1/log", 503)
    assert answer["reason"] == "RunnerUnavailable"
    assert "start it" in answer["error"]


def test_a_pending_plan_is_marked(client: httpx.Client, installation: Installation) -> None:
    apply(installation)
    asked = dispatched("prod/network", job="j2")
    seen = planned(CHANGES)
    drift = replace(
        result(asked, summary=CHANGES), applied=None, ended_at=seen.at, cause=seen.cause, job=replace(asked.job)
    )
    installation.store.append(JobEnded(asked, drift, None, None))
    answer = get(client, "/api/v1/units/prod/network")
    assert answer["plan"]["pending"] is True
    assert answer["drift_since"] is not None


# --- server ------------------------------------------------------------------------------------------------------


def test_an_address_in_use_is_said(installation: Installation) -> None:
    with WebServer(make_app(installation), "127.0.0.1", 0) as (host, port):
        third = WebServer(make_app(installation), host, port)
        with pytest.raises(ConfigError, match=r"http\.listen"):
            third.start()
    second = WebServer(make_app(installation), host, port)
    second.start()
    second.stop()
    second.stop()


def test_what_others_wrote_is_everywhere_until_the_unit_is_in_order(
    client: httpx.Client, installation: Installation
) -> None:
    apply(installation)
    assert get(client, "/api/v1/status")["out_of_band"] == []
    assert get(client, "/api/v1/units/prod/network")["out_of_band"] is None
    installation.store.append(OutOfBand(outsider(), ("d1",)), actor="cloudtrail")
    (one,) = get(client, "/api/v1/status")["out_of_band"]
    assert (one["principal"], one["count"], one["unsettled"], one["seen_at"]) == (
        "mallory",
        7,
        1,
        "2026-11-24T10:00:00Z",
    )
    found = get(client, "/api/v1/units/prod/network")["out_of_band"]
    assert (found["mark"]["looked"], [change["calls"] for change in found["changes"]]) == (
        False,
        [["ec2:RunInstances"]],
    )
    words = "mallory wrote in 111111111111: 7 calls (ec2:RunInstances) of i-1, last at 2026-11-24 10:00:00 UTC"
    for page, said in (
        ("/", ("Somebody else wrote in prod", "1 of its units are not known to be in order since")),
        ("/units/prod/network", (words, "OutOfBand")),
        ("/journal", (words,)),
    ):
        text = client.get(page, headers={"accept": "text/html"}).text
        assert all(word in text for word in said), (page, said)
    apply(installation)
    assert get(client, "/api/v1/units/prod/network")["out_of_band"] is None
    assert "has been found in order since" in client.get("/", headers={"accept": "text/html"}).text
    installation.store.append(*(OutOfBand(outsider(principal=f"p{n}"), ()) for n in range(5)))
    assert "more are in the journal" in client.get("/", headers={"accept": "text/html"}).text
