"""The events of `GET /events`, as server-sent events that a client can resume after a disconnect, at any daemon of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.events import INTERNAL, EventsDeleted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from galaxy_trio.daemon.event_feed import EventFeed
    from galaxy_trio.daemon.store.events import StoredEvent
    from galaxy_trio.daemon.store.store import Store

_MAX_DIGITS: Final = 18
"""An id has at most this many digits, so that the database can compare it."""
_KEEPALIVE: Final = 15.0
"""Seconds without an event after which a comment is sent, so that clients notice a dead connection."""
_RESET: Final = b"event: reset\ndata: {}\n\n"


class ServerSentEventStream:
    """Sends events to any number of listeners. Their ids are those of the database.

    A listener holds only the id of its last event, and reads the next one from the feed's memory. One that is too far behind reads pages
    from the database instead.
    """

    def __init__(self, store: Store, feed: EventFeed) -> None:
        self._store = store
        self._feed = feed
        self.dropped: int = 0
        """Listeners that were dropped because they were too slow."""

    @property
    def listeners(self) -> int:
        """The number of listeners."""
        return self._feed.listeners

    async def listen(self, last_id: str | None = None) -> AsyncGenerator[bytes]:
        """Return a generator that yields the events from now on, or those after an id.

        It ends when the daemon stops, after the last event; when the database fails; or when the listener is so slow that its next event
        is no longer kept. In each case its client may resume.

        Args:
            last_id: The client's ``Last-Event-ID``. If it is too old, or not one of this database, the first event is ``reset``, and all
                kept events follow.

        Raises:
            StoreError: The database failed.
        """
        # Read before the response begins: from then on, the client relies on getting every event.
        deleted, newest = await self._store.event_bounds()
        if last_id is None:
            return self._listen(newest)
        after = int(last_id) if last_id.isdecimal() and len(last_id) <= _MAX_DIGITS else -1
        is_kept = deleted <= after <= newest
        return self._listen(after if is_kept else deleted, begins_with_reset=not is_kept)

    async def _listen(self, after: int, *, begins_with_reset: bool = False) -> AsyncGenerator[bytes]:
        self._feed.listeners += 1
        try:
            if begins_with_reset:
                yield _RESET
            while True:
                # Taken before the database is read, so that no event in between is missed.
                arrival = self._feed.arrival
                page = await self._next_after(after)
                for event in page:
                    if event.kind not in INTERNAL:
                        yield f"id: {event.id}\nevent: {event.kind}\ndata: {event.data}\n\n".encode()
                    after = event.id
                if page:
                    continue
                if self._feed.closed:
                    return
                with trio.move_on_after(_KEEPALIVE) as silence:
                    await arrival.wait()
                if silence.cancelled_caught:
                    yield b": keepalive\n\n"
        except EventsDeleted:
            self.dropped += 1
        except StoreError:
            # The feed reports it.
            pass
        finally:
            self._feed.listeners -= 1

    async def _next_after(self, after: int) -> Sequence[StoredEvent]:
        """The next events after an id, if there are any."""
        if not self._feed.covers(after):
            return (await self._store.events_after(after)).events
        event = self._feed.next_after(after)
        return () if event is None else (event,)
