from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from markupsafe import escape

from reconciler.actual.ledger import Frozen, HeadAccepted, HoldChanged, JobDispatched, JobEnded, Paused, PullShown
from reconciler.forge.facts import Pull
from reconciler.git.proofs import Proof
from reconciler.model import (
    Hold,
    JobId,
    Load,
    Outcome,
    Phase,
    RunnerFacts,
    TrustFacts,
)
from reconciler.reviewing import PullStatus, UnitShown
from reconciler.trust import Seen as SeenOnce
from reconciler.trust import Unproven
from reconciler.web.view import Check
from tests.kit.naughty import NAUGHTY, addresses, spoil
from tests.kit.sample import APP, HEAD, NETWORK, NOW, desired, dispatched, pause, plan, result, unit
from tests.kit.served import FACTS, Installation, Served, serve

HTML = {"accept": "text/html"}
CHANGES = plan(("file.a", ("create",)), ("file.b", ("delete", "create")), ("file.c", ("delete",)))


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
    with httpx.Client(base_url=served.server, trust_env=False, headers=HTML) as client:
        yield client


def page(client: httpx.Client, path: str, code: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == code, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


def listed(text: str) -> list[str]:
    return re.findall(r'<tr role="row" id="u-([^"]+)"', text)


# --- what a browser is allowed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/units/prod/app", "/stopped", "/journal", "/pulls", "/units/none"])
def test_a_page_runs_its_own_files_and_nothing_else(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    text = answer.text
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert not re.search(r"(?:src|href)=\"(?!/|#)", text), "an address of another host"


def test_the_pages_files_are_kept_by_browsers_and_change_their_address(client: httpx.Client) -> None:
    address = re.search(r'href="(/static/page\.css\?[0-9a-f]{16})"', page(client, "/"))
    assert address is not None
    answer = client.get(address[1])
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert "immutable" in answer.headers["cache-control"]
    assert client.get("/static/page.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert client.get("/static/app.py").status_code == 404
    assert client.get("/static/..%2fapp.py").status_code == 404


# --- the overview ------------------------------------------------------------------------------------------------


def test_the_worst_comes_first_and_the_address_chooses(client: httpx.Client) -> None:
    assert listed(page(client, "/")) == ["stage/bad", "prod/app", "prod/network", "stage/app"]
    assert listed(page(client, "/?sort=unit")) == ["prod/app", "prod/network", "stage/app", "stage/bad"]
    assert listed(page(client, "/?sort=unit&down=1")) == ["stage/bad", "stage/app", "prod/network", "prod/app"]
    assert listed(page(client, "/?q=APP+acme")) == ["prod/app", "stage/app"]
    assert listed(page(client, "/?environment=stage&health=Degraded")) == ["stage/bad"]
    assert listed(page(client, "/?show=attention")) == ["stage/bad"]
    assert listed(page(client, "/?sync=Synced")) == []
    assert "No unit is like that" in page(client, "/?q=zzz")


def test_words_of_the_address_that_mean_nothing_choose_nothing(client: httpx.Client) -> None:
    assert len(listed(page(client, "/?show=what&sort=__class__&page=-3&down"))) == 4
    assert len(listed(page(client, f"/?page={'9' * 15}"))) == 4


def test_fifty_to_a_page(client: httpx.Client, installation: Installation) -> None:
    installation.desired = desired(*(unit(f"prod/u{n:03}") for n in range(120)))
    first, last = page(client, "/?sort=unit"), page(client, "/?sort=unit&page=3")
    assert (len(listed(first)), listed(first)[0]) == (50, "prod/u000")
    assert (len(listed(last)), listed(last)[-1]) == (20, "prod/u119")
    assert 'rel="next" id="next" href="/?sort=unit&amp;page=2"' in first
    assert "101–120 of 120" in last


def test_environments_at_a_glance(client: httpx.Client, installation: Installation) -> None:
    installation.store.append(HeadAccepted(HEAD), Paused(pause("prod")))
    text = page(client, "/")
    assert 'aria-label="1 Missing, 1 Degraded"' in text or 'aria-label="1 Degraded, 1 Missing"' in text
    assert "paused until 2026-11-24 11:00:00 UTC" in text
    assert HEAD[:12] in text


def test_what_runs_and_in_which_phase(client: httpx.Client, installation: Installation) -> None:
    asked = dispatched("prod/app")
    installation.store.append(JobDispatched(asked))
    installation.observer.job_phase(asked, Phase.PLANNING, Load())
    text = page(client, "/?show=running")
    assert listed(text) == ["prod/app"]
    assert "Planning" in text
    assert "/jobs/j1?unit=prod%2Fapp" in text


def test_whatever_keeps_all_of_it_from_working_stands_above(client: httpx.Client, installation: Installation) -> None:
    installation.store.append(HeadAccepted(HEAD), Frozen(Hold("HistoryRewritten", "see docs"), NOW))
    installation.ready |= {"runner": Check(False, "start it"), "git": Check(True, "the last poll failed")}
    installation.seen = SeenOnce(NOW, Unproven(HEAD, "SignatureMissing", "sign it", HEAD))
    installation.facts = replace(FACTS, trust=TrustFacts("HistoryRewritten", NOW, "SignatureMissing"))
    installation.observer.beat()
    installation.clock.time = NOW + timedelta(minutes=5)
    text = page(client, "/pulls")
    said = re.findall(r"<strong>([^<]+)</strong>", text)
    assert said == [
        "Frozen since 2026-11-24 10:00:00 UTC: HistoryRewritten",
        f"Commit {HEAD[:12]} is not proven: SignatureMissing",
        "The runner is frozen: HistoryRewritten",
        "The runner waits with a commit",
        "The runner is silent",
        "The loop stands still",
        "Git",
    ]
    assert text.count('role="alert"') == 6


def test_before_the_first_commit_there_are_pages_too(client: httpx.Client, installation: Installation) -> None:
    installation.desired, installation.facts = None, None
    assert "No commit is accepted yet" in page(client, "/")
    assert "Nothing is held." in page(client, "/stopped")


# --- a unit ------------------------------------------------------------------------------------------------------


def test_why_a_unit_is_held_in_the_words_of_explain(
    client: httpx.Client, installation: Installation, served: Served
) -> None:
    asked = dispatched("prod/network")
    message = "it destroys 2 objects; merge `allow_destroy: 2` if that is meant"
    failed = replace(result(asked, Outcome.HELD, CHANGES), reason="DestroyLimit", message=message)
    installation.store.append(JobEnded(asked, failed, NOW + timedelta(minutes=5), None))
    text = page(client, "/units/prod/network")
    assert "Why it is held" in text
    assert "merge <code>allow_destroy: 2</code> if that is meant" in text
    assert "it is tried again at 2026-11-24 10:05:00 UTC, or when its input changes" in text
    for act, address in (("create", "file.a"), ("replace", "file.b"), ("delete", "file.c")):
        assert re.search(rf'<span class="act">{act}</span> <code>{address}</code>', text)


def test_desired_and_applied_by_cause_and_the_names_of_inputs(client: httpx.Client, installation: Installation) -> None:
    fingerprint = installation.picture().expected[NETWORK]
    assert fingerprint is not None
    other = replace(fingerprint, module="other", upstream="other")
    asked = dispatched("prod/network", other)
    ended = result(asked, summary=CHANGES)
    installation.store.append(JobEnded(asked, ended, None, NOW + timedelta(hours=1)))
    text = page(client, "/units/prod/network")
    parts = re.findall(r'<li class="(differs|same)"><span[^>]*>.</span>(\w+)', text)
    assert parts == [("differs", "module"), ("same", "inputs"), ("same", "settings"), ("differs", "upstream")]
    assert "sha256:" + "0" * 64 in text
    assert "environments/prod/network.yaml:1:1" in text


def test_the_trace_ends_with_people(client: httpx.Client, installation: Installation) -> None:
    installation.proofs[HEAD] = Proof(HEAD, NOW, "ann@example.com", "SHA256:abc", 412, "bo", ("ann", "cy"))
    text = page(client, "/units/prod/network")
    assert "#412 by bo, approved by ann, cy" in text
    assert "ann@example.com" in text
    installation.forge = "https://github.com/acme/environments"
    text = page(client, "/units/prod/network")
    assert '<a href="https://github.com/acme/environments/pull/412" rel="noreferrer">#412</a> by bo' in text
    installation.proofs.clear()
    assert "Nobody is named" in page(client, "/units/prod/network")


def test_neighbours_are_drawn_as_links(client: httpx.Client) -> None:
    text = page(client, "/units/prod/network")
    assert '<a href="/units/prod/app" class="node is-missing"' in text
    assert 'aria-label="prod/app: Missing, OutOfSync"' in text
    assert '<svg class="graph"' not in page(client, "/units/stage/app")


def test_history_is_paged(client: httpx.Client, installation: Installation) -> None:
    for number in range(60):
        installation.store.append(HoldChanged(APP, Hold("Waits", f"for {number}")))
    first = page(client, "/units/prod/app")
    assert first.count('<tr role="row" id="e') == 50
    older = re.search(r'href="(/units/prod/app\?before=[0-9]+)#h-history"', first)
    assert older is not None
    assert page(client, older[1]).count('<tr role="row" id="e') == 10


def test_no_unit_of_that_name_says_which_there_are(client: httpx.Client) -> None:
    assert "did you mean prod/app, stage/app?" in page(client, "/units/dev/app", 404)
    assert "Not Found" in page(client, "/nothing", 404)


# --- a job -------------------------------------------------------------------------------------------------------


def test_a_jobs_phases_its_log_and_its_result(client: httpx.Client, installation: Installation) -> None:
    asked = dispatched("prod/app")
    installation.store.append(JobDispatched(asked))
    (installation.logs / "j1").write_bytes(b"<b>one</b>\n\x1b[31m\xff\n")
    installation.ran[asked.job.id] = [
        (Phase.VERIFYING, NOW + timedelta(seconds=1)),
        (Phase.PLANNING, NOW + timedelta(seconds=3)),
    ]
    installation.clock.time = NOW + timedelta(seconds=10)
    running = page(client, "/jobs/j1?unit=prod/app")
    assert re.findall(r">([0-9.]+ s(?: so far)?)</td>", running) == ["1.0 s", "2.0 s", "7.0 s so far"]
    assert "data-follow" in running
    assert "&lt;b&gt;one&lt;/b&gt;\n\ufffd[31m\ufffd\n</pre>" in running
    assert "It goes on." in running
    installation.store.append(JobEnded(asked, result(asked, summary=CHANGES), None, None))
    ended = page(client, "/jobs/j1")
    assert re.findall(r">([0-9.]+ s(?: so far)?)</td>", ended) == ["1.0 s", "2.0 s", "5.0 s"]
    assert "3 objects created" in ended


def test_a_job_that_the_runner_has_forgotten_or_does_not_answer_for(
    client: httpx.Client, installation: Installation
) -> None:
    asked = dispatched("prod/app")
    installation.store.append(JobDispatched(asked), JobEnded(asked, result(asked), None, None))
    assert re.findall(r">([0-9.]+ s)</td>", page(client, "/jobs/j1?unit=prod/app")) == ["1.0 s", "7.0 s"]
    installation.silent = True
    assert "the runner does not answer" in page(client, "/jobs/j1?unit=prod/app")


def test_a_job_of_a_pull_request(client: httpx.Client, installation: Installation) -> None:
    shown = PullShown(7, HEAD, "bo", APP, JobId("p1"), Outcome.SUCCEEDED, "Planned", "two changes", CHANGES)
    installation.store.append(shown)
    assert "for pull request 7 by bo" in page(client, "/jobs/p1?unit=prod/app")


@pytest.mark.parametrize("path", ["/jobs/none", "/jobs/none?unit=prod/app", "/jobs/.hidden?unit=x"])
def test_no_such_job(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


# --- what is stopped, the journal, pull requests -----------------------------------------------------------------


def test_what_is_stopped_and_until_when(client: httpx.Client, installation: Installation) -> None:
    half = dispatched("stage/app")
    uncertain = replace(result(half, Outcome.UNCERTAIN), reason="UncertainApply", message="it died")
    gone = dispatched("prod/gone")
    installation.store.append(
        HeadAccepted(HEAD),
        Paused(pause("prod/app")),
        JobEnded(half, uncertain, NOW + timedelta(minutes=5), None),
        JobEnded(gone, result(gone), None, NOW),
    )
    text = page(client, "/stopped")
    sections = dict(re.findall(r'<h2 id="h-(\w+)">.*?</h2>(.*?)</section>', text, re.DOTALL))
    assert "migration" in sections["pauses"]
    assert "2026-11-24 11:00:00 UTC" in sections["pauses"]
    assert ">in 5 min</time>, 2026-11-24 10:05:00 UTC" in sections["uncertain"]
    assert "prod/gone" in sections["orphaned"]
    assert 'href="/?reason=Paused&amp;show=held"' in sections["held"] or "reason=Paused" in sections["held"]
    assert "No environment has any." in sections["windows"]
    assert listed(page(client, "/?show=uncertain")) == ["stage/app"]
    assert listed(page(client, "/?show=held&reason=Paused")) == ["prod/app"]


def test_the_journal_is_paged_and_filtered(client: httpx.Client, installation: Installation) -> None:
    installation.store.append(Paused(pause("prod")), actor="ann")
    installation.store.append(*(HoldChanged(APP, Hold("Waits", f"for {n}")) for n in range(70)))
    installation.store.append(Paused(pause("stage")), actor="cy")

    def seqs(path: str) -> list[int]:
        return [int(one) for one in re.findall(r'<tr role="row" id="e([0-9]+)"', page(client, path))]

    first = seqs("/journal")
    assert first == list(range(72, 22, -1))
    assert seqs("/journal?before=23") == list(range(22, 0, -1))
    assert seqs("/journal?actor=ann") == [1]
    assert seqs("/journal?action=paused") == [72, 1]
    assert seqs("/journal?scope=prod&action=paused") == [1]
    assert seqs("/journal?action=nonsense") == first


def test_open_pull_requests(client: httpx.Client, installation: Installation) -> None:
    pull = Pull(7, HEAD, HEAD, "bo", writes=True, title="Larger <disks>")
    shown = (
        UnitShown(APP, "planned", plan=CHANGES, job=JobId("p1"), at=NOW),
        UnitShown(NETWORK, "failed", "EngineFailed", "no"),
    )
    installation.open = (PullStatus(pull, HEAD, "", "", shown),)
    text = page(client, "/pulls")
    assert "#7 Larger &lt;disks&gt;" in text
    assert "/jobs/p1?unit=prod%2Fapp" in text
    assert "EngineFailed" in text


# --- whatever people write -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", NAUGHTY, ids=range(len(NAUGHTY)))
def test_naughty_strings_in_every_field_are_text(client: httpx.Client, installation: Installation, text: str) -> None:
    spoil(installation, text)
    for path in addresses(text):
        answer = client.get(path)
        assert answer.status_code in (200, 404), path
        assert answer.headers["content-type"].startswith("text/html"), path
        html = answer.text
        if escape(text) != text:
            assert text not in html, path
        assert "49" not in re.findall(r"\{\{7\*7\}\}|>49<", html)
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x1b]", html), path
        assert not re.search(r"<(?:script|iframe|img|object|style)(?! type=\"module\" src=\"/static/)", html), path


def test_an_unknown_runner_is_no_reason_to_fall_over(client: httpx.Client, installation: Installation) -> None:
    installation.facts = RunnerFacts("tofu", "1.12.3", {})
    assert len(listed(page(client, "/"))) == 4
