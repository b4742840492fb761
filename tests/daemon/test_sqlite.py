"""The database file: full disks, damage, permissions and locks."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio
from sqlalchemy import event

from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.records import TaskRequest, TaskState
from galaxy_trio.daemon.store.store import open_store
from tests.daemon.support.store import ATTEMPT, add_task, queued_tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.daemon


async def test_full_disk_is_reported_loses_nothing_and_writes_succeed_when_there_is_space_again(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with open_store(path) as store:
        first = await add_task(store)
        await store.mark_running(first.id, "d1", ATTEMPT, store.life)
        store._engines.reading.pool.dispose()  # pyright: ignore[reportUnknownMemberType]
        limits: list[int] = []

        def limit(connection: sqlite3.Connection, _record: object) -> None:
            if limits:
                connection.execute(f"PRAGMA max_page_count = {limits[0]}")

        event.listen(store._engines.reading, "connect", limit)
        limits.append(20)
        with pytest.raises(StoreError, match="the disk is full: free some space") as caught:
            await store.finish(first.id, ATTEMPT, store.life, TaskState.COMPLETED, result="x" * 10_000_000)
        assert str(path) in str(caught.value)
        record = await store.get(first.id)
        assert record is not None
        assert record.state is TaskState.RUNNING
        limits.clear()
        store._engines.reading.pool.dispose()  # pyright: ignore[reportUnknownMemberType]
        assert (
            await store.finish(first.id, ATTEMPT, store.life, TaskState.COMPLETED, result="x" * 10_000_000)
        ).result_size == 10_000_000


async def test_failing_operation_does_not_fail_the_others_of_its_transaction(tmp_path: Path) -> None:
    async with open_store(tmp_path / "db") as store:
        outcomes: list[str] = []

        async def add(request: str) -> None:
            try:
                await add_task(store, request)
            except UnicodeEncodeError:
                outcomes.append("failed")
            else:
                outcomes.append("kept")

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(add, "\ud800" if number == 7 else "fine")
        assert (outcomes.count("failed"), outcomes.count("kept")) == (1, 19)
        assert len(await queued_tasks(store)) == 19


async def test_read_only_database_can_still_be_read(tmp_path: Path) -> None:
    async with open_store(tmp_path / "db") as store:
        record = await add_task(store)

        def forbid(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA query_only = ON")

        event.listen(store._engines.reading, "connect", forbid)
        store._engines.reading.pool.dispose()  # pyright: ignore[reportUnknownMemberType]
        with pytest.raises(StoreError, match="the file or its directory is read-only"):
            await add_task(store)
        assert await queued_tasks(store) == [record]


async def test_damaged_pages_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with open_store(path) as store:
        for number in range(200):
            await store.add(TaskRequest(f"task {number} " * 200))
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        # The first pages have the schema, so that this is known to be a database of the daemon.
        for at in range(4096 * 40, size, 4096):
            file.seek(at)
            file.write(b"\xff" * 4096)
    with pytest.raises(StoreError, match="it is damaged: restore a backup"):
        async with open_store(path) as store:
            await queued_tasks(store)


def _not_a_database(path: Path) -> None:
    path.write_bytes(b"nothing of SQLite" * 1000)
    path.chmod(0o600)


def _a_directory(path: Path) -> None:
    path.mkdir()


def _a_newer_one(path: Path) -> None:
    _execute(path, "PRAGMA user_version = 3")


def _another_programs(path: Path) -> None:
    _execute(path, "CREATE TABLE tasks (x)")


def _execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)
    database.close()
    path.chmod(0o600)


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (_not_a_database, "the file is not a database: configure another path"),
        (_a_directory, "cannot be opened: Is a directory"),
        (_a_newer_one, "was made by a newer galaxy_trio: install that version"),
        (_another_programs, "belongs to another program: configure another path"),
    ],
)
async def test_unusable_file_is_reported_and_left_unchanged(
    tmp_path: Path, prepare: Callable[[Path], object], sentence: str
) -> None:
    path = tmp_path / "db"
    prepare(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError, match=sentence) as caught:
        async with open_store(path):
            raise AssertionError("not reached")
    assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


async def test_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory"):
        async with open_store(tmp_path / "nowhere" / "db"):
            raise AssertionError("not reached")
