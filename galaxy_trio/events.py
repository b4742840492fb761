"""Events of connections, devices and tasks, and their bounded fan-out to subscribers.

The events of one device keep their order. Publishing never waits: a subscriber that lags loses its oldest events, and receives
`EventsLost` with their number.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import attrs
import trio

from galaxy_trio._json_size import json_size
from galaxy_trio.messages import DeviceInfo, ServerMessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

BACKLOG: Final = 1_024
"""The default number of events that may wait for a subscriber."""
MAX_INFORMATION: Final = 2**24
"""Bytes of memory of all device information, or ids of edited nodes, in the events that wait for a subscriber. Other events have texts of
limited length."""
MAX_TEXT: Final = 1_000
"""The maximum length of a text in an event, in characters. A peer may send more, and a backlog must not hold it."""


def shortened(text: str) -> str:
    """Cut a text to `MAX_TEXT` characters."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def shortened_if_any(text: str | None) -> str | None:
    """Cut a text to `MAX_TEXT` characters, or return None for None."""
    return None if text is None else shortened(text)


@attrs.frozen
class Event:
    """An event about a device."""

    device_id: str


@attrs.frozen
class ConnectionOpened(Event):
    """The WebSocket handshake succeeded. The registration follows."""


@attrs.frozen
class ConnectionEnded(Event):
    """The connection ended. The last event of its stream.

    Attributes:
        reason: The reason; empty if this side closed it.
        code: The WebSocket close code.
    """

    reason: str = attrs.field(converter=shortened)
    code: int


@attrs.frozen
class ServerErrorReceived(Event):
    """The server sent an error that answers no message of this side.

    Attributes:
        words: The server's text.
    """

    words: str = attrs.field(converter=shortened)


@attrs.frozen
class HeartbeatRefused(Event):
    """The server answered a heartbeat with an error.

    Attributes:
        words: The server's text.
    """

    words: str = attrs.field(converter=shortened)


@attrs.frozen
class InvalidMessageReceived(Event):
    """An invalid message arrived that answers no pending request.

    Attributes:
        problem: The violation of the protocol.
    """

    problem: str = attrs.field(converter=shortened)


@attrs.frozen
class LateReplyReceived(Event):
    """A reply arrived after its request had been cancelled or had timed out.

    Attributes:
        message_type: The reply's type.
        session_id: The session that it names, if any.
    """

    message_type: ServerMessageType
    session_id: str | None = attrs.field(converter=shortened_if_any)


@attrs.frozen
class DuplicateReplyReceived(Event):
    """A second reply arrived for a request that had been answered. The attributes are those of `LateReplyReceived`."""

    message_type: ServerMessageType
    session_id: str | None = attrs.field(converter=shortened_if_any)


@attrs.frozen
class UnknownReplyReceived(Event):
    """A reply arrived that answers no request of this side. The attributes are those of `LateReplyReceived`."""

    message_type: ServerMessageType
    session_id: str | None = attrs.field(converter=shortened_if_any)


class DeviceStatus(StrEnum):
    """The status of a device's connection."""

    DISCONNECTED = "disconnected"
    """Not connected, either because it is not wanted or until the next attempt."""
    CONNECTING = "connecting"
    REGISTERING = "registering"
    """The WebSocket is open. The server has not yet confirmed the registration and sent the device's information."""
    IDLE = "idle"
    """Connected, no task is running."""
    BUSY = "busy"
    """Connected, tasks are running."""
    FAILED = "failed"
    """Given up after a permanent error, which is `Device.failure`. `Device.reconnect` tries again."""


CONNECTED = frozenset({DeviceStatus.IDLE, DeviceStatus.BUSY})


@attrs.frozen
class StatusChanged(Event):
    """A device's status changed."""

    status: DeviceStatus
    previous: DeviceStatus


@attrs.frozen
class DeviceConnected(Event):
    """A device is connected and registered."""


@attrs.frozen
class DeviceDisconnected(Event):
    """An attempt to connect failed, or the connection ended.

    Attributes:
        reason: The reason.
        next_try: The time of the next attempt; None if there is none.
    """

    reason: str = attrs.field(converter=shortened)
    next_try: datetime | None


@attrs.frozen
class DeviceNeedsAttention(Event):
    """An operator should act.

    The token is refused, another client has used this name for a minute or more, or the device reports another operating system than the
    configured one.

    Attributes:
        reason: The server's text, or both systems.
    """

    reason: str = attrs.field(converter=shortened)


@attrs.frozen
class DeviceFailed(Event):
    """A device was given up after a permanent error, until `Device.reconnect` is called.

    Attributes:
        reason: The reason.
    """

    reason: str = attrs.field(converter=shortened)


@attrs.frozen
class InformationUpdated(Event):
    """The server sent a device's information."""

    information: DeviceInfo


