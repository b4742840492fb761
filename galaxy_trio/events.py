"""What happens on a connection without being asked for, and its bounded fan-out to whoever wants to know.

Nobody waits for a subscriber: one that lags loses the oldest events, and is told how many.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio.messages import ServerMessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

BACKLOG: Final = 1_024
"""How many events a subscriber may lag behind before it loses the oldest."""
MAX_TEXT: Final = 1_000
"""Characters of a text in an event: a peer may say more, and a backlog must not hold it."""


def shortened(text: str) -> str:
    """A text of an event: its beginning, if it is long."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def shortened_if_any(text: str | None) -> str | None:
    """The same, or None."""
    return None if text is None else shortened(text)


@attrs.frozen
class Event:
    """Something happened that concerns a device."""

    device_id: str


@attrs.frozen
class ServerErrorReceived(Event):
    """The server sent an error that answers nothing that was asked.

    Attributes:
        words: What the server said.
    """

    words: str = attrs.field(converter=shortened)


@attrs.frozen
class HeartbeatRefused(Event):
    """The server answered a heartbeat with an error.

    Attributes:
        words: What the server said.
    """

    words: str = attrs.field(converter=shortened)


@attrs.frozen
class InvalidMessageReceived(Event):
    """A broken message came that is no reply to anything that waits.

    Attributes:
        problem: What was wrong with it.
    """

    problem: str = attrs.field(converter=shortened)


@attrs.frozen
class LateReplyReceived(Event):
    """A reply came to a request that was given up.

    Attributes:
        message_type: What it was.
        session_id: The session that it names, where it does.
    """

    message_type: ServerMessageType
    session_id: str | None = attrs.field(converter=shortened_if_any)


@attrs.frozen
class DuplicateReplyReceived(Event):
    """A reply came to a request that had been answered; its attributes are those of `LateReplyReceived`."""

    message_type: ServerMessageType
    session_id: str | None = attrs.field(converter=shortened_if_any)


@attrs.frozen
class UnknownReplyReceived(Event):
    """A message came that answers nothing that was asked; its attributes are those of `LateReplyReceived`."""

    message_type: ServerMessageType
    session_id: str | None = attrs.field(converter=shortened_if_any)


@attrs.frozen
class ConnectionOpened(Event):
    """The WebSocket is open; the registration is still to come."""


@attrs.frozen
class ConnectionEnded(Event):
    """The connection ended; the last event of its stream.

    Attributes:
        reason: Why, in words; empty when it was closed by this side.
        code: The WebSocket close code.
    """

    reason: str = attrs.field(converter=shortened)
    code: int


@attrs.frozen
class EventsLost:
    """The subscriber lagged so far behind that events were dropped in this place.

    Attributes:
        count: How many.
    """

    count: int


class EventStream:
    """The events of one subscription: iterate over it. It ends when what it tells of has ended."""

    def __init__(self, backlog: int) -> None:
        self._events: deque[Event] = deque()
        self._backlog = backlog
        self._lost = 0
        self._ended = False
        self._arrival = trio.lowlevel.ParkingLot()

    def _put_nowait(self, event: Event) -> None:
        """Add an event; if the backlog is full, the oldest is lost instead."""
        if len(self._events) >= self._backlog:
            self._events.popleft()
            self._lost += 1
        self._events.append(event)
        self._arrival.unpark()

    def _end(self) -> None:
        """No more events will come; those that are there can still be received."""
        self._ended = True
        self._arrival.unpark_all()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event | EventsLost:
        """The next event. Cancelling loses none."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            await self._arrival.park()
        if self._lost:
            lost, self._lost = self._lost, 0
            return EventsLost(lost)
        return self._events.popleft()


class EventFanOut:
    """Gives each event to every subscriber, and waits for none.

    Args:
        on_event: Called with each event first; must neither block nor raise.
    """

    def __init__(self, on_event: Callable[[Event], None] | None = None) -> None:
        self._on_event = on_event
        self._streams: set[EventStream] = set()
        self._ended = False

    def publish(self, event: Event) -> None:
        """Give an event to all who subscribe now. Never blocks."""
        if self._on_event is not None:
            self._on_event(event)
        for stream in self._streams:
            stream._put_nowait(event)  # noqa: SLF001  # its own module

    def end(self) -> None:
        """End all streams, and those opened later."""
        self._ended = True
        for stream in self._streams:
            stream._end()  # noqa: SLF001

    @contextmanager
    def subscribe(self, backlog: int = BACKLOG) -> Generator[EventStream]:
        """Receive the events from now on, for the length of the block.

        Args:
            backlog: How many events may wait here before the oldest is lost; at least one.

        Raises:
            ValueError: The backlog is none.
        """
        if backlog < 1:
            raise ValueError(f"a backlog holds at least one event, and this one {backlog!r}")
        stream = EventStream(backlog)
        if self._ended:
            stream._end()  # noqa: SLF001
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)
            stream._end()  # noqa: SLF001
