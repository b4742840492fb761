"""One connection that is registered as a device."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from galaxy_trio._arguments import MAX_ID, check_name
from galaxy_trio._codec.codec import decode_server_message, unstructure_device_info
from galaxy_trio._codec.strict_types import shorten
from galaxy_trio._concurrency import wall_clock
from galaxy_trio._connection.client_link import open_client_link, owning, register
from galaxy_trio._connection.options import ConnectionOptions
from galaxy_trio._connection.pending_replies import PendingReplies
from galaxy_trio._connection.requests import Identity, Requests
from galaxy_trio.messages import (
    JSON,
    ClientMessage,
    ClientType,
    DeviceInfo,
    ServerMessage,
    ServerMessageType,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Callable, Iterable

    import trio

    from galaxy_trio._concurrency.memory_budget import MemoryShare
    from galaxy_trio._connection.link import Link
    from galaxy_trio.errors import ConnectionLost, InvalidMessage

logger: Final = logging.getLogger(__name__)

_MAX_RECENT: Final = 100
"""Number of messages in `DeviceConnection.recent_messages`."""


class _DeviceReceiver:
    """Routes replies to their waiters and hands all other messages to the device."""

    def __init__(self, device_id: str) -> None:
        self.replies: PendingReplies = PendingReplies(device_id)
        self.messages: deque[ServerMessage] = deque(maxlen=_MAX_RECENT)
        self.hand_on: Callable[[ServerMessage], object] = self.messages.append
        self.hand_on_invalid: Callable[[InvalidMessage], object] | None = None

    def received(self, message: ServerMessage) -> None:
        if message.type is ServerMessageType.ERROR:
            # The error may be about command results, for which nothing waits here.
            logger.info("the server sent an error: %s", shorten(message.error))
        if message.type in (ServerMessageType.HEARTBEAT, ServerMessageType.ERROR):
            self.replies.route(message)
        else:
            self.hand_on(message)

    def received_invalid(self, invalid: InvalidMessage) -> None:
        if self.hand_on_invalid is not None and invalid.type == ServerMessageType.COMMAND:
            self.hand_on_invalid(invalid)
        else:
            self.replies.route_invalid(invalid)

    def ended(self, error: Callable[[], Exception]) -> None:
        self.replies.close(error)


class DeviceConnection:
    """A device's connection to a server. Made by `open_device_connection`."""

    def __init__(self, link: Link[ServerMessage], receiver: _DeviceReceiver, device_id: str) -> None:
        self._link = link
        self._receiver = receiver
        self._device_id = device_id

    @property
    def device_id(self) -> str:
        """The name that the device is registered under."""
        return self._device_id

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, on either side."""
        return self._link.closed

    async def wait_closed(self) -> ConnectionLost | None:
        """Wait until the connection has ended. Cancelling is safe.

        Returns:
            Why the connection was lost; None if the block of `open_device_connection` has ended.
        """
        return await self._link.wait_closed()

    @property
    def recent_messages(self) -> list[ServerMessage]:
        """The last 100 messages for the device, oldest first; empty if `hand_on` was given."""
        return list(self._receiver.messages)

    async def send(self, message: ClientMessage) -> None:
        """Send a message once there is room for it. When cancelled, it was sent whole or not at all.

        Raises:
            InvalidMessage: The message cannot be written as JSON.
            MessageTooLarge: The message is above the limit.
            ConnectionLost: The connection ended first.
            trio.ClosedResourceError: The connection was closed on this side.
        """
        await self._link.send(message, _register_nothing)


def _register_nothing() -> None:
    """Register no reply: nothing waits for one."""


@asynccontextmanager
async def open_device_connection(
    url: str,
    device_id: str,
    *,
    system_info: DeviceInfo,
    token: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    ssl_context: ssl.SSLContext | None = None,
    stream: trio.abc.Stream | None = None,
    options: ConnectionOptions | None = None,
    hand_on: Callable[[ServerMessage], object] | None = None,
) -> AsyncGenerator[DeviceConnection]:
    """Register with a server as a device until the block ends.

    The arguments and errors are those of `open_connection`. Cancelling closes the socket immediately.

    Args:
        url: The server's URL.
        device_id: The name to register under.
        system_info: The machine's description for the server; see `collect_system_info`.
        token: The server's API key. It is never shown.
        headers: Sent with the handshake.
        ssl_context: For ``wss``, in place of the default.
        stream: Used in place of TCP.
        options: Timeouts and limits; see `ConnectionOptions` for the defaults.
        hand_on: Called with each message for the device as it is received; it must neither block nor raise. Without it, the last
            100 messages are in `DeviceConnection.recent_messages`.

    See "Registration" in docs/reference/wire.md.
    """
    async with connect_device(
        url,
        device_id,
        system_info=system_info,
        token=token,
        headers=headers,
        ssl_context=ssl_context,
        stream=stream,
        options=options or ConnectionOptions(),
        hand_on=None if hand_on is None else lambda message, _: hand_on(message),
    ) as connection:
        yield connection


@asynccontextmanager
async def connect_device(
    url: str,
    device_id: str,
    *,
    system_info: DeviceInfo,
    token: str | None,
    headers: Iterable[tuple[str, str]],
    ssl_context: ssl.SSLContext | None,
    stream: trio.abc.Stream | None,
    options: ConnectionOptions,
    hand_on: Callable[[ServerMessage, MemoryShare], object] | None,
    hand_on_invalid: Callable[[InvalidMessage], object] | None = None,
) -> AsyncGenerator[DeviceConnection]:
    """Do what `open_device_connection` does.

    `hand_on` gets the connection's memory share too, to count messages that wait. `hand_on_invalid` gets the error of each batch of
    commands that is invalid.
    """
    receiver = _DeviceReceiver(device_id)
    async with owning(stream):
        check_name("device_id", device_id, MAX_ID)
        async with open_client_link(
            url,
            receiver,
            decode_server_message,
            peer=f"the server of device {device_id!r}",
            token=token,
            headers=headers,
            ssl_context=ssl_context,
            stream=stream,
            options=options,
        ) as link:
            if hand_on is not None:
                receiver.hand_on = lambda message: hand_on(message, link.memory)
            receiver.hand_on_invalid = hand_on_invalid
            requests = Requests(link, receiver.replies, Identity(device_id, device_id, client_type=ClientType.DEVICE))
            metadata: dict[str, JSON] = {
                "registration_time": wall_clock.timestamp(),
                "platform": str(system_info.platform),
                "system_info": unstructure_device_info(system_info),
            }
            await register(link, requests, metadata, options)
            yield DeviceConnection(link, receiver, device_id)
