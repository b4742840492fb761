"""Limits on messages count bytes, whether in one frame or in fragments."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing
from wsproto.frame_protocol import FrameProtocol, Opcode

from galaxy_trio import Connection, ConnectionLost, ConnectionOptions, MessageTooLarge, RequestTimeout
from galaxy_trio._transport import inbound_limits
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio.testing import ScriptedPeer, open_bare_peer, open_scripted_peer
from tests.transport.support.memory_pair import frames_of_a_client, listening_to, open_pair
from tests.transport.support.messages import FEW, FLOOD, connect, in_fragments, info_reply


@pytest.mark.parametrize("size", [2000, 2001])
async def test_a_message_of_exactly_the_limit_in_bytes_is_received(size: int) -> None:
    async with (
        open_scripted_peer(options=ConnectionOptions(max_message_size=size)) as peer,
        trio.open_nursery() as nursery,
    ):
        text = info_reply("device_info_1", size)

        async def answer() -> None:
            await peer.receive()
            peer.send_text(text)

        nursery.start_soon(answer)
        assert (await peer.connection.device_info()).hostname == json.loads(text)["result"]["hostname"]
        assert not peer.connection.closed


@pytest.mark.parametrize("size", [2000, 2001])
async def test_a_message_one_byte_above_the_limit_ends_both_sides_with_1009(
    size: int,
) -> None:
    async with (
        open_scripted_peer(options=ConnectionOptions(max_message_size=size)) as peer,
        trio.open_nursery() as nursery,
    ):

        async def answer() -> None:
            peer.send_text(info_reply((await peer.receive()).request_id, size + 1))

        nursery.start_soon(answer)
        with pytest.raises(ConnectionLost) as caught:
            await peer.connection.device_info()
        assert caught.value.code == 1009
        assert caught.value.reason == f"the peer sent a message of more than {size} bytes"
        assert (await peer.wait_ended()).code == 1009
        assert peer.stream.closed


@pytest.mark.parametrize("over", [0, 1])
async def test_the_limit_applies_to_the_sum_of_the_fragments(over: int) -> None:
    async with open_scripted_peer(options=ConnectionOptions(max_message_size=2000)) as peer:
        data = info_reply(None, 2000 + over).encode()
        # Some fragments end within a character.
        pieces = [data[start : start + 7] for start in range(0, 2000 + over, 7)]
        await peer.send_raw(b"".join(in_fragments(pieces)))
        await trio.testing.wait_all_tasks_blocked()
        if over:
            with trio.fail_after(60):
                lost = await peer.connection.wait_closed()
            assert lost is not None
            assert lost.code == 1009
        else:
            assert peer.connection.statistics().unknown_replies == 1
            assert not peer.connection.closed


async def test_a_request_of_exactly_the_limit_is_sent_and_one_byte_more_is_refused_unsent() -> None:
    async def send(peer: ScriptedPeer, connection: Connection) -> None:
        with pytest.raises(RequestTimeout):
            await connection.run_task("é" * 500, task_id="t1", timeout=0)
        await trio.testing.wait_all_tasks_blocked()

    # Measure the size of the message first.
    async with open_bare_peer() as peer, connect(peer, client_id="c") as connection:
        await send(peer, connection)
        text = await peer.receive_text()
    size = len(text.encode())
    assert size > len(text)
    async with open_bare_peer() as peer, connect(peer, client_id="c", max_message_size=size) as connection:
        await send(peer, connection)
        assert len((await peer.receive_text()).encode()) == size
    async with open_bare_peer() as peer, connect(peer, client_id="c", max_message_size=size - 1) as connection:
        with pytest.raises(MessageTooLarge, match=f"a message of {size} bytes .* limit of {size - 1}"):
            await send(peer, connection)
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received_nowait() == []
        statistics = connection.statistics()
        assert (statistics.messages_sent, statistics.pending, statistics.bytes_held) == (1, 0, 0)
        assert not connection.closed


async def test_endless_empty_fragments_end_both_sides_with_1009_and_stop_reading(
    monkeypatch: pytest.MonkeyPatch, pieces_read: list[int]
) -> None:
    # The real limit takes seconds to reach.
    monkeypatch.setattr(inbound_limits, "MAX_FRAGMENTS", 10_000)
    async with open_scripted_peer() as peer:
        pieces_read.clear()
        await peer.send_raw(b"\x01\x00" + b"\x00\x00" * (FLOOD // 2))
        with trio.fail_after(60):
            lost = await peer.connection.wait_closed()
            assert lost is not None
            assert lost.code == 1009
            assert lost.reason == "the peer sent a message in more than 10000 fragments"
            assert (await peer.wait_ended()).code == 1009
        assert peer.stream.closed
        assert sum(pieces_read) < FEW


async def test_a_message_with_the_maximum_of_fragments_is_received(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound_limits, "MAX_FRAGMENTS", 1000)
    async with open_scripted_peer() as peer:
        # The count starts again with each message.
        for _ in range(3):
            await peer.send_raw(b"\x01\x02{}" + b"\x00\x00" * 998 + b"\x80\x00")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.connection.statistics().invalid_messages == 3
        assert not peer.connection.closed


async def test_control_frames_between_fragments_are_answered_without_breaking_the_message() -> None:
    frames = FrameProtocol(client=False, extensions=[])
    async with open_scripted_peer() as peer, trio.open_nursery() as nursery:
        infos: list[str | None] = []

        async def ask() -> None:
            infos.append((await peer.connection.device_info()).hostname)

        nursery.start_soon(ask)
        data = info_reply((await peer.receive()).request_id, 2000).encode()
        fragments = in_fragments([data[start : start + 100] for start in range(0, 2000, 100)])
        with listening_to(peer.stream) as written:
            for number, fragment in enumerate(fragments):
                control = frames.ping(b"%d" % number) if number % 2 else frames.pong(b"unasked")
                await peer.send_raw(bytes(fragment + control))
                await trio.testing.wait_all_tasks_blocked()
            assert infos == [json.loads(data)["result"]["hostname"]]
            assert [opcode for opcode, _ in frames_of_a_client(written)] == [Opcode.PONG] * 10
        assert not peer.connection.closed


@pytest.mark.parametrize("over", [0, 1])
async def test_control_frames_between_fragments_do_not_count_towards_the_limit(over: int) -> None:
    ping = FrameProtocol(client=False, extensions=[]).ping(b"x" * 125)
    async with open_scripted_peer(options=ConnectionOptions(max_message_size=2000)) as peer:
        data = info_reply(None, 2000 + over).encode()
        fragments = in_fragments([data[start : start + 100] for start in range(0, 2000 + over, 100)])
        await peer.send_raw(b"".join(bytes(fragment + ping) for fragment in fragments))
        await trio.testing.wait_all_tasks_blocked()
        assert peer.connection.statistics().unknown_replies == 1 - over
        assert peer.connection.closed == bool(over)


@pytest.mark.parametrize("size", [1001, 2**40, 2**63 - 1])
async def test_a_server_refuses_a_message_above_the_limit_by_its_header(size: int, pieces_read: list[int]) -> None:
    async with open_pair(max_message_size=1000) as (client, server):
        pieces_read.clear()
        length = b"\xfe" + size.to_bytes(2) if size < 2**16 else b"\xff" + size.to_bytes(8)
        await client.stream.send_all(b"\x81" + length + bytes(4) + bytes(FLOOD))
        with trio.fail_after(60):
            with pytest.raises(TransportEnded) as caught:
                await server.transport.receive()
            assert caught.value.code == 1009
            await server.transport.abort()
            with pytest.raises(TransportEnded) as caught:
                await client.transport.receive()
            assert caught.value.code == 1009
        await client.transport.abort()
        assert sum(pieces_read) < FEW
