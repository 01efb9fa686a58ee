"""The conversation with real engines: what they are handed, what they answer, how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.durable import is_locked
from reconciler.errors import ConfigError, SupersededError, UnitError
from reconciler.runner.terraform import engine as engine_module
from reconciler.runner.terraform.diagnose import NOT_LOCKED
from reconciler.runner.terraform.engine import Conversation, EngineError, SensitiveOutputs, deadline_in
from reconciler.runner.terraform.plan import secrets_in, summarise
from reconciler.runner.terraform.state import WORK_STATE, secrets_of
from reconciler.runner.terraform.workspace import LOCK_FILE, Value, trust_packages
from tests.kit.terraform import provider_env, until
from tests.kit.workbench import FILES, REQUIRE_FILES, SECONDS, Workbench, any_engine, apply_while, bench, pin
from tests.provider.log import calls, doubled
from tests.provider.mirror import LAUNCHER, build

__all__ = ["any_engine", "bench"]  # fixtures

pytestmark = pytest.mark.e2e

KEY = b"k" * 32
ROOT = Path(__file__).parents[2]
ECHO = 'variable "v" {\n  type = any\n}\noutput "v" {\n  value = var.v\n}\noutput "text" {\n  value = jsonencode(var.v)\n}\n'
FILE = (
    REQUIRE_FILES
    + 'variable "content" {\n  type = string\n}\n'
    + 'resource "files_file" "a" {\n  path    = "a"\n  content = var.content\n}\n'
    + 'output "sha256" {\n  value = files_file.a.sha256\n}\n'
)
SLOW = (
    REQUIRE_FILES
    + 'resource "files_slow" "a" {\n  path    = "a"\n  content = "x"\n  seconds = 60\n  until   = "go"\n}\n'
    'resource "files_file" "b" {\n  path    = "b"\n  content = files_slow.a.content\n}\n'
)


def waiting(bench: Workbench) -> bool:
    return bool(calls(bench.cloud, outcome="waiting"))


def test_first_apply_then_nothing_to_do(bench: Workbench) -> None:
    bench.module(FILE)
    talk, planned = bench.plan(bench.spec(content="hello"))
    summary = summarise(planned.json, KEY)
    assert [(c.address, c.actions) for c in summary.changes] == [("module.unit.files_file.a", ("create",))]
    assert summary.outputs_changed
    result = talk.apply(deadline_in(SECONDS))
    bench.bring_back()
    assert (result.failure, result.interrupted, result.killed, result.errored_state) == (None, False, False, None)
    assert (bench.cloud / "a").read_text() == "hello"
    assert [r.address for r in bench.state().resources] == ["module.unit.files_file.a"]

    _, again = bench.plan(bench.spec(content="hello"))
    assert not again.changed
    assert summarise(again.json, KEY).empty


def test_plan_is_applied_once_only(bench: Workbench) -> None:
    bench.module(ECHO)
    talk, _ = bench.plan(bench.spec(v="x"))
    assert talk.apply(deadline_in(SECONDS)).failure is None
    assert not list(bench.work.glob("tfplan*"))
    with pytest.raises(FileNotFoundError):
        talk.apply(deadline_in(SECONDS))


def test_drift_is_found_and_what_vanished_is_named(bench: Workbench) -> None:
    bench.module(FILE)
    bench.apply(bench.spec(content="hello"))
    (bench.cloud / "a").write_text("tampered")
    _, planned = bench.plan(bench.spec(content="hello"))
    summary = summarise(planned.json, KEY)
    assert [c.actions for c in summary.changes] == [("update",)]
    assert summary.missing == ()

    (bench.cloud / "a").unlink()
    _, planned = bench.plan(bench.spec(content="hello"))
    summary = summarise(planned.json, KEY)
    assert [c.actions for c in summary.changes] == [("create",)]
    assert summary.missing == ("module.unit.files_file.a",)


def test_same_change_set_has_the_same_digest_and_another_has_not(bench: Workbench) -> None:
    bench.module(FILE)
    digests = [summarise(bench.plan(bench.spec(content=c))[1].json, KEY).digest for c in ("x", "x", "y")]
    assert digests[0] == digests[1] != digests[2]


def test_destroy_and_replace(bench: Workbench) -> None:
    bench.module(FILE)
    bench.apply(bench.spec(content="hello"))
    _, planned = bench.plan(bench.spec(content="hello"), replace=["files_file.a"])
    change = summarise(planned.json, KEY).changes[0]
    assert change.replaces
    assert change.reason == "replace_by_request"

    assert bench.apply(bench.spec(content="hello"), destroy=True).failure is None
    assert not (bench.cloud / "a").exists()
    assert bench.state().resources == ()


HOSTILE: list[Any] = [
    '${file("/etc/passwd")}',
    "%{ if true }x%{ endif }",
    "$${literal} %%{literal}",
    "${var.input_v}",
    'quote " backslash \\ newline \n tab \t nul-ish \u0001 emoji 🦆 ünïcödé \u2028',
    {"${var.x}": "${path.module}", "//": "comment?", "": [{}, [], None, "", {"a": [[[{"b": "%{"}]]]}]},
    [True, False, None, 0, -1, 1.5, "1", "true", "null"],
    2**70,
    -(2**200) + 1,
    0.1,
    2.5e-10,
    10**150,
    None,
]


def test_input_reaches_the_module_as_it_is(bench: Workbench) -> None:
    bench.module(ECHO)
    bench.apply(bench.spec(v=HOSTILE))
    outputs = bench.outputs()
    assert outputs["v"] == HOSTILE
    assert json.loads(outputs["text"]) == HOSTILE
    assert [type(x) for x in outputs["v"]] == [type(x) for x in HOSTILE]


def test_null_alone_and_deep_nesting_arrive(bench: Workbench) -> None:
    deep: Any = "bottom"
    for level in range(90):
        deep = [deep] if level % 2 else {"k": deep}
    bench.module(ECHO)
    bench.apply(bench.spec(v=deep))
    assert bench.outputs()["v"] == deep
    bench.module('variable "v" {\n  default = "set"\n}\noutput "null" {\n  value = var.v == null\n}\n')
    bench.apply(bench.spec(v=None))
    assert bench.outputs() == {"null": True}


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "\ud800", 2**513, {1: 2}, {"a": [object()]}])
def test_what_json_cannot_say_is_refused(bench: Workbench, value: Any) -> None:
    bench.module(ECHO)
    with pytest.raises(UnitError, match="quote it as a string") as refused:
        bench.open(bench.spec(v=value))
    assert refused.value.reason == "InputInvalid"


def test_provider_settings_are_data(bench: Workbench) -> None:
    """The provider's root is a setting; a template in it would name another folder."""
    bench.module(FILE)
    root = bench.folder / "${path.cwd}%{x"
    root.mkdir()
    bench.options["providers"] = {"files": {"root": str(root)}}
    assert bench.apply(bench.spec(content="hello")).failure is None
    assert (root / "a").read_text() == "hello"
    assert not (bench.cloud / "a").exists()


