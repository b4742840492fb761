"""One connection with HTTP/1.1: Hypercorn's server without its switches to HTTP/2 and WebSockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import h11
import trio
from hypercorn.events import Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.config import Config
    from hypercorn.events import Event
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import AppWrapper

_SEND_TIMEOUT: Final = 10.0
"""Maximum seconds until a client has read a piece of a response."""
_UPGRADES: Final = frozenset({b"upgrade", b"http2-settings"})


class _TimeoutStream(trio.abc.HalfCloseableStream):
    """A client's stream with a timeout for sending: Hypercorn sends under a shield, which nothing else would end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket
        # Hypercorn ends the stream in one task while another one sends.
        self._sending = trio.Lock()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(_SEND_TIMEOUT) as timeout:
            async with self._sending:
                await self._stream.send_all(data)
        if timeout.cancelled_caught:
            await trio.aclose_forcefully(self)
            raise trio.BrokenResourceError("the client reads too slowly")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        async with self._sending:
            await self._stream.send_eof()

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
        # Hypercorn uses nothing of the stream that only TLS has.
        super().__init__(app, config, context, {}, _TimeoutStream(stream))  # type: ignore[arg-type]
        self._socket = stream.socket
        self._set_idle = set_idle

    async def run(self) -> None:
        """Serve the connection until it ends."""
        try:
            async with TaskGroup() as task_group:
                self._task_group = task_group
                family = self._socket.family
                protocol = H11Protocol(
                    self.app,
                    self.config,
                    self.context,
                    task_group,
                    ConnectionState({}),
                    False,
                    parse_socket_addr(family, self._socket.getpeername()),
                    parse_socket_addr(family, self._socket.getsockname()),
                    self.protocol_send,
                )
                protocol.connection = _Requests(
                    h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size
                )
                # It declares the class that switches to HTTP/2.
                self.protocol = protocol  # type: ignore[assignment]
                await self.idle_task.restart(task_group, self._idle_timeout)
                await self._read_data()
        except OSError:
            # The client has gone.
            pass
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        """Carry out an event of the protocol."""
        if isinstance(event, Updated):
            self._set_idle(event.idle)
        await super().protocol_send(event)
