"""Connections of a process that was suspended, and of a machine that was asleep."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionOptions, RequestTimeout
from galaxy_trio.testing import open_scripted_peer
from tests.support.machine_sleep import MachineSleep

if TYPE_CHECKING:
    from galaxy_trio.testing import ScriptedPeer

OPTIONS = ConnectionOptions(heartbeat_interval=1e6, liveness_timeout=50)
PONG = b"\x8a\x00"


async def _suspend(clock: trio.testing.MockClock, seconds: float) -> None:
    """Let trio's clock run without its tasks, as when the process is stopped, then let the tasks run."""
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(seconds)
    await trio.testing.wait_all_tasks_blocked()


def _is_closed(peer: ScriptedPeer) -> bool:
    return peer.connection.closed


async def test_client_that_was_suspended_for_longer_than_the_liveness_timeout_reads_before_it_decides(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with open_scripted_peer(options=OPTIONS) as peer:
        # trio runs the tasks of a step in random order.
        for _ in range(30):
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_raw(PONG)
            mock_clock.jump(300)
            await trio.testing.wait_all_tasks_blocked()
            assert not peer.connection.closed
            # The bytes count: the next deadline is the usual one.
            await _suspend(mock_clock, 49)
            assert not peer.connection.closed


async def test_client_that_was_suspended_asks_a_silent_server_and_keeps_one_that_answers(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with open_scripted_peer(options=OPTIONS) as peer:
        for _ in range(10):
            await _suspend(mock_clock, 300)
            assert not peer.connection.closed
            assert peer.connection.last_received == trio.current_time()


async def test_server_has_5_seconds_to_speak_after_the_client_was_suspended(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with open_scripted_peer(options=OPTIONS) as peer:
        peer.go_silent()
        await _suspend(mock_clock, 300)
        await _suspend(mock_clock, 4.9)
        assert not _is_closed(peer)
        await _suspend(mock_clock, 0.2)
        assert _is_closed(peer)
        lost = await peer.connection.wait_closed()
        assert lost is not None
        assert lost.reason == "nothing was received for 50 s"


async def test_client_that_was_suspended_twice_gives_the_server_5_seconds_twice(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with open_scripted_peer(options=OPTIONS) as peer:
        peer.go_silent()
        for _ in range(2):
            await _suspend(mock_clock, 300)
            assert not _is_closed(peer)
        await _suspend(mock_clock, 5)
        assert _is_closed(peer)


async def test_callers_timeout_is_not_extended_by_a_suspension(mock_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer(options=OPTIONS) as peer, trio.open_nursery() as nursery:
        ended_at: list[float] = []

        async def ask() -> None:
            with pytest.raises(RequestTimeout):
                await peer.connection.device_info(timeout=100)
            ended_at.append(trio.current_time())

        nursery.start_soon(ask)
        await _suspend(mock_clock, 300)
        assert ended_at == [300]
        assert not peer.connection.closed


async def _wait_lost(peer: ScriptedPeer, within: float) -> str:
    with trio.fail_after(within):
        lost = await peer.connection.wait_closed()
    assert lost is not None
    return lost.reason


async def test_silent_connection_is_lost_within_seconds_after_the_machine_was_asleep(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    machine = MachineSleep(monkeypatch)
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1e6)) as peer:
        await trio.sleep(10)
        peer.go_silent()
        machine.sleep(240)
        reason = await _wait_lost(peer, within=10)
        assert reason == "no answer to a ping within 8 s after this machine was asleep"


@pytest.mark.parametrize("liveness_timeout", [50, math.inf])
async def test_connection_that_answers_a_ping_survives_the_machines_sleep_every_time(
    liveness_timeout: float, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    machine = MachineSleep(monkeypatch)
    options = ConnectionOptions(heartbeat_interval=1e6, liveness_timeout=liveness_timeout)
    async with open_scripted_peer(options=options) as peer:
        for _ in range(5):
            machine.sleep(240)
            await trio.sleep(20)
            assert not peer.connection.closed
            # The ping was sent within a second.
            assert trio.current_time() - peer.connection.last_received >= 19
        peer.go_silent()
        machine.sleep(240)
        await _wait_lost(peer, within=10)


async def test_machine_that_sleeps_again_while_a_connection_is_checked_checks_it_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    machine = MachineSleep(monkeypatch)
    async with open_scripted_peer(options=ConnectionOptions(heartbeat_interval=1e6)) as peer:
        peer.go_silent()
        machine.sleep(240)
        await trio.sleep(5)
        machine.sleep(240)
        assert await _wait_lost(peer, within=5)


async def test_connection_over_which_the_ping_cannot_leave_is_not_lost_by_the_machines_sleep(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    machine = MachineSleep(monkeypatch)
    async with open_scripted_peer(options=OPTIONS) as peer:
        # The server reads slowly; the answer would come after what it reads.
        peer.stream.stall()
        machine.sleep(240)
        await trio.sleep(40)
        assert not peer.connection.closed
        peer.stream.resume()
        await trio.sleep(40)
        assert not peer.connection.closed
        assert await _wait_lost(peer, within=50) == "nothing was received for 50 s"


async def test_watching_the_clocks_ends_with_the_last_connection(autojump_clock: trio.testing.MockClock) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_scripted_peer(options=OPTIONS) as peer:
        async with open_scripted_peer(options=OPTIONS):
            await trio.sleep(5)
        await trio.sleep(5)
        assert not peer.connection.closed
    statistics = trio.lowlevel.current_statistics()
    assert (statistics.tasks_living, statistics.seconds_to_next_deadline) == (before, math.inf)
