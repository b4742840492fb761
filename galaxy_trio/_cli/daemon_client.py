"""An HTTP client of the daemon, over TCP or a Unix socket. Needs the extra ``daemon``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import httpx2

from galaxy_trio._cli.daemon_answers import parse_address
from galaxy_trio._cli.daemon_reading import MAX_BODY, BodyReader, EventReader

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from galaxy_trio._cli.daemon_answers import DaemonAddress
    from galaxy_trio._cli.daemon_reading import DaemonEvent
    from galaxy_trio.messages import JSON

_RESPONSE_TIMEOUT: Final = 30.0
"""Maximum seconds without a byte from the daemon, apart from the time that it is asked to wait."""


class DaemonClient:
    """An HTTP client of one daemon, which sends the token to no other server. Made by `open_client`."""

    def __init__(self, client: httpx2.Client, address: DaemonAddress) -> None:
        self._client = client
        self._address = address
        self.shown: Final = address.shown
        """The daemon's address, in the form that may be shown."""

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | float] | None = None,
        json: JSON = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, JSON]:
        """Send a request and return the object in its response.

        Raises:
            RequestRejected: The daemon refused, with its reason; or the server at this address is not a daemon.
            GraphFileError: The daemon found problems in a graph.
            NoSuchDevice: No device can run the task.
            InvalidMessage: The response is larger than those of a daemon.
        """
        with self._client.stream(method, path, params=params, json=json, headers=headers) as response:
            return self._address.read_object(response, path, self._body(response, MAX_BODY))

    def get_json(self, path: str, *, limit: int = MAX_BODY) -> JSON:
        """Return the JSON value at a path.

        Args:
            path: A path of this daemon, as it stands in one of its responses.
            limit: The largest number of bytes that are read.

        Raises:
            RequestRejected: As for `request`; or `path` is a URL, which may lead to another server.
            InvalidMessage: As for `request`.
        """
        if not path.startswith("/") or path.startswith("//") or not path.isprintable():
            raise self._address.not_a_daemon(": it refers to a URL that is not a path of its own")
        with self._client.stream("GET", path) as response:
            return self._address.read(response, path, self._body(response, limit))

    def events(self) -> Iterator[DaemonEvent]:
        """Yield each event until the daemon closes the stream.

        Raises:
            RequestRejected: As for `request`.
            InvalidMessage: An event cannot be read.
        """
        # The daemon sends a comment every 15 s, so the client's timeout only ends a dead connection.
        with self._client.stream("GET", "/events") as response:
            if not response.is_success:
                self._address.read(response, "/events", self._body(response, MAX_BODY))
            reader = EventReader(self.shown)
            for data in response.iter_raw():
                for event in reader.feed(data):
                    if event.kind:
                        yield event

    def _body(self, response: httpx2.Response, limit: int) -> bytearray:
        reader = BodyReader(self.shown, limit)
        for data in response.iter_raw():
            reader.feed(data)
        return reader.body


@contextmanager
def open_client(address: str, token: str | None, longest_wait: float) -> Generator[DaemonClient]:
    """Open a client of the daemon at an address. The HTTP library's errors, also those that the block raises, become this package's.

    No error shows what else than scheme, host and port is in an HTTP address, because it may be secret.

    Args:
        address: ``http://HOST:PORT`` or ``unix:PATH``.
        token: The daemon's token; None if it has none.
        longest_wait: The longest time in seconds that a request asks the daemon to wait.

    Raises:
        ConfigError: The address is invalid.
        ConnectFailed: Connecting failed, or the connection was lost.
        RequestTimeout: No response arrived in time.
    """
    parsed = parse_address(address, token)
    timeout = httpx2.Timeout(_RESPONSE_TIMEOUT, read=longest_wait + _RESPONSE_TIMEOUT)
    with (
        parsed.reaching(),
        httpx2.Client(
            transport=httpx2.HTTPTransport(uds=parsed.socket),
            base_url=parsed.base,
            headers=parsed.headers,
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,
        ) as client,
    ):
        yield DaemonClient(client, parsed)
