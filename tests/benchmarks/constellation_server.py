"""The server of the constellation's benchmark, with its devices, in a process of its own.

It prints its URL, and ends when its standard input does. For each line there it stops, and begins again on the same port after so many
seconds as the line says.
"""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from typing import Final
from urllib.parse import urlsplit

import trio
import trio.testing

from galaxy_trio import ConnectionOptions
from galaxy_trio.agent import open_device_connection
from galaxy_trio.messages import DeviceInfo, Platform
from galaxy_trio.server import Server, ServerLimits, ServerTask, open_server

_LIMITS: Final = ServerLimits(max_connections=10_000)


async def _work(task: ServerTask) -> object:
    """``SECONDS NUMBER``: takes so long."""
    await trio.sleep(float(task.request.split()[0]))
    return task.request


async def _open_device(server: Server, nursery: trio.Nursery, stack: AsyncExitStack, number: int) -> None:
    """A device without a socket: what is measured is the constellation."""
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(server.serve_stream, theirs)
    info = DeviceInfo(f"device_{number}", Platform.LINUX, supported_features=["cli"])
    await stack.enter_async_context(
        open_device_connection(
            server.url, info.device_id, system_info=info, stream=ours, options=ConnectionOptions(heartbeat_interval=300)
        )
    )


async def _main(devices: int) -> None:
    port, seconds = 0, 0.0
    lines = trio.wrap_file(sys.stdin)
    while True:
        await trio.sleep(seconds)
        line = ""
        with trio.CancelScope() as scope:
            async with (
                open_server(port=port, session=_work, limits=_LIMITS) as server,
                trio.open_nursery() as nursery,
                AsyncExitStack() as stack,
            ):
                for number in range(devices):
                    await _open_device(server, nursery, stack, number)
                port = urlsplit(server.url).port or 0
                print(server.url, flush=True)
                line = await lines.readline()
                # Without a goodbye, as when its machine goes.
                scope.cancel()
        if not line:
            return
        seconds = float(line)


if __name__ == "__main__":
    trio.run(_main, json.loads(sys.argv[1]))
