"""A process with a real server, devices and daemon for the page's tests. It reads its commands as lines of JSON."""

from __future__ import annotations

import base64
import json
import os
import signal
import struct
import sys
import zlib
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from galaxy_trio import DeviceInfo
from galaxy_trio.agent import open_agent
from galaxy_trio.daemon.store.records import TaskRequest, TaskState
from galaxy_trio.daemon.store.store import open_store
from galaxy_trio.errors import TaskFailed
from galaxy_trio.messages import Command, ToolType
from galaxy_trio.server import Server, ServerLimits, open_server

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202e"


def picture() -> str:
    """A small picture, as a device would return it."""
    size = 120
    rows = b"".join(b"\0" + b"".join(bytes((x * 2, y * 2, 200)) for x in range(size)) for y in range(size))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(image).decode()


async def session(task: ServerTask) -> object:
    """Run a task according to its first word."""
    request = task.request
    # The text of a node that has others before it.
    if request.startswith("Task Description: "):
        request = request.partition(": ")[2].partition("\n")[0]
    word, _, rest = request.partition(" ")
    match word:
        case "fail":
            raise TaskFailed(rest, result=None)
        case "hold":
            await trio.sleep_forever()
        case "picture":
            return {"screen": picture(), "of": "Notepad"}
        case "json":
            return {"windows": [{"title": f"Window {n}", "size": [n, n * 2]} for n in range(30)], "active": None}
        case "numbers":
            return list(range(250))
        case "large":
            return "x" * 2_000_000
        case "hostile":
            return {HOSTILE: [HOSTILE, f"data:image/svg+xml;base64,{HOSTILE}"]}
        case "sleep":
            await trio.sleep(float(rest))
        case "list":
            [result] = await task.execute([Command("where", ToolType.ACTION, {})])
            return result.result
        case _:
            pass
    return rest or request


class World:
    """The server, the devices and the daemon, which can be stopped and started again."""

    def __init__(self, directory: Path, nursery: trio.Nursery) -> None:
        self.directory = directory
        self.nursery = nursery
        self.server: Server | None = None
        self.daemon: trio.Process | None = None
        self.agents: dict[str, trio.CancelScope] = {}

    async def device(self, name: str, os_name: str = "linux", features: tuple[str, ...] = ("cli", "browser")) -> None:
        """Start a device."""
        scope = self.agents[name] = trio.CancelScope()
        await self.nursery.start(partial(self._be_device, name, os_name, features, scope))

    async def _be_device(
        self,
        name: str,
        os_name: str,
        features: tuple[str, ...],
        scope: trio.CancelScope,
        task_status: trio.TaskStatus[None],
    ) -> None:
        assert self.server is not None
        info = DeviceInfo(name, os_name, supported_features=list(features))

        async def where() -> str:
            await trio.lowlevel.checkpoint()
            return name

        with scope:
            async with open_agent(self.server.url, name, [where], system_info=info, reconnect_delay=0.1) as agent:
                await agent.wait_registered()
                task_status.started()
                await trio.sleep_forever()

    async def start_daemon(self) -> str:
        """Start the daemon, and return its URL."""
        command = [sys.executable, "-m", "galaxy_trio", "daemon", "--config", str(self.directory / "galaxy.toml")]
        with (self.directory / "log").open("a") as log:
            self.daemon = await trio.lowlevel.open_process(command, stdout=-1, stderr=log)
        assert self.daemon.stdout is not None
        said = b""
        while not said.endswith(b"\n"):
            said += await self.daemon.stdout.receive_some()
        return said.decode().strip()

    async def stop_daemon(self) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        await self.daemon.wait()
        assert self.daemon.stdout is not None
        await self.daemon.stdout.aclose()

    async def do(self, word: str, *arguments: Any) -> object:
        """Execute a command."""
        match word:
            case "device":
                await self.device(*arguments)
            case "kill device":
                self.agents.pop(arguments[0]).cancel()
            case "stop daemon":
                await self.stop_daemon()
            case "start daemon":
                return await self.start_daemon()
            case _:
                raise ValueError(word)
        return None


def say(answer: object) -> None:
    """Write a line of JSON, and flush it."""
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


async def add_ended_tasks(path: Path, tasks: int) -> None:
    """Add tasks that have ended."""
    async with open_store(path) as store:

        async def end(number: int) -> None:
            record, _ = await store.add(TaskRequest(f"Write letter {number}", "device-000"), claimed_by="a life")
            await store.finish(record.id, "an attempt", "a life", TaskState.COMPLETED, result='"written"')

        for first in range(0, tasks, 500):
            async with trio.open_nursery() as nursery:
                for number in range(first, first + 500):
                    nursery.start_soon(end, number)


async def main(directory: Path, names: list[str], token: str, port: int, extra: list[str], ended: int) -> None:
    """Run until standard input ends."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            open_server(session=session, limits=ServerLimits(max_connections=5000))
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        world = World(directory, nursery)
        world.server = server
        devices = [{"device_id": name, "server_url": server.url} for name in (*names, *extra)]
        (directory / "devices.json").write_text(json.dumps({"devices": devices}))
        guard = ""
        if token:
            (directory / "tokens").write_text(token)
            guard = 'token_file = "tokens"\n'
        (directory / "galaxy.toml").write_text(
            f'devices = "devices.json"\nlisten = "127.0.0.1:{port}"\ndrain = 0.2\n{guard}'
        )
        async with trio.open_nursery() as connecting:
            for number, name in enumerate(names):
                connecting.start_soon(world.device, name, ("linux", "windows", "android")[number % 3])
        if ended:
            await add_ended_tasks(directory / "galaxy.db", ended)
        say(await world.start_daemon())
        lines = trio.wrap_file(sys.stdin)
        async for line in lines:
            say(await world.do(*json.loads(line)))
        if world.daemon is not None and world.daemon.returncode is None:
            world.daemon.kill()
            await world.daemon.wait()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    os.environ.pop("GALAXY_TRIO_TOKEN", None)
    names, token, port, extra, ended = json.loads(sys.argv[2])
    trio.run(main, Path(sys.argv[1]), names, token, port, extra, ended)
