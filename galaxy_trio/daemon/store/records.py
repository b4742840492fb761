"""The daemon's records of tasks, as plain data of limited size."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

import attrs

MAX_EXCERPT: Final = 1_024
"""Bytes of its request and of its error that a task's record holds. Most tasks have no more."""
MAX_ERROR: Final = 2**16
"""Bytes of an error that are stored."""


def stored_error(error: str) -> str:
    """Return an error as it is stored: encodable in UTF-8, and at most `MAX_ERROR` bytes, of which the last say how long it was."""
    # The path of a file in it may contain lone surrogates.
    text = error[: MAX_ERROR + 1].encode("utf-8", "backslashreplace")
    if len(text) <= MAX_ERROR:
        return text.decode()
    note = f"… (the first part of {len(error):,} characters)"
    return text[: MAX_ERROR - len(note.encode())].decode("utf-8", "ignore") + note


def stored_error_if_any(error: str | None) -> str | None:
    """Return an error as `stored_error` does, or None for None."""
    return None if error is None else stored_error(error)


Rank: TypeAlias = tuple[int, int]
"""A place among queued tasks, the smallest first: the negative of a priority, and a number in the order of acceptance."""


class TaskState(StrEnum):
    """The state of a task. The last four are final: a task that has ended never changes again."""

    QUEUED = "queued"
    """It is on disk, and waits for a device."""
    RUNNING = "running"
    """A device was chosen, and the task may have been sent to it."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """It may have run, and its result is unknown: the connection was lost, or the daemon was killed."""

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self not in (TaskState.QUEUED, TaskState.RUNNING)

    @property
    def in_words(self) -> str:
        """The state as the rest of a sentence about a task."""
        match self:
            case TaskState.COMPLETED | TaskState.FAILED:
                return f"has {self.value}"
            case TaskState.CANCELLED | TaskState.LOST:
                return f"was {self.value}"
            case _:
                return f"is {self.value}"


@attrs.frozen(cache_hash=True)
class Requirement:
    """The device that a task requires. Tasks with the same requirement share a queue.

    Attributes:
        device: The name of the device; `None` for any that fits.
        os: The device's operating system; `None` for any.
        capabilities: Capabilities that the device must have.
    """

    device: str | None = None
    os: str | None = None
    capabilities: tuple[str, ...] = ()


@attrs.frozen
class RetryPolicy:
    """How often a task runs again by itself.

    Attributes:
        retries: The maximum number of further attempts after it has failed; 1 or more.
        backoff: The longest wait before the first of them, in seconds; it doubles with each.
        retry_lost: Whether it runs again also after an attempt whose end is unknown.
    """

    retries: int
    backoff: float
    retry_lost: bool


@attrs.frozen
class TaskRequest:
    """A task as a client submits it.

    Attributes:
        request: What to do, in words.
        device: The name of the device that runs it; `None` for any that fits.
        os: The device's operating system; `None` for any.
        capabilities: Capabilities that the device must have.
        timeout: Seconds that the task may run.
        idempotency_key: Chosen by the client: submitting again with the same key returns the same task.
        priority: -100 to 100. Of the tasks that wait, the highest begins first, then the one that was accepted first.
        policy: How often it runs again by itself; `None` for never, and in a task's record.
    """

    request: str
    device: str | None = None
    os: str | None = None
    capabilities: tuple[str, ...] = ()
    timeout: float = 1000.0
    idempotency_key: str | None = None
    priority: int = 0
    policy: RetryPolicy | None = None

    @property
    def requirement(self) -> Requirement:
        """The device that the task requires."""
        return Requirement(self.device, self.os, self.capabilities)


@attrs.frozen
class Departure:
    """A device that was chosen for a task and had left before it ran.

    Attributes:
        device: The device's name.
        chosen: When it was chosen.
        left: When the task went back to its queue.
    """

    device: str
    chosen: datetime
    left: datetime


@attrs.frozen
class TaskRecord:
    """A task as it is on disk, without its result, and with the beginning of its request and error. Times are in UTC.

    Requests and errors are cut to `MAX_EXCERPT` bytes, so that queues, events and pages of tasks take little memory.

    Attributes:
        id: 32 hexadecimal digits.
        asked: The request, cut.
        state: Its state.
        created: When it was accepted.
        device: The device that runs or ran it.
        started: When its device was chosen.
        ended: When its end was recorded.
        error: The reason why it did not complete, cut.
        result_size: The size of its result as JSON, in bytes; `None` without a result.
        retry_of: The id of the task that this one repeats: an earlier attempt of its node, or one that a client has retried.
        number: Its place in the order of acceptance.
        request_size: The size of the whole request, in bytes.
        error_size: The size of the whole error, in bytes; `None` without an error.
        graph: The id of the graph for which it runs; `None` if it belongs to none.
        node: The id of the node of the graph.
    """

    id: str
    asked: TaskRequest
    state: TaskState
    created: datetime
    device: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    error: str | None = None
    result_size: int | None = None
    retry_of: str | None = None
    number: int = 0
    request_size: int = 0
    error_size: int | None = None
    graph: str | None = None
    node: str | None = None

    @property
    def rank(self) -> Rank:
        """Its place among the queued tasks."""
        return -self.asked.priority, self.number

    @property
    def has_whole_request(self) -> bool:
        """Whether the request is not cut."""
        return self.request_size <= MAX_EXCERPT
