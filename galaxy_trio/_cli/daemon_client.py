"""An HTTP client of the daemon, over TCP or a Unix socket. Needs the extra ``daemon``."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

import httpx2

from galaxy_trio._cli.daemon import ADDRESS_VARIABLE
from galaxy_trio._cli.terminal import reason_of
from galaxy_trio._transport.url import shown_redirect
from galaxy_trio.daemon.settings import TOKEN_VARIABLE
from galaxy_trio.errors import ConfigError, ConnectFailed, NoSuchDevice, RequestRejected, RequestTimeout

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from galaxy_trio.messages import JSON

_IN_EVERY_TASK: Final = ("id", "state", "request")
_RESPONSE_TIMEOUT: Final = 30.0
"""Maximum seconds without a byte from the daemon, apart from the time that it is asked to wait."""


class DaemonClient:
    """An HTTP client of one daemon, which sends the token to no other server. Made by `open_client`."""

    def __init__(self, client: httpx2.Client, shown: str) -> None:
        self._client = client
        self.shown: Final = shown
        """The daemon's address, in the form that may be shown."""

    def request(
        self, method: str, path: str, *, params: Mapping[str, str | int | float] | None = None, json: JSON = None
    ) -> dict[str, JSON]:
        """Send a request and return the object in its response.

        Raises:
            RequestRejected: The daemon refused, with its reason; or the server at this address is not a daemon.
        """
        found = self._read(self._client.request(method, path, params=params, json=json))
        if not isinstance(found, dict) or (path.startswith("/tasks") and not _has_tasks(found)):
            raise self._not_a_daemon()
        return found

    def get_json(self, path: str) -> JSON:
        """Return the JSON value at a path.

        Args:
            path: A path of this daemon, as it stands in one of its responses.

        Raises:
            RequestRejected: As for `request`; or `path` is a URL, which may lead to another server.
        """
        if not path.startswith("/") or path.startswith("//") or not path.isprintable():
            raise self._not_a_daemon(": it refers to a URL that is not a path of its own")
        return self._read(self._client.get(path))

    def _read(self, response: httpx2.Response) -> JSON:
        """Return the JSON value in a response.

        Raises:
            RequestRejected: The response is an error, or not JSON.
        """
        self._refuse_redirect(response)
        if response.status_code == HTTPStatus.UPGRADE_REQUIRED:
            raise self._not_a_daemon(": it serves WebSockets, as an AIP server does; the daemon has a port of its own")
        try:
            body = cast("JSON", response.json())
        except (ValueError, RecursionError):
            raise self._not_a_daemon(f" (status {response.status_code})") from None
        if not response.is_error:
            return body
        if not isinstance(body, dict) or "error" not in body:
            raise self._not_a_daemon(f" (status {response.status_code})")
        why = str(body["error"])
        if response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
            raise NoSuchDevice(f"the daemon refused: {why}")
        hint = f" (set {TOKEN_VARIABLE} or use --token-file)" if response.status_code == HTTPStatus.UNAUTHORIZED else ""
        raise RequestRejected(f"the daemon refused: {why}{hint}", words=why)

    def _refuse_redirect(self, response: httpx2.Response) -> None:
        # Its target may be another server, and the daemon redirects nothing.
        if response.is_redirect:
            authorization = self._client.headers.get("Authorization", "")
            location = shown_redirect(
                str(response.request.url), response.headers.get("Location", ""), authorization.split()
            )
            where = "" if location is None else f" to {location}"
            raise self._not_a_daemon(f": it redirects{where} (status {response.status_code})")

    def _not_a_daemon(self, what: str = "") -> RequestRejected:
        return RequestRejected(f"the server at {self.shown} is not a galaxy-trio daemon{what}")

    def events(self) -> Iterator[tuple[str, str]]:
        """Yield the kind and the data of each event until the daemon closes the stream.

        Raises:
            RequestRejected: As for `request`.
        """
        # The daemon sends a comment every 15 s, so the client's timeout only ends a dead connection.
        with self._client.stream("GET", "/events") as response:
            self._refuse_redirect(response)
            if response.is_error:
                response.read()
                self._read(response)
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


def _has_tasks(found: Mapping[str, JSON]) -> bool:
    """Whether a response is a task or a list of tasks, with what every task has."""
    tasks = found.get("tasks", [found])
    return isinstance(tasks, list) and all(
        isinstance(task, dict) and all(isinstance(task.get(name), str) for name in _IN_EVERY_TASK) for task in tasks
    )


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
    invalid = ConfigError(
        f"what --url or {ADDRESS_VARIABLE} gives is not a daemon's address: use http://HOST:PORT or unix:PATH, "
        f"and {TOKEN_VARIABLE} or --token-file for a token"
    )
    shown = _shown(address)
    if shown is None:
        raise invalid
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    socket = address.removeprefix("unix:") if address.startswith("unix:") else None
    base = "http://localhost" if socket is not None else address
    timeout = httpx2.Timeout(_RESPONSE_TIMEOUT, read=longest_wait + _RESPONSE_TIMEOUT)
    try:
        transport = httpx2.HTTPTransport(uds=socket)
        with httpx2.Client(
            transport=transport,
            base_url=base,
            headers=headers,
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,
        ) as client:
            yield DaemonClient(client, shown)
    except httpx2.TimeoutException:
        raise RequestTimeout(f"the daemon at {shown} did not respond in time") from None
    except httpx2.InvalidURL:
        raise invalid from None
    except httpx2.RequestError as error:
        raise ConnectFailed(
            f"cannot reach a daemon at {shown}: {_root_reason(error)}; "
            f"start it with galaxy-trio daemon, or give its address with --url or {ADDRESS_VARIABLE}"
        ) from None


def _shown(address: str) -> str | None:
    """Return an address in the form that may be shown; None if it is not a daemon's, or contains a password."""
    if address.startswith("unix:"):
        # What follows a question mark may be a token.
        return address if len(address) > len("unix:") and "?" not in address else None
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    if not valid or "@" in parts.netloc or parts.query or parts.fragment:
        return None
    return f"{parts.scheme}://{parts.netloc}"


def _root_reason(error: BaseException) -> str:
    """Return the reason of the first operating system error among the causes, or else the error's own text."""
    if isinstance(error, httpx2.RemoteProtocolError):
        # Servers with TLS answer a client without TLS in many ways, or not at all.
        return f"{str(error).rstrip('.').lower()}; if it uses TLS, its address begins with https://"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "it does not use TLS, so its address begins with http://"
        if isinstance(cause, OSError):
            return reason_of(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error)
