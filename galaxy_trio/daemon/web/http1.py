"""One connection with HTTP/1.1: Hypercorn's server without its switches to HTTP/2 and WebSockets."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import h11
import trio
from hypercorn.events import Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.config import Config
    from hypercorn.events import Event
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import AppWrapper

_SEND_TIMEOUT: Final = 10.0
"""Maximum seconds until a client has read a piece of a response."""
_UPGRADES: Final = frozenset({b"upgrade", b"http2-settings"})


class _TimeoutStream:
    """What Hypercorn uses of a client's stream, with a timeout for sending: it sends under a shield, which nothing else would end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(_SEND_TIMEOUT) as timeout:
            await self._stream.send_all(data)
        if timeout.cancelled_caught:
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError("the client reads too slowly")

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        # trio's method waits a moment, and Hypercorn may send in another task in that moment, which would be an error.
        await trio.lowlevel.checkpoint()
        with suppress(OSError):
            self._stream.socket.shutdown(trio.socket.SHUT_WR)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Requests(h11.Connection):
    """Reads requests of HTTP/1. Their upgrades are ignored, as HTTP allows: Hypercorn would switch to HTTP/2, with timeouts of its own."""

    def next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        """The next event; see h11.

        Raises:
            h11.RemoteProtocolError: The client does not speak HTTP/1.
        """
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        if not event.http_version.startswith(b"1."):
            raise h11.RemoteProtocolError("the request is not one of HTTP/1", error_status_hint=505)
        headers = [(name, value) for name, value in event.headers if name not in _UPGRADES]
        if len(headers) == len(event.headers):
            return event
        return h11.Request(method=event.method, target=event.target, headers=headers, http_version=event.http_version)


class Http1Server(TCPServer):
    """Serves one connection. Await it.

    Args:
        app: Answers the requests.
        config: Hypercorn's configuration.
        context: Shared by all connections.
        stream: The connection.
        set_idle: Called with whether the connection waits for a request, whenever that changes.
    """

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        stream: trio.SocketStream,
        set_idle: Callable[[bool], None],
    ) -> None:
        # Hypercorn declares a stream with TLS, and uses nothing that only such a stream has.
        super().__init__(app, config, context, {}, _TimeoutStream(stream))  # type: ignore[arg-type]
        self._set_idle = set_idle

    async def run(self) -> None:
        """Serve the connection until it ends."""
        try:
            async with TaskGroup() as task_group:
                self._task_group = task_group
                protocol = H11Protocol(
                    self.app,
                    self.config,
                    self.context,
                    task_group,
                    ConnectionState({}),
                    False,
                    None,
                    None,
                    self.protocol_send,
                )
                protocol.connection = _Requests(
                    h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size
                )
                # It declares the class that switches to HTTP/2.
                self.protocol = protocol  # type: ignore[assignment]
                await self.protocol_send(Updated(idle=True))
                await self._read_data()
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        """Carry out an event of the protocol."""
        if isinstance(event, Updated):
            self._set_idle(event.idle)
        # Shielded: the end of a streamed response cancels the task that ends it, and the connection would stay open. Sending has a limit.
        with trio.CancelScope(shield=True):
            await super().protocol_send(event)
