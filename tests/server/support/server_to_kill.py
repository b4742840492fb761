"""A server program: ``python server_to_kill.py PORT FILE`` prints its URL and appends each task's start and end to the file."""

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
    # Unbuffered, so that the lines survive SIGKILL.
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
