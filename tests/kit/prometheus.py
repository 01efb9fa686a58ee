"""A real Prometheus on this host, which scrapes daemons every half second and evaluates the shipped rules, scaled down."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reconciler.demo.playground import free_port
from tests.kit.house import ASKING
from tests.kit.rules import ALERTS, RECORDED, scaled


@dataclass(frozen=True)
class Prometheus:
    """One that runs. `listed` is the file that says whom it scrapes."""

    address: str
    listed: Path

    def scrape(self, *targets: str) -> None:
        """Scrape these daemons (host:port) and no others, within seconds from now."""
        draft = self.listed.with_suffix(".new")
        draft.write_text(json.dumps([{"targets": targets}]), encoding="ascii")
        draft.replace(self.listed)

    def ask(self, path: str, **words: str) -> Any:
        """The data of an answer of its API."""
        answer = ASKING.get(f"{self.address}/api/v1/{path}", params=words)
        answer.raise_for_status()
        return answer.json()["data"]

    def value(self, query: str) -> float:
        """What a query of one sample comes to; 0 without one."""
        found = self.ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else 0.0

    def firing(self, name: str = "") -> list[dict[str, Any]]:
        """The alerts that fire, or those of the name."""
        found: list[dict[str, Any]] = [a for a in self.ask("alerts")["alerts"] if a["state"] == "firing"]
        return [alert for alert in found if not name or alert["labels"]["alertname"] == name]

    def metrics(self) -> set[str]:
        """The name of every metric that it has seen."""
        return set(self.ask("label/__name__/values"))


@contextmanager
def prometheus(folder: Path, target: str, *, age: int, window: str, ages: Mapping[str, int]) -> Iterator[Prometheus]:
    """Run one for the daemon at `target` (host:port). See `rules.scaled` for the others."""
    folder.mkdir()
    for path in (ALERTS, RECORDED):
        copy = scaled(path, waits="1s", age=age, window=window, ages=ages)
        (folder / path.name).write_text(copy)
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "400ms", "evaluation_interval": "500ms"},
        "rule_files": [str(folder / RECORDED.name), str(folder / ALERTS.name)],
        "scrape_configs": [{"job_name": "reconciler", "file_sd_configs": [{"files": [str(folder / "targets.json")]}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    found = Prometheus(f"http://{address}", folder / "targets.json")
    found.scrape(target)
    words = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [*words, f"--web.listen-address={address}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield found
    finally:
        running.terminate()
        running.wait(30)
