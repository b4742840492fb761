"""A constellation: devices that are kept connected, and tasks for any device that fits."""

from __future__ import annotations

import math
from contextlib import ExitStack, asynccontextmanager
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from galaxy_trio._arguments import check_client_name, check_positive
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._concurrency.cancel_group import CancelGroup
from galaxy_trio._connection.link import CLOSE_TIMEOUT
from galaxy_trio._connection.options import ConnectionOptions
from galaxy_trio._counted import counted
from galaxy_trio._nearest import did_you_mean_or_known
from galaxy_trio.constellation.config import ConstellationConfig, DeviceConfig, checked_devices, read_config
from galaxy_trio.constellation.connector import ConnectLimits, Connector, DeviceSettings
from galaxy_trio.constellation.device import MAX_QUEUED, Device
from galaxy_trio.constellation.device_statistics import ConstellationStatistics
from galaxy_trio.constellation.ranked_queue import Rank, next_rank
from galaxy_trio.constellation.requirements import Requirements
from galaxy_trio.constellation.reservation import Reservation
from galaxy_trio.constellation.scheduler import Scheduler
from galaxy_trio.constellation.slots import Lease, TaskLimit
from galaxy_trio.constellation.task import BeforeSending, NotSentCallback, OnCancel, PublishingEnd, Task, make_task
from galaxy_trio.constellation.task_runner import TaskRunner, run_task
from galaxy_trio.constellation.tls_contexts import TlsContexts
from galaxy_trio.errors import ConfigError, ConnectionLost, GalaxyError, NoSuchDevice
from galaxy_trio.events import BACKLOG, Event, EventFanOut, EventStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
    from random import Random

    from galaxy_trio.constellation.profile import DeviceProfile
    from galaxy_trio.constellation.waiter import Waiter
    from galaxy_trio.messages import TaskResult

    Where = Callable[[DeviceProfile], bool]
    Connect = Callable[[DeviceConfig], Awaitable[trio.abc.Stream]]