class TaskOutcome(StrEnum):
    """The outcome of a task."""

    COMPLETED = "completed"
    FAILED = "failed"
    """It ran and failed."""
    REJECTED = "rejected"
    """The server refused it; it never ran."""
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    LOST = "lost"
    """The connection was lost after the task was sent; whether it ran is unknown."""
    NOT_SENT = "not sent"
    """It never ran, because the device was removed or could not be reached."""
    UNKNOWN = "unknown"
    """An abandoned task that did not end in time, or a task whose reply was invalid."""


@attrs.frozen
class TaskEvent(Event):
    """An event about a task on a device."""

    task_id: str


@attrs.frozen
class TaskQueued(TaskEvent):
    """The task waits for the device. A task that moves to another device is queued there again."""


@attrs.frozen
class TaskSubmitted(TaskEvent):
    """The task was sent."""


@attrs.frozen
class TaskAcknowledged(TaskEvent):
    """The server accepted the task."""


@attrs.frozen
class TaskAbandoned(TaskEvent):
    """The caller was cancelled or timed out, and the task continues. The device stays busy until `TaskEnded`."""


@attrs.frozen
class TaskEnded(TaskEvent):
    """The task ended. The last event of a task on a device.

    Attributes:
        outcome: The outcome.
        error: The reason if it did not complete.
    """

    outcome: TaskOutcome
    error: str | None = attrs.field(default=None, converter=shortened_if_any)


@attrs.frozen
class EventsLost:
    """Events were dropped at this point, because the subscriber lagged too far behind.

    Attributes:
        count: The number of dropped events.
    """

    count: int


E = TypeVar("E")


class EventStream(Generic[E]):
    """The events of one subscription, as an async iterator. It ends when its connection, constellation or graph has ended."""

    def __init__(self, backlog: int) -> None:
        # Each event with its size.
        self._events: deque[tuple[E, int]] = deque()
        self._size = 0
        self._backlog = backlog
        self._lost = 0
        self._ended = False
        self._arrival = trio.lowlevel.ParkingLot()

    def _put_nowait(self, event: E, size: int) -> None:
        """Add an event with its size. If the backlog is full, drop the oldest."""
        while self._events and (len(self._events) >= self._backlog or self._size + size > MAX_INFORMATION):
            self._pop()
            self._lost += 1
        self._events.append((event, size))
        self._size += size
        self._arrival.unpark()

    def _pop(self) -> E:
        event, size = self._events.popleft()
        self._size -= size
        return event

    def _end(self) -> None:
        """End the stream after the events that it holds."""
        self._ended = True
        self._arrival.unpark_all()

    def __aiter__(self) -> EventStream[E]:
        return self

    async def __anext__(self) -> E | EventsLost:
        """Return the next event. Cancelling is safe: no event is lost."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            await self._arrival.park()
        if self._lost:
            lost, self._lost = self._lost, 0
            return EventsLost(lost)
        return self._pop()


def _information_size(event: object) -> int:
    if not isinstance(event, InformationUpdated):
        return 0
    return json_size(attrs.astuple(event.information, recurse=False), MAX_INFORMATION)


class EventFanOut(Generic[E]):
    """Delivers each event to every subscriber without waiting for any.

    Args:
        on_event: Called with each event before the subscribers receive it. It must not block or raise.
        size_of: Counts the bytes of memory of an event that may be large; 0 for others.
    """

    def __init__(
        self, on_event: Callable[[E], None] | None = None, size_of: Callable[[E], int] = _information_size
    ) -> None:
        self._on_event = on_event
        self._size_of = size_of
        self._streams: set[EventStream[E]] = set()
        self._ended = False

    def publish(self, event: E) -> None:
        """Deliver an event to all current subscribers. Never blocks."""
        if self._on_event is not None:
            self._on_event(event)
        if self._streams:
            size = self._size_of(event)
            for stream in self._streams:
                stream._put_nowait(event, size)  # noqa: SLF001  # its own module

    def end(self) -> None:
        """End all streams, including those opened later."""
        self._ended = True
        for stream in self._streams:
            stream._end()  # noqa: SLF001

    @contextmanager
    def subscribe(self, backlog: int = BACKLOG, first: E | None = None) -> Generator[EventStream[E]]:
        """Receive all events from now on, for the length of the block.

        Args:
            backlog: How many events may wait before the oldest is dropped; at least one.
            first: An event that this subscriber receives before all others.

        Raises:
            ValueError: The backlog is less than one.
        """
        if backlog < 1:
            raise ValueError(f"a backlog holds at least one event, and this one {backlog!r}")
        stream = EventStream[E](backlog)
        if first is not None:
            stream._put_nowait(first, 0)  # noqa: SLF001
        if self._ended:
            stream._end()  # noqa: SLF001
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)
            stream._end()  # noqa: SLF001
