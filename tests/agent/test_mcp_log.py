"""What an MCP server makes the SDK log: one short line, then a count."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
from mcp.client import stdio

from galaxy_trio._cli.server_session import run_as_command
from galaxy_trio.agent.mcp_log import ServerLog
from galaxy_trio.server import open_server
from tests.agent.test_mcp import call, odd, opened, until
from tests.cli.support.command_line import DEVICE, TOKEN, ask, open_process

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.programs

GARBAGE = ("what is not JSON", "what is no message", "half a message", "wrong notifications", "unknown replies")


@pytest.mark.parametrize("kind", GARBAGE)
async def test_what_a_server_prints_besides_messages_is_one_line_and_a_count(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(odd("answers")) as tools:
        assert await call(tools, "answer", answer=kind) == kind
        assert await call(tools, "answer", answer="still here") == "still here"
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    lines = [record.getMessage() for record in warnings]
    if lines:
        first, count = lines
        assert first.startswith("MCP server 'answers': ")
        assert len(first) < 250
        assert count == "1,999 more problems like the last one not logged"
        assert "sk-1234" not in first
    # The SDK ignores replies to nothing.
    assert bool(lines) == (kind != "unknown replies")
    assert not any(record.exc_info for record in warnings)


async def test_call_of_a_tool_that_is_no_longer_listed_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(odd("forgets its tools")) as tools:
        [answer] = tools.tools()
        await answer.call({})

        async def tools_are_forgotten() -> bool:
            return not tools.tools()

        await until(tools_are_forgotten)
        for _ in range(10):
            await answer.call({})
    assert caplog.messages == []


@pytest.mark.parametrize("option", ["-q", "-v"])
async def test_agents_stderr_is_not_filled_by_an_mcp_server(option: str, tmp_path: Path) -> None:
    server = odd("answers", tmp_path / "starts")
    command = f"STARTS={tmp_path / 'starts'} odd={' '.join(server.command)}"
    async with open_server(session=run_as_command, token=TOKEN) as end:
        async with open_process("agent", end.url, DEVICE, option, "--mcp", command) as process:
            await process.wait_for_output("registered as")
            for kind in GARBAGE:
                assert (await ask(end.url, f'answer {{"answer": "{kind}"}}')).unwrap() == kind
            process.send_signal(2)
            outcome = await process.end()
    warnings = [line for line in outcome.err.splitlines() if " WARNING " in line]
    assert [line.split(" ", 2)[2] for line in warnings] == [
        "galaxy_trio.agent.mcp_log: MCP server 'odd': ignored a line of its output: it is not JSON",
        "galaxy_trio.agent.mcp_log: 7,999 more problems like the last one not logged",
    ]
    assert "Traceback" not in outcome.err
    assert "sk-1234" not in outcome.err
    # Without `-v` there is nothing else.
    assert option == "-v" or len(outcome.err.splitlines()) == 2


async def test_log_of_the_sdk_is_left_alone_where_it_is_not_about_a_server(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mcp")
    log = ServerLog("a")
    stdio.logger.warning("before")
    with log.taking_the_sdks():
        stdio.logger.warning("taken")
        stdio.logger.debug("for developers")
        await trio.to_thread.run_sync(stdio.logger.warning, "in a thread")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_warn, "counted")
    stdio.logger.warning("after")
    assert caplog.messages == ["before", "MCP server 'a': taken", "for developers", "in a thread", "after"]


async def _warn(words: str) -> None:
    stdio.logger.warning(words)


async def test_each_problem_with_tools_is_logged_once_and_only_a_few_of_them(caplog: pytest.LogCaptureFixture) -> None:
    log = ServerLog("a")
    for _ in range(3):
        for number in range(30):
            log.problem_with_tools(f"problem {number}")
    assert caplog.messages == [
        *(f"MCP server 'a': problem {number}" for number in range(19)),
        "MCP server 'a': problem 19; further problems with its tools are not logged",
    ]
