"""A client's end reads whole texts and pings itself, and leaves everything from the first other frame to trio-websocket."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request
from wsproto.frame_protocol import FrameProtocol, Opcode

from galaxy_trio._transport.frames import text_frame
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio._transport.url import parse_url
from galaxy_trio._transport.websocket import TrioWebSocket
from galaxy_trio.testing import PEER_URL, FaultyStream
from tests.support.passes import counting_passes
from tests.transport.support.memory_pair import MB, frames_of_a_client, listening_to, open_pair

_SERVER = FrameProtocol(client=False, extensions=[])
_BINARY = bytes(_SERVER.send_data(b"binary"))
_FRAGMENTED = b"\x01\x04frag\x80\x04ment"
_CLOSE = bytes(_SERVER.close(1000))


def _text(text: str) -> bytes:
    return text_frame(text, masked=False)


def _ping(payload: bytes) -> bytes:
    return bytes(_SERVER.ping(payload))


async def test_messages_of_every_kind_are_received_in_order() -> None:
    large = "é" * MB
    async with open_pair(4 * MB) as (client, server):
        sent = [
            _text("1"),
            _text(large),
            _text("2"),
            _FRAGMENTED,
            _text("3"),
            _BINARY,
            _text(large),
            _ping(b""),
            _text("4"),
        ]
        expected = ["1", large, "2", "fragment", "3", b"binary", large, "4"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.stream.send_all, b"".join(sent))
            with trio.fail_after(60):
                assert [await client.transport.receive() for _ in expected] == expected
        await client.transport.abort()
        await server.transport.abort()


@pytest.mark.parametrize("before", [b"", _FRAGMENTED], ids=["read by ourselves", "read by the library"])
async def test_a_receiving_end_answers_pings_and_ignores_pongs(before: bytes) -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(_receive_until_it_ends, client.transport)
        with listening_to(client.stream) as written:
            for payload in (b"first", b"", b"p" * 125):
                await server.stream.send_all(before + bytes(_SERVER.pong(b"unasked")) + _ping(payload))
                await trio.testing.wait_all_tasks_blocked()
        assert frames_of_a_client(written) == [(Opcode.PONG, payload) for payload in (b"first", b"", b"p" * 125)]
        await client.transport.abort()
        await server.transport.abort()


async def _receive_until_it_ends(transport: TrioWebSocket) -> None:
    with pytest.raises(TransportEnded):
        while True:
            await transport.receive()


async def test_no_pong_follows_a_close_frame() -> None:
    ends = trio.testing.memory_stream_pair()
    client = TrioWebSocket(FaultyStream(ends[0]), peer="the other", client=True, max_message_size=MB)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run_writer)
            nursery.start_soon(partial(client.run_client, parse_url(PEER_URL), []))
            head = bytes(await ends[1].receive_some())
            # Written by hand, because the peer must not answer the close frame.
            protocol = WSConnection(ConnectionType.SERVER)
            protocol.receive_data(head)
            assert isinstance(next(protocol.events()), Request)
            await ends[1].send_all(protocol.send(AcceptConnection()))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(_receive_until_it_ends, client)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(client.aclose)
            await trio.testing.wait_all_tasks_blocked()
            await ends[1].send_all(_ping(b"too late"))
            await trio.testing.wait_all_tasks_blocked()
            written = bytearray(await ends[1].receive_some())
            assert [opcode for opcode, _ in frames_of_a_client(written)] == [Opcode.CLOSE]
            # Only header, key and code: wsproto's reader stops at a close frame.
            assert len(written) == 2 + 4 + 2
            await ends[1].aclose()


async def test_a_flood_of_pings_or_messages_does_not_starve_other_tasks() -> None:
    for flood in (_ping(b""), bytes(_SERVER.pong(b"")), _text("x")):
        count = 20_000
        async with open_pair() as (client, server):
            await server.stream.send_all(flood * count + _text("last"))
            async with counting_passes() as passes:
                while await client.transport.receive() != "last":
                    pass
                assert passes.count > count / 100
            await client.transport.abort()
            await server.transport.abort()


async def test_cancelling_a_receive_within_a_message_loses_nothing() -> None:
    text = "é" * 100_000
    data = _text(text) + _text("next")
    async with open_pair() as (client, server):
        for part in (data[:1], data[1:5], data[5:100_001], data[100_001:150_000], data[150_000:-1]):
            await server.stream.send_all(part)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_cancel_when_idle, scope)
                    # All but the last byte of the last part completes the first text.
                    assert await client.transport.receive() == text
                    nursery.cancel_scope.cancel()
        await server.stream.send_all(data[-1:])
        assert await client.transport.receive() == "next"
        await client.transport.abort()
        await server.transport.abort()


async def _cancel_when_idle(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def test_a_cancelled_receive_leaves_an_arrived_message_for_the_next_one() -> None:
    async with open_pair() as (client, server):
        await server.stream.send_all(_text("1") + _text("2"))
        assert await client.transport.receive() == "1"
        with trio.CancelScope() as scope:
            scope.cancel()
            raise AssertionError(f"received {await client.transport.receive()!r}")
        assert await client.transport.receive() == "2"
        await client.transport.abort()
        await server.transport.abort()


@pytest.mark.parametrize(
    "last", [b"", _text("x" * 100_000)[:-1], b"\x81", _BINARY[:3]], ids=["between", "large", "head", "binary"]
)
async def test_an_end_of_the_stream_anywhere_is_an_end_without_a_close_frame(last: bytes) -> None:
    async with open_pair() as (client, server):
        await server.stream.send_all(_text("whole") + last)
        await server.transport.abort()
        assert await client.transport.receive() == "whole"
        for _ in range(2):
            with trio.fail_after(60), pytest.raises(TransportEnded, match="ended without a close") as caught:
                await client.transport.receive()
            assert caught.value.code == 1006
        await client.transport.abort()


async def test_a_reset_is_reported_after_the_messages_before_it() -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        ends: list[TransportEnded] = []

        async def receive() -> None:
            with pytest.raises(TransportEnded) as caught:
                await client.transport.receive()
            ends.append(caught.value)

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        client.stream.reset()
        with trio.fail_after(60):
            while not ends:
                await trio.lowlevel.checkpoint()
        assert (ends[0].code, type(ends[0].cause)) == (1006, trio.BrokenResourceError)
        await client.transport.abort()
        await server.transport.abort()


async def test_a_graceful_close_reads_the_reply_with_and_without_a_receiving_task(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # No task receives.
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(_receive_until_it_ends, server.transport)
        await client.transport.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await server.transport.abort()
    # The receiving task leaves when closing has begun.
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        server.stream.stall()
        receiving = trio.CancelScope()

        async def receive() -> None:
            with receiving:
                await client.transport.receive()

        nursery.start_soon(receive)
        nursery.start_soon(_receive_until_it_ends, server.transport)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(client.transport.aclose)
        await trio.testing.wait_all_tasks_blocked()
        receiving.cancel()
        await trio.testing.wait_all_tasks_blocked()
        server.stream.resume()
        await trio.testing.wait_all_tasks_blocked()
        assert client.stream.closed
        await server.transport.abort()
    assert trio.current_time() == 0
