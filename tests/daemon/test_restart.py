"""Tasks that outlive the daemon that accepted them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from galaxy_trio.daemon.store.store import Store
from tests.daemon.support.daemon import open_daemon

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = [pytest.mark.daemon, pytest.mark.usefixtures("each_database")]


async def test_tasks_queued_when_the_daemon_stops_run_in_order_with_the_next_daemon(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        queued = [await daemon.submit(f"echo {number}") for number in range(20)]
        daemon.work.release("a")
        daemon.stop.set()
    done = len(daemon.work.begun)
    async with open_daemon(tmp_path, "d1") as daemon:
        assert [(await daemon.ended_task(task))["state"] for task in queued] == ["completed"] * 20
        assert daemon.work.begun == [f"echo {number}" for number in range(done - 1, 20)]
        assert (await daemon.ended_task(held))["state"] == "completed"


async def test_tasks_running_when_the_daemon_stops_may_end_and_are_lost_after_the_drain_time(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", "d2") as daemon:
        patient, stuck = await daemon.submit("hold a"), await daemon.submit("wait", "d2")
        await daemon.wait_state(patient, "running")
        await daemon.wait_state(stuck, "running")
        daemon.stop.set()
        await daemon.wait_stopping()
        assert (
            "is stopping"
            in (await daemon.ask("POST", "/tasks", 503, json={"request": "echo late", "device": "d1"}))["error"]
        )
        assert (await daemon.ask("GET", "/ready", 503))["problem"] == "the daemon is stopping"
        daemon.work.release("a")
    assert daemon.work.cancelled == ["wait"]
    async with open_daemon(tmp_path, "d1", "d2") as daemon:
        assert (await daemon.ended_task(patient))["state"] == "completed"
        lost = await daemon.ended_task(stuck)
        assert (lost["state"], daemon.work.begun) == ("lost", [])
        assert "it may have run" in lost["error"]


async def test_tasks_running_when_the_daemon_is_killed_are_lost_and_do_not_begin_again(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        running = await daemon.submit("wait")
        queued = await daemon.submit("echo b")
        await daemon.wait_state(running, "running")
        await daemon.kill()
    async with open_daemon(tmp_path, "d1") as daemon:
        lost = await daemon.ended_task(running)
        assert (lost["state"], (await daemon.ended_task(queued))["state"]) == ("lost", "completed")
        assert "ended or lost its lease while the task ran: it may have run" in lost["error"]
        assert daemon.work.begun == ["echo b"]


async def test_wait_that_begins_before_the_start_is_complete_returns_the_lost_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_queued, asked = Store.count_queued, trio.Event()

    async def count_late(*arguments: Any) -> int:  # Any: those of the store's method
        await asked.wait()
        # The request has arrived.
        await trio.testing.wait_all_tasks_blocked(0.05)
        return await count_queued(*arguments)

    async with open_daemon(tmp_path, "d1") as daemon:
        running = await daemon.submit("wait")
        await daemon.wait_state(running, "running")
        await daemon.kill()
    monkeypatch.setattr(Store, "count_queued", count_late)
    async with open_daemon(tmp_path, "d1") as daemon, trio.open_nursery() as nursery:

        async def wait() -> None:
            task = await daemon.ask("GET", f"/tasks/{running}", params={"wait": 300})
            assert task["state"] == "lost"

        nursery.start_soon(wait)
        asked.set()
