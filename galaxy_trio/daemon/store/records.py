"""What the daemon keeps of a task."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import attrs


class TaskState(StrEnum):
    """How far a task is. The last four are ends: what has ended never changes again."""

    QUEUED = "queued"
    """It is on disk, and waits for a device."""
    RUNNING = "running"
    """It has a device, and may have reached it."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """It may have run, and nobody will ever know: the connection broke, or the daemon was killed."""

    @property
    def ended(self) -> bool:
        """Whether this is an end."""
        return self not in (TaskState.QUEUED, TaskState.RUNNING)


@attrs.frozen(cache_hash=True)
class Requirement:
    """What a task needs of a device. Tasks that need the same wait in the same queue.

    Attributes:
        device: The device that has to run it; `None`: any that fits.
        os: What the device has to run; `None`: anything.
        capabilities: What it has to be able to do.
    """

    device: str | None = None
    os: str | None = None
    capabilities: tuple[str, ...] = ()


@attrs.frozen
class TaskRequest:
    """What a client asks for.

    Attributes:
        request: What to do, for people and agents to read.
        device: On which device; `None`: on any that fits.
        os: What the device has to run; `None`: anything.
        capabilities: What it has to be able to do.
        timeout: Seconds that it may run.
        idempotency_key: Of the client: what is submitted again with the same key is the same task.
    """

    request: str
    device: str | None = None
    os: str | None = None
    capabilities: tuple[str, ...] = ()
    timeout: float = 1000.0
    idempotency_key: str | None = None

    @property
    def requirement(self) -> Requirement:
        """What it needs of a device."""
        return Requirement(self.device, self.os, self.capabilities)


@attrs.frozen
class TaskRecord:
    """A task as it is on disk, without its result.

    Attributes:
        id: 32 hexadecimal digits.
        device: On which it runs or ran.
        created: When it was accepted, in UTC; so are the other two.
        started: When it got its device.
        ended: When its end was known.
        error: Why it did not complete.
        result_size: Bytes of its result as JSON; `None` if it has none.
        retry_of: The task that this one repeats.
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
