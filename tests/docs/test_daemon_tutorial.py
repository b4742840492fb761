"""The daemon's tutorial: its commands print what it shows."""

from __future__ import annotations

import re
import shlex
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.cli.support.command_line import call_process, open_process
from tests.support.paths import DOCS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


pytestmark = [pytest.mark.daemon, pytest.mark.slow]

TUTORIAL = DOCS / "howto" / "daemon.md"
SERVER = "ws://127.0.0.1:5000/ws"
DAEMON = "http://127.0.0.1:8765"
_ID = re.compile(r"[0-9a-f]{32}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\b\d+ s\b")


def _section() -> str:
    return TUTORIAL.read_text("utf-8").partition("## Tutorial")[2].partition("\n## ")[0]


def _commands() -> list[tuple[list[str], str]]:
    """Return each command with the output that the tutorial shows."""
    blocks: list[str] = re.findall(r"```console\n(.*?)```", _section(), re.DOTALL)
    commands: list[tuple[list[str], str]] = []
    for entry in (entry for block in blocks for entry in block.split("$ ")[1:]):
        line, _, output = entry.partition("\n")
        program, *arguments = shlex.split(line)
        assert program == ".venv/bin/galaxy-trio"
        commands.append((arguments, output))
    return commands


def _without_times(text: str) -> str:
    return _TIME.sub("…", text)


async def test_daemon_tutorial_prints_the_documented_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    serve, be_device, check, run_daemon, *tasks = _commands()
    assert [task[0][:2] for task in tasks] == [
        ["task", word] for word in ("submit", "submit", "list", "logs", "submit", "wait")
    ]
    files: Sequence[str] = re.findall(r"```toml\n(.*?)```", _section(), re.DOTALL)
    ids: dict[str, str] = {}

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_process(*serve[0], "--port", "0", token=None))
        url = (await server.wait_for_output("\n")).strip()
        assert serve[1].strip() == SERVER
        for name, text in zip(("devices.toml", "galaxy.toml"), files, strict=True):
            # The tutorial's own ports may be in use on this machine.
            (tmp_path / name).write_text(text.replace(SERVER, url).replace("127.0.0.1:8765", "127.0.0.1:0"))
        assert (await call_process(*check[0])).out == check[1]
        device = [url if word == SERVER else word for word in be_device[0]]

        async def ask(arguments: list[str], output: str, daemon_url: str) -> None:
            outcome = await call_process(*(ids.get(word, word) for word in arguments), "--url", daemon_url)
            assert (outcome.status, outcome.err) == (0, "")
            for shown, real in zip(_ID.findall(output), _ID.findall(outcome.out), strict=True):
                ids.setdefault(shown, real)
            assert _without_times(outcome.out) == _without_times(_ID.sub(lambda shown: ids[shown[0]], output))

        async with open_process(*run_daemon[0]) as daemon:
            daemon_url = (await daemon.wait_for_output("\n")).strip()
            assert run_daemon[1].strip() == DAEMON
            async with open_process(*device, token=None) as agent:
                assert await agent.wait_for_output("\n") == be_device[1]
                await ask(*tasks[0], daemon_url)
                await ask(*tasks[1], daemon_url)
                # The tutorial does not wait for it: a reader takes longer than the task.
                await call_process("task", "wait", next(iter(ids.values())), "--url", daemon_url)
                # The tutorial has not shown the first task's id before.
                listed = (await call_process("task", "list", "--url", daemon_url)).out
                ids[_ID.findall(tasks[2][1])[1]] = _ID.findall(listed)[1]
                await ask(*tasks[2], daemon_url)
                await ask(*tasks[3], daemon_url)
                agent.send_signal(signal.SIGINT)
                await agent.end()
            await ask(*tasks[4], daemon_url)
            daemon.send_signal(signal.SIGKILL)
            await daemon.end()
        async with open_process(*run_daemon[0]) as daemon, open_process(*device, token=None):
            daemon_url = (await daemon.wait_for_output("\n")).strip()
            await ask(*tasks[5], daemon_url)
