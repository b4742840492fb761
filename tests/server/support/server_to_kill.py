"""A server that is killed: ``python server_to_kill.py PORT FILE`` writes down what it begins and ends, and prints its URL."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import trio

from galaxy_trio.messages import Command, ToolType
from galaxy_trio.server import open_server

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask


async def main(port: int, path: str) -> None:
    """Serve until killed."""
    # Each line is there when it is written, whatever happens to the process.
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def session(task: ServerTask) -> object:
        os.write(journal, f"begun {task.request}\n".encode())
        [result] = await task.execute([Command("work", ToolType.ACTION, {"name": task.request})])
        os.write(journal, f"ended {task.request}\n".encode())
        return result.result

    async with open_server(port=port, session=session) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2])
