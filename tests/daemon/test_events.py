"""The daemon's event stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio.daemon.web.event_stream
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import Store
from tests.daemon.support.daemon import open_daemon
from tests.daemon.support.listener import listen
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.daemon, pytest.mark.usefixtures("each_database")]


async def test_changes_of_tasks_and_devices_are_published(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.wait_connected(1)
        async with listen(daemon) as listener:
            task_id = await daemon.submit("echo a")
            await listener.until("status", device_id="d1", status="busy")
            await listener.until("task", id=task_id, state="running")
            await listener.until("task", id=task_id, state="completed")
            await daemon.fleet.kill_server()
            gone = await listener.until("device", device_id="d1", what="disconnected")
            assert gone["status"] == "disconnected"
            assert gone["problem"]
            await daemon.fleet.start_server()
            await listener.until("device", what="connected")


async def test_resumed_stream_has_the_missed_events_and_none_twice(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.wait_connected(1)
        async with listen(daemon) as listener:
            first = await daemon.submit("echo a")
            await listener.until("task", id=first, state="completed")
        second = await daemon.submit("echo b")
        await daemon.ended_task(second)
        async with listen(daemon, listener.last_id) as again:
            kind, data = await again.next()
            while kind != "task":
                # The device's status is written after the task's end.
                assert kind == "status"
                kind, data = await again.next()
            assert (data["id"], data["state"]) == (second, "queued")
            await again.until("task", id=second, state="completed")


async def test_stream_is_resumed_after_a_restart_of_the_daemon(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", drain=0.01) as daemon:
        await daemon.wait_connected(1)
        async with listen(daemon) as listener:
            task = await daemon.submit("hold a")
            await listener.until("task", id=task, state="queued")
        await daemon.wait_state(task, "running")
    async with open_daemon(tmp_path, "d1") as daemon, listen(daemon, listener.last_id) as again:
        states: list[str] = []
        while states[-1:] != ["lost"]:
            kind, data = await again.next()
            assert kind != "reset"
            if kind == "task":
                states.append(data["state"])
        assert states == ["running", "lost"]


@pytest.mark.parametrize("last_id", ["", "x", "-1", "1-1", "99999", "9" * 18, "9" * 19, "9" * 1_000])
async def test_stream_resumed_with_an_unknown_id_begins_with_a_reset(tmp_path: Path, last_id: str) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        async with listen(daemon, last_id) as listener:
            assert await listener.next() == ("reset", {})


async def test_comments_are_sent_while_there_are_no_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.event_stream, "_KEEPALIVE", 0.02)
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.wait_connected(1)
        async with listen(daemon) as listener:
            while (await listener.next())[0] != "comment":
                pass


async def test_stream_ends_when_the_daemon_stops(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        async with listen(daemon) as listener:
            daemon.stop.set()
            with pytest.raises(EOFError):
                while True:
                    await listener.next()


async def test_head_of_the_events_ends_immediately_and_its_connection_is_used_again(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        for _ in range(3):
            with trio.fail_after(SECONDS):
                head = await daemon.client.head("/events")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "galaxy_event_listeners 0.0" in (await daemon.client.get("/metrics")).text


async def test_events_that_cannot_be_read_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_store: Store) -> tuple[int, int]:
        await trio.lowlevel.checkpoint()
        raise StoreError("the disk fails")

    async with open_daemon(tmp_path, "d1") as daemon:
        monkeypatch.setattr(Store, "event_bounds", fail)
        assert await daemon.ask("GET", "/events", 507) == {"error": "the disk fails"}
        monkeypatch.undo()
