"""What an MCP server's process does badly costs as little as possible, and is named. Real processes, on the real clock."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.agent.mcp_server import McpServer
from galaxy_trio.agent.mcp_supervisor import open_mcp_tools
from galaxy_trio.errors import ToolError
from tests.agent.test_mcp import REAL, call, failure, named, odd, opened, pids_in, process_exists, until
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.agent import McpTools, Tool

pytestmark = pytest.mark.programs


def names_in(tools: McpTools) -> list[str]:
    return [tool.name for tool in tools.tools()]


@pytest.mark.parametrize(
    ("kind", "names", "problem"),
    [
        ("repeats its cursor", ["answer", "tool 1", "tool 2"], "the list ended early, because its nextCursor repeats"),
        ("has endless empty pages", ["answer"], "the list ended early, because 10 pages had no new tool"),
        (
            "breaks its second page",
            ["answer"],
            "the list ended early, because a further page failed: the rest is gone",
        ),
    ],
)
async def test_list_of_tools_that_does_not_end_well_keeps_its_tools_and_is_warned_about_once(
    kind: str, names: list[str], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(odd(kind)) as tools:
        assert names_in(tools) == names
        assert await call(tools, "answer", answer="here") == "here"
    assert caplog.messages == [f"MCP server {kind!r}: {problem}"]


async def test_badly_listed_tool_hides_no_other_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(odd("lists badly")) as tools:
        assert names_in(tools) == ["odd", "answer"]
        assert await call(tools, "answer", answer="here") == "here"
        assert await call(tools, "odd", answer="here") == "here"
    assert [message.removeprefix("MCP server 'lists badly': ") for message in caplog.messages] == [
        "ignored tool number 1: it is a number, not an object",
        "ignored tool number 2: its name is a number, not text",
        "ignored tool 'no schema': its inputSchema is missing, not an object",
        "ignored tool 'a schema of text': its inputSchema is text, not an object",
        "ignored tool number 5: its name contains a lone surrogate",
        "ignored the annotations of tool 'odd': it is a list, not an object",
        "ignored the description of tool 'odd': it is a number, not text",
        "ignored the outputSchema of tool 'odd': it is true or false, not an object",
        "its list of tools may be incomplete: the nextCursor is a number, not text",
    ]


async def test_bad_handshake_is_accepted_if_it_names_a_version(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(odd("greets badly"), odd("names no version")) as tools:
        assert names_in(tools) == ["answer"]

        async def is_logged() -> bool:
            return "its handshake names no version of the protocol" in caplog.text

        await until(is_logged)


async def test_byte_order_mark_and_a_server_without_tools_are_accepted(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(odd("begins with a byte order mark"), odd("has only prompts")) as tools:
        assert names_in(tools) == ["answer"]
    assert caplog.messages == ["MCP server 'has only prompts': it offers no tools"]


async def test_bad_lists_of_a_server_without_a_handshake_hide_no_tool(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(odd("is modern and lists badly"), odd("is modern and vague")) as tools:
        assert names_in(tools) == ["odd", "answer"]
        assert await call(tools, "answer", answer="here") == "here"

        async def is_logged() -> bool:
            return "its description names no versions of the protocol" in caplog.text

        await until(is_logged)
    assert "ignored tool 'headers': its x-mcp-header is invalid: " in caplog.text
    assert "ignored tool number 2: it is a number, not an object" in caplog.text


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("is from the future", "Unsupported protocol version from the server: 3000-01-01"),
        ("never lists", "it did not reply within 3 s"),
        ("closes its input", "it ended before it replied"),
    ],
)
async def test_server_that_cannot_be_used_is_tried_again(
    kind: str, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(odd(kind, start_timeout=3)) as tools:
        assert tools.tools() == []

        async def is_logged() -> bool:
            return f"MCP server {kind!r}: {problem}; trying again" in caplog.text

        await until(is_logged)


async def test_broken_reply_fails_its_call_immediately_and_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(odd("answers")) as tools:
        for answer, reason in {
            "a list": "its reply has neither a result nor an error",
            "neither": "its reply has neither a result nor an error",
            "an error that is text": "no such luck",
            "an error with data": 'no file {"name": "a.txt"}',
            "input": "MCP tool 'answer' asks for input during the call, which a device cannot give",
        }.items():
            assert await failure(tools, "answer", answer=answer) == reason
        assert await call(tools, "answer", answer="nonsense requests") == "nonsense requests"
        assert await call(tools, "answer", answer="still here") == "still here"
    assert "validation error" not in caplog.text


async def test_progress_extends_a_call_beyond_its_limit() -> None:
    server = odd("answers")
    slow = McpServer("slow", server.command, call_timeout=2, start_timeout=SECONDS)
    async with opened(slow) as tools:
        assert await call(tools, "answer", answer="progress") == "progress"


async def test_call_without_progress_ends_after_its_limit_and_the_session_continues() -> None:
    program = McpServer("real", REAL.command, call_timeout=0.5)
    async with opened(program) as tools:
        reason = await failure(tools, "wait", label="for ever")
        assert reason == "MCP tool 'wait' took longer than 0.5 s (call_timeout)"
        assert await call(tools, "add", a=1, b=2) == "3"


async def test_endless_line_restarts_its_server_with_one_short_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    starts = tmp_path / "starts"
    with trio.fail_after(SECONDS):
        async with open_mcp_tools([odd("answers", starts)], max_message_size=1_000_000) as tools:
            reason = await failure(tools, "answer", answer="an endless line")
            assert reason == "MCP server 'answers' is not running: it ended before it replied"

            async def is_restarted() -> bool:
                return len(pids_in(starts)) == 2 and await is_there(tools)

            await until(is_restarted)
    [message] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert message.startswith("MCP server 'answers': it sent a message of more than 1000000 bytes; trying again in ")


async def test_server_that_reads_no_answers_is_restarted(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(odd("answers")) as tools:
        assert await failure(tools, "answer", answer="endless requests") == (
            "MCP server 'answers' is not running: it ended before it replied"
        )
        await until(partial(is_there, tools))
        # Those that are answered or cancelled do not count.
        assert await call(tools, "answer", answer="many requests") == "many requests"
    assert "MCP server 'answers': it sent more than 100 requests without reading the answers; trying" in caplog.text


async def test_servers_that_send_too_much_together_are_restarted(caplog: pytest.LogCaptureFixture) -> None:
    first, second = odd("answers"), odd("is modern")
    with trio.fail_after(SECONDS):
        async with open_mcp_tools([first, second], memory_limit=1_000_000) as tools:
            [of_first, of_second] = tools.tools()
            async with trio.open_nursery() as nursery:
                for tool in (of_first, of_second):
                    nursery.start_soon(fails, tool)
    assert "it was stopped because all MCP servers together sent unfinished messages of 1000000 bytes" in caplog.text


async def fails(tool: Tool) -> None:
    with pytest.raises(ToolError, match="ended before it replied"):
        await tool.call({"answer": "an endless line"})


async def is_there(tools: McpTools) -> bool:
    try:
        return await named(tools, "answer").call({"answer": "here"}) == "here"
    except ToolError:
        return False


async def test_last_lines_of_stderr_and_the_exit_status_are_in_the_error_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with opened(odd("cannot start")) as tools:

        async def is_tried_twice() -> bool:
            return caplog.text.count("trying again") >= 2

        await until(is_tried_twice)
        assert tools.tools() == []
    lines = [message for message in caplog.messages if "wrote" in message]
    assert lines == [
        "MCP server 'cannot start' wrote: a module is missing",
        "MCP server 'cannot start' wrote: the second line",
    ]
    assert "MCP server 'cannot start': it ended before it replied (exit status 1); trying again in" in caplog.text


async def test_server_that_has_ended_is_restarted_although_its_child_has_its_stdout(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    starts = tmp_path / "starts"
    async with opened(odd("leaves a child", starts)):

        async def is_tried_twice() -> bool:
            return len(pids_in(starts)) >= 2

        await until(is_tried_twice)
    assert "(exit status 5)" in caplog.text
    assert not any(process_exists(pid) for pid in pids_in(starts))
