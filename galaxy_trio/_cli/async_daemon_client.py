"""An HTTP client of the daemon for trio: it reads, and follows the events. Needs the extra ``daemon``."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import httpx2
import trio

from galaxy_trio._cli.daemon_answers import parse_address
from galaxy_trio._cli.daemon_reading import MAX_BODY, BodyReader, EventReader
from galaxy_trio.errors import ConnectFailed, RequestTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping

    from galaxy_trio._cli.daemon_answers import DaemonAddress
    from galaxy_trio._cli.daemon_reading import DaemonEvent
    from galaxy_trio.messages import JSON

_RESPONSE_TIMEOUT: Final = 30.0
"""Maximum seconds without a byte from the daemon, which sends a comment every 15 s."""
_REQUEST_TIMEOUT: Final = 120.0
"""Maximum seconds until an answer has arrived as a whole, or the stream of events is open: bytes that arrive one by one extend nothing."""


class EventStream:
    """The events of the daemon, as an asynchronous iterator. It ends when the daemon closes the stream."""

    def __init__(self, pieces: AsyncIterator[bytes], shown: str) -> None:
        self._pieces = pieces
        self._reader = EventReader(shown)
        # Those of one piece.
        self._arrived: deque[DaemonEvent] = deque()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> DaemonEvent:
        while not self._arrived:
            self._arrived.extend(self._reader.feed(await anext(self._pieces)))
        return self._arrived.popleft()


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
            RequestTimeout: The response did not arrive in time.
            InvalidMessage: The response is larger than those of a daemon.
        """
        response, body = await self._ask(path)
        return await trio.to_thread.run_sync(self._address.read_object, response, path, body)

    async def get_json(self, path: str, params: Mapping[str, str]) -> JSON:
        """Return any JSON value at a path; see `get`."""
        response, body = await self._ask(path, params)
        return await trio.to_thread.run_sync(self._address.read, response, path, body)

    async def _ask(self, path: str, params: Mapping[str, str] | None = None) -> tuple[httpx2.Response, bytearray]:
        with self._address.reaching(), self._in_time():
            async with self._client.stream("GET", path, params=params) as response:
                return response, await self._body(response)

    @asynccontextmanager
    async def events(self, after: str | None) -> AsyncGenerator[EventStream]:
        """Open the stream of events for the duration of a block. It ends when the daemon closes it.

        Args:
            after: The id of the last event that was read: all later ones follow. None for those from now on.

        Raises:
            RequestRejected: As for `get`; so are the other errors. The block gets those of the connection as well.
        """
        headers = {} if after is None else {"Last-Event-ID": after}
        request = self._client.build_request("GET", "/events", headers=headers)
        with self._address.reaching():
            with self._in_time():
                response = await self._client.send(request, stream=True)
            try:
                if not response.is_success:
                    with self._in_time():
                        self._address.read(response, "/events", await self._body(response))
                async with _open_pieces(response) as pieces:
                    yield EventStream(pieces, self.shown)
            except (httpx2.NetworkError, httpx2.RemoteProtocolError):
                raise ConnectFailed(f"the daemon at {self.shown} closed the connection") from None
            finally:
                await response.aclose()

    async def _body(self, response: httpx2.Response) -> bytearray:
        reader = BodyReader(self.shown, MAX_BODY)
        async with _open_pieces(response) as pieces:
            async for data in pieces:
                reader.feed(data)
        return reader.body

    @contextmanager
    def _in_time(self) -> Generator[None]:
        """Limit the time of the block.

        Raises:
            RequestTimeout: It is over.
        """
        with trio.move_on_after(_REQUEST_TIMEOUT) as scope:
            yield
        if scope.cancelled_caught:
            raise RequestTimeout(f"the daemon at {self.shown} did not respond in time")


@asynccontextmanager
async def _open_pieces(response: httpx2.Response) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Read a response in pieces in a block, at whose end all generators of the HTTP library end as well."""
    pieces = response.aiter_raw()
    try:
        yield pieces
    finally:
        # A generator within another one that is closed is left to the garbage collector. A read that is cancelled ends all.
        with trio.CancelScope() as scope:
            scope.cancel()
            async for _ in pieces:
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
