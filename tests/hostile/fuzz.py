"""A harness for each parser of bytes that others wrote, and coverage-guided fuzzing of it with atheris.

    python -m tests.hostile.fuzz NAME SECONDS [SEED]     fuzz one of them, from its corpus on; a crash is saved beside it
    python -m tests.hostile.fuzz all SECONDS             each in turn
    python -m tests.hostile.fuzz keep NAME FOLDER        take what another corpus adds to the committed one

A harness returns for whatever is an answer or a refusal of ours; anything else that it raises is a find.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
CRASHES = HERE / "crashes"
LONGEST = 4096  # bytes of one input
BOUNDS = ("-timeout=30", "-rss_limit_mb=1024", f"-max_len={LONGEST}", "-print_final_stats=0", "-verbosity=0")


def have_atheris() -> bool:
    """Whether coverage-guided fuzzing can be done on this machine: there are builds for Linux on x86-64."""
    try:
        import atheris
    except ImportError:
        return False
    return bool(atheris)


def fuzz(name: str, seconds: int, seed: int, found: Path) -> int:
    """Fuzz in another process, which libFuzzer ends; new inputs go to `found`, a crash to `CRASHES`."""
    found.mkdir(parents=True, exist_ok=True)
    CRASHES.mkdir(exist_ok=True)
    options = (f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={CRASHES}/{name}-", *BOUNDS)
    return _started(name, *options, str(found), str(CORPUS / name))


def keep(name: str, found: Path) -> int:
    """Copy what covers more than the committed corpus does."""
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    return _started(name, "-merge=1", *BOUNDS, str(CORPUS / name), str(found))


def _started(name: str, *options: str) -> int:
    argv = [sys.executable, "-m", "tests.hostile.fuzz", "child", name, *options]
    return subprocess.run(
        argv, cwd=HERE.parent.parent, env={**os.environ, "PYTHONHASHSEED": "0"}, check=False
    ).returncode


def _child(name: str, options: list[str]) -> None:
    import atheris

    engine: Any = atheris  # it ships no types
    with engine.instrument_imports(include=["reconciler"]) if "-merge=1" not in options else nullcontext():
        from tests.hostile.harnesses import HARNESSES
    engine.Setup([sys.argv[0], *options], HARNESSES[name])
    engine.Fuzz()


def main(words: list[str]) -> int:
    """See the top."""
    match words:
        case ["child", name, *options]:
            _child(name, options)
            return 0
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
