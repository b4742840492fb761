"""The deletion of old tasks."""

from __future__ import annotations

import math
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trio
from sqlalchemy import update

import galaxy_trio.daemon.life
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.schema import TASKS
from galaxy_trio.daemon.store.store import Store, open_store
from tests.daemon.support.daemon import open_daemon
from tests.daemon.support.store import add_ended_task
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.daemon.store.location import Location


pytestmark = pytest.mark.daemon


@pytest.mark.usefixtures("each_database")
async def test_old_tasks_are_deleted_by_number_and_by_age(
    tmp_path: Path, database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.life, "_DELETE_INTERVAL", 0.02)
    async with open_daemon(tmp_path, "d1", settings="keep_tasks = 2") as daemon:
        tasks = [await daemon.submit(f"echo {number}") for number in range(4)]
        for task in tasks[2:]:
            await daemon.ended_task(task)
        for task in tasks[:2]:
            while (await daemon.client.get(f"/tasks/{task}")).status_code != 404:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert await daemon.state(tasks[2]) == "completed"
    ended = (datetime.now(UTC) - timedelta(days=31)).timestamp()
    async with open_store(database) as store:
        await store.write(lambda transaction: transaction.connection.execute(update(TASKS).values(ended=ended)))
    async with open_daemon(tmp_path, "d1") as daemon:
        while (await daemon.ask("GET", "/tasks"))["tasks"]:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_changed_number_of_tasks_is_applied_after_a_reload_and_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert galaxy_trio.daemon.life._DELETE_INTERVAL <= 60
    monkeypatch.setattr(galaxy_trio.daemon.life, "_DELETE_INTERVAL", 0.02)
    async with open_daemon(tmp_path, "d1") as daemon:
        for number in range(4):
            await daemon.ended_task(await daemon.submit(f"echo {number}"))
        assert len((await daemon.ask("GET", "/tasks"))["tasks"]) == 4
        with (tmp_path / "galaxy.toml").open("a") as file:
            file.write("\nkeep_tasks = 2\n")
        # Not `Daemon.reload`, which waits until all tasks are blocked: here one looks for old tasks all the time.
        signal.raise_signal(signal.SIGHUP)
        while len((await daemon.ask("GET", "/tasks"))["tasks"]) > 2:  # noqa: ASYNC110
            await trio.sleep(0.01)
    monkeypatch.setattr(galaxy_trio.daemon.life, "_DELETE_INTERVAL", math.inf)
    async with open_daemon(tmp_path, "d1", settings="keep_tasks = 1") as daemon:
        while len((await daemon.ask("GET", "/tasks"))["tasks"]) > 1:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_looking_for_old_tasks_writes_nothing(database: Location) -> None:
    async with open_store(database) as store:
        for _ in range(3):
            await add_ended_task(store)
        commits = store.commits
        assert await store.delete_old(datetime.now(UTC) - timedelta(days=1), 3) == 0
        assert store.commits == commits
        assert await store.delete_old(datetime.now(UTC) - timedelta(days=1), 1) == 2
        assert store.commits == commits + 1
        assert await store.delete_old(datetime.now(UTC) + timedelta(days=1), 1) == 1


async def test_failing_deletion_of_old_tasks_is_logged_and_tasks_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> int:
        await trio.lowlevel.checkpoint()
        raise StoreError("the disk fails")

    monkeypatch.setattr(Store, "delete_old", fail)
    async with open_daemon(tmp_path, "d1") as daemon:
        await until(lambda: "old tasks and events cannot be deleted: the disk fails" in caplog.text)
        assert (await daemon.ended_task(await daemon.submit("echo a")))["state"] == "completed"
