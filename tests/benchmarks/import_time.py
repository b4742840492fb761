"""How long ``import galaxy_trio`` takes, and how long its dependencies take alone: what it imports from elsewhere, read off its code."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = "galaxy_trio"
_TIMEOUT: Final = 60.0


def _output_of(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=_TIMEOUT
    ).stdout


def _loaded_files() -> list[str]:
    code = f"""
import json, sys, {PACKAGE}
files = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == {PACKAGE!r}]
print(json.dumps(files))
"""
    return cast("list[str]", json.loads(_output_of(code)))


def _imports_in(statements: list[ast.stmt]) -> Iterator[str]:
    """The modules imported at a module's top, without what only type checkers see."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            for name in statement.names:
                yield name.name
        elif isinstance(statement, ast.ImportFrom) and statement.module is not None:
            yield statement.module


def dependencies() -> list[str]:
    """What the package imports from elsewhere when it is imported."""
    found: set[str] = set()
    for file in _loaded_files():
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
        found.update(name for name in _imports_in(tree.body) if name.split(".")[0] not in (PACKAGE, "__future__"))
    return sorted(found)


def measure_import(modules: list[str]) -> float:
    """Seconds for importing modules in a fresh interpreter, without its own start."""
    code = f"import time; start = time.perf_counter(); import {', '.join(modules)}; print(time.perf_counter() - start)"
    return float(_output_of(code))
