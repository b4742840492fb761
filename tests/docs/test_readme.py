"""The README: its commands and programs run as shown, against the processes that it starts."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from tests.cli.support.command_line import call_process, open_process
from tests.support.paths import DOCS, ROOT
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.programs

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS: list[str] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
FILES: list[tuple[str, str]] = re.findall(r"```toml title=\"([\w.]+)\"\n(.*?)```", README, re.DOTALL)
URL = "ws://127.0.0.1:5000/ws"


@attrs.frozen
class Shown:
    """A command and its output, as the README shows them."""

    arguments: list[str]
    output: str

    def at(self, url: str) -> list[str]:
        """Return the arguments for a server at another URL."""
        return [argument.replace(URL, url) for argument in self.arguments]


def quick_start() -> list[Shown]:
    section = README.partition("## Quick start\n")[2].partition("\n#")[0]
    blocks: list[str] = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    commands: list[Shown] = []
    for entry in (entry for block in blocks for entry in block.split("$ ")[1:]):
        line, _, output = entry.partition("\n")
        program, *arguments = shlex.split(line)
        assert program == ".venv/bin/galaxy-trio"
        commands.append(Shown(arguments, output))
    return commands


def without_machine(text: str) -> str:
    """Return a command's output without values that differ between machines."""
    return re.sub(r'("(?:host|system|folder)": )".*"', r'\1"…"', text)


async def test_commands_and_programs_of_the_readme_print_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    serve, *others = quick_start()
    agents = [shown for shown in others if shown.arguments[0] == "agent"]
    runs = [shown for shown in others if shown.arguments[0] == "run"]
    assert (serve.arguments, serve.output, len(agents) + len(runs)) == (["server"], f"{URL}\n", len(others))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_process("server", "--port", "0", token=None))
        url = (await server.wait_for_output("\n")).strip()
        processes = [server]
        for shown in agents:
            processes.append(await stack.enter_async_context(open_process(*shown.at(url), token=None)))
            assert await processes[-1].wait_for_output("\n") == shown.output
        for shown in runs:
            outcome = await call_process(*shown.at(url), token="")
            assert (outcome.status, outcome.err) == (0, "")
            assert without_machine(outcome.out) == without_machine(shown.output)
        for name, text in FILES:
            (tmp_path / name).write_text(text.replace(URL, url), encoding="utf-8")
        printed = [await run_program(program.replace(URL, url)) for program in PROGRAMS]
        for process in reversed(processes):
            process.send_signal(signal.SIGINT)
            assert (await process.end()).status == 0
    first, second, third = printed
    assert re.fullmatch(r"laptop: \w+, \d+ cores\n", first[0])
    assert sorted(first[1:]) == ["1 + 2 = 3.0\n", "3 + 4 = 7.0\n"]
    assert second[0].startswith("desktop {'host': ")
    assert second[1].startswith("TaskResult(")
    assert third[0] == "sum is completed on laptop\n"
    assert third[2] == "list is completed on desktop\n"
    assert [line.partition(" on ")[0] for line in third] == [
        f"{name} is completed" for name in ("sum", "where", "list", "check")
    ]


async def run_program(program: str) -> list[str]:
    """Run a program, and return the lines that it printed."""
    with trio.fail_after(SECONDS):
        completed = await trio.run_process(
            [sys.executable, "-c", program], capture_stdout=True, capture_stderr=True, check=False
        )
    assert (completed.returncode, completed.stderr) == (0, b"")
    return completed.stdout.decode().splitlines(keepends=True)


def test_programs_of_the_readme_are_files_of_the_documentation() -> None:
    files = {path.read_text("utf-8") for path in (DOCS / "examples").glob("readme_*.py")}
    assert set(PROGRAMS) == files
    assert len(files) == 3
