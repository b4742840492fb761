"""A server with devices in memory, behind a simulated network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from galaxy_trio._concurrency.background import open_background
from galaxy_trio._connection.options import ConnectionOptions
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
    tools: tuple[Tool | Callable[..., Any], ...]  # Any: a plain function may return anything
    config: DeviceConfig


@attrs.frozen
class _Process:
    """A running device."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    registered: trio.Event = attrs.field(factory=trio.Event)
    leave: trio.Event = attrs.field(factory=trio.Event)


class MemoryFleet:
    """A server and devices that can be started, stopped and killed. Made by `open_memory_fleet`.

    Attributes:
        url: The server's URL, for `open_connection` with a ``stream``.
        network: The network between all ends; its `Network.links` can fail in many ways.
        server: The running server; None while there is none.
        refuses: Whether new connections are refused, as if no server listened.
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
        """Called with each new link before it is used."""
        self._nursery = nursery
        self._session = session
        self._limits = limits
        self._patience = patience
        self._serving: trio.Nursery | None = None
        self._stop = trio.Event()
        self._scope = trio.CancelScope()
        self._devices: dict[str, _Device] = {}
        self._processes: dict[str, _Process] = {}
        # Unparked when a server has started, a device has registered, or a device is stopped.
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def configs(self) -> list[DeviceConfig]:
        """All devices that were ever started, for `open_constellation`, which needs `connect` too."""
        return [device.config for device in self._devices.values()]

    async def connect(self, config: DeviceConfig | None = None) -> trio.abc.Stream:
        """Connect to the server: for ``connect`` of `open_constellation` and `open_agent`, or for ``stream`` of `open_connection`.

        Raises:
            OSError: No server is running, or `refuses` is set.
        """
        del config
        await trio.sleep(self.network.conditions.latency)
        if self._serving is None or self.server is None or self.refuses:
            raise ConnectionRefusedError("no server is listening")
        link = self.network.connect()
        if self.on_link is not None:
            self.on_link(link)
        self._serving.start_soon(self.server.serve_stream, link.server)
        return link.client

    async def start_server(self) -> None:
        """Start a server if none is running. Running devices reconnect by themselves."""
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
                server.on_registration(self._changed.unpark_all)
                self._changed.unpark_all()
                task_status.started()
                await stop.wait()

    async def stop_server(self) -> None:
        """Shut the server down: it closes its connections with a close handshake within a few seconds."""
        self.server = self._serving = None
        self._stop.set()
        await trio.lowlevel.checkpoint()

    async def kill_server(self) -> None:
        """Kill the server: all its connections end without a close handshake."""
        self.server = self._serving = None
        self._scope.cancel()
        await trio.lowlevel.checkpoint()

    async def start_device(
        self,
        device_id: str,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        *,
        platform: str = "linux",
        features: Iterable[str] = (),
        config: DeviceConfig | None = None,
    ) -> None:
        """Start a device. It registers as soon as it can and reconnects after a lost connection.

        A device that was started before keeps its other arguments: give its name only.

        Args:
            device_id: The device's name.
            tools: Its tools, as for `open_agent`.
            platform: Its operating system.
            features: The features that it reports.
            config: Its configuration for a constellation; by default its name and URL.
        """
        if device_id not in self._devices:
            info = DeviceInfo(device_id, platform, supported_features=list(features))
            self._devices[device_id] = _Device(info, tuple(tools), config or DeviceConfig(device_id, URL))
        if device_id not in self._processes:
            process = self._processes[device_id] = _Process()
            self._nursery.start_soon(self._run_device, self._devices[device_id], process)
        await trio.lowlevel.checkpoint()

    async def _run_device(self, device: _Device, process: _Process) -> None:
        name = device.info.device_id
        patience = self._patience
        options = ConnectionOptions(
            connect_timeout=patience / 2,
            register_timeout=patience / 2,
            heartbeat_interval=patience / 4,
            liveness_timeout=patience,
        )
        with process.scope:
            async with open_agent(
                URL,
                name,
                device.tools,
                system_info=device.info,
                connect=self.connect,
                options=options,
                random=Random(name),  # noqa: S311  # jitter is no secret
            ):
                process.registered.set()
                await process.leave.wait()

    async def stop_device(self, device_id: str) -> None:
        """Stop a device: it closes its connection with a close handshake."""
        process = self._processes.pop(device_id)
        process.leave.set()
        if not process.registered.is_set():
            # It is still opening its agent, which can only be cancelled.
            process.scope.cancel()
        self._changed.unpark_all()
        await trio.lowlevel.checkpoint()

    async def kill_device(self, device_id: str) -> None:
        """Kill a device: its connection ends without a close handshake, and its tasks fail."""
        self._processes.pop(device_id).scope.cancel()
        self._changed.unpark_all()
        await trio.lowlevel.checkpoint()

    @property
    def running(self) -> list[str]:
        """The running devices, registered or not."""
        return list(self._processes)

    async def wait_registered(self) -> None:
        """Wait until all running devices are registered. Cancelling is safe."""
        await trio.lowlevel.checkpoint()
        while self.server is None or not set(self._processes) <= set(self.server.devices):
            await self._changed.park()


@asynccontextmanager
async def open_memory_fleet(
    *device_ids: str,
    session: SessionFunction = echo,
    network: Network | None = None,
    limits: ServerLimits | None = None,
    patience: float = 60.0,
) -> AsyncGenerator[MemoryFleet]:
    """Run a server with devices in memory until the block ends. The block is entered once all of them are registered.

    On trio's autojumping `trio.testing.MockClock` it takes no time; under `galaxy_trio.testing.run` it is also deterministic.

    Args:
        device_ids: The first devices. Use `MemoryFleet.start_device` for devices with tools or other properties.
        session: Runs one task on the server. By default, a task's result is ``{"echo": request}``.
        network: The network between all ends; by default without latency.
        limits: The server's limits.
        patience: Seconds of silence after which devices, and servers without `limits`, treat a connection as lost.
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
