"""Opens a server: listens, lets peers in, and closes all in good order."""

from __future__ import annotations

import hmac
import ipaddress
import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

import attrs
import trio

from galaxy_trio.codec import decode_client_message
from galaxy_trio.errors import ConfigError, ConnectFailed
from galaxy_trio.link import CLOSE_TIMEOUT, Link
from galaxy_trio.messages import ClientType
from galaxy_trio.opening import MAX_MESSAGE_SIZE, check_positive
from galaxy_trio.outcomes import open_background
from galaxy_trio.server.peer import Peer
from galaxy_trio.server.registry import Registry
from galaxy_trio.server.sessions import ServerTask, SessionFunction, Sessions
from galaxy_trio.transport import SWITCHING_PROTOCOLS, Transport
from galaxy_trio.url import DEFAULT_PATH

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator

    from galaxy_trio.messages import ClientMessage

logger = logging.getLogger(__name__)

_GOING_AWAY: Final = 1001
_POLICY_VIOLATION: Final = 1008
_SESSIONS_TIMEOUT: Final = 1.0
"""Seconds that sessions have to clean up, and their clients to be told, when the server stops."""


@attrs.frozen
class ServerStatistics:
    """What a server holds now.

    Attributes:
        connections: Open sockets, registered or not.
        devices: Registered devices.
        constellations: Registered constellations.
        sessions: Running tasks.
    """

    connections: int
    devices: int
    constellations: int
    sessions: int


@attrs.frozen
class ServerLimits:
    """What a server allows; the meanings are those of `open_server`'s arguments."""

    max_connections: int = 500
    max_message_size: int = MAX_MESSAGE_SIZE
    handshake_timeout: float = 10.0
    register_timeout: float = 30.0
    liveness_timeout: float = 180.0
    ping_interval: float = 20.0

    def __attrs_post_init__(self) -> None:
        check_positive(**attrs.asdict(self))


