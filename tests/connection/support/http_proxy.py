"""HTTP proxies: scripted ones in memory, and one on loopback that opens tunnels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio
import trio.testing

from tests.connection.support.opening import ClientLeft, read_head

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PROXY_URL = "http://proxy.test:3128"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@attrs.define(eq=False)
class MemoryProxy:
    """A proxy in memory. Its `connect` returns the client's end of a new stream to it.

    Args:
        answer: Sent in reply to each CONNECT request.
        serve: The server behind it, which gets each stream after a CONNECT. Without one, the proxy reads on until the client leaves.
        requests: The CONNECT requests that arrived.
    """

    nursery: trio.Nursery
    serve: Callable[[trio.abc.Stream], Awaitable[None]] | None = None
    answer: bytes = ESTABLISHED
    requests: list[bytes] = attrs.field(factory=list[bytes])

    def connect(self) -> trio.abc.Stream:
        client_end, proxy_end = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._handle, proxy_end)
        return client_end

    async def _handle(self, stream: trio.abc.Stream) -> None:
        # The client may leave at any time.
        with suppress(trio.BrokenResourceError, ClientLeft):
            self.requests.append(await read_head(stream))
            await stream.send_all(self.answer)
            if self.serve is not None and self.answer == ESTABLISHED:
                await self.serve(stream)
                return
            while await stream.receive_some():
                pass


@attrs.define(eq=False)
class LoopbackProxy:
    """A proxy on loopback, which connects to one server whatever host is asked for."""

    server_port: int
    port: int = 0
    requests: list[bytes] = attrs.field(factory=list[bytes])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def tunnel(self, stream: trio.abc.Stream) -> None:
        """Answer a CONNECT request, and copy bytes in both directions until both have ended."""
        async with stream:
            with suppress(trio.BrokenResourceError, ClientLeft):
                self.requests.append(await read_head(stream))
                async with await trio.open_tcp_stream("127.0.0.1", self.server_port) as server:
                    await stream.send_all(ESTABLISHED)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_copy, stream, server, nursery.cancel_scope)
                        nursery.start_soon(_copy, server, stream, nursery.cancel_scope)


async def _copy(source: trio.abc.Stream, destination: trio.abc.Stream, both: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError):
        async for data in source:
            await destination.send_all(data)
    both.cancel()


@asynccontextmanager
async def open_loopback_proxy(
    server_port: int, wrap: Callable[[trio.SocketStream], trio.abc.Stream] = lambda stream: stream
) -> AsyncGenerator[LoopbackProxy]:
    """Run a proxy in front of a server on loopback. `wrap` puts TLS around each client's stream."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy = LoopbackProxy(server_port, listener.socket.getsockname()[1])

    async def handle(stream: trio.SocketStream) -> None:
        await proxy.tunnel(wrap(stream))

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, handle, [listener]))
        yield proxy
        nursery.cancel_scope.cancel()
