"""An agent that was suspended, and one whose machine was asleep."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio
import trio.testing

from galaxy_trio import ConnectionOptions, TaskResult, open_connection
from galaxy_trio.agent import Agent, open_agent, tool
from galaxy_trio.messages import Command, ToolType
from galaxy_trio.server import ServerLimits, ServerTask
from galaxy_trio.testing import FaultyStream, MemoryServer, open_memory_server
from tests.agent.support.agent_server import DEVICE, INFO
from tests.support.machine_sleep import MachineSleep

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import pytest

LIMITS = ServerLimits(liveness_timeout=1e6, idle_timeout=1e6, ping_interval=1e6)
OPTIONS = ConnectionOptions(heartbeat_interval=1e6, liveness_timeout=50)


async def _run_work(task: ServerTask) -> object:
    [result] = await task.execute([Command("work", ToolType.ACTION)])
    return result.result


@attrs.define
class _World:
    """A server, its agent with a running tool, and the task that runs it."""

    server: MemoryServer
    agent: Agent
    streams: list[FaultyStream]
    results: list[TaskResult]
    may_end: trio.Event


@asynccontextmanager
async def _open_world() -> AsyncGenerator[_World]:
    """Open all three roles with a running task."""
    streams: list[FaultyStream] = []
    results: list[TaskResult] = []
    running, may_end = trio.Event(), trio.Event()

    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        streams.append(FaultyStream(server.connect()))
        return streams[-1]

    @tool(timeout=math.inf)
    async def work() -> str:
        running.set()
        await may_end.wait()
        return "done"

    async def run_task() -> None:
        options = ConnectionOptions(liveness_timeout=1e6)
        async with open_connection(server.url, DEVICE, stream=server.connect(), options=options) as connection:
            results.append(await connection.run_task("x", timeout=1e6))

    async with (
        open_memory_server(session=_run_work, limits=LIMITS) as server,
        open_agent(server.url, DEVICE, [work], system_info=INFO, connect=connect, options=OPTIONS) as agent,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(run_task)
        await running.wait()
        yield _World(server, agent, streams, results, may_end)


async def test_agent_that_was_suspended_stays_registered_and_its_tool_ends_normally(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with _open_world() as world:
        for _ in range(10):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(300)
            await trio.testing.wait_all_tasks_blocked()
            assert world.agent.registered
        world.may_end.set()
    assert [result.unwrap() for result in world.results] == ["done"]
    assert world.agent.statistics().registrations == 1


async def test_agent_whose_machine_was_asleep_keeps_a_connection_that_answers_and_replaces_one_that_does_not(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    machine = MachineSleep(monkeypatch)
    async with _open_world() as world:
        machine.sleep(240)
        await trio.sleep(20)
        assert world.agent.statistics().registrations == 1
        world.streams[0].go_silent()
        machine.sleep(240)
        await trio.sleep(15)
        assert world.agent.registered
        assert world.agent.statistics().registrations == 2
    assert [result.error for result in world.results] == ["Task was cancelled because target device disconnected"]
