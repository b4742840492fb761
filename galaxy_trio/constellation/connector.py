"""Opens the connections to one device: the supervised one, and those of its tasks."""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio._arguments import check_positive
from galaxy_trio._connection.client_link import open_given_stream, read_token
from galaxy_trio._connection.connection import open_connection
from galaxy_trio._connection.options import ConnectionOptions
from galaxy_trio._transport.url import parse_url
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.errors import ConfigError, ConnectTimeout

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator

    from galaxy_trio._connection.connection import Connection
    from galaxy_trio.constellation.tls_contexts import TlsContexts
    from galaxy_trio.events import Event

MAX_CONNECTING: Final = 10
"""Connections to one server that may be opening at a time."""


@attrs.frozen(kw_only=True)
class DeviceSettings:
    """Settings that all devices of a constellation share; see `open_constellation`."""

    client_name: str
    exclusive: bool
    connection: ConnectionOptions
    reconnect_delay: float
    abandon_timeout: float
    keepalive_expiry: float
    connect: Callable[[DeviceConfig], Awaitable[trio.abc.Stream]] | None
    random: Random | None

    def __attrs_post_init__(self) -> None:
        check_positive(reconnect_delay=self.reconnect_delay, abandon_timeout=self.abandon_timeout)
        if not self.keepalive_expiry >= 0:
            raise ConfigError(f"keepalive_expiry must be a number of seconds, not {self.keepalive_expiry!r}")
        if self.reconnect_delay == math.inf:
            raise ConfigError("reconnect_delay must be a finite number of seconds: a device would never reconnect")


class ConnectLimits:
    """Limits for opening connections, each shared by the devices of one server."""

    def __init__(self, limit: int = MAX_CONNECTING) -> None:
        self._limit = limit
        self._limiters: dict[tuple[str, int], trio.CapacityLimiter] = {}
        self._users: dict[tuple[str, int], int] = {}

    def acquire(self, url: str) -> trio.CapacityLimiter:
        """Return the limiter of a URL's server for one more device, until `release`."""
        server = _server_of(url)
        self._users[server] = self._users.get(server, 0) + 1
        return self._limiters.setdefault(server, trio.CapacityLimiter(self._limit))

    def release(self, url: str) -> None:
        """Release the limiter for one device. The limiter of a server without devices is dropped."""
        server = _server_of(url)
        self._users[server] -= 1
        if not self._users[server]:
            del self._users[server], self._limiters[server]


def _server_of(url: str) -> tuple[str, int]:
    target = parse_url(url, None)
    return target.host, target.port


class Connector:
    """Opens connections to a device.

    Args:
        config: The device's configuration.
        settings: The settings of all devices.
        limiter: Held while a connection is being opened.
        tls_contexts: The TLS contexts of the constellation.
    """

    def __init__(
        self,
        config: DeviceConfig,
        settings: DeviceSettings,
        limiter: trio.CapacityLimiter,
        tls_contexts: TlsContexts,
    ) -> None:
        self.config = config
        self.settings = settings
        self._limiter = limiter
        self._tls_contexts = tls_contexts
        self._name = f"{settings.client_name}-{secrets.token_hex(3)}"
        self._ssl_context: ssl.SSLContext | None = None

    @asynccontextmanager
    async def open(
        self, suffix: str = "", on_event: Callable[[Event], None] | None = None
    ) -> AsyncGenerator[Connection]:
        """Open a connection for the length of the block. Errors are those of `open_connection`.

        Args:
            suffix: Distinguishes the client id from that of the supervised connection, which has none.
            on_event: As for `open_connection`.
        """
        config, settings, options = self.config, self.settings, self.settings.connection
        # Connections of tasks always have fresh names: the server may not have noticed the end of an earlier one.
        name = settings.client_name if settings.exclusive and not suffix else f"{self._name}{suffix}"
        async with AsyncExitStack() as stack:
            async with self._limiter:
                token, context = await self._read_files(reload=not suffix)
                stream = None
                if settings.connect is not None:
                    stream = await open_given_stream(partial(settings.connect, config), options.connect_timeout)
                connection = await stack.enter_async_context(
                    open_connection(
                        config.server_url,
                        config.device_id,
                        client_name=settings.client_name,
                        client_id=f"{name}@{config.device_id}",
                        token=token,
                        headers=config.headers,
                        ssl_context=context,
                        stream=stream,
                        options=options,
                        on_event=on_event,
                    )
                )
            yield connection

    async def _read_files(self, *, reload: bool) -> tuple[str | None, ssl.SSLContext | None]:
        """Read the current token and the certificates. A file system that does not respond counts as a connect timeout."""
        timeout = self.settings.connection.connect_timeout
        with trio.move_on_after(timeout):
            return await self._read_token(), await self._get_ssl_context(reload=reload)
        raise ConnectTimeout(
            f"the token or the certificates of device {self.config.device_id!r} could not be read within {timeout:g} s"
        )

    async def _read_token(self) -> str | None:
        """Read the current token. Reading a file is retried, because the file may be about to be replaced."""
        if self.config.token_file is None:
            return self.config.read_token()
        return await read_token(self.config.read_token, self.settings.connection.connect_timeout)

    async def _get_ssl_context(self, *, reload: bool) -> ssl.SSLContext | None:
        """Load the TLS context for the supervised connection. Connections of tasks use the same one."""
        if not parse_url(self.config.server_url, None).secure:
            return None
        if reload or self._ssl_context is None:
            path = self.config.ca_file
            try:
                self._ssl_context = await self._tls_contexts.context(path)
            except ConfigError as error:
                raise ConfigError(f"device {self.config.device_id!r}: {error}") from error
        return self._ssl_context
