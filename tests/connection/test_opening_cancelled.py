"""Cancelling the opening of a connection leaves nothing open."""

from __future__ import annotations

from contextlib import suppress

import trio

from galaxy_trio import open_connection
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio.agent import open_device_connection
from galaxy_trio.testing import PEER_URL, ScriptedPeer, open_bare_peer, open_memory_server
from tests.connection.support.cancellation import open_and_cancel_at_step
from tests.connection.support.opening import INFO, Resolver, listen


async def test_cancelling_at_any_step_of_opening_leaves_no_stream_or_task() -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    for step in range(1, 1000):
        async with open_bare_peer() as peer, trio.open_nursery() as nursery:

            async def confirm(peer: ScriptedPeer = peer) -> None:
                with suppress(TransportEnded):
                    await peer.receive()
                    peer.confirm()

            nursery.start_soon(confirm)
            opening = open_connection(PEER_URL, "device_001", stream=peer.stream)
            opened = await open_and_cancel_at_step(step, opening)
            assert peer.stream.closed
            nursery.cancel_scope.cancel()
        assert trio.lowlevel.current_statistics().tasks_living == before
        if opened:
            break
    else:
        raise AssertionError("the block was never reached")
    assert step > 20


async def test_cancelling_at_any_step_of_opening_leaves_no_socket() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver("::1", "127.0.0.1"))
    async with open_memory_server() as server, listen(server.serve_stream) as listener:
        url = f"ws://two.test:{listener.port}/ws"
        for step in range(1, 1000):
            # Within `listen`, which counts the remaining sockets after all attempts.
            if await open_and_cancel_at_step(step, open_device_connection(url, "device_001", system_info=INFO)):
                break
            await listener.wait_all_gone()
        else:
            raise AssertionError("the block was never reached")
        assert step > 20
