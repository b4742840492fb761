"""A raw TCP peer that completes the handshake and the registration, then reads only on request."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Pong, Request, TextMessage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_CONFIRMATION = json.dumps({"type": "heartbeat", "status": "ok"})


@attrs.define(eq=False)
class RawPeer:
    """The server's end of one TCP connection, with its own wsproto, for which a torn frame is an error.

    Attributes:
        url: The URL for the client.
        texts: The whole text messages that were read.
        pongs: The number of pongs that were read.
        closed_with: The code of the client's close frame, or of its protocol error.
    """

    url: str
    texts: list[str] = attrs.field(factory=list[str])
    pongs: int = 0
    closed_with: int | None = None
    connected: trio.Event = attrs.field(factory=trio.Event)
    _stream: trio.SocketStream | None = None
    _protocol: WSConnection = attrs.field(factory=lambda: WSConnection(ConnectionType.SERVER))
    _part: list[str] = attrs.field(factory=list[str])

    async def handshake(self, stream: trio.SocketStream) -> None:
        """Complete the handshake and confirm the registration, then stop reading."""
        self._stream = stream
        while not self.texts:
            await self.read_some()
        await self._send(TextMessage(data=_CONFIRMATION))
        self.connected.set()

    async def read_some(self) -> bool:
        """Read a piece. Returns False at the end of the stream."""
        assert self._stream is not None
        data = bytes(await self._stream.receive_some(65536))
        if not data:
            return False
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            match event:
                case Request():
                    await self._send(AcceptConnection())
                case TextMessage():
                    self._part.append(event.data)
                    if event.message_finished:
                        self.texts.append("".join(self._part))
                        self._part.clear()
                case Pong():
                    self.pongs += 1
                case CloseConnection():
                    self.closed_with = int(event.code)
                case _:
                    raise AssertionError(event)
        return True

    async def read_until(self, texts: int) -> None:
        """Read until this many messages have arrived, or the connection has ended."""
        while len(self.texts) < texts and self.closed_with is None:
            if not await self.read_some():
                break

    async def ping(self) -> None:
        """Send a ping."""
        await self._send(Ping(payload=b"are you there"))

    async def reply(self, **members: object) -> None:
        """Send a message."""
        await self._send(TextMessage(data=json.dumps(members)))

    async def hang_up(self) -> None:
        """Close the socket, so that a client that closes gracefully does not wait for this peer's reply."""
        if self._stream is not None:
            await self._stream.aclose()

    async def _send(self, event: AcceptConnection | Ping | TextMessage) -> None:
        assert self._stream is not None
        await self._stream.send_all(self._protocol.send(event))


@asynccontextmanager
async def open_raw_peer(receive_buffer: int | None = None) -> AsyncGenerator[RawPeer]:
    """Listen for one client, with a receive buffer of about this many bytes."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    if receive_buffer is not None:
        listener.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
    peer = RawPeer(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/ws")

    async def accept() -> None:
        await peer.handshake(await listener.accept())

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        try:
            yield peer
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await peer.hang_up()
        nursery.cancel_scope.cancel()
