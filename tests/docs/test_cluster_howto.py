"""The how-to with several daemons: its commands print what it shows."""

from __future__ import annotations

import re
import shlex
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.support.command_line import Process, call_process, open_process
from tests.daemon.support.postgresql import open_postgresql
from tests.support.paths import DOCS
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.daemon, pytest.mark.slow]

PAGE = DOCS / "howto" / "cluster.md"
SERVER = "ws://127.0.0.1:5000/ws"
DATABASE = "postgresql+psycopg://galaxy@/galaxy?host=/run/postgresql"
NAMES = ("one", "two", "three")
_ID = re.compile(r"[0-9a-f]{32}")
_TIME = re.compile(r"\d+ (?:s|min)\b")


def _section() -> str:
    return PAGE.read_text("utf-8").partition("## Three daemons")[2].partition("\n## ")[0]


def _commands() -> list[tuple[list[str], str]]:
    """Return each command with the output that the page shows."""
    blocks: list[str] = re.findall(r"```console\n(.*?)```", _section(), re.DOTALL)
    entries = [entry.partition("\n") for block in blocks for entry in block.split("$ ")[1:]]
    return [(shlex.split(line)[1:], output) for line, _, output in entries]


def _unchanging(table: str) -> list[str]:
    """A table without times and widths. Which daemon has one device more than the other is chance."""
    lines = [" ".join(_TIME.sub("N s", line).split()) for line in table.splitlines()]
    return [re.sub(r" [12](?= 0 N s ago$)", " some", line) for line in lines]


async def test_commands_of_the_howto_print_the_documented_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = _commands()
    serve, *agents = commands[:4]
    daemons, (before, submit, wait, killed, again, drain) = commands[4:7], commands[7:]
    devices, one = re.findall(r"```toml.*?\n(.*?)```", _section(), re.DOTALL)
    urls: dict[str, str] = {}

    async def ask(arguments: list[str]) -> str:
        outcome = await call_process(*(urls.get(word, word) for word in arguments))
        assert (outcome.status, outcome.err) == (0, "")
        return outcome.out

    async def ask_until(command: tuple[list[str], str]) -> None:
        table: list[str] = []
        with trio.move_on_after(SECONDS):
            while True:
                table = _unchanging(await ask(command[0]))
                if table == _unchanging(command[1]):
                    break
        assert table == _unchanging(command[1])

    with open_postgresql() as postgresql:
        postgresql.execute("CREATE ROLE galaxy LOGIN")
        postgresql.execute("CREATE DATABASE galaxy OWNER galaxy")
        async with AsyncExitStack() as stack:

            async def start(number: int) -> Process:
                daemon = await stack.enter_async_context(open_process(*daemons[number][0]))
                urls[daemons[number][1].strip()] = (await daemon.wait_for_output("\n")).strip()
                return daemon

            server = await stack.enter_async_context(open_process(*serve[0], "--port", "0", token=None))
            url = (await server.wait_for_output("\n")).strip()
            for arguments, output in agents:
                words = [url if word == SERVER else word for word in arguments]
                agent = await stack.enter_async_context(open_process(*words, token=None))
                assert await agent.wait_for_output("\n") == output
            (tmp_path / "devices.toml").write_text(devices.replace(SERVER, url))
            for number, name in enumerate(NAMES):
                # The ports of the page may be in use on this machine.
                text = re.sub(r"^(listen = ).*", r'\1"127.0.0.1:0"', one, flags=re.MULTILINE)
                text = text.replace(DATABASE, postgresql.url("galaxy", "galaxy")).replace('"one"', f'"{name}"')
                (tmp_path / f"{name}.toml").write_text(text.replace("8765", str(8765 + number)))
            assert [output.strip() for _, output in daemons] == [f"http://127.0.0.1:{8765 + n}" for n in range(3)]
            first, *_ = [await start(number) for number in range(3)]
            await ask_until(before)
            [shown] = _ID.findall(submit[1])
            urls[shown] = (await ask(submit[0])).strip()
            assert await ask(wait[0]) == wait[1]
            first.send_signal(signal.SIGKILL)
            await first.end()
            await ask_until(killed)
            await start(0)
            await ask_until(again)
            assert await ask(drain[0]) == drain[1]
            drained = re.compile(r"^two +draining, lease \d+ s +0 ", re.MULTILINE)
            table = ""
            with trio.move_on_after(SECONDS):
                while True:
                    table = await ask(before[0])
                    if drained.search(table) and "no owner" not in table:
                        return
            pytest.fail(table)
