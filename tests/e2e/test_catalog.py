"""`catalog add` with a real engine: what it finds is what the runner's `init` will accept."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from reconciler.cli import main
from reconciler.demo import example
from reconciler.demo.forge import Forge
from tests.provider import mirror

pytestmark = pytest.mark.e2e

FILES = 'terraform {\n  required_providers {\n    files = { source = "reconciler/files" }\n  }\n}\n'
NESTED = 'module "inner" {\n  source = "./inner"\n}\nvariable "needed" {\n  type = string\n}\n'
ALIASED = (
    "terraform {\n  required_providers {\n    files = {\n"
    '      source                = "reconciler/files"\n      configuration_aliases = [files.other]\n    }\n  }\n}\n'
    'resource "files_file" "f" {\n  provider = files.other\n  path     = "x"\n  content  = "y"\n}\n'
)
COMMIT = re.compile(r"[0-9a-f]{40}")


@pytest.fixture
def catalog(tmp_path: Path) -> Forge:
    return Forge.create(tmp_path / "catalog.git")


class Add:
    """`catalog add` into one lock."""

    def __init__(
        self, catalog: Forge, lock: Path, mirror: Path, engine: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.catalog, self.lock, self.mirror = catalog, lock, mirror
        self._engine, self._capsys = engine, capsys

    def __call__(self, wanted: str, *words: str, expect: int = 0) -> str:
        where = ("--catalog", f"acme={self.catalog.url}", "--lock", str(self.lock), "--engine", str(self._engine))
        code = main(["catalog", "add", wanted, *where, "--provider-mirror", str(self.mirror), *words])
        out, err = self._capsys.readouterr()
        assert code == expect, out + err
        return re.sub(r"\s+", " ", out + err) if expect else out

    def hashes(self) -> dict[str, list[str]]:
        """Registry -> hashes of a lock with one provider in one version."""
        found: dict[str, list[str]] = {}
        for line in self.lock.read_text().splitlines():
            if host := re.fullmatch(r" +(registry\S+):", line):
                found[host[1]] = []
            elif found_hash := re.fullmatch(r' +- "(\S+)"', line):
                found[next(reversed(found))].append(found_hash[1])
        return found


@pytest.fixture
def add(catalog: Forge, tmp_path: Path, provider_mirror: Path, engine: Path, capsys: pytest.CaptureFixture[str]) -> Add:
    return Add(catalog, tmp_path / "catalog-lock.yaml", provider_mirror, engine, capsys)


def test_the_committed_lock_is_what_the_command_writes(add: Add) -> None:
    example.release(add.catalog, example.releases())
    modules = ["service", "bucket", "network", "cluster"]
    for module, version in [(m, v) for v in ("1.1.0", "1.0.0") for m in modules]:  # any order gives the same file
        add(f"acme/{module}@{version}")
    assert add.lock.read_bytes() == (example.CHECKOUT / "catalog-lock.yaml").read_bytes()
    assert example.lock_of(add.catalog, example.releases(), "acme") == add.lock.read_text()


def test_providers_of_nested_modules_are_found_and_inputs_do_not_matter(add: Add) -> None:
    add.catalog.commit({"modules/a/main.tf": NESTED, "modules/a/inner/main.tf": FILES}, "A")
    add.catalog.tag("a/v1.0.0")
    found = json.loads(add("acme/a@1.0.0", "-o", "json"))
    assert found["changed"]
    assert (found["ref"], found["path"]) == ("a/v1.0.0", "modules/a")
    assert COMMIT.fullmatch(found["commit"])
    assert [provider["source"] for provider in found["providers"]] == ["reconciler/files"]
    assert add.hashes() == {host: [mirror.h1(mirror.PACKAGE)] for host in sorted(mirror.HOSTS)}

    again = add("acme/a@v1.0.0")
    assert "already in" in again


def test_aliases_that_a_module_asks_for(add: Add) -> None:
    add.catalog.commit({"stuff/a/main.tf": ALIASED}, "A")
    add.catalog.tag("v1.0.0")
    assert "providers: reconciler/files 1.0.0" in add("acme/a@1.0.0", "--path", "stuff/a")
    assert "path: stuff/a" in add.lock.read_text()


def test_a_module_without_providers(add: Add) -> None:
    add.catalog.commit({"modules/a/main.tf": 'resource "terraform_data" "x" {}\n'}, "A")
    add.catalog.tag("v1.0.0")
    assert "providers: none" in add("acme/a@1.0.0")
    assert "providers" not in add.lock.read_text().partition("modules:")[2]


def test_every_platform_of_the_mirror_is_hashed(add: Add, tmp_path: Path) -> None:
    shutil.copytree(add.mirror, tmp_path / "mirror")
    package = tmp_path / "mirror/registry.terraform.io/reconciler/files"
    other = package / "1.0.0/plan9_mips"
    other.mkdir()
    (other / "terraform-provider-files_v1.0.0").write_text("another program")
    with zipfile.ZipFile(package / "terraform-provider-files_1.0.0_windows_arm64.zip", "w") as packed:
        packed.writestr("terraform-provider-files_v1.0.0", "another program")
    add.mirror = tmp_path / "mirror"
    add.catalog.commit({"modules/a/main.tf": FILES}, "A")
    add.catalog.tag("v1.0.0")

    add("acme/a@1.0.0")

    hashes = add.hashes()
    assert hashes["registry.opentofu.org"] == [mirror.h1(mirror.PACKAGE)]
    assert len(hashes["registry.terraform.io"]) == 2  # unpacked and packed are the same to an engine
    assert mirror.h1(other) in hashes["registry.terraform.io"]


def test_a_released_version_does_not_change(add: Add) -> None:
    add.catalog.commit({"modules/a/main.tf": "# 1\n"}, "A")
    add.catalog.tag("v1.0.0")
    add("acme/a@1.0.0")
    before = add.lock.read_text()
    moved = add.catalog.commit({"modules/a/main.tf": "# 2\n"}, "B")
    add.catalog.tag("v1.0.0")

    said = add("acme/a@1.0.0", expect=1)
    assert f"and v1.0.0 is {moved} now: a released version does not change" in said
    assert add.lock.read_text() == before

    add("acme/a@1.0.0", "--replace")
    assert moved in add.lock.read_text()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"main.tf": 'module "x" {\n  source = "terraform-aws-modules/vpc/aws"\n}\n'}, "modules/a/main.tf:2:3: module-source: 'terraform-aws-modules/vpc/aws' is not a folder of this repository"),
        ({"main.tf": 'module "x" {\n  source = "git::https://example.com/x.git"\n}\n'}, "copy the module in and call it by ./ or ../"),
        ({"main.tf": 'module "x" {\n  source = "../../../../etc"\n}\n'}, "modules/a/main.tf:2:3: module-source: '../../../../etc' leaves this repository"),
        ({"main.tf": 'module "x" {\n  source = "./b"\n}\n', "b/more.tf.json": '{"module": {"y": {"source": "x/y/z"}}}'}, "modules/a/b/more.tf.json:1:19: module-source: 'x/y/z' is not a folder"),
        ({"main.tf": 'module "x" {'}, "modules/a/main.tf:1:12: invalid-syntax: what begins here never ends"),
        ({"main.tf": FILES.replace("reconciler/files", "reconciler/absent")}, "init with terraform and providers from the mirror"),
        ({"README.md": "nothing"}, "has no Terraform files in 'modules/a': correct `path`"),
    ],
)  # fmt: skip
def test_a_module_that_cannot_be_locked(add: Add, files: dict[str, str], said: str) -> None:
    add.catalog.commit({f"modules/a/{name}": text for name, text in files.items()}, "A")
    add.catalog.tag("v1.0.0")
    told = add("acme/a@1.0.0", expect=1)
    assert said.replace("init with terraform", "init with") in told.replace(
        f"init with {add._engine.name}", "init with"
    )
    assert not add.lock.exists()


def test_a_tag_that_was_never_merged_and_one_that_is_not_there(add: Add) -> None:
    add.catalog.commit({"modules/a/main.tf": "# 1\n"}, "A")
    add.catalog.tag("v1.0.0", add.catalog.commit({"modules/a/main.tf": "# 2\n"}, "Fork", branch="fork"))
    assert "which the protected branch does not contain: merge it there first" in add("acme/a@1.0.0", expect=1)
    assert "no tag 'v2.0.0'; newest tags: v1.0.0" in add("acme/a@2.0.0", expect=1)
    assert not add.lock.exists()


def test_two_tags_that_disagree(add: Add) -> None:
    first = add.catalog.commit({"modules/a/main.tf": "# 1\n"}, "A")
    add.catalog.tag("v1.0.0")
    add.catalog.commit({"modules/a/main.tf": "# 2\n"}, "B")
    add.catalog.tag("a/v1.0.0")
    assert "are different commits: say --ref TAG" in add("acme/a@1.0.0", expect=1)
    add("acme/a@1.0.0", "--ref", "v1.0.0")
    assert first in add.lock.read_text()


def test_only_allowed_providers(add: Add, tmp_path: Path) -> None:
    add.catalog.commit({"modules/a/main.tf": FILES}, "A")
    add.catalog.tag("v1.0.0")
    config = tmp_path / "reconciler.yaml"
    config.write_text(f"""\
