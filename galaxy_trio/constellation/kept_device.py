"""What a constellation does with one device: keeps it connected, and lets tasks wait for their turn."""

from __future__ import annotations

import itertools
import math
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._concurrency.cancel_group import Stops
from galaxy_trio.constellation.device_statistics import DeviceStatistics, statistics_of
from galaxy_trio.constellation.pool import ConnectionPool
from galaxy_trio.constellation.profile import DeviceProfile, profile_of
from galaxy_trio.constellation.slots import Lease, Place, Slot, Slots
from galaxy_trio.constellation.status import StatusWaits
from galaxy_trio.constellation.supervisor import KeptConnection
from galaxy_trio.constellation.task import PublishingEnd, Task
from galaxy_trio.constellation.task_runner import TaskRunner, run_task
from galaxy_trio.errors import ConnectionLost, GalaxyError, RequestTimeout, fresh
from galaxy_trio.events import CONNECTED, DeviceStatus, StatusChanged, TaskQueued

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from galaxy_trio.constellation.config import DeviceConfig
    from galaxy_trio.constellation.connector import Endpoint
    from galaxy_trio.events import Event
    from galaxy_trio.messages import DeviceInfo, TaskResult

MAX_QUEUED: Final = 1_000
"""Tasks that may wait for a device."""

# Which came first, also where a clock's ticks are too coarse to tell.
_times = itertools.count(1)


