"""Stands for the provider's interpreter: its calls to create something become points, and the engine's end one of them too.

`provider.py -I -B files_provider.py`, started by Terraform. Beside its link in a house lies the file of orders.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path


def main() -> None:
    program = Path(sys.argv[-1])
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(program.parent)]
    import objects

    from tests.crash.launcher import Fate, wrap

    class Engine(Fate):
        """The engine and all that it started, at once: it leads their group."""

        def die(self) -> None:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    orders = Path(os.environ["ORDERS"])
    for fate in (Fate("provider", orders), Engine("engine", orders)):
        wrap(fate, objects.Cloud, "create", "call")
    sys.argv = [str(program)]
    runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main()
