"""One task receives, and cancelling it loses no message."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from galaxy_trio._transport.url import parse_url
from galaxy_trio._transport.websocket import Transport
from galaxy_trio.testing import PEER_URL


async def test_a_second_receiver_is_refused_without_losing_a_message() -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    received: list[str | bytes] = []
    client = Transport(client_end, peer="the server", client=True, max_message_size=1000)
    server = Transport(server_end, peer="the client", client=False, max_message_size=1000)

    async def receive_two() -> None:
        received.extend([await client.receive(), await client.receive()])

    async with trio.open_nursery() as nursery:
        await _shake_hands(nursery, client, server)
        async with trio.open_nursery() as receivers:
            receivers.start_soon(receive_two)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError, match="another task is receiving"):
                await client.receive()
            server.send_nowait("one")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await client.receive()
            server.send_nowait("two")
        server.send_nowait("three")
        assert await client.receive() == "three"
        nursery.cancel_scope.cancel()
    assert received == ["one", "two"]


async def _shake_hands(nursery: trio.Nursery, client: Transport, server: Transport) -> None:
    def accept(path: str, headers: list[tuple[bytes, bytes]]) -> int:
        return 101

    nursery.start_soon(client.run_writer)
    nursery.start_soon(server.run_writer)
    async with trio.open_nursery() as handshake:
        handshake.start_soon(partial(nursery.start, partial(server.run_server, accept)))
        handshake.start_soon(partial(nursery.start, partial(client.run_client, parse_url(PEER_URL), [])))


async def test_a_cancelled_receive_loses_no_message() -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    client = Transport(client_end, peer="the server", client=True, max_message_size=1000)
    server = Transport(server_end, peer="the client", client=False, max_message_size=1000)
    async with trio.open_nursery() as nursery:
        await _shake_hands(nursery, client, server)
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.receive()
        server.send_nowait("kept")
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.receive()
        assert await client.receive() == "kept"
        nursery.cancel_scope.cancel()
