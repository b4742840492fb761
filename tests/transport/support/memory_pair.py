"""Both ends of a WebSocket in memory, without AIP."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing
from wsproto.frame_protocol import FrameProtocol, Opcode

from galaxy_trio._transport.url import parse_url
from galaxy_trio._transport.websocket import TrioWebSocket
from galaxy_trio.testing import PEER_URL, FaultyStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

MB = 2**20


@attrs.define(eq=False)
class End:
    """One end of a WebSocket in memory."""

    transport: TrioWebSocket
    stream: FaultyStream


def accept(path: str, headers: list[tuple[bytes, bytes]]) -> int:
    """Accept any client."""
    return 101


@asynccontextmanager
async def open_pair(max_message_size: int = MB) -> AsyncGenerator[tuple[End, End]]:
    """Open a client's and a server's end of one WebSocket. Both must close their streams before the block ends."""
    streams = [FaultyStream(stream) for stream in trio.testing.memory_stream_pair()]
    client, server = (
        End(TrioWebSocket(stream, peer="the other", client=client, max_message_size=max_message_size), stream)
        for stream, client in zip(streams, (True, False), strict=True)
    )

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.transport.run_writer)
            nursery.start_soon(server.transport.run_writer)
            async with trio.open_nursery() as handshake:
                handshake.start_soon(nursery.start, partial(server.transport.run_server, accept))
                handshake.start_soon(nursery.start, partial(client.transport.run_client, parse_url(PEER_URL), []))
            yield client, server
            assert (client.stream.closed, server.stream.closed) == (True, True)
            nursery.cancel_scope.cancel()


@contextmanager
def listening_to(stream: FaultyStream) -> Generator[bytearray]:
    """Collect the bytes that are written to a stream during the block."""
    written = bytearray()
    original = stream.send_all

    async def send_all(data: bytes | bytearray | memoryview) -> None:
        written.extend(data)
        await original(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "send_all", send_all)
        yield written


def frames_of_a_client(written: bytearray) -> list[tuple[Opcode, object]]:
    """Parse the frames that a client has written."""
    reader = FrameProtocol(client=False, extensions=[])
    reader.receive_bytes(bytes(written))
    return [(frame.opcode, frame.payload) for frame in reader.received_frames()]
