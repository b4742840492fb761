"""What happens to the devices of a constellation and to their tasks. Events of one device keep their order."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import attrs

from galaxy_trio.events import Event, shortened, shortened_if_any
from galaxy_trio.messages import DeviceInfo


class DeviceStatus(StrEnum):
    """Where a device stands with us."""

    DISCONNECTED = "disconnected"
    """There is no connection; it is not wanted, or the next try is still to come."""
    CONNECTING = "connecting"
    REGISTERING = "registering"
    """The WebSocket is open; the server has still to let us in and to tell what it knows of the device."""
    IDLE = "idle"
    """It is connected, and runs no task."""
    BUSY = "busy"
    """It is connected, and runs tasks."""
    FAILED = "failed"
    """No trying will help; `Device.failure` says why, and `Device.reconnect` tries again."""


CONNECTED = frozenset({DeviceStatus.IDLE, DeviceStatus.BUSY})


class TaskOutcome(StrEnum):
    """How a task that was sent, or waited to be, came to its end here."""

    COMPLETED = "completed"
    FAILED = "failed"
    """It ran, and failed."""
    REJECTED = "rejected"
    """It never ran, for the server refused it."""
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    LOST = "lost"
    """The connection went, and whether it ran is not known."""
    NOT_SENT = "not sent"
    """It never ran, for the device was removed, or could not be reached."""
    UNKNOWN = "unknown"
    """It was abandoned, and its end did not come in time; or its reply was broken."""


@attrs.frozen
class StatusChanged(Event):
    """A device's status is another."""

    status: DeviceStatus
    previous: DeviceStatus


@attrs.frozen
class DeviceConnected(Event):
    """A device is connected."""


@attrs.frozen
class DeviceDisconnected(Event):
    """A try to connect to a device has failed, or its connection has ended.

    Attributes:
        reason: Why, in words.
        next_try: When it is tried again; None if it is not.
    """

    reason: str = attrs.field(converter=shortened)
    next_try: datetime | None


@attrs.frozen
class DeviceNeedsAttention(Event):
    """Somebody should look: the token is not taken, or the name has been registered by another for a minute or more.

    Attributes:
        reason: What the server says.
    """

    reason: str = attrs.field(converter=shortened)


@attrs.frozen
class DeviceFailed(Event):
    """A device is given up until somebody calls `Device.reconnect`.

    Attributes:
        reason: Why, in words.
    """

    reason: str = attrs.field(converter=shortened)


@attrs.frozen
class InformationUpdated(Event):
    """The server has told what it knows of a device."""

    information: DeviceInfo


@attrs.frozen
class TaskEvent(Event):
    """Something happened to a task on a device."""

    task_id: str


@attrs.frozen
class TaskQueued(TaskEvent):
    """It waits for the device, or for its turn. One that goes to another device is queued there again."""


@attrs.frozen
class TaskSubmitted(TaskEvent):
    """It was sent."""


@attrs.frozen
class TaskAcknowledged(TaskEvent):
    """The server has accepted it."""


@attrs.frozen
class TaskAbandoned(TaskEvent):
    """Its caller has gone, and it goes on; the device stays occupied. Its end is still to come."""


@attrs.frozen
class TaskEnded(TaskEvent):
    """It has ended; the last event of a task on a device.

    Attributes:
        outcome: How.
        error: Why not well, in words.
    """

    outcome: TaskOutcome
    error: str | None = attrs.field(default=None, converter=shortened_if_any)
