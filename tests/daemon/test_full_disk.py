"""The daemon with a full disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio.daemon.task_queue
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import Store
from tests.daemon.support.daemon import open_daemon
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from galaxy_trio.messages import JSON

pytestmark = pytest.mark.daemon


class _Disk:
    """Makes methods of the store fail while `full` is true."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.full = False
        self.failed = 0
        for name in names:
            monkeypatch.setattr(Store, name, self._failing(getattr(Store, name)))
        monkeypatch.setattr(galaxy_trio.daemon.task_queue, "_RETRY_DELAY", 0.01)

    def _failing(self, method: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def fail(*arguments: object, **keywords: object) -> object:
            if self.full:
                self.failed += 1
                await trio.lowlevel.checkpoint()
                raise StoreError("the database failed: the disk is full")
            return await method(*arguments, **keywords)

        return fail


async def test_full_disk_refuses_new_tasks_and_accepted_ones_run_once_when_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = _Disk(monkeypatch, "add", "begin")
    async with open_daemon(tmp_path, "d1") as daemon:
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        queued = await daemon.submit("echo b")
        disk.full = True
        body: dict[str, JSON] = {"request": "echo c", "device": "d1"}
        assert "the disk is full" in (await daemon.ask("POST", "/tasks", 507, json=body))["error"]
        daemon.work.release("a")
        await until(lambda: disk.failed >= 4)
        assert await daemon.state(queued) == "queued"
        disk.full = False
        assert (await daemon.ended_task(queued))["state"] == "completed"
    assert daemon.work.begun == ["hold a", "echo b"]


async def test_end_of_a_task_is_written_when_there_is_space_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = _Disk(monkeypatch, "finish")
    async with open_daemon(tmp_path, "d1") as daemon:
        disk.full = True
        task_id = await daemon.submit("echo a")
        await until(lambda: disk.failed >= 3)
        # The slot is free: the pending write delays no other task.
        assert await daemon.state(task_id) == "running"
        other = await daemon.submit("hold b")
        await daemon.wait_state(other, "running")
        disk.full = False
        daemon.work.release("b")
        await daemon.wait_state(task_id, "completed")
        assert (await daemon.ended_task(other))["state"] == "completed"
