"""Only one task receives, and cancelling it loses no message."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.transport.support.memory_pair import open_pair


async def test_a_second_receiver_is_refused_without_losing_a_message() -> None:
    received: list[str | bytes] = []
    async with open_pair() as (client, server):

        async def receive_two() -> None:
            received.extend([await client.transport.receive(), await client.transport.receive()])

        async with trio.open_nursery() as receivers:
            receivers.start_soon(receive_two)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError, match="another task is receiving"):
                await client.transport.receive()
            server.transport.send_nowait("one")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await client.transport.receive()
            server.transport.send_nowait("two")
        server.transport.send_nowait("three")
        assert await client.transport.receive() == "three"
        await client.transport.abort()
        await server.transport.abort()
    assert received == ["one", "two"]


async def test_a_cancelled_receive_loses_no_message() -> None:
    async with open_pair() as (client, server):
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.transport.receive()
        server.transport.send_nowait("kept")
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.transport.receive()
        assert await client.transport.receive() == "kept"
        await client.transport.abort()
        await server.transport.abort()
