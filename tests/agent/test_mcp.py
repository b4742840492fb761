"""MCP servers as real processes, on the real clock."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import traceback
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio._concurrency.memory_budget import MemoryBudget
from galaxy_trio.agent import DescribedTool
from galaxy_trio.agent.mcp_log import ServerLog
from galaxy_trio.agent.mcp_server import Limits, McpServer
from galaxy_trio.agent.mcp_session import McpSession, open_session
from galaxy_trio.agent.mcp_supervisor import MAX_MESSAGE_SIZE, MEMORY_LIMIT, McpTools, open_mcp_tools
from galaxy_trio.errors import ConfigError, ToolError
from galaxy_trio.messages import ToolType
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from galaxy_trio.agent.tools import Tool
    from galaxy_trio.messages import JSON

pytestmark = pytest.mark.programs

_PROGRAMS = Path(__file__).parent / "support"
REAL = McpServer("real", [sys.executable, str(_PROGRAMS / "mcp_server.py")])


def odd(kind: str, starts: Path | None = None, *, start_timeout: float = SECONDS) -> McpServer:
    env = None if starts is None else {"STARTS": str(starts)}
    return McpServer(
        kind, [sys.executable, str(_PROGRAMS / "odd_mcp_server.py"), kind], env, start_timeout=start_timeout
    )


@asynccontextmanager
async def opened(*servers: McpServer) -> AsyncGenerator[McpTools]:
    """Open the tools of servers for at most 60 s."""
    with trio.fail_after(SECONDS):
        async with open_mcp_tools(servers) as tools:
            yield tools


def named(tools: McpTools, name: str) -> Tool:
    [tool] = [tool for tool in tools.tools() if tool.name == name]
    return tool


async def call(tools: McpTools, name: str, **parameters: JSON) -> object:
    return await named(tools, name).call(parameters)


async def failure(tools: McpTools, name: str, **parameters: JSON) -> str:
    with pytest.raises(ToolError) as raised:
        await call(tools, name, **parameters)
    return str(raised.value)


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition in another process. The caller limits the time."""
    while not await is_so():  # noqa: ASYNC110  # another process sends no event
        await trio.sleep(0.01)


async def runs(tools: McpTools) -> bool:
    try:
        await call(tools, "process_id")
    except ToolError:
        return False
    return True


