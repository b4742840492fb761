"""How long ``import galaxy_trio`` takes, and how long its dependencies take alone: what it imports from elsewhere, read off its code."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, cast

from .report import Target, at_most, print_table
from .trees import WORKING_TREE, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .effort import Effort

PACKAGE: Final = "galaxy_trio"
_TIMEOUT: Final = 60.0


def _output_of(code: str, tree: Tree) -> str:
    command = [sys.executable, "-c", code]
    completed = subprocess.run(
        command, cwd=tree.path, env=tree.environment(), check=True, capture_output=True, text=True, timeout=_TIMEOUT
    )
    return completed.stdout


def _loaded_files() -> list[str]:
    code = f"""
import json, sys, {PACKAGE}
files = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == {PACKAGE!r}]
print(json.dumps(files))
"""
    return cast("list[str]", json.loads(_output_of(code, WORKING_TREE)))


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


def _measure(modules: Sequence[str], tree: Tree) -> float:
    """Seconds for importing modules in a fresh interpreter, without its own start."""
    code = f"import time; start = time.perf_counter(); import {', '.join(modules)}; print(time.perf_counter() - start)"
    return float(_output_of(code, tree))


def bench_import(trees: Sequence[Tree], effort: Effort) -> list[Target]:
    """Import the package of each tree, and the dependencies of the working tree's alone."""
    print("\n## Import")
    modules = dependencies()
    measured = {"the dependencies alone": (modules, WORKING_TREE)}
    measured |= {f"{PACKAGE}, {tree.name}": ([PACKAGE], tree) for tree in trees}
    for what in measured.values():
        # The first import of a new tree compiles it.
        _measure(*what)
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(effort.imports):
        for name, what in measured.items():
            taken[name].append(_measure(*what))
    middle = {name: median(seconds) for name, seconds in taken.items()}
    alone, *packages = middle.values()
    print_table(
        ("import of", "ms", "of the dependencies'"),
        ((name, f"{seconds * 1e3:.0f}", f"{seconds / alone:.2f}") for name, seconds in middle.items()),
    )
    print(f"The dependencies: {', '.join(modules)}.")
    if len(packages) == 1:
        return []
    before, now = packages
    return [at_most("import, of the baseline's", 1.0, now / before)]
