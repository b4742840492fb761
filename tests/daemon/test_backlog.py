"""The backlog on a real disk: queued tasks are claimed for a scheduler."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest

from galaxy_trio import open_constellation
from galaxy_trio.daemon.backlog import Backlog
from galaxy_trio.daemon.device_slots import DeviceState
from galaxy_trio.daemon.requirement_queue import READ_AHEAD
from galaxy_trio.daemon.scheduler import Scheduler
from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.store import Store, open_store

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
        backlog = Backlog(store, scheduler, constellation, "this life", on_change, lambda: None, 0.01)
        yield Disk(store, scheduler, backlog, failed)


async def test_every_task_is_claimed_once_in_order_and_no_more_than_fit_in_memory(database: Location) -> None:
    count = 5 * READ_AHEAD
    async with open_disk(database) as disk:
        added = [(await disk.store.add(TaskRequest(f"echo {number}", "a")))[0].id for number in range(count)]
        await disk.store.add(TaskRequest("echo other", "b"))
        assert await disk.backlog.load() == 0
        slots = disk.scheduler.add_device("a", 1, CONNECTED)
        taken: list[str] = []
        while len(taken) < count:
            for queue in disk.scheduler.check()[0]:
                await disk.backlog.claim(queue)
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
    async with open_disk(database) as disk:
        running, _ = await disk.store.add(TaskRequest("echo", "a"))
        await disk.store.mark_running(running.id, "a", "an attempt")
        await disk.store.add(TaskRequest("echo", "a"))
        await disk.store.add(TaskRequest("echo"))
        assert await disk.backlog.load() == 1
        assert (disk.scheduler.queued, disk.scheduler.queued_for("a"), disk.scheduler.in_memory) == (2, 1, 0)


async def test_tasks_that_no_device_can_run_fail_until_a_fitting_device_appears(database: Location) -> None:
    async with open_disk(database) as disk:
        for name in ("a", "b"):
            await disk.store.add(TaskRequest("echo", name))
        await disk.backlog.load()
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
        await disk.backlog.load()
        slots = disk.scheduler.add_device("a", READ_AHEAD, CONNECTED)
        [queue] = disk.scheduler.check()[0]
        await disk.backlog.claim(queue)
        assert queue.in_memory == 2 * READ_AHEAD
        taken = [record for record, _ in disk.scheduler.take()]
        assert disk.scheduler.check()[0] == [queue]
        disk.scheduler.change_device(slots, attrs.evolve(CONNECTED, connected=False))
        # The device has disconnected before these are claimed.
        await disk.backlog.claim(queue)
        [(_, surplus)] = disk.scheduler.take_surplus()
        assert queue.in_memory == 0
        await disk.backlog.return_claims(queue, surplus)
        # Those that have a slot are free when they come back to their queue.
        assert len(await disk.store.claim(Requirement("a"), "another life", count)) == count - len(taken)
        await disk.store.return_claims("another life")
        for record in taken:
            disk.scheduler.release(slots)
            disk.scheduler.put_back(record)
        [(_, surplus)] = disk.scheduler.take_surplus()
        await disk.backlog.return_claims(queue, surplus)
        disk.scheduler.change_device(slots, CONNECTED)
        assert disk.scheduler.check()[0] == [queue]
        await disk.backlog.claim(queue)
        assert next(iter(disk.scheduler.take()))[0].number == 1