def process_exists(pid: int) -> bool:
    """Whether a process exists, including zombies."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pids_in(starts: Path) -> list[int]:
    """The process ids that a server has written to a file."""
    return [int(line) for line in starts.read_text().splitlines()] if starts.exists() else []


async def test_tools_are_offered_under_the_servers_name_and_return_json() -> None:
    async with opened(REAL) as tools:
        assert {tool.namespace for tool in tools.tools()} == {"real"}
        assert {tool.timeout for tool in tools.tools()} == {math.inf}
        kinds = {tool.name: tool.tool_type for tool in tools.tools()}
        assert (kinds["add"], kinds["process_id"]) == (ToolType.ACTION, ToolType.DATA_COLLECTION)
        learn = named(tools, "learn")
        assert isinstance(learn, DescribedTool)
        assert learn.description.text == "Add a tool and notify the client."
        assert await call(tools, "add", a=1, b=2) == "3"
        assert await call(tools, "point", x=1, y=2) == {"x": 1, "y": 2}
        image = {"type": "image", "data": "AAEC", "mimeType": "image/png"}
        assert await call(tools, "picture") == image
        assert await call(tools, "picture_and_text") == [image, "a picture"]
        failed = await failure(tools, "fail")
        assert "the tool cannot xxx" in failed
        assert len(failed) == 500
        assert failed.endswith("x…")
        assert "validation error" in await failure(tools, "add", a="one")
        assert await call(tools, "learn", tool="plus") == "learnt"

        async def plus_is_listed() -> bool:
            return "plus" in {tool.name for tool in tools.tools()}

        await until(plus_is_listed)
        assert await call(tools, "plus", a=3, b=4) == {"result": "7"}


async def test_cancelling_a_call_cancels_only_that_call_at_the_server() -> None:
    sums: list[int] = []

    async def wait(tools: McpTools, label: str) -> None:
        await call(tools, "wait", label=label)

    async def add(tools: McpTools, number: int) -> None:
        sums.append(int(str(await call(tools, "add", a=number, b=0))))

    async def waiting_are(tools: McpTools, *labels: str) -> bool:
        return await call(tools, "who_waits") == {"result": sorted(labels)}

    async def cancelled_are(tools: McpTools, *labels: str) -> bool:
        return await call(tools, "who_was_cancelled") == {"result": [*labels]}

    async with opened(REAL) as tools, trio.open_nursery() as nursery:
        nursery.start_soon(wait, tools, "the last")
        async with trio.open_nursery() as cancelled:
            cancelled.start_soon(wait, tools, "the first")
            await until(partial(waiting_are, tools, "the first", "the last"))
            cancelled.cancel_scope.cancel()
        async with trio.open_nursery() as adding:
            for number in range(50):
                adding.start_soon(add, tools, number)
        assert sorted(sums) == list(range(50))
        await until(partial(cancelled_are, tools, "the first"))
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await until(partial(cancelled_are, tools, "the first", "the last"))


async def test_crash_fails_pending_calls_immediately_and_restarts_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "galaxy_trio.agent")
    failures: list[str] = []

    async def wait(tools: McpTools) -> None:
        failures.append(await failure(tools, "wait", label="in vain"))

    async def all_wait(tools: McpTools) -> bool:
        return await call(tools, "who_waits") == {"result": ["in vain"] * 3}

    async with opened(REAL) as tools:
        before = await call(tools, "process_id")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait, tools)
            await until(partial(all_wait, tools))
            failures.append(await failure(tools, "crash"))
        assert set(failures) == {"MCP server 'real' is not running: it ended before it replied"}
        assert len(failures) == 4
        assert await failure(tools, "add", a=1, b=2) == "MCP server 'real' is not running: it has ended"
        await until(partial(runs, tools))
        assert await call(tools, "process_id") != before
        assert not process_exists(int(str(before)))
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    said = [line for line in lines if line.startswith("MCP server 'real': ")]
    assert said == [f"MCP server 'real': {text}" for text in ("x" * 500, "about to crash", "unfinished")]


@pytest.mark.parametrize("cancelled", [False, True], ids=["left", "cancelled"])
async def test_no_process_remains_after_the_block(cancelled: bool, tmp_path: Path) -> None:
    starts = tmp_path / "starts"

    async def both_started() -> bool:
        return len(pids_in(starts)) >= 2

    with trio.CancelScope() as scope:
        async with opened(odd("ends well", starts), odd("is silent", starts, start_timeout=0.2)) as tools:
            assert await call(tools, "answer", answer="here") == "here"
            await until(both_started)
            if cancelled:
                scope.cancel()
                await trio.sleep_forever()
    assert not any(process_exists(pid) for pid in pids_in(starts))


async def test_server_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with opened(odd("does not stop", tmp_path / "starts")) as tools:
            assert await call(tools, "answer", answer="here") == "here"
            scope.cancel()
    [pid] = pids_in(tmp_path / "starts")
    assert not process_exists(pid)


async def test_exception_of_the_block_comes_out_unchanged(tmp_path: Path) -> None:
    error = KeyError("the block's own")
    with pytest.raises(KeyError) as raised:
        async with opened(odd("ends well", tmp_path / "starts")):
            raise error
    assert raised.value is error
    [pid] = pids_in(tmp_path / "starts")
    assert not process_exists(pid)


async def test_missing_program_raises_config_error_and_leaves_no_process(tmp_path: Path) -> None:
    secret = McpServer("missing", ["/no/such/program", "--key=SECRET"])
    with pytest.raises(ConfigError, match="'missing' cannot be started: there is no such program") as raised:
        async with opened(odd("is silent", tmp_path / "starts"), secret):
            raise AssertionError
    shown = f"{secret!r} {''.join(traceback.format_exception(raised.value))}"
    # A misplaced key may have been taken for the program.
    assert "SECRET" not in shown
    assert "program'" not in shown
    assert not any(process_exists(pid) for pid in pids_in(tmp_path / "starts"))


async def test_program_that_may_not_be_run_is_a_config_error(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("")
    with pytest.raises(ConfigError, match="'refused' cannot be started: Permission denied"):
        async with opened(McpServer("refused", [str(program)])):
            raise AssertionError


@pytest.mark.parametrize(
    ("kind", "problem"),
    [("is silent", "it did not reply within 0.5 s"), ("refuses", "it refuses"), ("ends", "it ended before")],
)
async def test_server_that_does_not_list_its_tools_delays_no_other_and_is_restarted(
    kind: str, problem: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    starts = tmp_path / "starts"
    # Only the silent server needs its timeout; the others must not depend on the machine's load.
    server = odd(kind, starts, start_timeout=0.5 if kind == "is silent" else SECONDS)
    if kind == "ends":
        script = f"import os; open({str(starts)!r}, 'a').write(f'{{os.getpid()}}\\n')"
        server = McpServer("ends", [sys.executable, "-c", script], {})

    async def started_twice() -> bool:
        return caplog.text.count(problem) >= 2

    async with opened(server) as tools:
        assert tools.tools() == []
        await until(started_twice)


async def test_at_most_1000_distinct_tools_with_valid_names_are_offered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened(odd("has too many tools")) as tools:
        assert [tool.name for tool in tools.tools()] == [f"tool {number}" for number in range(1_000)]
    assert caplog.messages == [
        "MCP server 'has too many tools': ignored tool number 111: its name is empty",
        "MCP server 'has too many tools': ignored tool number 112: its name has more than 1000 characters",
        "MCP server 'has too many tools': has more than 1000 tools, the rest was ignored",
    ]


async def test_server_without_a_handshake_is_supported() -> None:
    async with opened(odd("is modern")) as tools:
        assert [tool.name for tool in tools.tools()] == ["answer"]


async def test_broken_reply_or_unsendable_parameters_fail_only_one_call() -> None:
    deep: JSON = {}
    for _ in range(400):
        deep = {"deeper": deep}
    async with opened(odd("answers")) as tools:
        assert await call(tools, "answer", answer="no result") == "this is no list"
        assert "failed without a reason" in await failure(tools, "answer", answer="an error without words")
        for unsendable in ("\ud800", deep):
            assert "cannot be sent" in await failure(tools, "answer", answer=unsendable)
        assert await call(tools, "answer", answer="bytes that are no text") == "bytes that are no text"
        assert await call(tools, "answer", answer="nothing") is None
        assert await call(tools, "answer", answer="still here") == "still here"


async def test_server_names_must_be_unique() -> None:
    with pytest.raises(ConfigError, match="two MCP servers are named 'twin'"):
        async with open_mcp_tools([McpServer("twin", "a"), McpServer("twin", "b")]):
            raise AssertionError


async def test_without_servers_there_are_no_tools() -> None:
    async with open_mcp_tools([]) as tools:
        assert tools.tools() == []


def test_sdk_is_imported_on_use_and_its_absence_is_a_config_error() -> None:
    script = """
