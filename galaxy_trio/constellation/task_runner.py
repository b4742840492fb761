"""Runs tasks on a device: attempts until a task is sent, on a connection of the pool or on the shared one."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import trio

from galaxy_trio._connection.backoff import MAXIMUM, Backoff
from galaxy_trio.constellation.slots import Lease
from galaxy_trio.constellation.task import NotSent, Task
from galaxy_trio.errors import (
    ConnectFailed,
    ConnectionLost,
    GalaxyError,
    InvalidMessage,
    RegistrationRejected,
    RequestRejected,
    RequestTimeout,
)
from galaxy_trio.events import TaskAbandoned, TaskAcknowledged, TaskEnded, TaskOutcome, TaskSubmitted
from galaxy_trio.messages import TaskStatus

if TYPE_CHECKING:
    from galaxy_trio._concurrency.cancel_group import CancelGroup
    from galaxy_trio._connection.connection import Connection, SentTask
    from galaxy_trio.constellation.connector import Connector
    from galaxy_trio.constellation.pool import ConnectionPool, PooledConnection
    from galaxy_trio.constellation.supervisor import Supervisor
    from galaxy_trio.events import Event
    from galaxy_trio.messages import TaskResult


class TaskRunner:
    """Runs a device's tasks, each in a slot that its caller holds.

    Args:
        supervisor: Provides the shared connection for tasks that may be abandoned, and finds out whether the device has left.
        connector: Provides the device's id and the settings of its connections.
        pool: The connections for tasks that are stopped when they are cancelled.
        nursery: Runs what continues after a call has ended; ends with the constellation.
        running: Stops running tasks when the device is disconnected or removed.
        publish: Called with each event.
    """

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        connector: Connector,
        pool: ConnectionPool,
        nursery: trio.Nursery,
        running: CancelGroup,
        publish: Callable[[Event], None],
    ) -> None:
        self._device_id = connector.config.device_id
        self._supervisor = supervisor
        self._settings = connector.settings
        self._pool = pool
        self._nursery = nursery
        self._running = running
        self._publish = publish

    async def attempt(self, task: Task, lease: Lease) -> TaskResult:
        """Make one attempt to run a task.

        Raises:
            NotSent: The task was not sent, and another attempt can be made.
            Exception: As for `Device.run_task`.
        """
        shared = self._supervisor.connection
        if shared is None or not self._supervisor.stays_connected:
            # The next attempt may begin in this step, and only the supervisor ends this state.
            await trio.lowlevel.checkpoint()
            raise NotSent(0)
        try:
            with self._running.guard() as scope:
                if task.on_cancel == "stop":
                    result = await self._run_on_pooled_connection(task, lease, scope)
                else:
                    result = await self._run_on_shared_connection(task, lease, shared, scope)
                self._publish(_ended(task, result))
                if result.status is not TaskStatus.COMPLETED:
                    self._check_soon(lease)
                return result
            # The scope was cancelled by its deadline: a stop has raised its reason.
            raise _timed_out(task)
        except RequestRejected as rejected:
            with self._running.guard():
                if await self._supervisor.has_departed(rejected.words):
                    task.sent = False
                    raise NotSent(0) from None
            raise
        except (ConnectionLost, trio.ClosedResourceError):
            if task.sent:
                raise
            # The device was disconnected while a connection for the task was being opened.
            raise NotSent(0) from None

    # On a connection of the pool: closing it stops the task.

    async def _run_on_pooled_connection(self, task: Task, lease: Lease, scope: trio.CancelScope) -> TaskResult:
        """Run a task on a connection of the pool.

        Args:
            task: The task.
            lease: The slot for it.
            scope: The cancel scope around the attempt. Its deadline is set when the task is sent.
        """
        pooled = self._pool.take(lease.slot) or await self._open(task, lease)
        try:
            await task.prepare()
            if not await pooled.is_ready(task.task_id):
                await pooled.abort()
                pooled = await self._open(task, lease)
            sent = await self._send(task, pooled.connection)
            pooled.task_sent()
            # One scope serves both the timeout and a stop.
            scope.deadline = trio.current_time() + task.timeout
            try:
                result = await sent.wait(partial(self._publish_accepted, task))
            finally:
                sent.abandon()
        except Exception:
            scope.deadline = math.inf
            await pooled.aclose()
            raise
        except BaseException:
            await pooled.abort()
            raise
        if not (sent.is_settled and self._pool.put_back(pooled)):
            scope.deadline = math.inf
            await pooled.aclose()
        return result

    async def _open(self, task: Task, lease: Lease) -> PooledConnection:
        try:
            return await self._pool.open(lease.slot)
        except ConnectFailed as failed:
            wait = self._backoff_of(task).failed(failed, now=trio.current_time())
            if isinstance(failed, RegistrationRejected) and await self._supervisor.has_departed(failed.words):
                wait = 0
            raise NotSent(wait) from None

    def _backoff_of(self, task: Task) -> Backoff:
        if task.backoff is None:
            first = self._settings.reconnect_delay
            task.backoff = Backoff(first=first, maximum=max(MAXIMUM, first), random=self._settings.random)
        return task.backoff

    async def _send(self, task: Task, connection: Connection) -> SentTask:
        try:
            sent = await connection._send_task(task.request, timeout=task.timeout, task_id=task.task_id)
        except ConnectionLost as lost:
            raise NotSent(self._backoff_of(task).failed(lost, now=trio.current_time())) from None
        except trio.ClosedResourceError:
            raise NotSent(0) from None
        task.sent = True
        self._publish(TaskSubmitted(self._device_id, task.task_id))
        return sent

    def _publish_accepted(self, task: Task) -> None:
        self._publish(TaskAcknowledged(self._device_id, task.task_id))
        task.accepted()

    # On the shared connection: nothing stops the task there, and an abandoned one keeps the device busy.

    async def _run_on_shared_connection(
        self, task: Task, lease: Lease, connection: Connection, scope: trio.CancelScope
    ) -> TaskResult:
        if self._pool.may_have_session(lease.slot):
            # Two tasks would run in the slot. The server accepts the slot's name again when that session has ended.
            await (await self._open(task, lease)).aclose()
        await task.prepare()
        sent = await self._send(task, connection)
        try:
            with trio.move_on_after(task.timeout):
                return await sent.wait(partial(self._publish_accepted, task))
            raise _timed_out(task)
        except trio.ClosedResourceError:
            # If the task was stopped in the same step, that is the reason.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise _lost(self._device_id) from None
        except (trio.Cancelled, RequestTimeout):
            if not scope.cancel_called:
                self._abandon(task, lease, sent)
            raise
        finally:
            if not task.abandoned:
                sent.abandon()

    def _abandon(self, task: Task, lease: Lease, sent: SentTask) -> None:
        task.abandoned = True
        lease.hold()
        self._publish(TaskAbandoned(self._device_id, task.task_id))
        self._nursery.start_soon(self._wait_abandoned, task, lease, sent)

    async def _wait_abandoned(self, task: Task, lease: Lease, sent: SentTask) -> None:
        """Keep the device busy until the task has ended, for at most `abandon_timeout` seconds."""
        timeout = self._settings.abandon_timeout
        ended = partial(TaskEnded, self._device_id, task.task_id)
        end = ended(TaskOutcome.LOST, "the constellation was closed")
        try:
            with trio.move_on_after(timeout) as waiting:
                result = await sent.wait(_ignore)
                end = _ended(task, result)
                if result.status is not TaskStatus.COMPLETED:
                    self._check_soon(lease)
            if waiting.cancelled_caught:
                end = ended(TaskOutcome.UNKNOWN, f"it did not end within {timeout:g} s")
        except (GalaxyError, trio.ClosedResourceError) as error:
            match error:
                case RequestRejected():
                    outcome = TaskOutcome.REJECTED
                case InvalidMessage():
                    outcome = TaskOutcome.UNKNOWN
                case _:
                    outcome = TaskOutcome.LOST
            end = ended(outcome, str(error))
        finally:
            sent.abandon()
            self._publish(end)
            lease.release()

    # After a failed task: find out whether the device has left.

    def _check_soon(self, lease: Lease) -> None:
        """Find out whether the device has left, without delaying the caller. The slot's next task waits for it."""
        if self._running.closed:
            # The nursery may have ended, and no task follows.
            return
        lease.hold()
        self._nursery.start_soon(self._check, lease)

    async def _check(self, lease: Lease) -> None:
        try:
            await self._supervisor.has_departed()
        finally:
            lease.release()


