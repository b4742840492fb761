"""A server: listens, serves its clients, shuts down."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio._arguments import MAX_MESSAGE_SIZE, MAX_VALUES, MEMORY_BUDGET, check_positive
from galaxy_trio._codec.codec import decode_client_message, encode
from galaxy_trio._concurrency.accepting import serve_listeners
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._concurrency.limited_log import LimitedLog
from galaxy_trio._concurrency.memory_budget import MemoryBudget
from galaxy_trio._concurrency.suspension import with_grace
from galaxy_trio._connection.link import CLOSE_TIMEOUT, Link
from galaxy_trio._transport.direct_socket import directly
from galaxy_trio._transport.interface import SWITCHING_PROTOCOLS
from galaxy_trio._transport.url import DEFAULT_PATH
from galaxy_trio._transport.websocket import TrioWebSocket
from galaxy_trio.errors import ConfigError, ConnectFailed
from galaxy_trio.messages import ClientType
from galaxy_trio.server.access import AccessPolicy, hosts_for, is_loopback
from galaxy_trio.server.client_handler import ClientHandler
from galaxy_trio.server.pending_commands import MAX_UNANSWERED
from galaxy_trio.server.registry import Registry
from galaxy_trio.server.sessions import MAX_SESSIONS, ServerTask, SessionFunction, Sessions

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from galaxy_trio.messages import JSON, ClientMessage
    from galaxy_trio.server.registry import Client, ClientInfo

logger: Final = logging.getLogger(__name__)

_MAX_REGISTRATION_VALUES: Final = 2_000
"""Values and keys of a registration. A device's description is kept as long as it is connected, and takes up to 30 times its text."""
_GOING_AWAY: Final = 1001
_POLICY_VIOLATION: Final = 1008
_SESSIONS_TIMEOUT: Final = 1.0
"""Seconds for sessions to clean up and for their clients to be notified when the server stops."""


