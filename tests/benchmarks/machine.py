"""The machine that a measurement was made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from .report import print_table

LIBRARIES = ("trio", "trio-websocket", "wsproto", "attrs", "cattrs", "websockets", "pydantic", "pydantic_core")


def print_machine() -> None:
    """Say what it is, and what runs on it."""
    print("## Machine")
    rows = [
        ("CPU", f"{_cpu()}, {os.cpu_count()} cores"),
        ("System", platform.platform()),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        *((library, version(library)) for library in LIBRARIES),
    ]
    print_table(("what", "which"), rows)
    print(f"Load before: {load()}.")


def load() -> str:
    """How busy it is with everything that runs on it: the average number of runnable processes of the last minute."""
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
