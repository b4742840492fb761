"""The server of the fleet's benchmark, a process of its own. It prints its URL, and ends when its standard input does."""

from __future__ import annotations

import sys
from typing import Final

import trio

from galaxy_trio.messages import Command, ToolType
from galaxy_trio.server import ServerLimits, ServerTask, open_server

_LIMITS: Final = ServerLimits(max_connections=2_000)


async def _run_one_command(task: ServerTask) -> object:
    """A task of the fleet: one command to its device and back."""
    [result] = await task.execute([Command("echo", ToolType.ACTION, {"text": task.request})])
    return result.result


async def _main() -> None:
    async with open_server(session=_run_one_command, limits=_LIMITS) as server:
        print(server.url, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run(_main)
