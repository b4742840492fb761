"""The backlog on a real disk: queued tasks are claimed for a scheduler."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest

from galaxy_trio import open_constellation
from galaxy_trio.daemon.backlog import Backlog
from galaxy_trio.daemon.device_slots import DeviceState
from galaxy_trio.daemon.directory import Directory
from galaxy_trio.daemon.requirement_queue import READ_AHEAD
from galaxy_trio.daemon.scheduler import Scheduler
from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.store import Store, open_store
from tests.daemon.support.store import ATTEMPT, add_task, kill

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio.daemon.store.location import Location

pytestmark = pytest.mark.daemon

CONNECTED = DeviceState(connected=True, usable=True, known=True, os="linux", capabilities=frozenset())


@attrs.frozen
class Disk:
    """A store, a scheduler, and the backlog between them."""

    store: Store
    scheduler: Scheduler
    backlog: Backlog
    failed: list[TaskRecord]


@asynccontextmanager
async def open_disk(location: Location) -> AsyncGenerator[Disk]:
    scheduler = Scheduler()
    failed: list[TaskRecord] = []

    def on_change(record: TaskRecord) -> None:
        failed.append(record)
        scheduler.withdraw(record)

    async with open_store(location) as store, open_constellation([]) as constellation:
        backlog = Backlog(
            store, scheduler, Directory(constellation, "daemon"), store.life, on_change, lambda: None, 0.01
        )
        yield Disk(store, scheduler, backlog, failed)


async def test_every_task_is_claimed_once_in_order_and_no_more_than_there_is_room_for(database: Location) -> None:
    count = 5 * READ_AHEAD
    async with open_disk(database) as disk:
        added = [(await disk.store.add(TaskRequest(f"echo {number}", "a")))[0].id for number in range(count)]
        await disk.store.add(TaskRequest("echo other", "b"))
        await disk.store.count_queued(disk.scheduler.load)
        slots = disk.scheduler.add_device("a", 1, CONNECTED)
        taken: list[str] = []
        while len(taken) < count:
            for queue in disk.scheduler.check()[0]:
                await disk.backlog.change_claims(queue)
                assert queue.in_memory <= slots.size + READ_AHEAD
            step = [record.id for record, _ in disk.scheduler.take()]
            assert step, f"nothing was claimed after {len(taken)} tasks"
            taken += step
            for _ in step:
                disk.scheduler.release(slots)
    assert taken == added


async def test_tasks_that_a_killed_daemon_was_running_are_counted_as_lost_and_the_others_as_queued(
    database: Location,
) -> None:
    async with open_store(database) as store:
        running = await add_task(store, device="a")
        await store.mark_running(running.id, "a", ATTEMPT, store.life)
        claimed = await add_task(store, device="a")
        await store.add(TaskRequest("echo"))
        await kill(store)
    async with open_disk(database) as disk:
        assert disk.store.lost_at_start == 1
        await disk.store.count_queued(disk.scheduler.load)
        assert (disk.scheduler.queued, disk.scheduler.queued_for("a"), disk.scheduler.in_memory) == (2, 1, 0)
        assert await disk.store.claim(Requirement("a"), "another life", 10) == [claimed]


async def test_tasks_that_no_device_can_run_fail_until_a_fitting_device_appears(database: Location) -> None:
    async with open_disk(database) as disk:
        for name in ("a", "b"):
            await disk.store.add(TaskRequest("echo", name))
        await disk.store.count_queued(disk.scheduler.load)
        queues = disk.scheduler.check()[1]
        assert [queue.requirement for queue in queues] == [Requirement("a"), Requirement("b")]
        disk.scheduler.add_device("b", 1, CONNECTED)
        for queue in queues:
            await disk.backlog.fail_all(queue)
            assert not queue.failing
        assert [(task.asked.device, task.state) for task in disk.failed] == [("a", TaskState.FAILED)]
        assert disk.scheduler.queued_for("b") == 1


async def test_claimed_tasks_are_free_for_others_when_the_device_disconnects(database: Location) -> None:
    count = 5 * READ_AHEAD
    async with open_disk(database) as disk:
        for number in range(count):
            await disk.store.add(TaskRequest(f"echo {number}", "a"))
        await disk.store.count_queued(disk.scheduler.load)
        slots = disk.scheduler.add_device("a", READ_AHEAD, CONNECTED)
        [queue] = disk.scheduler.check()[0]
        await disk.backlog.change_claims(queue)
        assert queue.in_memory == 2 * READ_AHEAD
        taken = [record for record, _ in disk.scheduler.take()]
        assert disk.scheduler.check()[0] == [queue]
        disk.scheduler.change_device(slots, attrs.evolve(CONNECTED, connected=False))
        await disk.backlog.change_claims(queue)
        assert queue.in_memory == 0
        # Those that have a slot are free when they come back to their queue.
        assert len(await disk.store.claim(Requirement("a"), "another life", count)) == count - len(taken)
        for record in taken:
            disk.scheduler.release(slots)
            disk.scheduler.put_back(record)
        assert disk.scheduler.check()[0] == [queue]
        await disk.backlog.change_claims(queue)
        assert await disk.store.claim(Requirement("a"), "another life", count) == taken
        await disk.store.return_all_claims("another life")
        # A change that was requested while the device was there does nothing.
        await disk.backlog.change_claims(queue)
        assert queue.in_memory == 0
        disk.scheduler.change_device(slots, CONNECTED)
        assert disk.scheduler.check()[0] == [queue]
        await disk.backlog.change_claims(queue)
        assert next(iter(disk.scheduler.take()))[0] == taken[0]
