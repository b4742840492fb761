"""An HTTP client that costs as little as it can: one connection, one request after the other."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


class Answer(NamedTuple):
    """A response whose body is JSON."""

    status: int
    body: dict[str, Any]


class HttpClient:
    """Asks for one thing after the other on a connection. Made by `open_unix` and `open_tcp`."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        """Send a request, and wait for its response.

        Raises:
            trio.BrokenResourceError: The connection was closed first.
        """
        content = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: {len(content)}\r\n\r\n"
        await self._stream.send_all(head.encode() + content)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await self._receive()
        headers, _, rest = answer.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in headers.lower():
            rest = await self._chunks(rest)
        else:
            length = int(headers.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(rest) < length:
                rest += await self._receive()
        return Answer(int(headers.split(b" ", 2)[1]), cast("dict[str, Any]", json.loads(rest)))

    async def _chunks(self, received: bytes) -> bytes:
        """Read a chunked body. The daemon's lists are sent so."""
        body = b""
        while True:
            while b"\r\n" not in received:
                received += await self._receive()
            size, _, received = received.partition(b"\r\n")
            length = int(size, 16)
            while len(received) < length + 2:
                received += await self._receive()
            if not length:
                return body
            body, received = body + received[:length], received[length + 2 :]

    async def _receive(self) -> bytes:
        received = bytes(await self._stream.receive_some())
        if not received:
            raise trio.BrokenResourceError("the daemon closed the connection")
        return received


@asynccontextmanager
async def open_unix(path: Path) -> AsyncGenerator[HttpClient]:
    """Connect to a Unix socket, for the length of the block."""
    async with await trio.open_unix_socket(path) as stream:
        yield HttpClient(stream)


@asynccontextmanager
async def open_tcp(port: int) -> AsyncGenerator[HttpClient]:
    """Connect to a port of this machine, for the length of the block."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield HttpClient(stream)