import sys, trio
from galaxy_trio.agent import McpServer, open_mcp_tools
from galaxy_trio.errors import ConfigError
assert "mcp" not in sys.modules
sys.modules["mcp"] = None
async def main():
    async with open_mcp_tools([McpServer("any", "program")]):
        pass
try:
    trio.run(main)
except ConfigError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    assert 'pip install "galaxy_trio[mcp]"' in result.stdout


def opened_session(server: McpServer) -> AbstractAsyncContextManager[McpSession]:
    return open_session(server, Limits(MAX_MESSAGE_SIZE, MemoryBudget(MEMORY_LIMIT)), ServerLog(server.name))


async def break_down(session: McpSession) -> None:
    """Make a task of the SDK fail, which calls through this package cannot do."""

    async def fail() -> None:
        raise ZeroDivisionError

    tasks = session._session._task_group
    assert tasks is not None
    tasks.start_soon(fail)
    await session.wait_list_changed()


async def test_failure_of_the_sdk_ends_the_session_and_raises_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with trio.fail_after(60):
        async with opened_session(odd("answers")) as session:
            await session.initialize()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(break_down, session)
                assert not await session.wait_list_changed()
    assert "failed" in caplog.text


async def test_cancellation_comes_out_when_the_sdk_fails() -> None:
    with trio.fail_after(60), trio.CancelScope() as scope:
        async with opened_session(odd("answers")) as session:
            await session.initialize()
            scope.cancel()
            with trio.CancelScope(shield=True):
                await break_down(session)
            await trio.sleep_forever()
        raise AssertionError
    assert scope.cancelled_caught


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()], ids=["bug", "interrupt"])
@pytest.mark.parametrize("breaks", [False, True], ids=["alone", "with the SDK"])
async def test_exception_of_a_sessions_block_comes_out_unchanged(error: BaseException, breaks: bool) -> None:
    caught: BaseException | None = None
    with trio.fail_after(60):
        try:
            async with opened_session(odd("answers")) as session:
                if breaks:
                    await session.initialize()
                    with trio.CancelScope(shield=True):
                        await break_down(session)
                raise error
        except BaseException as raised:  # noqa: BLE001  # the question is what it is
            caught = raised
    assert caught is error
