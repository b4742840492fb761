"""Digests of runs in a process of their own, by which runs of different processes are compared."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

_PROGRAM = """
import hashlib
from {module} import {name}
for seed in range({seeds}):
    print(hashlib.sha256(str({name}(seed).journal).encode()).hexdigest())
"""


def digests(simulate: Callable[[int], object], seeds: int, hash_seed: str) -> list[str]:
    """Run the first seeds in a separate process, with its own order of sets, and return the digests of the journals."""
    program = _PROGRAM.format(module=simulate.__module__, name=simulate.__name__, seeds=seeds)
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(  # noqa: S603  # this program
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()
