"""Logging in to the status page in a real browser, over TLS, by a real issuer."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import trustme
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from reconciler.config.controller import Http
from reconciler.web.door import Door
from reconciler.web.login import COOKIE
from tests.browser.conftest import PATIENCE, PHONE, Visit
from tests.kit.crowd import fill
from tests.kit.issuer import Issuer
from tests.kit.sample import NOW
from tests.kit.served import serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
expect.set_options(timeout=1000 * PATIENCE)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def test_somebody_logs_in_looks_and_logs_out(tmp_path: Path, visit: Visit) -> None:
    issuer = Issuer(tmp_path / "issuer")
    issuer.made = lambda claims: issuer.token(now=NOW.timestamp(), **claims)
    certificate = trustme.CA().issue_cert("127.0.0.1")
    tls = {"cert_file": str(tmp_path / "page.pem"), "key_file": str(tmp_path / "page.key")}
    certificate.cert_chain_pems[0].write_to_path(tls["cert_file"])
    certificate.private_key_pem.write_to_path(tls["key_file"])
    port = free_port()
    address = f"https://127.0.0.1:{port}"
    config = Http.model_validate(
        {"listen": f"127.0.0.1:{port}", "tls": tls, "oidc": issuer.login(address=address)}, context={"folder": tmp_path}
    )
    served = serve(tmp_path / "served")
    with served.stack:
        served.stack.callback(issuer.close)
        one = served.installation
        fill(one, 50)
        with (
            Door(config, one, one.pulse, one.observer, one.clock.now),
            visit(address, PHONE, refused=True, trusting=True) as page,
        ):
            page.goto("/stopped")
            expect(page).to_have_url(f"{address}/stopped")
            expect(page.locator("#about")).to_contain_text("ann@example.com")
            expect(page.locator("#alive")).to_contain_text("live")
            (cookie,) = page.context.cookies(address)
            assert (cookie["name"], cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (
                COOKIE,
                True,
                True,
                "Lax",
            )
            assert page.evaluate("document.cookie") == ""
            faults = Axe().run(page).response["violations"]
            assert [fault["id"] for fault in faults if fault["impact"] in ("serious", "critical")] == []

            page.get_by_role("button", name="Log out").click()
            expect(page).to_have_url(re.compile("/logged-out$"))
            expect(page.get_by_role("heading", level=1)).to_have_text("Logged out")
            assert page.context.cookies(address) == []

            issuer.person = {"sub": "u-2", "email": "bo@example.com", "email_verified": True}
            page.get_by_role("link", name="Log in").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("Not for everybody")
            expect(page.locator("main")).to_contain_text("bo@example.com is none of the users")
            assert page.context.cookies(address) == []
