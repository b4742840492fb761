"""The feed of events: it misses nothing, whatever happens to the database, and reads nothing that is of no use."""

from __future__ import annotations

import logging
import math
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio.daemon import event_feed
from galaxy_trio.daemon.store import notifications
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.events import CLUSTER
from galaxy_trio.daemon.store.store import Store
from tests.daemon.support.events import Events, delete_all_but, id_of, number_of, open_events, publish, take
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from galaxy_trio.daemon.store.events import Page
    from galaxy_trio.daemon.store.location import Location, PostgresqlLocation
    from tests.daemon.support.postgresql import PostgresqlServer

pytestmark = pytest.mark.daemon


class _Foreign:
    """Collects the events of other daemons, without those of their lives."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def __call__(self, kind: str, data: dict[str, object]) -> None:
        if kind != CLUSTER:
            self.seen.append(data["number"] if kind == "number" else kind)

    async def wait(self, *expected: object) -> None:
        await until(lambda: len(self.seen) >= len(expected))
        assert self.seen == list(expected)


async def test_events_of_other_daemons_are_reported_once_and_in_order_and_own_ones_are_not(
    location: PostgresqlLocation,
) -> None:
    first_seen, second_seen = _Foreign(), _Foreign()
    async with open_events(location) as earlier:
        await earlier.publish(-1)
    async with open_events(location, first_seen) as first, open_events(location, second_seen) as second:
        async with trio.open_nursery() as nursery:
            for number in range(150):
                nursery.start_soon(partial(first.publish, number))
                nursery.start_soon(partial(second.publish, -number))
        await until(lambda: len(first_seen.seen) == len(second_seen.seen) == 150)
        assert sorted(map(int, map(str, second_seen.seen))) == list(range(150))
        await first.publish(1_000)
        await until(lambda: second_seen.seen[-1] == 1_000)
        assert len(first_seen.seen) == 150


async def test_nothing_is_read_of_sqlite_while_there_is_no_listener(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read = Store.read

    async def count(store: Store, operation: object) -> object:
        nonlocal reads
        reads += 1
        return await read(store, operation)  # type: ignore[arg-type]

    async with open_events(tmp_path / "db") as events:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "read", count)
            for number in range(10):
                await events.publish(number)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert reads == 0
        for _ in range(2):
            async with aclosing(await events.stream.listen()) as listening:
                await events.publish(10)
                assert number_of(await anext(listening)) == 10
                await events.publish(11)
                assert number_of(await anext(listening)) == 11
            await events.publish(12)


async def test_failure_of_the_database_is_logged_once_and_nothing_is_missed(
    database: Location, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, event_feed.__name__)
    monkeypatch.setattr(event_feed, "_RETRY_DELAY", 0.001)
    async with open_events(database) as events, aclosing(await events.stream.listen()) as listening:
        await _cover(events, listening)
        events_after, failures = Store.events_after, 3

        async def fail(store: Store, after: int) -> Page:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                await trio.lowlevel.checkpoint()
                raise StoreError("the disk fails")
            return await events_after(store, after)

        monkeypatch.setattr(Store, "events_after", fail)
        for number in (1, 2):
            await events.publish(number)
        assert [number_of(text) for text in await take(listening, 2)] == [1, 2]
        monkeypatch.undo()
    assert [record.getMessage() for record in caplog.records] == [
        "events cannot be read: the disk fails; retrying",
        "events are read again",
    ]


async def test_feed_that_cannot_be_read_is_closed_all_the_same(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_store: Store, after: int) -> Page:
        await trio.lowlevel.checkpoint()
        raise StoreError(f"nothing after {after} can be read")

    monkeypatch.setattr(event_feed, "_CLOSE_TIMEOUT", 0.05)
    async with open_events(database) as events, aclosing(await events.stream.listen()) as listening:
        await _cover(events, listening)
        monkeypatch.setattr(Store, "events_after", fail)
        await events.publish(1)
        await events.feed.close()
        # A read that had begun may have found it.
        assert [number_of(text) async for text in listening] in ([], [1])
        monkeypatch.undo()


@pytest.mark.parametrize("loads", [True, False])
async def test_feed_that_missed_deleted_events_loads_what_they_changed_and_drops_its_listeners(
    loads: bool, location: PostgresqlLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _Foreign()
    seen_at_loads: list[list[object]] = []

    async def load(store: Store) -> int:
        seen_at_loads.append(list(seen.seen))
        return (await store.event_bounds())[1]

    async with open_events(location) as other, open_events(location, seen, load if loads else None) as events:
        listening = await events.stream.listen()
        await other.publish(0)
        assert number_of(await anext(listening)) == 0
        events_after, reading, go_on = Store.events_after, trio.Event(), trio.Event()

        async def wait(store: Store, after: int) -> Page:
            if store is events.store:
                reading.set()
                await go_on.wait()
            return await events_after(store, after)

        monkeypatch.setattr(Store, "events_after", wait)
        await other.publish(1, 2)
        await reading.wait()
        await delete_all_but(other.store, 1)
        go_on.set()
        assert [text async for text in listening] == []
        assert events.stream.dropped == 1
        async with aclosing(await events.stream.listen()) as again:
            await other.publish(3)
            assert number_of(await anext(again)) == 3
    # What was deleted, and what follows until then, is loaded.
    assert seen.seen == [0, 3]
    assert seen_at_loads == ([[], [0]] if loads else [])


async def test_events_are_found_by_polling_while_the_connection_that_listens_is_cut(
    location: PostgresqlLocation, postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_POLL_INTERVAL", 0.05)
    monkeypatch.setattr(notifications, "uniform", _for_ever)
    seen = _Foreign()
    listeners = f"FROM pg_stat_activity WHERE query LIKE '%LISTEN \"{location.cluster}\"'"
    async with open_events(location) as other, open_events(location, seen) as events:
        await other.publish(0)
        await seen.wait(0)
        query = f"SELECT pg_terminate_backend(pid, 10000) {listeners}"  # a name of the test's
        await until(lambda: len(postgresql.execute(f"SELECT 1 {listeners}")) == 2)
        assert await trio.to_thread.run_sync(postgresql.execute, query) == [(True,)] * 2
        for number in range(1, 4):
            await publish(other.store, number)
        await seen.wait(0, 1, 2, 3)
        assert postgresql.execute(f"SELECT 1 {listeners}") == []
        assert events.stream.listeners == 0


async def test_notification_is_enough_without_polling(
    location: PostgresqlLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_POLL_INTERVAL", math.inf)
    seen = _Foreign()
    async with open_events(location) as other, open_events(location, seen):
        for number in range(10):
            await other.publish(number)
            await seen.wait(*range(number + 1))


async def _cover(events: Events, listening: AsyncGenerator[bytes]) -> None:
    """Publish events until the listener reads from the feed's memory."""
    for number in (-2, -1):
        await events.publish(number)
        text = await anext(listening)
        assert number_of(text) == number
    await until(lambda: events.feed.covers(int(id_of(text))))


def _for_ever(_least: float, _most: float) -> float:
    """The delay until the next connection."""
    return math.inf
