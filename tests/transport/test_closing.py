"""Both sides and the receiving task see the same end of a closed WebSocket."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio._transport.interface import TransportEnded
from tests.transport.support.memory_pair import End, listening_to, open_pair

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@asynccontextmanager
async def _open_pair() -> AsyncGenerator[tuple[End, End]]:
    """Open a client's and a server's end of one WebSocket, and abort both when the block ends."""
    async with open_pair() as ends:
        yield ends
        for end in ends:
            await end.transport.abort()


@pytest.mark.parametrize(
    ("code", "words"),
    [(1005, "no status rcvd"), (3999, "iana reserved"), (4999, "private reserved")],
)
async def test_the_reason_of_the_end_names_the_close_code(code: int, words: str) -> None:
    async with _open_pair() as (client, server):
        payload = b"" if code == 1005 else code.to_bytes(2)
        await server.stream.send_all(bytes((0x88, len(payload))) + payload)
        with pytest.raises(TransportEnded) as caught:
            await client.transport.receive()
        assert (caught.value.code, caught.value.reason) == (code, f"the WebSocket was closed with {code}, {words}")


async def test_a_peer_that_closes_and_does_not_read_delays_the_end_by_at_most_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with _open_pair() as (client, server):
        client.stream.stall()
        client.transport.send_nowait("unread")
        await server.stream.send_all(b"\x88\x02\x03\xe8")
        with pytest.raises(TransportEnded):
            await client.transport.receive()
        await client.transport.abort()
        assert trio.current_time() <= 1


@pytest.mark.parametrize("closes", ["client", "server"])
async def test_closing_reads_past_a_flood_of_messages_that_no_task_receives(closes: str) -> None:
    async with _open_pair() as (client, server):
        one, other = (client, server) if closes == "client" else (server, client)
        for number in range(1000):
            other.transport.send_nowait(str(number))
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.transport.aclose)
            with pytest.raises(TransportEnded) as caught:
                await other.transport.receive()
        assert caught.value.code == 1000


async def test_a_ping_that_crosses_the_close_frame_of_a_receiving_end_is_not_answered() -> None:
    async with _open_pair() as (client, server):

        async def receive() -> None:
            with pytest.raises(TransportEnded, match="closed by this side"):
                await client.transport.receive()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(client.transport.aclose)
            await trio.testing.wait_all_tasks_blocked()
            await server.stream.send_all(b"\x89\x00")
            await trio.testing.wait_all_tasks_blocked()
            # A pong after a close frame would break the protocol.
            with pytest.raises(TransportEnded) as caught:
                await server.transport.receive()
        assert caught.value.code == 1000


async def test_closing_twice_concurrently_and_once_more_closes_once() -> None:
    async with _open_pair() as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.transport.aclose)
            nursery.start_soon(client.transport.aclose)
            with pytest.raises(TransportEnded):
                await server.transport.receive()
        await client.transport.aclose()
        with pytest.raises(TransportEnded, match="closed by this side"):
            await client.transport.receive()


async def test_a_task_that_receives_is_notified_when_another_task_closes() -> None:
    async with _open_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.transport.aclose)
        await trio.testing.wait_all_tasks_blocked()

        async def receive() -> None:
            with pytest.raises(TransportEnded, match="closed by this side"):
                await client.transport.receive()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(TransportEnded):
            await server.transport.receive()
        await server.transport.abort()


async def test_a_close_frame_between_fragments_closes() -> None:
    async with _open_pair() as (client, server):
        await server.stream.send_all(b"\x01\x04part" + b"\x88\x02\x03\xf3")
        with pytest.raises(TransportEnded) as caught:
            await client.transport.receive()
        assert caught.value.code == 1011


async def test_messages_that_keep_coming_are_written_together_but_the_first_do_not_wait_for_the_last() -> None:
    async with _open_pair() as (client, server):
        written_before: list[int] = []

        async def send() -> None:
            for _ in range(50):
                client.transport.send_nowait("one of many")
                written_before.append(len(written))
                await trio.lowlevel.checkpoint()

        with listening_to(client.stream) as written:
            # Enough tasks that some send in each scheduler pass, in any order.
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(send)
        assert written_before[-1] > 0
        assert len(set(written_before)) < 50
        for _ in range(500):
            assert await server.transport.receive() == "one of many"
