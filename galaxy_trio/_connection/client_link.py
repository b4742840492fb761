"""The client's side of a link, shared by the roles that connect to a server: from a URL to a registered link."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from galaxy_trio._codec.codec import encode
from galaxy_trio._concurrency.thread_limit import ThreadLimit
from galaxy_trio._connection.link import Link
from galaxy_trio._connection.options import HEARTBEAT_INTERVAL, ConnectionOptions
from galaxy_trio._transport.proxy import find_proxy
from galaxy_trio._transport.tcp import open_stream
from galaxy_trio._transport.url import check_headers, parse_url
from galaxy_trio._transport.websocket import TrioWebSocket
from galaxy_trio.errors import ConfigError, ConnectFailed, ConnectionLost, ConnectTimeout, InvalidMessage

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from galaxy_trio._connection.inbound import Decoder
    from galaxy_trio._connection.receiver import Receiver
    from galaxy_trio._connection.requests import Requests
    from galaxy_trio.messages import JSON

logger: Final = logging.getLogger(__name__)

In = TypeVar("In")

# Token files are small and few. On a network file system, reading them may take long without delaying other threads.
_reading = ThreadLimit("reading tokens", 4)


@asynccontextmanager
async def open_client_link(
    url: str,
    receiver: Receiver[In],
    decode: Decoder[In],
    *,
    peer: str,
    token: str | None,
    headers: Iterable[tuple[str, str]],
    ssl_context: ssl.SSLContext | None,
    stream: trio.abc.Stream | None,
    options: ConnectionOptions,
) -> AsyncGenerator[Link[In]]:
    """Connect to a server for the length of the block. The arguments are those of `open_connection` and `Link`.

    Raises:
        ConfigError: An argument cannot be used.
        ConnectFailed: Opening the WebSocket failed. Everything that was opened here is closed.
    """
    target = parse_url(url, token)
    checked_headers = check_headers(headers)
    deadline = trio.current_time() + options.connect_timeout
    # The environment's proxy is for connections that are opened here.
    proxy = find_proxy(options.proxy, target) if stream is None or options.proxy is not True else None
    if proxy is not None:
        logger.info("reaching %s through the proxy %s", target.shown, proxy.shown)
    opened = await open_stream(target, stream, ssl_context, proxy, options.connect_timeout)
    websocket = TrioWebSocket(
        opened,
        peer=target.shown,
        client=True,
        max_message_size=options.max_message_size,
        memory=options.make_budget().open_share(),
    )
    link = Link(websocket, receiver, encode, decode, peer=peer, max_values=options.max_values)
    async with link.running(
        partial(websocket.run_client, target, checked_headers),
        handshake_deadline=deadline,
        liveness_timeout=options.liveness_timeout,
        ping_interval=options.ping_interval,
    ):
        yield link


async def read_token(read: Callable[[], str | None], timeout: float) -> str | None:
    """Read the current token from its source, in a thread.

    Raises:
        ConnectFailed: It cannot be read, or not within `timeout` seconds. Try again: it may be in the middle of a replacement.
    """
    try:
        with trio.move_on_after(timeout):
            return await trio.to_thread.run_sync(read, abandon_on_cancel=True, limiter=_reading.get())
    except ConfigError as error:
        raise ConnectFailed(str(error)) from error
    raise ConnectTimeout(f"the token could not be read within {timeout:g} s")


async def open_given_stream(connect: Callable[[], Awaitable[trio.abc.Stream]], timeout: float) -> trio.abc.Stream:
    """Open a stream with the caller's function, for example on a Unix socket.

    Raises:
        ConnectFailed: It failed, or took longer than `timeout` seconds.
    """
    stream: trio.abc.Stream | None = None
    try:
        with trio.move_on_after(timeout):
            stream = await connect()
    except trio.TooSlowError as error:
        raise ConnectTimeout("cannot connect: opening the stream took longer than its own timeout") from error
    except (OSError, trio.BrokenResourceError) as error:
        raise ConnectFailed(f"cannot connect: {error}") from error
    if stream is None:
        raise ConnectTimeout(f"no connection within {timeout:g} s")
    return stream


@asynccontextmanager
async def owning(stream: trio.abc.Stream | None) -> AsyncGenerator[None]:
    """Close the stream if the block raises, also when it raises before taking over the stream."""
    try:
        yield
    except BaseException:
        if stream is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await trio.aclose_forcefully(stream)
        raise


async def register(
    link: Link[In], requests: Requests, metadata: dict[str, JSON], options: ConnectionOptions
) -> str | None:
    """Register with the server, and start the heartbeats.

    Args:
        link: Closed immediately, without a close handshake, if this fails.
        requests: The link's requests.
        metadata: The registration's metadata.
        options: The time that the registration may take, and the time between heartbeats.

    Returns:
        The server's time when it confirmed, as it sent it.

    Raises:
        RegistrationRejected: The server refused.
        ConnectTimeout: The server did not reply in time.
        ConnectFailed: The connection ended first, or the reply was broken.
    """
    timestamp: str | None = None
    try:
        with trio.move_on_after(options.register_timeout) as registering:
            timestamp = await requests.register(metadata)
        if registering.cancelled_caught:
            timeout = f"{options.register_timeout:g} s"
            raise ConnectTimeout(f"{link.peer} did not confirm the registration within {timeout}")
    except (ConnectionLost, InvalidMessage) as error:
        link.abort()
        raise ConnectFailed(f"could not register with {link.peer}: {error}") from error
    except BaseException:
        link.abort()
        raise
    logger.info("registered with %s", link.peer)
    link.memory.registered = True
    link.start_heartbeats(options.heartbeat_interval or HEARTBEAT_INTERVAL, requests.beat)
    return timestamp
