"""The events of `GET /events`, as server-sent events that a client can resume after a disconnect."""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Callable, Mapping  # attrs reads annotations at run time
from typing import TYPE_CHECKING, Final

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_HISTORY: Final = 10_000
"""Events that are kept for clients that resume."""
_MAX_LAG: Final = 1_000
"""Events that may be pending for a listener; a listener with more is dropped."""
_MAX_DIGITS: Final = 16
"""The number in an id has fewer digits than this."""
_KEEPALIVE: Final = 15.0
"""Seconds without an event after which a comment is sent, so that clients notice a dead connection."""


@attrs.define(eq=False)
class ServerSentEvent:
    """An event.

    Attributes:
        number: Counts from 1 in each run of the daemon.
        id: The event's id: the run and the number.
        kind: The event's name.
        data: Returns the event's data. It is called only when a listener needs it, and must return the same at any time.
    """

    number: int
    id: str
    kind: str
    data: Callable[[], Mapping[str, object]]
    _text: bytes | None = attrs.field(default=None, init=False)

    @property
    def text(self) -> bytes:
        """The event as it is sent, encoded when it is first needed."""
        if self._text is None:
            body = json.dumps(self.data(), separators=(",", ":"), default=str)
            self._text = f"id: {self.id}\nevent: {self.kind}\ndata: {body}\n\n".encode()
        return self._text


class ServerSentEventStream:
    """Publishes events to any number of listeners, and keeps the latest ones for clients that resume."""

    def __init__(self) -> None:
        # Numbers start at 1 in each run, so an id is valid only together with its run.
        self._run = uuid.uuid4().hex[:8]
        self._events: deque[ServerSentEvent] = deque(maxlen=_HISTORY)
        self._numbers = 0
        self._listeners: set[trio.MemorySendChannel[ServerSentEvent]] = set()
        self._closed = False
        self.dropped: int = 0
        """Listeners that were dropped because they were too slow."""

    @property
    def listeners(self) -> int:
        """The number of listeners."""
        return len(self._listeners)

    def publish(self, kind: str, data: Callable[[], Mapping[str, object]]) -> None:
        """Send an event to all listeners without blocking. A listener that is too slow is dropped, and may resume.

        Args:
            kind: The event's name.
            data: Returns the event's data, the same at any time.
        """
        self._numbers += 1
        event = ServerSentEvent(self._numbers, f"{self._run}-{self._numbers}", kind, data)
        self._events.append(event)
        for listener in tuple(self._listeners):
            try:
                listener.send_nowait(event)
            except trio.WouldBlock:
                self._listeners.discard(listener)
                self.dropped += 1
                listener.close()

    async def listen(self, last_id: str | None = None) -> AsyncGenerator[bytes]:
        """Yield the events from now on, or those after an id. It ends when the listener is too slow or the daemon stops.

        Args:
            last_id: The client's ``Last-Event-ID``. If it is too old or of another run, the first event is ``reset``, and all kept events
                follow.
        """
        if self._closed:
            return
        sending, receiving = trio.open_memory_channel[ServerSentEvent](_MAX_LAG)
        # Registered first, so that no event is missed; those that are also in the history are skipped below.
        self._listeners.add(sending)
        try:
            last = self._numbers
            if last_id is not None:
                missed, last = self._missed(last_id)
                for text in missed:
                    yield text
            while True:
                event = None
                with trio.move_on_after(_KEEPALIVE):
                    event = await receiving.receive()
                if event is None:
                    yield b": keepalive\n\n"
                elif event.number > last:
                    yield event.text
        except trio.EndOfChannel:
            return
        finally:
            self._listeners.discard(sending)
            sending.close()
            receiving.close()

    def _missed(self, last_id: str) -> tuple[list[bytes], int]:
        """The kept events after an id, and the number of the last one."""
        run, _, digits = last_id.rpartition("-")
        known = run == self._run and digits.isdecimal() and len(digits) < _MAX_DIGITS and int(digits) <= self._numbers
        seen = int(digits) if known else 0
        texts = [event.text for event in self._events if event.number > seen]
        if not known or (self._events and self._events[0].number > seen + 1):
            texts.insert(0, b"event: reset\ndata: {}\n\n")
        return texts, self._numbers

    def close(self) -> None:
        """End all listeners, now and later."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
