"""A slot on a device, held, and the tasks that run in it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs
import trio

from galaxy_trio.backoff import STILL_REGISTERED, Backoff, is_still_registered
from galaxy_trio.connection import check_task_id
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

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio.connection import SentTask
    from galaxy_trio.messages import TaskResult
    from galaxy_trio.slots import Slot

OnCancel: TypeAlias = Literal["stop", "abandon"]
"""What becomes of a task when its call is cancelled or its time is up: it is stopped, or it goes on and keeps its device occupied."""

_FIRST_WAIT: Final = 0.05
"""Seconds to wait when the connection of the task before has not been noticed to be gone: doubled up to that of `backoff.py`."""


class NotRun(Exception):
    """A task did not run, and may be given to another device, or to this one later.

    Attributes:
        error: Why.
        wait: Seconds to wait before it is tried again.
    """

    def __init__(self, error: Exception, wait: float) -> None:
        super().__init__(error, wait)
        self.error = error
        self.wait = wait


@attrs.define(eq=False)
class Task:
    """A task on its way to its end.

    Attributes:
        device_id: Where it is, or waits; empty before there is such a device.
        sent: Whether it may have run.
        abandoned: Whether its caller has gone, and its end is told by somebody else.
    """

    request: str
    timeout: float
    on_cancel: OnCancel
    task_id: str
    accepted: Callable[[], None]
    device_id: str = ""
    sent: bool = False
    abandoned: bool = False


def make_task(
    request: str,
    timeout: float,
    task_id: str | None,
    on_cancel: OnCancel,
    task_status: trio.TaskStatus[str],
) -> Task:
    """A task from the arguments of ``run_task``.

    Raises:
        ConfigError: The task's id cannot be one.
        ValueError: Another argument cannot be right.
    """
    if on_cancel not in ("stop", "abandon"):
        raise ValueError(f"on_cancel is 'stop' or 'abandon', not {on_cancel!r}")
    if not timeout >= 0:
        raise ValueError(f"a timeout is a number of seconds or math.inf, not {timeout!r}")
    task_id = str(uuid.uuid4()) if task_id is None else check_task_id(task_id)
    return Task(request, timeout, on_cancel, task_id, partial(task_status.started, task_id))


@contextmanager
def telling_the_end(task: Task, publish: Callable[[Event], None]) -> Generator[None]:
    """Tell of the task's end what the block comes to; the block tells itself of a task that ran to its end."""
    try:
        yield
    except BaseException as error:
        if task.device_id and not task.abandoned:
            words = str(error) if isinstance(error, Exception) else None
            publish(TaskEnded(task.device_id, task.task_id, _outcome_of(error, task), words))
        raise


def _outcome_of(error: BaseException, task: Task) -> TaskOutcome:
    match error:
        case trio.Cancelled():
            return TaskOutcome.CANCELLED
        case RequestRejected():
            return TaskOutcome.REJECTED
        case _ if not task.sent:
            return TaskOutcome.NOT_SENT
        case RequestTimeout():
            return TaskOutcome.TIMED_OUT
        case ConnectionLost() | trio.ClosedResourceError():
            return TaskOutcome.LOST
        case _:
            return TaskOutcome.UNKNOWN


@attrs.frozen(eq=False)
class Workplace:
    """What the reservations of a device need of it.

    Attributes:
        total: Limits the tasks of all devices together.
        nursery: For what goes on after a caller has gone; ends with the constellation.
        stops: Ends what runs when the device is let go of.
        changed: Called when a slot was taken or given back.
    """

    device_id: str
    kept: KeptConnection
    endpoint: Endpoint
    slots: Slots
    total: trio.CapacityLimiter | None
    nursery: trio.Nursery
    stops: Stops
    publish: Callable[[Event], None]
    changed: Callable[[], None]
    wait_connected: Callable[[], Awaitable[None]]


