"""The how-to with a plan that survives: its commands print what it shows."""

from __future__ import annotations

import json
import re
import shlex
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

import attrs
import httpx2
import pytest
import trio

from tests.cli.support.command_line import Process, call_process, open_process
from tests.support.paths import DOCS
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = [pytest.mark.daemon, pytest.mark.slow]

PAGE = (DOCS / "howto" / "plan-that-survives.md").read_text("utf-8")
SERVER = "ws://127.0.0.1:5000/ws"
DAEMON = "http://127.0.0.1:8765"
_ID = re.compile(r"[0-9a-f]{32}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+\+00:00)?|\b\d\d:\d\d:\d\d\b|\b\d+ (?:s|min)\b")


def _commands() -> list[tuple[list[str], str]]:
    """Return each command with the output that the page shows."""
    blocks: list[str] = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    entries = [entry.partition("\n") for block in blocks for entry in block.split("$ ")[1:]]
    return [(shlex.split(line), output) for line, _, output in entries]


def _file(name: str) -> str:
    [text] = re.findall(rf'```\w+ title="{re.escape(name)}"\n(.*?)```', PAGE, re.DOTALL)
    return str(text)


def _unchanging(text: str, port: str = "8765") -> str:
    text = _TIME.sub("…", text).replace(f":{port}", ":8765")
    return re.sub(r" +", " ", text)


@attrs.define
class World:
    """The programs of the page, in the current directory.

    Attributes:
        url: The daemon's URL.
        graph_id: The id of the graph.
    """

    url: str = ""
    graph_id: str = ""

    async def run(self, arguments: list[str], output: str) -> None:
        """Run a command of the page, and check that it prints what the page shows."""
        words = self.words(arguments)
        if words[0] == "curl":
            printed = await self._request(words) + "\n"
        elif words[0] == "galaxy-trio":
            url = [] if words[2] == "check" else ["--url", self.url]
            outcome = await call_process(*words[1:], *url)
            assert (outcome.status, outcome.err) == (0, ""), outcome
            printed = outcome.out
        else:
            with trio.fail_after(SECONDS):
                await trio.run_process(shlex.join(words).replace("'>'", ">"), shell=True)  # noqa: S604  # the page's
            printed = ""
        if not self.graph_id:
            [self.graph_id] = _ID.findall(printed)[:1] or [""]
        shown = _ID.sub(lambda _: self.graph_id, output)
        assert _unchanging(printed, self.url.rpartition(":")[2]) == _unchanging(shown)

    def words(self, arguments: list[str]) -> list[str]:
        """A command of the page with the real address and the real id."""
        return [_ID.sub(self.graph_id, word).replace(DAEMON, self.url) for word in arguments]

    async def _request(self, words: list[str]) -> str:
        """Do what curl does."""
        curl, _, method, url, _, body = words
        assert (curl, words[1], words[4]) == ("curl", "-X", "--json")
        async with httpx2.AsyncClient() as client:
            response = await client.request(method, url, json=json.loads(body))
        return response.text

    async def until_listening(self) -> None:
        """Wait until a client listens to the events."""
        async with httpx2.AsyncClient() as client:
            with trio.fail_after(SECONDS):
                while "galaxy_event_listeners 1.0" not in (await client.get(f"{self.url}/metrics")).text:  # noqa: ASYNC110  # HTTP has no event for it
                    await trio.sleep(0.05)

    async def until(self, **states: str) -> None:
        """Wait until nodes of the graph have these states."""
        async with httpx2.AsyncClient() as client:
            with trio.fail_after(SECONDS):
                while True:
                    graph = cast("dict[str, Any]", (await client.get(f"{self.url}/graphs/{self.graph_id}")).json())
                    results: Mapping[str, Any] = graph["graph"].get("results", {})
                    if all(results.get(name, {}).get("state") == state for name, state in states.items()):
                        return
                    await trio.sleep(0.05)


async def test_commands_of_the_howto_print_the_documented_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = _commands()
    serve, *agents = commands[:3]
    start, check, submit, look, follow, again, *rest = commands[3:]
    figures, failed, paper, retry, edit, conflict, cancel, *afterwards = rest
    assert start == again
    assert [command[0][:3] for command in afterwards] == [
        ["galaxy-trio", "graph", word] for word in ("list", "export", "check")
    ]
    world = World()
    async with AsyncExitStack() as stack:

        async def open_daemon() -> Process:
            daemon = await stack.enter_async_context(open_process(*start[0][1:]))
            world.url = (await daemon.wait_for_output("\n")).strip()
            return daemon

        server = await stack.enter_async_context(open_process(*serve[0][1:], "--port", "0", token=None))
        url = (await server.wait_for_output("\n")).strip()
        for name in ("office.py", "devices.toml", "plan.toml"):
            (tmp_path / name).write_text(_file(name).replace(SERVER, url))
        # The port of the page may be in use on this machine.
        settings = f'{_file("galaxy.toml")}listen = "127.0.0.1:PORT"\n'
        (tmp_path / "galaxy.toml").write_text(settings.replace("PORT", "0"))
        for arguments, output in agents:
            words = [url if word == SERVER else word for word in arguments[1:]]
            agent = await stack.enter_async_context(open_process(*words, token=None))
            assert await agent.wait_for_output("\n") == output
        daemon = await open_daemon()
        (tmp_path / "galaxy.toml").write_text(settings.replace("PORT", world.url.rpartition(":")[2]))
        await world.run(*check)
        await world.run(*submit)
        await world.until(collect="running")
        await world.run(*look)
        followed = await stack.enter_async_context(open_process(*world.words(follow[0])[1:], "--url", world.url))
        await followed.wait_for_output("1 running")
        await world.until_listening()
        daemon.send_signal(signal.SIGKILL)
        await daemon.end()
        await open_daemon()
        await followed.wait_for_output(" is back", "err")
        await world.until(collect="running")
        await world.run(*figures)
        await world.until(print="failed", slides="running")
        await world.run(*failed)
        await world.run(*paper)
        await world.run(*retry)
        await world.until(archive="completed")
        await world.run(*edit)
        await world.run(*conflict)
        await world.until(thank="completed")
        await world.run(*cancel)
        outcome = await followed.end()
        assert outcome.status == 1
        assert _lines(outcome.err + outcome.out, world) == _lines(_file("the output"), world)
        for command in afterwards:
            await world.run(*command)


def _lines(text: str, world: World) -> list[str]:
    """The lines of the command that follows the graph.

    Nodes of two devices may end in any order. A device may be connected late, and the lost attempt may be seen, or only the next one.
    """
    shown = _ID.sub(lambda _: world.graph_id, text)
    lines = _unchanging(shown, world.url.rpartition(":")[2]).splitlines()
    return sorted(line for line in lines if " connected" not in line and "collect failed on" not in line)
