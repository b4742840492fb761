"""A server's limits."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio import QueueFull
from galaxy_trio._transport.send_buffer import HIGH_WATER_MARK
from galaxy_trio.messages import Command, ToolType
from galaxy_trio.server import Server, ServerLimits, ServerTask, open_server
from galaxy_trio.testing import FaultyStream, MemoryServer, open_memory_server
from tests.server.support.clients import (
    CONSTELLATION,
    DEVICE,
    end_of,
    open_clients,
    register_constellation,
    register_device,
    start_task,
    submit,
    wait_for,
)
from tests.server.support.raw_client import RawClient, open_raw_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_each_limit_has_a_default() -> None:
    assert attrs.asdict(ServerLimits()) == {
        "max_connections": 500,
        "max_message_size": 100 * 2**20,
        "max_registration_size": 65_536,
        "max_values": 500_000,
        "memory_budget": 2**30,
        "max_sessions": 100,
        "max_unanswered_commands": 1000,
        "handshake_timeout": 10,
        "register_timeout": 10,
        "liveness_timeout": 180,
        "idle_timeout": 600,
        "ping_interval": 20,
        "send_timeout": 60,
    }


async def test_every_timeout_may_be_infinite(autojump_clock: trio.testing.MockClock) -> None:
    times = [name for name in attrs.asdict(ServerLimits()) if name.endswith(("_timeout", "_interval"))]
    assert len(times) == 6
    limits = ServerLimits(**dict.fromkeys(times, math.inf))  # type: ignore[arg-type]
    async with open_clients(limits=limits) as clients, open_raw_client(clients.server.connect()) as unregistered:
        await unregistered.silence(100_000)
        await start_task(clients.constellation, "s", "works")
        assert await end_of(clients.constellation, "s") == ("completed", "works", None)


class _Peak(trio.abc.Instrument):
    """The highest number of connections after the first step of any task that serves one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._seen: set[trio.lowlevel.Task] = set()
        self.connections = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name.rpartition(".")[2] in ("serve", "serve_stream") and task not in self._seen:
            self._seen.add(task)
            self.connections = max(self.connections, self._server.statistics().connections)


@asynccontextmanager
async def _watching(server: Server) -> AsyncGenerator[_Peak]:
    peak = _Peak(server)
    trio.lowlevel.add_instrument(peak)
    try:
        yield peak
    finally:
        trio.lowlevel.remove_instrument(peak)


