"""A merge in a whole house, followed on the page: real git, a real engine, both planes, a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import PATIENCE, PHONE, Visit
from tests.kit.house import house

expect.set_options(timeout=1000 * PATIENCE)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_merge_is_followed_live_until_it_is_applied_and_a_pause_is_seen(tmp_path: Path, visit: Visit) -> None:
    with house(tmp_path / "house") as home:
        home.start_runner()
        home.start_controller()
        home.synced()
        unit = next(one["unit"] for one in home.units() if one["unit"].endswith("service-web"))
        path = f"environments/{unit}.yaml"
        with visit(home.ground.address) as page, visit(home.ground.address, PHONE, "dark") as other:
            page.goto(f"/units/{unit}")
            other.goto("/?show=")
            for one in (page, other):
                expect(one.locator("#alive-words")).to_have_text("live")
                one.evaluate("window.same = true")
            before = home.head()
            expect(page.locator("#sides")).to_contain_text(before[:12])
            text = home.ground.read(path)
            assert "2.3.1" in text
            merged = home.ground.environments.commit({path: text.replace("2.3.1", "2.3.2")}, "A newer image")
            expect(page.locator("#about")).to_contain_text(merged[:12])
            expect(page.locator("#sides tr", has_text="Commit")).to_have_text(
                re.compile(rf"{merged[:12]}\s*{merged[:12]}")
            )
            expect(page.locator("#heading")).to_contain_text("Synced")
            expect(page.locator("#plan")).to_contain_text("because of desired")
            job = page.locator("#sides a.job")
            job.click()
            expect(page.locator("#steps")).to_contain_text("Applying")
            expect(page.locator("#result")).to_contain_text("Succeeded")
            expect(page.locator("#log")).to_contain_text("Apply complete")
            assert home.command("pause", unit, "--reason", "looking", "--until", "1h").returncode == 0
            expect(other.locator("#kinds")).to_contain_text(re.compile(r"Held\s*1"))
            expect(other.locator(f"#units tr[id='u-{unit}']")).to_contain_text("looking")
            assert other.evaluate("window.same") is True
            wide, screen = other.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide <= screen
