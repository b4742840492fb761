"""A slot on a device, held, and the tasks that run in it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio.backoff import MAXIMUM, STILL_REGISTERED, Backoff, is_still_registered
from galaxy_trio.device_events import (
    TaskAbandoned,
    TaskAcknowledged,
    TaskEnded,
    TaskOutcome,
    TaskSubmitted,
)
from galaxy_trio.endpoint import Endpoint
from galaxy_trio.errors import (
    ConnectFailed,
    ConnectionLost,
    GalaxyError,
    InvalidMessage,
    RegistrationRejected,
    RequestRejected,
    RequestTimeout,
)
from galaxy_trio.events import Event
from galaxy_trio.kept_connection import KeptConnection
from galaxy_trio.messages import TaskStatus
from galaxy_trio.slots import Slots
from galaxy_trio.stops import Stops
from galaxy_trio.task import NotRun, Task, telling_the_end

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio.connection import Connection, SentTask
    from galaxy_trio.messages import TaskResult
    from galaxy_trio.slots import Slot

_FIRST_WAIT: Final = 0.05
"""Seconds to wait when the connection of the task before has not been noticed to be gone: doubled up to that of `backoff.py`."""


@attrs.frozen(eq=False)
class Workplace:
    """What those who hold a slot of a device need of it.

    Attributes:
        total: Limits the tasks of all devices together.
        nursery: For what goes on after a caller has gone; ends with the constellation.
        stops: Ends what runs when the device is let go of.
        pauses: Ends what holds a slot and waits, when the device takes no more tasks.
        wait_ready: Waits until the device is connected; raises why it never will be.
    """

    device_id: str
    kept: KeptConnection
    endpoint: Endpoint
    slots: Slots
    total: trio.CapacityLimiter | None
    nursery: trio.Nursery
    stops: Stops
    pauses: Stops
    publish: Callable[[Event], None]
    wait_ready: Callable[[], Awaitable[None]]


class HeldSlot:
    """A slot on a device, held, and the tasks that run in it, one at a time. It is free when its holder and all of them have let go."""

    def __init__(self, workplace: Workplace, slot: Slot) -> None:
        self._workplace = workplace
        self._slot = slot
        # The block, a task that runs, and each task and check that goes on after it.
        self._holders = 1
        self._running = False
        self.ended: bool = False

    @property
    def device_id(self) -> str:
        """The device whose slot it is."""
        return self._workplace.device_id

    async def run_and_tell(self, task: Task) -> TaskResult:
        """The same as `run`, and its end is told to those who listen."""
        with telling_the_end(task, self._workplace.publish):
            return await self.run(task)

    async def run(self, task: Task) -> TaskResult:
        """Run a task, when the device is there, and again while it is known not to have run."""
        with self._holding(task):
            while True:
                try:
                    return await self._try(task, patient=True)
                except NotRun as not_run:
                    wait = not_run.wait
                await self._pause(wait)

    async def run_here_or_elsewhere(self, task: Task) -> TaskResult:
        """Run a task, if the device is there.

        Raises:
            NotRun: It did not run, and may be given to another device.
            Exception: As for `Device.run_task`.
        """
        with self._holding(task):
            while True:
                try:
                    return await self._try(task, patient=False)
                except NotRun as not_run:
                    if not not_run.soon:
                        raise
                    wait = not_run.wait
                await self._pause(wait)

    async def _pause(self, seconds: float) -> None:
        with self._workplace.pauses.guard():
            await trio.sleep(seconds)

    @contextmanager
    def _holding(self, task: Task) -> Generator[None]:
        """Run one task at a time, and hold the slot for as long, even when the block ends before."""
        if self.ended:
            raise trio.ClosedResourceError(f"the reservation of device {self.device_id!r} has ended")
        if self._running:
            raise trio.BusyResourceError("a reservation runs one task at a time: reserve another slot")
        self._running = True
        self._holders += 1
        task.device_id = self.device_id
        try:
            yield
        finally:
            self._running = False
            self._let_go()

    async def _try(self, task: Task, *, patient: bool) -> TaskResult:
        """Run a task once.

        Args:
            task: Which.
            patient: Whether to wait for a device that is not there.

        Raises:
            NotRun: It did not run, and may be tried again.
            Exception: As for `Device.run_task`.
        """
        stops = self._workplace.stops
        if patient:
            await self._workplace.wait_ready()
        connection = self._workplace.kept.connection
        if connection is None:
            raise NotRun(0)
        try:
            with stops.guard() as scope:
                if task.on_cancel == "stop":
                    result = await self._run_on_own_connection(task)
                else:
                    result = await self._run_on_shared_connection(task, connection, scope)
                self._workplace.publish(_ended(task, result))
                if result.status is not TaskStatus.COMPLETED:
                    self._check_soon()
                return result
        except RequestRejected as rejected:
            with stops.guard():
                if await self._workplace.kept.has_departed(rejected.words):
                    task.sent = False
                    raise NotRun(0) from None
            raise
        except (ConnectionLost, trio.ClosedResourceError):
            if task.sent:
                raise
            # The device was let go of while its connection was being opened.
            raise NotRun(0) from None

    # ---- the two ways

    async def _run_on_own_connection(self, task: Task) -> TaskResult:
        """Closing the connection is what stops a task: when this has returned, the server has been told."""
        workplace = self._workplace
        try:
            async with workplace.endpoint.open(self._slot.number, workplace.kept.forward) as connection:
                sent = await self._send(task, connection)
                try:
                    return await sent.wait(timeout=task.timeout, accepted=partial(self._tell_accepted, task))
                finally:
                    sent.abandon()
        except ConnectFailed as failed:
            raise await self._not_run(task, failed) from None

    async def _not_run(self, task: Task, failed: ConnectFailed) -> NotRun:
        """When it may be tried again; raises what no trying can mend."""
        if is_still_registered(failed):
            # Mostly that of the task before, which the server is about to notice.
            task.refusals += 1
            return NotRun(min(_FIRST_WAIT * 2.0 ** min(task.refusals - 1, 10), STILL_REGISTERED), soon=True)
        wait = self._backoff_of(task).failed(failed)
        if isinstance(failed, RegistrationRejected) and await self._workplace.kept.has_departed(failed.words):
            return NotRun(0)
        return NotRun(wait)

    def _backoff_of(self, task: Task) -> Backoff:
        settings = self._workplace.endpoint.settings
        if task.backoff is None:
            first = settings.reconnect_delay
            task.backoff = Backoff(first=first, maximum=max(MAXIMUM, first), random=settings.random)
        return task.backoff

    async def _run_on_shared_connection(
        self, task: Task, connection: Connection, scope: trio.CancelScope
    ) -> TaskResult:
        """Cheaper, but nothing stops the task: whoever leaves it leaves the device occupied."""
        sent = await self._send(task, connection)
        try:
            return await sent.wait(timeout=task.timeout, accepted=partial(self._tell_accepted, task))
        except trio.ClosedResourceError:
            # Whoever has closed it may have stopped this task in the same step: that tells why.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise _lost(self.device_id) from None
        except (trio.Cancelled, RequestTimeout):
            if not scope.cancel_called:
                self._leave_behind(task, sent)
            raise
        finally:
            if not task.abandoned:
                sent.abandon()

    async def _send(self, task: Task, connection: Connection) -> SentTask:
        if task.before_sending is not None:
            await task.before_sending(self.device_id)
        try:
            sent = await connection.send_task(task.request, timeout=task.timeout, task_id=task.task_id)
        except ConnectionLost as lost:
            raise NotRun(self._backoff_of(task).failed(lost)) from None
        except trio.ClosedResourceError:
            raise NotRun(0) from None
        task.sent = True
        self._workplace.publish(TaskSubmitted(self.device_id, task.task_id))
        return sent

    # ---- what goes on after the caller has gone

    def _leave_behind(self, task: Task, sent: SentTask) -> None:
        task.abandoned = True
        self._holders += 1
        self._workplace.publish(TaskAbandoned(self.device_id, task.task_id))
        self._workplace.nursery.start_soon(self._wait_abandoned, task, sent)

    async def _wait_abandoned(self, task: Task, sent: SentTask) -> None:
        """Keep the device occupied until the task has ended, for a while."""
        timeout = self._workplace.endpoint.settings.abandon_timeout
        ended = partial(TaskEnded, self.device_id, task.task_id)
        end = ended(TaskOutcome.LOST, "the constellation was closed")
        try:
            with trio.move_on_after(timeout) as waiting:
                result = await sent.wait(timeout=math.inf, accepted=_nothing)
                end = _ended(task, result)
                if result.status is not TaskStatus.COMPLETED:
                    self._check_soon()
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
            self._workplace.publish(end)
            self._let_go()

    def _check_soon(self) -> None:
        """A device that has left fails its tasks: the next one waits until that is known, and the caller does not."""
        if self._workplace.stops.closed:
            # Its nursery may have ended, and there is no next one.
            return
        self._holders += 1
        self._workplace.nursery.start_soon(self._check)

    async def _check(self) -> None:
        try:
            await self._workplace.kept.has_departed()
        finally:
            self._let_go()

    # ---- its end

    def end(self) -> None:
        """The block has ended: the slot is free, unless a task goes on in it."""
        self.ended = True
        self._let_go()

    def _let_go(self) -> None:
        self._holders -= 1
        if self._holders:
            return
        if self._workplace.total is not None:
            self._workplace.total.release_on_behalf_of(self)
        self._workplace.slots.release(self._slot)

    # ---- what is told

    def _tell_accepted(self, task: Task) -> None:
        self._workplace.publish(TaskAcknowledged(self.device_id, task.task_id))
        task.accepted()


def _nothing() -> None:
    """Whoever wanted to know has gone."""


def _ended(task: Task, result: TaskResult) -> TaskEnded:
    well = result.status is TaskStatus.COMPLETED
    return TaskEnded(
        task.device_id,
        task.task_id,
        TaskOutcome.COMPLETED if well else TaskOutcome.FAILED,
        None if well else result.error,
    )


def _lost(device_id: str) -> ConnectionLost:
    reason = "this side closed it"
    return ConnectionLost(f"the connection to the server for device {device_id!r} was lost: {reason}", reason=reason)
