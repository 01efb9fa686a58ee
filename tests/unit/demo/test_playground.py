"""Playgrounds: of the worked example, and of one's own entries and catalog."""

from __future__ import annotations

import re
from pathlib import Path

from reconciler.demo import example
from reconciler.demo.playground import LONGEST_SOCKET, Playground
from tests.provider import mirror


def test_sockets_have_short_paths_in_long_folders(tmp_path: Path) -> None:
    place = Playground.create(tmp_path / ("long" * 30))
    try:
        assert len(str(place.runtime / "runner.sock")) <= LONGEST_SOCKET
        assert str(place.runtime) in place.runner_config.read_text()
        assert place.runtime.stat().st_mode & 0o777 == 0o700
        assert Playground.at(place.folder) == place
    finally:
        place.destroy()
    assert not place.runtime.exists()
    assert not place.folder.exists()


def test_a_playground_of_ones_own(tmp_path: Path) -> None:
    catalog = {
        "v1.0.0": {"modules/a/main.tf": 'output "x" {\n  value = 1\n}\n'},
        "v1.1.0": {"modules/b/main.tf": 'resource "files_file" "f" {}\nterraform {\n  required_providers {\n    files = { source = "reconciler/files" }\n  }\n}\n'},
    }  # fmt: skip
    entries = {
        "environments/dev/environment.yaml": "class: sandbox\n",
        "environments/dev/a.yaml": 'module: acme/a\nversion: "1.0.0"\ninputs: {p: "${{ secret.token }}"}\n',
    }
    place = Playground.create(
        tmp_path / "p", entries, catalog, controller={"http": {"listen": "127.0.0.1:1"}, "admin": None}
    )

    lock = place.read("catalog-lock.yaml")
    assert re.findall(r'^  (acme/\w):$|^      "(\S+)":$', lock, re.MULTILINE) == [
        ("acme/a", ""), ("", "1.0.0"), ("", "1.1.0"), ("acme/b", ""), ("", "1.1.0"),
    ]  # fmt: skip
    assert lock.count("reconciler/files") == 1
    assert "admin" not in place.controller_config.read_text()
    assert place.address == "http://127.0.0.1:1"
    assert "token" in place.runner_config.read_text()
    genesis = place.environments.head
    merged = place.merge({"environments/dev/a.yaml": None})
    assert place.environments.at(f"{merged}^1") == genesis
    assert place.environments.at(f"{merged}^2") != genesis
    assert "environments/dev/a.yaml" not in place.environments.paths("environments/")
    direct = place.commit_direct({"environments/dev/a.yaml": entries["environments/dev/a.yaml"]})
    assert place.environments.at(f"{direct}^1") == merged


def test_the_provider_is_pinned_as_it_is() -> None:
    (found,) = set(example.provider_pin().hashes.values())
    assert found == (mirror.h1(mirror.PACKAGE),)
