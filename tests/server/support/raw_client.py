"""A client that can send anything, for tests of the server."""

from __future__ import annotations

import json
import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import trio
from wsproto.frame_protocol import FrameProtocol

from galaxy_trio._arguments import MAX_MESSAGE_SIZE
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio._transport.url import parse_url
from galaxy_trio._transport.websocket import TrioWebSocket
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

Members: TypeAlias = dict[str, object]
"""A message's members."""


class RawClient:
    """One WebSocket to a server. Made by `open_raw_client`."""

    def __init__(self, stream: trio.abc.Stream, transport: TrioWebSocket) -> None:
        self._stream = stream
        self._transport = transport

    def send_text(self, text: str) -> None:
        """Send any text frame."""
        self._transport.send_nowait(text)

    def send(self, **members: object) -> None:
        """Send a message with these members only."""
        self.send_text(json.dumps(members))

    async def send_binary(self, data: bytes) -> None:
        """Send a binary frame. No other send may be in progress."""
        await self._stream.send_all(FrameProtocol(client=True, extensions=[]).send_data(data))

    async def send_bytes(self, data: bytes) -> None:
        """Send any bytes, even invalid frames. No other send may be in progress."""
        await self._stream.send_all(data)

    async def receive(self, patience: float = SECONDS) -> Members:
        """Receive the next message, without its null members and its timestamp."""
        with trio.fail_after(patience):
            members: Members = json.loads(await self._transport.receive())
        assert members.pop("timestamp")
        return {name: value for name, value in members.items() if value is not None}

    async def receive_until_ended(self, patience: float = SECONDS) -> tuple[list[Members], int]:
        """Receive all messages until the connection ends. Also returns the close code, 1006 without a close frame."""
        messages: list[Members] = []
        while True:
            try:
                messages.append(await self.receive(patience))
            except TransportEnded as ended:
                return messages, ended.code

    async def close_code(self, patience: float = SECONDS) -> int:
        """Wait for the end of the connection, check that no message comes first, and return the close code."""
        messages, code = await self.receive_until_ended(patience)
        assert messages == []
        return code

    async def silence(self, seconds: float) -> None:
        """Check that nothing is received for so long and that the connection stays open."""
        with trio.move_on_after(seconds) as waiting:
            raise AssertionError(f"there came {await self._transport.receive()!r}")
        assert waiting.cancelled_caught

    async def close(self) -> None:
        """Close the WebSocket with a close handshake."""
        await self._transport.aclose()

    async def abort(self) -> None:
        """End the stream without a close handshake."""
        await self._transport.abort()


@asynccontextmanager
async def answering_pings(*clients: RawClient) -> AsyncGenerator[None]:
    """Let clients read, and so answer pings, during the block. They must receive no message."""
    async with open_background() as nursery:
        for client in clients:
            nursery.start_soon(client.silence, math.inf)
        yield


@asynccontextmanager
async def open_raw_client(
    stream: trio.abc.Stream, *, token: str | None = None, path: str = "/ws"
) -> AsyncGenerator[RawClient]:
    """Perform the handshake on a stream and enter the block. Its end closes the stream without a close handshake."""
    transport = TrioWebSocket(stream, peer="the server", client=True, max_message_size=MAX_MESSAGE_SIZE)
    async with open_background() as nursery:
        nursery.start_soon(transport.run_writer)
        try:
            with trio.fail_after(SECONDS):
                await nursery.start(partial(transport.run_client, parse_url(f"ws://localhost{path}", token), []))
            yield RawClient(stream, transport)
        finally:
            await transport.abort()
