"""The server of the daemon's benchmarks, with its devices, in a process of its own.

It prints its URL, and ends when its standard input does. A task whose request is ``hold`` occupies its device until a line with a number
comes there. Each other task is one command to the device's agent, and its result back; when as many as that number have ended, it prints
``ended``.
"""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import trio
import trio.testing

from galaxy_trio.agent import open_agent
from galaxy_trio.messages import Command, DeviceInfo, Platform, ToolType
from galaxy_trio.server import Server, ServerLimits, ServerTask, open_server

_LIMITS: Final = ServerLimits(max_connections=10_000)
_MAX_TEXT: Final = 32


async def echo(text: str) -> str:
    """Return what was given, at no cost."""
    return text


class _Work:
    """Runs the tasks, and counts those that were not held."""

    def __init__(self) -> None:
        self._released = trio.Event()
        self._left = 0

    def release(self, tasks: int) -> None:
        self._left = tasks
        self._released.set()

    async def run(self, task: ServerTask) -> object:
        if task.request == "hold":
            await self._released.wait()
            return "released"
        # The request of a graph's node has the results before it: returned, they would double in each layer.
        text = task.request[:_MAX_TEXT]
        [result] = await task.execute([Command("echo", ToolType.ACTION, {"text": text})])
        self._left -= 1
        if not self._left:
            print("ended", flush=True)
        return result.result


async def _connect(server: Server, nursery: trio.Nursery) -> trio.abc.Stream:
    """A device without a socket: what is measured is the daemon."""
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(server.serve_stream, theirs)
    return ours


async def _main(devices: int) -> None:
    work = _Work()
    lines = trio.wrap_file(sys.stdin)
    async with (
        open_server(session=work.run, limits=_LIMITS) as server,
        trio.open_nursery() as nursery,
        AsyncExitStack() as stack,
    ):
        for number in range(devices):
            info = DeviceInfo(f"device_{number}", Platform.LINUX, supported_features=["cli"])
            agent = open_agent(
                server.url, info.device_id, [echo], system_info=info, connect=partial(_connect, server, nursery)
            )
            await stack.enter_async_context(agent)
        print(server.url, flush=True)
        while line := await lines.readline():
            work.release(int(line))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_main, json.loads(sys.argv[1]))
