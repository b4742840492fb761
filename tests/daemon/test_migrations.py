"""Databases of earlier versions are upgraded at the start: all of their tasks are there, and a copy of the old database."""

from __future__ import annotations

import json
import logging
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, inspect

from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.queries import IdempotencyConflict
from galaxy_trio.daemon.store.records import Requirement, TaskRequest, TaskState
from galaxy_trio.daemon.store.schema import METADATA, VERSION
from galaxy_trio.daemon.store.sqlite import Sqlite
from galaxy_trio.daemon.store.store import Store, open_store
from tests.cli.support.command_line import environment
from tests.daemon.support.old_database import dump, version_of, write_old_database
from tests.daemon.support.store import ATTEMPT, add_ended_task, add_task, read_result

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.daemon

_EARLY = ("DROP TABLE departures", "DROP INDEX tasks_queued")
"""What the first databases of version 1 lack."""


def _id(number: int) -> str:
    return f"{number:032x}"


async def _whole_request(store: Store, task_id: str) -> str:
    return "".join([text async for text in store.read_text(task_id, "request")])


async def test_every_task_of_an_old_database_is_there_after_the_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "db"
    write_old_database(path)
    async with open_store(path) as store:
        # The running one.
        assert store.lost_at_start == 1
        records = {record.number: record for record in await store.page()}
        assert {number: record.state.value for number, record in records.items()} == {
            1: "completed",
            2: "failed",
            3: "cancelled",
            4: "lost",
            5: "queued",
            6: "queued",
            7: "lost",
            8: "queued",
        }
        assert [record.id for record in records.values()] == [_id(number) for number in range(8, 0, -1)]
        done, failed, again = records[1], records[2], records[5]
        assert done.asked == TaskRequest("list ö 😀", "laptop", timeout=12.5, idempotency_key="monday-1")
        assert await read_result(store, done.id) == '"' + "0123456789" * 20 + '"'
        assert (done.result_size, done.device) == (202, "laptop")
        assert None not in (done.started, done.ended)
        assert failed.asked == TaskRequest("print", None, "linux", ("printer", "colour"))
        assert (failed.error, failed.device, again.retry_of) == ("no paper", "desk", failed.id)
        assert records[4].error == "it may have run"
        assert [[left.device for left in await store.departures(_id(number))] for number in (1, 6, 7)] == [
            ["laptop"],
            ["laptop"],
            [],
        ]
        assert await _whole_request(store, _id(8)) == "long " + "x" * 1100
        # It goes on as the daemon that wrote it would.
        assert await store.add(TaskRequest("run", "desk", idempotency_key="monday-2")) == (records[7], False)
        with pytest.raises(IdempotencyConflict):
            await store.add(TaskRequest("other", idempotency_key="monday-1"))
        # The number of the newest task, which was deleted, is not used again.
        assert (await add_task(store)).number > 9
        assert [record.number for record in await store.claim(Requirement("laptop"), store.life, 10)] == [6]
        await store.mark_running(_id(6), "laptop", ATTEMPT, store.life)
        await store.finish(_id(6), ATTEMPT, store.life, TaskState.COMPLETED)


# The indexes are compared below.
@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
@pytest.mark.parametrize("changes", [(), _EARLY])
async def test_upgraded_database_has_the_same_tables_as_a_new_one(tmp_path: Path, changes: tuple[str, ...]) -> None:
    write_old_database(tmp_path / "db", *changes)

    def tables(path: Path) -> dict[str, object]:
        engine = create_engine(f"sqlite:///{path}")
        with closing(sqlite3.connect(path)) as database:
            partial = database.execute(
                "SELECT name, sql FROM sqlite_master WHERE sql LIKE '%WHERE%' ORDER BY 1"
            ).fetchall()
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
            inspector = inspect(connection)
            found: dict[str, object] = {
                name: (
                    [str(column) for column in inspector.get_columns(name)],
                    inspector.get_pk_constraint(name),
                    inspector.get_foreign_keys(name),
                    sorted((str(index["name"]), index["column_names"]) for index in inspector.get_indexes(name)),
                )
                for name in inspector.get_table_names()
            }
        engine.dispose()
        return found | {"partial": partial}

    for name in ("db", "new"):
        async with open_store(tmp_path / name) as store:
            await add_ended_task(store, result='"x"')
    assert tables(tmp_path / "db") == tables(tmp_path / "new")
    assert version_of(tmp_path / "db") == version_of(tmp_path / "new") == VERSION


