"""What happens, with a number each, for those who listen: as server-sent events, which can be taken up again where they broke off."""

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

_KEPT: Final = 10_000
"""Events that are kept for those who come back."""
_LAG: Final = 1_000
"""Events by which a listener may be behind; one more, and it is dropped."""
_DIGITS: Final = 16
"""More than the digits of any number."""
_KEEPALIVE: Final = 15.0
"""Seconds without an event after which a comment shows that all is well."""


@attrs.define(eq=False)
class FeedEvent:
    """One of them.

    Attributes:
        data: What it says; called when somebody wants to know, so that it must say the same later.
    """

    number: int
    id: str
    kind: str
    data: Callable[[], Mapping[str, object]]
    _text: bytes | None = attrs.field(default=None, init=False)

    @property
    def text(self) -> bytes:
        """The event as it is sent: made once, and only if somebody listens."""
        if self._text is None:
            body = json.dumps(self.data(), separators=(",", ":"), default=str)
            self._text = f"id: {self.id}\nevent: {self.kind}\ndata: {body}\n\n".encode()
        return self._text


class Feed:
    """The events of one life of the daemon."""

    def __init__(self) -> None:
        # Numbers begin anew with each life: an id of another one says nothing.
        self._life = uuid.uuid4().hex[:8]
        self._events: deque[FeedEvent] = deque(maxlen=_KEPT)
        self._numbers = 0
        self._listeners: set[trio.MemorySendChannel[FeedEvent]] = set()
        self.dropped: int = 0
        """Listeners that were too slow."""

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def publish(self, kind: str, data: Callable[[], Mapping[str, object]]) -> None:
        """Send an event to all listeners. Never blocks: one that is too far behind is dropped, and may come back for what is kept.

        Args:
            kind: The event's name.
            data: Gives what it says, as it is now, whenever it is called.
        """
        self._numbers += 1
        event = FeedEvent(self._numbers, f"{self._life}-{self._numbers}", kind, data)
        self._events.append(event)
        for listener in tuple(self._listeners):
            try:
                listener.send_nowait(event)
            except (trio.WouldBlock, trio.BrokenResourceError):
                self._listeners.discard(listener)
                self.dropped += 1
                listener.close()

    async def listen(self, last_id: str | None = None) -> AsyncGenerator[bytes]:
        """The events from now on, or after the one with this id; ends when the listener is too slow, or the daemon stops.

        Args:
            last_id: The browser's ``Last-Event-ID``. One of another life, or too old, gets all that is kept, after an event ``reset``.
        """
        sending, receiving = trio.open_memory_channel[FeedEvent](_LAG)
        # From here on nothing is missed; what is kept as well is left out below.
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
                    yield b": all is well\n\n"
                elif event.number > last:
                    yield event.text
        except trio.EndOfChannel:
            return
        finally:
            self._listeners.discard(sending)
            sending.close()
            receiving.close()

    def _missed(self, last_id: str) -> tuple[list[bytes], int]:
        """What is kept of what came after this id, and the last number of it."""
        life, _, digits = last_id.rpartition("-")
        known = life == self._life and digits.isdecimal() and len(digits) < _DIGITS and int(digits) <= self._numbers
        seen = int(digits) if known else 0
        texts = [event.text for event in self._events if event.number > seen]
        if not known or (self._events and self._events[0].number > seen + 1):
            texts.insert(0, b"event: reset\ndata: {}\n\n")
        return texts, self._numbers

    def close(self) -> None:
        """Nothing happens any more: all who listen come to their end."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
