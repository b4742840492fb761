"""Health and readiness of the daemon."""

from __future__ import annotations

import resource
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import Store
from tests.daemon.support.daemon import open_daemon
from tests.daemon.support.daemon_process import open_client
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = pytest.mark.daemon


async def test_health_and_readiness_are_reported_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.wait_connected(1)
        assert await daemon.ask("GET", "/health") == {"status": "live"}
        assert await daemon.ask("GET", "/ready") == {"ready": True, "problem": None, "devices": 1, "connected": 1}

        async def fail(_store: Store) -> None:
            await trio.lowlevel.checkpoint()
            raise StoreError("the disk fails")

        monkeypatch.setattr(Store, "check_writable", fail)
        assert (await daemon.ask("GET", "/ready", 503))["problem"] == "the disk fails"


@contextmanager
def _full_disk(directory: Path) -> Generator[None]:
    """Let no file grow beyond the size of the database's log inside the block, and keep SQLite from emptying the log."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(sqlite3.connect(directory / "galaxy.db")) as reader:
        reader.execute("SELECT 1 FROM tasks").fetchall()
        resource.setrlimit(resource.RLIMIT_FSIZE, ((directory / "galaxy.db-wal").stat().st_size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_daemon_is_not_ready_while_the_disk_is_full(tmp_path: Path) -> None:
    body = {"request": "echo a", "device": "d1"}
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.wait_connected(1)
        with _full_disk(tmp_path):
            error = (await daemon.ask("POST", "/tasks", 507, json=body))["error"]
            assert "is full" in error
            for _ in range(2):
                assert (await daemon.ask("GET", "/ready", 503))["problem"] == error
            # Reading works.
            assert await daemon.ask("GET", "/tasks") == {"tasks": [], "before": None}
            assert await daemon.ask("GET", "/health") == {"status": "live"}
        assert (await daemon.ask("GET", "/ready"))["problem"] is None
        await daemon.ask("POST", "/tasks", 202, json=body)


async def test_only_health_needs_no_token(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a-token")
    async with open_daemon(tmp_path, "d1", settings='token_file = "tokens"') as daemon:
        await daemon.ask("GET", "/health")
        for path in ("/ready", "/metrics", "/openapi.json", "/tasks", "/devices", "/events", "/nothing"):
            await daemon.ask("GET", path, 401)


async def test_daemon_is_alive_and_refuses_requests_before_it_has_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = trio.Event()
    begin_life = Store.begin_life

    async def begin_late(*arguments: Any) -> None:  # Any: those of the store's method
        await looked.wait()
        await begin_life(*arguments)

    monkeypatch.setattr(Store, "begin_life", begin_late)

    async def look() -> None:
        await until((tmp_path / "s").exists)
        async with open_client(tmp_path) as client:
            assert (await client.get("/health")).json() == {"status": "live"}
            for path in ("/ready", "/tasks", "/devices", "/metrics"):
                refusal = await client.get(path)
                assert (refusal.status_code, refusal.headers["Retry-After"]) == (503, "1")
                assert refusal.json() == {"error": "the daemon is starting: retry in a moment"}
        looked.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        async with open_daemon(tmp_path, "d1") as daemon:
            assert await daemon.ask("GET", "/tasks") == {"tasks": [], "before": None}


async def test_starting_daemon_answers_health_and_accepts_tasks_when_the_queued_ones_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = trio.Event()
    count_queued = Store.count_queued

    async def count_late(*arguments: Any) -> int:  # Any: those of the store's method
        await looked.wait()
        return await count_queued(*arguments)

    monkeypatch.setattr(Store, "count_queued", count_late)
    async with open_daemon(tmp_path, "d1") as daemon, trio.open_nursery() as nursery:
        assert await daemon.ask("GET", "/health") == {"status": "live"}
        assert (await daemon.ask("GET", "/ready", 503))["problem"] == "the daemon is starting"
        tasks: list[str] = []

        async def submit() -> None:
            tasks.append(await daemon.submit("echo a"))

        nursery.start_soon(submit)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert not tasks
        looked.set()
        await until(lambda: bool(tasks))
        assert (await daemon.ended_task(tasks[0]))["state"] == "completed"
