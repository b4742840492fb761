"""All three roles together: a constellation's task, the server's session, an agent's tools."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxy_trio import Connection, DeviceInfo, Platform, TaskFailed, TaskStatus, open_connection
from galaxy_trio.agent import Agent, open_agent
from galaxy_trio.messages import Command, ResultStatus, ToolType
from galaxy_trio.testing import MemoryServer, open_memory_server
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from galaxy_trio.messages import JSON
    from galaxy_trio.server import ServerTask, SessionFunction

    _Tools = list[Callable[..., object]]

DEVICE = "device_001"


def command(tool_name: str, **parameters: JSON) -> Command:
    """Make a command for a tool."""
    return Command(tool_name, ToolType.ACTION, parameters)


async def run_words(task: ServerTask) -> object:
    """Run the tools that the request names, one command each, and return their results."""
    commands = [command(word) for word in task.request.split()]
    results = await task.execute(commands, stop_on_failure=False)
    return [result.result if result.status is ResultStatus.SUCCESS else result.error for result in results]


@attrs.define
class World:
    """A server, its agent, and a constellation for the agent."""

    server: MemoryServer
    agent: Agent
    connection: Connection


async def open_stream(server: MemoryServer) -> trio.abc.Stream:
    """The ``connect`` of an agent."""
    await trio.lowlevel.checkpoint()
    return server.connect()


@asynccontextmanager
async def open_world(tools: _Tools, session: SessionFunction = run_words) -> AsyncGenerator[World]:
    """Open all three roles in memory."""
    with trio.fail_after(SECONDS):
        async with (
            open_memory_server(session=session) as server,
            open_agent(
                server.url,
                DEVICE,
                tools,
                system_info=DeviceInfo(DEVICE, Platform.LINUX),
                connect=lambda: open_stream(server),
            ) as agent,
            open_connection(server.url, DEVICE, stream=server.connect()) as connection,
        ):
            yield World(server, agent, connection)


class Hanging:
    """A tool that hangs and records its cancellation."""

    def __init__(self) -> None:
        self.running = trio.Event()
        self.cancelled = trio.Event()

    async def hang(self) -> None:
        """Hang."""
        self.running.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()


async def quick() -> str:
    """Return immediately."""
    return "quick"


async def broken() -> None:
    """Fail."""
    raise RuntimeError("no such window")


def in_thread() -> int:
    """Run in a thread."""
    return 7


async def test_commands_of_a_task_run_on_its_device_and_return_their_results() -> None:
    async with open_world([quick, broken, in_thread]) as world:
        result = await world.connection.run_task("quick broken missing in_thread")
        assert result.unwrap() == [
            "quick",
            "RuntimeError: no such window",
            "there is no tool 'missing' on this device; known: 'list_tools', 'quick', 'broken', 'in_thread'",
            7,
        ]
        assert (await world.connection.device_info()).platform == Platform.LINUX
        statistics = world.agent.statistics()
        assert (statistics.batches, statistics.commands, statistics.failures) == (1, 4, 2)
        assert world.server.statistics().unanswered_commands == world.server.statistics().sessions == 0


async def test_failure_stops_a_batch_unless_the_session_says_otherwise() -> None:
    async def session(task: ServerTask) -> object:
        commands = [command(word) for word in task.request.split()]
        batches = [await task.execute(commands), await task.execute(commands, stop_on_failure=False)]
        return [[result.status for result in batch] for batch in batches]

    async with open_world([quick, broken], session) as world:
        result = await world.connection.run_task("quick broken quick")
        assert result.unwrap() == [["success", "failure", "skipped"], ["success", "failure", "success"]]


async def test_session_may_use_one_commands_result_for_the_next() -> None:
    windows = ["a", "b"]

    async def close(name: str) -> int:
        await trio.lowlevel.checkpoint()
        windows.remove(name)
        return len(windows)

    async def list_windows() -> list[str]:
        await trio.lowlevel.checkpoint()
        return windows

    async def session(task: ServerTask) -> object:
        [seen] = await task.execute([Command("list_windows", ToolType.DATA_COLLECTION)])
        assert isinstance(seen.result, list)
        closed = await task.execute([command("close", name=name) for name in seen.result])
        return [result.result for result in closed]

    async with open_world([close, list_windows], session) as world:
        assert (await world.connection.run_task("close all")).unwrap() == [1, 0]


async def test_disconnect_of_a_constellation_cancels_the_tool_of_its_task() -> None:
    tool = Hanging()
    async with open_world([tool.hang, quick]) as world:
        async with (
            trio.open_nursery() as nursery,
            open_connection(world.server.url, DEVICE, stream=world.server.connect()) as leaving,
        ):
            nursery.start_soon(leaving.run_task, "hang")
            await tool.running.wait()
            nursery.cancel_scope.cancel()
        await tool.cancelled.wait()
        assert (await world.connection.run_task("quick")).unwrap() == ["quick"]


async def test_disconnect_of_a_device_fails_its_tasks_and_cancels_its_tool_immediately() -> None:
    tool = Hanging()
    async with (
        open_memory_server(session=run_words) as server,
        trio.open_nursery() as nursery,
    ):
        outcomes: list[TaskStatus] = []
        with trio.CancelScope() as device:

            async def submit() -> None:
                async with open_connection(server.url, DEVICE, stream=server.connect()) as connection:
                    result = await connection.run_task("hang")
                    outcomes.append(result.status)
                    with pytest.raises(TaskFailed, match=DEVICE):
                        result.unwrap()

            async with open_agent(server.url, DEVICE, [tool.hang], connect=lambda: open_stream(server)):
                nursery.start_soon(submit)
                with trio.fail_after(SECONDS):
                    await tool.running.wait()
                device.cancel()
                await trio.sleep_forever()
        assert tool.cancelled.is_set()
    assert outcomes == [TaskStatus.FAILED]


async def test_session_that_fails_cancels_its_tool_and_the_next_task_runs() -> None:
    tool = Hanging()

    async def session(task: ServerTask) -> object:
        if task.request == "hang":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_words, task)
                await tool.running.wait()
                nursery.cancel_scope.cancel()
            raise TaskFailed("gave up", result={"gave": "up"})
        return await run_words(task)

    async with open_world([tool.hang, quick], session) as world:
        result = await world.connection.run_task("hang")
        assert (result.status, result.result) == (TaskStatus.FAILED, {"gave": "up"})
        await tool.cancelled.wait()
        assert (await world.connection.run_task("quick")).unwrap() == ["quick"]
        assert world.server.statistics().unexpected_results == 0


async def test_agent_registers_with_the_next_server_when_its_own_stops() -> None:
    tool = Hanging()
    servers: list[MemoryServer] = []

    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if not servers:
            raise OSError("no device is there")
        return servers[0].connect()

    async def ask(request: str) -> object:
        async with open_connection(servers[0].url, DEVICE, stream=servers[0].connect()) as connection:
            return (await connection.run_task(request)).error

    async with trio.open_nursery() as nursery:
        with trio.fail_after(SECONDS):
            async with open_memory_server(session=run_words) as first:
                servers.append(first)
                agent = await nursery.start(_be_device, [tool.hang, quick], connect)
                nursery.start_soon(ask, "hang")
                await tool.running.wait()
                servers.clear()
            await tool.cancelled.wait()
            async with open_memory_server(session=run_words) as second:
                servers.append(second)
                await agent.wait_registered()
                assert await ask("quick") is None
                nursery.cancel_scope.cancel()
    assert agent.statistics().registrations == 2


async def _be_device(
    tools: _Tools, connect: Callable[[], Awaitable[trio.abc.Stream]], *, task_status: trio.TaskStatus[Agent]
) -> None:
    async with open_agent("ws://server.test/ws", DEVICE, tools, connect=connect, reconnect_delay=0.01) as agent:
        task_status.started(agent)
        await trio.sleep_forever()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 9), max_size=4)), max_size=12))
def test_concurrent_tasks_each_get_their_own_results(tasks: list[tuple[int, list[int]]]) -> None:
    async def double(number: int) -> int:
        await trio.sleep(number % 3 / 1000)
        return 2 * number

    async def session(task: ServerTask) -> object:
        results = await task.execute([command("double", number=int(word)) for word in task.request.split()])
        return [result.result for result in results]

    async def main() -> None:
        async with open_world([double], session) as world, trio.open_nursery() as nursery:

            async def run(numbers: list[int], delay: int) -> None:
                await trio.sleep(delay / 1000)
                result = await world.connection.run_task(" ".join(map(str, numbers)))
                assert result.unwrap() == [2 * number for number in numbers]

            for delay, numbers in tasks:
                nursery.start_soon(run, numbers, delay)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
