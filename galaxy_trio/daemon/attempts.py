"""Runs each task that has a slot on a device, and writes its end to disk.

Rule 12 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import logging
import math
import uuid
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio import ConnectionLost, Device, DeviceStatus, GalaxyError, NoSuchDevice, TaskStatus
from galaxy_trio._concurrency import wall_clock
from galaxy_trio.daemon.device_slots import DeviceSlots
from galaxy_trio.daemon.results import encode
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.fleet import NotOwner
from galaxy_trio.daemon.store.graph_ends import NodeStopped
from galaxy_trio.daemon.store.queries import NoSuchTask, WrongState
from galaxy_trio.daemon.store.records import TaskRecord, TaskState, stored_error_if_any
from galaxy_trio.daemon.store.store import UnknownOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from galaxy_trio.daemon.scheduler import Scheduler
    from galaxy_trio.daemon.store.store import Store

logger: Final = logging.getLogger(__name__)

_WRITE_TIMEOUT: Final = 10.0
"""Maximum seconds for a write under a shield."""
_BEGIN_TIMEOUT: Final = 10.0
"""Maximum seconds for a device to begin a task that another device could run as well."""


@attrs.frozen
class _End:
    """The end of a task."""

    state: TaskState
    error: str | None = attrs.field(default=None, converter=stored_error_if_any)
    result: str | None = None


class _NotBegun(Exception):
    """The task has not begun, and goes back to its queue."""


@attrs.define(eq=False)
class _Attempt:
    """One attempt to run a task, in a slot of a device.

    Attributes:
        record: The task when it was taken from its queue.
        slots: The slots of its device.
        device: Its device.
        token: Names the attempt on disk.
        scope: Cancels the attempt.
        beginning: Whether `running` is being written, or has been. From then on the task stays with its device.
        begun: Whether `running` is on disk, or may be, so that the task may have run.
        unsure: Whether `queued` may be on disk instead, because the last change could not be written for certain.
        withdrawn: Whether the task ended on disk before it began.
        released: Whether its slot is free again.
        done: Set when the attempt is over.
    """

    record: TaskRecord
    slots: DeviceSlots
    device: Device
    token: str = attrs.field(factory=lambda: uuid.uuid4().hex)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    beginning: bool = False
    begun: bool = False
    unsure: bool = False
    withdrawn: bool = False
    released: bool = False
    done: trio.Event = attrs.field(factory=trio.Event)


class Attempts:
    """The attempts of all tasks that have a slot on a device.

    Owns a task from `start` until its end is on disk or it is back in its queue, and releases its slot.

    Args:
        nursery: Runs the tasks. When it is cancelled, the running tasks are stopped and become ``lost``.
        store: Each change of a task's state is written to it first.
        life: Has claimed the tasks.
        epochs: Returns the epoch in which this life owns each of its devices.
        scheduler: Gets back the slots, and the tasks that did not begin.
        on_change: Called with each task whose state has changed, when the change is on disk. Must not block or raise.
        on_slot_free: Called when the scheduler may have a task for a slot. Must not block or raise.
        retry_delay: Seconds to wait after a failure of the database.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        store: Store,
        life: str,
        epochs: Callable[[], Mapping[str, int]],
        scheduler: Scheduler,
        on_change: Callable[[TaskRecord], None],
        on_slot_free: Callable[[], None],
        retry_delay: float,
    ) -> None:
        self._nursery = nursery
        self._store = store
        self._life = life
        self._epochs = epochs
        self._scheduler = scheduler
        self._on_change = on_change
        self._on_slot_free = on_slot_free
        self._retry_delay = retry_delay
        # By the task's id. Bounded by the number of slots; each is removed at its end.
        self._attempts: dict[str, _Attempt] = {}
        self._running = 0
        self._closed = False

    @property
    def running(self) -> int:
        """How many tasks are running."""
        return self._running

    @property
    def not_begun(self) -> int:
        """How many tasks have a slot but have not begun."""
        return sum(not attempt.begun for attempt in self._attempts.values())

    @property
    def closed(self) -> bool:
        """Whether no task begins any more."""
        return self._closed

    def start(self, record: TaskRecord, slots: DeviceSlots, device: Device) -> None:
        """Run a task in a slot that the scheduler has assigned to it."""
        attempt = self._attempts[record.id] = _Attempt(record, slots, device)
        self._nursery.start_soon(self._run, attempt)

    def withdraw(self, task_id: str) -> bool:
        """Record that a task ended on disk before it began, and must not go back to its queue.

        Returns:
            Whether it counts as queued. Otherwise it counts as running, because it could not be written that it was queued again.
        """
        attempt = self._attempts.get(task_id)
        if attempt is None:
            return True
        attempt.withdrawn = True
        return not attempt.begun

    async def cancel(self, task_id: str) -> None:
        """Stop a task, if it has a slot, and wait until its end is written."""
        self.stop([task_id])
        attempt = self._attempts.get(task_id)
        if attempt is not None:
            await attempt.done.wait()

    def stop(self, task_ids: Iterable[str]) -> None:
        """Begin to stop the tasks that have a slot."""
        for task_id in task_ids:
            attempt = self._attempts.get(task_id)
            if attempt is not None:
                attempt.scope.cancel()

    def requeue(self, slots: DeviceSlots) -> None:
        """Return the tasks that have a slot of this device but have not begun to their queues."""
        for attempt in self._attempts.values():
            if attempt.slots is slots and not attempt.beginning:
                attempt.scope.cancel()

    def close(self) -> None:
        """Begin no more tasks."""
        self._closed = True

    async def wait_idle(self) -> None:
        """Wait until no task is running or about to run, and the ends of those that were are written, or are retried."""
        while attempt := next((attempt for attempt in self._attempts.values() if attempt.beginning), None):
            await attempt.done.wait()

    async def _run(self, attempt: _Attempt) -> None:
        """Run a task on its device. If it cannot begin, it goes back to its queue."""
        # The outcome if the end of the daemon cancels the task.
        end = _End(TaskState.LOST, "the daemon was stopped while the task was running: it may have run")
        try:
            with attempt.scope:
                end = await self._run_on_device(attempt)
            if attempt.scope.cancelled_caught:
                end = _End(TaskState.CANCELLED)
        except _NotBegun:
            pass
        finally:
            if attempt.begun or attempt.withdrawn or end.state is TaskState.FAILED:
                self._release(attempt)
                if attempt.begun:
                    self._running -= 1
                if attempt.begun or not attempt.withdrawn:
                    await self._write_end(attempt, end)
                del self._attempts[attempt.record.id]
                self._on_slot_free()
            else:
                # Before its slot is free: a younger task must not get it first.
                del self._attempts[attempt.record.id]
                self._scheduler.put_back(attempt.record)
                self._release(attempt)
            attempt.done.set()

    async def _run_on_device(self, attempt: _Attempt) -> _End:
        record = attempt.record
        if record.asked.device is None:
            attempt.scope.deadline = trio.current_time() + _BEGIN_TIMEOUT
        try:
            # Queues hold only the beginning of a long request.
            whole = record.has_whole_request
            request = record.asked.request if whole else await self._store.whole_request(record.id)
            ended = await attempt.device.run_task(
                request,
                priority=record.asked.priority,
                timeout=record.asked.timeout,
                task_id=record.id,
                before_sending=partial(self._begin, attempt),
                on_not_sent=partial(self._write_queued, attempt),
            )
        except (StoreError, NotOwner) as error:
            logger.error("task %s cannot begin: %s; retrying", record.id, error)  # noqa: TRY400  # a sentence, without a traceback
            await trio.sleep(self._retry_delay)
            raise _NotBegun from error
        except (WrongState, NoSuchTask) as error:
            # It has ended, or this life has not claimed it any more.
            attempt.withdrawn = True
            raise _NotBegun from error
        except (GalaxyError, trio.ClosedResourceError) as error:
            return self._end_after_error(attempt, error)
        # The next task does not have to wait until this result is encoded and written.
        self._release(attempt)
        result = await encode(ended.result)
        if ended.status is TaskStatus.COMPLETED:
            return _End(TaskState.COMPLETED, None, result)
        return _End(TaskState.FAILED, ended.error, result)

    def _end_after_error(self, attempt: _Attempt, error: Exception) -> _End:
        """The end of a task whose `run_task` raised an error.

        Raises:
            _NotBegun: The device became unavailable before the task began.
        """
        if attempt.begun:
            is_lost = isinstance(error, ConnectionLost | trio.ClosedResourceError)
            return _End(TaskState.LOST if is_lost else TaskState.FAILED, str(error))
        slots, device = attempt.slots, attempt.device
        if isinstance(error, NoSuchDevice | trio.ClosedResourceError) or device.status is DeviceStatus.FAILED:
            # The device gets no other task before an event reports that it is connected.
            if self._scheduler.devices.get(slots.device_id) is slots:
                usable = device.status is not DeviceStatus.FAILED
                self._scheduler.change_device(slots, attrs.evolve(slots.state, connected=False, usable=usable))
            raise _NotBegun from error
        return _End(TaskState.FAILED, str(error))

    async def _begin(self, attempt: _Attempt, device_id: str) -> None:
        """Write that the task is running, before it is sent. Called again if the connection is lost before it is sent."""
        if attempt.begun:
            await self._confirm(attempt, device_id)
            return
        if self._closed:
            raise _NotBegun
        attempt.beginning = True
        attempt.scope.deadline = math.inf
        try:
            record = await self._begin_on_disk(attempt, device_id)
        except UnknownOutcome as error:
            logger.error("task %s cannot begin: %s; retrying", attempt.record.id, error)  # noqa: TRY400  # a sentence, without a traceback
            # It may be on disk. Then only its attempt can cancel it.
            attempt.unsure = True
            now = wall_clock.now()
            record = attrs.evolve(attempt.record, state=TaskState.RUNNING, device=device_id, started=now)
        except BaseException:
            attempt.beginning = False
            raise
        attempt.begun = True
        self._running += 1
        self._on_change(record)
        await self._confirm(attempt, device_id)

    async def _begin_on_disk(self, attempt: _Attempt, device_id: str) -> TaskRecord:
        epoch = self._epochs().get(device_id)
        return await self._store.begin(attempt.record.id, device_id, attempt.token, self._life, epoch)

    async def _confirm(self, attempt: _Attempt, device_id: str) -> None:
        """Write that the task is running, if it may be queued on disk; retry while the database fails. It must not be sent before."""
        while attempt.unsure:
            try:
                await self._begin_on_disk(attempt, device_id)
                attempt.unsure = False
            except StoreError as error:
                logger.error("task %s cannot continue: %s; retrying", attempt.record.id, error)  # noqa: TRY400  # a sentence, without a traceback
                await trio.sleep(self._retry_delay)

    async def _write_queued(self, attempt: _Attempt, device_id: str) -> None:
        """Write that the task is queued again: its device had left, so the task has not run.

        Raises:
            _NotBegun: The task goes back to its queue.
        """
        record: TaskRecord | None = None
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _WRITE_TIMEOUT):
            try:
                has_graph = attempt.record.graph is not None
                record = await self._store.mark_queued(attempt.record.id, attempt.token, has_graph=has_graph)
            except NodeStopped:
                # It was asked to stop in this moment, or is now: it ends as if it had begun on a device.
                attempt.scope.cancel()
                return
            except (StoreError, WrongState) as error:
                logger.error(  # noqa: TRY400  # a sentence, without a traceback
                    "task %s did not run on %r, but this cannot be written: %s", attempt.record.id, device_id, error
                )
        if record is None:
            # The task stays with its device, for which `run_task` waits.
            attempt.unsure = True
            return
        attempt.begun = attempt.beginning = False
        self._running -= 1
        self._on_change(record)
        raise _NotBegun

    def _release(self, attempt: _Attempt) -> None:
        if not attempt.released:
            attempt.released = True
            self._scheduler.release(attempt.slots)
            self._on_slot_free()

    async def _write_end(self, attempt: _Attempt, end: _End) -> None:
        """Write the end of a task, even when cancelled. If that fails or takes too long, retry in the background."""
        written = False
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _WRITE_TIMEOUT):
            written = await self._try_to_write_end(attempt, end)
        if not written:
            self._nursery.start_soon(self._retry_to_write_end, attempt, end)

    async def _retry_to_write_end(self, attempt: _Attempt, end: _End) -> None:
        while not await self._try_to_write_end(attempt, end):  # noqa: ASYNC110  # a disk sends no event
            await trio.sleep(self._retry_delay)

    async def _try_to_write_end(self, attempt: _Attempt, end: _End) -> bool:
        """Write the end of a task, unless it has ended on disk.

        Returns:
            Whether its end is on disk.
        """
        task_id = attempt.record.id
        try:
            record = await self._store.finish(
                task_id,
                attempt.token,
                self._life,
                end.state,
                error=end.error,
                result=end.result,
                has_graph=attempt.record.graph is not None,
            )
        except StoreError as error:
            logger.error("the end of task %s cannot be written: %s; retrying", task_id, error)  # noqa: TRY400  # a sentence, without a traceback
            return False
        except WrongState:
            # A client cancelled it.
            return True
        self._on_change(record)
        return True
