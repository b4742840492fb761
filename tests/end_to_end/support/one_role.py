"""One role as a program of its own, for a test that suspends it: ``python one_role.py ROLE URL FOLDER LIVENESS_TIMEOUT INTERVAL``.

It prints a line when it is ready. The client prints its task's result as well, and how many of its connections are open.
"""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import trio

from galaxy_trio import ConnectionOptions, DeviceInfo, open_connection
from galaxy_trio.agent import open_agent
from galaxy_trio.messages import Command, ToolType
from galaxy_trio.server import ServerLimits, ServerTask, open_server

CONNECTIONS: Final = 3
"""Connections of the client, and devices of the agent's process."""


def say(line: str) -> None:
    """Print a line now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def run_work(task: ServerTask) -> object:
    """Run the task as a command on its device."""
    [result] = await task.execute([Command("work", ToolType.ACTION)])
    return result.result


async def be_server(liveness_timeout: float, interval: float) -> None:
    """Serve until cancelled."""
    limits = ServerLimits(liveness_timeout=liveness_timeout, ping_interval=interval)
    async with open_server(session=run_work, limits=limits) as server:
        say(server.url)
        await trio.sleep_forever()


async def be_agent(url: str, folder: Path, options: ConnectionOptions) -> None:
    """Run agents until cancelled. Their tool creates the file ``running``, waits for the file ``may end``, and counts registrations."""

    async def work() -> int:
        (folder / "running").touch()
        while not (folder / "may end").exists():  # noqa: ASYNC110  # another process creates it
            await trio.sleep(0.02)
        return sum(agent.statistics().registrations for agent in agents)

    async with AsyncExitStack() as stack:
        agents = [
            await stack.enter_async_context(
                open_agent(url, f"d{number}", [work], system_info=DeviceInfo(f"d{number}", "linux"), options=options)
            )
            for number in range(CONNECTIONS)
        ]
        say("registered")
        await trio.sleep_forever()


async def be_client(url: str, options: ConnectionOptions) -> None:
    """Run one task and print its result."""
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(open_connection(url, f"d{number}", options=options))
            for number in range(CONNECTIONS)
        ]
        say("connected")
        result = await connections[0].run_task("x")
        say(json.dumps([result.unwrap(), sum(not connection.closed for connection in connections)]))


async def main(*arguments: str) -> None:
    """Run the role. The interval is that of its heartbeats, or a server's pings."""
    role, url, folder, liveness_timeout, interval = arguments
    options = ConnectionOptions(liveness_timeout=float(liveness_timeout), heartbeat_interval=float(interval))
    match role:
        case "server":
            await be_server(float(liveness_timeout), float(interval))
        case "agent":
            await be_agent(url, Path(folder), options)
        case _:
            await be_client(url, options)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
