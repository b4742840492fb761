"""The devices of the fleet's benchmark and their constellations, in one process: each constellation keeps one task on its device."""

from __future__ import annotations

import gc
import json
import sys
import time
from contextlib import AsyncExitStack
from typing import NamedTuple, cast

import psutil
import trio

from galaxy_trio import Connection, open_connection
from galaxy_trio.agent import open_agent
from galaxy_trio.messages import DeviceInfo, Platform


class Fleet(NamedTuple):
    """What was measured with so many devices."""

    devices: int
    tasks_per_second: float
    server_cpu: float
    """Seconds of CPU time of the server's process for one task."""
    clients_cpu: float
    """Of the process of both clients."""
    server_memory: float
    """Bytes of the server's process for one connection."""
    clients_memory: float
    """Bytes of this process for one connection."""


class _Usage(NamedTuple):
    wall: float
    server_cpu: float
    clients_cpu: float


async def echo(text: str) -> str:
    """A tool that costs nothing."""
    return text


class _Measurement:
    def __init__(self, url: str, server_pid: int) -> None:
        self._url = url
        self._server = psutil.Process(server_pid)
        self._own = psutil.Process()
        self._done = 0

    def _usage(self) -> _Usage:
        server, own = self._server.cpu_times(), self._own.cpu_times()
        return _Usage(time.perf_counter(), server.user + server.system, own.user + own.system)

    def _memory(self) -> tuple[int, int]:
        gc.collect()
        return self._server.memory_info().rss, self._own.memory_info().rss

    async def _keep_busy(self, connection: Connection) -> None:
        while True:
            await connection.run_task("x")
            self._done += 1

    async def _open(self, stack: AsyncExitStack, number: int) -> Connection:
        device_id = f"device_{number}"
        info = DeviceInfo(device_id, Platform.LINUX)
        await stack.enter_async_context(open_agent(self._url, device_id, [echo], system_info=info))
        return await stack.enter_async_context(open_connection(self._url, device_id))

    async def run(self, devices: int, warm_up: float, seconds: float) -> Fleet:
        before = self._memory()
        async with AsyncExitStack() as stack:
            connections = [await self._open(stack, number) for number in range(devices)]
            # All buffers that a first task needs are there then.
            for connection in connections:
                await connection.run_task("x")
            after = self._memory()
            async with trio.open_nursery() as nursery:
                for connection in connections:
                    nursery.start_soon(self._keep_busy, connection)
                await trio.sleep(warm_up)
                start, self._done = self._usage(), 0
                await trio.sleep(seconds)
                end, done = self._usage(), self._done
                nursery.cancel_scope.cancel()
        count = 2 * devices
        return Fleet(
            devices,
            done / (end.wall - start.wall),
            (end.server_cpu - start.server_cpu) / done,
            (end.clients_cpu - start.clients_cpu) / done,
            (after[0] - before[0]) / count,
            (after[1] - before[1]) / count,
        )


def main() -> None:
    """What to do comes as JSON in the argument, what came of it goes out as JSON."""
    url, server_pid, devices, warm_up, seconds = cast("tuple[str, int, int, float, float]", json.loads(sys.argv[1]))
    measurement = _Measurement(url, server_pid)
    print(json.dumps(trio.run(measurement.run, devices, warm_up, seconds)))


if __name__ == "__main__":
    main()