def test_alias_is_handed_to_the_module(bench: Workbench) -> None:
    bench.module(
        'terraform {\n  required_providers {\n    files = {\n      source = "reconciler/files"\n'
        "      configuration_aliases = [files.peer]\n    }\n  }\n}\n"
        'resource "files_file" "here" {\n  path = "a"\n  content = "x"\n}\n'
        'resource "files_file" "there" {\n  provider = files.peer\n  path = "a"\n  content = "y"\n}\n'
    )
    there = bench.folder / "there"
    there.mkdir()
    bench.options["providers"] = {"files": {"root": str(bench.cloud)}, "files.second": {"root": str(there)}}
    bench.options["provider_map"] = {"files.peer": "files.second"}
    assert bench.apply(bench.spec()).failure is None
    assert ((bench.cloud / "a").read_text(), (there / "a").read_text()) == ("x", "y")


def test_sensitive_output_is_named_so_that_the_root_can_mark_it(bench: Workbench) -> None:
    bench.module(
        'variable "s" {}\noutput "s" {\n  value = var.s\n}\noutput "n" {\n  value = { x = [var.s] }\n}\noutput "p" {\n  value = 1\n}\n'
    )
    spec = bench.spec(s=Value("hush-hush", sensitive=True))
    talk = bench.open(spec)
    talk.init(deadline_in(SECONDS))
    with pytest.raises(SensitiveOutputs) as found:
        talk.plan(deadline_in(SECONDS))
    assert found.value.names == {"s", "n"}

    talk = bench.open(replace(spec, sensitive_outputs=found.value.names))
    planned = talk.plan(deadline_in(SECONDS))  # the folder is initialised already
    assert "hush-hush" in secrets_in(planned.json)
    assert talk.apply(deadline_in(SECONDS)).failure is None
    bench.bring_back()
    outputs = bench.state().outputs
    assert outputs["s"] == Value("hush-hush", sensitive=True)
    assert outputs["n"].sensitive
    assert not outputs["p"].sensitive
    assert "hush-hush" not in bench.log.read_text()


