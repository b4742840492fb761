"""A task's history: what happened to it, with times."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from galaxy_trio.daemon.store.departures import MAX_DEPARTURES
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.daemon.store.store import open_store
from galaxy_trio.daemon.web.history import history_of
from tests.daemon.support.daemon import open_daemon
from tests.daemon.support.store import ATTEMPT, NOW, add_task

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from galaxy_trio.daemon.store.location import Location
    from galaxy_trio.daemon.store.store import Store


def _ticking() -> Callable[[], datetime]:
    """A clock that is a second later each time."""
    ticks = iter(range(10_000))
    return lambda: NOW + timedelta(seconds=next(ticks))


async def _history(store: Store, task_id: str) -> list[str]:
    record = await store.get(task_id)
    assert record is not None
    entries = history_of(record, await store.departures(task_id))
    assert [entry["time"] for entry in entries] == sorted(str(entry["time"]) for entry in entries)
    return [f"{entry['event']} {entry.get('device', '')}".strip() for entry in entries]


async def test_history_names_each_device_that_had_left_before_the_task_ran(database: Location) -> None:
    async with open_store(database, clock=_ticking()) as store:
        task = await add_task(store)
        assert await _history(store, task.id) == ["accepted"]
        await store.mark_running(task.id, "d1", ATTEMPT, store.life)
        assert await _history(store, task.id) == ["accepted", "sent d1"]
        await store.mark_queued(task.id, ATTEMPT)
        assert await _history(store, task.id) == ["accepted", "sent d1", "returned d1"]
        await store.mark_running(task.id, "d2", ATTEMPT, store.life)
        await store.finish(task.id, ATTEMPT, store.life, TaskState.FAILED, error="no paper")
    async with open_store(database) as store:
        expected = ["accepted", "sent d1", "returned d1", "sent d2", "failed"]
        assert await _history(store, task.id) == expected


async def test_task_that_never_began_was_sent_nowhere(database: Location) -> None:
    async with open_store(database) as store:
        task = await add_task(store)
        await store.cancel_queued(task.id)
        assert await _history(store, task.id) == ["accepted", "cancelled"]


async def test_departure_that_is_newer_than_the_record_is_not_shown_twice(database: Location) -> None:
    async with open_store(database, clock=_ticking()) as store:
        task = await add_task(store)
        running = await store.mark_running(task.id, "d1", ATTEMPT, store.life)
        await store.mark_queued(task.id, ATTEMPT)
        entries = history_of(running, await store.departures(task.id))
    assert [entry["event"] for entry in entries] == ["accepted", "sent"]


async def test_only_the_latest_departures_are_kept_and_they_are_deleted_with_their_task(database: Location) -> None:
    async with open_store(database, clock=_ticking()) as store:
        task, other = await add_task(store), await add_task(store)
        for number in range(MAX_DEPARTURES + 5):
            for one in (task, other) if number < 2 else (task,):
                await store.mark_running(one.id, f"d{number}", ATTEMPT, store.life)
                await store.mark_queued(one.id, ATTEMPT)
        kept = [departure.device for departure in await store.departures(task.id)]
        assert kept == [f"d{number}" for number in range(5, MAX_DEPARTURES + 5)]
        assert [departure.device for departure in await store.departures(other.id)] == ["d0", "d1"]
        await store.cancel_queued(task.id)
        assert await store.delete_old(NOW + timedelta(days=1), 1) == 1
        assert (await store.departures(task.id), len(await store.departures(other.id))) == ([], 2)


async def test_a_tasks_history_is_part_of_the_whole_task_alone(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.wait_connected(1)
        task = await daemon.ended_task(await daemon.submit("echo x"))
        [listed] = (await daemon.ask("GET", "/tasks"))["tasks"]
    assert [entry["event"] for entry in task["history"]] == ["accepted", "sent", "completed"]
    times = [entry["time"] for entry in task["history"]]
    assert times == [task["created"], task["started"], task["ended"]]
    assert "history" not in listed
