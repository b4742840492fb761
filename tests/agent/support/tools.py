"""Tools for tests of commands."""

from __future__ import annotations

import math
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

from galaxy_trio.agent import tool
from galaxy_trio.errors import ToolError
from galaxy_trio.messages import JSON, ResultStatus, ToolType
from tests.agent.support.agent_server import call, open_commanded_agent, results_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from galaxy_trio.agent import Tool


SUCCESS, FAILURE, SKIPPED = ResultStatus.SUCCESS, ResultStatus.FAILURE, ResultStatus.SKIPPED


@tool
async def echo(value: JSON = None) -> JSON:
    await trio.lowlevel.checkpoint()
    return value


@tool
async def fail(why: str = "broken") -> None:
    await trio.lowlevel.checkpoint()
    raise ToolError(why)


@attrs.define
class Own:
    """A tool that is not a function."""

    result: object = None
    name: str = "own"
    namespace: Any = "mine"
    tool_type: ToolType = ToolType.ACTION
    timeout: float = 60.0

    async def call(self, parameters: dict[str, JSON]) -> object:
        assert parameters == {}
        await trio.lowlevel.checkpoint()
        return self.result


class Gate:
    """A tool that reports its start, runs until released, and records how its calls ended."""

    def __init__(self, name: str = "gate", timeout: float = math.inf) -> None:
        self._begun_in, self._begun = trio.open_memory_channel[JSON](100)
        self._going_in, self._going = trio.open_memory_channel[None](100)
        self.ends: list[tuple[JSON, str]] = []
        self.tool = tool(self._run, name=name, timeout=timeout)

    async def _run(self, value: JSON = None) -> JSON:
        self._begun_in.send_nowait(value)
        try:
            await self._going.receive()
        except trio.Cancelled:
            self.ends.append((value, "cancelled"))
            raise
        self.ends.append((value, "done"))
        return value

    def go(self) -> None:
        self._going_in.send_nowait(None)

    async def begun(self) -> JSON:
        with trio.fail_after(1000):
            return await self._begun.receive()


class Blocker:
    """A `Gate` for threads."""

    def __init__(self, name: str = "block", timeout: float = math.inf) -> None:
        self._begun_in, self._begun = trio.open_memory_channel[None](100)
        self._go = threading.Semaphore(0)
        self._waiting = 0
        self.tool = tool(self._run, name=name, timeout=timeout)

    def _run(self) -> str:
        trio.from_thread.run_sync(self._begun_in.send_nowait, None)
        assert self._go.acquire(timeout=30)
        return "done"

    def go(self) -> None:
        self._go.release()

    async def begun(self) -> None:
        with trio.fail_after(1000):
            await self._begun.receive()


@contextmanager
def open_blocker(timeout: float = math.inf) -> Generator[Blocker]:
    """Make a blocker whose threads end with the block."""
    blocker = Blocker(timeout=timeout)
    try:
        yield blocker
    finally:
        for _ in range(20):
            blocker.go()


async def wait_for_thread(condition: Callable[[], bool]) -> None:
    """Wait in real time for a condition that a thread makes true."""
    for _ in range(2000):
        if condition():
            return
        await trio.to_thread.run_sync(threading.Event().wait, 0.005)
    raise AssertionError("the condition did not become true")


async def failure_of(made: Tool, *, device: dict[str, Any] | None = None, **parameters: JSON) -> str:
    """Run a command that fails, check that the agent continues, and return the error."""
    async with open_commanded_agent([made, echo], **(device or {})) as (peer, agent, _):
        failed, then = await results_of(
            peer, call(made.name, **parameters), call("echo", value="on"), stop_on_failure=False
        )
        assert (then.status, then.result) == (SUCCESS, "on")
        assert (failed.status, failed.result, failed.call_id) == (FAILURE, None, "c0")
        assert agent.statistics().failures == 1
        assert failed.error is not None
        assert failed.error.splitlines() == [failed.error]
        return failed.error
