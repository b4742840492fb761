"""Claims: a queued task is begun by the daemon that has claimed it, and by no other one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from sqlalchemy import create_engine, text
from trio.testing import wait_all_tasks_blocked

from galaxy_trio.daemon.requirement_queue import NONE, READ_AHEAD
from galaxy_trio.daemon.store import statements
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.location import POSTGRESQL, PostgresqlLocation
from galaxy_trio.daemon.store.queries import WrongState
from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.rows import requirement_columns
from galaxy_trio.daemon.store.store import Store, open_store
from galaxy_trio.testing.memory_fleet import MemoryFleet, open_memory_fleet
from tests.constellation.support.fleet import Work
from tests.daemon.support.store import ATTEMPT, add_task, kill
from tests.daemon.support.task_queue import Life, ended_tasks, open_life, open_life_on, submit
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio.daemon.store.location import Location

pytestmark = pytest.mark.daemon

SECONDS = 12
FIRST, ANOTHER = "first life", "another life"


async def test_claimed_task_is_begun_and_ended_by_the_life_that_claimed_it_alone(database: Location) -> None:
    async with open_store(database) as store:
        record, _ = await store.add(TaskRequest("echo"))
        for claimed in (False, True):
            for life in (ANOTHER,) if claimed else (store.life, ANOTHER):
                with pytest.raises(WrongState, match="is queued"):
                    await store.mark_running(record.id, "d1", ATTEMPT, life)
                with pytest.raises(WrongState, match="is queued"):
                    await store.finish(record.id, ATTEMPT, life, TaskState.FAILED)
            if not claimed:
                assert await store.claim(Requirement(), store.life, 10) == [record]
        await store.mark_running(record.id, "d1", ATTEMPT, store.life)
        # It is still claimed when it goes back to its queue.
        await store.mark_queued(record.id, ATTEMPT)
        assert await store.claim(Requirement(), ANOTHER, 10) == []
        await store.mark_running(record.id, "d1", ATTEMPT, store.life)
        assert (await store.finish(record.id, ATTEMPT, store.life, TaskState.COMPLETED)).state is TaskState.COMPLETED


async def test_claims_are_returned_by_their_life_alone_and_not_those_of_running_tasks(database: Location) -> None:
    async with open_store(database) as store:
        running, *queued = [await add_task(store) for _ in range(4)]
        await store.mark_running(running.id, "d1", ATTEMPT, store.life)
        numbers = [task.number for task in (running, *queued)]
        await store.return_claims(ANOTHER, numbers)
        await store.return_all_claims(ANOTHER)
        assert await store.claim(Requirement(), ANOTHER, 10) == []
        await store.return_claims(store.life, numbers[:2])
        assert await store.claim(Requirement(), ANOTHER, 10) == queued[:1]
        await store.return_all_claims(store.life)
        assert await store.claim(Requirement(), ANOTHER, 10) == queued[1:]
        assert (await store.finish(running.id, ATTEMPT, store.life, TaskState.COMPLETED)).state is TaskState.COMPLETED


async def test_task_that_has_ended_is_claimed_by_no_life(database: Location) -> None:
    async def claimed() -> list[str]:
        ids = text("SELECT id FROM tasks WHERE claimed_by IS NOT NULL")
        return list(await store.read(lambda connection: connection.execute(ids).scalars().all()))

    async with open_store(database) as store:
        ended, cancelled, failed = [await add_task(store) for _ in range(3)]
        assert len(await claimed()) == 3
        await store.mark_running(ended.id, "d1", ATTEMPT, store.life)
        await store.finish(ended.id, ATTEMPT, store.life, TaskState.COMPLETED)
        await store.cancel_queued(cancelled.id)
        assert [record.id for record in await store.fail_queued(Requirement(), "no device", 10)] == [failed.id]
        assert await claimed() == []
        lost = await add_task(store)
        await store.mark_running(lost.id, "d1", ATTEMPT, store.life)
        await add_task(store)
        await store.end_life()
        assert (await store.existing(lost.id)).state is TaskState.LOST
        assert await claimed() == []


async def test_task_that_another_transaction_is_claiming_or_failing_is_left_out_without_waiting(
    location: PostgresqlLocation,
) -> None:
    engine = create_engine(location.url.replace("postgresql://", POSTGRESQL))
    values = {"me": ANOTHER, "limit": 1} | requirement_columns(Requirement())
    async with open_store(location) as store:
        first, second, third = [(await store.add(TaskRequest("echo")))[0] for _ in range(3)]
        with engine.connect() as connection:
            connection.exec_driver_sql(f'SET search_path = "{location.cluster}"')
            connection.execute(statements.CLAIM, values)
            assert await store.claim(Requirement(), store.life, 1) == [second]
            assert [record.id for record in await store.fail_queued(Requirement(), "no device", 1)] == [second.id]
            connection.commit()
        assert await store.claim(Requirement(), store.life, 10) == [third]
        assert (await store.mark_running(first.id, "d1", ATTEMPT, ANOTHER)).state is TaskState.RUNNING
    engine.dispose()


@asynccontextmanager
async def _open_two(location: Location, *fleets: MemoryFleet) -> AsyncGenerator[tuple[Life, Life]]:
    """Two task queues on one database, each with devices of its own. Each change of one is reported to the other."""
    lives: list[Life] = []

    def report_to(place: int, record: TaskRecord) -> None:
        lives[place].task_queue.report(record)

    async with (
        open_store(location) as store,
        open_life_on(store, fleets[0], lambda record: report_to(1, record), name=FIRST) as first,
        open_life_on(store, fleets[1], lambda record: report_to(0, record), name=ANOTHER) as second,
    ):
        lives += first, second
        # A task for a device of the other one must not fail.
        with first.task_queue.reconfiguring(), second.task_queue.reconfiguring():
            for life, fleet in zip(lives, fleets, strict=True):
                for device in fleet.running:
                    await ended_tasks(life, await submit(life, "echo", device))
            yield first, second


async def test_two_daemons_share_the_tasks_and_none_begins_twice(database: Location) -> None:
    work = Work()
    count = 5 * READ_AHEAD
    with trio.fail_after(SECONDS):
        async with (
            open_memory_fleet("d1", session=work) as fleet,
            open_memory_fleet("d2", session=work) as other_fleet,
            _open_two(database, fleet, other_fleet) as (first, second),
        ):
            held = [await submit(life, f"hold {name}", name) for life, name in ((first, "d1"), (second, "d2"))]
            await until(lambda: len(work.begun) == 4)
            tasks = [await submit(first if number % 3 else second, f"echo {number}") for number in range(count)]
            for life in (first, second):
                assert (life.task_queue.queued, life.task_queue.running) == (count, 1)
                assert life.task_queue.in_memory <= 1 + READ_AHEAD
            work.release("d1", "d2")
            for life in (second, first):
                ended = await ended_tasks(life, *held, *tasks)
                assert {task.state for task in ended} == {TaskState.COMPLETED}
                assert {task.device for task in ended} == {"d1", "d2"}
                assert (life.task_queue.queued, life.task_queue.in_memory) == (0, 0)
    assert len(set(work.begun)) == len(work.begun) - 1 == 3 + count


async def test_task_that_one_daemon_accepts_is_run_by_another_which_alone_has_a_device(database: Location) -> None:
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1") as fleet, open_memory_fleet("d2") as other_fleet:
            await fleet.kill_device("d1")
            async with _open_two(database, fleet, other_fleet) as (first, second):
                tasks = [await submit(first, f"echo {number}") for number in range(3)]
                assert [task.device for task in await ended_tasks(first, *tasks)] == ["d2"] * 3
                assert first.changes[-1].state is TaskState.QUEUED
                assert second.task_queue.queued == first.task_queue.queued == 0


async def test_claims_of_a_daemon_whose_device_leaves_are_taken_over_by_another(database: Location) -> None:
    work = Work()
    with trio.fail_after(SECONDS):
        async with (
            open_memory_fleet("d1", session=work) as fleet,
            open_memory_fleet("d2", session=work) as other_fleet,
            _open_two(database, fleet, other_fleet) as (first, second),
        ):
            held = [await submit(life, f"hold {name}", name) for life, name in ((first, "d1"), (second, "d2"))]
            await until(lambda: len(work.begun) == 4)
            tasks = [await submit(first, f"echo {number}") for number in range(READ_AHEAD)]
            # Where others could run them, they are claimed only for a free slot.
            assert first.task_queue.in_memory == (0 if first.store.is_shared else READ_AHEAD)
            work.release("d2")
            await ended_tasks(second, held[1])
            await fleet.kill_device("d1")
            await until(lambda: first.task_queue.in_memory == 0)
            second.task_queue.look_for_free()
            assert {task.device for task in await ended_tasks(first, *tasks)} == {"d2"}


async def test_task_that_another_daemon_cancels_leaves_the_memory_of_the_one_that_has_claimed_it(
    database: Location,
) -> None:
    work = Work()
    with trio.fail_after(SECONDS):
        async with (
            open_memory_fleet("d1", session=work) as fleet,
            open_memory_fleet("d2", session=work) as other_fleet,
            _open_two(database, fleet, other_fleet) as (first, second),
        ):
            await submit(first, "hold d1", "d1")
            await until(lambda: work.begun[2:] == ["hold d1"])
            claimed, later = [await submit(first, f"echo {number}", "d1") for number in range(2)]
            assert (first.task_queue.in_memory, second.task_queue.queued_for("d1")) == (2, 2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ended_tasks, first, claimed)
                await trio.testing.wait_all_tasks_blocked()
                assert (await second.task_queue.cancel(claimed.id)).state is TaskState.CANCELLED
            assert (first.task_queue.in_memory, first.task_queue.queued_for("d1")) == (1, 1)
            work.release("d1")
            await ended_tasks(first, later)
    assert work.begun[2:] == ["hold d1", "echo 1"]


async def test_task_whose_claim_was_lost_does_not_begin_before_it_is_claimed_again(database: Location) -> None:
    work = Work()
    with trio.fail_after(SECONDS):
        async with (
            open_memory_fleet("d1", session=work) as fleet,
            open_store(database) as store,
            open_life_on(store, fleet, name=FIRST) as life,
        ):
            held = await submit(life, "hold d1")
            await until(lambda: work.begun == ["hold d1"])
            taken, other = [await submit(life, f"echo {number}") for number in range(2)]
            await store.return_claims(FIRST, [taken.number])
            assert await store.claim(Requirement(), ANOTHER, 1) == [taken]
            work.release("d1")
            await ended_tasks(life, held, other)
            assert (await store.existing(taken.id)).state is TaskState.QUEUED
            assert (life.task_queue.queued, life.task_queue.in_memory) == (1, 0)
            await store.return_all_claims(ANOTHER)
            life.task_queue.look_for_free()
            await ended_tasks(life, taken)
    assert work.begun == ["hold d1", "echo 1", "echo 0"]


async def test_claims_are_returned_when_a_drain_begins_and_those_of_late_tasks_when_it_ends(
    database: Location,
) -> None:
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_store(database) as store:
            async with open_life_on(store, fleet, name=FIRST) as life, trio.open_nursery() as nursery:
                held = await submit(life, "hold d1")
                await until(lambda: work.begun == ["hold d1"])
                queued = await submit(life, "echo")
                nursery.start_soon(life.task_queue.drain, SECONDS)
                claimed: list[TaskRecord] = []
                while not claimed:
                    claimed = await store.claim(Requirement(), ANOTHER, 10)
                assert claimed == [queued]
                assert life.task_queue.running == 1
                late, _ = await store.add(TaskRequest("late"), claimed_by=FIRST)
                work.release("d1")
                await ended_tasks(life, held)
            assert await store.claim(Requirement(), ANOTHER, 10) == [late]


async def test_drain_waits_for_a_task_whose_begin_is_being_written(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_written, answer = trio.Event(), trio.Event()
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_store(database) as store:
            begin = store.begin

            async def begin_and_wait(*arguments: Any) -> TaskRecord:
                record = await begin(*arguments)
                is_written.set()
                await answer.wait()
                return record

            monkeypatch.setattr(store, "begin", begin_and_wait)
            async with open_life_on(store, fleet, name=FIRST) as life, trio.open_nursery() as nursery:
                task = await submit(life, "echo")
                await is_written.wait()
                nursery.start_soon(life.task_queue.drain, SECONDS)
                await wait_all_tasks_blocked()
                # Behind the write of the drain.
                await add_task(store)
                await wait_all_tasks_blocked()
                answer.set()
            assert (await store.existing(task.id)).state is TaskState.COMPLETED


async def test_claims_of_a_killed_daemon_are_freed_at_the_next_start(database: Location) -> None:
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet:
            async with open_store(database) as store:
                task = await add_task(store)
                await kill(store)
            async with open_life(database, fleet) as life:
                [ended] = await ended_tasks(life, task)
    assert ended.state is TaskState.COMPLETED


async def test_task_for_an_idle_device_is_claimed_begun_and_ended_by_one_commit_each(database: Location) -> None:
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1") as fleet, open_life(database, fleet) as life:
            await ended_tasks(life, await submit(life, "echo"))
            # If the device was not connected yet, it was claimed later, and then another claim found that there are no more.
            queues = life.task_queue._scheduler.queues.values()
            await until(lambda: all(queue.next_rank == NONE and not queue.changing for queue in queues))
            for _ in range(2):
                before = life.store.commits
                [ended] = await ended_tasks(life, await submit(life, "echo"))
                assert life.store.commits - before == 3
                await ended_tasks(life, await life.task_queue.retry(ended.id))
                assert life.store.commits - before == 6


async def test_task_of_a_higher_priority_begins_before_those_that_a_device_has_claimed(database: Location) -> None:
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_life(database, fleet) as life:
            tasks = [await submit(life, "hold first", "d1")]
            await until(lambda: life.task_queue.running == 1)
            tasks += [await submit(life, f"echo {number}") for number in range(2 * READ_AHEAD)]
            urgent = [
                (await life.task_queue.submit(TaskRequest(f"echo urgent {priority}", device, priority=priority)))[0]
                for device in ("d1", None)
                for priority in range(1, READ_AHEAD)
            ]
            await until(lambda: life.task_queue.in_memory <= 2 * (READ_AHEAD + 1))
            work.release("first")
            await ended_tasks(life, *tasks, *urgent)
    by_priority = [f"echo urgent {priority}" for priority in range(READ_AHEAD - 1, 0, -1) for _ in range(2)]
    assert work.begun == ["hold first", *by_priority, *(f"echo {number}" for number in range(2 * READ_AHEAD))]


async def test_claims_that_cannot_be_returned_at_the_end_are_reported_and_freed_by_the_next_start(
    database: Location, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_store: Store, _life: str) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("the disk is full")

    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=Work()) as fleet:
            with monkeypatch.context() as patch:
                patch.setattr(Store, "return_all_claims", fail)
                async with open_life(database, fleet) as life:
                    await submit(life, "hold d1")
                    await until(lambda: life.task_queue.running == 1)
                    queued = await submit(life, "echo", "d1")
                    await kill(life.store)
            assert caplog.messages == ["queued tasks stay claimed until the end of this daemon: the disk is full"]
            async with open_life(database, fleet) as life:
                await ended_tasks(life, queued)
