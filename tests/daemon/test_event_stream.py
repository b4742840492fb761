"""Listeners of events: they get each one once, in order, whether it is in memory or in the database."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio.daemon import event_feed
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import Store
from tests.daemon.support.events import delete_all_but, id_of, number_of, open_events, take
from tests.support.memory import traced_memory
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.events import Page
    from galaxy_trio.daemon.store.location import Location, PostgresqlLocation

pytestmark = pytest.mark.daemon
RESET = b"event: reset\ndata: {}\n\n"


async def test_listeners_get_the_events_from_now_on_in_order(database: Location) -> None:
    async with open_events(database) as events:
        await events.publish(0)
        first, second = await events.stream.listen(), await events.stream.listen()
        async with aclosing(first), aclosing(second):
            # It has not begun to read.
            await events.publish(1)
            for number in range(2, 30):
                await events.publish(number)
                if number % 3 == 0:
                    await events.publish(100 + number, 200 + number)
            expected = [1]
            for number in range(2, 30):
                expected += [number, 100 + number, 200 + number] if number % 3 == 0 else [number]
            for listening in (first, second):
                texts = await take(listening, len(expected))
                assert [number_of(text) for text in texts] == expected
                assert texts[0].endswith(b'\nevent: number\ndata: {"number":1,"text":""}\n\n')
            assert events.stream.listeners == 2
        assert (events.stream.listeners, events.stream.dropped) == (0, 0)


async def test_listener_that_waits_gets_each_event_when_it_is_committed(database: Location) -> None:
    async with open_events(database) as events, aclosing(await events.stream.listen()) as listening:
        for number in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(events.publish, number))
                assert number_of(await anext(listening)) == number


async def test_stream_is_resumed_after_a_restart(database: Location) -> None:
    async with open_events(database) as events, aclosing(await events.stream.listen()) as listening:
        await events.publish(1, 2)
        last_id = id_of(await anext(listening))
    async with open_events(database) as events, aclosing(await events.stream.listen(last_id)) as listening:
        await events.publish(3)
        assert [number_of(text) for text in await take(listening, 2)] == [2, 3]


async def test_stream_is_resumed_at_another_daemon(location: PostgresqlLocation) -> None:
    async with open_events(location) as first, open_events(location) as second:
        async with aclosing(await first.stream.listen()) as listening:
            await first.publish(1)
            await second.publish(2, 3)
            last_id = id_of((await take(listening, 2))[1])
            async with aclosing(await second.stream.listen(last_id)) as again:
                await first.publish(4)
                assert [number_of(text) for text in await take(again, 2)] == [3, 4]
            assert [number_of(text) for text in await take(listening, 2)] == [3, 4]


async def test_stream_that_is_resumed_after_deleted_events_begins_with_a_reset_and_has_what_is_kept(
    database: Location,
) -> None:
    async with open_events(database) as events:
        async with aclosing(await events.stream.listen()) as listening:
            await events.publish(*range(10))
            ids = [id_of(text) for text in await take(listening, 10)]
        await delete_all_but(events.store, 3)
        async with aclosing(await events.stream.listen(ids[6])) as resumed:
            assert number_of(await anext(resumed)) == 7
        for last_id in (ids[5], "0", str(int(ids[9]) + 1), "unknown"):
            async with aclosing(await events.stream.listen(last_id)) as resumed:
                assert await anext(resumed) == RESET
                assert [number_of(text) for text in await take(resumed, 3)] == [7, 8, 9]


async def test_slow_listener_reads_from_the_database_what_is_not_in_memory(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "MAX_EVENTS", 10)
    async with open_events(database) as events:
        slow, quick = await events.stream.listen(), await events.stream.listen()
        async with aclosing(slow), aclosing(quick):
            await events.publish(0)
            assert [number_of(await anext(listening)) for listening in (slow, quick)] == [0, 0]
            for number in range(1, 250):
                await events.publish(number)
                assert number_of(await anext(quick)) == number
            assert [number_of(text) for text in await take(slow, 249)] == list(range(1, 250))
            await events.publish(250)
            assert [number_of(await anext(listening)) for listening in (slow, quick)] == [250, 250]
        assert events.stream.dropped == 0


async def test_listener_whose_next_event_was_deleted_is_dropped_and_delays_no_other(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "MAX_EVENTS", 10)
    async with open_events(database) as events:
        slow, quick = await events.stream.listen(), await events.stream.listen()
        async with aclosing(quick):
            await events.publish(*range(20))
            assert number_of(await anext(slow)) == 0
            assert [number_of(text) for text in await take(quick, 20)] == list(range(20))
            await events.publish(*range(20, 40))
            assert [number_of(text) for text in await take(quick, 20)] == list(range(20, 40))
            await delete_all_but(events.store, 5)
            rest = [number_of(text) async for text in slow]
            # A page that it had read.
            assert rest in (list(range(1, 20)), [])
            assert (events.stream.listeners, events.stream.dropped) == (1, 1)


async def test_events_in_memory_have_a_limited_size_however_many_listeners_do_not_read(database: Location) -> None:
    async with open_events(database) as events:
        listeners = [await events.stream.listen() for _ in range(20)]
        await events.publish(-1)
        for listener in listeners:
            await anext(listener)
        with traced_memory() as memory:
            before = memory.now
            # Each is at a different event, when the memory holds it.
            for number in range(200):
                await events.publish(number, text="x" * 100_000)
                if number < len(listeners):
                    for listener in listeners[number:]:
                        assert number_of(await anext(listener)) == number
            await trio.testing.wait_all_tasks_blocked()
            assert memory.now - before < 12 * 2**20
        for number, listener in enumerate(listeners):
            async with aclosing(listener):
                assert number_of(await anext(listener)) == number + 1


async def test_listeners_end_after_the_last_event_when_the_feed_is_closed(database: Location) -> None:
    async with open_events(database) as events:
        received: list[int] = []

        async def read() -> None:
            received.extend([number_of(text) async for text in await events.stream.listen()])

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(read)
            await until(lambda: events.stream.listeners == 2)
            await events.publish(1)
            await events.publish(2)
            await events.feed.close()
        assert received == [1, 2, 1, 2]
        assert [text async for text in await events.stream.listen()] == []
        assert events.stream.listeners == 0


async def test_listener_ends_if_the_database_fails_and_may_resume(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_store: Store, after: int) -> Page:
        await trio.lowlevel.checkpoint()
        raise StoreError(f"nothing after {after} can be read")

    async with open_events(database) as events:
        await events.publish(1, 2)
        await until(lambda: not events.feed.covers(0))
        listening = await events.stream.listen("0")
        monkeypatch.setattr(Store, "events_after", fail)
        assert [text async for text in listening] == []
        assert (events.stream.listeners, events.stream.dropped) == (0, 0)
        monkeypatch.undo()
        async with aclosing(await events.stream.listen("0")) as listening:
            assert [number_of(text) for text in await take(listening, 2)] == [1, 2]


async def test_event_that_arrives_while_a_listener_reads_the_database_is_not_missed(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_events(database) as events, aclosing(await events.stream.listen("0")) as listening:
        events_after = Store.events_after
        # SQLite's feed knows no place yet, so the listener reads the database; the event comes after that.
        first = True

        async def read_early(store: Store, after: int) -> Page:
            nonlocal first
            page = await events_after(store, after)
            if first:
                first = False
                await events.publish(1)
                await trio.testing.wait_all_tasks_blocked(0.1)
            return page

        monkeypatch.setattr(events.feed, "covers", _covers_nothing)
        monkeypatch.setattr(Store, "events_after", read_early)
        with trio.fail_after(SECONDS / 2):
            assert [number_of(text) for text in await take(listening, 1)] == [1]


def _covers_nothing(_after: int) -> bool:
    """A feed whose memory is of no use."""
    return False