class _Visitors:
    """Connections that send given bytes and read until the server closes them; records when."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.closed_at: list[float] = []

    def send(self, stream: trio.abc.Stream, data: bytes) -> None:
        self._nursery.start_soon(self._visit, stream, data)

    async def _visit(self, stream: trio.abc.Stream, data: bytes) -> None:
        with suppress(trio.BrokenResourceError), trio.fail_after(1000):
            if data:
                await stream.send_all(data)
            while await stream.receive_some():
                pass
        self.closed_at.append(trio.current_time())
        await stream.aclose()


async def test_of_2000_unregistered_connections_500_stay_until_their_timeout(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_memory_server() as server, _watching(server) as peak, trio.open_nursery() as nursery:
        visitors = _Visitors(nursery)
        for number in range(2000):
            visitors.send(server.connect(), HANDSHAKE if number % 2 else b"")
        await trio.testing.wait_all_tasks_blocked()
        assert (server.statistics().connections, server.statistics().turned_away) == (500, 1500)
        assert visitors.closed_at == [0] * 1500
        await trio.sleep(10.5)
        # Clients after their handshake still have time to register, and there is room for others.
        waiting = server.statistics().connections
        assert visitors.closed_at == [0] * 1500 + [10] * (500 - waiting)
        assert 100 < waiting < 400
        async with open_raw_client(server.connect()) as client:
            await register_device(client)
            # They do not answer the close handshake, which takes 3 s more.
            await trio.sleep(3)
            assert server.statistics().connections == 1
            assert visitors.closed_at[2000 - waiting :] == [13] * waiting
        assert peak.connections == 500
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.getMessage() == "a connection was turned away: 500 are open"


async def test_sockets_above_the_limit_are_closed_immediately_and_the_others_at_their_timeout(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_server(limits=ServerLimits(max_connections=150)) as server,
        _watching(server) as peak,
        trio.open_nursery() as nursery,
    ):
        port = int(server.url.removeprefix("ws://127.0.0.1:").removesuffix("/ws"))
        visitors = _Visitors(nursery)

        async def all_closed(count: int) -> None:
            for _ in range(6_000):
                await trio.testing.wait_all_tasks_blocked(0.01)
                if len(visitors.closed_at) >= count:
                    return
            raise AssertionError(f"{len(visitors.closed_at)} of {count} were closed")

        for _ in range(600):
            visitors.send(await trio.open_tcp_stream("127.0.0.1", port), b"")
        await all_closed(450)
        assert (server.statistics().connections, server.statistics().turned_away) == (150, 450)
        mock_clock.jump(10)
        await all_closed(600)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (server.statistics().connections, peak.connections) == (0, 150)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with open_raw_client(stream) as client:
            await register_device(client)


async def test_turning_away_is_logged_once_each_time_the_server_is_full(caplog: pytest.LogCaptureFixture) -> None:
    async with open_memory_server(limits=ServerLimits(max_connections=1)) as server:
        for warnings in (1, 2):
            async with open_raw_client(server.connect()):
                for _ in range(3):
                    assert await server.connect().receive_some() == b""
                assert len([record for record in caplog.records if record.levelname == "WARNING"]) == warnings
            await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().turned_away == 6


async def test_sessions_above_a_clients_limit_are_refused_until_one_ends() -> None:
    gates = {name: trio.Event() for name in ("s0", "s1", "s2", "other")}

    async def session(task: ServerTask) -> object:
        return await wait_for(gates[task.session_id], task)

    async with (
        open_clients(session, ServerLimits(max_sessions=2)) as clients,
        open_raw_client(clients.server.connect()) as other,
    ):
        await register_constellation(other, "other@device_001")
        await start_task(clients.constellation, "s0")
        await start_task(clients.constellation, "s1")
        submit(clients.constellation, "s2")
        refusal = await clients.constellation.receive()
        assert refusal["error"] == f"client '{CONSTELLATION}' has 2 sessions already: wait until one has ended"
        await start_task(other, "other")
        gates["s1"].set()
        assert (await end_of(clients.constellation, "s1"))[0] == "completed"
        await start_task(clients.constellation, "s2")
        assert clients.server.statistics().sessions == 3


async def test_default_limit_is_100_sessions_per_client() -> None:
    async with open_clients(partial(wait_for, trio.Event())) as clients:
        for number in range(100):
            await start_task(clients.constellation, f"s{number}")
        submit(clients.constellation, "s100")
        assert "has 100 sessions already" in str((await clients.constellation.receive())["error"])


@asynccontextmanager
async def _open_slow(
    server: MemoryServer, register: Callable[[RawClient], Awaitable[None]]
) -> AsyncGenerator[tuple[RawClient, FaultyStream]]:
    """Open a registered client and return the stream to stall."""
    client_end, server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(server_end)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, stream)
        async with open_raw_client(client_end) as client:
            await register(client)
            yield client, stream


def _slow_constellation(client: RawClient) -> Awaitable[None]:
    return register_constellation(client, "slow@device_001")


def _slow_device(client: RawClient) -> Awaitable[None]:
    return register_device(client, "slow")


async def _large_result(task: ServerTask) -> object:
    return "x" * int(task.request or 1)


async def test_client_that_does_not_read_is_dropped_at_the_send_timeout_and_delays_no_other(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    limits = ServerLimits(send_timeout=60, max_sessions=3)
    async with (
        open_clients(_large_result, limits) as clients,
        _open_slow(clients.server, _slow_constellation) as (slow, stream),
    ):
        stream.stall()
        await trio.sleep(5)
        for number in range(3):
            submit(slow, f"slow-{number}", str(HIGH_WATER_MARK))
        for _ in range(3):
            # The device receives each end immediately.
            assert (await clients.device.receive())["type"] == "task_end"
        assert trio.current_time() == 5
        # Waiting ends count as the client's sessions, and at most one message above the mark is held.
        statistics = clients.server.statistics()
        assert (statistics.sessions, statistics.ending_sessions) == (0, 2)
        assert HIGH_WATER_MARK < statistics.bytes_held < HIGH_WATER_MARK + 2000
        await start_task(clients.constellation, "quick", "3")
        assert await end_of(clients.constellation, "quick") == ("completed", "xxx", None)
        await trio.sleep_until(5 + 60 - 0.001)
        assert clients.server.constellations == [CONSTELLATION, "slow@device_001"]
        await trio.sleep_until(5 + 60 + 0.001)
        assert clients.server.constellations == [CONSTELLATION]
        statistics = clients.server.statistics()
        assert (statistics.connections, statistics.ending_sessions, statistics.bytes_held) == (2, 0, 0)
        assert "'slow@device_001' ended: it has not read what was sent to it for 60 s" in caplog.text
        await start_task(clients.constellation, "still", "2")
        assert await end_of(clients.constellation, "still") == ("completed", "xx", None)


async def test_unread_results_count_as_sessions_of_the_client_that_submitted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # One result fills the buffer of a device that does not read; later ones wait.
    async with (
        open_clients(_large_result, ServerLimits(max_sessions=3)) as clients,
        _open_slow(clients.server, _slow_device) as (slow, stream),
    ):
        stream.stall()
        for number in range(4):
            await start_task(clients.constellation, f"s{number}", str(HIGH_WATER_MARK), "slow")
            assert (await end_of(clients.constellation, f"s{number}"))[0] == "completed"
        assert (clients.server.statistics().sessions, clients.server.statistics().ending_sessions) == (0, 3)
        submit(clients.constellation, "s4", "1")
        assert "has 3 sessions already" in str((await clients.constellation.receive())["error"])
        stream.resume()
        for number in range(4):
            assert (await end_of(slow, f"s{number}"))[0] == "completed"
        assert clients.server.statistics().ending_sessions == 0
        await start_task(clients.constellation, "s4", "1")
        assert (await end_of(clients.constellation, "s4"))[0] == "completed"


async def test_buffer_that_falls_below_its_mark_restarts_the_send_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_clients(_large_result) as clients,
        _open_slow(clients.server, _slow_constellation) as (slow, stream),
    ):
        for number, (read_at, dropped) in enumerate([(59, False), (118, False), (178, True)]):
            stream.stall()
            submit(slow, f"s{number}", str(HIGH_WATER_MARK))
            await trio.sleep_until(read_at)
            stream.resume()
            await trio.testing.wait_all_tasks_blocked()
            assert ("slow@device_001" not in clients.server.constellations) == dropped
            if not dropped:
                assert (await slow.receive())["type"] == "heartbeat"
                assert (await slow.receive())["type"] == "task_end"


async def test_data_below_the_mark_may_stay_unread(autojump_clock: trio.testing.MockClock) -> None:
    limits = ServerLimits(liveness_timeout=math.inf, idle_timeout=math.inf)
    async with (
        open_clients(_large_result, limits) as clients,
        _open_slow(clients.server, _slow_constellation) as (slow, stream),
    ):
        stream.stall()
        submit(slow, "s", str(HIGH_WATER_MARK - 2000))
        await trio.sleep(10_000)
        assert clients.server.statistics().bytes_held < HIGH_WATER_MARK
        stream.resume()
        assert (await slow.receive())["type"] == "heartbeat"
        assert (await end_of(slow, "s"))[0] == "completed"


async def test_device_that_does_not_read_is_dropped_and_the_constellation_gets_all_earlier_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_clients(_large_result) as clients, _open_slow(clients.server, _slow_device) as (_, stream):
        stream.stall()
        for number in range(3):
            await start_task(clients.constellation, f"s{number}", str(HIGH_WATER_MARK), "slow")
            assert (await end_of(clients.constellation, f"s{number}"))[0] == "completed"
        assert trio.current_time() == 0
        await trio.sleep(60.001)
        assert clients.server.devices == [DEVICE]
        assert clients.server.statistics().ending_sessions == 0


async def test_batch_above_the_limit_is_refused_immediately_even_if_the_device_does_not_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    large = Command("t", ToolType.ACTION, {"x": "x" * HIGH_WATER_MARK})

    async def session(task: ServerTask) -> object:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.execute, [large])
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(QueueFull):
                await task.execute([large])
            nursery.cancel_scope.cancel()
        return trio.current_time()

    async with (
        open_clients(session, ServerLimits(max_unanswered_commands=1)) as clients,
        _open_slow(clients.server, _slow_device) as (_, stream),
    ):
        stream.stall()
        await start_task(clients.constellation, "s", "", "slow")
        assert (await end_of(clients.constellation, "s"))[:2] == ("completed", 0)