def test_interrupted_apply_keeps_what_it_did(bench: Workbench) -> None:
    bench.module(SLOW)
    talk, _ = bench.plan()

    def interrupt() -> None:
        until(lambda: waiting(bench), "the create")
        bench.stopped.add("apply")

    result = apply_while(talk, interrupt)
    assert result.interrupted
    assert not result.killed
    assert result.failure is not None
    assert not calls(bench.cloud, outcome="created")
    bench.stopped.clear()
    bench.bring_back()
    (bench.cloud / "go").touch()
    assert bench.apply().failure is None
    assert len(calls(bench.cloud, op="create", outcome="created")) == 2
    assert doubled(bench.cloud) == []


def test_apply_past_its_deadline_is_interrupted_once(bench: Workbench) -> None:
    bench.module(SLOW)
    talk, _ = bench.plan()
    result = talk.apply(deadline_in(3))
    assert result.interrupted
    assert not result.killed


def test_apply_that_heeds_nothing_is_killed_and_says_so(bench: Workbench) -> None:
    bench.module(SLOW)
    talk, _ = bench.plan()

    def freeze_and_interrupt() -> None:
        until(lambda: waiting(bench), "the create")
        os.kill(leader(bench.work), signal.SIGSTOP)
        bench.stopped.add("apply")

    result = apply_while(talk, freeze_and_interrupt, grace=0.3)
    assert result.interrupted
    assert result.killed
    until(lambda: not processes(bench.work), "the end of the engine and its providers")


def test_apply_that_something_else_ends_is_killed_too(bench: Workbench) -> None:
    bench.module(SLOW)
    talk, _ = bench.plan()

    def murder() -> None:
        until(lambda: waiting(bench), "the create")
        os.killpg(leader(bench.work), signal.SIGKILL)

    result = apply_while(talk, murder)
    assert result.killed
    assert not result.interrupted