async def test_copy_of_the_old_database_is_next_to_it_for_its_owner_alone_and_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "galaxy_trio.daemon")
    real, path = tmp_path / "real" / "db", tmp_path / "link"
    real.parent.mkdir(0o755)
    write_old_database(real)
    path.symlink_to(real)
    before = dump(real)
    # What a killed daemon has left, and the copy of an earlier upgrade.
    for name in ("db.version-1", "db.version-1.unfinished"):
        (real.parent / name).write_text("another one")
    async with open_store(path) as store:
        await add_task(store)
    copy = real.with_name("db.version-1")
    assert {file.name for file in real.parent.iterdir()} == {"db", "db.version-1"}
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert (version_of(copy), dump(copy)) == (1, before)
    assert f"the database {path} was upgraded from version 1 to {VERSION}; its copy is {copy}" in caplog.text
    caplog.clear()
    async with open_store(path):
        pass
    assert caplog.text == ""
    # The copy is a database as well.
    copy.replace(real)
    async with open_store(path) as store:
        assert len(await store.page()) == 8


@pytest.mark.slow
def test_daemon_that_is_killed_during_the_upgrade_leaves_the_old_database_or_the_new_one(tmp_path: Path) -> None:
    write_old_database(tmp_path / "db")
    (tmp_path / "copies").mkdir()
    arguments = (str(tmp_path / "db"), str(tmp_path / "copies"))
    command = [sys.executable, "-m", "tests.daemon.support.killed_upgrade", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())  # noqa: S603
    *versions, last = map(int, done.stdout.split())
    assert last == 0
    assert len(versions) > 50
    assert versions == sorted(versions)
    assert set(versions) == {1, VERSION}
    sys.stdout.write(f"killed at {len(versions)} lines, {versions.count(1)} of them before the upgrade was on disk\n")


def test_old_database_is_valid_and_is_not_changed_by_a_check(tmp_path: Path) -> None:
    write_old_database(tmp_path / "db")
    before = (tmp_path / "db").read_bytes()
    Sqlite(tmp_path / "db").check()
    assert (tmp_path / "db").read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} <= {"db", "db-wal", "db-shm"}


async def test_full_disk_during_the_upgrade_leaves_the_old_database(tmp_path: Path) -> None:
    path = tmp_path / "db"
    write_old_database(path)
    before = dump(path)

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    event.listen(Engine, "connect", limit)
    try:
        with pytest.raises(StoreError, match="the disk is full: free some space"):
            async with open_store(path):
                raise AssertionError("not reached")
    finally:
        event.remove(Engine, "connect", limit)
    assert (version_of(path), dump(path)) == (1, before)
    async with open_store(path) as store:
        assert len(await store.page()) == 8


_OPENS_WITH_LITTLE_SPACE = """
import resource, signal, sys, trio
from pathlib import Path
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import open_store

async def main():
    async with open_store(Path(sys.argv[1])):
        pass

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    trio.run(main)
except StoreError as error:
    print(error)
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_database_that_cannot_be_copied_is_not_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "db"
    write_old_database(path, "UPDATE tasks SET error = hex(zeroblob(100000)) WHERE number = 2")
    before = dump(path)
    command = [sys.executable, "-c", _OPENS_WITH_LITTLE_SPACE, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())  # noqa: S603
    assert done.stdout.startswith(f"the database {path} must be upgraded, and cannot be copied before: ")
    assert done.stdout.endswith(
        "free some space for a copy next to it, or give the daemon's user permission to write there\n"
    )
    assert (version_of(path), dump(path)) == (1, before)
    assert not list(tmp_path.glob("db.version-1*"))


_IMPORTED = """
import json, sys, trio
from pathlib import Path
from galaxy_trio.daemon.store.store import open_store

async def main():
    async with open_store(Path(sys.argv[1])):
        print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules} & {"alembic", "mako", "sqlalchemy"})))

trio.run(main)
"""


def test_alembic_is_imported_only_for_an_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "db"

    def imported() -> list[str]:
        command = [sys.executable, "-c", _IMPORTED, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())  # noqa: S603
        return list(json.loads(done.stdout))

    assert imported() == ["sqlalchemy"]
    assert imported() == ["sqlalchemy"]
    path.unlink()
    write_old_database(path)
    assert "alembic" in imported()
    assert imported() == ["sqlalchemy"]
