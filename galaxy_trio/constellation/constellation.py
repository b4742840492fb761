"""Many devices, kept connected, and tasks for whichever of them fits."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, cast

import trio

from galaxy_trio._arguments import MAX_MESSAGE_SIZE, check_client_name, check_positive
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._concurrency.cancel_group import CancelGroup
from galaxy_trio._connection.link import CLOSE_TIMEOUT
from galaxy_trio.constellation.config import ConstellationConfig, DeviceConfig, read_config
from galaxy_trio.constellation.connector import ConnectionSettings, ConnectLimits, Connector
from galaxy_trio.constellation.device import MAX_QUEUED, Device
from galaxy_trio.constellation.device_statistics import ConstellationStatistics
from galaxy_trio.constellation.requirements import Requirements
from galaxy_trio.constellation.reservation import Reservation
from galaxy_trio.constellation.scheduler import Scheduler
from galaxy_trio.constellation.task import BeforeSending, NotSentCallback, OnCancel, PublishingEnd, Task, make_task
from galaxy_trio.constellation.task_runner import TaskRunner, run_task
from galaxy_trio.constellation.tls_contexts import TlsContexts
from galaxy_trio.errors import ConfigError, ConnectionLost, GalaxyError, NoSuchDevice
from galaxy_trio.events import BACKLOG, EventFanOut, EventStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from random import Random

    from galaxy_trio.constellation.profile import DeviceProfile
    from galaxy_trio.constellation.slots import Lease
    from galaxy_trio.messages import TaskResult

    Where = Callable[[DeviceProfile], bool]
    Connect = Callable[[DeviceConfig], Awaitable[trio.abc.Stream]]


class Constellation:
    """Devices that are kept connected. Made by `open_constellation`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        settings: ConnectionSettings,
        max_concurrent_tasks: int | None,
        max_queued: int,
    ) -> None:
        self._nursery = nursery
        self._settings = settings
        self._max_queued = max_queued
        self._total = None if max_concurrent_tasks is None else trio.CapacityLimiter(max_concurrent_tasks)
        self._limits = ConnectLimits()
        self._tls_contexts = TlsContexts()
        self._events = EventFanOut()
        self._devices: dict[str, Device] = {}
        self._scheduler = Scheduler(self._devices, max_queued)
        # Those who wait between two tries, on no device.
        self._waiting = CancelGroup()
        self._closed = False

    def __repr__(self) -> str:
        connected = sum(device.connected for device in self._devices.values())
        return f"<Constellation of {len(self._devices)} devices, {connected} connected>"

    # ---- its devices

    @property
    def devices(self) -> Mapping[str, Device]:
        """By name, in the order in which they were added."""
        return MappingProxyType(self._devices)

    def add_device(self, config: DeviceConfig) -> Device:
        """Add a device, and begin to connect it, unless its `auto_connect` is false.

        Raises:
            ConfigError: There is one of that name.
            trio.ClosedResourceError: The constellation was closed.
        """
        self._check_open()
        if config.device_id in self._devices:
            raise ConfigError(
                f"there is a device {config.device_id!r} already: remove it first, or give this one another name"
            )
        connector = Connector(config, self._settings, self._limits.take(config.server_url), self._tls_contexts)
        device = Device(
            connector,
            self._nursery,
            self._total,
            self._events.publish,
            self._scheduler.reconsider,
            self._scheduler.recheck,
            self._max_queued,
        )
        self._devices[config.device_id] = device
        self._nursery.start_soon(device._run)
        self._scheduler.reconsider(device)
        return device

    async def remove_device(self, device_id: str, *, wait: bool = True) -> None:
        """Remove a device, and close its connections. Those who wait for it are told at once; tasks that any device may do go elsewhere.

        Args:
            device_id: Which.
            wait: Let what runs on it come to its end; otherwise it is stopped and raises `ConnectionLost`. Cancelling ends this wait.

        Raises:
            NoSuchDevice: There is none of that name.
        """
        device = self._devices.get(device_id)
        if device is None:
            raise NoSuchDevice(f"there is no device {device_id!r} to be removed")
        device._stop_accepting(lambda: NoSuchDevice(f"device {device_id!r} was removed"))
        try:
            if wait:
                await device._slots.wait_all_free()
        finally:
            reason = "it was removed"
            device._close(lambda: ConnectionLost(f"device {device_id!r} was lost: {reason}", reason=reason))
            # Somebody else may have removed it meanwhile, and added another of its name.
            if self._devices.get(device_id) is device:
                del self._devices[device_id]
                self._limits.give_back(device.config.server_url)
        await device._wait_closed()

    async def wait_connected(self, which: Literal["all", "any"] = "all") -> None:
        """Wait until all devices are connected that are to be, or any of them.

        Raises:
            GalaxyError: One was given up, or, of any, all of them were; why.
            trio.ClosedResourceError: One was removed, or the constellation was closed.
        """
        if which not in ("all", "any"):
            raise ValueError(f"wait for 'all' or for 'any', not for {which!r}")
        self._check_open()
        await trio.lowlevel.checkpoint()
        wanted = [device for device in self._devices.values() if device.config.auto_connect or device.connected]
        connected = 0
        failures: list[Exception] = []
        enough, bearable = (len(wanted), 0) if which == "all" else (1, len(wanted) - 1)
        async with trio.open_nursery() as nursery:

            async def watch(device: Device) -> None:
                nonlocal connected
                try:
                    await device.wait_connected()
                    connected += 1
                except (GalaxyError, trio.ClosedResourceError) as failure:
                    failures.append(failure)
                if connected >= enough or len(failures) > bearable:
                    nursery.cancel_scope.cancel()

            for device in wanted:
                nursery.start_soon(watch, device)
        if failures and len(failures) > bearable:
            raise failures[0]

    # ---- work

    async def run_task(
        self,
        request: str,
        *,
        os: str | None = None,
        capabilities: Iterable[str] = (),
        where: Where | None = None,
        timeout: float = 1000.0,
        task_id: str | None = None,
        on_cancel: OnCancel = "stop",
        before_sending: BeforeSending | None = None,
        on_not_sent: NotSentCallback | None = None,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> TaskResult:
        """Give a task to the device that fits best, and wait for its end.

        Best is an idle one before a busy one, then the one with the shortest queue, then the one that has been idle for longest. When
        another one has room before its turn has come, it goes there. While none that fits is connected, it waits.

        A task that is known not to have run goes to another device when its own has left. The rest is as for `Device.run_task`.

        Args:
            request: What to do, in words.
            os: What the device must run, such as ``"linux"``; capitals do not matter.
            capabilities: All that it must be able to do.
            where: Anything more: sees what is known of a device, and says whether it will do.
            timeout: As for `Device.run_task`, and so are the other arguments.
            task_id: The same.
            on_cancel: The same.
            before_sending: The same.
            on_not_sent: The same; the task may go to another device.
            task_status: The same.

        Raises:
            NoSuchDevice: None fits, nor may any turn out to; says what is missing.
            QueueFull: Too many tasks wait already.
            Exception: As for `Device.run_task`.
        """
        task = make_task(request, timeout, task_id, on_cancel, before_sending, on_not_sent, task_status)
        requirements = Requirements(os, capabilities, where)
        with PublishingEnd(task, self._events.publish):
            return await run_task(task, partial(self._acquire, requirements, task), self._waiting)

    async def _acquire(self, requirements: Requirements, task: Task) -> tuple[TaskRunner, Lease]:
        """A slot on the device that fits best, chosen again for each attempt."""
        device, lease = await self._lease(requirements, task)
        return device._runner, lease

    @asynccontextmanager
    async def reserve(
        self, *, os: str | None = None, capabilities: Iterable[str] = (), where: Where | None = None
    ) -> AsyncGenerator[Reservation]:
        """Wait for a slot on the device that fits best, and hold it for the length of the block. Nothing is sent yet.

        Arguments and errors are those of `run_task`.
        """
        device, lease = await self._lease(Requirements(os, capabilities, where), None)
        try:
            yield Reservation(device.device_id, lease, device._run_reserved)
        finally:
            lease.end()

    async def _lease(self, requirements: Requirements, task: Task | None) -> tuple[Device, Lease]:
        self._check_open()
        with self._scheduler.queue(requirements, task) as waiting:
            device, slot = await waiting.wait()
        return device, await device._lease(slot)

    # ---- what happens

    @asynccontextmanager
    async def subscribe(self, backlog: int = BACKLOG) -> AsyncGenerator[EventStream]:
        """Receive the events of all devices from now on, for the length of the block.

        Args:
            backlog: How many events may wait for this subscriber. One that lags further loses the oldest, and gets `EventsLost`.
        """
        with self._events.subscribe(backlog) as stream:
            yield stream

    def statistics(self) -> ConstellationStatistics:
        """What the devices are now, and what became of them so far; `unstructure_statistics` makes JSON of it."""
        devices = {device_id: device.statistics() for device_id, device in self._devices.items()}
        unassigned = self._scheduler.unassigned
        return ConstellationStatistics(
            devices=devices,
            running=sum(device.running for device in devices.values()),
            queued=sum(device.queued for device in devices.values()) + unassigned,
            unassigned=unassigned,
        )

    # ---- its end

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()

    async def _close(self, drain: float) -> None:
        """Take no more tasks, let those that run go on for `drain` seconds, stop them, and close all connections at once."""
        self._take_no_more()
        with trio.move_on_after(drain):
            for device in self._devices.values():
                await device._slots.wait_all_free()
        self._stop()
        # What a server does not do in time is not waited for.
        with trio.move_on_after(CLOSE_TIMEOUT + 1):
            for device in self._devices.values():
                await device._wait_closed()

    async def _wait_cancelled(self) -> None:
        """Tell all who wait, wherever they are, that it is over, in the step in which that is known.

        A block that is cancelled, or raises, may take its time to come to its end, and many of those who wait are not in it.
        """
        try:
            await trio.sleep_forever()
        finally:
            self._take_no_more()
            self._stop()

    def _end_events(self) -> None:
        """Nothing happens any more."""
        self._events.end()

    def _take_no_more(self) -> None:
        self._closed = True
        self._scheduler.close(_closed)
        self._waiting.close(_closed)
        self._waiting.stop(_closed)
        for device in self._devices.values():
            device._stop_accepting(_closed)

    def _stop(self) -> None:
        for device in self._devices.values():
            device._close(_closed)


def _closed() -> Exception:
    return trio.ClosedResourceError("the constellation was closed")


def _checked(devices: object) -> tuple[DeviceConfig, ...]:
    """Devices that were given one by one; wrong ones are told before anything is connected."""
    if not isinstance(devices, Iterable):
        raise ConfigError(
            f"devices are a file, or a list of DeviceConfig, and not {type(devices).__name__}: write [device]"
        )
    checked: dict[str, DeviceConfig] = {}
    for device in cast("Iterable[object]", devices):
        if not isinstance(device, DeviceConfig):
            raise ConfigError(f"a device is given as a DeviceConfig, and not as {type(device).__name__}")
        if device.device_id in checked:
            raise ConfigError(f"the device {device.device_id!r} is given twice: give each a name of its own")
        checked[device.device_id] = device
    return tuple(checked.values())


@asynccontextmanager
async def open_constellation(
    devices: str | PathLike[str] | ConstellationConfig | Iterable[DeviceConfig],
    *,
    client_name: str | None = None,
    connect: Connect | None = None,
    connect_timeout: float = 60.0,
    register_timeout: float = 30.0,
    heartbeat_interval: float | None = None,
    liveness_timeout: float = 180.0,
    max_message_size: int = MAX_MESSAGE_SIZE,
    reconnect_delay: float | None = None,
    keepalive_expiry: float | None = None,
    max_concurrent_tasks: int | None = None,
    max_queued: int = MAX_QUEUED,
    abandon_timeout: float = 300.0,
    drain: float = 0.0,
    random: Random | None = None,
) -> AsyncGenerator[Constellation]:
    """Keep devices connected, for the length of the block, and give them tasks.

    The block begins at once, while they connect: see `Constellation.wait_connected`. No failure of a device ends it. What the block
    raises comes out as it is.

    At its end no more tasks are taken, those that run may go on for `drain` seconds and are stopped then, and all connections are closed at
    once, within 5 s. Whoever still waits gets `trio.ClosedResourceError`. Cancelling the block closes everything at once.

    Args:
        devices: A file, as `read_config` reads it, what it has read, or the devices themselves.
        client_name: Names this program's clients, sessions and tasks; at most 64 characters. The file's ``constellation_id`` if not given.
        connect: Opens the stream for each connection, in place of TCP: a proxy's, a test's.
        connect_timeout: Seconds for DNS, TCP, TLS and the WebSocket handshake of a connection.
        register_timeout: Seconds for a server to confirm a registration.
        heartbeat_interval: Seconds between heartbeats; the file's, or 30, if not given.
        liveness_timeout: Seconds without a single byte from a server after which a connection is lost.
        max_message_size: Bytes that a message may have, both ways.
        reconnect_delay: Seconds that the first wait before another try lasts at most; the file's, or 1, if not given.
        keepalive_expiry: Seconds for which a connection on which a task ended is kept for the device's next task; the file's, or 5, if
            not given; 0 to close it immediately.
        max_concurrent_tasks: Tasks of all devices together at once; the file's, or no limit, if not given.
        max_queued: Tasks that may wait for each device, and for none that is connected; one more raises `QueueFull`.
        abandon_timeout: Seconds for which a task that was abandoned keeps its device occupied at most.
        drain: Seconds that tasks may go on when the block ends.
        random: Where the jitter of the waits comes from.

    Raises:
        ConfigError: What was asked for cannot be right; a file's error tells of all that is wrong with it.
    """
    if isinstance(devices, ConstellationConfig):
        config = devices
    elif isinstance(devices, str | PathLike):
        config = await trio.to_thread.run_sync(read_config, devices, abandon_on_cancel=True)
    else:
        config = ConstellationConfig(_checked(devices))
    max_concurrent_tasks = config.max_concurrent_tasks if max_concurrent_tasks is None else max_concurrent_tasks
    check_positive(max_concurrent_tasks=max_concurrent_tasks, max_queued=max_queued)
    if not drain >= 0:
        raise ConfigError(f"drain is a number of seconds, and is {drain!r}")
    settings = ConnectionSettings(
        client_name=check_client_name(config.constellation_id if client_name is None else client_name),
        connect=connect,
        connect_timeout=connect_timeout,
        register_timeout=register_timeout,
        heartbeat_interval=config.heartbeat_interval if heartbeat_interval is None else heartbeat_interval,
        liveness_timeout=liveness_timeout,
        max_message_size=max_message_size,
        reconnect_delay=config.reconnect_delay if reconnect_delay is None else reconnect_delay,
        keepalive_expiry=config.keepalive_expiry if keepalive_expiry is None else keepalive_expiry,
        abandon_timeout=abandon_timeout,
        random=random,
    )
    with ExitStack() as at_last:
        async with open_background() as nursery:
            constellation = Constellation(nursery, settings, max_concurrent_tasks, max_queued)
            at_last.callback(constellation._end_events)  # its own module
            nursery.start_soon(constellation._wait_cancelled)
            for device in config.devices:
                constellation.add_device(device)
            yield constellation
            await constellation._close(drain)
