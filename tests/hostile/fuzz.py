"""A harness for each parser of bytes that others wrote, and coverage-guided fuzzing of it with atheris.

    python -m tests.hostile.fuzz NAME SECONDS [SEED]     fuzz one of them, from its corpus on; a crash is saved beside it
    python -m tests.hostile.fuzz all SECONDS             each in turn; the seconds are of processor time
    python -m tests.hostile.fuzz keep NAME FOLDER        take what another corpus adds to the committed one

A harness returns for whatever is an answer or a refusal of ours; anything else that it raises is a find.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
CRASHES = HERE / "crashes"
LONGEST = 4096  # bytes of one input
LONGER = 20  # times the processor time, on a machine that has other things to do, and no run lasts longer
BOUNDS = ("-timeout=30", "-rss_limit_mb=1024", f"-max_len={LONGEST}", "-print_final_stats=0", "-verbosity=0")


def have_atheris() -> bool:
    """Whether coverage-guided fuzzing can be done on this machine: there are builds for Linux on x86-64."""
    try:
        import atheris
    except ImportError:
        return False
    return bool(atheris)


def fuzz(name: str, seconds: int, seed: int, found: Path) -> int:
    """Fuzz in another process, for so much processor time; new inputs go to `found`, a crash to `CRASHES`."""
    return _started(name, *_options(name, seconds * LONGER, seed, found), spend=seconds)


def sample(seconds: int, seed: int, found: Path) -> str:
    """Fuzz each in turn; what was found, in words. The code is instrumented once for all: that takes longer than this."""
    found.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "tests.hostile.fuzz", "sample", str(seconds), str(seed), str(found)]
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(argv, cwd=HERE.parent.parent, env=env, capture_output=True, text=True, check=False)
    return done.stderr[-20_000:] if done.returncode else ""


def keep(name: str, found: Path) -> int:
    """Copy what covers more than the committed corpus does."""
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:  # libFuzzer starts itself again, by a shell and its first word
        again = Path(folder, "fuzz")
        again.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.hostile.fuzz child {name} "$@"\n')
        again.chmod(0o700)
        return _started(name, "-merge=1", *BOUNDS, str(CORPUS / name), str(found), again=str(again))


def _options(name: str, seconds: int, seed: int, found: Path) -> list[str]:
    """What libFuzzer is told, its folders among it."""
    found.mkdir(parents=True, exist_ok=True)
    CRASHES.mkdir(exist_ok=True)
    bounds = [f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={CRASHES}/{name}-", *BOUNDS]
    return [*bounds, str(found), str(CORPUS / name)]


def _started(name: str, *options: str, spend: int | None = None, again: str = "fuzz") -> int:
    argv = [sys.executable, "-m", "tests.hostile.fuzz", "child", name, *options]
    env = {**os.environ, "PYTHONHASHSEED": "0", "RECONCILER_FUZZ_AGAIN": again}
    env |= {"RECONCILER_FUZZ_CPU": str(spend)} if spend else {}
    return subprocess.run(argv, cwd=HERE.parent.parent, env=env, check=False).returncode


def _child(name: str, options: list[str]) -> None:
    import atheris

    engine: Any = atheris  # it ships no types
    with engine.instrument_imports(include=["reconciler"]) if "-merge=1" not in options else nullcontext():
        from tests.hostile.harnesses import HARNESSES
    engine.Setup([os.environ.get("RECONCILER_FUZZ_AGAIN", "fuzz"), *options], _spending(HARNESSES[name]))
    engine.Fuzz()


def _spending(harness: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The harness, until this process has spent the processor time that it was given; libFuzzer knows wall time only."""
    given = float(os.environ.get("RECONCILER_FUZZ_CPU", "inf"))

    def spending(data: bytes) -> None:
        harness(data)
        if time.process_time() > given:
            os._exit(0)  # what was found is in its folder already

    return spending


def _sample(seconds: int, seed: int, found: Path) -> int:
    """Each in a fork, as libFuzzer ends the process; the number of those that found something."""
    import atheris

    engine: Any = atheris
    with engine.instrument_imports(include=["reconciler"]):
        from tests.hostile.harnesses import HARNESSES
    failed = 0
    for name, harness in HARNESSES.items():
        options = _options(name, seconds, seed, found / name)
        if (pid := os.fork()) == 0:
            engine.Setup([sys.argv[0], *options], harness)
            engine.Fuzz()
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            failed += 1
            sys.stderr.write(f"{name}: see above, and {CRASHES}\n")
    return failed


def main(words: list[str]) -> int:
    """See the top."""
    match words:
        case ["child", name, *options]:
            _child(name, options)
            return 0
        case ["sample", seconds, seed, folder]:
            return _sample(int(seconds), int(seed), Path(folder))
        case ["keep", name, folder]:
            return keep(name, Path(folder))
        case ["all", seconds]:
            names = sorted(folder.name for folder in CORPUS.iterdir())
            return max(fuzz(name, int(seconds), 0, HERE / "found" / name) for name in names)
        case [name, seconds, *seed]:
            return fuzz(name, int(seconds), int(seed[0]) if seed else 0, HERE / "found" / name)
    sys.stderr.write(f"{__doc__}\n")
    return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
