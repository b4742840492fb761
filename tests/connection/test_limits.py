"""Large messages, many requests, slow peers and long connections are handled in bounded memory. docs/performance.md has figures."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import pytest
import trio
import trio.testing
from wsproto.frame_protocol import FrameProtocol

from galaxy_trio import (
    ConnectionLost,
    ConnectionOptions,
    ConnectTimeout,
    DeviceInfo,
    Platform,
    QueueFull,
    RequestTimeout,
    TaskResult,
    open_connection,
)
from galaxy_trio._connection.pending_replies import MAX_PENDING
from galaxy_trio.agent.connection import open_device_connection
from galaxy_trio.testing import PEER_URL, ScriptedPeer, open_memory_server, open_scripted_peer
from tests.constellation.support.calls import Call

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio import Connection

MIB: Final = 2**20
DEVICE: Final = "device_001"


class _Memory:
    """Measure the bytes that Python has allocated since the beginning of the block."""

    @property
    def now(self) -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]


@contextmanager
def _traced_memory() -> Generator[_Memory]:
    tracemalloc.start()
    try:
        yield _Memory()
    finally:
        tracemalloc.stop()


@pytest.mark.slow
async def test_a_result_of_almost_100_mib_is_received_whole_and_then_freed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    size = 100 * MIB - 1024
    held: list[int] = []
    async with open_scripted_peer() as peer:
        with _traced_memory() as memory:

            async def show() -> None:
                result = (await peer.connection.run_task("show it all", timeout=60)).result
                assert isinstance(result, str)
                assert (len(result), result.count("x")) == (size, size)
                held.append(memory.now)

            async with trio.open_nursery() as showing:
                showing.start_soon(show)
                peer.end(await peer.receive(), "x" * size)
                await _is_answered(peer)
            assert size < held[0] < size + MIB
            assert memory.now < MIB
        await _is_answered(peer)
        assert peer.connection.statistics().bytes_held == 0


async def _is_answered(peer: ScriptedPeer) -> None:
    """Assert that a request for information receives its reply."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.connection.device_info)
            peer.answer(await peer.receive())


@pytest.mark.slow
async def test_the_loss_of_a_connection_ends_10000_waiting_requests_in_one_step(
    autojump_clock: trio.testing.MockClock,
) -> None:
    calls = [Call() for _ in range(MAX_PENDING)]
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        await _is_answered(peer)
        for call in calls:
            nursery.start_soon(call.run, partial(peer.connection.device_info, timeout=1_000))
        await trio.testing.wait_all_tasks_blocked()
        assert peer.connection.statistics().pending == MAX_PENDING
        with pytest.raises(QueueFull, match="10000 requests are already pending"):
            await peer.connection.device_info()
        assert len(peer.received_nowait()) == MAX_PENDING
        peer.reset()
        await peer.connection.wait_closed()
        assert (peer.connection.statistics().pending, peer.connection.statistics().unanswered) == (0, 0)
    assert all(isinstance(call.ending, ConnectionLost) for call in calls)
    assert len({id(call.ending) for call in calls}) == MAX_PENDING


@pytest.mark.slow
async def test_a_waiting_request_and_its_task_take_less_than_6_kib(
    autojump_clock: trio.testing.MockClock,
) -> None:
    many = 2_000
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        await _is_answered(peer)
        with _traced_memory() as memory:
            before = memory.now
            for _ in range(many):
                nursery.start_soon(partial(peer.connection.device_info, timeout=1_000))
            await trio.testing.wait_all_tasks_blocked()
            # The peer's received messages do not count.
            assert len(peer.received_nowait()) == many
            assert peer.connection.statistics().pending == many
            # Coverage makes an object of each frame.
            most = 6 * 1024 if sys.gettrace() is None else 7 * 1024
            assert (memory.now - before) / many < most
        nursery.cancel_scope.cancel()
    assert peer.connection.statistics().pending == 0


@pytest.mark.slow
async def test_a_flood_of_100000_unknown_replies_is_counted_and_freed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rounds, each = 20, 5_000
    async with open_scripted_peer() as peer:
        await _send_unknown(peer, each)
        await _is_answered(peer)
        before = _blocks()
        for _ in range(rounds - 1):
            await _send_unknown(peer, each)
            await _is_answered(peer)
        # One leaked object per reply would be 95,000. The history of ended requests remains.
        assert _blocks() - before < 1_000
        statistics = peer.connection.statistics()
        assert (statistics.unknown_replies, statistics.pending, statistics.unanswered) == (rounds * each, 0, 0)