def processes(work: Path) -> list[int]:
    """Who works in this folder: the engine and its providers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if (entry / "cwd").readlink() == work:
                    found.append(int(entry.name))
    return found


def leader(work: Path) -> int:
    """The engine itself, which leads the group of them."""
    return os.getpgid(processes(work)[0])


APPLIER = """
import sys
from pathlib import Path
from reconciler.durable import FileLock
from reconciler.runner.terraform.engine import Conversation, Engine, deadline_in
kind, binary, version, registry, work, log, mirror, lock, *env = sys.argv[1:]
held = FileLock(Path(lock))
assert held.take()
engine = Engine(kind, Path(binary), version, registry)
env = dict(pair.split("=", 1) for pair in env)
talk = Conversation(engine, Path(work), env, Path(log), locks=[held.fileno()], provider_mirror=Path(mirror))
talk.apply(deadline_in(60))
"""


def test_apply_outlives_the_runner_and_holds_its_lock(bench: Workbench) -> None:
    bench.module(SLOW)
    bench.plan()
    lock = bench.folder / "lock"
    engine, env = bench.engine, provider_env(bench.cloud)
    facts = [engine.kind, engine.binary, engine.version, engine.registry, bench.work, bench.log, bench.mirror, lock]
    runner = subprocess.Popen(
        [sys.executable, "-c", APPLIER, *map(str, facts), *(f"{k}={v}" for k, v in env.items())],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    until(lambda: waiting(bench), "the create")
    runner.kill()
    runner.wait()
    assert is_locked(lock)
    (bench.cloud / "go").touch()
    until(lambda: not is_locked(lock), "the end of the apply")
    bench.bring_back()
    assert len(bench.state().resources) == 2
    assert (bench.cloud / "b").read_text() == "x"


def test_plan_past_its_deadline_is_stopped(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a pipe that nobody writes to can only be ended by force."""
    os.mkfifo(bench.folder / "pipe")
    bench.module(f'output "x" {{\n  value = file("{bench.folder}/pipe")\n}}\n')
    monkeypatch.setattr(engine_module, "PLAN_GRACE", 0.2)
    talk = bench.open()
    with pytest.raises(UnitError, match=r"timeouts\.plan") as refused:
        init_and_plan(talk, 1)
    assert refused.value.reason == "EngineTimeout"
    assert refused.value.transient
    until(lambda: not processes(bench.work), "who was killed is gone")


def init_and_plan(talk: Conversation, seconds: float) -> None:
    """Each has so much time; the embedded engine evaluates some functions already at init."""
    talk.init(deadline_in(SECONDS))
    talk.plan(deadline_in(seconds))


def test_nothing_begins_after_a_cancel(bench: Workbench) -> None:
    bench.module(ECHO)
    talk, planned = bench.plan(bench.spec(v=1))
    assert planned.changed
    bench.stopped.add("apply")
    with pytest.raises(SupersededError):
        talk.apply(deadline_in(SECONDS))
    assert not (bench.work / WORK_STATE).exists()


def test_changed_provider_is_refused(bench: Workbench) -> None:
    forged = "h1:" + "A" * 43 + "="
    bench.pin = pin(replace(FILES, hashes=dict.fromkeys(FILES.hashes, (forged,))))
    bench.module(FILE)
    talk = bench.open(bench.spec(content="x"))
    with pytest.raises(EngineError) as refused:
        talk.init(deadline_in(SECONDS))
    assert refused.value.reason == "InitFailed"
    assert "checksums" in str(refused.value)


def test_a_package_is_read_by_each_command_or_by_whoever_vouches_for_it(bench: Workbench) -> None:
    """What `trust_packages` gives up: with hashes the engine finds a swapped package itself, at any command."""
    bench.module(FILE)
    bench.mirror = bench.folder / "mirror"
    build(bench.mirror)
    talk, planned = bench.plan(bench.spec(content="x"))
    assert planned.changed
    (launcher,) = bench.mirror.glob(f"{bench.engine.registry}/reconciler/files/*/*/{LAUNCHER}")
    launcher.chmod(0o755)
    launcher.write_text(launcher.read_text() + "# swapped\n")
    with pytest.raises(EngineError, match="checksum"):
        talk.plan(deadline_in(SECONDS))

    trust_packages(bench.work, bench.pin, bench.engine.registry)
    assert talk.plan(deadline_in(SECONDS)).changed
    assert talk.apply(deadline_in(SECONDS)).failure is None
    assert "hashes" not in (bench.work / LOCK_FILE).read_text()


def test_provider_of_a_nested_module_that_is_not_pinned_is_refused(bench: Workbench) -> None:
    bench.pin = pin()
    bench.module('module "inner" {\n  source = "./inner"\n}\n')
    inner = bench.tree / bench.pin.path / "inner"
    inner.mkdir()
    (inner / "main.tf").write_text(FILE.replace("type = string", 'type = string\n  default = "x"'))
    talk = bench.open()
    with pytest.raises(EngineError) as refused:
        talk.init(deadline_in(SECONDS))
    assert NOT_LOCKED.search(str(refused.value))


