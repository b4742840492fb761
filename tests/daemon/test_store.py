"""The store on real databases: what it has returned is on disk."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import weakref
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from sqlalchemy import func, select

import galaxy_trio.daemon.store.deletion
import galaxy_trio.daemon.store.pieces
from galaxy_trio.daemon.store.queries import IdempotencyConflict, NoSuchTask, WrongState
from galaxy_trio.daemon.store.records import MAX_ERROR, Requirement, TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.schema import RESULTS, TASKS
from galaxy_trio.daemon.store.store import open_store
from tests.daemon.support.store import ATTEMPT, NOW, add_ended_task, add_task, kill, queued_tasks, read_result

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.location import Location

pytestmark = pytest.mark.daemon


async def test_added_task_is_on_disk_with_its_request(database: Location) -> None:
    request = TaskRequest("öffne 😀", "d1", None, ("a", "b"), 12.5, "key")
    async with open_store(database, clock=lambda: NOW) as store:
        record, is_new = await store.add(request)
        assert (record.asked, record.state, record.created, is_new) == (request, TaskState.QUEUED, NOW, True)
    async with open_store(database) as store:
        assert await store.get(record.id) == record
        assert await queued_tasks(store) == [record]
        assert await store.get("nothing") is None


async def test_task_goes_from_queued_to_running_to_its_end_and_no_further(database: Location) -> None:
    async with open_store(database, clock=lambda: NOW) as store:
        record = await add_task(store)
        running = await store.mark_running(record.id, "d7", ATTEMPT, store.life)
        assert (running.state, running.device, running.started) == (TaskState.RUNNING, "d7", NOW)
        ended = await store.finish(record.id, ATTEMPT, store.life, TaskState.FAILED, error="broken", result='"x"')
        assert (ended.state, ended.error, ended.ended, ended.result_size) == (TaskState.FAILED, "broken", NOW, 3)
        assert await read_result(store, record.id) == '"x"'
        with pytest.raises(WrongState, match=f"task {record.id} has failed"):
            await store.finish(record.id, ATTEMPT, store.life, TaskState.COMPLETED)
        with pytest.raises(WrongState):
            await store.mark_running(record.id, "d1", ATTEMPT, store.life)
        assert await store.cancel_queued(record.id) == (ended, False)
        assert await store.get(record.id) == ended


async def test_attempt_is_begun_returned_and_ended_once_and_changes_nothing_of_another_one(database: Location) -> None:
    async with open_store(database, clock=lambda: NOW) as store:
        record = await add_task(store)

        async def refused_to(attempt: str) -> None:
            before = await store.get(record.id), await store.departures(record.id)
            for change in (
                partial(store.mark_running, device="d3", claimed_by=store.life),
                store.mark_queued,
                partial(store.finish, claimed_by=store.life, state=TaskState.FAILED, result='"another"'),
            ):
                with pytest.raises(WrongState):
                    await change(record.id, attempt=attempt)
            assert (await store.get(record.id), await store.departures(record.id)) == before

        running = await store.mark_running(record.id, "d1", "first", store.life)
        assert await store.mark_running(record.id, "d1", "first", store.life) == running
        await refused_to("second")
        queued = await store.mark_queued(record.id, "first")
        assert await store.mark_queued(record.id, "first") == queued
        assert len(await store.departures(record.id)) == 1
        await store.mark_running(record.id, "d2", "second", store.life)
        await refused_to("first")
        ended = await store.finish(record.id, "second", store.life, TaskState.COMPLETED, result='"x"')
        assert await store.finish(record.id, "second", store.life, TaskState.COMPLETED, result='"x"') == ended
        await refused_to("first")
        await refused_to("second")
        assert await read_result(store, record.id) == '"x"'


async def test_queued_task_can_be_cancelled_or_fail_and_does_not_begin_afterwards(database: Location) -> None:
    async with open_store(database) as store:
        first, second = await add_task(store), await add_task(store)
        cancelled, changed = await store.cancel_queued(first.id)
        assert (cancelled.state, changed) == (TaskState.CANCELLED, True)
        assert (await store.finish(second.id, ATTEMPT, store.life, TaskState.FAILED, error="no device")).started is None
        for record in (first, second):
            with pytest.raises(WrongState):
                await store.mark_running(record.id, "d1", ATTEMPT, store.life)
        assert await store.counts() == {**dict.fromkeys(TaskState, 0), TaskState.CANCELLED: 1, TaskState.FAILED: 1}


async def test_error_with_a_path_that_is_not_utf_8_is_escaped(database: Location) -> None:
    error, escaped = "cannot read /home/\udcff", "cannot read /home/\\udcff"
    async with open_store(database) as store:
        record = await add_task(store)
        assert (await store.finish(record.id, ATTEMPT, store.life, TaskState.FAILED, error=error)).error == escaped
        await add_task(store)
        assert [failed.error for failed in await store.fail_queued(Requirement(), error, 10)] == [escaped]


async def test_texts_with_a_nul_are_stored_and_found(database: Location) -> None:
    asked = TaskRequest("re\0quest", "de\0vice", idempotency_key="k\0")
    async with open_store(database) as store:
        record, _ = await store.add(asked, claimed_by=store.life)
        assert await store.get(record.id) == record
        assert await store.add(asked) == (record, False)
        assert await store.get("\0") is None
        assert await store.page(device="\0") == []
        ended = await store.finish(record.id, ATTEMPT, store.life, TaskState.FAILED, error="er\0ror")
        assert (ended.error, ended.error_size) == ("er\0ror", 6)


async def test_operations_on_an_unknown_task_raise_no_such_task(database: Location) -> None:
    async with open_store(database) as store:
        for operation in (
            store.cancel_queued,
            store.retry,
            partial(store.mark_running, device="d1", attempt=ATTEMPT, claimed_by=store.life),
            partial(store.mark_queued, attempt=ATTEMPT),
            partial(store.finish, attempt=ATTEMPT, claimed_by=store.life, state=TaskState.LOST),
        ):
            with pytest.raises(NoSuchTask, match="there is no task 'nothing'"):
                await operation("nothing")
        with pytest.raises(NoSuchTask):
            await store.page(before="nothing")
        assert await read_result(store, "nothing") == ""


async def test_result_of_any_size_is_read_unchanged(database: Location) -> None:
    async with open_store(database) as store:
        for size in (
            0,
            1,
            galaxy_trio.daemon.store.pieces.PIECE,
            galaxy_trio.daemon.store.pieces.PIECE + 1,
            1_000_000,
        ):
            text = "abcdefg" * (size // 7 + 1)
            record = await add_ended_task(store, result=text[:size])
            assert record.result_size == size
            assert await read_result(store, record.id) == text[:size]


async def test_retry_is_a_new_task_without_the_idempotency_key(database: Location) -> None:
    async with open_store(database) as store:
        record = await add_task(store, idempotency_key="k", device="d1", timeout=3.0)
        with pytest.raises(WrongState, match="is queued: only a task that has ended can be retried"):
            await store.retry(record.id)
        await store.cancel_queued(record.id)
        again = await store.retry(record.id)
        assert (again.retry_of, again.state, again.id != record.id) == (record.id, TaskState.QUEUED, True)
        assert again.asked == TaskRequest("echo", "d1", timeout=3.0)


async def test_same_idempotency_key_returns_the_same_task_to_concurrent_callers(database: Location) -> None:
    async with open_store(database) as store:
        found: list[tuple[TaskRecord, bool]] = []

        async def ask() -> None:
            found.append(await store.add(TaskRequest("echo", idempotency_key="k")))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
        assert len({record.id for record, _ in found}) == 1
        assert sum(is_new for _, is_new in found) == 1
        with pytest.raises(IdempotencyConflict, match="which has a different request"):
            await store.add(TaskRequest("other", idempotency_key="k"))


async def test_pages_go_from_newest_to_oldest_and_stay_consistent_while_tasks_are_added(database: Location) -> None:
    async with open_store(database) as store:
        records = [await add_task(store, f"task {number}") for number in range(7)]
        page = await store.page(limit=3)
        await add_task(store, "another")
        following = await store.page(limit=10, before=page[-1].id)
        assert [record.id for record in page + following] == [record.id for record in reversed(records)]
        await store.mark_running(records[0].id, "d1", ATTEMPT, store.life)
        await store.mark_running(records[1].id, "d2", ATTEMPT, store.life)
        assert [record.id for record in await store.page(state=TaskState.RUNNING, device="d2")] == [records[1].id]


async def test_concurrent_writes_share_transactions(database: Location) -> None:
    async with open_store(database) as store:
        before = store.commits
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(add_task, store, f"task {number}")
        assert store.commits - before < 30
    async with open_store(database) as store:
        assert len(await queued_tasks(store)) == 300


async def test_nothing_of_a_write_is_in_memory_when_it_has_returned(database: Location) -> None:
    class Operation:
        def __call__(self, transaction: Transaction) -> None:
            transaction.on_commit(self.called)

        def called(self) -> None:
            pass

    async with open_store(database) as store:
        gc.disable()
        try:
            operation = Operation()
            alive = weakref.ref(operation)
            await store.write(operation)
            del operation
            await trio.testing.wait_all_tasks_blocked()
            assert alive() is None
        finally:
            gc.enable()


async def test_error_of_any_size_is_stored_with_64_kib(database: Location) -> None:
    async with open_store(database) as store:
        for error, is_whole in (
            ("x" * MAX_ERROR, True),
            ("é" * (MAX_ERROR // 2), True),
            ("x" * (MAX_ERROR + 1), False),
            ("€" * MAX_ERROR, False),
            ("\udcff" * MAX_ERROR, False),
        ):
            record = await add_task(store)
            record = await store.finish(record.id, ATTEMPT, store.life, TaskState.FAILED, error=error)
            stored = "".join([text async for text in store.read_text(record.id, "error")])
            assert record.error_size == len(stored.encode()) <= MAX_ERROR
            assert stored.startswith(str(record.error))
            assert (stored == error) == is_whole
            assert is_whole or stored.endswith(f"… (the first part of {len(error):,} characters)")


async def test_read_sees_one_state_of_the_database_while_others_write(database: Location) -> None:
    async with open_store(database) as store:
        await add_task(store)

        def count_twice(connection: Connection) -> list[object]:
            count = select(func.count(TASKS.c.number))
            first = connection.execute(count).scalar()
            trio.from_thread.run(add_task, store)
            return [first, connection.execute(count).scalar()]

        assert await store.read(count_twice) == [1, 1]
        assert len(await queued_tasks(store)) == 2


async def test_tasks_that_a_killed_daemon_ran_are_lost_at_the_next_start(database: Location) -> None:
    async with open_store(database) as store:
        running, queued = await add_task(store), await add_task(store)
        await store.mark_running(running.id, "d1", ATTEMPT, store.life)
        ended = await add_ended_task(store)
        await kill(store)
    async with open_store(database) as store:
        assert store.lost_at_start == 1
        lost = await store.get(running.id)
        assert lost is not None
        assert (lost.state, lost.device) == (TaskState.LOST, "d1")
        assert "it may have run" in str(lost.error)
        assert [await store.get(record.id) for record in (queued, ended)] == [queued, ended]
        assert await store.claim(Requirement(), store.life, 10) == [queued]
    async with open_store(database) as store:
        assert store.lost_at_start == 0


async def test_tasks_are_deleted_by_age_and_by_number_with_their_results(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.store.deletion, "MAX_DELETED", 2)
    now = NOW
    async with open_store(database, clock=lambda: now) as store:
        queued = await add_task(store)
        old = [await add_ended_task(store, result="1") for _ in range(5)]
        now += timedelta(days=2)
        new = [await add_ended_task(store, result="2") for _ in range(5)]
        assert await store.delete_old(NOW + timedelta(days=1), 100) == 5
        assert await store.delete_old(NOW + timedelta(days=1), 3) == 2
        assert [record.id for record in await store.page()] == [record.id for record in (*new[:1:-1], queued)]
        assert await read_result(store, old[0].id) == ""
        assert await store.delete_old(NOW, 3) == 0
        assert await store.read(lambda connection: connection.execute(select(func.count(RESULTS.c.part))).scalar()) == 3


async def test_cancelled_write_is_either_not_done_or_waited_for(database: Location) -> None:
    async with open_store(database) as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            await add_task(store, "never")
        assert scope.cancelled_caught
        records: list[TaskRecord] = []
        scopes: list[trio.CancelScope] = []

        async def add(number: int) -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                records.append(await add_task(store, f"task {number}"))

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(add, number)
            while not scopes:
                await trio.lowlevel.checkpoint()
            for scope in scopes:
                scope.cancel()
        # Each caller knows whether its task is on disk.
        assert {record.id for record in await queued_tasks(store)} == {record.id for record in records}


async def test_end_of_the_block_waits_for_accepted_writes_and_refuses_later_ones(database: Location) -> None:
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_store(database) as store:
                for number in range(20):
                    nursery.start_soon(add_task, store, f"task {number}")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        with pytest.raises(trio.ClosedResourceError):
            await add_task(store)
    async with open_store(database) as store:
        assert len(await queued_tasks(store)) == 20


_ADDS_UNTIL_KILLED = """
import pathlib, sys, trio
from galaxy_trio.daemon.store.location import PostgresqlLocation
from galaxy_trio.daemon.store.records import TaskRequest
from galaxy_trio.daemon.store.store import open_store

async def add(store):
    while True:
        record, _ = await store.add(TaskRequest("echo"))
        print(record.id, flush=True)

async def main():
    location = PostgresqlLocation(*sys.argv[1:]) if sys.argv[2:] else pathlib.Path(sys.argv[1])
    async with open_store(location) as store, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(add, store)

trio.run(main)
"""


def test_acknowledged_tasks_survive_a_killed_process(database: Location) -> None:
    arguments = [str(database)] if isinstance(database, Path) else [database.url, database.cluster]
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _ADDS_UNTIL_KILLED, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(100)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]

    async def look() -> set[str]:
        async with open_store(database) as store:
            return {record.id for record in await queued_tasks(store)}

    assert set(acknowledged) <= trio.run(look)
