"""An HTTP client of the daemon for trio: it reads, and follows the events. Needs the extra ``daemon``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import httpx2
import trio

from galaxy_trio._cli.daemon_answers import EventReader, parse_address
from galaxy_trio.errors import ConnectFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from galaxy_trio._cli.daemon_answers import DaemonAddress, DaemonEvent
    from galaxy_trio.messages import JSON

_RESPONSE_TIMEOUT: Final = 30.0
"""Maximum seconds without a byte from the daemon, which sends a comment every 15 s."""


class EventStream:
    """The events of the daemon, as an asynchronous iterator. It ends when the daemon closes the stream."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self._reader = EventReader()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> DaemonEvent:
        async for line in self._lines:
            event = self._reader.read(line)
            if event is not None:
                return event
        raise StopAsyncIteration


class AsyncDaemonClient:
    """An HTTP client of one daemon, which sends the token to no other server. Made by `open_async_client`."""

    def __init__(self, client: httpx2.AsyncClient, address: DaemonAddress) -> None:
        self._client = client
        self._address = address
        self.shown: Final = address.shown
        """The daemon's address, in the form that may be shown."""

    async def get(self, path: str) -> dict[str, JSON]:
        """Return the object at a path. Cancelling is safe.

        Raises:
            RequestRejected: The daemon refused, with its reason; or the server at this address is not a daemon.
            ConnectFailed: Connecting failed, or the connection was lost.
            RequestTimeout: No response arrived in time.
        """
        with self._address.reaching():
            return self._address.read_object(await self._client.get(path), path)

    async def get_json(self, path: str, params: Mapping[str, str]) -> JSON:
        """Return any JSON value at a path; see `get`."""
        with self._address.reaching():
            return self._address.read(await self._client.get(path, params=params), path)

    @asynccontextmanager
    async def events(self, after: str | None) -> AsyncGenerator[EventStream]:
        """Open the stream of events for the duration of a block.

        Args:
            after: The id of the last event that was read: all later ones follow. None for those from now on.

        Raises:
            RequestRejected: As for `get`; so are the other errors. The block gets those of the connection as well.
        """
        headers = {} if after is None else {"Last-Event-ID": after}
        with self._address.reaching():
            async with self._client.stream("GET", "/events", headers=headers) as response:
                self._address.refuse_redirect(response)
                if response.is_error:
                    await response.aread()
                    self._address.read(response, "/events")
                try:
                    async with _open_lines(response) as lines:
                        yield EventStream(lines)
                except (httpx2.NetworkError, httpx2.RemoteProtocolError):
                    raise ConnectFailed(f"the daemon at {self.shown} closed the connection") from None


@asynccontextmanager
async def _open_lines(response: httpx2.Response) -> AsyncGenerator[AsyncIterator[str]]:
    """Read a response by lines in a block, at whose end all generators of the HTTP library end as well."""
    lines = response.aiter_lines()
    try:
        yield lines
    finally:
        # A generator within another one that is closed is left to the garbage collector. A read that is cancelled ends all.
        with trio.CancelScope() as scope:
            scope.cancel()
            async for _ in lines:
                pass


@asynccontextmanager
async def open_async_client(address: str, token: str | None) -> AsyncGenerator[AsyncDaemonClient]:
    """Open a client of the daemon at an address, for the duration of a block.

    Args:
        address: ``http://HOST:PORT`` or ``unix:PATH``.
        token: The daemon's token; None if it has none.

    Raises:
        ConfigError: The address is invalid.
    """
    parsed = parse_address(address, token)
    async with httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(uds=parsed.socket),
        base_url=parsed.base,
        headers=parsed.headers,
        timeout=_RESPONSE_TIMEOUT,
        follow_redirects=False,
        trust_env=False,
    ) as client:
        yield AsyncDaemonClient(client, parsed)
