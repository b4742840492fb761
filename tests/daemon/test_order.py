"""Tasks for a device begin in the order of acceptance, also when the device leaves and returns while one of them has its slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.daemon.store.store import Store
from galaxy_trio.testing.memory_fleet import open_memory_fleet
from tests.constellation.support.fleet import Work
from tests.daemon.support.task_queue import ended_tasks, open_life, submit
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.location import Location
    from galaxy_trio.daemon.store.records import TaskRecord

pytestmark = pytest.mark.daemon


@pytest.mark.parametrize("names_device", [True, False])
async def test_task_whose_device_is_back_before_it_is_queued_again_keeps_its_place(
    names_device: bool, database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work()
    device = "d1" if names_device else None
    mark_queued = Store.mark_queued

    async def mark_queued_when_the_device_is_back(
        self: Store, task_id: str, attempt: str, *, has_graph: bool
    ) -> TaskRecord:
        await fleet.start_device("d1")
        await until(lambda: life.constellation.devices["d1"].connected)
        # The daemon learns of everything that has happened, and the next task waits for the slot.
        await trio.testing.wait_all_tasks_blocked(0.01)
        return await mark_queued(self, task_id, attempt, has_graph=has_graph)

    monkeypatch.setattr(Store, "mark_queued", mark_queued_when_the_device_is_back)
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_life(database, fleet) as life:
            await ended_tasks(life, await submit(life, "echo 0", "d1"))
            # The daemon learns of it only when it sends the task on its idle connection.
            await fleet.kill_device("d1")
            tasks = [await submit(life, f"echo {number}", device) for number in range(1, 4)]
            await ended_tasks(life, *tasks)
    assert work.begun == ["echo 0", "echo 1", "echo 2", "echo 3"]