class Constellation:
    """Devices that are kept connected. Made by `open_constellation`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        settings: DeviceSettings,
        max_concurrent_tasks: int | None,
        max_queued: int,
    ) -> None:
        self._nursery = nursery
        self._settings = settings
        self._memory = settings.connection.make_budget()
        self._max_queued = max_queued
        self._limit = TaskLimit(math.inf if max_concurrent_tasks is None else max_concurrent_tasks)
        self._limits = ConnectLimits()
        self._tls_contexts = TlsContexts()
        self._events = EventFanOut[Event]()
        self._devices: dict[str, Device] = {}
        self._scheduler = Scheduler(self._devices, self._limit, max_queued)
        # Tasks that wait between two attempts, on no device.
        self._waiting = CancelGroup()
        self._closed = False

    def __repr__(self) -> str:
        connected = sum(device.connected for device in self._devices.values())
        return f"<Constellation of {counted(len(self._devices), 'device')}, {connected} connected>"

    @property
    def devices(self) -> Mapping[str, Device]:
        """The devices by id, in the order in which they were added."""
        return MappingProxyType(self._devices)

    def add_device(self, config: DeviceConfig) -> Device:
        """Add a device, and begin to connect it unless its `auto_connect` is false.

        Raises:
            ConfigError: There is a device with this id already.
            trio.ClosedResourceError: The constellation was closed.
        """
        self._check_open()
        if config.device_id in self._devices:
            raise ConfigError(
                f"there is a device {config.device_id!r} already: remove it first, or give this one another id"
            )
        connector = Connector(config, self._settings, self._limits.acquire(config.server_url), self._tls_contexts)
        device = Device(
            connector,
            self._nursery,
            self._limit,
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
        """Remove a device, and close its connections.

        Tasks that wait for this device fail immediately with `NoSuchDevice`. Tasks that may run on any device move to another one.

        Args:
            device_id: The device to remove.
            wait: Wait for the running tasks to end. Otherwise, or if this wait is cancelled, they are stopped
                and raise `ConnectionLost`.

        Raises:
            NoSuchDevice: There is no device with this id.
        """
        device = self._devices.get(device_id)
        if device is None:
            known = did_you_mean_or_known(device_id, self._devices)
            raise NoSuchDevice(f"there is no device {device_id!r} to be removed{known}")
        device._stop_accepting(lambda: NoSuchDevice(f"device {device_id!r} was removed"))
        try:
            if wait:
                await device._slots.wait_all_free()
        finally:
            reason = "it was removed"
            device._close(lambda: ConnectionLost(f"device {device_id!r} was lost: {reason}", reason=reason))
            # Another call may have removed it first, and a new device with its id may have been added.
            if self._devices.get(device_id) is device:
                del self._devices[device_id]
                self._limits.release(device.config.server_url)
        await device._wait_closed()

    async def wait_connected(self, which: Literal["all", "any"] = "all") -> None:
        """Wait until all devices with `auto_connect` are connected, or any of them. Cancelling is safe.

        Raises:
            GalaxyError: A device was given up, with the reason; for ``"any"``, all of them were.
            trio.ClosedResourceError: A device was removed, or the constellation was closed; for ``"any"``, all of them were removed.
        """
        if which not in ("all", "any"):
            raise ValueError(f"wait for 'all' or for 'any', not for {which!r}")
        self._check_open()
        await trio.lowlevel.checkpoint()
        wanted = [device for device in self._devices.values() if device.config.auto_connect or device.connected]
        connected = 0
        failures: list[Exception] = []
        enough, tolerated = (len(wanted), 0) if which == "all" else (1, len(wanted) - 1)
        async with trio.open_nursery() as nursery:

            async def watch(device: Device) -> None:
                nonlocal connected
                try:
                    await device.wait_connected()
                    connected += 1
                except (GalaxyError, trio.ClosedResourceError) as failure:
                    failures.append(failure)
                if connected >= enough or len(failures) > tolerated:
                    nursery.cancel_scope.cancel()

            for device in wanted:
                nursery.start_soon(watch, device)
        if failures and len(failures) > tolerated:
            raise failures[0]

    async def run_task(
        self,
        request: str,
        *,
        os: str | None = None,
        capabilities: Iterable[str] = (),
        where: Where | None = None,
        priority: int = 0,
        timeout: float = 1000.0,
        task_id: str | None = None,
        on_cancel: OnCancel = "stop",
        before_sending: BeforeSending | None = None,
        on_not_sent: NotSentCallback | None = None,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> TaskResult:
        """Run a task on the device that fits best, and wait for its end.

        An idle device is preferred to a busy one, then the one with the shortest queue, then the one that has been idle for longest. A
        task that still waits moves to another device that has room. While no device that fits is connected, the task waits.

        A task that is known not to have run is sent to another device when its own has left. Otherwise this is like `Device.run_task`.

        Args:
            request: The task, in words.
            os: The operating system that the device must run, such as ``"linux"``. Case is ignored, and common names are understood:
                ``"macOS"`` is ``"darwin"``.
            capabilities: The capabilities, all of which the device must have.
            where: A function that takes a `DeviceProfile` and returns whether the device fits.
            priority: As for `Device.run_task`, among the tasks of all devices.
            timeout: As for `Device.run_task`.
            task_id: As for `Device.run_task`.
            on_cancel: As for `Device.run_task`.
            before_sending: As for `Device.run_task`.
            on_not_sent: As for `Device.run_task`; the next attempt may be on another device.
            task_status: As for `Device.run_task`.

        Raises:
            NoSuchDevice: No device fits, and none may fit once more is known about it. The message says what is missing.
            QueueFull: Too many tasks wait already.
            Exception: As for `Device.run_task`.
        """
        task = make_task(request, priority, timeout, task_id, on_cancel, before_sending, on_not_sent, task_status)
        requirements = Requirements(os, capabilities, where)
        with PublishingEnd(task, self._events.publish):
            # The device is chosen again for each attempt.
            return await run_task(
                task, lambda: self._acquire(self._lease(requirements, task.rank, task)), self._waiting
            )

    async def _acquire(self, leasing: Awaitable[tuple[Device, Lease]]) -> tuple[TaskRunner, Lease]:
        device, lease = await leasing
        return device._runner, lease

    @asynccontextmanager
    async def reserve(
        self,
        *,
        os: str | None = None,
        capabilities: Iterable[str] = (),
        where: Where | None = None,
        priority: int = 0,
    ) -> AsyncGenerator[Reservation]:
        """Wait for a slot on the device that fits best, and hold it for the length of the block. Nothing is sent yet.

        Arguments and errors are those of `run_task`.
        """
        device, lease = await self._lease(Requirements(os, capabilities, where), next_rank(priority), None)
        try:
            yield Reservation(device.device_id, lease, device._run_reserved)
        finally:
            lease.end()

    def _lease(self, requirements: Requirements, rank: Rank, task: Task | None) -> Awaitable[tuple[Device, Lease]]:
        """Enter the queue in this step. Awaiting the result, which must begin in the same step, waits for a slot."""
        self._check_open()
        return self._wait(self._scheduler.enter(requirements, rank, task))

    async def _wait(self, waiter: Waiter) -> tuple[Device, Lease]:
        device, slot = await self._scheduler.wait(waiter)
        return device, Lease(device._slots, slot)

    @asynccontextmanager
    async def subscribe(self, backlog: int = BACKLOG) -> AsyncGenerator[EventStream[Event]]:
        """Receive the events of all devices from now on, for the length of the block.

        Args:
            backlog: Events that may wait for this subscriber. One that lags further loses the oldest, and receives `EventsLost`.
        """
        with self._events.subscribe(backlog) as stream:
            yield stream

    def statistics(self) -> ConstellationStatistics:
        """Return the current state and the counters of all devices; `unstructure_statistics` makes JSON of it."""
        devices = {device_id: device.statistics() for device_id, device in self._devices.items()}
        unassigned = self._scheduler.unassigned
        return ConstellationStatistics(
            devices=devices,
            running=sum(device.running for device in devices.values()),
            queued=sum(device.queued for device in devices.values()) + unassigned,
            unassigned=unassigned,
            memory_held=self._memory.held,
            closed_for_memory=self._memory.closed,
        )

    # Closing.

    def _check_open(self) -> None:
        if self._closed:
            raise _closed_error()

    async def _close(self, drain: float) -> None:
        """Accept no more tasks, give running ones `drain` seconds, stop them, and close all connections together."""
        self._stop_accepting()
        # A copy: other tasks may remove devices during the waits.
        devices = list(self._devices.values())
        with trio.move_on_after(drain):
            for device in devices:
                await device._slots.wait_all_free()
        self._stop()
        # The socket is closed even if the server does not answer in time.
        with trio.move_on_after(CLOSE_TIMEOUT + 1):
            for device in devices:
                await device._wait_closed()

    async def _wait_cancelled(self) -> None:
        """Raise the end in all calls that wait, in the step in which the constellation is cancelled.

        A block that is cancelled or raises may take a while to end, and calls from outside the block wait as well.
        """
        try:
            await trio.sleep_forever()
        finally:
            self._stop_accepting()
            self._stop()

    def _stop_accepting(self) -> None:
        self._closed = True
        self._scheduler.close(_closed_error)
        self._waiting.close(_closed_error)
        self._waiting.stop(_closed_error)
        for device in self._devices.values():
            device._stop_accepting(_closed_error)

    def _stop(self) -> None:
        for device in self._devices.values():
            device._close(_closed_error)


def _closed_error() -> Exception:
    return trio.ClosedResourceError("the constellation was closed")


@asynccontextmanager
async def open_constellation(
    devices: str | PathLike[str] | ConstellationConfig | Iterable[DeviceConfig],
    *,
    client_name: str | None = None,
    exclusive: bool = False,
    connect: Connect | None = None,
    options: ConnectionOptions | None = None,
    reconnect_delay: float | None = None,
    keepalive_expiry: float | None = None,
    max_concurrent_tasks: int | None = None,
    max_queued: int = MAX_QUEUED,
    abandon_timeout: float = 300.0,
    drain: float = 0.0,
    random: Random | None = None,
) -> AsyncGenerator[Constellation]:
    """Keep devices connected for the length of the block, and run tasks on them.

    The block begins immediately, while the devices connect: see `Constellation.wait_connected`. A device's failure does not end it. An
    exception of the block comes out unchanged.

    At the end of the block, no more tasks are accepted. Running tasks get `drain` seconds and are stopped then. All connections are closed
    together, within 5 s. Calls that still wait raise `trio.ClosedResourceError`. Cancelling the block closes everything immediately.

    Args:
        devices: A file for `read_config`, a `ConstellationConfig`, or the devices themselves.
        client_name: The name in this program's client, session and task ids; at most 64 characters. The file's ``constellation_id`` if not
            given.
        exclusive: Whether a device is kept connected by one constellation of this name at a time: its client id has no random part, so
            that the server refuses the others, which try again every 5 s.
        connect: Opens the stream for each connection in place of TCP, for example on a Unix socket.
        options: Timeouts and limits of each connection; see `ConnectionOptions` for the defaults.
        reconnect_delay: The longest first wait before reconnecting, in seconds; the file's, or 1, if not given.
        keepalive_expiry: Seconds for which an idle connection is kept for the device's next task; the file's, or 5, if not given; 0 to
            close it immediately.
        max_concurrent_tasks: Tasks that run at a time on all devices together; the file's, or no limit, if not given.
        max_queued: Tasks that may wait for each device, and as many while no device that fits is connected; one more raises `QueueFull`.
        abandon_timeout: The longest time in seconds for which an abandoned task keeps its device busy.
        drain: Seconds for which running tasks may continue when the block ends.
        random: The source of the jitter of the waits.

    Raises:
        ConfigError: An argument is invalid, or the file is. The error names every problem of a file.
    """
    if isinstance(devices, ConstellationConfig):
        config = devices
    elif isinstance(devices, str | PathLike):
        config = await trio.to_thread.run_sync(read_config, devices, abandon_on_cancel=True)
    else:
        config = ConstellationConfig(checked_devices(devices))
    max_concurrent_tasks = config.max_concurrent_tasks if max_concurrent_tasks is None else max_concurrent_tasks
    check_positive(max_concurrent_tasks=max_concurrent_tasks, max_queued=max_queued)
    if not drain >= 0:
        raise ConfigError(f"drain must be a number of seconds, not {drain!r}")
    options = options or ConnectionOptions()
    settings = DeviceSettings(
        client_name=check_client_name(config.constellation_id if client_name is None else client_name),
        exclusive=exclusive,
        connect=connect,
        connection=attrs.evolve(
            options,
            heartbeat_interval=options.heartbeat_interval or config.heartbeat_interval,
            memory_budget=options.make_budget(),
        ),
        reconnect_delay=config.reconnect_delay if reconnect_delay is None else reconnect_delay,
        keepalive_expiry=config.keepalive_expiry if keepalive_expiry is None else keepalive_expiry,
        abandon_timeout=abandon_timeout,
        random=random,
    )
    with ExitStack() as stack:
        async with open_background() as nursery:
            constellation = Constellation(nursery, settings, max_concurrent_tasks, max_queued)
            stack.callback(constellation._events.end)
            nursery.start_soon(constellation._wait_cancelled)
            for device in config.devices:
                constellation.add_device(device)
            yield constellation
            await constellation._close(drain)
