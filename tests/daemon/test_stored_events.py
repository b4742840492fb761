"""Events in the database: written with the changes that they report, once, and deleted when they are old."""

from __future__ import annotations

import json
import math
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from sqlalchemy import event, update

from galaxy_trio.daemon.store import events
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.events import EventsDeleted, Page
from galaxy_trio.daemon.store.postgresql import Postgresql
from galaxy_trio.daemon.store.queries import WrongState
from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.schema import EVENTS
from galaxy_trio.daemon.store.short_task import short_task
from galaxy_trio.daemon.store.store import Store, UnknownOutcome, open_store
from tests.daemon.support.commit_faults import Fault, commit_faults
from tests.daemon.support.events import publish, read_all
from tests.daemon.support.store import ATTEMPT, add_task
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection
    from trio.testing import MockClock

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.location import Location, PostgresqlLocation

pytestmark = pytest.mark.daemon


async def test_each_change_of_a_task_is_published_once_in_its_short_form(database: Location) -> None:
    async with open_store(database) as store:
        start, life = (await store.event_bounds())[1], store.life
        changes: list[TaskRecord] = [await add_task(store, idempotency_key="key")]
        first = changes[0].id
        assert await store.add(TaskRequest("echo", idempotency_key="key")) == (changes[0], False)
        changes.append(await store.mark_running(first, "d1", ATTEMPT, life))
        assert await store.mark_running(first, "d1", ATTEMPT, life) == changes[-1]
        changes.append(await store.mark_queued(first, ATTEMPT))
        assert await store.mark_queued(first, ATTEMPT) == changes[-1]
        changes.append(await store.mark_running(first, "d1", ATTEMPT + " again", life))
        changes.append(await store.finish(first, ATTEMPT + " again", life, TaskState.COMPLETED, result='"x"'))
        assert await store.finish(first, ATTEMPT + " again", life, TaskState.COMPLETED, result='"x"') == changes[-1]
        changes.append(await store.retry(first))
        changes.append((await store.cancel_queued(changes[-1].id))[0])
        await store.cancel_queued(changes[-1].id)
        changes += [await add_task(store, "x" * 5_000, os="linux") for _ in range(2)]
        changes += await store.fail_queued(Requirement(os="linux"), "y" * 5_000, 10)
        changes += [await add_task(store), await add_task(store)]
        changes.append(await store.mark_running(changes[-1].id, "d1", ATTEMPT, life))
        await store.end_life()
        changes.append(await store.existing(changes[-1].id))
        assert changes[-1].state is TaskState.LOST
        published = await read_all(store, start)
        assert [json.loads(each.data) for each in published] == [short_task(record) for record in changes]
        assert {(each.kind, each.writer) for each in published} == {("task", life)}
        assert max(len(each.data) for each in published) < 3_000


async def test_refused_operation_publishes_nothing(database: Location) -> None:
    def refuse(transaction: Transaction) -> None:
        transaction.publish("refused", {})
        raise WrongState("it is not queued")

    async with open_store(database) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, store, 1)
            with pytest.raises(WrongState):
                await store.write(refuse)
            await publish(store, 2)
        assert [each.kind for each in await read_all(store)] == ["number"] * 2


async def test_event_is_encoded_when_it_is_published(database: Location) -> None:
    def change(transaction: Transaction) -> None:
        members = {"text": "\0 \ud800 é"}
        transaction.publish("kind", members)
        members["text"] = ""

    async with open_store(database) as store:
        await store.write(change)
        [published] = await read_all(store)
        assert published.data == r'{"text":"\u0000 \ud800 \u00e9"}'


@pytest.mark.parametrize("fault", [Fault.NOT_DONE, Fault.ANSWER_LOST])
async def test_repeated_commit_publishes_once(fault: Fault, database: Location) -> None:
    async with open_store(database) as store:
        with commit_faults(store) as faults:
            faults.plan = [fault]
            await publish(store, 1, 2)
            assert faults.seen == [fault]
        assert [json.loads(each.data)["number"] for each in await read_all(store)] == [1, 2]


