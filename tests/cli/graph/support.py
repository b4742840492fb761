"""Graphs as files, and a server with devices on which they run."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio import DeviceInfo, TaskFailed
from galaxy_trio.agent import open_device_connection
from galaxy_trio.server import open_server
from tests.cli.support.command_line import TOKEN
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from galaxy_trio.server import ServerTask

DEVICES = {"laptop": "linux", "phone": "android"}


def write_plan(folder: Path, nodes: dict[str, dict[str, object]], *edges: tuple[str, str], **more: object) -> str:
    """Write a graph, each of whose nodes has its id as its request, and return the file's name."""
    file = folder / "plan.json"
    document = {
        "nodes": [{"id": node_id, "request": node_id, **given} for node_id, given in nodes.items()],
        "edges": [{"source": source, "target": target} for source, target in edges],
        **more,
    }
    file.write_text(json.dumps(document), encoding="utf-8")
    return str(file)


def write_devices(folder: Path, url: str, *device_ids: str, **more: object) -> str:
    """Write a file of devices, all on one server, and return its name."""
    file = folder / "devices.json"
    devices = [{"device_id": device_id, "server_url": url, "token": TOKEN, **more} for device_id in device_ids]
    file.write_text(json.dumps({"devices": devices}), encoding="utf-8")
    return str(file)


@attrs.define
class Server:
    """A server with two devices. Its tasks end as their requests say.

    Attributes:
        url: Its URL.
        requests: The requests that have arrived, in their order.
        texts: The texts with which they were sent.
        stopped: The requests of the tasks that were cancelled.
        changed: Wakes those who wait for a change.
    """

    url: str = ""
    requests: list[str] = attrs.Factory(list[str])
    texts: list[str] = attrs.Factory(list[str])
    stopped: list[str] = attrs.Factory(list[str])
    changed: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    async def session(self, task: ServerTask) -> object:
        """Run a task. The beginning of its name says how: "wait" runs until it is cancelled, "step" takes a moment, "fail" fails."""
        name = task.request.split("\n")[0].removeprefix("Task Description: ")
        self.requests.append(name)
        self.texts.append(task.request)
        self.changed.unpark_all()
        try:
            if name.startswith("wait"):
                await trio.sleep_forever()
            if name.startswith("step"):
                await trio.sleep(0.05)
        except trio.Cancelled:
            self.stopped.append(name)
            self.changed.unpark_all()
            raise
        if name.startswith("fail"):
            raise TaskFailed("there is no paper")
        return f"did {name}"

    async def wait_for(self, *requests: str, stopped: bool = False) -> None:
        """Wait until all these tasks have arrived, or were stopped."""
        with trio.fail_after(SECONDS):
            while not set(requests) <= set(self.stopped if stopped else self.requests):
                await self.changed.park()


@asynccontextmanager
async def open_devices() -> AsyncGenerator[Server]:
    """Open a server with two devices for the length of the block."""
    world = Server()
    async with open_server(session=world.session, token=TOKEN) as server, AsyncExitStack() as stack:
        world.url = server.url
        for device_id, system in DEVICES.items():
            info = DeviceInfo(device_id, system)
            await stack.enter_async_context(
                open_device_connection(server.url, device_id, system_info=info, token=TOKEN)
            )
        yield world
