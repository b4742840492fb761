"""What a WebSocket meets once it is open: ends that cross, messages at their limits, and peers that break the rules."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing
import trio_websocket
from wsproto.frame_protocol import FrameProtocol, Opcode
from wsproto.utilities import LocalProtocolError

from galaxy_trio import Connection, ConnectionLost, MessageTooLarge, RequestTimeout, open_connection
from galaxy_trio._transport import inbound_limits
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio._transport.text_receiver import RECEIVE_BYTES
from galaxy_trio._transport.websocket import Transport
from galaxy_trio.testing import PEER_URL, FaultyStream, ScriptedPeer, open_bare_peer, open_scripted_peer
from tests.transport.support.memory_pair import MB, End, frames_of_a_client, listening_to, open_pair

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

KB = 2**10


async def _confirm(peer: ScriptedPeer) -> None:
    await peer.receive()
    peer.confirm()


@asynccontextmanager
async def _connect(
    peer: ScriptedPeer, *, max_message_size: int = MB, client_id: str | None = None
) -> AsyncGenerator[Connection]:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_confirm, peer)
            async with open_connection(
                PEER_URL, "device_001", stream=peer.stream, max_message_size=max_message_size, client_id=client_id
            ) as connection:
                yield connection


# ---- both ways


async def test_texts_of_all_sizes_arrive_whole_and_in_order_both_ways() -> None:
    # The sizes are those around which a frame's length takes more bytes.
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


# ---- ends that cross


async def test_a_ping_that_crosses_our_close_frame_raises_nothing_and_skips_no_code_after_the_block(
    autojump_clock: trio.testing.MockClock,
) -> None:
    reached: list[str] = []
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_confirm, peer)
        async with open_connection(PEER_URL, "device_001", stream=peer.stream):
            # It is written when this task next waits: after our close frame was made.
            peer.ping()
        reached.append("the next statement")
        await trio.lowlevel.checkpoint()
        reached.append("the one after a checkpoint")
        assert reached == ["the next statement", "the one after a checkpoint"]
        assert peer.stream.closed
        assert (await peer.wait_ended()).code == 1000
        # At worst it took as long as closing may.
        assert trio.current_time() <= 3


async def test_trio_websocket_alone_raises_and_skips_code_when_a_ping_crosses_the_close_frame(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # It shows that the test above meets what it is for.
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


async def test_the_peers_close_closes_the_stream_before_the_block_ends() -> None:
    async with open_bare_peer() as peer, _connect(peer) as connection:
        await peer.close()
        assert await connection.wait_closed() is not None
        await trio.testing.wait_all_tasks_blocked()
        assert peer.stream.closed


async def test_trio_websocket_alone_leaves_the_stream_open_when_it_is_closed_after_the_peers_close() -> None:
    # It shows that the two tests above meet what they are for.
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        websocket = await trio_websocket.wrap_client_stream(
            nursery, cast("trio.SocketStream", peer.stream), "peer.test", "/ws"
        )
        nursery.start_soon(peer.close)
        with pytest.raises(trio_websocket.ConnectionClosed):
            await websocket.get_message()
        await websocket.aclose()
        assert not peer.stream.closed


# ---- messages at their limits


def _info_reply(request_id: str | None, size: int) -> str:
    """A reply of exactly so many bytes, most of them in characters of two."""
    info = {"device_id": "device_001", "platform": "linux", "hostname": ""}
    reply = {"type": "device_info_response", "status": "ok", "response_id": request_id, "result": info}
    missing = size - len(json.dumps(reply))
    info["hostname"] = "é" * (missing // 2) + "x" * (missing % 2)
    text = json.dumps(reply, ensure_ascii=False)
    assert len(text.encode()) == size > len(text)
    return text


@pytest.mark.parametrize("size", [2000, 2001])
async def test_a_message_of_exactly_the_limit_in_bytes_is_received(size: int) -> None:
    async with open_scripted_peer(max_message_size=size) as peer, trio.open_nursery() as nursery:
        text = _info_reply("device_info_1", size)

        async def answer() -> None:
            await peer.receive()
            peer.send_text(text)

        nursery.start_soon(answer)
        assert (await peer.connection.device_info()).hostname == json.loads(text)["result"]["hostname"]
        assert not peer.connection.closed


@pytest.mark.parametrize("size", [2000, 2001])
async def test_a_message_of_one_byte_more_than_the_limit_loses_the_connection_with_1009_on_both_sides(
    size: int,
) -> None:
    async with open_scripted_peer(max_message_size=size) as peer, trio.open_nursery() as nursery:

        async def answer() -> None:
            peer.send_text(_info_reply((await peer.receive()).request_id, size + 1))

        nursery.start_soon(answer)
        with pytest.raises(ConnectionLost) as caught:
            await peer.connection.device_info()
        assert caught.value.code == 1009
        assert caught.value.reason == f"the peer sent a message of more than {size} bytes"
        assert (await peer.wait_ended()).code == 1009
        assert peer.stream.closed


@pytest.mark.parametrize("over", [0, 1])
async def test_the_limit_is_of_a_message_and_not_of_its_fragments(over: int) -> None:
    async with open_scripted_peer(max_message_size=2000) as peer:
        data = _info_reply(None, 2000 + over).encode()
        # Fragments end within characters, too.
        pieces = [data[start : start + 7] for start in range(0, 2000 + over, 7)]
        await peer.send_raw(b"".join(_in_fragments(pieces)))
        await trio.testing.wait_all_tasks_blocked()
        if over:
            with trio.fail_after(60):
                lost = await peer.connection.wait_closed()
            assert lost is not None
            assert lost.code == 1009
        else:
            assert peer.connection.statistics().unknown_replies == 1
            assert not peer.connection.closed


async def test_a_request_of_exactly_the_limit_in_bytes_is_sent_and_one_byte_more_is_refused_before_anything_is() -> (
    None
):
    async def send(peer: ScriptedPeer, connection: Connection) -> None:
        with pytest.raises(RequestTimeout):
            await connection.run_task("é" * 500, task_id="t1", timeout=0)
        await trio.testing.wait_all_tasks_blocked()

    # How large it is is measured first.
    async with open_bare_peer() as peer, _connect(peer, client_id="c") as connection:
        await send(peer, connection)
        text = await peer.receive_text()
    size = len(text.encode())
    assert size > len(text)
    async with open_bare_peer() as peer, _connect(peer, client_id="c", max_message_size=size) as connection:
        await send(peer, connection)
        assert len((await peer.receive_text()).encode()) == size
    async with open_bare_peer() as peer, _connect(peer, client_id="c", max_message_size=size - 1) as connection:
        with pytest.raises(MessageTooLarge, match=f"a message of {size} bytes .* limit of {size - 1}"):
            await send(peer, connection)
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received_nowait() == []
        statistics = connection.statistics()
        assert (statistics.messages_sent, statistics.pending, statistics.bytes_held) == (1, 0, 0)
        assert not connection.closed


# ---- fragments


@pytest.fixture
def pieces_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the pieces that were read from streams in memory, as they are read."""
    sizes: list[int] = []
    original = FaultyStream.receive_some

    async def receive_some(self: FaultyStream, max_bytes: int | None = None) -> bytes | bytearray:
        data = await original(self, max_bytes)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(FaultyStream, "receive_some", receive_some)
    return sizes


