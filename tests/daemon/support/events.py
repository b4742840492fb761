"""Publishes events with a store, and reads them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio.daemon.event_feed import EventFeed
from galaxy_trio.daemon.store.events import CLUSTER, delete_events
from galaxy_trio.daemon.store.store import Store, open_store
from galaxy_trio.daemon.web.event_stream import ServerSentEventStream
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from galaxy_trio.daemon.store.events import StoredEvent
    from galaxy_trio.daemon.store.location import Location


@attrs.frozen
class Events:
    """A store, with the feed and the stream of its events. Made by `open_events`."""

    store: Store
    feed: EventFeed
    stream: ServerSentEventStream

    async def publish(self, *numbers: int, text: str = "") -> None:
        """Publish numbered events in one transaction."""
        await publish(self.store, *numbers, text=text)


async def publish(store: Store, *numbers: int, text: str = "") -> None:
    """Publish numbered events in one transaction."""
    await store.publish([("number", {"number": number, "text": text}) for number in numbers])


async def read_all(store: Store, after: int = 0) -> list[StoredEvent]:
    """All events after an id, without those of the lives of daemons."""
    events: list[StoredEvent] = []
    while True:
        page = await store.events_after(events[-1].id if events else after)
        events += page.events
        if not page.has_more:
            return [event for event in events if event.kind != CLUSTER]


async def delete_all_but(store: Store, newest: int) -> None:
    """Delete all events but the newest ones."""
    events = await read_all(store, (await store.event_bounds())[0])
    last = events[-newest - 1].id
    await store.write(lambda transaction: delete_events(transaction, last))


@asynccontextmanager
async def open_events(
    location: Location,
    on_foreign: Callable[[str, dict[str, object]], None] = lambda _kind, _data: None,
    load: Callable[[Store], Awaitable[int]] | None = None,
) -> AsyncGenerator[Events]:
    """Open a store, and follow its events inside the block."""
    with trio.fail_after(SECONDS):
        async with open_store(location) as store, trio.open_nursery() as nursery:
            feed = EventFeed(store, on_foreign, None if load is None else partial(load, store))
            await nursery.start(feed.run)
            yield Events(store, feed, ServerSentEventStream(store, feed))
            nursery.cancel_scope.cancel()


async def take(listening: AsyncGenerator[bytes], count: int) -> list[bytes]:
    """The next texts of a listener, without those of the lives of daemons."""
    texts: list[bytes] = []
    while len(texts) < count:
        text = await anext(listening)
        if f"\nevent: {CLUSTER}\n".encode() not in text:
            texts.append(text)
    return texts


def id_of(text: bytes) -> str:
    """The id of an event, as it is sent."""
    return text.split(b"\n")[0].removeprefix(b"id: ").decode()


def number_of(text: bytes) -> int:
    """The number of an event that `publish` published, as it is sent."""
    return int(text.split(b'"number":')[1].split(b",")[0])
