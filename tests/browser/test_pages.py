"""The status page in a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner
from playwright.sync_api import Page, expect

from reconciler.actual.ledger import HoldChanged, JobEnded, Resumed
from reconciler.cli.explain import command as explain
from reconciler.model import Hold
from tests.browser.conftest import DESKTOP, PATIENCE, PHONE, Visit
from tests.kit import facts
from tests.kit.crowd import JOB, Crowd, fill
from tests.kit.naughty import NAUGHTY, addresses, spoil
from tests.kit.sample import FixedClock
from tests.kit.served import Served, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
expect.set_options(timeout=1000 * PATIENCE)
FAULTS = ("serious", "critical")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    one = serve(tmp_path)
    with one.stack:
        yield one
        one.installation.pulse.close()


@pytest.fixture
def crowd(served: Served) -> Crowd:
    return fill(served.installation, 400)


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("`", "")).strip()


def no_wider_than_the_screen(page: Page) -> None:
    wide, screen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= screen, page.url


# --- ten thousand units ------------------------------------------------------------------------------------------


def test_a_first_visit_and_a_search_among_ten_thousand_units(served: Served, visit: Visit) -> None:
    fill(served.installation, 10_000)
    with visit(served.server) as page:
        answer = page.goto("/")
        assert answer is not None
        assert answer.status == 200
        expect(page.locator("#environments .card")).to_have_count(4)
        expect(page.locator("#units tr")).to_have_count(50)
        expect(page.locator("#found")).to_contain_text("10,002 units")
        page.get_by_role("searchbox").fill("prod SERVICE-1210")
        expect(page.locator("#found")).to_contain_text("1 unit")
        expect(page).to_have_url(re.compile(r"\?q=prod\+SERVICE-1210$"))
        link = page.locator("#units a.unit")
        name = link.inner_text()
        page.reload()  # the address is all that there is to share
        expect(link).to_have_text(name)
        link.click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        page.goto("/?environment=prod&sort=unit")
        expect(page.locator("#found")).to_contain_text("2,500 units")
        page.get_by_role("link", name="After →").click()
        expect(page.locator("#pager")).to_contain_text("51–100 of 2,500")
        first = page.locator("#units a.unit").first.inner_text()
        page.get_by_role("link", name="Unit", exact=True).click()
        expect(page.locator("#units a.unit").first).not_to_have_text(first)


# --- for everybody -----------------------------------------------------------------------------------------------


def every_page(crowd: Crowd) -> list[str]:
    unit = f"/units/{crowd.failing}"
    return ["/", "/?show=attention&q=a", unit, "/units/prod/network", f"/jobs/{JOB}", "/stopped", "/journal", "/pulls"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(served: Served, crowd: Crowd, visit: Visit, scheme: str) -> None:
    (served.installation.logs / JOB).write_text("Plan: 1 to add\n")
    found: list[str] = []
    with visit(served.server, scheme=scheme, strict=False, refused=True) as page:
        for path in [*every_page(crowd), "/units/none"]:
            page.goto(path)
            faults: list[dict[str, Any]] = (
                Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
            )
            found += [f"{path}: {one['id']} {[n['html'][:200] for n in one['nodes'][:3]]}" for one in faults if one["impact"] in FAULTS]  # fmt: skip
    assert found == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_no_page_is_wider_than_the_screen(served: Served, crowd: Crowd, visit: Visit, size: tuple[int, int]) -> None:
    with visit(served.server, size, "dark" if size == PHONE else "light") as page:
        for path in every_page(crowd):
            page.goto(path)
            no_wider_than_the_screen(page)
        page.goto("/")
        expect(page.get_by_role("searchbox")).to_be_visible()
        expect(page.locator("#units .c-health").first).to_be_in_viewport(ratio=0) if size == DESKTOP else None


def test_with_the_keyboard_alone(served: Served, crowd: Crowd, visit: Visit) -> None:
    with visit(served.server) as page:
        page.goto("/")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        page.keyboard.press("/")
        expect(page.get_by_role("searchbox")).to_be_focused()
        page.keyboard.type(crowd.failing)
        link = page.locator(f"[id='a-{crowd.failing}']")
        expect(page.locator("#found")).to_contain_text("2 units")
        for _ in range(30):
            page.keyboard.press("Tab")
            if link.evaluate("one => one === document.activeElement"):
                break
        expect(link).to_be_focused()
        assert link.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text(crowd.failing)
        expect(page.get_by_role("heading", name="Why it is held")).to_be_visible()


def test_without_its_script_the_page_is_whole(served: Served, crowd: Crowd, visit: Visit) -> None:
    with visit(served.server) as page:
        page.route("**/page.js*", lambda route: route.fulfill(body="", content_type="text/javascript"))
        page.goto("/")
        page.get_by_role("searchbox").fill(crowd.failing)
        page.get_by_role("button", name="Search").click()
        expect(page).to_have_url(re.compile(r"/\?q="))
        page.get_by_role("link", name=crowd.failing, exact=True).click()
        expect(page.locator("#plan")).to_contain_text("aws_db_instance.main")


# --- what it says ------------------------------------------------------------------------------------------------


def test_why_a_unit_is_held_in_the_same_words_as_explain(served: Served, crowd: Crowd, visit: Visit) -> None:
    told = CliRunner().invoke(explain, [crowd.failing, "--server", served.server], standalone_mode=False).output
    lines = dict(line.split(":", 1) for line in told.splitlines() if re.match(r"[A-Z]\w+:", line))
    with visit(served.server) as page:
        page.goto("/?show=attention")
        page.get_by_role("link", name=crowd.failing).click()
        why = flat(page.locator("#why").inner_text())
    message = flat(lines["Status"]).removeprefix("OutOfSync Degraded ")
    assert message.startswith("DestroyLimit The plan destroys 2 objects")
    assert message in why
    assert flat(lines["Next"]) in why


def test_a_change_is_on_the_page_without_a_reload_and_nobody_loses_their_place(
    served: Served, crowd: Crowd, visit: Visit
) -> None:
    installation = served.installation
    with visit(served.server) as page:
        page.goto("/?q=billing&environment=prod")
        expect(page.locator("#alive-words")).to_have_text("live")
        page.evaluate("window.same = true")
        page.get_by_role("searchbox").fill("billing bucket")
        row = page.locator(f"#units tr[id='u-{crowd.failing}']")
        expect(row).to_contain_text("DestroyLimit")
        row.get_by_role("link").focus()
        asked = facts.dispatched(crowd.failing)
        fingerprint = installation.picture().expected[crowd.failing]
        record = installation.store.ledger().units[crowd.failing]
        assert fingerprint is not None
        assert record.applied is not None
        good = facts.result(asked, applied=replace(record.applied, fingerprint=fingerprint))
        installation.store.append(JobEnded(asked, good, None, None), HoldChanged(crowd.failing, None))
        installation.pulse.tell()
        expect(row).to_contain_text("Healthy")
        expect(row.get_by_role("link")).to_be_focused()
        expect(page.get_by_role("searchbox")).to_have_value("billing bucket")
        assert page.evaluate("window.same") is True


def test_what_has_changed_is_said_to_who_cannot_see_it(served: Served, crowd: Crowd, visit: Visit) -> None:
    with visit(served.server) as page:
        page.goto("/stopped")
        expect(page.locator("#alive-words")).to_have_text("live")
        served.installation.store.append(Resumed("stage", "ann"), actor="ann")
        served.installation.pulse.tell()
        expect(page.get_by_role("status")).to_contain_text("0 paused")


def test_a_jobs_log_goes_on_as_it_is_written(served: Served, crowd: Crowd, visit: Visit) -> None:
    log = served.installation.logs / JOB
    log.write_bytes(b"first <b>line</b>\n")
    with visit(served.server) as page:
        page.goto(f"/jobs/{JOB}?unit={crowd.running}")
        expect(page.locator("#log")).to_have_text("first <b>line</b>\n")
        with log.open("ab") as file:
            file.write("zweite \u202eZeile\x1b[0m\n".encode())
        expect(page.locator("#log")).to_contain_text("zweite \ufffdZeile\ufffd[0m")
        assert page.locator("#log b").count() == 0


# --- whatever people write -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", NAUGHTY, ids=range(len(NAUGHTY)))
def test_naughty_strings_run_no_script(served: Served, visit: Visit, text: str) -> None:
    spoil(served.installation, text)
    with visit(served.server, refused=True) as page:
        for path in addresses(text):
            page.goto(path, wait_until="load")
            assert page.evaluate("[typeof window.pwned, location.host]") == ["undefined", served.server[7:]], path
            assert page.evaluate("document.querySelectorAll('iframe, object, embed, img, base, main script, form[action*=evil]').length") == 0  # fmt: skip
            no_wider_than_the_screen(page)


def test_a_change_that_is_naughty_runs_nothing_either(served: Served, crowd: Crowd, visit: Visit) -> None:
    with visit(served.server) as page:
        page.goto(f"/units/{crowd.waiting}")
        expect(page.locator("#alive-words")).to_have_text("live")
        for text in NAUGHTY[:6]:
            served.installation.store.append(HoldChanged(crowd.waiting, Hold("Odd", text)))
        served.installation.pulse.tell()
        expect(page.locator("#why")).to_contain_text("</title></textarea>")
        assert page.evaluate("typeof window.pwned") == "undefined"


def test_nothing_is_asked_while_nothing_happens(served: Served, crowd: Crowd, visit: Visit) -> None:
    assert isinstance(served.installation.clock, FixedClock)
    with visit(served.server) as page:
        page.goto(f"/units/{crowd.failing}")
        expect(page.locator("#alive-words")).to_have_text("live")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            page.wait_for_timeout(100)
        assert asked == []