class Server:
    """A running server. Made by `open_server`."""

    def __init__(
        self, url: str, nursery: trio.Nursery, session: SessionFunction, token: str | None, limits: ServerLimits
    ) -> None:
        self._url = url
        self._nursery = nursery
        self._token = token
        self._limits = limits
        self._registry = Registry()
        self._sessions = Sessions(session, nursery)
        self._handshakes: set[trio.CancelScope] = set()
        self._waits: set[trio.CancelScope] = set()
        self._connections = 0
        self._quiet = trio.Event()
        self._stopping = False

    def __repr__(self) -> str:
        return f"<Server at {self._url}>"

    @property
    def url(self) -> str:
        """Where clients connect to; without the token."""
        return self._url

    @property
    def devices(self) -> list[str]:
        """The names of the devices that are connected, in the order of their registration."""
        return self._registry.names(ClientType.DEVICE)

    @property
    def constellations(self) -> list[str]:
        """The names of the constellations that are connected, in the order of their registration."""
        return self._registry.names(ClientType.CONSTELLATION)

    def statistics(self) -> ServerStatistics:
        """What the server holds now."""
        return ServerStatistics(self._connections, len(self.devices), len(self.constellations), len(self._sessions))

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one client on a stream until it leaves or the server stops; the stream is closed then.

        Whatever goes wrong with it is logged and ends this connection only. Cancelling closes the stream at once.
        """
        if self._stopping or self._connections >= self._limits.max_connections:
            logger.warning("a connection was turned away: %s are open", self._connections)
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            await self._serve(stream)
        except ConnectFailed as failed:
            logger.info("%s", failed)
        except Exception:
            logger.exception("a connection ended by a bug of the server")
        finally:
            self._connections -= 1
            if not self._connections:
                self._quiet.set()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        limits = self._limits
        peer = Peer(self._registry, self._sessions)
        transport = Transport(stream, peer="the client", client=False, max_message_size=limits.max_message_size)
        link = Link(transport, peer, decode_client_message, peer="a client", pause_reading=True)
        peer.attach(link)
        with trio.CancelScope() as shaking_hands:
            self._handshakes.add(shaking_hands)
            try:
                async with link.running(
                    partial(transport.run_server, self._judge),
                    handshake_deadline=trio.current_time() + limits.handshake_timeout,
                    liveness_timeout=limits.liveness_timeout,
                    ping_interval=limits.ping_interval,
                ):
                    self._handshakes.discard(shaking_hands)
                    await self._converse(peer, link)
            finally:
                self._handshakes.discard(shaking_hands)

    async def _converse(self, peer: Peer, link: Link[ClientMessage]) -> None:
        """Wait until a client has left, was turned away, or the server stops."""
        with trio.CancelScope() as waiting:
            self._waits.add(waiting)
            try:
                with trio.move_on_after(self._limits.register_timeout):
                    await peer.first_message.wait()
                if peer.client is None:
                    link.close_code = peer.refused_with or _POLICY_VIOLATION
                    return
                await link.wait_closed()
            finally:
                self._waits.discard(waiting)
        link.close_code = _GOING_AWAY

    def _judge(self, path: str, headers: list[tuple[bytes, bytes]]) -> int:
        del headers
        try:
            parts = urlsplit(path)
        except ValueError:
            return 404
        if parts.path != DEFAULT_PATH:
            return 404
        if self._token is not None:
            given = parse_qs(parts.query).get("token", [""])[0]
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                return 403
        return SWITCHING_PROTOCOLS

    async def stop(self) -> None:
        """Let nobody in any more, end all sessions, close all connections at once. Takes at most a few seconds."""
        self._stopping = True
        self._sessions.cancel_all("Task was cancelled because the server is shutting down")
        for shaking_hands in self._handshakes:
            shaking_hands.cancel()
        with trio.move_on_after(_SESSIONS_TIMEOUT):
            await self._sessions.wait_all_ended()
        for waiting in self._waits:
            waiting.cancel()
        with trio.move_on_after(CLOSE_TIMEOUT + 1):
            if self._connections:
                self._quiet = trio.Event()
                await self._quiet.wait()


async def echo(task: ServerTask) -> object:
    """The session of a server that is given none."""
    return {"echo": task.request}


@asynccontextmanager
async def open_server(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    session: SessionFunction = echo,
    token: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    max_connections: int = 500,
    max_message_size: int = MAX_MESSAGE_SIZE,
    handshake_timeout: float = 10.0,
    register_timeout: float = 30.0,
    liveness_timeout: float = 180.0,
    ping_interval: float = 20.0,
) -> AsyncGenerator[Server]:
    """Run a server for the length of the block.

    Its end stops all sessions, tells their clients so, and closes all connections in good order within a few seconds; cancelling the block
    closes them at once.

    Args:
        host: The address to listen at: loopback unless told otherwise; anything else needs a token.
        port: The port; 0 for any that is free: see `Server.url`.
        session: Runs one task; without it, a task's result is ``{"echo": request}``.
        token: What clients must give as ``?token=``. It is never shown.
        ssl_context: To speak TLS.
        max_connections: Connections above this number are closed at once.
        max_message_size: Bytes that a message may have, both ways.
        handshake_timeout: Seconds for a client's WebSocket handshake.
        register_timeout: Seconds for a client's first message, which must be its registration.
        liveness_timeout: Seconds without a single byte from a client after which it has gone.
        ping_interval: Seconds between WebSocket pings to each client.

    Raises:
        ConfigError: What was asked for cannot be right.
        OSError: The port cannot be listened at.
    """
    check_token(token)
    if token is None and not _is_loopback(host):
        raise ConfigError(
            f"a server at {host!r} can be reached from other machines and needs a token: give one, or listen at 127.0.0.1"
        )
    limits = ServerLimits(
        max_connections, max_message_size, handshake_timeout, register_timeout, liveness_timeout, ping_interval
    )
    listeners = await trio.open_tcp_listeners(port, host=host)
    address, bound_port = listeners[0].socket.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address, f"[{address}]" if ":" in address else address)  # noqa: S104
    url = f"{'ws' if ssl_context is None else 'wss'}://{shown}:{bound_port}{DEFAULT_PATH}"
    async with open_background() as nursery:
        server = Server(url, nursery, session, token, limits)

        async def serve(stream: trio.SocketStream) -> None:
            if ssl_context is None:
                await server.serve_stream(stream)
            else:
                await server.serve_stream(trio.SSLStream(stream, ssl_context, server_side=True, https_compatible=True))

        await nursery.start(partial(trio.serve_listeners, serve, listeners, handler_nursery=nursery))
        logger.info("listening at %s", url)
        yield server
        await server.stop()


def check_token(token: str | None) -> None:
    """Raise `ConfigError` for a token that keeps nobody out."""
    if token is not None and not token:
        raise ConfigError("an empty token would let everybody in: give one, or None for a server without")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