@attrs.frozen
class ServerStatistics:
    """A snapshot of a server's state.

    Attributes:
        connections: Open connections, registered or not.
        devices: Registered devices.
        constellations: Registered constellations.
        sessions: Running tasks.
        ending_sessions: Tasks that have ended while their session function still cleans up, or while a client has not read the end.
        unanswered_commands: Command batches that devices have not answered.
        unexpected_results: Command results for no pending batch, from connected devices.
        turned_away: Connections closed since the start because too many were open.
        bytes_held: Bytes sent to clients that are not written yet.
        memory_held: Bytes that count towards the memory budget.
        closed_for_memory: Number of connections that were closed because of the memory budget.
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
    memory_held: int = 0
    closed_for_memory: int = 0


@attrs.frozen(kw_only=True)
class ServerLimits:
    """Limits and timeouts of a server.

    Attributes:
        max_connections: Connections above this number are closed immediately.
        max_message_size: Largest message in bytes, in both directions.
        max_registration_size: Largest message in bytes from a client that has not registered.
        max_values: Number of values and keys that a message may have.
        memory_budget: Bytes that all connections may hold together: messages that have not arrived whole, requests of running tasks, and
            what is not written yet. Above 75 %, connections that hold more than their share are not read; at 100 %, or after 5 s
            without progress, the heaviest one is closed with code 1013, those that have not registered first.
        max_sessions: Concurrent tasks of one client; an ended task counts until the client has read its end.
        max_unanswered_commands: Command batches that one device may leave unanswered.
        handshake_timeout: Seconds for a client's TLS and WebSocket handshakes.
        register_timeout: Seconds for a client's first message, which must be its registration.
        liveness_timeout: Seconds without a byte from a client after which its connection is lost.
        idle_timeout: Seconds after which a client is closed, counted from its last message or the end of the last task that it
            submitted or ran.
        ping_interval: Seconds between WebSocket pings to each client.
        send_timeout: Seconds for which a client may leave more than 1 MiB unread.
    """

    max_connections: int = 500
    max_message_size: int = MAX_MESSAGE_SIZE
    max_registration_size: int = 64 * 1024
    max_values: int = MAX_VALUES
    memory_budget: int = MEMORY_BUDGET
    max_sessions: int = MAX_SESSIONS
    max_unanswered_commands: int = MAX_UNANSWERED
    handshake_timeout: float = 10.0
    register_timeout: float = 10.0
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
        access: AccessPolicy,
        limits: ServerLimits,
        device_config: Mapping[str, Mapping[str, JSON]] | None = None,
    ) -> None:
        self._url = url
        self._nursery = nursery
        self._access = access
        self._limits = limits
        self._memory = MemoryBudget(limits.memory_budget)
        self._registry = Registry(device_config)
        self._sessions = Sessions(session, nursery, limits.max_sessions)
        self._links: set[Link[ClientMessage]] = set()
        self._turned_away = 0
        self._is_turning_away = False
        self._rejected = LimitedLog(logger, logging.INFO)
        self._handshakes: set[trio.CancelScope] = set()
        self._waits: set[trio.CancelScope] = set()
        self._connections = 0
        self._all_closed = trio.lowlevel.ParkingLot()
        self._stopping = False

    def __repr__(self) -> str:
        return f"<Server at {self._url}>"

    @property
    def url(self) -> str:
        """The URL for clients, without a token."""
        return self._url

    @property
    def devices(self) -> list[str]:
        """The names of the connected devices, in the order of their registration."""
        return [client.client_id for client in self._registry.clients(ClientType.DEVICE)]

    @property
    def constellations(self) -> list[str]:
        """The names of the connected constellations, in the order of their registration."""
        return [client.client_id for client in self._registry.clients(ClientType.CONSTELLATION)]

    def clients(self, client_type: ClientType | None = None) -> list[ClientInfo]:
        """The connected clients, in one role or both, in the order of their registration."""
        return self._registry.clients(client_type)

    def statistics(self) -> ServerStatistics:
        """Return a snapshot of the server's state."""
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
            memory_held=self._memory.held,
            closed_for_memory=self._memory.closed,
        )

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one client on a stream until the client leaves or the server stops, then close the stream.

        An error is logged and ends this connection only. Cancelling closes the stream immediately.
        """
        if self._stopping:
            await trio.aclose_forcefully(stream)
            return
        if self._connections >= self._limits.max_connections:
            # One warning until a connection is accepted again, so that opening connections does not fill the log.
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
            self._rejected.problem("%s", failed)
        except Exception:
            logger.exception("a bug in the server ended a connection")
        finally:
            self._connections -= 1
            if not self._connections:
                self._all_closed.unpark_all()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        limits = self._limits
        handler = ClientHandler(
            self._registry,
            self._sessions,
            limits.max_unanswered_commands,
            limits.max_message_size,
            limits.max_values,
        )
        websocket = TrioWebSocket(
            stream,
            peer="the client",
            client=False,
            max_message_size=limits.max_message_size,
            memory=self._memory.open_share(),
        )
        websocket.limit_received(min(limits.max_registration_size, limits.max_message_size))
        link = Link(
            websocket,
            handler,
            encode,
            decode_client_message,
            peer="a client",
            max_values=min(_MAX_REGISTRATION_VALUES, limits.max_values),
            pause_reading=True,
        )
        handler.attach(link)

        def judge(path: str, headers: list[tuple[bytes, bytes]]) -> int:
            status = self._access.handshake_status(path, headers)
            if status == SWITCHING_PROTOCOLS:
                handler.credential = self._access.credential(path)
            return status

        self._links.add(link)
        with trio.CancelScope() as shaking_hands:
            self._handshakes.add(shaking_hands)
            try:
                async with link.running(
                    partial(websocket.run_server, judge),
                    handshake_deadline=trio.current_time() + limits.handshake_timeout,
                    liveness_timeout=limits.liveness_timeout,
                    ping_interval=limits.ping_interval,
                    send_timeout=limits.send_timeout,
                ):
                    self._handshakes.discard(shaking_hands)
                    await self._wait_until_done(handler, link)
            finally:
                self._handshakes.discard(shaking_hands)
                self._links.discard(link)

    async def _wait_until_done(self, handler: ClientHandler, link: Link[ClientMessage]) -> None:
        """Wait until the client has left, was refused or became idle, or the server stops."""
        with trio.CancelScope() as waiting:
            self._waits.add(waiting)
            try:
                with trio.move_on_after(self._limits.register_timeout):
                    await handler.first_message.wait()
                await handler.settle_claim()
                if handler.client is None:
                    link.close_code = handler.refused_with or _POLICY_VIOLATION
                    return
                await self._wait_idle_or_closed(handler.client, link)
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
            # A client with a running task is not idle: idleness counts from the task's end.
            idle_since = trio.current_time() if self._sessions.concerns(client) else client.last_active
            idle_at = max(with_grace(idle_at), idle_since + self._limits.idle_timeout)
        logger.info("closing %s: no message for %g s", link.peer, self._limits.idle_timeout)

    async def stop(self) -> None:
        """Accept no more connections, cancel all sessions, close all connections together. Takes at most a few seconds."""
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
                await self._all_closed.park()


async def echo(task: ServerTask) -> object:
    """Return the request: the default session of a server."""
    return {"echo": task.request}


@asynccontextmanager
async def open_server(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    session: SessionFunction = echo,
    token: str | Iterable[str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    allowed_hosts: str | Iterable[str] | None = None,
    allowed_origins: str | Iterable[str] = (),
    device_config: Mapping[str, Mapping[str, JSON]] | None = None,
    limits: ServerLimits | None = None,
) -> AsyncGenerator[Server]:
    """Run a server until the block ends.

    Leaving the block cancels all sessions, notifies their clients, and closes all connections with a close handshake within a few
    seconds. Cancelling the block, or an exception in it, closes them immediately; the exception comes out as the same object.

    Args:
        host: The address to listen at; any other than loopback needs a token.
        port: The port; 0 for a free one, see `Server.url`.
        session: Runs one task. By default, a task's result is ``{"echo": request}``.
        token: The token that clients must give as ``?token=``, or several for rotation, of which any one is accepted. Never shown.
        ssl_context: Enables TLS.
        allowed_hosts: Names, without a port, that clients may use for the server. By default any, except at a loopback address:
            there only loopback's own names, and these in addition.
        allowed_origins: Origins of web pages whose scripts may connect, such as ``https://example.org``; by default none.
        device_config: Data that is merged into the devices' information, by device; see `read_device_config`.
        limits: Limits and timeouts; see `ServerLimits` for the defaults.

    Raises:
        ConfigError: An argument is invalid.
        OSError: The server cannot listen at the port.
    """
    access = AccessPolicy(token, allowed_hosts=hosts_for(host, allowed_hosts), allowed_origins=allowed_origins)
    if not access.requires_token and not is_loopback(host):
        raise ConfigError(
            f"a server at {host!r} is reachable from other machines and needs a token: give one, or listen at 127.0.0.1"
        )
    listeners = await trio.open_tcp_listeners(port, host=host)
    address, bound_port = listeners[0].socket.getsockname()[:2]
    # By a name, because a certificate may be for it.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, host or address)  # noqa: S104
    shown = f"[{name}]" if ":" in name else name
    url = f"{'ws' if ssl_context is None else 'wss'}://{shown}:{bound_port}{DEFAULT_PATH}"
    async with open_background() as nursery:
        server = Server(url, nursery, session, access, limits or ServerLimits(), device_config)

        async def serve(stream: trio.SocketStream) -> None:
            if ssl_context is None:
                await server.serve_stream(directly(stream))
            else:
                await server.serve_stream(trio.SSLStream(stream, ssl_context, server_side=True, https_compatible=True))

        await nursery.start(partial(serve_listeners, serve, listeners, handler_nursery=nursery, logger=logger))
        nursery.start_soon(server._rejected.log_counts)  # noqa: SLF001  # same module
        logger.info("listening at %s", url)
        yield server
        await server.stop()
