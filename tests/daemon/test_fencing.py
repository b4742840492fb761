"""What a daemon does late is refused: it begins no task on a device that it has lost, and ends none that was taken over."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio.daemon.backlog
import galaxy_trio.daemon.task_queue
from galaxy_trio.daemon.backlog import Backlog
from galaxy_trio.daemon.device_slots import DeviceState
from galaxy_trio.daemon.scheduler import Scheduler
from galaxy_trio.daemon.store import takeover
from galaxy_trio.daemon.store.records import TaskRequest, TaskState
from galaxy_trio.daemon.store.store import open_store
from galaxy_trio.testing.memory_fleet import open_memory_fleet
from tests.constellation.support.fleet import Work
from tests.daemon.support.small_cluster import open_member
from tests.daemon.support.task_queue import ended_tasks, open_life, submit
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.daemon.store.location import Location, PostgresqlLocation
    from galaxy_trio.daemon.store.records import TaskRecord

pytestmark = pytest.mark.daemon


async def test_no_task_begins_on_a_device_that_has_another_owner_now(
    database: Location, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.task_queue, "_RETRY_DELAY", 0.01)
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_life(database, fleet) as life:
            await ended_tasks(life, await submit(life, "echo before"))
            await life.store.release_devices(life.store.life, ["d1"], ())
            late = await submit(life, "echo late")
            await until(lambda: "this daemon does not own the device 'd1' any more" in caplog.text)
            assert (await life.store.existing(late.id)).state is TaskState.QUEUED
    assert work.begun == ["echo before"]


async def test_end_of_a_task_that_was_taken_over_is_dropped(database: Location) -> None:
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_life(database, fleet) as life:
            held = await submit(life, "hold a")
            await until(lambda: life.task_queue.running == 1)
            # Another daemon finds this one dead.
            await life.store.write(partial(takeover.end_life, life=life.store.life))
            work.release("a")
            await until(lambda: life.task_queue.running == 0)
            await until(lambda: not life.task_queue._attempts._attempts)
            record = await life.store.existing(held.id)
            assert record.state is TaskState.LOST
            assert record.result_size is None


async def test_tasks_do_not_fail_before_the_devices_of_the_cluster_were_read_again(
    location: PostgresqlLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.backlog, "_REPORT_TIME", 0.01)
    failed: list[TaskRecord] = []
    scheduler = Scheduler(is_alone=False)

    class _Directory:
        reads = 0

        async def refresh(self) -> None:
            await trio.lowlevel.checkpoint()
            self.reads += 1
            if self.reads == 2:
                # The other daemon knew it when it accepted the task.
                state = DeviceState(connected=False, usable=True, known=False, os=None, capabilities=frozenset())
                scheduler.add_device("new", 0, state)

        def reason_to_fail(self, _requirement: object) -> str:
            return "device 'new' was removed"

    directory = _Directory()
    async with open_store(location) as store:
        backlog = Backlog(store, scheduler, directory, store.life, failed.append, lambda: None, 0.01)  # type: ignore[arg-type]
        await store.add(TaskRequest("echo", "new"))
        await store.count_queued(scheduler.load)
        directory.reads = 1
        [queue] = scheduler.check()[1]
        await backlog.fail_all(queue)
        assert not failed
        assert not queue.failing


async def test_each_device_is_registered_by_the_name_of_the_cluster_so_that_its_server_refuses_a_second_owner(
    tmp_path: Path, location: PostgresqlLocation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with open_member(tmp_path, location, "a", "d1") as daemon:
        await daemon.wait_connected(1)
    assert f"constellation '{location.cluster}@d1' has registered" in caplog.text
