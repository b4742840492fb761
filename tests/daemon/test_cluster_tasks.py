"""Tasks of a cluster: any daemon waits for and cancels those of another, none waits while a device is idle, and a lease may be lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio.daemon.task_queue
from galaxy_trio.daemon.task_queue import TaskQueue
from tests.constellation.support.fleet import Work
from tests.daemon.support.listener import listen
from tests.daemon.support.small_cluster import open_pair, wait_owners

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.daemon.store.location import PostgresqlLocation
    from tests.daemon.support.postgresql import PostgresqlServer

pytestmark = pytest.mark.daemon


async def test_queued_task_that_another_daemon_has_claimed_is_cancelled_immediately(
    tmp_path: Path, location: PostgresqlLocation
) -> None:
    work = Work()
    async with open_pair(tmp_path, location, work) as (first, second, far):
        held = await second.submit("hold first", far)
        await second.wait_state(held, "running")
        queued = [await second.submit(f"echo {number}", far) for number in range(3)]
        answer = await first.ask("DELETE", f"/tasks/{queued[1]}")
        assert answer["state"] == "cancelled"
        work.release("first")
        states = [(await first.ended_task(task))["state"] for task in (held, *queued)]
        assert states == ["completed", "completed", "cancelled", "completed"]
    assert sorted(work.begun) == ["echo 0", "echo 2", "hold first"]


async def test_cancelling_a_task_that_its_daemon_does_not_stop_in_time_is_answered_with_202(
    tmp_path: Path, location: PostgresqlLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.task_queue, "_CANCEL_TIMEOUT", 0.2)
    monkeypatch.setattr(galaxy_trio.daemon.task_queue, "_CANCEL_INTERVAL", 0.1)
    go_on = trio.Event()
    cancel_here = TaskQueue.cancel_here

    async def cancel_late(task_queue: TaskQueue, task_id: str) -> None:
        if task_id in task_queue._attempts._attempts:
            await go_on.wait()
        await cancel_here(task_queue, task_id)

    work = Work()
    async with open_pair(tmp_path, location, work) as (first, second, far):
        held = await first.submit("hold first", far)
        await first.wait_state(held, "running")
        monkeypatch.setattr(TaskQueue, "cancel_here", cancel_late)
        answer = await first.ask("DELETE", f"/tasks/{held}", 202)
        assert answer["state"] == "running"
        go_on.set()
        assert (await second.ended_task(held))["state"] == "cancelled"


async def test_no_task_waits_at_a_busy_daemon_while_another_has_an_idle_device(
    tmp_path: Path, location: PostgresqlLocation
) -> None:
    work = Work()
    async with open_pair(tmp_path, location, work) as (first, _second, _far):
        # All are accepted by one daemon, which has one slot.
        held = [await first.submit(f"hold {number}", None) for number in range(2)]
        for task in held:
            await first.wait_state(task, "running")
        waiting = [await first.submit(f"echo {number}", None) for number in range(5)]
        work.release("1")
        for task in waiting:
            assert (await first.ended_task(task))["state"] == "completed"
        assert await first.state(held[0]) == "running"
        work.release("0")
        assert (await first.ended_task(held[0]))["state"] == "completed"


async def test_events_of_all_daemons_are_read_and_resumed_at_any(tmp_path: Path, location: PostgresqlLocation) -> None:
    async with open_pair(tmp_path, location) as (first, second, far):
        async with listen(first) as listener:
            task = await first.submit("echo a", far)
            await listener.until("task", id=task, state="queued")
        await first.ended_task(task)
        async with listen(second, listener.last_id) as again:
            await again.until("task", id=task, state="running")
            await again.until("task", id=task, state="completed")


async def test_daemon_that_is_found_dead_begins_a_new_life_and_its_running_task_is_lost(
    tmp_path: Path, location: PostgresqlLocation, postgresql: PostgresqlServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    work = Work()
    async with open_pair(tmp_path, location, work) as (first, second, far):
        held = await second.submit("hold first", far)
        await second.wait_state(held, "running")
        before = {entry["name"]: entry["id"] for entry in (await first.ask("GET", "/cluster"))["daemons"]}
        # As if its renewals did not arrive in time.
        expire = f'UPDATE "{location.cluster}".daemons SET expires = 0 WHERE id = %s RETURNING died'  # noqa: S608
        while postgresql.execute(expire, before["b"]) == [(None,)]:  # noqa: ASYNC110  # HTTP has no event for it
            await trio.sleep(0.01)
        assert (await first.ended_task(held))["state"] == "lost"
        while True:
            answer = await second.client.get("/cluster")
            alive = {entry["name"]: entry["id"] for entry in answer.json().get("daemons", ()) if entry["died"] is None}
            if alive.get("b", before["b"]) != before["b"]:
                break
            await trio.sleep(0.02)
        assert alive["a"] == before["a"]
        await wait_owners(second, "a", "b")
        await second.wait_connected(2)
        assert (await second.ended_task(await first.submit("echo a", far)))["state"] == "completed"
    assert "another daemon found that the lease of this one had expired" in caplog.text
    assert "the daemon has a new lease" in caplog.text
