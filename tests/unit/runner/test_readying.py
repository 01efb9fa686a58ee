"""What an `init` could tell apart, and what came of another trust, is kept under another name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.model import Commit, Digest, EnvironmentClass, Operation, Pin, ProviderPin
from reconciler.runner.host import Host
from reconciler.runner.readying import Readying
from reconciler.runner.supply import Supply
from tests.kit.plane import ground, open_host

ROOT: dict[str, Any] = {
    "terraform": {"required_providers": {}, "backend": {"local": {"path": "/jobs/1/unit.tfstate"}}},
    "variable": {"input_a": {"type": "any"}},
    "module": {"unit": {"source": "./catalog/m", "a": "${var.input_a}"}},
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return open_host(ground(tmp_path_factory.mktemp("host")))


class Asked:
    """How a name comes about, each part of which may be another."""

    def __init__(self, host: Host) -> None:
        self.host, self.hosted = host, host.environment("prod", Operation.PLAN)
        provider = ProviderPin("a/b", "1.0.0", {host.engine.registry: ("h1:x",)})
        self.pin = Pin("acme/m", "1.0.0", "m", "v1.0.0", Commit("0" * 40), Digest("sha256:" + "0" * 64), (provider,))
        self.tree, self.mirror, self.merged, self.root = Path("/trees/1"), Path("/mirror"), True, ROOT

    def name(self) -> str:
        supply = Supply(self.mirror, self.pin, ())
        made = Readying(self.host, self.hosted, Path("/jobs/1"), supply, self.pin, self.tree, merged=self.merged)
        return made.name(self.root, self.root["terraform"]["backend"])


def hosted(**part: Any) -> Callable[[Asked], None]:
    def change(asked: Asked) -> None:
        asked.hosted = replace(asked.hosted, part=replace(asked.hosted.part, **part))

    return change


def pinned(**words: Any) -> Callable[[Asked], None]:
    return lambda asked: setattr(asked, "pin", replace(asked.pin, **words))


def rooted(**words: Any) -> Callable[[Asked], None]:
    return lambda asked: setattr(asked, "root", {**ROOT, **words})


def in_environment(name: str) -> Callable[[Asked], None]:
    return lambda asked: setattr(asked, "hosted", replace(asked.hosted, name=name))


def by_engine(**words: Any) -> Callable[[Asked], None]:
    def change(asked: Asked) -> None:
        asked.host = Shadow(asked.host, replace(asked.host.engine, **words))  # type: ignore[assignment]

    return change


class Shadow:
    """A host with another engine, and nothing else of another."""

    def __init__(self, host: Host, engine: Any) -> None:
        self.templates, self.engine = host.templates, engine


@pytest.mark.parametrize(
    "change",
    [
        in_environment("stage"),
        hosted(klass=EnvironmentClass.SANDBOX),
        hosted(digest="another"),
        lambda asked: setattr(asked, "merged", False),
        lambda asked: setattr(asked, "tree", Path("/trees/2")),
        lambda asked: setattr(asked, "mirror", Path("/mirror-2")),
        pinned(digest=Digest("sha256:" + "1" * 64)),
        pinned(providers=()),
        pinned(providers=(ProviderPin("a/b", "1.0.1", {"registry.terraform.io": ("h1:x",), "registry.opentofu.org": ("h1:x",)}),)),
        pinned(providers=(ProviderPin("a/b", "1.0.0", {"registry.terraform.io": ("h1:y",), "registry.opentofu.org": ("h1:y",)}),)),
        by_engine(version="9.9.9"),
        by_engine(kind="tofu"),
        by_engine(files=()),
        rooted(module={"unit": {"source": "./catalog/n"}}),
        rooted(variable={}),
        rooted(terraform={"required_providers": {}, "backend": {"local": {"path": "x", "workspace_dir": "y"}}}),
        rooted(terraform={"required_providers": {}, "backend": {"s3": {"bucket": "b", "key": "k"}}}),
        rooted(terraform={"required_providers": {"b": {"source": "a/b"}}, "backend": ROOT["terraform"]["backend"]}),
    ],
)  # fmt: skip
def test_what_differs_has_another_name(change: Callable[[Asked], None], host: Host) -> None:
    asked = Asked(host)
    before = asked.name()
    change(asked)
    assert asked.name() != before


def test_units_of_one_shape_share_one(host: Host) -> None:
    """Whatever their states are called; and whatever the plan's and the apply's credentials are."""
    asked, other = Asked(host), Asked(host)
    other.root = {**ROOT, "terraform": {**ROOT["terraform"], "backend": {"local": {"path": "/jobs/2/unit.tfstate"}}}}
    other.hosted = host.environment("prod", Operation.APPLY)
    assert asked.name() == other.name()
