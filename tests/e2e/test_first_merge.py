"""From an empty folder to the first applied merge, by the README's commands and no others."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.demo.playground import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]
HEADING = "## From nothing to the first merge"
MOST = 300  # seconds


def commands() -> str:
    """The section's block of commands, as it stands there."""
    section = (REPOSITORY / "README.md").read_text().partition(HEADING)[2]
    return str(re.findall(r"^```\n(.*?)^```$", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL)[0])


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty one, with a path that is short enough for sockets, as people's are."""
    with tempfile.TemporaryDirectory(prefix="first-") as name:
        yield Path(name, "work")
        for inner, _, _ in os.walk(name):  # pinned trees are read-only
            Path(inner).chmod(0o700)


def person(home: Path) -> dict[str, str]:
    """Somebody with git, the installed command and a home; where port 8080 is taken, they say another."""
    (home / "bin").mkdir(parents=True)
    (home / ".gitconfig").write_text("[user]\nname = Ada\nemail = ada@example.com\n[init]\ndefaultBranch = main\n")
    script = home / "bin/reconciler"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reconciler "$@"\n')
    script.chmod(0o755)
    address = f"127.0.0.1:{free_port()}"
    ours = {"RECONCILER_HTTP_LISTEN": address, "RECONCILER_SERVER": f"http://{address}", "PYTHONPATH": str(REPOSITORY)}
    return {"HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "LANG": "C.UTF-8", **ours}


def typed(folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """The commands, one after the other, ended by the first that fails; then nothing of them is left running."""
    with (folder.parent / "said").open("w+") as said:
        shell = subprocess.Popen(
            ["bash", "-e", "-u", "-o", "pipefail", "-v", "-c", commands()],
            cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(500)
        finally:
            end(shell.pid)
        said.seek(0)
        return code, said.read()


def end(group: int) -> None:
    """Until none of the group is left: both planes end in order, or are ended."""
    deadline = time.monotonic() + 60
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)


def test_the_readme_leads_to_the_first_applied_merge_in_minutes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    began = time.monotonic()
    code, said = typed(folder, person(folder.parent / "home"))
    took = time.monotonic() - began
    host = folder / "environments/host"
    logs = "\n".join(path.read_text() for path in sorted(host.glob("*.log"))) if code else ""
    assert code == 0, f"{said}\n{logs}"
    (state,) = (host / "states").rglob("hello.tfstate")
    assert json.loads(state.read_text())["outputs"]["text"]["value"] == "Hello, world!"
    assert re.search(r"^dev/hello +Synced +Healthy", said, re.MULTILINE)
    assert re.search(r"^To undo: +git revert -m 1 [0-9a-f]{40} ", said, re.MULTILINE)
    for word in ("init", "validate", "doctor", "run", "runner serve"):
        assert f"\nreconciler {word}" in f"\n{commands()}"
    with capsys.disabled():
        sys.stdout.write(f"\nfrom an empty folder to the first applied merge: {took:.1f} s\n")
    assert took < MOST
