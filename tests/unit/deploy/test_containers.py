"""deploy/container and deploy/kubernetes: what a container engine would do with them, as far as it can be read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CONTAINERFILE = ROOT / "deploy" / "container" / "Containerfile"
COMPOSE = ROOT / "deploy" / "container" / "compose.yaml"
MANIFESTS = ROOT / "deploy" / "kubernetes" / "reconciler.yaml"
USERS = {"controller": 10001, "runner": 10002}
Json = dict[str, Any]


def instructions() -> list[tuple[str, str]]:
    """The lines of the Containerfile: the word, and what follows."""
    lines = [line for line in CONTAINERFILE.read_text().replace("\\\n", " ").splitlines() if line[:1].strip("# ")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            found[rest.rpartition(" ")[2]] = []
        elif found:
            found[next(reversed(found))].append((word, rest))
    return found


def pod() -> Json:
    (found,) = [one for one in yaml.safe_load_all(MANIFESTS.read_text()) if one["kind"] == "StatefulSet"]
    spec: Json = found["spec"]
    return spec


def test_everything_that_is_copied_is_there_and_comes_into_the_build() -> None:
    ignored = (CONTAINERFILE.parent / "Containerfile.dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = [rest.split()[:-1] for word, rest in stages()["built"] if word == "COPY"]
    assert copied
    for path in [one for words in copied for one in words]:
        assert (ROOT / path).exists(), path
        assert any(path == one or path.startswith(f"{one}/") for one in let_in), path
    force_included = re.findall(r'^"([^"]+)" = "reconciler/demo', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {*force_included} <= {path for words in copied for path in words}


def test_what_is_installed_is_pinned_with_its_hash() -> None:
    installs = [rest for _, rest in instructions() if '"install"' in rest]
    assert len(installs) == 3
    assert all('"--require-hashes"' in rest or '"--no-index"' in rest for rest in installs)
    assert not [rest for word, rest in instructions() if word == "ADD"]


@pytest.mark.parametrize(("name", "user"), USERS.items())
def test_a_plane_has_no_shell_before_it_and_no_rights(name: str, user: int) -> None:
    said = dict(stages()[name])
    assert said["USER"] == f"{user}:{user}"
    (program,), words = json.loads(said["ENTRYPOINT"]), json.loads(said["CMD"])
    assert program == "/opt/reconciler/bin/reconciler"
    made = next(rest for word, rest in stages()["plane"] if word == "RUN")
    assert f"useradd --uid {user} " in made
    config = words[words.index("--config") + 1]
    service = yaml.safe_load(COMPOSE.read_text())["services"][name]
    assert service["user"] == f"{user}:{user}"
    assert service["build"]["target"] == name
    assert any(one.split(":")[1:] == [config, "ro"] for one in service["volumes"])
    container = next(one for one in pod()["template"]["spec"]["containers"] if one["name"] == name)
    assert container["args"] == words


@pytest.mark.parametrize("name", USERS)
def test_a_pod_is_as_restricted_as_its_namespace_demands(name: str) -> None:
    spec = pod()["template"]["spec"]
    container = next(one for one in spec["containers"] if one["name"] == name)
    closed = container["securityContext"]
    assert closed["readOnlyRootFilesystem"] is True
    assert closed["allowPrivilegeEscalation"] is False
    assert closed["capabilities"] == {"drop": ["ALL"]}
    assert closed["runAsUser"] == USERS[name]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    volumes = {one["name"] for one in spec["volumes"]} | {
        one["metadata"]["name"] for one in pod()["volumeClaimTemplates"]
    }
    assert {one["name"] for one in container["volumeMounts"]} <= volumes


def test_the_two_planes_share_the_socket_and_nothing_else() -> None:
    mounts = {
        one["name"]: {mount["name"] for mount in one["volumeMounts"]} for one in pod()["template"]["spec"]["containers"]
    }
    assert mounts["controller"] & mounts["runner"] == {"runner-socket"}
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    volumes = {name: {one.partition(":")[0] for one in services[name]["volumes"]} for name in USERS}
    assert volumes["controller"] & volumes["runner"] == {"runner-socket"}
    assert pod()["replicas"] == 1
