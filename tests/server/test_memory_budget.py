"""A server's memory budget, with clients that make it hold as much as they can."""

from __future__ import annotations

import struct
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from galaxy_trio.server import ServerLimits, ServerTask
from galaxy_trio.testing import FaultyStream, open_memory_server
from tests.server.support.clients import register_constellation, register_device
from tests.server.support.raw_client import RawClient, open_raw_client

_MB = 2**20
_LIMITS = ServerLimits(memory_budget=10 * _MB, max_message_size=8 * _MB, send_timeout=1e6, idle_timeout=1e6)


def _part_of_message(size: int, sent: int, first: int = 0x81) -> bytes:
    """The beginning of a masked text frame, whose mask changes nothing."""
    return struct.pack("!BBQ", first, 0x80 | 127, size) + bytes(4) + b" " * sent


def _submit(client: RawClient, session_id: str, request: str) -> None:
    client.send(
        type="task",
        status="continue",
        client_type="constellation",
        session_id=session_id,
        target_id="device_001",
        request=request,
    )


async def _code_of(client: RawClient) -> int:
    _, code = await client.receive_until_ended()
    return code


@pytest.mark.parametrize("first", [0x81, 0x01], ids=["one frame", "fragments"])
async def test_incomplete_messages_count_and_the_heaviest_connection_is_closed(
    first: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_memory_server(limits=_LIMITS) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_raw_client(server.connect())) for _ in range(3)]
        for number, client in enumerate(clients):
            await register_device(client, f"device {number}")
        for client, part in zip(clients, (1, 2, 3), strict=True):
            await client.send_bytes(_part_of_message(4 * _MB, part * _MB, first))
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().memory_held == pytest.approx(6 * _MB, rel=0.1)
        assert server.statistics().closed_for_memory == 0
        await clients[1].send_bytes(b" " * (2 * _MB - 1))
        await trio.testing.wait_all_tasks_blocked()
        await clients[0].send_bytes(b" " * 2 * _MB)
        # Above 75 %, the connections with more than a third are not read any more; after 5 s without progress the heaviest is closed.
        await trio.sleep(6)
        assert server.statistics().closed_for_memory == 1
        assert await _code_of(clients[1]) == 1013
        assert server.statistics().memory_held < 7.5 * _MB
        assert set(server.devices) == {"device 0", "device 2"}


async def test_messages_that_do_not_complete_are_released_with_their_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_server(limits=_LIMITS) as server:
        async with open_raw_client(server.connect()) as client:
            await register_device(client)
            await client.send_bytes(_part_of_message(8 * _MB, 5 * _MB))
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().memory_held >= 5 * _MB
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().memory_held == 0


async def test_a_complete_message_is_released(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_server(limits=_LIMITS) as server, open_raw_client(server.connect()) as client:
        await register_device(client)
        client.send(type="heartbeat", status="ok", metadata={"x": "x" * 7 * _MB})
        assert (await client.receive())["type"] == "heartbeat"
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().memory_held == 0


async def test_requests_of_running_tasks_count_until_their_task_ends(autojump_clock: trio.testing.MockClock) -> None:
    go_on = trio.Event()

    async def session(task: ServerTask) -> str:
        await go_on.wait()
        return "done"

    async with (
        open_memory_server(session=session, limits=_LIMITS) as server,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        await register_device(device)
        await register_constellation(constellation)
        _submit(constellation, "s", "x" * 3 * _MB)
        await constellation.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().memory_held == pytest.approx(3 * _MB, rel=0.01)
        go_on.set()
        assert (await constellation.receive())["type"] == "task_end"
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().memory_held == 0


async def test_results_for_a_client_that_does_not_read_count_and_close_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    may_end = trio.Semaphore(0)

    async def session(task: ServerTask) -> str:
        await may_end.acquire()
        return "x" * 2 * _MB

    async with open_memory_server(session=session, limits=_LIMITS) as server, trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        not_read = FaultyStream(theirs)
        nursery.start_soon(server.serve_stream, not_read)
        async with (
            open_raw_client(server.connect()) as device,
            open_raw_client(ours) as greedy,
            open_raw_client(server.connect()) as other,
        ):
            await register_device(device)
            await register_constellation(greedy, "greedy")
            await register_constellation(other, "other")
            for number in range(20):
                _submit(greedy, f"s{number}", "x")
                await greedy.receive()
            not_read.stall()
            ended = 0
            while not server.statistics().closed_for_memory:
                may_end.release()
                # The device reads the ends that are sent to it as well.
                assert (await device.receive())["type"] == "task_end"
                await trio.testing.wait_all_tasks_blocked()
                ended += 1
            # The send buffer holds one end, and each of the others waits for room.
            assert 4 <= ended <= 5
            assert server.constellations == ["other"]
            assert server.statistics().memory_held == 0
            other.send(type="heartbeat", status="ok", client_type="constellation")
            assert (await other.receive())["type"] == "heartbeat"
            not_read.resume()


async def test_time_in_which_the_server_did_not_read_is_not_the_peers_silence(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = ServerLimits(memory_budget=10 * _MB, max_message_size=8 * _MB, liveness_timeout=50, ping_interval=1e6)
    async with (
        open_memory_server(limits=limits) as server,
        open_raw_client(server.connect()) as heavy,
        open_raw_client(server.connect()) as other,
    ):
        await register_device(heavy, "heavy")
        await register_device(other, "other")
        await heavy.send_bytes(_part_of_message(8 * _MB, 6 * _MB))
        await other.send_bytes(_part_of_message(8 * _MB, 2 * _MB))
        # The server stops reading from the first, and after 5 s closes it. Until then its silence does not count.
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().memory_held == pytest.approx(8 * _MB, rel=0.01)
        await heavy.send_bytes(b" " * 100)
        await trio.sleep(4)
        assert "heavy" in server.devices
