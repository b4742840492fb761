"""A server with three devices in memory, on which a node runs until the test ends it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from galaxy_trio.testing import MemoryFleet, open_memory_fleet
from tests.graph.support.sessions import Sessions
from tests.support import waiting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import trio

    from galaxy_trio import DeviceConfig
    from galaxy_trio.testing import NetworkLink


class Devices:
    """The devices d1, d2 and d3, the last of which runs Windows and has Excel. Made by `open_devices`.

    Attributes:
        fleet: The devices and their server.
        tasks: The tasks that run.
    """

    def __init__(self, fleet: MemoryFleet, tasks: Sessions) -> None:
        self.fleet = fleet
        self.tasks = tasks
        self._links: dict[str, list[NetworkLink]] = {}

    async def connect(self, config: DeviceConfig) -> trio.abc.Stream:
        """Connect to the server, for what runs the graph."""
        stream = await self.fleet.connect(config)
        self._links.setdefault(config.device_id, []).append(self.fleet.network.links[-1])
        return stream

    async def lose(self, name: str) -> None:
        """Break the connection on which a task runs, when it runs."""
        await self.tasks.wait_begun(name)
        for link in self._links.pop(self.tasks.devices[name]):
            link.reset()

    async def leave(self, device_id: str) -> None:
        """Let a device leave, and its tasks fail."""
        await self.fleet.kill_device(device_id)


@asynccontextmanager
async def open_devices() -> AsyncGenerator[Devices]:
    """Run the devices inside the block."""
    tasks = Sessions(waiting.SECONDS)
    async with open_memory_fleet("d1", "d2", session=tasks) as fleet:
        await fleet.start_device("d3", platform="windows", features=["excel"])
        await fleet.wait_registered()
        yield Devices(fleet, tasks)
