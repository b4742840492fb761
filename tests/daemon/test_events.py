"""The daemon's event stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import galaxy_trio.daemon.web.event_stream
from galaxy_trio.daemon.web.event_stream import ServerSentEventStream
from tests.daemon.support.daemon import open_daemon
from tests.daemon.support.listener import listen
from tests.support.memory import traced_memory
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
            assert (kind, data["id"], data["state"]) == ("task", second, "queued")
            await again.until("task", id=second, state="completed")


@pytest.mark.parametrize("last_id", ["", "x", "abcdefab-3", "-", "abcdefab-99999999999999999999"])
async def test_stream_resumed_from_another_run_of_the_daemon_begins_with_a_reset(tmp_path: Path, last_id: str) -> None:
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


async def test_slow_listener_is_dropped_and_delays_no_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    event_stream = ServerSentEventStream()
    slow, quick = event_stream.listen(), event_stream.listen()
    async with trio.open_nursery() as nursery:
        received: list[bytes] = []

        async def read() -> None:
            received.extend([text async for text in quick])

        async def begin() -> None:
            await anext(slow)

        nursery.start_soon(read)
        nursery.start_soon(begin)
        await trio.testing.wait_all_tasks_blocked()
        assert event_stream.listeners == 2
        for number in range(10_002):
            event_stream.publish("number", {"number": number})
            if number % 100 == 0:
                await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        event_stream.close()
    assert len(received) == 10_002
    # It has the first event. The second one is no longer kept.
    assert [text async for text in slow] == []
    assert (event_stream.listeners, event_stream.dropped) == (0, 1)


async def test_slow_listener_gets_all_events_that_are_still_kept() -> None:
    event_stream = ServerSentEventStream()
    slow = event_stream.listen("")
    assert b"reset" in await anext(slow)
    for number in range(10_000):
        event_stream.publish("number", {"number": number})
    event_stream.close()
    assert len([text async for text in slow]) == 10_000
    assert event_stream.dropped == 0


async def test_events_that_are_kept_have_a_limited_size() -> None:
    event_stream = ServerSentEventStream()
    event_stream.publish("first", {})
    reader = event_stream.listen("")
    assert b"reset" in await anext(reader)
    first = (await anext(reader)).split(b"\n")[0].removeprefix(b"id: ").decode()
    await reader.aclose()
    with traced_memory() as memory:
        before = memory.now
        for number in range(1_000):
            event_stream.publish("large", {"number": number, "text": "x" * 100_000})
        assert memory.now - before < 17 * 2**20
    resumed = event_stream.listen(first)
    assert b"reset" in await anext(resumed)
    event_stream.close()
    rest = [text async for text in resumed]
    assert 150 < len(rest) < 170
    assert b'"number":999' in rest[-1]


async def test_listeners_that_do_not_read_take_no_memory_for_the_events() -> None:
    event_stream = ServerSentEventStream()
    listeners = [event_stream.listen("") for _ in range(100)]
    for listener in listeners:
        await anext(listener)
    with traced_memory() as memory:
        before = memory.now
        # Each is published when the listeners are at different events.
        for number in range(400):
            event_stream.publish("large", {"text": "x" * 100_000})
            if number < len(listeners):
                await anext(listeners[number])
        assert memory.now - before < 17 * 2**20
    for listener in listeners:
        await listener.aclose()


async def test_head_of_the_events_ends_immediately_and_its_connection_is_used_again(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        for _ in range(3):
            with trio.fail_after(SECONDS):
                head = await daemon.client.head("/events")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "galaxy_event_listeners 0.0" in (await daemon.client.get("/metrics")).text


async def test_listening_to_a_closed_stream_ends_immediately() -> None:
    event_stream = ServerSentEventStream()
    event_stream.close()
    with trio.fail_after(1):
        assert [text async for text in event_stream.listen()] == []
    assert event_stream.listeners == 0


async def test_resuming_after_events_that_are_no_longer_kept_begins_with_a_reset() -> None:
    event_stream = ServerSentEventStream()
    event_stream.publish("first", {"number": 0})
    listening = event_stream.listen("")
    assert await anext(listening) == b"event: reset\ndata: {}\n\n"
    first = (await anext(listening)).split(b"\n")[0].removeprefix(b"id: ").decode()
    await listening.aclose()
    for number in range(10_001):
        event_stream.publish("number", {"number": number})
    listening = event_stream.listen(first)
    assert await anext(listening) == b"event: reset\ndata: {}\n\n"
    await listening.aclose()
    assert event_stream.listeners == 0