def test_process_sees_what_it_is_given_and_no_more(bench: Workbench) -> None:
    bench.module(
        'resource "terraform_data" "a" {\n  provisioner "local-exec" {\n    command     = "tr \'\\\\0\' \'\\\\n\' < /proc/self/environ > ../environ"\n'
        '    interpreter = ["/bin/sh", "-c"]\n    environment = { PATH = "/usr/bin:/bin" }\n  }\n}\n'
    )
    bench.env = {"GIVEN": "yes"}
    assert bench.apply().failure is None
    names = {line.partition("=")[0] for line in (bench.folder / "environ").read_text().splitlines()}
    assert names >= {"GIVEN", "GOGC", "GOMEMLIMIT"}
    assert set(engine_module.COLLECTOR) == {"GOGC", "GOMEMLIMIT"}
    allowed = {
        "GIVEN",
        "PATH",
        "PWD",
        "_",
        "SHLVL",
        "OLDPWD",
        "TMPDIR",
        "CHECKPOINT_DISABLE",
        *engine_module.COLLECTOR,
        "FILES_PYTHON",
        "FILES_ROOT",
    }
    assert {n for n in names - allowed if not n.startswith("TF_")} == set()
    assert "HOME" not in names


@pytest.mark.parametrize("name", ["TF_CLI_ARGS_apply", "TF_VAR_x", "TF_DATA_DIR", "TOFU_ENCRYPTION"])
def test_variables_that_steer_the_engine_are_refused(bench: Workbench, name: str) -> None:
    bench.module(ECHO)
    bench.env = {name: "x"}
    with pytest.raises(ConfigError, match=name):
        bench.open(bench.spec(v=1))


def test_secrets_lie_in_private_files_and_not_in_the_log(bench: Workbench) -> None:
    bench.module(
        REQUIRE_FILES + 'variable "s" {}\nresource "files_file" "a" {\n  path = "a"\n  secret_content = var.s\n}\n'
    )
    os.umask(0o022)
    talk, planned = bench.plan(bench.spec(s=Value("hush-hush", sensitive=True)))
    assert "hush-hush" in secrets_in(planned.json)
    holders = [f for f in bench.work.iterdir() if f.is_file() and b"hush-hush" in f.read_bytes()]
    assert [f.name for f in holders] == ["values.tfvars.json"]
    assert {stat.S_IMODE(f.stat().st_mode) for f in holders} == {0o600}
    assert stat.S_IMODE(bench.work.stat().st_mode) == 0o700
    assert talk.apply(deadline_in(SECONDS)).failure is None
    bench.bring_back()
    assert "hush-hush" in secrets_of(bench.state())
    assert "hush-hush" not in bench.log.read_text()


def test_log_is_for_people_and_masked_as_it_comes(bench: Workbench) -> None:
    bench.module(FILE)
    talk = bench.open(bench.spec(content="x"), mask=lambda text: text.replace("files_file", "(hidden)"))
    talk.init(deadline_in(SECONDS))
    talk.plan(deadline_in(SECONDS))
    talk.apply(deadline_in(SECONDS))
    lines = bench.log.read_text().splitlines()
    assert "module.unit.(hidden).a: Plan to create" in lines
    assert any(line.startswith("module.unit.(hidden).a: Creation complete") for line in lines)
    assert "Apply complete! Resources: 1 added, 0 changed, 0 destroyed." in lines
    assert "files_file" not in "".join(lines)


def test_workspace_with_a_long_name_still_starts_providers(bench: Workbench) -> None:
    bench.folder /= "x" * 100
    bench.folder.mkdir()
    bench.module(FILE)
    assert bench.apply(bench.spec(content="hello")).failure is None


def test_a_fresh_folder_goes_on_with_the_kept_state(bench: Workbench) -> None:
    bench.module(ECHO)
    bench.apply(bench.spec(v=1))
    before = bench.state().mark
    shutil.rmtree(bench.work)
    bench.apply(bench.spec(v=2))
    assert bench.state().mark.lineage == before.lineage
    assert bench.outputs()["v"] == 2