_UNKNOWN: Final[list[dict[str, object]]] = [
    {"type": "task_end", "status": "completed", "session_id": "demo@unknown", "result": "x"},
    {"type": "heartbeat", "status": "ok", "session_id": "demo@unknown"},
    {"type": "device_info_response", "status": "ok", "response_id": "unknown", "result": {}},
    {"type": "heartbeat", "status": "ok"},
    {"type": "command", "status": "continue", "actions": []},
]


async def _send_unknown(peer: ScriptedPeer, many: int) -> None:
    for number in range(many):
        message = _UNKNOWN[number % len(_UNKNOWN)]
        members = (
            (name, value if not name.endswith("_id") else f"{value} {number}") for name, value in message.items()
        )
        peer.send_json(dict(members))
    await trio.testing.wait_all_tasks_blocked()


async def _drip(peer: ScriptedPeer, data: bytes) -> None:
    for number in range(len(data)):
        await trio.sleep(1)
        try:
            await peer.send_raw(data[number : number + 1])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return


def _frame(value: object) -> bytes:
    return bytes(FrameProtocol(client=False, extensions=[]).send_data(json.dumps(value)))


async def test_a_reply_of_one_byte_per_second_keeps_the_connection_alive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_scripted_peer(options=ConnectionOptions(liveness_timeout=20, heartbeat_interval=1e6)) as peer,
        trio.open_nursery() as nursery,
    ):
        patient, hasty = Call(), Call()
        nursery.start_soon(patient.run, partial(peer.connection.run_task, "t", task_id="t", timeout=1_000))
        assert (await peer.receive()).session_id == "demo@t"
        nursery.start_soon(hasty.run, partial(peer.connection.device_info, timeout=100))
        end = _frame({"type": "task_end", "status": "completed", "session_id": "demo@t", "result": "x" * 200})
        nursery.start_soon(_drip, peer, end)
        await hasty.ended.wait()
        assert isinstance(hasty.ending, RequestTimeout)
        assert trio.current_time() == 100
        with trio.fail_after(1_000):
            await patient.ended.wait()
        assert isinstance(patient.ending, TaskResult)
        assert patient.ending.result == "x" * 200
        assert trio.current_time() == len(end)
        # Silence ends the connection.
        await peer.connection.wait_closed()
        assert trio.current_time() == len(end) + 20


async def test_the_connect_timeout_ends_a_handshake_of_one_byte_per_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()

    async def drip() -> None:
        for byte in b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * 200:
            await trio.sleep(1)
            try:
                await server_end.send_all(bytes([byte]))
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with pytest.raises(ConnectTimeout):
            async with open_connection(
                PEER_URL, DEVICE, stream=client_end, options=ConnectionOptions(connect_timeout=60)
            ):
                pass
        assert trio.current_time() == 60


@pytest.mark.slow
async def test_a_day_of_heartbeats_and_pings_does_not_grow_the_memory_of_any_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hour = 3600
    async with (
        open_memory_server() as server,
        open_device_connection(
            PEER_URL, DEVICE, system_info=DeviceInfo(DEVICE, Platform.LINUX), stream=server.connect()
        ) as device,
        open_connection(PEER_URL, DEVICE, stream=server.connect()) as connection,
    ):
        await trio.sleep(hour)
        before = _blocks()
        await trio.sleep_until(25 * hour)
        # One leaked object per heartbeat or ping would be thousands.
        assert _blocks() - before < 500
        assert not device.closed
        _beaten(connection, beats=25 * hour // 30)
        assert server.statistics() == attrs.evolve(
            server.statistics(), connections=2, devices=1, constellations=1, bytes_held=0
        )


def _blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def _beaten(connection: Connection, *, beats: int) -> None:
    statistics = connection.statistics()
    # The registration and the heartbeats, without the one of this moment.
    assert beats <= statistics.messages_sent <= beats + 1
    assert beats <= statistics.messages_received <= beats + 1
    assert (statistics.pending, statistics.unanswered <= 1, statistics.forgotten) == (0, True, 0)