Acquire: TypeAlias = Callable[[], Awaitable[tuple[TaskRunner, Lease]]]
"""Enters the queue for a slot when it is called, and waits for the slot on a connected device when it is awaited, which must happen in the
same step. The caller must release the lease."""


async def run_task(task: Task, acquire: Acquire, waiting: CancelGroup) -> TaskResult:
    """Run a task: make attempts until it is sent, then wait for its end.

    Args:
        task: The task.
        acquire: Waits for a device and a slot for each attempt. If the task's device had left, the task enters the queue again before its
            slot is free, so that no later task overtakes it.
        waiting: Ends the waits between two attempts.

    Raises:
        Exception: As for `Device.run_task` and `Constellation.run_task`.
    """
    acquiring = acquire()
    while True:
        runner, lease = await acquiring
        try:
            try:
                return await runner.attempt(task, lease)
            except NotSent as not_sent:
                wait = not_sent.wait
            await task.was_not_sent()
            task.had_slot = True
            if not wait:
                acquiring = acquire()
        finally:
            lease.release()
        if wait:
            with waiting.guard():
                await trio.sleep(wait)
            acquiring = acquire()


def _ignore() -> None:
    """Ignore the acceptance: the call has ended."""


def _ended(task: Task, result: TaskResult) -> TaskEnded:
    completed = result.status is TaskStatus.COMPLETED
    return TaskEnded(
        task.device_id,
        task.task_id,
        TaskOutcome.COMPLETED if completed else TaskOutcome.FAILED,
        None if completed else result.error,
    )


def _timed_out(task: Task) -> RequestTimeout:
    return RequestTimeout(f"task {task.task_id!r} did not end on device {task.device_id!r} within {task.timeout:g} s")


def _lost(device_id: str) -> ConnectionLost:
    reason = "this side closed it"
    return ConnectionLost(f"the connection to the server for device {device_id!r} was lost: {reason}", reason=reason)
