"""The daemon's task queue: accepts tasks, runs them on a constellation's devices, and loses none when the daemon ends.

A task is on disk before its client is notified that it was accepted, and ``running`` is on disk before the task is sent. A daemon that
starts after a crash therefore knows which tasks have not begun, and which may have run: these become ``lost``. No task begins twice.

`scheduler.py` decides which task goes to which device. A queued task stays on disk, and is read when a device will soon be free for it
(`backlog.py`). A task that has a slot (`attempts.py`) goes back to its queue if its device disconnects before the task begins.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio import NoSuchDevice
from galaxy_trio._counted import counted
from galaxy_trio._nearest import did_you_mean_or_known
from galaxy_trio.daemon.attempts import Attempts
from galaxy_trio.daemon.backlog import Backlog
from galaxy_trio.daemon.device_states import DeviceStates
from galaxy_trio.daemon.scheduler import MAX_QUEUES, Scheduler
from galaxy_trio.daemon.store.records import TaskState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from galaxy_trio import Constellation
    from galaxy_trio.daemon.store.records import TaskRecord, TaskRequest
    from galaxy_trio.daemon.store.store import Store

logger: Final = logging.getLogger(__name__)

_RETRY_DELAY: Final = 5.0
"""Seconds to wait before a failed operation of the database is retried."""


class DaemonBusy(Exception):
    """The daemon accepts no tasks at the moment; the message gives the reason."""


class Impossible(Exception):
    """No device can ever run a task; the message names what is missing."""


class TaskQueue:
    """Accepts tasks and runs them on a constellation. Made by `open_task_queue`.

    Args:
        nursery: Runs the tasks; it is cancelled when the daemon ends.
        store: Stores the tasks.
        constellation: The devices.
        max_queued: Tasks that may be queued; further ones are refused.
        max_running: Tasks that may run at the same time on all devices; `None` for as many as there are slots.
        on_change: Called with each task whose state has changed, when the change is on disk. Must not block or raise.
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
        self._attempts = Attempts(nursery, store, self._scheduler, self._record_change, self._dispatch, _RETRY_DELAY)
        self._backlog = Backlog(
            store,
            self._scheduler,
            constellation,
            self._attempts.tasks,
            self._record_change,
            self._dispatch,
            _RETRY_DELAY,
        )
        self._devices = DeviceStates(self._scheduler, constellation, self._attempts.requeue)
        # An event for each pending `wait`, by the task's id; the call removes it.
        self._waiters: dict[str, set[trio.Event]] = {}
        self._resumed = trio.Event()
        self._reconfiguring = False

    @property
    def queued(self) -> int:
        """How many tasks are queued."""
        return self._scheduler.queued

    @property
    def running(self) -> int:
        """How many tasks are running."""
        return self._attempts.running

    @property
    def in_memory(self) -> int:
        """How many queued tasks are in memory."""
        return self._scheduler.in_memory + self._attempts.not_begun

    @property
    def resumed(self) -> bool:
        """Whether `resume` has counted the tasks of an earlier daemon; no task is accepted before."""
        return self._resumed.is_set()

    @property
    def closed(self) -> bool:
        """Whether no task begins any more."""
        return self._attempts.closed

    def queued_for(self, device_id: str) -> int:
        """How many queued tasks name a device."""
        return self._scheduler.queued_for(device_id)

    async def submit(self, request: TaskRequest) -> tuple[TaskRecord, bool]:
        """Accept a task; it is on disk when this returns. If this is cancelled, the task may have been accepted.

        Returns:
            The task, and whether it is new: a repeated idempotency key returns the first task.

        Raises:
            NoSuchDevice: There is no such device.
            Impossible: No device can meet the task's requirements.
            IdempotencyConflict: The idempotency key belongs to a task with a different request.
            DaemonBusy: Too many tasks are queued, or the daemon is stopping.
            StoreError: The task could not be written, and was not accepted. After `UnknownOutcome`, it may turn out to be accepted.
        """
        try:
            self._check_device(request)
            await self._resumed.wait()
            self._check_room()
            await self._check_requirement(request)
        except (NoSuchDevice, DaemonBusy, Impossible):
            # A client that submits a task again, because it got no response, must not be refused: its task was accepted.
            known = await self._store.accepted(request)
            if known is None:
                raise
            return known, False
        return await self._store.add(request, self._deliver_added)

    def _check_device(self, request: TaskRequest) -> None:
        name, devices = request.device, self._constellation.devices
        if name is not None and name not in devices and not self._reconfiguring:
            raise NoSuchDevice(f"there is no device {name!r}{did_you_mean_or_known(name, devices)}")

    async def _check_requirement(self, request: TaskRequest) -> None:
        if not self._scheduler.has_queue_for(request.requirement):
            raise DaemonBusy(
                f"tasks with {MAX_QUEUES:,} different requirements are queued already, and this one was refused: "
                "use fewer combinations of os and capabilities"
            )
        if not self._reconfiguring and self._devices.is_impossible(request.requirement):
            reason = await self._backlog.reason_to_fail(request.requirement)
            if reason is not None:
                raise Impossible(reason)

    async def retry(self, task_id: str) -> TaskRecord:
        """Rerun a finished task as a new one.

        Raises:
            NoSuchTask: There is no such task.
            WrongState: It has not ended.
            NoSuchDevice: Its device was removed.
            Impossible: No device can meet its requirements.
            DaemonBusy: Too many tasks are queued, or the daemon is stopping.
            StoreError: The new task could not be written, and was not accepted. After `UnknownOutcome`, it may turn out to be accepted.
        """
        await self._resumed.wait()
        self._check_room()
        record = await self._store.existing(task_id)
        if record.state.ended:
            self._check_device(record.asked)
            await self._check_requirement(record.asked)
        return await self._store.retry(task_id, self._deliver_accepted)

    async def cancel(self, task_id: str) -> TaskRecord:
        """Cancel a task. A queued task never runs; a running one is stopped on its device, and this waits for its end.

        Returns:
            The task after that. A task that had ended is not changed.

        Raises:
            NoSuchTask: There is no such task.
            StoreError: The cancellation could not be written, and the task goes on. After `UnknownOutcome`, it may turn out to be
                cancelled.
        """
        await self._resumed.wait()
        record, _ = await self._store.cancel_queued(task_id, self._record_change)
        await self._attempts.cancel(task_id)
        if record.state.ended:
            return record
        # It was running. Since then its end may have been written, or that it is queued again.
        record = await self._store.existing(task_id)
        return await self.cancel(task_id) if record.state is TaskState.QUEUED else record

    async def wait(self, task_id: str, seconds: float) -> TaskRecord:
        """Wait for the end of a task, for at most this many seconds.

        Returns:
            The task, ended or not.

        Raises:
            NoSuchTask: There is no such task.
        """
        deadline = trio.current_time() + seconds
        # `resume` changes the tasks that an earlier daemon left running to `lost`, and sets no event for it.
        with trio.move_on_at(deadline):
            await self._resumed.wait()
        ended = trio.Event()
        # Registered before the task is read, so that an end in between is not missed.
        self._waiters.setdefault(task_id, set()).add(ended)
        try:
            record = await self._store.existing(task_id)
            if record.state.ended or not seconds:
                return record
            with trio.move_on_at(deadline):
                await ended.wait()
        finally:
            self._waiters[task_id].discard(ended)
            if not self._waiters[task_id]:
                del self._waiters[task_id]
        return await self._store.existing(task_id)

    def _check_room(self) -> None:
        if self.closed:
            raise DaemonBusy("the daemon is stopping: retry when it is running again")
        if self.queued >= self.max_queued:
            raise DaemonBusy(
                f"the queue is full, with {counted(self.max_queued, 'task')}, and this one was refused: retry later"
            )

    async def resume(self) -> None:
        """Take over the tasks that an earlier daemon left. Call it once; clients' requests wait for it.

        Raises:
            StoreError: The database failed.
        """
        lost = await self._backlog.load()
        if lost or self.queued:
            logger.info(
                "an earlier daemon left %s, now lost, and %s",
                counted(lost, "running task"),
                counted(self.queued, "queued task"),
            )
        self._resumed.set()
        self.update_devices()

    def _deliver_added(self, added: tuple[TaskRecord, bool]) -> None:
        record, is_new = added
        if is_new:
            self._deliver_accepted(record)

    def _deliver_accepted(self, record: TaskRecord) -> None:
        self._scheduler.accept(record)
        self._on_change(record)
        self._dispatch()

    def _dispatch(self) -> None:
        """Do what the scheduler decides: start tasks, read pages of queued tasks, fail tasks that no device can run."""
        if self.closed or not self.resumed:
            return
        for record, slots in self._scheduler.take():
            self._attempts.start(record, slots, self._devices.device_of(slots))
        to_read, to_fail = self._scheduler.check(may_fail=not self._reconfiguring)
        for queue in to_read:
            self._nursery.start_soon(self._backlog.read_page, queue)
        for queue in to_fail:
            self._nursery.start_soon(self._backlog.fail_all, queue)

    def _record_change(self, record: TaskRecord) -> None:
        """Notify the scheduler, `on_change` and pending `wait` calls that a task's state has changed on disk."""
        if record.state is TaskState.QUEUED:
            self._scheduler.requeue(record)
        elif record.state is TaskState.RUNNING:
            self._scheduler.begun(record)
        elif record.started is None and self._attempts.withdraw(record.id):
            self._scheduler.withdraw(record)
        self._on_change(record)
        if record.state.ended:
            for ended in self._waiters.get(record.id, ()):
                ended.set()

    def update_device(self, device_id: str) -> None:
        """Update the scheduler after an event of a device."""
        if self._devices.update(device_id):
            self._dispatch()

    def update_devices(self) -> None:
        """Update the scheduler after events of any devices."""
        self._devices.update_all()
        self._scheduler.check_all()
        self._dispatch()

    @contextmanager
    def reconfiguring(self) -> Generator[None]:
        """Let the block add and remove devices; no task fails because its device is missing before the block ends."""
        self._reconfiguring = True
        try:
            yield
        finally:
            self._reconfiguring = False
            self.update_devices()

    async def drain(self, seconds: float) -> None:
        """Begin no more tasks, and wait at most this many seconds for the running ones. Queued tasks stay on disk for the next daemon."""
        self.close()
        with trio.move_on_after(seconds):
            await self._attempts.wait_idle()

    def close(self) -> None:
        """Begin no more tasks."""
        self._attempts.close()


@asynccontextmanager
async def open_task_queue(
    store: Store,
    constellation: Constellation,
    max_queued: int,
    on_change: Callable[[TaskRecord], None],
    *,
    max_running: int | None = None,
) -> AsyncGenerator[TaskQueue]:
    """Accept and run tasks inside the block. Leaving it stops the running tasks, which become ``lost``; see `TaskQueue.drain`."""
    async with trio.open_nursery() as nursery:
        task_queue = TaskQueue(nursery, store, constellation, max_queued, max_running, on_change)
        try:
            yield task_queue
        finally:
            task_queue.close()
            nursery.cancel_scope.cancel()
