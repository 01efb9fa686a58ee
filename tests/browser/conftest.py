"""A real browser, which asks nobody but this machine, complains about nothing, and leaves no process behind."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Dialog, Page, Request, sync_playwright

PATIENCE = 60.0  # seconds: machines are slow and loaded
MARK = "RECONCILER_TEST_BROWSER"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
)
RESOLVER = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
DESKTOP, PHONE = (1280, 800), (390, 844)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium, once for the tests of a module.

    While it is there, its driver's event loop is the running one of this thread: no other module's test could run its own.
    """
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert found, "no chromium; `script/needs chromium` says how to get it"
    token = secrets.token_hex(8)
    with sync_playwright() as driver:
        env: dict[str, str | float | bool] = {**os.environ, MARK: token}
        one = driver.chromium.launch(executable_path=found, args=[*FLAGS.split(), RESOLVER], env=env)
        yield one
        one.close()
    deadline = time.monotonic() + PATIENCE
    while left := _of(token):
        assert time.monotonic() < deadline, f"the browser left processes behind: {left}"
        time.sleep(0.05)  # a poll, not a wait


def _of(token: str) -> list[str]:
    """The processes that the browser started, by a variable that each inherits."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={token}".encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(path.parent.name)
        except OSError:  # gone, or another user's
            continue
    return found


Visit = Callable[..., AbstractContextManager[Page]]


@pytest.fixture
def visit(browser: Browser) -> Visit:
    """A page of its own. At its end: what the browser complained of, and whom it asked."""

    @contextmanager
    def visiting(
        server: str,
        size: tuple[int, int] = DESKTOP,
        scheme: str = "light",
        *,
        strict: bool = True,
        refused: bool = False,
        trusting: bool = False,
    ) -> Iterator[Page]:
        """`strict`: the page's own policy is in force; `refused`: an answer that is an error belongs to the story.

        `trusting`: of whatever authority a certificate is.
        """
        context = browser.new_context(
            base_url=server,
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if scheme == "dark" else "light",
            bypass_csp=not strict,
            ignore_https_errors=trusting,
        )
        context.set_default_timeout(1000 * PATIENCE)
        complaints: list[str] = []
        asked: set[str] = set()

        def ask(request: Request) -> None:
            asked.add(urlsplit(request.url).hostname or request.url)

        context.on("request", ask)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))

        def dismiss(dialog: Dialog) -> None:
            complaints.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        page.on("dialog", dismiss)
        try:
            yield page
        finally:
            context.close()
        if refused:
            complaints = [one for one in complaints if "the server responded with a status of" not in one]
        assert complaints == []
        assert asked <= {"127.0.0.1"}

    return visiting