environments_repo: {{url: https://git.example.com/e.git, signatures: off}}
catalog_repos:
  corp: {{url: "{add.catalog.url}", allow_file: true, allow_providers: [hashicorp/aws]}}
store: {{path: db}}
executor: {{local: {{socket: runner.sock}}}}
""")
    said = add("corp/a@1.0.0", "--config", str(config), expect=1)
    assert "modules/a/main.tf:3:5: provider: reconciler/files is not listed (hashicorp/aws)" in said


def test_the_catalogs_own_files_pass_a_real_init_without_any_network(add: Add, tmp_path: Path, engine: Path) -> None:
    """What `add` writes, Terraform's own lock file accepts in read-only mode: the same hashes by another way."""
    add.catalog.commit({"modules/a/main.tf": FILES}, "A")
    add.catalog.tag("v1.0.0")
    add("acme/a@1.0.0")
    root = tmp_path / "root"
    root.mkdir()
    (root / "main.tf").write_text(FILES)
    hashes = "".join(f'    "{one}",\n' for one in add.hashes()["registry.terraform.io"])
    host = "registry.opentofu.org" if "tofu" in engine.name else "registry.terraform.io"
    lock = f'provider "{host}/reconciler/files" {{\n  version = "1.0.0"\n  hashes = [\n{hashes}  ]\n}}\n'
    (root / ".terraform.lock.hcl").write_text(lock)
    config = root / "engine.tfrc"
    config.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{add.mirror}"\n  }}\n}}\n')
    env = {"TF_CLI_CONFIG_FILE": str(config)}
    done = subprocess.run(
        [engine, "init", "-lockfile=readonly"], cwd=root, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
