"""Heartbeats and pings keep a connection alive."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionOptions, TaskStatus
from galaxy_trio.messages import ClientMessageType, ClientType
from galaxy_trio.testing import open_scripted_peer


async def test_heartbeats_contain_the_role_and_the_device(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=30)) as peer:
        for number in range(1, 4):
            await trio.sleep(30)
            await trio.testing.wait_all_tasks_blocked()
            [heartbeat] = peer.received_nowait()
            assert (heartbeat.type, heartbeat.status) == (ClientMessageType.HEARTBEAT, TaskStatus.OK)
            assert heartbeat.client_type is ClientType.CONSTELLATION
            assert heartbeat.metadata == {"device_id": "device_001"}
            assert peer.connection.statistics().unanswered == 1
            peer.confirm()
            await trio.testing.wait_all_tasks_blocked()
            statistics = peer.connection.statistics()
            assert (statistics.unanswered, statistics.unknown_replies) == (0, 0)
            assert statistics.messages_received == number + 1


async def test_pongs_keep_a_connection_with_a_ping_interval_alive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_scripted_peer(
        options=ConnectionOptions(heartbeat_interval=1e6, ping_interval=10, liveness_timeout=25)
    ) as peer:
        with trio.move_on_after(1000):
            await peer.connection.wait_closed()
        assert not peer.connection.closed
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1e6, liveness_timeout=25)) as peer:
        start = trio.current_time()
        lost = await peer.connection.wait_closed()
        assert lost is not None
        assert trio.current_time() - start == pytest.approx(25)


async def test_is_alive_reports_whether_the_server_answers_a_ping(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1e6)) as peer:
        assert await peer.connection.is_alive(timeout=5)
        start = trio.current_time()
        peer.go_silent()
        assert not await peer.connection.is_alive(timeout=5)
        assert trio.current_time() - start == pytest.approx(5)
    assert not await peer.connection.is_alive(timeout=5)
    assert trio.current_time() - start < 60


@pytest.mark.parametrize("how", ["aborted", "reset"])
async def test_connection_that_ends_during_the_ping_is_not_alive(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_scripted_peer() as peer:
        alive: list[bool] = []

        async def ask() -> None:
            alive.append(await peer.connection.is_alive())

        # The stream ends before the writer has sent the ping, so no pong can arrive.
        peer.stream.stall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            if how == "reset":
                peer.reset()
            else:
                await peer.abort()
        assert alive == [False]


async def test_the_servers_pings_keep_a_connection_alive(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1e6, liveness_timeout=25)) as peer:
        for _ in range(100):
            await trio.sleep(20)
            peer.ping()
        assert not peer.connection.closed
