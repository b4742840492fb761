"""A task on its way to its end, and what is told of that end."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs
import trio

from galaxy_trio._arguments import check_task_id
from galaxy_trio._concurrency.background import contains_cancelled
from galaxy_trio._connection.backoff import Backoff
from galaxy_trio.errors import ConnectionLost, RequestRejected, RequestTimeout
from galaxy_trio.events import TaskEnded, TaskOutcome

if TYPE_CHECKING:
    from types import TracebackType

    from galaxy_trio.events import Event

OnCancel: TypeAlias = Literal["stop", "abandon"]
"""When its call is cancelled or its time is up, a task is stopped, or goes on and keeps its device occupied."""


BeforeSending: TypeAlias = Callable[[str], Awaitable[None]]
"""Awaited with the device's name when it is there and nothing of the task has left, such as to write down that it may run from now on."""

NotSentCallback: TypeAlias = Callable[[str], Awaitable[None]]
"""Awaited with the device's name when a task for which `BeforeSending` was awaited is known not to have run, before it waits again."""


class NotSent(Exception):
    """A task was not sent, and may be given to another device, or to this one later.

    Attributes:
        wait: Seconds to wait before the next attempt.
    """

    def __init__(self, wait: float) -> None:
        super().__init__(wait)
        self.wait = wait


@attrs.define(eq=False)
class Task:
    """A task on its way to its end.

    Attributes:
        device_id: Where it is, or waits; empty before there is such a device.
        sent: Whether it may have run.
        abandoned: Whether its caller has gone, and its end is told by somebody else.
        backoff: How long it waits when its connection fails to open, on whichever device.
        before_sending: Awaited each time before it leaves.
        on_not_sent: Awaited when it has not run after all.
        prepared: Whether `before_sending` was awaited, and `on_not_sent` not yet.
    """

    request: str
    timeout: float
    on_cancel: OnCancel
    task_id: str
    accepted: Callable[[], None]
    device_id: str = ""
    sent: bool = False
    abandoned: bool = False
    backoff: Backoff | None = None
    before_sending: BeforeSending | None = None
    on_not_sent: NotSentCallback | None = None
    prepared: bool = False

    async def prepare(self) -> None:
        """Await `before_sending`."""
        if self.before_sending is not None:
            await self.before_sending(self.device_id)
            self.prepared = True

    async def was_not_sent(self) -> None:
        """Await `on_not_sent`, if the task was prepared."""
        if self.prepared and self.on_not_sent is not None:
            self.prepared = False
            await self.on_not_sent(self.device_id)


def make_task(
    request: str,
    timeout: float,
    task_id: str | None,
    on_cancel: OnCancel,
    before_sending: BeforeSending | None,
    on_not_sent: NotSentCallback | None,
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
    accepted = partial(task_status.started, task_id)
    return Task(request, timeout, on_cancel, task_id, accepted, before_sending=before_sending, on_not_sent=on_not_sent)


class PublishingEnd:
    """Publishes `TaskEnded` if the block raises. The end of a task that ran to it is published by what ran it."""

    def __init__(self, task: Task, publish: Callable[[Event], None]) -> None:
        self._task = task
        self._publish = publish

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        task = self._task
        if error is not None and task.device_id and not task.abandoned:
            words = str(error) if isinstance(error, Exception) else None
            self._publish(TaskEnded(task.device_id, task.task_id, _outcome_of(error, task), words))


def _outcome_of(error: BaseException, task: Task) -> TaskOutcome:
    if contains_cancelled(error):
        return TaskOutcome.CANCELLED
    match error:
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
