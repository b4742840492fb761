"""The simulated network's effects."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio import (
    ConfigError,
    Connection,
    ConnectionLost,
    ConnectionOptions,
    DeviceInfo,
    InvalidMessage,
    Platform,
    RequestTimeout,
    open_connection,
)
from galaxy_trio.agent import open_device_connection
from galaxy_trio.testing import Conditions, MemoryServer, Network, NetworkLink, NetworkStream, open_memory_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio.server import ServerTask

DEVICE = "device_001"
SLOW = Conditions(latency=0.5, jitter=0.2, bandwidth=1000, capacity=2000)
Clock = trio.testing.MockClock


async def make_pair(conditions: Conditions | None = None) -> tuple[NetworkStream, NetworkStream]:
    await trio.lowlevel.checkpoint()
    link = Network(conditions=conditions).connect()
    return link.client, link.server


async def make_clogged_pair() -> tuple[NetworkStream, NetworkStream]:
    ours, theirs = await make_pair(Conditions(capacity=10))
    await ours.send_all(b"x" * 10)
    await theirs.send_all(b"x" * 10)
    return ours, theirs


async def test_network_streams_pass_trios_stream_checks() -> None:
    await trio.testing.check_two_way_stream(make_pair, make_clogged_pair)


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=50), max_size=20),
    reads=st.lists(st.integers(1, 60) | st.none(), min_size=1, max_size=5),
    conditions=st.builds(
        Conditions,
        latency=st.floats(0, 2),
        jitter=st.floats(0, 2),
        bandwidth=st.floats(10, 1e6) | st.just(float("inf")),
        capacity=st.integers(1, 100),
    ),
    seed=st.integers(),
)
def test_all_bytes_arrive_in_order_under_any_conditions(
    pieces: list[bytes], reads: list[int | None], conditions: Conditions, seed: int
) -> None:
    async def main() -> float:
        link = Network(seed, conditions).connect()
        received = b""

        async def send() -> None:
            for piece in pieces:
                await link.client.send_all(piece)
            await link.client.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for number in range(1_000_000):
                data = await link.server.receive_some(reads[number % len(reads)])
                if not data:
                    break
                received += data
        assert received == b"".join(pieces)
        return trio.current_time()

    times = {trio.run(main, clock=Clock(autojump_threshold=0)) for _ in range(2)}
    assert len(times) == 1


async def test_bytes_arrive_after_latency_and_transfer_time(autojump_clock: Clock) -> None:
    ours, theirs = await make_pair(Conditions(latency=0.5, bandwidth=1000))
    await ours.send_all(b"x" * 1000)
    assert await theirs.receive_some() == b"x" * 1000
    assert trio.current_time() == 1.5


async def test_sender_waits_at_the_capacity(autojump_clock: Clock) -> None:
    ours, theirs = await make_pair(Conditions(capacity=10))
    with trio.move_on_after(1) as waiting:
        await ours.send_all(b"x" * 21)
    assert waiting.cancelled_caught
    received = await theirs.receive_some()
    with trio.fail_after(1):
        await ours.wait_send_all_might_not_block()
    assert len(received) == 10


async def test_partition_delays_all_bytes_until_it_heals(autojump_clock: Clock) -> None:
    link = Network().connect()
    link.partition()
    await link.client.send_all(b"hello")
    with trio.move_on_after(100) as waiting:
        await link.server.receive_some()
    assert waiting.cancelled_caught
    link.heal()
    assert await link.server.receive_some() == b"hello"


async def test_silent_link_loses_all_bytes_without_notifying_either_end(autojump_clock: Clock) -> None:
    link = Network(conditions=Conditions(capacity=10)).connect()
    link.go_silent()
    await link.client.send_all(b"x" * 1000)
    await link.client.aclose()
    with trio.move_on_after(100) as waiting:
        await link.server.receive_some()
    assert waiting.cancelled_caught


async def test_reset_breaks_both_ends_immediately(autojump_clock: Clock) -> None:
    link = Network(conditions=Conditions(latency=5)).connect()
    await link.client.send_all(b"lost")
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.BrokenResourceError, match="reset"):
                await link.server.receive_some()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        link.reset()
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await link.client.send_all(b"x")


@pytest.mark.parametrize("to_server", [False, True])
async def test_corruption_flips_one_bit_of_the_next_bytes(to_server: bool) -> None:
    link = Network(7).connect()
    sender, receiver = (link.client, link.server) if to_server else (link.server, link.client)
    link.corrupt(to_server=to_server)
    await sender.send_all(bytes(100))
    assert (await receiver.receive_some()).hex().count("0") == 199
    await sender.send_all(bytes(100))
    assert await receiver.receive_some() == bytes(100)


@pytest.mark.parametrize(
    "arguments", [{"latency": -1}, {"jitter": float("inf")}, {"bandwidth": 0}, {"capacity": 0}], ids=str
)
def test_invalid_conditions_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises((ValueError, ConfigError)):
        Conditions(**arguments)  # type: ignore[arg-type]


async def work(task: ServerTask) -> object:
    await trio.sleep(float(task.request))
    return task.request


async def serve(server: MemoryServer, link: NetworkLink) -> None:
    await server.serve_stream(link.server)


async def be_device(server: MemoryServer, *, task_status: trio.TaskStatus[None]) -> None:
    async with open_device_connection(
        server.url, DEVICE, system_info=DeviceInfo(DEVICE, Platform.LINUX), stream=server.connect()
    ) as device:
        task_status.started()
        await device.wait_closed()


@asynccontextmanager
async def open_ends(
    conditions: Conditions | None = None, *, liveness_timeout: float = 180
) -> AsyncGenerator[tuple[Connection, NetworkLink]]:
    """Open a server with a device, and a constellation connection over the network."""
    with trio.fail_after(10_000):
        async with open_memory_server(session=work) as server, trio.open_nursery() as nursery:
            await nursery.start(be_device, server)
            link = Network(1, conditions).connect()
            nursery.start_soon(serve, server, link)
            async with open_connection(
                server.url, DEVICE, stream=link.client, options=ConnectionOptions(liveness_timeout=liveness_timeout)
            ) as connection:
                yield connection, link
            nursery.cancel_scope.cancel()


async def test_tasks_complete_over_a_slow_network(autojump_clock: Clock) -> None:
    async with open_ends(SLOW) as (connection, _):
        began = trio.current_time()
        assert (await connection.run_task("1")).unwrap() == "1"
        assert 2 < trio.current_time() - began < 6


async def test_partition_that_heals_in_time_only_delays_a_task(autojump_clock: Clock) -> None:
    async with open_ends() as (connection, link), trio.open_nursery() as nursery:

        async def heal() -> None:
            await trio.sleep(100)
            link.heal()

        nursery.start_soon(heal)
        link.partition()
        assert (await connection.run_task("1")).unwrap() == "1"
        assert trio.current_time() >= 100


async def test_half_open_connection_is_lost_at_the_liveness_timeout(autojump_clock: Clock) -> None:
    async with open_ends(liveness_timeout=50) as (connection, link):
        link.go_silent()
        with pytest.raises(ConnectionLost):
            await connection.run_task("1")
        assert trio.current_time() < 60


async def test_reset_loses_the_connection_immediately(autojump_clock: Clock) -> None:
    async with open_ends() as (connection, link):
        link.reset()
        with pytest.raises(ConnectionLost):
            await connection.run_task("1")
        assert trio.current_time() < 1


async def test_slow_reader_only_delays_a_task(autojump_clock: Clock) -> None:
    async with open_ends() as (connection, link), trio.open_nursery() as nursery:
        link.slow_reader(server=True)
        results = [0]

        async def ask() -> None:
            assert (await connection.device_info(timeout=1000)).device_id == DEVICE
            results[0] += 1

        for _ in range(50):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert results == [0]
        link.heal()
    assert results == [50]


async def test_shuffled_replies_reach_their_own_requests(autojump_clock: Clock) -> None:
    async with open_ends() as (connection, link), trio.open_nursery() as nursery:
        ended: list[str] = []

        async def run(request: str) -> None:
            assert (await connection.run_task(request)).unwrap() == request
            ended.append(request)

        link.shuffle_replies(8)
        for number in range(4):
            nursery.start_soon(partial(run, f"0.{number}"))
    assert sorted(ended) == ["0.0", "0.1", "0.2", "0.3"]


async def test_frames_are_shuffled_whole_and_control_frames_are_not_delayed() -> None:
    link = Network(3, Conditions(capacity=10**6)).connect()
    link.shuffle_replies(3)
    small, large, huge = b"\x81\x02ab", b"\x81\x7e" + (300).to_bytes(2, "big") + b"c" * 300, b"\x81\x7f"
    huge += (70_000).to_bytes(8, "big") + b"d" * 70_000
    fragments = b"\x01\x01x", b"\x80\x01y"
    await link.server.send_all(small + fragments[0] + b"\x89\x00")
    assert await link.client.receive_some() == b"\x89\x00"
    await link.server.send_all(fragments[1] + large[:1])
    await link.server.send_all(large[1:3])
    await link.server.send_all(large[3:] + huge)
    # Fragments arrive as one message.
    whole = small + b"\x81\x02xy" + large + huge
    received = b""
    while len(received) < len(whole):
        received += await link.client.receive_some()
    assert received != whole
    assert received.endswith(huge)
    for message in (small, b"\x81\x02xy", large, huge):
        assert message in received


async def test_replies_can_be_broken_duplicated_and_lost(autojump_clock: Clock) -> None:
    seen: list[bytes] = []

    def spoil(message: bytes) -> list[bytes]:
        seen.append(message)
        if b"task_end" not in message:
            return [message]
        if b"first" in message:
            return [message, message]
        return [message[:-1]] if b"second" in message else []

    async with open_memory_server() as server, trio.open_nursery() as nursery:
        link = Network().connect()
        # Set before the handshake.
        link.edit_replies(spoil)
        nursery.start_soon(server.serve_stream, link.server)
        info = DeviceInfo(DEVICE, Platform.LINUX)
        async with open_device_connection(server.url, DEVICE, system_info=info, stream=server.connect()):
            async with open_connection(server.url, DEVICE, stream=link.client) as connection:
                assert (await connection.run_task("first")).unwrap() == {"echo": "first"}
                with pytest.raises(InvalidMessage):
                    await connection.run_task("second", timeout=5)
                with pytest.raises(RequestTimeout):
                    await connection.run_task("third", timeout=5)
                # A short message, one with a two-byte length, and one that is only text.
                result = await connection.run_task("first" + "x" * 100_000)
                assert result.unwrap() == {"echo": "first" + "x" * 100_000}
                await trio.testing.wait_all_tasks_blocked()
                assert connection.statistics().duplicate_replies == 2
        assert seen[0].startswith(b"{")
        nursery.cancel_scope.cancel()


async def test_handshake_in_pieces_is_not_edited_and_dropped_bytes_are_not_corrupted() -> None:
    link = Network(3).connect()
    link.edit_replies(lambda message: () if message == b"no" else (message,))
    link.corrupt()
    handshake = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    await link.server.send_all(handshake[:30])
    await link.server.send_all(b"")
    await link.server.send_all(handshake[30:] + b"\x81\x02no")
    received = await link.client.receive_some()
    # One bit of the bytes that were sent on.
    assert len(received) == len(handshake)
    assert sum((a ^ b).bit_count() for a, b in zip(received, handshake, strict=True)) == 1
    await link.server.send_all(b"\x81\x02no\x81\x03yes")
    assert await link.client.receive_some() == b"\x81\x03yes"


async def test_closed_links_are_removed() -> None:
    network = Network()
    for _ in range(10):
        link = network.connect()
        await link.client.aclose()
        await link.server.aclose()
        await link.server.aclose()
    assert len(network.links) == 1


async def test_conditions_may_change_while_a_link_is_used(autojump_clock: Clock) -> None:
    link = Network().connect()
    await link.client.send_all(b"fast")
    assert (await link.server.receive_some(), trio.current_time()) == (b"fast", 0)
    link.set_conditions(Conditions(latency=2))
    await link.client.send_all(b"slow")
    assert (await link.server.receive_some(), trio.current_time()) == (b"slow", 2)
