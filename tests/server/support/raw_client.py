"""A client without manners, for tests of the server: it sends what it is told, and hands out what comes, in order."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import trio
from wsproto.frame_protocol import FrameProtocol

from galaxy_trio._arguments import MAX_MESSAGE_SIZE
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio._transport.url import parse_url
from galaxy_trio._transport.websocket import Transport
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

Members: TypeAlias = dict[str, object]
"""A message's members."""


class RawClient:
    """One WebSocket to a server. Made by `open_raw_client`."""

    def __init__(self, stream: trio.abc.Stream, transport: Transport) -> None:
        self._stream = stream
        self._transport = transport

    # ---- what it sends

    def send_text(self, text: str) -> None:
        """Send a text frame, whatever is in it."""
        self._transport.send_nowait(text)

    def send(self, **members: object) -> None:
        """Send a message; what is left out is absent."""
        self.send_text(json.dumps(members))

    async def send_binary(self, data: bytes) -> None:
        """Send a binary frame. Nothing else may be on its way."""
        await self._stream.send_all(FrameProtocol(client=True, extensions=[]).send_data(data))

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes that may be no frame at all. Nothing else may be on its way."""
        await self._stream.send_all(data)

    # ---- what comes

    async def receive(self, patience: float = SECONDS) -> Members:
        """The next message, without what is null and without its time."""
        with trio.fail_after(patience):
            members: Members = json.loads(await self._transport.receive())
        assert members.pop("timestamp")
        return {name: value for name, value in members.items() if value is not None}

    async def receive_until_ended(self, patience: float = SECONDS) -> tuple[list[Members], int]:
        """All messages up to the connection's end, and its close code: 1006 where there was no close."""
        messages: list[Members] = []
        while True:
            try:
                messages.append(await self.receive(patience))
            except TransportEnded as ended:
                return messages, ended.code

    async def close_code(self, patience: float = SECONDS) -> int:
        """Wait until the connection has ended; no message may come before that."""
        messages, code = await self.receive_until_ended(patience)
        assert messages == []
        return code

    async def silence(self, seconds: float) -> None:
        """Nothing comes for so long, and the connection lives."""
        with trio.move_on_after(seconds) as waiting:
            raise AssertionError(f"there came {await self._transport.receive()!r}")
        assert waiting.cancelled_caught

    # ---- how it ends

    async def close(self) -> None:
        """Close the WebSocket in good order."""
        await self._transport.aclose()

    async def abort(self) -> None:
        """End the connection without a close."""
        await self._transport.abort()


@asynccontextmanager
async def open_raw_client(
    stream: trio.abc.Stream, *, token: str | None = None, path: str = "/ws"
) -> AsyncGenerator[RawClient]:
    """Shake hands on a stream; the block begins when the server has let the client in, and ends the connection without a close."""
    transport = Transport(stream, peer="the server", client=True, max_message_size=MAX_MESSAGE_SIZE)
    async with open_background() as nursery:
        nursery.start_soon(transport.run_writer)
        try:
            with trio.fail_after(SECONDS):
                await nursery.start(partial(transport.run_client, parse_url(f"ws://localhost{path}", token), []))
            yield RawClient(stream, transport)
        finally:
            await transport.abort()
