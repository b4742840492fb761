"""A server's end that a test controls, for behaviour that a real server does not have."""

from __future__ import annotations

import itertools
import json
import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
import trio.testing

from galaxy_trio._arguments import MAX_MESSAGE_SIZE
from galaxy_trio._codec.codec import decode_client_message, encode
from galaxy_trio._concurrency import wall_clock
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._connection.connection import Connection, open_connection
from galaxy_trio._connection.pending_replies import MAX_PENDING
from galaxy_trio._transport.interface import SWITCHING_PROTOCOLS, TransportEnded
from galaxy_trio._transport.websocket import TrioWebSocket
from galaxy_trio.errors import ConnectFailed
from galaxy_trio.messages import (
    JSON,
    ClientMessage,
    ClientMessageType,
    ServerMessage,
    ServerMessageType,
    TaskStatus,
)
from galaxy_trio.testing.faults import FaultyStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio._connection.options import ConnectionOptions

PEER_URL: Final = "ws://peer.test/ws"
_PATIENCE: Final = 60.0
"""Seconds that a peer waits for an expected message, on trio's clock."""


class ScriptedPeer:
    """The server's end of one connection in memory. Made by `open_scripted_peer` or `open_bare_peer`.

    Attributes:
        stream: The client's end, for ``stream`` of `open_connection`.
        reject_with: The HTTP status to reject the handshake with; set it before the client connects.
        path: The target of the client's handshake request, with the query.
        headers: The headers of the handshake request, without ``Host``.
    """

    def __init__(self) -> None:
        client_end, self._server_stream = trio.testing.memory_stream_pair()
        self.stream: FaultyStream = FaultyStream(client_end)
        self._transport = TrioWebSocket(
            self._server_stream, peer="the client", client=False, max_message_size=MAX_MESSAGE_SIZE
        )
        self._ended: TransportEnded | None = None
        self._closing = False
        self._inbox_in, self._inbox = trio.open_memory_channel[str](math.inf)
        self._response_numbers = itertools.count(1)
        self._connection: Connection | None = None
        self.reject_with: int | None = None
        self.path: str = ""
        self.headers: list[tuple[bytes, bytes]] = []

    @property
    def connection(self) -> Connection:
        """The registered client's connection; with `open_scripted_peer` only."""
        if self._connection is None:
            raise RuntimeError("this peer was opened without a connection")
        return self._connection

    def attach(self, connection: Connection) -> None:
        """Set the client's `connection`."""
        self._connection = connection

    async def receive_text(self) -> str:
        """Receive the client's next text frame.

        Raises:
            TransportEnded: The connection has ended, and all frames were received.
            trio.TooSlowError: No frame arrived within 60 s.
        """
        with trio.fail_after(_PATIENCE):
            try:
                return await self._inbox.receive()
            except trio.EndOfChannel:
                raise self._ended or TransportEnded("the connection ended", 1006) from None

    async def receive(self) -> ClientMessage:
        """Receive the client's next message. The errors are those of `receive_text`."""
        return decode_client_message(await self.receive_text())

    def received_nowait(self) -> list[ClientMessage]:
        """Receive all messages that have arrived, without waiting."""
        texts: list[str] = []
        while self._inbox.statistics().current_buffer_used:
            texts.append(self._inbox.receive_nowait())
        return [decode_client_message(text) for text in texts]

    async def wait_ended(self) -> TransportEnded:
        """Wait until the client has ended the connection, and return how. Drops messages."""
        while True:
            try:
                await self.receive_text()
            except TransportEnded as ended:
                return ended

    def send_text(self, text: str) -> None:
        """Send any text frame."""
        self._transport.send_nowait(text)

    def send(
        self,
        type: ServerMessageType,
        *,
        status: TaskStatus = TaskStatus.OK,
        session_id: str | None = None,
        response_id: str | None = None,
        error: str | None = None,
        result: JSON = None,
    ) -> None:
        """Send a message."""
        self.send_text(
            encode(
                ServerMessage(
                    type,
                    status,
                    error=error,
                    session_id=session_id,
                    timestamp=wall_clock.timestamp(),
                    response_id=response_id or f"response-{next(self._response_numbers)}",
                    result=result,
                )
            )
        )

    def confirm(self) -> None:
        """Acknowledge a registration or a heartbeat."""
        self.send(ServerMessageType.HEARTBEAT)

    def acknowledge(self, task: ClientMessage) -> None:
        """Accept a task."""
        self.send(ServerMessageType.HEARTBEAT, session_id=task.session_id)

    def end(
        self,
        task: ClientMessage,
        result: JSON = None,
        *,
        status: TaskStatus = TaskStatus.COMPLETED,
        error: str | None = None,
    ) -> None:
        """End a task."""
        self.send(ServerMessageType.TASK_END, status=status, session_id=task.session_id, error=error, result=result)

    def refuse(self, why: str) -> None:
        """Send an error. AIP errors name no message."""
        self.send(ServerMessageType.ERROR, status=TaskStatus.ERROR, error=why)

    def answer(self, message: ClientMessage) -> None:
        """Reply to a message as a server would; a task's result is its request."""
        match message.type:
            case ClientMessageType.REGISTER | ClientMessageType.HEARTBEAT:
                self.confirm()
            case ClientMessageType.DEVICE_INFO_REQUEST:
                result: JSON = {"device_id": message.target_id, "platform": "linux", "hostname": message.request_id}
                self.send(ServerMessageType.DEVICE_INFO_RESPONSE, response_id=message.request_id, result=result)
            case ClientMessageType.TASK:
                self.acknowledge(message)
                self.end(message, message.request)
            case _:
                self.refuse(f"Unknown message type: {message.type}")

    async def answer_all(self) -> None:
        """Reply to all messages that the client has sent, and wait until the replies have arrived."""
        await trio.testing.wait_all_tasks_blocked()
        for message in self.received_nowait():
            self.answer(message)
        await trio.testing.wait_all_tasks_blocked()

    def send_json(self, value: object) -> None:
        """Send any JSON, for example a broken message."""
        self.send_text(json.dumps(value))

    async def send_raw(self, data: bytes) -> None:
        """Send any bytes, even invalid WebSocket frames. No other send may be in progress."""
        await self._server_stream.send_all(data)

    def ping(self) -> None:
        """Send a WebSocket ping."""
        self._transport.ping_nowait()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the WebSocket with a close handshake."""
        self._closing = True
        await self._transport.aclose(code, reason)

    def reset(self) -> None:
        """Break the client's end of the connection, like a TCP reset."""
        self.stream.reset()

    def go_silent(self) -> None:
        """Lose all bytes in both directions without notifying either end, like a pulled cable."""
        self.stream.go_silent()

    async def abort(self) -> None:
        """End the stream without a close handshake."""
        await self._transport.abort()

    async def run(self) -> None:
        """Accept the client and queue its messages for `receive`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._transport.run_writer)
            with self._inbox_in:
                try:
                    await nursery.start(partial(self._transport.run_server, self._handshake_status))
                    while True:
                        # No variable here: it would keep a message alive until the next one arrives.
                        await self._inbox_in.send(_text_of(await self._transport.receive()))
                except ConnectFailed:
                    await self._transport.abort()
                except TransportEnded as ended:
                    self._ended = ended
                    if not self._closing:
                        await self._transport.abort()

    def _handshake_status(self, path: str, headers: list[tuple[bytes, bytes]]) -> int:
        self.path, self.headers = path, headers
        return self.reject_with or SWITCHING_PROTOCOLS


def _text_of(received: str | bytes) -> str:
    return received if isinstance(received, str) else received.decode()


@asynccontextmanager
async def open_bare_peer() -> AsyncGenerator[ScriptedPeer]:
    """Open a peer without a client. Give its `ScriptedPeer.stream` to `open_connection` and confirm the registration yourself."""
    async with open_background() as nursery:
        peer = ScriptedPeer()
        nursery.start_soon(peer.run)
        yield peer


@asynccontextmanager
async def open_scripted_peer(
    device_id: str = "device_001",
    *,
    client_name: str = "demo",
    client_id: str | None = None,
    options: ConnectionOptions | None = None,
    max_pending: int = MAX_PENDING,
) -> AsyncGenerator[ScriptedPeer]:
    """Open a peer with a registered client: `ScriptedPeer.connection`. The arguments are those of `open_connection`."""
    async with open_bare_peer() as peer:

        async def confirm() -> None:
            await peer.receive()
            peer.confirm()

        async with open_background() as nursery:
            nursery.start_soon(confirm)
            async with open_connection(
                PEER_URL,
                device_id,
                client_name=client_name,
                client_id=client_id,
                stream=peer.stream,
                options=options,
                max_pending=max_pending,
            ) as connection:
                peer.attach(connection)
                yield peer
