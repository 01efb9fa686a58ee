"""A poll that finds nothing new, beside the least that git can do to find that out."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.row import Row, compared, wall
from bench.sample import AcceptedInMemory
from reconciler.demo.forge import Forge
from reconciler.git.remote import Remote
from reconciler.git.source import EnvironmentsSource
from tests.kit.gitserver import HttpsServer, running


def rows(folder: Path, rounds: int) -> Iterator[Row]:
    """Over https, in turns."""
    here = folder / "poll"
    here.mkdir()
    forge = Forge.create(here / "environments.git")
    forge.commit({"environments/prod/environment.yaml": "class: protected\n"}, "First")
    server = HttpsServer(here / "server", here)
    with running(server):
        url = server.url(forge.folder)
        remote = Remote(url, ca_file=str(server.ca_file))
        source = EnvironmentsSource(
            remote, "main", here / "mirror", AcceptedInMemory(), genesis=None, genesis_required=False
        )
        # With the same settings: without them git reads the system's certificates, and that takes longer than all else.
        asked = source.git._argv("ls-remote", ("--heads",), (url, "refs/heads/main"), ())  # noqa: SLF001
        env = source.git.environment()

        def look() -> None:
            subprocess.run(asked, env=env, cwd="/", check=True, capture_output=True)

        source.poll()
        look()
        pairs = [(1000 * wall(source.poll), 1000 * wall(look)) for _ in range(rounds)]
    yield compared("a poll without change / git ls-remote --heads", "<= 1.10", pairs, "ms", most=1.10)
