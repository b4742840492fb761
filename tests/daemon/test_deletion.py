"""The deletion of old tasks."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio.daemon.run
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import Store
from tests.daemon.support.daemon import open_daemon
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.daemon


async def test_old_tasks_are_deleted_by_number_and_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.run, "_DELETE_INTERVAL", 0.02)
    async with open_daemon(tmp_path, "d1", settings="keep_tasks = 2") as daemon:
        tasks = [await daemon.submit(f"echo {number}") for number in range(4)]
        for task in tasks[2:]:
            await daemon.ended_task(task)
        for task in tasks[:2]:
            while (await daemon.client.get(f"/tasks/{task}")).status_code != 404:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert await daemon.state(tasks[2]) == "completed"
    with sqlite3.connect(tmp_path / "galaxy.db") as database:
        database.execute("UPDATE tasks SET ended = ?", [(datetime.now(UTC) - timedelta(days=31)).timestamp()])
    database.close()
    async with open_daemon(tmp_path, "d1") as daemon:
        while (await daemon.ask("GET", "/tasks"))["tasks"]:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_failing_deletion_of_old_tasks_is_logged_and_tasks_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> int:
        await trio.lowlevel.checkpoint()
        raise StoreError("the disk fails")

    monkeypatch.setattr(Store, "delete_old", fail)
    async with open_daemon(tmp_path, "d1") as daemon:
        await until(lambda: "old tasks cannot be deleted: the disk fails" in caplog.text)
        assert (await daemon.ended_task(await daemon.submit("echo a")))["state"] == "completed"
