"""One device of a constellation, which is kept connected and runs tasks by priority, then in the order of their submission."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._concurrency import wall_clock
from galaxy_trio._concurrency.cancel_group import CancelGroup
from galaxy_trio.constellation.device_statistics import DeviceStatistics
from galaxy_trio.constellation.pool import ConnectionPool
from galaxy_trio.constellation.profile import DeviceProfile, profile_of
from galaxy_trio.constellation.ranked_queue import Rank, next_rank
from galaxy_trio.constellation.reservation import Reservation
from galaxy_trio.constellation.slots import Lease, Place, Slots, TaskLimit
from galaxy_trio.constellation.status import StatusTracker
from galaxy_trio.constellation.supervisor import Supervisor
from galaxy_trio.constellation.task import BeforeSending, NotSentCallback, OnCancel, PublishingEnd, Task, make_task
from galaxy_trio.constellation.task_runner import TaskRunner, run_task
from galaxy_trio.errors import ConnectionLost, GalaxyError, RequestTimeout, fresh
from galaxy_trio.events import CONNECTED, DeviceStatus, TaskQueued

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from galaxy_trio.constellation.config import DeviceConfig
    from galaxy_trio.constellation.connector import Connector
    from galaxy_trio.events import Event
    from galaxy_trio.messages import DeviceInfo, TaskResult

MAX_QUEUED: Final = 1_000
"""The default number of tasks that may wait for a device."""


class Device:
    """A device of a constellation. Made by `open_constellation` and `Constellation.add_device`.

    The device is kept connected. Tasks wait for it in a queue, by priority and then first in, first out. Any number of tasks may use it.
    """

    def __init__(
        self,
        connector: Connector,
        nursery: trio.Nursery,
        limit: TaskLimit,
        publish: Callable[[Event], None],
        on_change: Callable[[Device], None],
        on_certainty: Callable[[Device], None],
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._config = connector.config
        # Called when the queue, the slots or the status changed. This and the next two must neither block nor raise.
        self._on_change = on_change
        # Called when the device connected, its information arrived, or it was given up or removed.
        self._on_certainty = on_certainty
        self._publish = publish
        self._status = StatusTracker(self._config.device_id, publish)
        self._profile = profile_of(self._config)
        # Whether the supervised connection is up; the status also says whether tasks run.
        self._is_up = False
        self._removed = False
        self._ended = trio.Event()
        self._supervisor = Supervisor(connector, self._status_changed, self._information_received, publish)
        self._slots = Slots(self.device_id, self._config.max_concurrent_tasks, max_queued, limit, self._slots_changed)
        # Tasks that run, and tasks that hold a slot while they wait.
        self._running, self._waiting = CancelGroup(), CancelGroup()
        self._pool = ConnectionPool(connector, nursery, self._supervisor.forward, connector.settings.keepalive_expiry)
        self._runner = TaskRunner(
            supervisor=self._supervisor,
            connector=connector,
            pool=self._pool,
            nursery=nursery,
            running=self._running,
            publish=publish,
        )

    def __repr__(self) -> str:
        return f"<Device {self.device_id!r}, {self.status.value}>"

    @property
    def device_id(self) -> str:
        """The device's id on the server."""
        return self._config.device_id

    @property
    def config(self) -> DeviceConfig:
        """The device's configuration."""
        return self._config

    @property
    def profile(self) -> DeviceProfile:
        """The device's configuration and information together."""
        return self._profile

    @property
    def status(self) -> DeviceStatus:
        """The current status."""
        return self._status.value

    @property
    def connected(self) -> bool:
        """Whether the device could run a task now."""
        return self._status.connected

    @property
    def failure(self) -> GalaxyError | None:
        """The reason for which the device was given up, while its status is `DeviceStatus.FAILED`."""
        return self._supervisor.failure

    @property
    def running(self) -> int:
        """The number of slots in use."""
        return self._slots.taken

    @property
    def queued(self) -> int:
        """The number of tasks and reservations that wait for the device."""
        return self._slots.queued

    def statistics(self) -> DeviceStatistics:
        """Return the current state and the counters of the device."""
        supervisor = self._supervisor
        connection = supervisor.connection
        return DeviceStatistics(
            device_id=self.device_id,
            status=self.status,
            os=self._profile.os,
            capabilities=self._profile.capabilities,
            running=self.running,
            queued=self.queued,
            idle_connections=self._pool.idle,
            connects=supervisor.connects,
            failures=supervisor.failures,
            problem=supervisor.problem,
            next_try=wall_clock.date_at(supervisor.next_try),
            connected_since=None if supervisor.connected_at is None else supervisor.connected_at.isoformat(),
            last_heard=None if connection is None else wall_clock.date_at(connection.last_received),
            connection=None if connection is None else connection.statistics(),
        )

    async def wait_status(self, *statuses: DeviceStatus) -> DeviceStatus:
        """Wait until the status is one of these, even for a moment, and return it. Cancelling is safe.

        Raises:
            trio.ClosedResourceError: The device was removed, or the constellation was closed.
        """
        found = await self._status.wait(*statuses)
        if found is None:
            raise self._removed_error()
        return found

    async def wait_connected(self) -> None:
        """Wait until the device is connected. Cancelling is safe.

        Raises:
            GalaxyError: The device was given up, with the reason.
            trio.ClosedResourceError: The device was removed, or the constellation was closed.
        """
        while not self.connected:
            if await self.wait_status(*CONNECTED, DeviceStatus.FAILED) is DeviceStatus.FAILED and self.failure:
                raise fresh(self.failure)
        await trio.lowlevel.checkpoint()

    async def connect(self) -> None:
        """Connect, stay connected from now on, and wait until the device is connected. Cancelling only ends the wait.

        Raises:
            GalaxyError: The device was given up, with the reason.
            trio.ClosedResourceError: The device was removed, or the constellation was closed.
        """
        await self._connect(now=False)

    async def reconnect(self) -> None:
        """Close the connection and open another one now, without waiting for the next attempt. Otherwise like `connect`.

        Running tasks continue on their own connections, which are not used again. Idle connections are closed.
        """
        await self._connect(now=True)

    async def _connect(self, *, now: bool) -> None:
        if self._removed:
            raise self._removed_error()
        if self.connected and not now:
            await trio.lowlevel.checkpoint()
            return
        self._slots.reopen()
        self._supervisor.connect(now=now)
        await self.wait_connected()

    async def disconnect(self) -> None:
        """Close all connections, and stay disconnected until `connect`. Returns when they are closed; cancelling does not undo it.

        Running tasks are stopped and raise `ConnectionLost`. Queued tasks continue to wait.
        """
        reason = "this side disconnected it"
        if self.connected:
            # Immediately: a task that was given a slot in this step has to wait.
            self._status_changed(DeviceStatus.DISCONNECTED)
        disconnected = self._supervisor.disconnect()
        self._running.stop(lambda: ConnectionLost(f"device {self.device_id!r} was lost: {reason}", reason=reason))
        await self._running.wait_stopped()
        await self._pool.wait_closed()
        await disconnected.wait()

    async def device_info(self, *, timeout: float = 10.0) -> DeviceInfo:
        """Ask the server what it knows about the device, once the device is connected. Cancelling is safe.

        Args:
            timeout: Seconds for the wait and the request together; `math.inf` for no limit.

        Raises:
            RequestTimeout: No reply arrived in time.
            GalaxyError: As for `Connection.device_info`; or the device was given up.
        """
        with trio.move_on_after(timeout):
            while True:
                connection = None
                while connection is None:
                    await self.wait_connected()
                    connection = self._supervisor.connection
                # This side may close the connection to open another one.
                with suppress(trio.ClosedResourceError):
                    return await connection.device_info(timeout=math.inf)
        raise RequestTimeout(f"no information about device {self.device_id!r} within {timeout:g} s")

    async def run_task(
        self,
        request: str,
        *,
        priority: int = 0,
        timeout: float = 1000.0,
        task_id: str | None = None,
        on_cancel: OnCancel = "stop",
        before_sending: BeforeSending | None = None,
        on_not_sent: NotSentCallback | None = None,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> TaskResult:
        """Run a task on the device when its turn comes, and wait for its end.

        The task waits while the device is not connected or all its slots are in use. A running task has a connection to itself:
        **cancelling and the timeout stop the task** by closing that connection, which is closed when the call returns. A task that is
        known not to have run is sent again. A task that may have run is not.

        Args:
            request: The task, in words.
            priority: -100 to 100. Of the tasks that wait, the highest gets the next slot, then the one that was accepted first.
            timeout: Seconds to wait for the end, counted from sending; `math.inf` for no limit.
            task_id: A unique id of at most 64 characters; a fresh uuid if not given.
            on_cancel: With ``"abandon"`` the task is sent on the device's shared connection, which is cheaper. When the call is cancelled
                or times out, the task continues, and the device stays busy until the task has ended, for at most 300 s.
            before_sending: Awaited with the device's id before the task is sent, for example to record that the task may run from now
                on. Awaited again for each attempt. If it raises, the exception is raised here, and nothing was sent.
            on_not_sent: Awaited with the device's id if the task is known not to have run although `before_sending` was awaited, because
                the device had left. Then the task waits again, unless this raises.
            task_status: Receives the task's id when the server has accepted the task.

        Raises:
            QueueFull: Too many tasks wait for the device.
            RequestTimeout: The task did not end in time.
            RequestRejected: The server refused the task although the device is connected. It never ran.
            InvalidMessage: A reply is invalid, or the request contains something that JSON cannot represent.
            MessageTooLarge: The request exceeds the limit. Nothing was sent.
            ConnectionLost: The connection was lost after the task was sent, and whether it ran is unknown. Or `disconnect` was called.
            ConnectFailed: The device was given up, with the reason.
            NoSuchDevice: The device was removed.
            trio.ClosedResourceError: The constellation was closed.
        """
        task = make_task(request, priority, timeout, task_id, on_cancel, before_sending, on_not_sent, task_status)
        with PublishingEnd(task, self._publish):
            lease = Lease(self._slots, await self._enter_queue(task.rank, task).wait())
            try:
                return await run_task(task, partial(self._hold, lease), self._waiting)
            finally:
                lease.release()

    @asynccontextmanager
    async def reserve(self, *, priority: int = 0) -> AsyncGenerator[Reservation]:
        """Wait for a slot, and hold it for the length of the block. Nothing is sent yet.

        Args:
            priority: As for `run_task`.

        Raises:
            QueueFull: Too many tasks wait for the device.
            Exception: As for `run_task`, if the device is given up or removed, or the constellation is closed.
        """
        lease = Lease(self._slots, await self._enter_queue(next_rank(priority)).wait())
        try:
            yield Reservation(self.device_id, lease, self._run_reserved)
        finally:
            lease.end()

    async def _run_reserved(self, task: Task, lease: Lease) -> TaskResult:
        with PublishingEnd(task, self._publish), lease.exclusive():
            task.device_id = self.device_id
            return await run_task(task, partial(self._hold, lease), self._waiting)

    async def _hold(self, lease: Lease) -> tuple[TaskRunner, Lease]:
        """Use the same slot for each attempt, when the device is connected."""
        if not self.connected:
            with self._waiting.guard():
                await self.wait_connected()
        lease.hold()
        return self._runner, lease

    # For the constellation and its scheduler.

    def _enter_queue(self, rank: Rank, task: Task | None = None, *, may_refuse: bool = True) -> Place:
        """Enter the device's queue. The caller makes a `Lease` of the slot, and releases it."""
        had_slot = task is not None and task.had_slot
        place = self._slots.enter(rank, may_refuse=may_refuse and not had_slot)
        if task is not None:
            task.device_id = self.device_id
            self._publish(TaskQueued(self.device_id, task.task_id))
        self._slots_changed()
        return place

    def _has_room(self, promised: int) -> bool:
        """Whether a task would run immediately, also when others have taken some slots."""
        return self._takes_now and self._slots.free > promised and not self._slots.queued

    @property
    def _takes_now(self) -> bool:
        """Whether the device is connected and accepts tasks."""
        return self.connected and self._takes_tasks

    @property
    def _takes_tasks(self) -> bool:
        """Whether the device accepts tasks, now or once it is connected."""
        return not self._removed and not self._slots.closed

    async def _run(self) -> None:
        """Keep the device connected until `_close`."""
        try:
            await self._supervisor.run()
        finally:
            self._ended.set()

    def _stop_accepting(self, why: Callable[[], Exception]) -> None:
        """Refuse all tasks from now on, including those that wait. Running tasks continue."""
        self._removed = True
        # Tasks that may run on any device move to another one before the others are notified.
        self._on_change(self)
        self._slots.close(why)
        self._waiting.close(why)
        self._waiting.stop(why)
        self._status.close()
        self._on_certainty(self)

    def _close(self, why: Callable[[], Exception]) -> None:
        """Stop what runs and close all connections, after `_stop_accepting`."""
        self._running.close(why)
        self._running.stop(why)
        self._pool.close()
        self._supervisor.end()

    async def _wait_closed(self) -> None:
        """Wait until everything is closed, after `_close`."""
        await self._running.wait_stopped()
        await self._pool.wait_closed()
        await self._ended.wait()

    # Called by the supervisor and the slots, in the step in which something happens.

    def _status_changed(self, status: DeviceStatus) -> None:
        self._is_up = status is DeviceStatus.IDLE
        if not self._is_up:
            self._slots.shut_gate()
            # The server or the network may have failed, or the device may reconnect with another token.
            self._pool.expire()
        if status is DeviceStatus.FAILED and self.failure is not None and not self._removed:
            self._slots.close(partial(fresh, self.failure))
        self._set_status(DeviceStatus.BUSY if self._is_up and self._slots.busy else status)
        if self._is_up or status is DeviceStatus.FAILED:
            self._on_certainty(self)
        if self._is_up:
            self._slots.open_gate()  # tasks for any device have their places now
            self._on_change(self)

    def _information_received(self, info: DeviceInfo) -> None:
        self._profile = profile_of(self._config, info)
        self._on_change(self)
        self._on_certainty(self)

    def _slots_changed(self) -> None:
        if self._is_up:
            self._set_status(DeviceStatus.BUSY if self._slots.busy else DeviceStatus.IDLE)
        self._on_change(self)

    def _set_status(self, status: DeviceStatus) -> None:
        if self._status.change(status):
            self._on_change(self)

    def _removed_error(self) -> Exception:
        return trio.ClosedResourceError(f"device {self.device_id!r} was removed, or its constellation was closed")
