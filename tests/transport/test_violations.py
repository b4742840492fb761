"""A peer that violates the WebSocket protocol is answered with a close code, and read no further."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing
from wsproto.frame_protocol import FrameProtocol

from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio.testing import open_scripted_peer
from tests.transport.support.memory_pair import MB, End, open_pair
from tests.transport.support.messages import FEW, FLOOD, in_fragments

_VIOLATIONS = {
    "reserved bit 1": (b"\xc1\x00", 1002),
    "reserved bit 2": (b"\xa1\x00", 1002),
    "reserved bit 3 of a ping": (b"\x99\x00", 1002),
    "no such opcode": (b"\x83\x00", 1002),
    "no such control opcode": (b"\x8b\x00", 1002),
    "a masked frame": (b"\x81\x81\x00\x00\x00\x00x", 1002),
    "a continuation of nothing": (b"\x80\x00", 1002),
    "a message in a message": (b"\x01\x00\x81\x00", 1002),
    "a ping in fragments": (b"\x09\x00", 1002),
    "a large ping": (b"\x89\x7e\x00\x7e" + bytes(126), 1002),
    "a length of more bytes than it takes": (b"\x81\x7e\x00\x01x", 1002),
    "a close of one byte": (b"\x88\x01\x03", 1002),
    "a close with a code that is not for the wire": (b"\x88\x02\x03\xee", 1002),
    "no UTF-8": (b"\x81\x02\xc3\x28", 1007),
    "half a character at the end": (b"\x81\x01\xc3", 1007),
    "a surrogate": (b"\x81\x03\xed\xa0\x80", 1007),
    "no UTF-8 in a fragment": (b"\x01\x01\xc3\x80\x01\x28", 1007),
    "no UTF-8 in the reason of a close": (b"\x88\x03\x03\xe8\xff", 1007),
}


@pytest.mark.parametrize("violation", _VIOLATIONS)
async def test_a_protocol_violation_ends_both_sides_with_its_code_and_stops_reading(
    violation: str, pieces_read: list[int]
) -> None:
    data, code = _VIOLATIONS[violation]
    message = FrameProtocol(client=False, extensions=[]).send_data('{"type": "heartbeat", "status": "ok"}')
    async with open_scripted_peer() as peer:
        before = peer.connection.statistics().messages_received
        pieces_read.clear()
        # The message before the violation is received. The valid messages after it are not.
        await peer.send_raw(bytes(message + data + message * (FLOOD // len(message))))
        with trio.fail_after(60):
            lost = await peer.connection.wait_closed()
            assert lost is not None
            assert lost.code == code
            ended = await peer.wait_ended()
        assert peer.connection.statistics().messages_received == before + 1
        assert ended.code == code
        assert peer.stream.closed
        assert sum(pieces_read) < FEW


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"\x81\x00", 1002), (b"\xc1\x80aaaa", 1002), (b"\x81\x82\x00\x00\x00\x00\xc3\x28", 1007)],
    ids=["unmasked", "reserved bit", "no UTF-8"],
)
async def test_a_violation_ends_a_servers_side_with_its_code_and_stops_reading(
    data: bytes, code: int, pieces_read: list[int]
) -> None:
    async with open_pair() as (client, server):
        pieces_read.clear()
        await client.stream.send_all(data + bytes(FLOOD))
        with trio.fail_after(60), pytest.raises(TransportEnded) as caught:
            await server.transport.receive()
        assert caught.value.code == code
        await server.transport.abort()
        with pytest.raises(TransportEnded):
            await client.transport.receive()
        await client.transport.abort()
        assert sum(pieces_read) < FEW


async def test_a_text_survives_fragments_that_end_within_characters() -> None:
    text = "a é ☃ 😀 " * 3
    data = text.encode()
    async with open_pair() as (client, server):
        for length in range(1, 6):
            pieces = [data[start : start + length] for start in range(0, len(data), length)]
            await server.stream.send_all(b"".join(in_fragments(pieces)))
            assert await client.transport.receive() == text
        await client.transport.abort()
        await server.transport.abort()


async def test_reading_stops_after_a_violation_even_if_the_close_frame_cannot_be_written(
    pieces_read: list[int], autojump_clock: trio.testing.MockClock
) -> None:
    async with open_scripted_peer() as peer:
        peer.stream.stall()
        pieces_read.clear()
        await peer.send_raw(b"\xc1\x00" + b"x" * 20 * MB)
        lost = await peer.connection.wait_closed()
        assert lost is not None
        assert lost.code == 1002
        await trio.sleep(2)
        assert peer.stream.closed
        assert sum(pieces_read) < FEW


async def test_a_server_sends_the_code_with_which_it_ends_the_connection() -> None:
    # The order of the tasks differs from run to run.
    for _ in range(20):
        async with open_pair() as (client, server):
            await client.stream.send_all(b"\xc1\x80aaaa")

            async def serve(end: End = server) -> None:
                with suppress(TransportEnded):
                    await end.transport.receive()
                await end.transport.abort()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                with pytest.raises(TransportEnded) as caught:
                    await client.transport.receive()
                await client.transport.abort()
            assert caught.value.code == 1002
