"""The daemon's task queue: accepts tasks, runs them on a constellation's devices, and loses none when the daemon ends.

A task is on disk before its client is notified that it was accepted, and ``running`` is on disk before the task is sent. A daemon that
starts after a crash therefore knows which tasks have not begun, and which may have run: these become ``lost``. No task begins twice.

`scheduler.py` decides which task goes to which device. A queued task is in the database alone, and is claimed when a device will soon be
free for it (`backlog.py`): then no other daemon takes it. A task that has a slot (`attempts.py`) goes back to its queue if its device
disconnects before the task begins.

Rule 10 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio import NoSuchDevice
from galaxy_trio._counted import counted
from galaxy_trio.daemon.attempts import Attempts
from galaxy_trio.daemon.backlog import Backlog, return_all_claims
from galaxy_trio.daemon.device_states import DeviceStates
from galaxy_trio.daemon.end_waiters import EndWaiters
from galaxy_trio.daemon.refusals import DaemonBusy, Impossible
from galaxy_trio.daemon.scheduler import MAX_QUEUES, Scheduler
from galaxy_trio.daemon.store.events import CANCEL
from galaxy_trio.daemon.store.records import TaskState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence

    from galaxy_trio.daemon.directory import Directory
    from galaxy_trio.daemon.store.records import TaskRecord, TaskRequest
    from galaxy_trio.daemon.store.store import Store

logger: Final = logging.getLogger(__name__)

_RETURN_TIMEOUT: Final = 5.0
"""Maximum seconds to free the claimed tasks when the daemon stops."""
_CANCEL_TIMEOUT: Final = 10.0
"""Maximum seconds to wait for another daemon to cancel a task."""
_CANCEL_INTERVAL: Final = 1.0
"""Seconds after which that daemon is asked again: the task may have moved to another one."""
_RETRY_DELAY: Final = 5.0
"""Seconds to wait before a failed operation of the database is retried."""


class TaskQueue:
    """Accepts tasks and runs them on a constellation. Made by `open_task_queue`.

    Args:
        nursery: Runs the tasks; it is cancelled when the daemon ends.
        store: Stores the tasks.
        life: Names this run of the daemon in its claims; 32 hexadecimal digits.
        directory: The devices.
        max_queued: Tasks that may be queued; further ones are refused.
        max_running: Tasks that may run at the same time on all devices; `None` for as many as there are slots.
        on_change: Called with each task whose state has changed, when the change is on disk. Must not block or raise.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        store: Store,
        life: str,
        directory: Directory,
        max_queued: int,
        max_running: int | None,
        on_change: Callable[[TaskRecord], None],
    ) -> None:
        self._nursery = nursery
        self._store = store
        self._life = life
        self._directory = directory
        self.max_queued = max_queued
        self._on_change = on_change
        store.graphs.on_tasks = self._report_all
        self._scheduler = Scheduler(max_running, is_alone=not store.is_shared)
        self._attempts = Attempts(
            nursery,
            store,
            life,
            lambda: directory.epochs,
            self._scheduler,
            self._record_change,
            self._dispatch,
            _RETRY_DELAY,
        )
        store.graphs.on_cancel = self._attempts.stop
        self._backlog = Backlog(
            store, self._scheduler, directory, life, self._record_change, self._dispatch, _RETRY_DELAY
        )
        self._devices = DeviceStates(self._scheduler, directory, self._attempts.requeue)
        self._waiters = EndWaiters(store)
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
        await self._resumed.wait()
        try:
            self._check_room()
            self._check_device(request)
            self._check_requirement(request)
        except (NoSuchDevice, DaemonBusy, Impossible):
            # A client that submits a task again, because it got no response, must not be refused: its task was accepted.
            known = await self._store.accepted(request)
            if known is None:
                raise
            return known, False
        claimed_by = self._claimer_of(request)
        return await self._store.add(request, partial(self._deliver_added, claimed_by), claimed_by)

    def _claimer_of(self, request: TaskRequest) -> str | None:
        """The life that claims a task with its acceptance: this one, if the task may begin soon."""
        return self._life if self._scheduler.may_claim(request) else None

    def _check_device(self, request: TaskRequest) -> None:
        if request.device is not None and not self._reconfiguring:
            self._directory.check(request.device)

    def _check_requirement(self, request: TaskRequest) -> None:
        if not self._scheduler.has_queue_for(request.requirement):
            raise DaemonBusy(
                f"tasks with {MAX_QUEUES:,} different requirements are queued already, and this one was refused: "
                "use fewer combinations of os and capabilities"
            )
        if not self._reconfiguring and self._directory.is_impossible(request.requirement):
            reason = self._directory.reason_to_fail(request.requirement)
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
        await self.wait_for_room()
        record = await self._store.existing(task_id)
        if record.state.ended:
            self._check_device(record.asked)
            self._check_requirement(record.asked)
        claimed_by = self._claimer_of(record.asked)
        return await self._store.retry(task_id, partial(self._deliver_accepted, claimed_by), claimed_by)

    async def cancel(self, task_id: str) -> TaskRecord:
        """Cancel a task. A queued task never runs; a running one is stopped on its device, and this waits for its end.

        Returns:
            The task after that. It still runs if its end could not be written, or if another daemon runs it and needs more than 10 s. A
            task that had ended is not changed.

        Raises:
            NoSuchTask: There is no such task.
            StoreError: The cancellation could not be written, and the task goes on. After `UnknownOutcome`, it may turn out to be
                cancelled.
        """
        await self._resumed.wait()
        deadline = trio.current_time() + _CANCEL_TIMEOUT
        while True:
            record, _ = await self._store.cancel_queued(task_id, self._record_change)
            await self.cancel_here(task_id)
            if record.state.ended:
                return record
            # It was running. Since then its end may have been written, or that it is queued again.
            record = await self._store.existing(task_id)
            if record.state is TaskState.RUNNING:
                if not self._store.is_shared or trio.current_time() >= deadline:
                    return record
                await self._store.publish([(CANCEL, {"id": task_id})])
                record = await self.wait(task_id, _CANCEL_INTERVAL)
            if record.state.ended:
                return record

    async def cancel_here(self, task_id: str) -> None:
        """Cancel a task that this daemon runs or begins, and wait until its end is written. Does nothing if it does neither."""
        await self._attempts.cancel(task_id)

    async def wait_for_room(self, tasks: int = 1) -> None:
        """Wait until tasks are accepted.

        Raises:
            DaemonBusy: So many more tasks are too many, or the daemon is stopping.
        """
        await self._resumed.wait()
        self._check_room(tasks)

    async def wait(self, task_id: str, seconds: float) -> TaskRecord:
        """Wait for the end of a task, for at most this many seconds.

        Returns:
            The task, ended or not.

        Raises:
            NoSuchTask: There is no such task.
        """
        deadline = trio.current_time() + seconds
        with trio.move_on_at(deadline):
            await self._resumed.wait()
        return await self._waiters.wait(task_id, deadline)

    def _check_room(self, tasks: int = 1) -> None:
        if self.closed:
            raise DaemonBusy("the daemon is stopping: retry when it is running again")
        if tasks and self.queued + tasks > self.max_queued:
            raise DaemonBusy(
                f"the queue is full, with {self.queued:,} of at most {counted(self.max_queued, 'task')}, "
                f"and {'this one was' if tasks == 1 else f'{tasks:,} more were'} refused: retry later"
            )

    async def load(self) -> int:
        """Count the queued tasks: at the start, and whenever changes of other daemons may have been missed.

        Returns:
            The id of the last event before that.

        Raises:
            StoreError: The database failed.
        """
        last_event = await self._store.count_queued(self._scheduler.load)
        self._dispatch()
        return last_event

    def resume(self) -> None:
        """Begin to accept and to run tasks. Call it once, after `load`; clients' requests wait for it."""
        self._resumed.set()
        self.update_devices()

    def _deliver_added(self, claimed_by: str | None, added: tuple[TaskRecord, bool]) -> None:
        record, is_new = added
        if is_new:
            self._deliver_accepted(claimed_by, record)

    def _deliver_accepted(self, claimed_by: str | None, record: TaskRecord) -> None:
        self._scheduler.accept(record, claimed=claimed_by is not None)
        self._on_change(record)
        self._dispatch()

    def _dispatch(self) -> None:
        """Do what the scheduler decides: start tasks, claim queued tasks or give claims back, fail tasks that no device can run."""
        if self.closed or not self.resumed:
            return
        for record, slots in self._scheduler.take():
            self._attempts.start(record, slots, self._devices.device_of(slots))
        to_change, to_fail = self._scheduler.check(may_fail=not self._reconfiguring)
        for queue in to_change:
            self._nursery.start_soon(self._backlog.change_claims, queue)
        for queue in to_fail:
            self._nursery.start_soon(self._backlog.fail_all, queue)

    def _record_change(self, record: TaskRecord) -> None:
        """Notify the scheduler, `on_change` and pending `wait` calls that a task's state has changed on disk."""
        self._count(record)
        self._on_change(record)

    def report(self, *records: TaskRecord) -> None:
        """Record changes of tasks' states that another daemon has written. Report each change once, and in their order.

        Args:
            records: The tasks after the changes. `device` and `started` may be absent while one has not begun, and `request` always.
        """
        for record in records:
            self._count(record)
            if record.state is TaskState.QUEUED:
                self._scheduler.report_free(record)
        self._dispatch()

    def _report_all(self, records: Sequence[TaskRecord]) -> None:
        """Record changes of tasks that this daemon has written for their graph. New ones are free."""
        for record in records:
            self._on_change(record)
        self.report(*records)

    def report_free(self, record: TaskRecord) -> None:
        """Record that another daemon has given its claim of a queued task back."""
        self._scheduler.report_free(record)
        self._dispatch()

    def look_for_free(self) -> None:
        """Try to claim queued tasks that are not claimed here: another daemon has given its claims back, or has ended."""
        self._scheduler.look_for_free()
        self._dispatch()

    def _count(self, record: TaskRecord) -> None:
        """Count a task whose state has changed, and wake those who wait for its end."""
        if record.state is TaskState.QUEUED:
            self._scheduler.requeue(record)
        elif record.state is TaskState.RUNNING:
            self._scheduler.begun(record)
        elif record.started is None and self._attempts.withdraw(record.id):
            self._scheduler.withdraw(record)
        if record.state.ended:
            self._waiters.wake(record.id)

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
        """Begin no more tasks, and wait at most this many seconds for the running ones. Queued tasks are free for other daemons."""
        self.close()
        with trio.move_on_after(seconds):
            await return_all_claims(self._store, self._life)
            await self._attempts.wait_idle()

    def close(self) -> None:
        """Begin no more tasks."""
        self._attempts.close()


@asynccontextmanager
async def open_task_queue(
    store: Store,
    directory: Directory,
    max_queued: int,
    on_change: Callable[[TaskRecord], None],
    *,
    life: str,
    max_running: int | None = None,
) -> AsyncGenerator[TaskQueue]:
    """Accept and run tasks inside the block. Leaving it stops the running tasks, which become ``lost``; see `TaskQueue.drain`."""
    try:
        async with trio.open_nursery() as nursery:
            task_queue = TaskQueue(nursery, store, life, directory, max_queued, max_running, on_change)
            try:
                yield task_queue
            finally:
                task_queue.close()
                nursery.cancel_scope.cancel()
    finally:
        # Those of tasks that were accepted, or went back to their queues, since `drain`.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _RETURN_TIMEOUT):
            await return_all_claims(store, life)
