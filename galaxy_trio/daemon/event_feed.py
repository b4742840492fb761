"""Reads the events in the database as soon as they are committed, once for everything in this daemon that needs them.

Rule 11 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NoReturn, cast

import trio

from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.events import EventsDeleted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from galaxy_trio.daemon.store.events import StoredEvent
    from galaxy_trio.daemon.store.store import Store

logger: Final = logging.getLogger(__name__)

MAX_EVENTS: Final = 1_000
"""Events in memory."""
MAX_SIZE: Final = 4 * 2**20
"""Bytes of the data of the events in memory."""
_INTERVAL: Final = 0.01
"""Seconds between two reads, so that events of many commits are read together."""
_RETRY_DELAY: Final = 1.0
"""Seconds to wait before a failed read is retried."""
_CLOSE_TIMEOUT: Final = 2.0
"""Maximum seconds to read the last events."""
_id_of: Final = attrgetter("id")


class EventFeed:
    """The latest events, in memory, and a callback for those of other daemons.

    It has all events after one id up to another one. `run` reads the newer ones. Without listeners, and if no other daemon can write
    events, nothing is read.

    Args:
        store: The events.
        on_foreign: Called with the kind and the data of each event that another life of a daemon wrote, in order. Must not block or raise.
        load: Loads what these events have changed until a moment, and returns the id of the last event before it. Called at the start, and
            if some were deleted before they were read. Without it, reading begins at the newest event.
    """

    def __init__(
        self,
        store: Store,
        on_foreign: Callable[[str, dict[str, object]], None] = lambda _kind, _data: None,
        load: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._store = store
        self._on_foreign = on_foreign
        self._load = load or self._newest
        self._events: list[StoredEvent] = []
        self._size = 0
        # All events after this id up to the last one that was read are in memory; `None` for both if nothing is.
        self._start: int | None = None
        self._last: int | None = None
        self._reading = trio.Lock()
        self._committed = trio.Event()
        self._is_failing = False
        self.listeners: int = 0
        """The number of listeners: only for them, events are kept in memory."""
        self.arrival: trio.Event = trio.Event()
        """Set when events have been read, or the feed is closed; then it is replaced."""
        self.closed: bool = False
        """Whether no more events are read."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Read events until this is cancelled. If the database fails, it is retried; nothing is missed.

        It is started when the place is known after which all events are read.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._store.follow_events, self._wake)
            await self._catch_up()
            task_status.started()
            while True:
                await self._committed.wait()
                self._committed = trio.Event()
                await self._catch_up()
                await trio.sleep(_INTERVAL)

    async def close(self) -> None:
        """Read what has been committed until now, for at most 2 s, and end all listeners after that."""
        with trio.move_on_after(_CLOSE_TIMEOUT):
            await self._catch_up()
        self.closed = True
        self._announce()

    def covers(self, after: int) -> bool:
        """Whether the events that follow an id are in memory, or have not been read yet."""
        return self._start is not None and self._start <= after

    def next_after(self, after: int) -> StoredEvent | None:
        """The first event in memory after an id."""
        place = bisect_right(self._events, after, key=_id_of)
        return self._events[place] if place < len(self._events) else None

    async def _newest(self) -> int:
        _, newest = await self._store.event_bounds()
        return newest

    def _wake(self) -> None:
        self._committed.set()

    def _announce(self) -> None:
        self.arrival.set()
        self.arrival = trio.Event()

    async def _catch_up(self) -> None:
        """Read all events that are committed."""
        async with self._reading:
            if not self._store.is_shared and not self.listeners:
                self._forget()
                return
            while await self._read_page():
                pass

    async def _read_page(self) -> bool:
        """Read the next page, if there is one. Returns whether there may be another one."""
        try:
            if self._last is None:
                self._start = self._last = await self._load()
                self._announce()
                return False
            page = await self._store.events_after(self._last)
        except EventsDeleted:
            self._forget()
            return True
        except StoreError as error:
            if not self._is_failing:
                logger.warning("events cannot be read: %s; retrying", error)
            self._is_failing = True
            await trio.sleep(_RETRY_DELAY)
            return True
        if self._is_failing:
            logger.info("events are read again")
        self._is_failing = False
        self._add(page.events)
        return page.has_more

    def _add(self, events: Sequence[StoredEvent]) -> None:
        for event in events:
            self._last = event.id
            if event.writer != self._store.life:
                self._on_foreign(event.kind, cast("dict[str, object]", json.loads(event.data)))
        if self.listeners:
            self._events += events
            self._size += sum(len(event.data) for event in events)
        elif events:
            self._events, self._size, self._start = [], 0, self._last
        while len(self._events) > MAX_EVENTS or self._size > MAX_SIZE:
            oldest = self._events.pop(0)
            self._size -= len(oldest.data)
            self._start = oldest.id
        if events:
            self._announce()

    def _forget(self) -> None:
        self._events, self._size = [], 0
        self._start = self._last = None
