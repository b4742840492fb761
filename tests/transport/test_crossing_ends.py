"""Frames that cross a close frame raise nothing."""

from __future__ import annotations

from typing import cast

import pytest
import trio
import trio.testing
import trio_websocket
from wsproto.utilities import LocalProtocolError

from galaxy_trio import open_connection
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio.testing import PEER_URL, open_bare_peer
from tests.transport.support.memory_pair import open_pair
from tests.transport.support.messages import confirm, connect


async def test_a_ping_that_crosses_our_close_frame_raises_nothing_and_cancels_no_later_code(
    autojump_clock: trio.testing.MockClock,
) -> None:
    reached: list[str] = []
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(confirm, peer)
        async with open_connection(PEER_URL, "device_001", stream=peer.stream):
            # It is written when this task next waits, after our close frame was made.
            peer.ping()
        reached.append("the next statement")
        await trio.lowlevel.checkpoint()
        reached.append("the one after a checkpoint")
        assert reached == ["the next statement", "the one after a checkpoint"]
        assert peer.stream.closed
        assert (await peer.wait_ended()).code == 1000
        # At most the time that closing may take.
        assert trio.current_time() <= 3


async def test_trio_websocket_alone_raises_and_skips_code_when_a_ping_crosses_the_close_frame(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # This shows that the test above exercises its case.
    async with open_bare_peer() as peer:
        with pytest.raises(ExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                websocket = await trio_websocket.wrap_client_stream(
                    nursery, cast("trio.SocketStream", peer.stream), "peer.test", "/ws"
                )
                peer.ping()
                await websocket.aclose()
                raise AssertionError("not reached")
        assert caught.group_contains(LocalProtocolError)


@pytest.mark.parametrize("closing", ["client", "server"])
async def test_a_ping_that_crosses_either_ends_close_frame_raises_nothing(
    closing: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as (client, server):
        one, other = (client, server) if closing == "client" else (server, client)
        other.transport.ping_nowait()
        with trio.move_on_after(3):
            await one.transport.aclose()
        with pytest.raises(TransportEnded) as caught:
            await other.transport.receive()
        assert caught.value.code == 1000
        with pytest.raises(TransportEnded):
            await one.transport.receive()
        await other.transport.abort()


async def test_messages_and_a_close_that_cross_our_close_frame_raise_nothing() -> None:
    async with open_pair() as (client, server):
        for number in range(5):
            server.transport.send_nowait(str(number))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.transport.aclose)
            nursery.start_soon(server.transport.aclose)


@pytest.mark.parametrize("closing", ["client", "server"])
async def test_closing_after_the_peer_has_closed_closes_the_stream(closing: str) -> None:
    async with open_pair() as (client, server):
        first, second = (client, server) if closing == "server" else (server, client)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.transport.aclose, 1001)
                with pytest.raises(TransportEnded) as caught:
                    await second.transport.receive()
                assert caught.value.code == 1001
                await second.transport.aclose()
                assert second.stream.closed


@pytest.mark.parametrize("closing", ["client", "server"])
async def test_a_cancelled_close_after_the_peer_has_closed_closes_the_stream(closing: str) -> None:
    async with open_pair() as (client, server):
        first, second = (client, server) if closing == "server" else (server, client)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.transport.aclose)
                with pytest.raises(TransportEnded):
                    await second.transport.receive()
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await second.transport.aclose()
                assert second.stream.closed


async def test_the_peers_close_closes_the_stream_within_the_block() -> None:
    async with open_bare_peer() as peer, connect(peer) as connection:
        await peer.close()
        assert await connection.wait_closed() is not None
        await trio.testing.wait_all_tasks_blocked()
        assert peer.stream.closed


async def test_trio_websocket_alone_leaves_the_stream_open_when_it_is_closed_after_the_peers_close() -> None:
    # This shows that the two tests above exercise their case.
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        websocket = await trio_websocket.wrap_client_stream(
            nursery, cast("trio.SocketStream", peer.stream), "peer.test", "/ws"
        )
        nursery.start_soon(peer.close)
        with pytest.raises(trio_websocket.ConnectionClosed):
            await websocket.get_message()
        await websocket.aclose()
        assert not peer.stream.closed


async def test_a_ping_that_crosses_our_close_frame_does_not_delay_closing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(confirm, peer)
        async with open_connection(PEER_URL, "device_001", stream=peer.stream):
            peer.ping()
        assert trio.current_time() == 0
        assert (await peer.wait_ended()).code == 1000