async def test_commit_that_turns_out_to_be_on_disk_publishes_once_and_wakes_the_followers(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    mock_clock.autojump_threshold = 0
    calls: list[int] = []
    async with open_store(tmp_path / "db") as store, trio.open_nursery() as nursery:
        with commit_faults(store) as faults:
            nursery.start_soon(store.follow_events, lambda: calls.append(1))
            await trio.testing.wait_all_tasks_blocked()
            faults.plan, faults.refused_afterwards = [Fault.ANSWER_LOST], math.inf
            with pytest.raises(UnknownOutcome):
                await publish(store, 1)
            assert not calls
            faults.refused = 0
            # A write that publishes nothing.
            await store.check_writable()
            await trio.testing.wait_all_tasks_blocked()
            assert len(calls) == 1
        assert len(await read_all(store)) == 1
        nursery.cancel_scope.cancel()


async def test_failed_operation_publishes_nothing_and_wakes_no_follower(database: Location) -> None:
    def fail(transaction: Transaction) -> None:
        transaction.publish("kind", {})
        raise StoreError("it failed")

    async with open_store(database) as store:
        with pytest.raises(StoreError):
            await store.write(fail)
        assert await read_all(store) == []


async def test_events_of_concurrent_operations_share_a_transaction(database: Location) -> None:
    async with open_store(database) as store:
        commits = store.commits
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(partial(publish, store, number))
        assert store.commits - commits <= 5
        assert len(await read_all(store)) == 200


def _hold_commits(store: Store) -> tuple[threading.Event, threading.Event]:
    """Hold the commits of a store until an event is set. Returns an event that says that one is held, and this one."""
    held, release = threading.Event(), threading.Event()

    def hold(_connection: Connection) -> None:
        held.set()
        release.wait(SECONDS)

    event.listen(store._group._committer._engine, "commit", hold)
    return held, release


@pytest.mark.parametrize("in_order", [True, False])
async def test_event_that_is_committed_late_is_missed_only_without_the_order_of_commits(
    in_order: bool, location: PostgresqlLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_order:
        monkeypatch.setattr(Postgresql, "order_events", _leave_unordered)
    async with open_store(location) as first, open_store(location) as second, trio.open_nursery() as nursery:
        held, release = _hold_commits(first)
        nursery.start_soon(publish, first, 1)
        await trio.to_thread.run_sync(held.wait, SECONDS)
        early = trio.Event()

        async def publish_early() -> None:
            await publish(second, 2)
            early.set()

        def waits(connection: Connection) -> bool:
            query = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            return connection.exec_driver_sql(query).first() is not None

        nursery.start_soon(publish_early)
        with trio.fail_after(SECONDS):
            while not early.is_set() and not await second.read(waits):  # noqa: ASYNC110
                await trio.sleep(0.01)
        published = await read_all(second)
        release.set()
        await early.wait()
        await first.check_writable()
        published += await read_all(second, published[-1].id if published else 0)
        assert [json.loads(each.data)["number"] for each in published] == ([1, 2] if in_order else [2])
        assert [each.writer for each in published] == ([first.life] if in_order else []) + [second.life]


async def test_reader_sees_all_events_of_several_writers_once_and_in_order(location: PostgresqlLocation) -> None:
    async with open_store(location) as first, open_store(location) as second, open_store(location) as reader:
        seen: list[tuple[str, int]] = []

        async def write(store: Store) -> None:
            for number in range(150):
                await publish(store, number)

        async def read() -> None:
            last = 0
            while len(seen) < 300:
                for each in await read_all(reader, last):
                    last = each.id
                    seen.append((each.writer, json.loads(each.data)["number"]))

        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for task in (partial(write, first), partial(write, second), read):
                    nursery.start_soon(task)
        for store in (first, second):
            assert [number for writer, number in seen if writer == store.life] == list(range(150))


async def test_page_has_a_limited_size_and_at_least_one_event(database: Location) -> None:
    async with open_store(database) as store:
        _, start = await store.event_bounds()
        await publish(store, 1, 2, 3, text="x" * 30_000)
        await publish(store, 4, text="x" * 100_000)
        await publish(store, *range(5, 200))
        sizes: list[int] = []
        last = start
        while (page := await store.events_after(last)).has_more:
            sizes.append(len(page.events))
            last = page.events[-1].id
        assert (sizes, len(page.events)) == ([2, 1, 1, 100], 95)
        last = page.events[-1].id
        await publish(store, *range(100))
        page = await store.events_after(last)
        assert (len(page.events), page.has_more) == (100, False)
        assert await store.events_after(page.events[-1].id) == Page([], has_more=False)


async def test_old_events_are_deleted_by_number_size_and_age(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_DELETED", 2)
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)

    async with open_store(database) as store:
        await store.delete_old_events(long_ago)
        assert (await store.event_bounds())[0] == 0
        await publish(store, *range(10), text="x" * 1_000)
        ids = [each.id for each in await read_all(store)]
        size = len((await read_all(store))[0].data)
        await store.delete_old_events(long_ago)
        assert await store.event_bounds() == (0, ids[9])
        for limit, value, deleted in (("MAX_EVENTS", 7, 2), ("MAX_SIZE", 5 * size, 4)):
            monkeypatch.setattr(events, limit, value)
            for _ in range(2):
                await store.delete_old_events(long_ago)
                assert await store.event_bounds() == (ids[deleted], ids[9])
        old = (datetime.now(UTC) - timedelta(hours=2)).timestamp()
        change = update(EVENTS).values(at=old).where(EVENTS.c.id < ids[7])
        await store.write(lambda transaction: transaction.connection.execute(change))
        await store.delete_old_events(datetime.now(UTC) - timedelta(hours=1))
        assert [each.id for each in await read_all(store, ids[6])] == ids[7:]
        # Another daemon has deleted the same ones.
        assert await store.write(lambda transaction: events.delete_events(transaction, ids[1])) == 0
        for after in (0, ids[5]):
            with pytest.raises(EventsDeleted):
                await store.events_after(after)


async def test_events_after_the_last_one_are_read_when_all_others_were_deleted(database: Location) -> None:
    async with open_store(database) as store:
        await publish(store, 1, 2)
        second = (await read_all(store))[1].id
        for _ in range(2):
            await store.delete_old_events(datetime.now(UTC) + timedelta(hours=1))
            assert await store.event_bounds() == (second, second)
            assert await read_all(store, second) == []
        await publish(store, 3)
        [third] = await read_all(store, second)
        assert await store.event_bounds() == (second, third.id)


async def test_id_of_a_transaction_that_failed_was_not_deleted(database: Location) -> None:
    async with open_store(database) as store:
        with commit_faults(store) as faults:
            # PostgreSQL does not use its number again.
            faults.plan = [Fault.NOT_DONE]
            await publish(store, 1)
        assert len(await read_all(store)) == 1
        assert (await store.event_bounds())[0] == 0


def _leave_unordered(_database: Postgresql, _connection: Connection) -> None:
    """Let transactions commit events in any order."""