_FLOOD = 4 * MB
_FEW = 3 * RECEIVE_BYTES
"""What may be read before the end of a connection is known everywhere: the piece with the reason, and one that was asked for then."""


async def test_endless_empty_fragments_end_with_1009_on_both_sides_and_are_not_read_on(
    monkeypatch: pytest.MonkeyPatch, pieces_read: list[int]
) -> None:
    # The limit itself takes seconds to reach.
    monkeypatch.setattr(inbound_limits, "MAX_FRAGMENTS", 10_000)
    async with open_scripted_peer() as peer:
        pieces_read.clear()
        await peer.send_raw(b"\x01\x00" + b"\x00\x00" * (_FLOOD // 2))
        with trio.fail_after(60):
            lost = await peer.connection.wait_closed()
            assert lost is not None
            assert lost.code == 1009
            assert lost.reason == "the peer sent a message in more than 10000 fragments"
            assert (await peer.wait_ended()).code == 1009
        assert peer.stream.closed
        assert sum(pieces_read) < _FEW


async def test_as_many_fragments_as_are_allowed_are_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound_limits, "MAX_FRAGMENTS", 1000)
    async with open_scripted_peer() as peer:
        # The fragments of each message are counted anew.
        for _ in range(3):
            await peer.send_raw(b"\x01\x02{}" + b"\x00\x00" * 998 + b"\x80\x00")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.connection.statistics().invalid_messages == 3
        assert not peer.connection.closed


async def test_control_frames_between_fragments_are_answered_and_the_message_comes_whole() -> None:
    frames = FrameProtocol(client=False, extensions=[])
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        infos: list[str | None] = []

        async def ask() -> None:
            infos.append((await peer.connection.device_info()).hostname)

        nursery.start_soon(ask)
        data = _info_reply((await peer.receive()).request_id, 2000).encode()
        fragments = _in_fragments([data[start : start + 100] for start in range(0, 2000, 100)])
        with listening_to(peer.stream) as written:
            for number, fragment in enumerate(fragments):
                control = frames.ping(b"%d" % number) if number % 2 else frames.pong(b"unasked")
                await peer.send_raw(bytes(fragment + control))
                await trio.testing.wait_all_tasks_blocked()
            assert infos == [json.loads(data)["result"]["hostname"]]
            assert [opcode for opcode, _ in frames_of_a_client(written)] == [Opcode.PONG] * 10
        assert not peer.connection.closed


@pytest.mark.parametrize("over", [0, 1])
async def test_control_frames_in_a_message_neither_count_towards_its_size_nor_begin_it_anew(over: int) -> None:
    ping = FrameProtocol(client=False, extensions=[]).ping(b"x" * 125)
    async with open_scripted_peer(max_message_size=2000) as peer:
        data = _info_reply(None, 2000 + over).encode()
        fragments = _in_fragments([data[start : start + 100] for start in range(0, 2000 + over, 100)])
        await peer.send_raw(b"".join(bytes(fragment + ping) for fragment in fragments))
        await trio.testing.wait_all_tasks_blocked()
        assert peer.connection.statistics().unknown_replies == 1 - over
        assert peer.connection.closed == bool(over)


def _in_fragments(pieces: list[bytes]) -> list[bytes]:
    """The frames of one text message; its pieces need not be whole characters."""
    heads = [0x01, *[0x00] * (len(pieces) - 1)]
    heads[-1] |= 0x80
    return [bytes([head, len(piece)]) + piece for head, piece in zip(heads, pieces, strict=True)]


# ---- peers that break the rules


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
async def test_a_violation_of_the_protocol_ends_with_its_code_on_both_sides_and_nothing_is_read_on(
    violation: str, pieces_read: list[int]
) -> None:
    data, code = _VIOLATIONS[violation]
    message = FrameProtocol(client=False, extensions=[]).send_data('{"type": "heartbeat", "status": "ok"}')
    async with open_scripted_peer() as peer:
        before = peer.connection.statistics().messages_received
        pieces_read.clear()
        # What came before it is received; what comes after it is not, however well it is made.
        await peer.send_raw(bytes(message + data + message * (_FLOOD // len(message))))
        with trio.fail_after(60):
            lost = await peer.connection.wait_closed()
            assert lost is not None
            assert lost.code == code
            ended = await peer.wait_ended()
        assert peer.connection.statistics().messages_received == before + 1
        assert ended.code == code
        assert peer.stream.closed
        assert sum(pieces_read) < _FEW


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"\x81\x00", 1002), (b"\xc1\x80aaaa", 1002), (b"\x81\x82\x00\x00\x00\x00\xc3\x28", 1007)],
    ids=["unmasked", "reserved bit", "no UTF-8"],
)
async def test_a_servers_end_ends_with_the_same_codes_and_reads_nothing_on(
    data: bytes, code: int, pieces_read: list[int]
) -> None:
    async with open_pair() as (client, server):
        pieces_read.clear()
        await client.stream.send_all(data + bytes(_FLOOD))
        with trio.fail_after(60), pytest.raises(TransportEnded) as caught:
            await server.transport.receive()
        assert caught.value.code == code
        await server.transport.abort()
        with pytest.raises(TransportEnded):
            await client.transport.receive()
        await client.transport.abort()
        assert sum(pieces_read) < _FEW


@pytest.mark.parametrize("size", [1001, 2**40, 2**63 - 1])
async def test_a_server_refuses_a_message_above_the_limit_by_its_header(size: int, pieces_read: list[int]) -> None:
    async with open_pair(max_message_size=1000) as (client, server):
        pieces_read.clear()
        length = b"\xfe" + size.to_bytes(2) if size < 2**16 else b"\xff" + size.to_bytes(8)
        await client.stream.send_all(b"\x81" + length + bytes(4) + bytes(_FLOOD))
        with trio.fail_after(60):
            with pytest.raises(TransportEnded) as caught:
                await server.transport.receive()
            assert caught.value.code == 1009
            await server.transport.abort()
            with pytest.raises(TransportEnded) as caught:
                await client.transport.receive()
            assert caught.value.code == 1009
        await client.transport.abort()
        assert sum(pieces_read) < _FEW


async def test_a_text_in_characters_of_all_sizes_comes_as_it_was_sent_however_it_is_cut() -> None:
    text = "a é ☃ 😀 " * 3
    data = text.encode()
    async with open_pair() as (client, server):
        for length in range(1, 6):
            pieces = [data[start : start + length] for start in range(0, len(data), length)]
            await server.stream.send_all(b"".join(_in_fragments(pieces)))
            assert await client.transport.receive() == text
        await client.transport.abort()
        await server.transport.abort()


# ---- sending on what has ended


async def test_what_is_sent_after_the_end_is_dropped_and_counts_for_nothing() -> None:
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


async def test_nothing_can_be_received_before_the_handshake() -> None:
    stream, _other = trio.testing.memory_stream_pair()
    transport = Transport(stream, peer="the other", client=True, max_message_size=MB)
    with pytest.raises(TransportEnded, match="never opened"):
        await transport.receive()
    await transport.aclose()
    with trio.fail_after(60), pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


async def test_a_ping_that_crosses_our_close_frame_does_not_make_closing_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_confirm, peer)
        async with open_connection(PEER_URL, "device_001", stream=peer.stream):
            peer.ping()
        assert trio.current_time() == 0
        assert (await peer.wait_ended()).code == 1000


async def test_after_a_violation_nothing_is_read_on_even_when_the_last_words_cannot_be_written(
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
        assert sum(pieces_read) < _FEW


async def test_a_server_says_why_it_ends_the_connection() -> None:
    # Whose turn comes first differs from run to run.
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
