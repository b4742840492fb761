"""The events of `GET /events`, as server-sent events that a client can resume after a disconnect."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

_MAX_EVENTS: Final = 10_000
"""Events that are kept."""
_MAX_SIZE: Final = 16 * 2**20
"""Bytes of the events that are kept."""
_MAX_DIGITS: Final = 16
"""The number in an id has fewer digits than this."""
_KEEPALIVE: Final = 15.0
"""Seconds without an event after which a comment is sent, so that clients notice a dead connection."""
_RESET: Final = b"event: reset\ndata: {}\n\n"
_encoder: Final = json.JSONEncoder(separators=(",", ":"))


class ServerSentEventStream:
    """Publishes events to any number of listeners, and keeps the latest ones for slow listeners and for clients that resume.

    An event has a number, which counts from 1 in each run of the daemon, and an id: the run and the number. A listener holds only the
    number of its next event, so the memory does not depend on the number of listeners.
    """

    def __init__(self) -> None:
        # Numbers start at 1 in each run, so an id is valid only together with its run.
        self._run = uuid.uuid4().hex[:8]
        # The kept events as they are sent, by number, without gaps.
        self._events: dict[int, bytes] = {}
        self._oldest = 1
        self._newest = 0
        self._size = 0
        self._arrival = trio.lowlevel.ParkingLot()
        self._closed = False
        self.listeners: int = 0
        """The number of listeners."""
        self.dropped: int = 0
        """Listeners that were dropped because they were too slow."""

    def publish(self, kind: str, data: Mapping[str, object]) -> None:
        """Send an event to all listeners without blocking.

        Args:
            kind: The event's name.
            data: The event's data.
        """
        self._newest += 1
        text = f"id: {self._run}-{self._newest}\nevent: {kind}\ndata: {_encoder.encode(data)}\n\n".encode()
        self._events[self._newest] = text
        self._size += len(text)
        while len(self._events) > _MAX_EVENTS or self._size > _MAX_SIZE:
            self._size -= len(self._events.pop(self._oldest))
            self._oldest += 1
        self._arrival.unpark_all()

    async def listen(self, last_id: str | None = None) -> AsyncGenerator[bytes]:
        """Yield the events from now on, or those after an id.

        It ends when the daemon stops, after the last event, or when the listener is so slow that its next event is no longer kept: its
        client may resume.

        Args:
            last_id: The client's ``Last-Event-ID``. If it is too old or of another run, the first event is ``reset``, and all kept events
                follow.
        """
        following = self._newest + 1 if last_id is None else self._after(last_id)
        self.listeners += 1
        try:
            if following < self._oldest:
                following = self._oldest
                yield _RESET
            while True:
                if following <= self._newest:
                    text = self._events.get(following)
                    if text is None:
                        self.dropped += 1
                        return
                    yield text
                    following += 1
                elif self._closed:
                    return
                else:
                    with trio.move_on_after(_KEEPALIVE) as silence:
                        await self._arrival.park()
                    if silence.cancelled_caught:
                        yield b": keepalive\n\n"
        finally:
            self.listeners -= 1

    def _after(self, last_id: str) -> int:
        """The number of the event after an id; 0 if the id is invalid."""
        run, _, digits = last_id.rpartition("-")
        known = run == self._run and digits.isdecimal() and len(digits) < _MAX_DIGITS and int(digits) <= self._newest
        return int(digits) + 1 if known else 0

    def close(self) -> None:
        """End all listeners, now and later."""
        self._closed = True
        self._arrival.unpark_all()
