"""The daemon's records of tasks, as plain data."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import attrs


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
class TaskRequest:
    """A task as a client submits it.

    Attributes:
        request: What to do, in words.
        device: The name of the device that runs it; `None` for any that fits.
        os: The device's operating system; `None` for any.
        capabilities: Capabilities that the device must have.
        timeout: Seconds that the task may run.
        idempotency_key: Chosen by the client: submitting again with the same key returns the same task.
    """

    request: str
    device: str | None = None
    os: str | None = None
    capabilities: tuple[str, ...] = ()
    timeout: float = 1000.0
    idempotency_key: str | None = None

    @property
    def requirement(self) -> Requirement:
        """The device that the task requires."""
        return Requirement(self.device, self.os, self.capabilities)


@attrs.frozen
class TaskRecord:
    """A task as it is on disk, without its result. Times are in UTC.

    Attributes:
        id: 32 hexadecimal digits.
        asked: The request.
        state: Its state.
        created: When it was accepted.
        device: The device that runs or ran it.
        started: When its device was chosen.
        ended: When its end was recorded.
        error: The reason why it did not complete.
        result_size: The size of its result as JSON, in bytes; `None` without a result.
        retry_of: The id of the task that this one repeats.
        number: Its place in the order of acceptance.
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
