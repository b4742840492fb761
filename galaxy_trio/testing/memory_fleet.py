"""A server with devices, in memory, and a simulated network to it: what an application that drives devices is tested with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from galaxy_trio._concurrency.background import open_background
from galaxy_trio.agent.agent import open_agent
from galaxy_trio.agent.tools import Tool
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.messages import DeviceInfo
from galaxy_trio.server.server import ServerLimits, echo
from galaxy_trio.testing.memory_server import MemoryServer, open_memory_server
from galaxy_trio.testing.network import Network

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from galaxy_trio.server.sessions import SessionFunction
    from galaxy_trio.testing.network import NetworkLink

URL: Final = "ws://server.test/ws"


@attrs.frozen
class _Device:
    info: DeviceInfo
    tools: tuple[Tool | Callable[..., Any], ...]  # Any: whatever a plain function returns
    config: DeviceConfig


@attrs.frozen
class _Process:
    """A device that runs."""

    scope: trio.CancelScope
    leave: trio.Event


class MemoryFleet:
    """A server and devices that can be started, stopped and killed. Made by `open_memory_fleet`.

    Attributes:
        url: Where the server is, for whoever connects with `stream`.
        network: Between all ends; its `Network.links` break in every way.
        server: The server that runs now; None while there is none.
        refuses: Whether nobody is let in, as if nobody listened.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        network: Network,
        session: SessionFunction,
        limits: ServerLimits,
        patience: float,
    ) -> None:
        self.url = URL
        self.network = network
        self.server: MemoryServer | None = None
        self.refuses = False
        self.on_link: Callable[[NetworkLink], None] | None = None
        """Called with each link before anything goes over it."""
        self._nursery = nursery
        self._session = session
        self._limits = limits
        self._patience = patience
        self._serving: trio.Nursery | None = None
        self._stop = trio.Event()
        self._scope = trio.CancelScope()
        self._devices: dict[str, _Device] = {}
        self._processes: dict[str, _Process] = {}

    # ---- the way there

    @property
    def configs(self) -> list[DeviceConfig]:
        """All devices that ever were started, for `open_constellation`; give it `connect` as well."""
        return [device.config for device in self._devices.values()]

    async def connect(self, config: DeviceConfig | None = None) -> trio.abc.Stream:
        """A connection to the server, for ``connect`` of `open_constellation` and `open_agent`, or for ``stream`` of `open_connection`.

        Raises:
            OSError: There is no server.
        """
        del config
        await trio.sleep(self.network.conditions.latency)
        if self._serving is None or self.server is None or self.refuses:
            raise ConnectionRefusedError("nobody listens there")
        link = self.network.connect()
        if self.on_link is not None:
            self.on_link(link)
        self._serving.start_soon(self.server.serve_stream, link.server)
        return link.client

    # ---- the server

    async def start_server(self) -> None:
        """Let there be a server, if there is none. Its devices come back by themselves."""
        if self._serving is None:
            await self._nursery.start(self._run_server)

    async def _run_server(self, *, task_status: trio.TaskStatus[None]) -> None:
        stop = self._stop = trio.Event()
        with trio.CancelScope() as self._scope:
            async with (
                open_background() as serving,
                open_memory_server(session=self._session, limits=self._limits) as server,
            ):
                self.server, self._serving = server, serving
                task_status.started()
                await stop.wait()
                self.server = self._serving = None

    async def stop_server(self) -> None:
        """End it in good order: its clients are told, and it is gone within a few seconds."""
        self._stop.set()
        await trio.lowlevel.checkpoint()

    async def kill_server(self) -> None:
        """End it as a killed process ends: all its connections end without a word."""
        self.server = self._serving = None
        self._scope.cancel()
        await trio.lowlevel.checkpoint()

    # ---- the devices

    async def start_device(
        self,
        device_id: str,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        *,
        platform: str = "linux",
        features: Iterable[str] = (),
        config: DeviceConfig | None = None,
    ) -> None:
        """Let a device come; it registers as soon as it can, and again whenever its connection was lost.

        One that was there before needs its name only: it is what it was.

        Args:
            device_id: Its name.
            tools: What it can do, as for `open_agent`.
            platform: Its operating system.
            features: What it tells that it is able to do.
            config: What a constellation knows of it; by default no more than name and URL.
        """
        if device_id not in self._devices:
            info = DeviceInfo(device_id, platform, supported_features=list(features))
            self._devices[device_id] = _Device(info, tuple(tools), config or DeviceConfig(device_id, URL))
        if device_id not in self._processes:
            process = self._processes[device_id] = _Process(trio.CancelScope(), trio.Event())
            self._nursery.start_soon(self._be_device, self._devices[device_id], process)
        await trio.lowlevel.checkpoint()

    async def _be_device(self, device: _Device, process: _Process) -> None:
        name = device.info.device_id
        with process.scope:
            async with open_agent(
                URL,
                name,
                device.tools,
                system_info=device.info,
                connect=self.connect,
                connect_timeout=self._patience / 2,
                register_timeout=self._patience / 2,
                heartbeat_interval=self._patience / 4,
                liveness_timeout=self._patience,
                random=Random(name),  # noqa: S311  # jitter is no secret
            ):
                await process.leave.wait()

    async def stop_device(self, device_id: str) -> None:
        """Let it leave in good order."""
        self._processes.pop(device_id).leave.set()
        await trio.lowlevel.checkpoint()

    async def kill_device(self, device_id: str) -> None:
        """End it as a killed process ends: its tasks fail, and its server is told by the end of its connection."""
        self._processes.pop(device_id).scope.cancel()
        await trio.lowlevel.checkpoint()

    @property
    def running(self) -> list[str]:
        """The devices that run, registered or not."""
        return list(self._processes)

    async def wait_registered(self) -> None:
        """Wait until the server knows all devices that run."""
        while self.server is None or not set(self._processes) <= set(self.server.devices):  # noqa: ASYNC110  # it tells nobody
            await trio.sleep(0.01)


@asynccontextmanager
async def open_memory_fleet(
    *device_ids: str,
    session: SessionFunction = echo,
    network: Network | None = None,
    limits: ServerLimits | None = None,
    patience: float = 60.0,
) -> AsyncGenerator[MemoryFleet]:
    """Run a server with devices, in memory, for the length of the block, which begins when they are registered.

    With the clock of `trio.testing` that jumps, all takes no time; with `galaxy_trio.testing.run` it is the same each time.

    Args:
        device_ids: The devices to begin with; `MemoryFleet.start_device` says more of one.
        session: What the server makes of a task; without it, its result is ``{"echo": request}``.
        network: Between all ends; without it nothing takes time there.
        limits: Of the server.
        patience: Seconds of silence after which devices, and servers without `limits`, take a connection for lost.
    """
    async with open_background() as nursery:
        fleet = MemoryFleet(
            nursery,
            network or Network(),
            session,
            limits
            or ServerLimits(
                handshake_timeout=patience / 2,
                register_timeout=patience / 2,
                liveness_timeout=patience,
                ping_interval=patience / 4,
            ),
            patience,
        )
        await fleet.start_server()
        for device_id in device_ids:
            await fleet.start_device(device_id)
        await fleet.wait_registered()
        yield fleet
