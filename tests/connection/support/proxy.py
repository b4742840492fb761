"""A TCP proxy on loopback, whose connections a test cuts, stalls, slows down and resets."""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._concurrency.background import open_background

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_PIECE: Final = 65_536
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which closing resets."""


class ProxiedConnection:
    """One connection through the proxy."""

    def __init__(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self._client = client
        self._server = server
        self._open = {True: trio.Event(), False: trio.Event()}
        for gate in self._open.values():
            gate.set()
        self._portion = _PIECE
        self._pause = 0.0
        self._bytes_to_end: int | None = None
        self.over = False

    async def run(self) -> None:
        """Transfer bytes in both directions until an end or the test closes."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, self._client, self._server, True)
                nursery.start_soon(self._carry, self._server, self._client, False)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._close()

    async def _carry(self, source: trio.SocketStream, target: trio.SocketStream, to_server: bool) -> None:
        while data := await self._receive(source, to_server):
            with memoryview(data) as view:
                for start in range(0, len(data), self._portion):
                    await self._open[to_server].wait()
                    piece = view[start : start + self._portion][: self._bytes_to_end]
                    await target.send_all(piece)
                    if self._bytes_to_end is not None:
                        self._bytes_to_end -= len(piece)
                        if self._bytes_to_end <= 0:
                            self._close()
                            return
                    await trio.sleep(self._pause)
        # An end may have finished sending and still receive.
        await target.send_eof()

    async def _receive(self, source: trio.SocketStream, to_server: bool) -> bytes:
        await self._open[to_server].wait()
        return bytes(await source.receive_some(self._portion))

    def stall(self, *, to_server: bool) -> None:
        """Transfer nothing more in this direction until `resume`. The sender waits when the buffers are full."""
        if self._open[to_server].is_set():
            self._open[to_server] = trio.Event()

    def resume(self) -> None:
        """Continue in both directions."""
        for gate in self._open.values():
            gate.set()

    def trickle(self, portion: int, pause: float) -> None:
        """Transfer pieces of this size in both directions, with this pause in seconds after each."""
        self._portion, self._pause = portion, pause

    def cut_after(self, size: int) -> None:
        """Close in both directions after this many more bytes, which are rarely the end of a frame."""
        self._bytes_to_end = size

    def cut(self) -> None:
        """Close in both directions, as when a process in between ends."""
        self._close()

    def reset(self) -> None:
        """Reset the connections to both ends."""
        for stream in (self._client, self._server):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close()

    def _close(self) -> None:
        self.over = True
        for stream in (self._client, self._server):
            stream.socket.close()


class Proxy:
    """A proxy. Made by `open_proxy`.

    Attributes:
        url: Where it listens, as the target's URL.
        refuses: Whether new connections are closed as soon as they are there.
        trickle: Portion and pause of new connections.
    """

    def __init__(self, url: str, target: tuple[str, int]) -> None:
        self.url = url
        self.refuses = False
        self.trickle: tuple[int, float] | None = None
        self._target = target
        self._connections: list[ProxiedConnection] = []

    @property
    def connections(self) -> list[ProxiedConnection]:
        """The open connections, oldest first."""
        self._connections = [connection for connection in self._connections if not connection.over]
        return self._connections

    async def serve(self, client: trio.SocketStream) -> None:
        """Proxy one connection."""
        async with client:
            if self.refuses:
                return
            try:
                server = await trio.open_tcp_stream(*self._target)
            except OSError:
                return
            connection = ProxiedConnection(client, server)
            if self.trickle is not None:
                connection.trickle(*self.trickle)
            self._connections.append(connection)
            await connection.run()


@asynccontextmanager
async def open_proxy(url: str) -> AsyncGenerator[Proxy]:
    """Open a proxy for the server at this URL."""
    authority = url.removeprefix("ws://").partition("/")[0]
    host, _, port = authority.partition(":")
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, open_background() as nursery:
        proxy = Proxy(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/ws", (host, int(port)))
        nursery.start_soon(_accept, listener, proxy, nursery)
        yield proxy


async def _accept(listener: trio.SocketListener, proxy: Proxy, nursery: trio.Nursery) -> None:
    while True:
        nursery.start_soon(proxy.serve, await listener.accept())
