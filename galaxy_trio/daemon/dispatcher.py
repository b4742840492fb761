"""Tasks that survive: from the disk to a device, and back to the disk.

A task is on disk before anybody is told that it was accepted, and ``running`` is on disk before anything of it leaves. So a daemon
that is killed at any point knows afterwards what has not begun, which runs, and what may have run, which is ``lost``: none is begun twice.

`scheduler.py` says which task goes to which device. A task costs nothing here while it waits: it is on disk, and is read when a device
will soon be free for it. One that has a slot on a device, and has not begun when the device leaves, goes back to its queue.
"""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio import ConnectionLost, Device, DeviceStatus, GalaxyError, NoSuchDevice, TaskStatus
from galaxy_trio.daemon.operations import NoSuchTask, WrongState
from galaxy_trio.daemon.queues import DeviceState, TaskQueue
from galaxy_trio.daemon.records import TaskRecord, TaskState
from galaxy_trio.daemon.results import encode
from galaxy_trio.daemon.scheduler import MAX_QUEUES, DeviceSlots, Scheduler
from galaxy_trio.daemon.schema import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from galaxy_trio import Constellation
    from galaxy_trio.daemon.records import Requirement, TaskRequest
    from galaxy_trio.daemon.store import Store

logger: Final = logging.getLogger(__name__)

_AGAIN: Final = 5.0
"""Seconds to wait before what could not be written is tried again."""
_WRITING: Final = 10.0
"""Seconds that a write may take while nothing can cancel it."""
_PAGE: Final = 256
"""Tasks that are read, or failed, in one transaction: others write between two."""
_BEGIN_WITHIN: Final = 10.0
"""Seconds for a device to begin a task that another one may run as well."""


class DaemonBusy(Exception):
    """Nothing is accepted now; why."""


@attrs.frozen
class _End:
    """How a task ended."""

    state: TaskState
    error: str | None = None
    result: str | None = None


class _NotBegun(Exception):
    """A task has not begun, and goes back to its queue."""


@attrs.define(eq=False)
class _Attempt:
    """A task that has a slot on a device.

    Attributes:
        beginning: Whether it is being written down that it runs: from then on it belongs to its device.
        begun: Whether that is on disk: it may have run.
        withdrawn: Whether it has ended on disk without having begun.
        released: Whether its slot is free again.
        done: Set when all of it is over.
    """

    record: TaskRecord
    slots: DeviceSlots
    device: Device
    scope: trio.CancelScope
    beginning: bool = False
    begun: bool = False
    withdrawn: bool = False
    released: bool = False
    done: trio.Event = attrs.field(factory=trio.Event)


