"""Opens a server: listens, lets peers in, and closes all in good order."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio._arguments import MAX_MESSAGE_SIZE, check_positive
from galaxy_trio._codec.codec import decode_client_message, encode
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._connection.link import CLOSE_TIMEOUT, Link
from galaxy_trio._transport.direct_socket import directly
from galaxy_trio._transport.url import DEFAULT_PATH
from galaxy_trio._transport.websocket import Transport
from galaxy_trio.errors import ConfigError, ConnectFailed
from galaxy_trio.messages import ClientType
from galaxy_trio.server.access import Admission, hosts_for, is_loopback
from galaxy_trio.server.client_handler import Peer
from galaxy_trio.server.pending_commands import MAX_UNANSWERED
from galaxy_trio.server.registry import Registry
from galaxy_trio.server.sessions import MAX_SESSIONS, ServerTask, SessionFunction, Sessions

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from galaxy_trio.messages import JSON, ClientMessage
    from galaxy_trio.server.registry import Client, ClientInfo

logger: Final = logging.getLogger(__name__)

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
        sessions: Tasks that run.
        ending_sessions: Tasks that have ended, and whose session function still cleans up, or whose end a client has not read yet.
        unanswered_commands: Batches of commands that devices have not answered.
        unexpected_results: Command results that nobody waited for, of the devices that are connected.
        turned_away: Connections since the start that were closed because there were too many.
        bytes_held: What was sent to clients and is not yet written.
    """

    connections: int
    devices: int
    constellations: int
    sessions: int
    ending_sessions: int = 0
    unanswered_commands: int = 0
    unexpected_results: int = 0
    turned_away: int = 0
    bytes_held: int = 0


@attrs.frozen(kw_only=True)
class ServerLimits:
    """What a server allows.

    Attributes:
        max_connections: Connections above this number are closed at once.
        max_message_size: Bytes that a message may have, both ways.
        max_sessions: Tasks of one client that may run at once; a client that does not read their ends has fewer.
        max_unanswered_commands: Batches of commands that one device may leave unanswered.
        handshake_timeout: Seconds for a client's TLS and WebSocket handshakes.
        register_timeout: Seconds for a client's first message, which must be its registration.
        liveness_timeout: Seconds without a single byte from a client after which it has gone.
        idle_timeout: Seconds after a client's last message, or the end of the last task for it or on it, after which it is closed.
        ping_interval: Seconds between WebSocket pings to each client.
        send_timeout: Seconds for which a client may leave more than 1 MiB unread that was sent to it.
    """

    max_connections: int = 500
    max_message_size: int = MAX_MESSAGE_SIZE
    max_sessions: int = MAX_SESSIONS
    max_unanswered_commands: int = MAX_UNANSWERED
    handshake_timeout: float = 10.0
    register_timeout: float = 30.0
    liveness_timeout: float = 180.0
    idle_timeout: float = 600.0
    ping_interval: float = 20.0
    send_timeout: float = 60.0

    def __attrs_post_init__(self) -> None:
        check_positive(**attrs.asdict(self))


