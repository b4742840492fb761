"""A task in progress."""

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
from galaxy_trio.constellation.ranked_queue import Rank, next_rank
from galaxy_trio.errors import ConnectionLost, RequestRejected, RequestTimeout
from galaxy_trio.events import TaskEnded, TaskOutcome

if TYPE_CHECKING:
    from types import TracebackType

    from galaxy_trio.events import Event

OnCancel: TypeAlias = Literal["stop", "abandon"]
"""Whether a task is stopped when its call is cancelled or times out, or continues and keeps its device busy."""

BeforeSending: TypeAlias = Callable[[str], Awaitable[None]]
"""Awaited with the device's id before the task is sent, for example to record that the task may run from now on."""

NotSentCallback: TypeAlias = Callable[[str], Awaitable[None]]
"""Awaited with the device's id when a task is known not to have run although `BeforeSending` was awaited, before the task waits again."""


class NotSent(Exception):
    """A task was not sent, and may be sent to another device, or to this one later.

    Attributes:
        wait: Seconds to wait before the next attempt.
    """

    def __init__(self, wait: float) -> None:
        super().__init__(wait)
        self.wait = wait


@attrs.define(eq=False)
class Task:
    """A task in progress.

    Attributes:
        accepted: Called when the server has accepted the task.
        device_id: The device on which the task runs, or for which it waits; empty while no device is chosen.
        sent: Whether the task may have run.
        abandoned: Whether the call has ended while the task continues, so that the task runner publishes the end.
        backoff: The waits after connections that failed to open, on any device.
        before_sending: Awaited before each attempt to send.
        on_not_sent: Awaited when the task has not run although `before_sending` was awaited.
        prepared: Whether `before_sending` was awaited, and `on_not_sent` not yet.
        rank: The place of the task among all calls, which it keeps when it waits again.
        had_slot: Whether it had a slot and was not sent. A full queue does not refuse it.
    """

    request: str
    timeout: float
    on_cancel: OnCancel
    task_id: str
    accepted: Callable[[], None]
    rank: Rank
    device_id: str = ""
    sent: bool = False
    abandoned: bool = False
    backoff: Backoff | None = None
    before_sending: BeforeSending | None = None
    on_not_sent: NotSentCallback | None = None
    prepared: bool = False
    had_slot: bool = False

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
    priority: int,
    timeout: float,
    task_id: str | None,
    on_cancel: OnCancel,
    before_sending: BeforeSending | None,
    on_not_sent: NotSentCallback | None,
    task_status: trio.TaskStatus[str],
) -> Task:
    """Make a task from the arguments of ``run_task``.

    Raises:
        ConfigError: The task id is invalid.
        ValueError: Another argument is invalid.
    """
    if on_cancel not in ("stop", "abandon"):
        raise ValueError(f"on_cancel is 'stop' or 'abandon', not {on_cancel!r}")
    if not timeout >= 0:
        raise ValueError(f"a timeout is a number of seconds or math.inf, not {timeout!r}")
    task_id = str(uuid.uuid4()) if task_id is None else check_task_id(task_id)
    accepted = partial(task_status.started, task_id)
    return Task(
        request,
        timeout,
        on_cancel,
        task_id,
        accepted,
        next_rank(priority),
        before_sending=before_sending,
        on_not_sent=on_not_sent,
    )


class PublishingEnd:
    """Publishes `TaskEnded` if the block raises. The task runner publishes the end of a task that completed or failed."""

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