class Dispatcher:
    """Runs the tasks of a store on a constellation. Made by `open_dispatcher`.

    Args:
        nursery: Of the tasks; the end of the daemon cancels it.
        max_queued: Tasks that may wait; one more is refused.
        max_running: Tasks of all devices together at once; `None`: as many as there are slots.
        on_change: Called with each task whose state has changed, when that is on disk. Must not block or raise.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        store: Store,
        constellation: Constellation,
        max_queued: int,
        max_running: int | None,
        on_change: Callable[[TaskRecord], None],
    ) -> None:
        self._nursery = nursery
        self._store = store
        self._constellation = constellation
        self.max_queued = max_queued
        self._on_change = on_change
        self._scheduler = Scheduler(max_running)
        # The devices whose slots the scheduler has, by name.
        self._devices: dict[str, Device] = {}
        # Tasks that have a slot, by id; each leaves when it is over.
        self._attempts: dict[str, _Attempt] = {}
        # One for each call that waits for the end of a task, by the task's id; each leaves with its call.
        self._waiters: dict[str, set[trio.Event]] = {}
        self._running = 0
        self._at_rest = trio.Event()
        self._resumed = trio.Event()
        self._closed = False
        self._rearranging = False

    @property
    def queued(self) -> int:
        """How many tasks wait."""
        return self._scheduler.waiting

    @property
    def running(self) -> int:
        """How many run."""
        return self._running

    @property
    def in_memory(self) -> int:
        """How many tasks that have not begun are in memory."""
        return self._scheduler.in_memory + sum(not attempt.begun for attempt in self._attempts.values())

    @property
    def resumed(self) -> bool:
        """Whether what an earlier daemon has left is known: before that, nothing is accepted."""
        return self._resumed.is_set()

    @property
    def closed(self) -> bool:
        """Whether nothing is begun any more."""
        return self._closed

    def queued_for(self, device_id: str) -> int:
        """How many tasks wait that ask for a device by its name."""
        return self._scheduler.queued_for(device_id)

    # ---- what clients do

    async def submit(self, request: TaskRequest) -> tuple[TaskRecord, bool]:
        """Accept a task; it is on disk when this returns. Cancelling may leave it accepted.

        Returns:
            The task, and whether it is new: the same idempotency key gives the same task.

        Raises:
            NoSuchDevice: There is no device of that name.
            DaemonBusy: Too many wait already, or the daemon is being stopped.
            StoreError: It could not be written; nothing was accepted.
        """
        is_there = request.device is None or request.device in self._constellation.devices
        if not is_there and not self._rearranging:
            raise NoSuchDevice(f"there is no device {request.device!r}")
        await self._resumed.wait()
        self._check_room()
        if not self._scheduler.has_queue_for(request.requirement):
            raise DaemonBusy(
                f"tasks with {MAX_QUEUES:,} different requirements wait already: this one was not taken; "
                "ask for fewer combinations of os and capabilities"
            )
        return await self._store.add(request, self._deliver_added)

    async def retry(self, task_id: str) -> TaskRecord:
        """Run a task that has ended once more, as a new one: the only way in which one runs twice."""
        await self._resumed.wait()
        self._check_room()
        return await self._store.retry(task_id, self._deliver_accepted)

    async def cancel(self, task_id: str) -> TaskRecord:
        """Cancel a task. One that waits will never run; one that runs is stopped on its device, and this waits until it is.

        Returns:
            The task as it is now; what had ended already stays as it was.

        Raises:
            NoSuchTask: There is none of this id.
            StoreError: It could not be written down; the task goes on.
        """
        await self._resumed.wait()
        record, changed = await self._store.cancel_queued(task_id)
        if changed:
            self._changed(record)
        attempt = self._attempts.get(task_id)
        if attempt is None:
            return record
        attempt.scope.cancel()
        await attempt.done.wait()
        return await self._store.get(task_id) or record

    async def wait(self, task_id: str, seconds: float) -> TaskRecord:
        """Wait until a task has ended, if it has not, for so long at most.

        Returns:
            The task as it is then.

        Raises:
            NoSuchTask: There is none of this id.
        """
        ended = trio.Event()
        # From here on no end is missed; one that came before is on disk.
        self._waiters.setdefault(task_id, set()).add(ended)
        try:
            record = await self._get(task_id)
            if record.state.ended or not seconds:
                return record
            with trio.move_on_after(seconds):
                await ended.wait()
        finally:
            self._waiters[task_id].discard(ended)
            if not self._waiters[task_id]:
                del self._waiters[task_id]
        return await self._get(task_id)

    async def _get(self, task_id: str) -> TaskRecord:
        record = await self._store.get(task_id)
        if record is None:
            raise NoSuchTask(f"there is no task {task_id!r:.100}")
        return record

    def _check_room(self) -> None:
        if self._closed:
            raise DaemonBusy("the daemon is being stopped: try again when it is back")
        if self.queued >= self.max_queued:
            raise DaemonBusy(f"{self.max_queued:,} tasks wait already: this one was not taken")

    # ---- from the disk

    async def resume(self) -> None:
        """Begin with what a daemon before this one has left; to be called once. Until then, what clients do waits."""
        lost = await self._store.recover()
        for requirement, count in (await self._store.count_queued()).items():
            self._scheduler.load(requirement, count)
        if lost or self.queued:
            logger.info("from before: %s tasks were running and are lost, %s wait", lost, self.queued)
        self._resumed.set()
        self.look_at_devices()

    def _deliver_added(self, added: tuple[TaskRecord, bool]) -> None:
        record, is_new = added
        if is_new:
            self._deliver_accepted(record)

    def _deliver_accepted(self, record: TaskRecord) -> None:
        self._scheduler.accept(record)
        self._on_change(record)
        self._settle()

    def _settle(self) -> None:
        """Begin what can be begun now, and read what can be begun soon."""
        if self._closed or not self.resumed:
            return
        for record, slots in self._scheduler.take():
            attempt = _Attempt(record, slots, self._devices[slots.device_id], trio.CancelScope())
            self._attempts[record.id] = attempt
            self._nursery.start_soon(self._run, attempt)
        to_read, to_fail = self._scheduler.check(may_fail=not self._rearranging)
        for queue in to_read:
            self._nursery.start_soon(self._read_page, queue)
        for queue in to_fail:
            self._nursery.start_soon(self._fail_all, queue)

    async def _read_page(self, queue: TaskQueue) -> None:
        """Read the next page of a queue, again and again while that fails."""
        limit = min(queue.room - queue.in_memory, _PAGE)

        def deliver(records: list[TaskRecord]) -> None:
            self._scheduler.add_page(queue, records, is_last=len(records) < limit)
            self._settle()

        while True:
            try:
                await self._store.queued(queue.requirement, queue.known_up_to, limit, deliver)
            except StoreError as error:
                logger.error("waiting tasks cannot be read: %s; trying again", error)  # noqa: TRY400  # it says it all
                await trio.sleep(_AGAIN)
            else:
                return

    async def _fail_all(self, queue: TaskQueue) -> None:
        """Fail all tasks of a queue, for there is no device for them, unless there is one again."""

        def deliver(records: list[TaskRecord]) -> None:
            # What is accepted after this is looked at by itself.
            queue.failing = len(records) == _PAGE
            for record in records:
                self._changed(record)

        while queue.failing:
            reason = await self._why_hopeless(queue.requirement) if queue.is_hopeless else None
            if reason is None:
                queue.failing = False
                self._settle()
                return
            try:
                await self._store.fail_queued(queue.requirement, reason, _PAGE, deliver)
            except StoreError as error:
                logger.error("waiting tasks cannot be failed: %s; trying again", error)  # noqa: TRY400  # it says it all
                await trio.sleep(_AGAIN)

    async def _why_hopeless(self, requirement: Requirement) -> str | None:
        """Why there is no device for a task; `None` if there may be one."""
        if requirement.device is not None:
            await trio.lowlevel.checkpoint()
            device = self._constellation.devices.get(requirement.device)
            if device is None:
                return f"there is no device {requirement.device!r} any more"
            return None if device.failure is None else str(device.failure)
        try:
            # It knows what is missing, and says so before it waits for anything.
            with trio.CancelScope() as scope:
                scope.cancel()
                async with self._constellation.reserve(os=requirement.os, capabilities=requirement.capabilities):
                    pass
        except NoSuchDevice as error:
            return str(error)
        return None

    # ---- on a device

    async def _run(self, attempt: _Attempt) -> None:
        """Run a task on the device whose slot it has. If it cannot be begun, it goes back to its queue."""
        # Unless something else becomes of it.
        end = _End(TaskState.LOST, "the daemon was stopped while the task ran: it may have run")
        try:
            with attempt.scope:
                end = await self._outcome(attempt)
            if attempt.scope.cancelled_caught:
                end = _End(TaskState.CANCELLED)
        except _NotBegun:
            pass
        finally:
            self._release(attempt)
            if attempt.begun or (end.state is TaskState.FAILED and not attempt.withdrawn):
                await self._finish_at_once(attempt, end)
            elif not attempt.withdrawn:
                self._scheduler.put_back(attempt.record)
            del self._attempts[attempt.record.id]
            attempt.done.set()
            self._settle()

    def _release(self, attempt: _Attempt) -> None:
        """Its slot is free for the next one: how it ended is written down after that."""
        if attempt.released:
            return
        attempt.released = True
        self._scheduler.release(attempt.slots)
        self._settle()

    async def _outcome(self, attempt: _Attempt) -> _End:
        record = attempt.record
        if record.asked.device is None:
            attempt.scope.deadline = trio.current_time() + _BEGIN_WITHIN
        try:
            ended = await attempt.device.run_task(
                record.asked.request,
                timeout=record.asked.timeout,
                task_id=record.id,
                before_sending=partial(self._begin, attempt),
            )
        except StoreError as error:
            logger.error("task %s cannot be begun: %s; trying again", record.id, error)  # noqa: TRY400  # it says it all
            await trio.sleep(_AGAIN)
            raise _NotBegun from error
        except WrongState as error:
            attempt.withdrawn = True
            raise _NotBegun from error
        except (GalaxyError, trio.ClosedResourceError) as error:
            if attempt.begun:
                is_lost = isinstance(error, ConnectionLost | trio.ClosedResourceError)
                return _End(TaskState.LOST if is_lost else TaskState.FAILED, str(error))
            if self._has_left(attempt, error):
                raise _NotBegun from error
            return _End(TaskState.FAILED, str(error))
        self._release(attempt)
        result = await encode(ended.result)
        if ended.status is TaskStatus.COMPLETED:
            return _End(TaskState.COMPLETED, None, result)
        return _End(TaskState.FAILED, ended.error, result)

    async def _begin(self, attempt: _Attempt, device_id: str) -> None:
        """It is about to be sent; perhaps once more, after a connection that was lost before."""
        if attempt.begun:
            return
        if self._closed:
            raise _NotBegun
        attempt.beginning = True
        attempt.scope.deadline = math.inf
        try:
            record = await self._store.mark_running(attempt.record.id, device_id)
        except BaseException:
            attempt.beginning = False
            raise
        attempt.begun = True
        self._running += 1
        self._changed(record)

    async def _finish_at_once(self, attempt: _Attempt, end: _End) -> None:
        """Write down how it ended, also under cancellation. If that takes too long or fails, it goes on in the background."""
        if attempt.begun:
            self._running -= 1
            if not self._running:
                self._at_rest.set()
                self._at_rest = trio.Event()
        task_id = attempt.record.id
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _WRITING):
            try:
                self._changed(await self._store.finish(task_id, end.state, error=end.error, result=end.result))
            except StoreError as error:
                logger.error("how task %s ended cannot be written: %s; trying again", task_id, error)  # noqa: TRY400
            except WrongState:
                # It was cancelled just now.
                return
            else:
                return
        self._nursery.start_soon(self._finish, task_id, end)

    async def _finish(self, task_id: str, end: _End) -> None:
        """Write down how it ended, again and again while that cannot be written: what has run is not forgotten over a full disk."""
        while True:
            try:
                record = await self._store.finish(task_id, end.state, error=end.error, result=end.result)
            except StoreError as error:
                logger.warning("how task %s ended cannot be written: %s; trying again", task_id, error)
                await trio.sleep(_AGAIN)
            except WrongState:
                # The write that took too long was done after all.
                return
            else:
                self._changed(record)
                return

    def _changed(self, record: TaskRecord) -> None:
        """A task is in another state, on disk."""
        if not record.state.ended:
            self._scheduler.begun(record)
        elif record.started is None:
            attempt = self._attempts.get(record.id)
            if attempt is not None:
                attempt.withdrawn = True
            self._scheduler.withdraw(record)
        self._on_change(record)
        if record.state.ended:
            for ended in self._waiters.get(record.id, ()):
                ended.set()

    # ---- devices

    def look_at_device(self, device_id: str) -> None:
        """Something has happened to a device: it may take tasks now, or not any more."""
        if self._look_at(device_id):
            self._settle()

    def look_at_devices(self) -> None:
        """Something may have happened to any of them."""
        for device_id in {**self._scheduler.devices, **self._constellation.devices}:
            self._look_at(device_id)
        self._scheduler.check_all()
        self._settle()

    def _look_at(self, device_id: str) -> bool:
        """Tell the scheduler how a device is; whether that has changed."""
        device = self._constellation.devices.get(device_id)
        slots = self._scheduler.devices.get(device_id)
        if slots is not None and self._devices[device_id] is not device:
            self._scheduler.remove_device(slots)
            del self._devices[device_id]
            self._call_back(slots)
            slots = None
        if device is None:
            return True
        state = _state_of(device)
        if slots is None:
            self._devices[device_id] = device
            self._scheduler.add_device(device_id, device.config.max_concurrent_tasks, state)
            return True
        if slots.state == state:
            return False
        self._scheduler.change_device(slots, state)
        if not state.connected:
            self._call_back(slots)
        return True

    def _call_back(self, slots: DeviceSlots) -> None:
        """What has not begun on a device that has left goes back to its queue."""
        for attempt in self._attempts.values():
            if attempt.slots is slots and not attempt.beginning:
                attempt.scope.cancel()

    def _has_left(self, attempt: _Attempt, error: Exception) -> bool:
        """Whether a task could not begin because of its device. It gets no other until something happens to it."""
        slots, device = attempt.slots, attempt.device
        is_gone = isinstance(error, NoSuchDevice | trio.ClosedResourceError) or device.status is DeviceStatus.FAILED
        if is_gone and self._scheduler.devices.get(slots.device_id) is slots:
            state = _state_of(device)
            self._scheduler.change_device(slots, attrs.evolve(state, connected=False))
        return is_gone

    @contextmanager
    def rearranging(self) -> Generator[None]:
        """While the block changes which devices there are, no task fails because its device is missing."""
        self._rearranging = True
        try:
            yield
        finally:
            self._rearranging = False
            self.look_at_devices()

    # ---- the end

    async def drain(self, seconds: float) -> None:
        """Begin nothing more, and let what runs come to its end for so long; what waits stays on disk for the next daemon."""
        self.close()
        with trio.move_on_after(seconds):
            while self._running:
                await self._at_rest.wait()

    def close(self) -> None:
        """Begin nothing more."""
        self._closed = True


def _state_of(device: Device) -> DeviceState:
    profile = device.profile
    return DeviceState(
        connected=device.connected,
        usable=device.status is not DeviceStatus.FAILED,
        known=profile.known,
        os=profile.os,
        capabilities=frozenset(profile.capabilities),
    )


@asynccontextmanager
async def open_dispatcher(
    store: Store,
    constellation: Constellation,
    max_queued: int,
    on_change: Callable[[TaskRecord], None],
    *,
    max_running: int | None = None,
) -> AsyncGenerator[Dispatcher]:
    """Run the tasks of a store for the length of the block. What runs at its end is stopped, and is ``lost``: see `Dispatcher.drain`."""
    async with trio.open_nursery() as nursery:
        dispatcher = Dispatcher(nursery, store, constellation, max_queued, max_running, on_change)
        try:
            yield dispatcher
        finally:
            dispatcher.close()
            nursery.cancel_scope.cancel()