class Server:
    """A running server. Made by `open_server`."""

    def __init__(
        self,
        url: str,
        nursery: trio.Nursery,
        session: SessionFunction,
        admission: Admission,
        limits: ServerLimits,
        device_config: Mapping[str, Mapping[str, JSON]] | None = None,
    ) -> None:
        self._url = url
        self._nursery = nursery
        self._admission = admission
        self._limits = limits
        self._registry = Registry(device_config)
        self._sessions = Sessions(session, nursery, limits.max_sessions)
        self._links: set[Link[ClientMessage]] = set()
        self._turned_away = 0
        self._is_turning_away = False
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
        return [client.client_id for client in self._registry.clients(ClientType.DEVICE)]

    @property
    def constellations(self) -> list[str]:
        """The names of the constellations that are connected, in the order of their registration."""
        return [client.client_id for client in self._registry.clients(ClientType.CONSTELLATION)]

    def clients(self, client_type: ClientType | None = None) -> list[ClientInfo]:
        """What is known of those that are connected, in one role or in both, in the order of their registration."""
        return self._registry.clients(client_type)

    def statistics(self) -> ServerStatistics:
        """What the server holds now."""
        return ServerStatistics(
            connections=self._connections,
            devices=len(self.devices),
            constellations=len(self.constellations),
            sessions=self._sessions.running(),
            ending_sessions=self._sessions.ending(),
            unanswered_commands=self._registry.unanswered_commands(),
            unexpected_results=self._registry.unexpected_results(),
            turned_away=self._turned_away,
            bytes_held=sum(link.bytes_held for link in self._links),
        )

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one client on a stream until it leaves or the server stops; the stream is closed then.

        Whatever goes wrong with it is logged and ends this connection only. Cancelling closes the stream at once.
        """
        if self._stopping or self._connections >= self._limits.max_connections:
            # Once, until somebody is let in again: who can open connections must not be able to fill the log.
            level = logging.DEBUG if self._is_turning_away else logging.WARNING
            logger.log(level, "a connection was turned away: %s are open", self._connections)
            self._is_turning_away = True
            self._turned_away += 1
            await trio.aclose_forcefully(stream)
            return
        self._is_turning_away = False
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
        peer = Peer(self._registry, self._sessions, limits.max_unanswered_commands)
        websocket = Transport(stream, peer="the client", client=False, max_message_size=limits.max_message_size)
        link = Link(websocket, peer, encode, decode_client_message, peer="a client", pause_reading=True)
        peer.attach(link)
        self._links.add(link)
        with trio.CancelScope() as shaking_hands:
            self._handshakes.add(shaking_hands)
            try:
                async with link.running(
                    partial(websocket.run_server, self._admission.judge),
                    handshake_deadline=trio.current_time() + limits.handshake_timeout,
                    liveness_timeout=limits.liveness_timeout,
                    ping_interval=limits.ping_interval,
                    send_timeout=limits.send_timeout,
                ):
                    self._handshakes.discard(shaking_hands)
                    await self._converse(peer, link)
            finally:
                self._handshakes.discard(shaking_hands)
                self._links.discard(link)

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
                await self._wait_idle_or_closed(peer.client, link)
                return
            finally:
                self._waits.discard(waiting)
        link.close_code = _GOING_AWAY

    async def _wait_idle_or_closed(self, client: Client, link: Link[ClientMessage]) -> None:
        idle_at = client.last_active + self._limits.idle_timeout
        while idle_at > trio.current_time():
            with trio.move_on_at(idle_at):
                await link.wait_closed()
                return
            # A task that runs is something to wait for; its end will be what idleness counts from.
            idle_since = trio.current_time() if self._sessions.concerns(client) else client.last_active
            idle_at = idle_since + self._limits.idle_timeout
        logger.info("%s has sent no message for %g s: closing", link.peer, self._limits.idle_timeout)

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
    token: str | Iterable[str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    allowed_hosts: Iterable[str] | None = None,
    allowed_origins: Iterable[str] = (),
    device_config: Mapping[str, Mapping[str, JSON]] | None = None,
    limits: ServerLimits | None = None,
) -> AsyncGenerator[Server]:
    """Run a server for the length of the block.

    Its end stops all sessions, tells their clients so, and closes all connections in good order within a few seconds; cancelling the block
    closes them at once.

    Args:
        host: The address to listen at: loopback unless told otherwise; anything else needs a token.
        port: The port; 0 for any that is free: see `Server.url`.
        session: Runs one task; without it, a task's result is ``{"echo": request}``.
        token: What clients must give as ``?token=``; of several, for rotation, any one will do. They are never shown.
        ssl_context: To speak TLS.
        allowed_hosts: By which names, without a port, clients may call the server. Without it any will do, but at a loopback address
            only loopback's own; these are allowed there in addition.
        allowed_origins: The origins of web pages whose scripts may connect, such as ``https://example.org``; without it no page may.
        device_config: What is merged into the devices' information, by device; see `read_device_config`.
        limits: What clients may take; see `ServerLimits` for the defaults.

    Raises:
        ConfigError: What was asked for cannot be right.
        OSError: The port cannot be listened at.
    """
    admission = Admission(token, allowed_hosts=hosts_for(host, allowed_hosts), allowed_origins=allowed_origins)
    if not admission.asks_for_token and not is_loopback(host):
        raise ConfigError(
            f"a server at {host!r} can be reached from other machines and needs a token: give one, or listen at 127.0.0.1"
        )
    listeners = await trio.open_tcp_listeners(port, host=host)
    address, bound_port = listeners[0].socket.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address, f"[{address}]" if ":" in address else address)  # noqa: S104
    url = f"{'ws' if ssl_context is None else 'wss'}://{shown}:{bound_port}{DEFAULT_PATH}"
    async with open_background() as nursery:
        server = Server(url, nursery, session, admission, limits or ServerLimits(), device_config)

        async def serve(stream: trio.SocketStream) -> None:
            if ssl_context is None:
                await server.serve_stream(directly(stream))
            else:
                await server.serve_stream(trio.SSLStream(stream, ssl_context, server_side=True, https_compatible=True))

        await nursery.start(partial(trio.serve_listeners, serve, listeners, handler_nursery=nursery))
        logger.info("listening at %s", url)
        yield server
        await server.stop()
