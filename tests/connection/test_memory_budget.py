"""The memory budget of a client's connections."""

from __future__ import annotations

import struct

import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, ConnectionLost, ConnectionOptions, MemoryBudget
from galaxy_trio.testing import open_scripted_peer

_MB = 2**20


def _part_of_message(sent: int, size: int = 50 * _MB) -> bytes:
    """The beginning of a text frame."""
    return struct.pack("!BBQ", 0x81, 127, size) + b" " * sent


async def test_connection_that_holds_the_whole_budget_is_closed_and_says_why(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_scripted_peer(options=ConnectionOptions(memory_budget=10 * _MB)) as peer:
        await peer.send_raw(_part_of_message(11 * _MB))
        lost = await peer.connection.wait_closed()
        assert isinstance(lost, ConnectionLost)
        assert lost.code == 1013
        assert "hold too much memory" in str(lost)
        assert (await peer.wait_ended()).code == 1013


async def test_connections_that_share_a_budget_are_not_read_above_their_part_which_is_not_silence(
    autojump_clock: trio.testing.MockClock,
) -> None:
    budget = MemoryBudget(10 * _MB)
    options = ConnectionOptions(memory_budget=budget, liveness_timeout=50, heartbeat_interval=1e6)
    async with open_scripted_peer("a", options=options) as heavy, open_scripted_peer("b", options=options) as other:
        await heavy.send_raw(_part_of_message(6 * _MB))
        await other.send_raw(_part_of_message(2 * _MB))
        await trio.testing.wait_all_tasks_blocked()
        assert budget.is_short
        await heavy.send_raw(b" " * _MB)
        for _ in range(20):
            await trio.sleep(4)
            # Something is released, so that the heaviest is not closed, and taken again.
            share = budget.open_share()
            await trio.sleep(0.5)
            other.ping()
            share.close()
        held = budget.held
        assert held == pytest.approx(8 * _MB, rel=0.01)
        assert not heavy.connection.closed


async def test_connection_has_left_the_budget_before_its_background_tasks_end() -> None:
    budget = MemoryBudget(1000)
    left: list[bool] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            # Without connections, the whole budget can be taken, and no closing task is started in the ending connection.
            share = budget.open_share()
            share.add(1000)
            left.append(budget.closed == 1)

    async with open_scripted_peer(options=ConnectionOptions(memory_budget=budget)) as peer:
        peer.connection._link.memory.add(900)
        peer.connection._link.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
    assert left == [True]
    assert peer.connection._link.memory.held == 900


def test_budget_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="memory_budget must be above 0"):
        ConnectionOptions(memory_budget=0)
    assert ConnectionOptions(memory_budget=MemoryBudget(1)).make_budget().limit == 1
