"""Against a peer that stops reading, cancelling tears no frame, memory stays bounded, and messages are still received.

The last two tests show that these tests exercise their cases: both fail with trio-websocket's own sending.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trio_websocket

from galaxy_trio import Connection, open_connection
from galaxy_trio._concurrency.memory_budget import MemoryBudget
from galaxy_trio._transport.frames import LargeFrame
from galaxy_trio._transport.inbound_limits import InboundWatch
from galaxy_trio._transport.send_buffer import HIGH_WATER_MARK, BufferedStream
from tests.connection.support.raw_peer import RawPeer, open_raw_peer
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

MB = 1_000_000
_LARGE = [20 * MB, 3 * MB, 8 * MB]


@asynccontextmanager
async def _connect(peer: RawPeer) -> AsyncGenerator[Connection]:
    async with open_connection(peer.url, "device_001") as connection:
        await peer.connected.wait()
        yield connection
        await peer.hang_up()


async def _cancel_large_requests(connection: Connection) -> None:
    """Start requests of 20, 3 and 8 MB, and cancel each when all tasks are blocked."""
    for size in _LARGE:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run_task, "x" * size)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()


async def test_cancelled_requests_leave_whole_frames_and_bounded_memory() -> None:
    with trio.fail_after(60):
        async with open_raw_peer() as peer, _connect(peer) as connection:
            await _cancel_large_requests(connection)
            held = connection.statistics().bytes_held
            # The first was buffered whole. The others found no room and were never sent.
            assert 20 * MB <= held <= HIGH_WATER_MARK + 20 * MB + 1000
            assert connection.statistics().pending == 0
            async with trio.open_nursery() as nursery:
                hostnames: list[str | None] = []

                async def ask() -> None:
                    hostnames.append((await connection.device_info()).hostname)

                nursery.start_soon(ask)
                await peer.read_until(3)
                _registration, task, question = map(json.loads, peer.texts)
                assert len(task["request"]) == 20 * MB
                assert question["type"] == "device_info_request"
                info = {"device_id": "device_001", "platform": "linux", "hostname": "answered"}
                await peer.reply(
                    type="device_info_response", status="ok", response_id=question["request_id"], result=info
                )
            assert hostnames == ["answered"]
            assert connection.statistics().bytes_held == 0
            assert peer.closed_with is None


async def test_pings_are_answered_while_requests_wait_for_room() -> None:
    with trio.fail_after(60):
        async with open_raw_peer() as peer, _connect(peer) as connection:
            async with trio.open_nursery() as nursery:
                for size in _LARGE:
                    nursery.start_soon(connection.run_task, "x" * size)
                await trio.testing.wait_all_tasks_blocked(0.05)
                for _ in range(1000):
                    await peer.ping()
                # Messages after the pings are read: the receiver did not wait to write a pong.
                await peer.reply(type="command", status="ok")
                await until(lambda: connection.statistics().messages_received == 2)
                # A flood of pings cannot fill the buffer: one unwritten pong answers all of them.
                assert connection.statistics().bytes_held <= HIGH_WATER_MARK + 20 * MB + 1000
                nursery.cancel_scope.cancel()
            await peer.read_until(2)
            # The pong is written between two frames, never within one.
            while not peer.pongs:
                await peer.read_some()
            assert peer.closed_with is None
            assert len(peer.texts) == 2


async def test_waiting_messages_are_sent_in_fifo_order() -> None:
    with trio.fail_after(60):
        async with open_raw_peer() as peer, _connect(peer) as connection, trio.open_nursery() as nursery:
            nursery.start_soon(connection.run_task, "x" * 20 * MB)
            await trio.testing.wait_all_tasks_blocked(0.05)
            for number in range(20):
                nursery.start_soon(partial(connection.run_task, f"number {number}"))
                await trio.testing.wait_all_tasks_blocked()
            assert connection.statistics().pending == 1
            await peer.read_until(22)
            assert [json.loads(text)["request"] for text in peer.texts[2:]] == [f"number {n}" for n in range(20)]
            nursery.cancel_scope.cancel()


async def test_a_cancelled_waiter_passes_its_turn_to_the_next() -> None:
    with trio.fail_after(60):
        async with open_raw_peer() as peer, _connect(peer) as connection, trio.open_nursery() as nursery:
            nursery.start_soon(connection.run_task, "x" * 20 * MB)
            await trio.testing.wait_all_tasks_blocked(0.05)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as first:
                    first.start_soon(connection.run_task, "the first")
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(connection.run_task, "the second")
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            await peer.read_until(3)
            assert json.loads(peer.texts[2])["request"] == "the second"
            nursery.cancel_scope.cancel()


class _Portions(trio.abc.Stream):
    """A stream whose peer reads a given number of pieces and sends nothing."""

    def __init__(self) -> None:
        self._portions = trio.Semaphore(0)

    def take(self, pieces: int) -> None:
        for _ in range(pieces):
            self._portions.release()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        del data
        await self._portions.acquire()

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise NotImplementedError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def _open_buffered() -> AsyncGenerator[tuple[BufferedStream, _Portions, list[float]]]:
    """Yield a stream, its slow peer, and the times at which it had been stuck for 60 seconds."""
    portions, stuck_at = _Portions(), list[float]()
    stream = BufferedStream(portions, InboundWatch(MB), MemoryBudget(MB).open_share(), lambda: None, lambda: None)

    async def wait_stuck() -> None:
        await stream.wait_stuck(60)
        stuck_at.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run_writer)
        nursery.start_soon(wait_stuck)
        yield stream, portions, stuck_at
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("size", "expected"), [(HIGH_WATER_MARK - 1, []), (HIGH_WATER_MARK, [65.0])])
async def test_wait_stuck_returns_after_the_time_without_room(
    size: int, expected: list[float], autojump_clock: trio.testing.MockClock
) -> None:
    async with _open_buffered() as (stream, _, stuck_at):
        await trio.sleep(5)
        stream.append(bytes(size))
        await trio.sleep(1000)
        assert stuck_at == expected


async def test_more_messages_do_not_extend_the_time_of_wait_stuck(autojump_clock: trio.testing.MockClock) -> None:
    async with _open_buffered() as (stream, _, stuck_at):
        stream.append(bytes(HIGH_WATER_MARK))
        await trio.sleep(30)
        stream.append(b"a reply, which waits for no room")
        stream.append_ping(b"a ping")
        await trio.sleep(1000)
        assert stuck_at == [60]


async def test_room_in_between_restarts_the_time_of_wait_stuck(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with _open_buffered() as (stream, portions, stuck_at):
        stream.append(LargeFrame("x" * (HIGH_WATER_MARK - 10), masked=False))
        stream.append(bytes(1000))
        await trio.sleep(50)
        # A large frame is written in four slices.
        portions.take(3)
        await trio.sleep(5)
        assert not stream.has_room
        portions.take(1)
        await trio.sleep(1)
        assert (stream.has_room, stream.bytes_held) == (True, 1000)
        await trio.sleep(100)
        stream.append(bytes(HIGH_WATER_MARK))
        await trio.sleep(1000)
        assert stuck_at == [216]


@pytest.mark.parametrize("steps", range(6))
async def test_the_stream_may_end_in_any_step_of_the_writer(steps: int) -> None:
    # trio runs the tasks of a step in random order.
    for _ in range(20):
        portions = _Portions()
        stream = BufferedStream(portions, InboundWatch(MB), MemoryBudget(MB).open_share(), lambda: None, lambda: None)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.run_writer)
                await trio.testing.wait_all_tasks_blocked()
                stream.append(b"first")
                # One frame is being written while the other arrives.
                await trio.testing.wait_all_tasks_blocked()
                stream.append(b"second")
                portions.take(1)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                await stream.force_close()
                portions.take(1)
        assert (stream.dead, stream.bytes_held) == (True, 0)


@asynccontextmanager
async def _connect_plainly(peer: RawPeer) -> AsyncGenerator[tuple[trio_websocket.WebSocketConnection, trio.Nursery]]:
    """Open and register a client that uses trio-websocket alone, with a nursery that ends with it."""
    host, port = peer.url.removeprefix("ws://").removesuffix("/ws").split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        websocket = await trio_websocket.wrap_client_stream(nursery, stream, f"{host}:{port}", "/ws")
        await websocket.send_message("registration")
        await websocket.get_message()
        await peer.connected.wait()
        yield websocket, nursery
        nursery.cancel_scope.cancel()


async def test_trio_websocket_alone_tears_a_frame_when_send_message_is_cancelled() -> None:
    with trio.fail_after(60):
        async with open_raw_peer() as peer, _connect_plainly(peer) as (websocket, nursery):
            for size in _LARGE:
                async with trio.open_nursery() as sending:
                    sending.start_soon(websocket.send_message, "x" * size)
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    sending.cancel_scope.cancel()
            nursery.start_soon(websocket.send_message, "the next")
            with trio.move_on_after(5):
                await peer.read_until(3)
            # The peer took the next message for the rest of the torn frame, or for an invalid frame.
            assert "the next" not in peer.texts


async def test_trio_websocket_alone_stops_reading_after_one_ping() -> None:
    with trio.fail_after(60):
        async with open_raw_peer() as peer, _connect_plainly(peer) as (websocket, nursery):
            nursery.start_soon(websocket.send_message, "x" * 20 * MB)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await peer.ping()
            await peer.reply(type="command", status="ok")
            with pytest.raises(trio.TooSlowError), trio.fail_after(0.5):
                await websocket.get_message()
