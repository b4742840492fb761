"""A task that is submitted again with its idempotency key is found, also when the daemon accepts no tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import galaxy_trio.daemon.scheduler
from tests.daemon.support.daemon import open_daemon
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.daemon, pytest.mark.usefixtures("each_database")]

BODY = {"request": "echo b", "device": "d1", "idempotency_key": "k"}


async def test_full_queue_returns_the_task_that_was_accepted_with_the_key(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", settings="max_queued = 1") as daemon:
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        accepted = await daemon.ask("POST", "/tasks", 202, json=BODY)
        assert await daemon.ask("POST", "/tasks", json=BODY) == accepted
        # Other tasks are refused, and so is another request with this key.
        await daemon.ask("POST", "/tasks", 503, json={"request": "echo c", "device": "d1"})
        await daemon.ask("POST", "/tasks", 503, json={**BODY, "idempotency_key": "another"})
        answer = await daemon.ask("POST", "/tasks", 409, json={**BODY, "request": "echo c"})
        assert "the idempotency key 'k' belongs to task" in answer["error"]
        await daemon.ask("POST", "/tasks", 409, json={**BODY, "priority": 1})
        assert await daemon.ask("POST", "/tasks", json={**BODY, "priority": 0}) == accepted
        daemon.work.release("a")
        await daemon.ended_task(accepted["id"])
        assert daemon.work.begun == ["hold a", "echo b"]


async def test_stopping_daemon_returns_the_task_that_was_accepted_with_the_key(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", drain=SECONDS) as daemon:
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        accepted = await daemon.ask("POST", "/tasks", 202, json=BODY)
        daemon.stop.set()
        await daemon.wait_stopping()
        assert (await daemon.ask("POST", "/tasks", json=BODY))["id"] == accepted["id"]
        await daemon.ask("POST", "/tasks", 503, json={**BODY, "idempotency_key": "another"})
        daemon.work.release("a")


async def test_removed_device_and_too_many_requirements_do_not_hide_an_accepted_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_daemon(tmp_path, "d1", "d2") as daemon:
        await daemon.wait_connected(2)
        shared = {"request": "echo c", "os": "linux", "idempotency_key": "shared"}
        tasks = [await daemon.ask("POST", "/tasks", 202, json=body) for body in (BODY, shared)]
        for task in tasks:
            await daemon.ended_task(task["id"])
        daemon.devices("d2")
        await daemon.reload()
        while len((await daemon.ask("GET", "/devices"))["devices"]) > 1:
            pass
        assert (await daemon.ask("POST", "/tasks", json=BODY))["id"] == tasks[0]["id"]
        monkeypatch.setattr(galaxy_trio.daemon.scheduler, "MAX_QUEUES", 0)
        daemon.work.begun.clear()
        again = {**shared, "os": "linux"}
        assert (await daemon.ask("POST", "/tasks", json=again))["id"] == tasks[1]["id"]
        assert daemon.work.begun == []


async def test_long_requests_with_the_same_beginning_are_different(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        body = {**BODY, "request": "echo " + "x" * 5_000}
        accepted = await daemon.ask("POST", "/tasks", 202, json=body)
        assert (await daemon.ask("POST", "/tasks", json=body))["id"] == accepted["id"]
        await daemon.ask("POST", "/tasks", 409, json={**body, "request": body["request"] + "y"})