class KeptDevice:
    """A device of a constellation, and all that concerns it; `Device` is what users see of it."""

    def __init__(
        self,
        endpoint: Endpoint,
        nursery: trio.Nursery,
        total: trio.CapacityLimiter | None,
        publish: Callable[[Event], None],
        on_change: Callable[[KeptDevice], None],
        on_certainty: Callable[[KeptDevice], None],
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._config = endpoint.config
        self._on_change = on_change
        self._on_certainty = on_certainty
        self._publish = publish
        self._status = DeviceStatus.DISCONNECTED
        self._profile = profile_of(self._config)
        self._connected = False
        self._idle_since = 0
        self._waits = StatusWaits()
        self._is_gone = False
        self._total = total
        self._ended = trio.Event()
        self._kept = KeptConnection(endpoint, self)
        self._slots = Slots(self._config.device_id, self._config.max_concurrent_tasks, max_queued, self._slots_changed)
        # What runs, and what holds a slot and waits all the same.
        self._stops, self._pauses = Stops(), Stops()
        self._pool = ConnectionPool(endpoint, nursery, self._kept.forward, endpoint.settings.keepalive_expiry)
        self._runner = TaskRunner(
            kept=self._kept,
            endpoint=endpoint,
            pool=self._pool,
            nursery=nursery,
            stops=self._stops,
            publish=publish,
        )

    # ---- what it is

    @property
    def device_id(self) -> str:
        """Its name at the server."""
        return self._config.device_id

    @property
    def config(self) -> DeviceConfig:
        """As it was configured."""
        return self._config

    @property
    def profile(self) -> DeviceProfile:
        """What is known of it."""
        return self._profile

    @property
    def status(self) -> DeviceStatus:
        """Where it stands now."""
        return self._status

    @property
    def connected(self) -> bool:
        """Whether it could run a task now."""
        return self._status in CONNECTED

    @property
    def failure(self) -> GalaxyError | None:
        """Why it was given up, while its status is `DeviceStatus.FAILED`."""
        return self._kept.failure

    @property
    def running(self) -> int:
        """How many of its slots are taken."""
        return self._slots.taken

    @property
    def queued(self) -> int:
        """How many tasks and reservations wait for it."""
        return self._slots.queued

    @property
    def idle_connections(self) -> int:
        """How many connections are kept for its next tasks."""
        return self._pool.idle

    def statistics(self) -> DeviceStatistics:
        """What it is now, and what became of it so far."""
        return statistics_of(self, self._kept)

    # ---- waiting for it

    async def wait_status(self, *statuses: DeviceStatus) -> DeviceStatus:
        """Wait until its status is one of these, however shortly, and return which."""
        await trio.lowlevel.checkpoint()
        if self._status in statuses:
            return self._status
        found = None if self._is_gone else await self._waits.wait(frozenset(statuses))
        if found is None:
            raise self._belongs_nowhere()
        return found

    async def wait_connected(self) -> None:
        """Wait until it is connected."""
        while not self.connected:
            if await self.wait_status(*CONNECTED, DeviceStatus.FAILED) is DeviceStatus.FAILED and self.failure:
                raise fresh(self.failure)
        await trio.lowlevel.checkpoint()

    async def connect(self, *, anew: bool) -> None:
        """Connect, stay connected from now on, and wait until it is.

        Args:
            anew: Close the connection that there is, cut a wait short, forget a failure.
        """
        if self._is_gone:
            raise self._belongs_nowhere()
        if self.connected and not anew:
            await trio.lowlevel.checkpoint()
            return
        self._slots.reopen()
        self._kept.keep(anew=anew)
        await self.wait_connected()

    async def disconnect(self) -> None:
        """Close its connections, and stay away until `connect`."""
        reason = "this side disconnected it"
        if self.connected:
            # At once: who has been given a slot in this step waits.
            self.moved(DeviceStatus.DISCONNECTED)
        at_rest = self._kept.let_go()
        self._stops.stop(lambda: ConnectionLost(f"device {self.device_id!r} was lost: {reason}", reason=reason))
        await self._stops.wait_stopped()
        await self._pool.wait_closed()
        await at_rest.wait()

    # ---- work

    async def device_info(self, timeout: float) -> DeviceInfo:
        """Ask the server what it knows about the device, when it is connected."""
        with trio.move_on_after(timeout):
            while True:
                connection = None
                while connection is None:
                    await self.wait_connected()
                    connection = self._kept.connection
                # This side may let go of it meanwhile, to connect anew.
                with suppress(trio.ClosedResourceError):
                    return await connection.device_info(timeout=math.inf)
        raise RequestTimeout(f"no information about device {self.device_id!r} within {timeout:g} s")

    async def run_task(self, task: Task) -> TaskResult:
        """Run a task when its turn has come."""
        with PublishingEnd(task, self._publish):
            lease = await self.lease(await self.queue(task).wait())
            try:
                return await run_task(task, partial(self._hold, lease), self._pauses)
            finally:
                lease.release()

    async def run_reserved(self, task: Task, lease: Lease) -> TaskResult:
        """Run a task in a slot that is leased already."""
        with PublishingEnd(task, self._publish), lease.exclusive():
            task.device_id = self.device_id
            return await run_task(task, partial(self._hold, lease), self._pauses)

    async def _hold(self, lease: Lease) -> tuple[TaskRunner, Lease]:
        """The same slot for each attempt, when the device is connected."""
        if not self.connected:
            with self._pauses.guard():
                await self.wait_connected()
        lease.hold()
        return self._runner, lease

    @asynccontextmanager
    async def reserve(self) -> AsyncGenerator[Lease]:
        """Wait for a slot, and hold it for the length of the block."""
        lease = await self.lease(await self.queue().wait())
        try:
            yield lease
        finally:
            lease.end()

    def queue(self, task: Task | None = None) -> Place:
        """Take a place in its queue; the slot that comes of it is for `lease`."""
        place = self._slots.enter()
        if task is not None:
            task.device_id = self.device_id
            self._publish(TaskQueued(self.device_id, task.task_id))
        self._slots_changed()
        return place

    async def lease(self, slot: Slot) -> Lease:
        """Hold a slot, once there are not too many tasks on all devices together. The lease is to be released."""
        lease = Lease(self._slots, slot, self._total)
        if self._total is not None:
            try:
                with self._pauses.guard():
                    await self._total.acquire_on_behalf_of(lease)
            except BaseException:
                self._slots.release(slot)
                raise
        return lease

    @property
    def runner(self) -> TaskRunner:
        """What runs its tasks."""
        return self._runner

    # ---- which device a task goes to

    @property
    def load(self) -> tuple[bool, int, int]:
        """The less of it, the sooner it is chosen: idle before busy, then the shortest queue, then the longest idle."""
        return self._slots.taken > 0, self._slots.queued - self._slots.free, self._idle_since

    @property
    def has_room(self) -> bool:
        """Whether a task would run at once."""
        return self.takes_now and self._slots.free > 0 and not self._slots.queued

    @property
    def takes_now(self) -> bool:
        """Whether it is connected, and tasks may be queued for it."""
        return self.connected and self.takes_tasks

    @property
    def takes_tasks(self) -> bool:
        """Whether tasks may be queued for it, now or when it is connected."""
        return not self._is_gone and not self._slots.closed

    async def run(self) -> None:
        """Keep it connected, until `leave` is called."""
        try:
            await self._kept.run()
        finally:
            self._ended.set()

    def take_no_more(self, why: Callable[[], Exception]) -> None:
        """Refuse all tasks from now on, those that wait among them; what runs goes on."""
        self._is_gone = True
        # Those who take any device go elsewhere, before the others are told.
        self._on_change(self)
        self._slots.close(why)
        self._pauses.close(why)
        self._pauses.stop(why)
        self._waits.end()
        self._on_certainty(self)

    async def wait_unoccupied(self) -> None:
        """Wait until nothing runs."""
        await self._slots.wait_all_free()

    def leave(self, why: Callable[[], Exception]) -> None:
        """Stop what runs, and close its connections, after `take_no_more`."""
        self._stops.close(why)
        self._stops.stop(why)
        self._pool.close()
        self._kept.end()

    async def wait_ended(self) -> None:
        """Wait until that is done."""
        await self._stops.wait_stopped()
        await self._pool.wait_closed()
        await self._ended.wait()

    # ---- what becomes of its connection: see `kept_connection.Listener`

    def moved(self, status: DeviceStatus) -> None:
        """Its connection has another state."""
        self._connected = status is DeviceStatus.IDLE
        if self._connected:
            self._idle_since = next(_times)
            self._slots.open_gate()
        else:
            self._slots.shut_gate()
            # Its server or its network may have failed, or it is to connect with a new token.
            self._pool.expire()
        if status is DeviceStatus.FAILED and self.failure is not None and not self._is_gone:
            self._slots.close(partial(fresh, self.failure))
        self._move_to(DeviceStatus.BUSY if self._connected and self._slots.taken else status)
        if self._connected or status is DeviceStatus.FAILED:
            self._on_certainty(self)

    def learned(self, info: DeviceInfo) -> None:
        """The server has told what it knows of it."""
        self._profile = profile_of(self._config, info)
        self._on_change(self)
        self._on_certainty(self)

    def publish(self, event: Event) -> None:
        """Something happened on its connection."""
        self._publish(event)

    def _belongs_nowhere(self) -> Exception:
        return trio.ClosedResourceError(f"device {self.device_id!r} belongs to no constellation any more")

    def _slots_changed(self) -> None:
        if not self._slots.taken and self._status is DeviceStatus.BUSY:
            self._idle_since = next(_times)
        if self._connected:
            self._move_to(DeviceStatus.BUSY if self._slots.taken else DeviceStatus.IDLE)
        self._on_change(self)

    def _move_to(self, status: DeviceStatus) -> None:
        if status is self._status:
            return
        previous, self._status = self._status, status
        self._publish(StatusChanged(self.device_id, status, previous))
        self._waits.tell(status)
        self._on_change(self)
