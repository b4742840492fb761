"""The daemon's event stream."""

from __future__ import annotations

import json
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import h11
import pytest
import trio
import trio.testing

import galaxy_trio.daemon.web.event_stream
from galaxy_trio.daemon.web.event_stream import ServerSentEventStream
from tests.daemon.support.daemon import RunningDaemon, open_daemon

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.daemon


def _saying(number: int) -> Callable[[], dict[str, object]]:
    return lambda: {"number": number}


class Listener:
    """Reads events as a browser does. Made by `listen`."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.last_id: str | None = None

    async def next(self) -> tuple[str, Any]:
        """The kind and the data of the next event or comment."""
        kind, data = "message", None
        async for line in self._lines:
            name, _, value = line.partition(": ")
            if name == "id":
                self.last_id = value
            elif name == "event":
                kind = value
            elif name == "data":
                data = json.loads(value)
            elif line.startswith(":"):
                kind = "comment"
            elif not line:
                return kind, data
        raise EOFError

    async def until(self, kind: str, **members: object) -> Any:
        """The data of the next event that has these members."""
        while True:
            found, data = await self.next()
            if found == kind and all(data.get(name) == value for name, value in members.items()):
                return data


@asynccontextmanager
async def listen(daemon: RunningDaemon, last_id: str | None = None) -> AsyncGenerator[Listener]:
    """Listen on a new connection inside the block."""
    headers = [("Host", "localhost"), *([] if last_id is None else [("Last-Event-ID", last_id)])]
    async with await trio.open_unix_socket(daemon.directory / "s") as stream:
        http = h11.Connection(h11.CLIENT)
        await stream.send_all(http.send(h11.Request(method="GET", target="/events", headers=headers)))
        response = await _next_event(stream, http)
        assert isinstance(response, h11.Response)
        assert (b"content-type", b"text/event-stream; charset=utf-8") in response.headers
        async with aclosing(_lines(stream, http)) as lines:
            yield Listener(lines)


async def _next_event(stream: trio.SocketStream, http: h11.Connection) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await stream.receive_some())
    return event


async def _lines(stream: trio.SocketStream, http: h11.Connection) -> AsyncGenerator[str]:
    rest = b""
    while isinstance(event := await _next_event(stream, http), h11.Data):
        *lines, rest = (rest + event.data).split(b"\n")
        for line in lines:
            yield line.decode()
    assert isinstance(event, h11.EndOfMessage)


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
        for number in range(5_000):
            event_stream.publish("number", _saying(number))
            if number % 100 == 0:
                await trio.testing.wait_all_tasks_blocked()
        assert (event_stream.listeners, event_stream.dropped) == (1, 1)
        await trio.testing.wait_all_tasks_blocked()
        event_stream.close()
    assert len(received) == 5_000
    # It still gets the events that were pending when it was dropped.
    assert 900 < len([text async for text in slow]) < 1_100
    assert event_stream.listeners == 0


async def test_listening_to_a_closed_stream_ends_immediately() -> None:
    event_stream = ServerSentEventStream()
    event_stream.close()
    with trio.fail_after(1):
        assert [text async for text in event_stream.listen()] == []
    assert event_stream.listeners == 0


async def test_resuming_after_events_that_are_no_longer_kept_begins_with_a_reset() -> None:
    event_stream = ServerSentEventStream()
    event_stream.publish("first", _saying(0))
    listening = event_stream.listen("")
    assert await anext(listening) == b"event: reset\ndata: {}\n\n"
    first = (await anext(listening)).split(b"\n")[0].removeprefix(b"id: ").decode()
    await listening.aclose()
    for number in range(10_001):
        event_stream.publish("number", _saying(number))
    listening = event_stream.listen(first)
    assert await anext(listening) == b"event: reset\ndata: {}\n\n"
    await listening.aclose()
    assert event_stream.listeners == 0