class Reservation:
    """A slot on a device, held until its block ends. Made by `Device.reserve` and `Constellation.reserve`."""

    def __init__(self, workplace: Workplace, slot: Slot) -> None:
        self._workplace = workplace
        self._slot = slot
        # The block, and each task and check that goes on after it.
        self._holders = 1
        self._ended = False
        self._running = False
        self._refusals = 0
        self._backoff = Backoff(
            first=workplace.endpoint.settings.reconnect_delay, random=workplace.endpoint.settings.random
        )

    def __repr__(self) -> str:
        return f"<Reservation of device {self.device_id!r}{', ended' if self._ended else ''}>"

    @property
    def device_id(self) -> str:
        """The device whose slot it is."""
        return self._workplace.device_id

    async def run_task(
        self,
        request: str,
        *,
        timeout: float = 1000.0,
        task_id: str | None = None,
        on_cancel: OnCancel = "stop",
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> TaskResult:
        """Run a task in this slot; arguments, result and errors are those of `Device.run_task`. One at a time.

        Raises:
            trio.BusyResourceError: Another task runs in it.
            trio.ClosedResourceError: The block of the reservation has ended.
        """
        task = make_task(request, timeout, task_id, on_cancel, task_status)
        with telling_the_end(task, self._workplace.publish):
            return await self.run(task)

    async def run(self, task: Task) -> TaskResult:
        """Run a task, when the device is there, and again while it is known not to have run."""
        while True:
            try:
                return await self.attempt(task)
            except NotRun as not_run:
                wait = not_run.wait
            with self._workplace.stops.guard():
                await trio.sleep(wait)

    async def attempt(self, task: Task, *, patient: bool = True) -> TaskResult:
        """Run a task once.

        Args:
            task: Which.
            patient: Whether to wait for a device that is not there.

        Raises:
            NotRun: It did not run, and may be tried again.
            Exception: As for `run_task`.
        """
        if self._ended:
            raise trio.ClosedResourceError(f"the reservation of device {self.device_id!r} has ended")
        if self._running:
            raise trio.BusyResourceError("a reservation runs one task at a time: reserve another slot")
        self._running = True
        task.device_id = self.device_id
        try:
            with self._workplace.stops.guard() as scope:
                if patient:
                    await self._workplace.wait_connected()
                if task.on_cancel == "stop":
                    result = await self._run_on_own_connection(task)
                else:
                    result = await self._run_on_shared_connection(task, scope)
                self._tell_result(task, result)
                if result.status is not TaskStatus.COMPLETED:
                    self._check_soon()
                return result
        except RequestRejected as rejected:
            with self._workplace.stops.guard():
                if await self._workplace.kept.has_departed(rejected.words):
                    raise NotRun(rejected, 0) from None
            raise
        finally:
            self._running = False

    # ---- the two ways

    async def _run_on_own_connection(self, task: Task) -> TaskResult:
        """Closing the connection is what stops a task: when this has returned, the server has been told."""
        workplace = self._workplace
        if workplace.kept.connection is None:
            raise _not_connected(self.device_id)
        try:
            async with workplace.endpoint.open(self._slot.number, workplace.kept.forward) as connection:
                sent = await connection.send_task(task.request, timeout=task.timeout, task_id=task.task_id)
                self._tell_sent(task)
                try:
                    return await sent.wait(timeout=task.timeout, accepted=partial(self._tell_accepted, task))
                finally:
                    sent.abandon()
        except ConnectFailed as failed:
            raise NotRun(failed, await self._wait_after(failed)) from None

    async def _wait_after(self, failed: ConnectFailed) -> float:
        """Seconds to wait; raises what no trying can mend."""
        if is_still_registered(failed):
            # Mostly that of the task before, which the server is about to notice.
            self._refusals += 1
            return min(_FIRST_WAIT * 2.0 ** min(self._refusals - 1, 10), STILL_REGISTERED)
        wait = self._backoff.failed(failed)
        if isinstance(failed, RegistrationRejected) and await self._workplace.kept.has_departed(failed.words):
            return 0
        return wait

    async def _run_on_shared_connection(self, task: Task, scope: trio.CancelScope) -> TaskResult:
        """Cheaper, but nothing stops the task: whoever leaves it leaves the device occupied."""
        connection = self._workplace.kept.connection
        if connection is None or connection.closed:
            raise _not_connected(self.device_id)
        try:
            sent = await connection.send_task(task.request, timeout=task.timeout, task_id=task.task_id)
        except (ConnectionLost, trio.ClosedResourceError) as lost:
            raise NotRun(lost, 0) from None
        self._tell_sent(task)
        try:
            return await sent.wait(timeout=task.timeout, accepted=partial(self._tell_accepted, task))
        except trio.ClosedResourceError:
            raise _lost(self.device_id) from None
        except (trio.Cancelled, RequestTimeout):
            if not scope.cancel_called:
                self._leave_behind(task, sent)
            raise
        finally:
            if not task.abandoned:
                sent.abandon()

    # ---- what goes on after the caller has gone

    def _leave_behind(self, task: Task, sent: SentTask) -> None:
        task.abandoned = True
        self._holders += 1
        self._workplace.publish(TaskAbandoned(self.device_id, task.task_id))
        self._workplace.nursery.start_soon(self._wait_abandoned, task, sent)

    async def _wait_abandoned(self, task: Task, sent: SentTask) -> None:
        """Keep the device occupied until the task has ended, for a while."""
        timeout = self._workplace.endpoint.settings.abandon_timeout
        ended = TaskEnded(self.device_id, task.task_id, TaskOutcome.UNKNOWN, f"it did not end within {timeout:g} s")
        try:
            with trio.move_on_after(timeout):
                result = await sent.wait(timeout=math.inf, accepted=lambda: None)
                ended = _ended(task, result)
        except (GalaxyError, trio.ClosedResourceError) as error:
            outcome = TaskOutcome.UNKNOWN if isinstance(error, InvalidMessage) else TaskOutcome.LOST
            outcome = TaskOutcome.REJECTED if isinstance(error, RequestRejected) else outcome
            ended = TaskEnded(self.device_id, task.task_id, outcome, str(error))
        finally:
            sent.abandon()
            self._workplace.publish(ended)
            self._let_go()

    def _check_soon(self) -> None:
        """A device that has left fails its tasks: the next one waits until that is known, and the caller does not."""
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
        self._ended = True
        self._let_go()

    def _let_go(self) -> None:
        self._holders -= 1
        if self._holders:
            return
        if self._workplace.total is not None:
            self._workplace.total.release_on_behalf_of(self)
        self._workplace.slots.release(self._slot)
        self._workplace.changed()

    # ---- what is told

    def _tell_sent(self, task: Task) -> None:
        task.sent = True
        self._workplace.publish(TaskSubmitted(self.device_id, task.task_id))

    def _tell_accepted(self, task: Task) -> None:
        self._workplace.publish(TaskAcknowledged(self.device_id, task.task_id))
        task.accepted()

    def _tell_result(self, task: Task, result: TaskResult) -> None:
        self._workplace.publish(_ended(task, result))


def _ended(task: Task, result: TaskResult) -> TaskEnded:
    well = result.status is TaskStatus.COMPLETED
    return TaskEnded(
        task.device_id,
        task.task_id,
        TaskOutcome.COMPLETED if well else TaskOutcome.FAILED,
        None if well else result.error,
    )


def _not_connected(device_id: str) -> NotRun:
    return NotRun(ConnectionLost(f"device {device_id!r} is not connected"), 0)


def _lost(device_id: str) -> ConnectionLost:
    reason = "this side closed it"
    return ConnectionLost(f"the connection to the server for device {device_id!r} was lost: {reason}", reason=reason)
