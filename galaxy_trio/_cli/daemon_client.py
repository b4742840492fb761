"""How the command line asks the daemon: HTTP, over a port or a Unix socket. Needs the extra ``daemon``."""

from __future__ import annotations

from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

import httpx2

from galaxy_trio._cli.daemon import ADDRESS_VARIABLE, TOKEN_VARIABLE
from galaxy_trio._cli.destination import reason_of
from galaxy_trio.errors import ConfigError, ConnectFailed, RequestRejected, RequestTimeout

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from galaxy_trio.messages import JSON

_ANSWER_WITHIN: Final = 30.0


class DaemonClient:
    """Asks one daemon. Made by `open_client`."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def ask(
        self, method: str, path: str, *, params: Mapping[str, str | int | float] | None = None, json: JSON = None
    ) -> dict[str, JSON]:
        """Ask for an object.

        Raises:
            RequestRejected: The daemon refused, and says why; or it is none.
        """
        answer = self._object(self._client.request(method, path, params=params, json=json))
        if answer is None:
            raise _no_daemon(self._address)
        return answer

    @property
    def _address(self) -> str:
        return str(self._client.base_url)

    def _object(self, response: httpx2.Response) -> dict[str, JSON] | None:
        return _object(response, self._address)

    def read(self, path: str) -> JSON:
        """Whatever is there, as JSON."""
        response = self._client.get(path)
        if response.is_error:
            self._object(response)
        return cast("JSON", response.json())

    def events(self) -> Iterator[tuple[str, str]]:
        """The kind and the data of each event, until the daemon has gone."""
        with self._client.stream("GET", "/events", timeout=None) as response:
            if response.is_error:
                response.read()
                self._object(response)
            kind, data = "message", ""
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    data = value
                elif not line and data:
                    yield kind, data
                    kind, data = "message", ""


def _no_daemon(address: str, what: str = "") -> RequestRejected:
    return RequestRejected(f"what answers at {address} is no galaxy-trio daemon{what}", words="")


def _object(response: httpx2.Response, address: str) -> dict[str, JSON] | None:
    """The object that a response has, if it has one.

    Raises:
        RequestRejected: It is an error.
    """
    try:
        body = cast("object", response.json())
    except ValueError:
        body = None
    answer = cast("dict[str, JSON]", body) if isinstance(body, dict) else None
    if response.is_error:
        if answer is None or "error" not in answer:
            raise _no_daemon(address, f" (it said {response.status_code})")
        why = str(answer["error"])
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            why += f" (in {TOKEN_VARIABLE}, or with --token-file)"
        raise RequestRejected(f"the daemon refused: {why}", words=why)
    return answer


@contextmanager
def open_client(address: str, token: str | None, longest_wait: float) -> Generator[DaemonClient]:
    """Ask the daemon at an address for the length of the block; what goes wrong on the way is told in a sentence.

    Args:
        address: ``http://HOST:PORT``, or ``unix:PATH``.
        token: Which it wants; `None`: it wants none.
        longest_wait: Seconds that it is asked to wait at most.

    Raises:
        ConfigError: It is no address.
        ConnectFailed: Nobody answers there.
        RequestTimeout: The answer does not come.
    """
    if not _is_address(address):
        raise ConfigError(f"{address!r} is no address of a daemon: give http://HOST:PORT or unix:PATH")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    socket = address.removeprefix("unix:") if address.startswith("unix:") else None
    base = "http://localhost" if socket is not None else address
    timeout = httpx2.Timeout(_ANSWER_WITHIN, read=longest_wait + _ANSWER_WITHIN)
    try:
        transport = httpx2.HTTPTransport(uds=socket)
        with httpx2.Client(transport=transport, base_url=base, headers=headers, timeout=timeout) as client:
            yield DaemonClient(client)
    except httpx2.TimeoutException:
        raise RequestTimeout(f"the daemon at {address} does not answer") from None
    except httpx2.TransportError as error:
        raise ConnectFailed(
            f"no daemon answers at {address}: {_why(error)}; is it running? (galaxy-trio daemon, --url or {ADDRESS_VARIABLE})"
        ) from None


def _is_address(address: str) -> bool:
    if address.startswith("unix:"):
        return len(address) > len("unix:")
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _why(error: BaseException) -> str:
    """The reason at the bottom of it."""
    said = str(error)
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError):
            return reason_of(below)
        below = below.__cause__ or below.__context__
    return said
