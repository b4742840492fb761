"""An open WebSocket transfers messages, and drops them after its end."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from galaxy_trio._transport.frames import text_frame
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio._transport.websocket import TrioWebSocket
from tests.transport.support.memory_pair import MB, accept, open_pair
from tests.transport.support.messages import KB


async def test_texts_of_all_sizes_arrive_whole_and_in_order_in_both_directions() -> None:
    # The sizes at which the length of a frame takes more bytes.
    sizes = [0, 1, 125, 126, 127, 2**16 - 1, 2**16, 2**18]
    texts = [*("é" * (size // 2) + "x" * (size % 2) for size in sizes), "☃"]
    async with open_pair() as (client, server):
        for one, other in ((client, server), (server, client)):
            for text in texts:
                one.transport.send_nowait(text)
                one.transport.ping_nowait()
            assert [await other.transport.receive() for _ in texts] == texts
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.transport.aclose, 1001, "leaving")
            with pytest.raises(TransportEnded) as caught:
                await server.transport.receive()
        assert caught.value.code == 1001
        assert caught.value.reason == "the WebSocket was closed with 1001, going away 'leaving'"
        await server.transport.abort()


async def test_messages_after_the_end_are_dropped_and_not_counted() -> None:
    async with open_pair() as (client, server):
        await server.transport.abort()
        with pytest.raises(TransportEnded):
            await client.transport.receive()
        client.transport.send_nowait("x" * KB)
        client.transport.ping_nowait()
        assert client.transport.bytes_held == 0
        with trio.fail_after(60):
            await client.transport.wait_for_room()
        await client.transport.abort()


async def test_a_server_accepts_a_request_whose_lines_end_without_a_carriage_return() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    server = TrioWebSocket(ours, peer="the client", client=False, max_message_size=MB)
    request = b"GET /ws HTTP/1.1\nHost: a.test\nUpgrade: websocket\nConnection: Upgrade\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n"
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run_writer)
            await theirs.send_all(request + key)
            await nursery.start(partial(server.run_server, accept))
            await theirs.send_all(text_frame("hello", masked=True))
            assert await server.receive() == "hello"
            await server.abort()
            nursery.cancel_scope.cancel()


async def test_receiving_before_the_handshake_raises() -> None:
    stream, _other = trio.testing.memory_stream_pair()
    transport = TrioWebSocket(stream, peer="the other", client=True, max_message_size=MB)
    with pytest.raises(TransportEnded, match="never opened"):
        await transport.receive()
    await transport.aclose()
    with trio.fail_after(60), pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


async def test_a_close_frame_is_not_sent_before_the_handshake_is_done() -> None:
    stream, other = trio.testing.memory_stream_pair()
    transport = TrioWebSocket(stream, peer="the other", client=True, max_message_size=MB)
    transport.send_close_nowait(1013, "try again later")
    assert transport.bytes_held == 0
    await transport.abort()
    assert await other.receive_some() == b""
