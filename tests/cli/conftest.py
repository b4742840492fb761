"""Fixtures of the command line's tests."""

from __future__ import annotations

import importlib
import re
import select
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.support import world
from tests.cli.support.command_line import (
    Call,
    Command,
    caller,
    set_environment,
)
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


TOOL_MODULES = {
    "good.py": """
        import subprocess
        from galaxy_trio.agent import tool
        from galaxy_trio.messages import ToolType

        @tool
        def work(): return "done"

        @tool(name="pay")
        async def _pay(amount: int): return amount

        also_work = work

        def plain(text: str): return text.upper()

        def yields(): yield 1

        def takes_anything(*things): return things

        class Robot:
            def lift(self, height: int): return [height]

        class Arm:
            name, namespace, tool_type, timeout = "arm", None, ToolType.ACTION, 1.0
            async def call(self, parameters): return parameters

        class Unnamed(Arm):
            name = 3

        robot, arm, unnamed, number = Robot(), Arm(), Unnamed(), 7
        """,
    "other.py": """
        def work(): return "other work"
        """,
    "package/__init__.py": "",
    "package/inner.py": """
        def deep(): return "deep"
        """,
    "many.py": """
        from galaxy_trio.agent import tool
        for number in range(60):
            globals()[f"tool_{number:02}"] = tool(lambda: None, name=f"tool_{number:02}")
        """,
    "quits.py": "raise SystemExit('\\x1b[31mnot today\\nnor tomorrow')",
    "leaves.py": "import sys; sys.exit()",
    "breaks.py": "1 / 0",
    "asserts.py": "assert False",
    "interrupted.py": "raise KeyboardInterrupt",
    "misspelt.py": "def f(:",
}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process."""
    return caller(monkeypatch, capsys)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command that runs concurrently with the test."""
    set_environment(monkeypatch)
    return Command(monkeypatch)


@pytest.fixture(scope="session")
def url() -> Generator[str]:
    """The URL of a server in another process: the command line runs its own event loop in the test's process."""
    with subprocess.Popen(  # noqa: S603  # ourselves
        [sys.executable, "-m", world.__name__], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        try:
            assert select.select([process.stdout], [], [], SECONDS)[0], "the server does not start"
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """The current directory, with modules that are removed from `sys.modules` afterwards."""
    for name, text in TOOL_MODULES.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(re.sub("^        ", "", text, flags=re.MULTILINE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    importlib.invalidate_caches()
    yield tmp_path
    for name in TOOL_MODULES:
        for module in (name.removesuffix(".py").replace("/", "."), name.partition("/")[0]):
            sys.modules.pop(module, None)
