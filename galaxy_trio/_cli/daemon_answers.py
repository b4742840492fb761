"""What the daemon answers, and its address: read strictly, because another server may be there. Needs the extra ``daemon``."""

from __future__ import annotations

import ssl
from collections.abc import Mapping  # attrs reads annotations at run time
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs
import httpx2

from galaxy_trio._cli.daemon import ADDRESS_VARIABLE
from galaxy_trio._cli.daemon_reading import is_id, parse_json
from galaxy_trio._cli.daemon_refused import DaemonRefused
from galaxy_trio._cli.terminal import reason_of
from galaxy_trio._transport.url import shown_redirect
from galaxy_trio.daemon.settings import TOKEN_VARIABLE
from galaxy_trio.errors import (
    ConfigError,
    ConnectFailed,
    GraphFileError,
    NoSuchDevice,
    RequestRejected,
    RequestTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio.messages import JSON

_IN_EVERY: Final = {"/tasks": ("tasks", ("state", "request")), "/graphs": ("graphs", ("state", "created"))}
"""The name of a list, and the texts that each of its members has besides its id, by the beginning of a path."""


@attrs.frozen
class DaemonAddress:
    """The daemon's address, and how it is reached. Made by `parse_address`.

    Attributes:
        shown: The form that may be shown.
        base: The URL of its paths.
        socket: The path of its Unix socket; None if it has none.
        headers: Those of each request, with the token. Nothing is compressed, so that a limit of bytes is one of memory.
    """

    shown: str
    base: str = attrs.field(repr=False)
    socket: str | None
    headers: Mapping[str, str] = attrs.field(repr=False)

    def read(self, response: httpx2.Response, path: str, body: bytearray) -> JSON:
        """Return the JSON value in a response.

        Args:
            response: The response.
            path: The path that was asked for, below `base`.
            body: Its body.

        Raises:
            RequestRejected: The response is an error, or not JSON.
            GraphFileError: The daemon found problems in a graph.
            NoSuchDevice: No device can run the task.
        """
        self.refuse_redirect(response)
        if response.status_code == HTTPStatus.UPGRADE_REQUIRED:
            raise self.not_a_daemon(": it serves WebSockets, as an AIP server does; the daemon has a port of its own")
        status = response.status_code
        try:
            found = parse_json(body)
        except ValueError:
            found = None
            if response.is_success:
                raise self.not_a_daemon(f" (status {status})") from None
        if response.is_success:
            return found
        if not isinstance(found, dict) or "error" not in found:
            # A proxy may answer for a daemon that is away.
            raise DaemonRefused(str(self.not_a_daemon(f" (status {status})")), status)
        raise _refusal(path, status, str(found["error"]), found.get("problems"))

    def read_object(self, response: httpx2.Response, path: str, body: bytearray) -> dict[str, JSON]:
        """Return the object in a response, which has what every task or graph has.

        Raises:
            RequestRejected: As for `read`; or the server at this address is not a daemon.
        """
        found = self.read(response, path, body)
        if not isinstance(found, dict) or not _is_complete(response.request.method, path, found):
            raise self.not_a_daemon()
        return found

    def refuse_redirect(self, response: httpx2.Response) -> None:
        """Raise if a response is a redirect: its target may be another server, and the daemon redirects nothing."""
        if response.is_redirect:
            authorization = self.headers.get("Authorization", "")
            location = shown_redirect(
                str(response.request.url), response.headers.get("Location", ""), authorization.split()
            )
            where = "" if location is None else f" to {location}"
            raise self.not_a_daemon(f": it redirects{where} (status {response.status_code})")

    def not_a_daemon(self, what: str = "") -> RequestRejected:
        """Return the error for an answer that no daemon gives."""
        return RequestRejected(f"the server at {self.shown} is not a galaxy-trio daemon{what}")

    @contextmanager
    def reaching(self) -> Generator[None]:
        """Turn the errors of the HTTP library that the block raises into this package's.

        Raises:
            ConfigError: The address is invalid.
            ConnectFailed: Connecting failed, or the connection was lost.
            RequestTimeout: No response arrived in time.
        """
        try:
            yield
        except httpx2.TimeoutException:
            raise RequestTimeout(f"the daemon at {self.shown} did not respond in time") from None
        except httpx2.InvalidURL:
            raise _invalid_address() from None
        except httpx2.RequestError as error:
            raise ConnectFailed(
                f"cannot reach a daemon at {self.shown}: {_root_reason(error)}; "
                f"start it with galaxy-trio daemon, or give its address with --url or {ADDRESS_VARIABLE}"
            ) from None


def parse_address(address: str, token: str | None) -> DaemonAddress:
    """Parse a daemon's address.

    No error shows what else than scheme, host and port is in an HTTP address, because it may be secret.

    Args:
        address: ``http://HOST:PORT`` or ``unix:PATH``.
        token: The daemon's token; None if it has none.

    Raises:
        ConfigError: The address is invalid.
    """
    shown = _shown(address)
    if shown is None:
        raise _invalid_address()
    socket = address.removeprefix("unix:") if address.startswith("unix:") else None
    base = "http://localhost" if socket is not None else address
    headers = {"Accept-Encoding": "identity"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    return DaemonAddress(shown, base, socket, headers)


def _invalid_address() -> ConfigError:
    return ConfigError(
        f"what --url or {ADDRESS_VARIABLE} gives is not a daemon's address: use http://HOST:PORT or unix:PATH, "
        f"and {TOKEN_VARIABLE} or --token-file for a token"
    )


def _refusal(path: str, status: int, why: str, problems: JSON) -> Exception:
    if status == HTTPStatus.UNPROCESSABLE_ENTITY and isinstance(problems, list):
        return GraphFileError(f"the daemon refused: {why}", problems=map(str, problems))
    if status == HTTPStatus.UNPROCESSABLE_ENTITY and path.startswith("/tasks"):
        return NoSuchDevice(f"the daemon refused: {why}")
    hints: Mapping[int, str] = {
        HTTPStatus.UNAUTHORIZED: f" (set {TOKEN_VARIABLE} or use --token-file)",
        HTTPStatus.NOT_FOUND: " (galaxy-trio graph list shows the graphs)"
        if why.startswith("there is no graph")
        else "",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: " (divide the plan, or pass large data as files)"
        if path == "/graphs"
        else "",
    }
    return DaemonRefused(f"the daemon refused: {why}{hints.get(status, '')}", status, why)


def _is_complete(method: str, path: str, found: Mapping[str, JSON]) -> bool:
    """Whether what is at a path has what every task or graph has, and is the one that was asked for."""
    kind = next((kind for kind in _IN_EVERY if path.startswith(kind)), None)
    if kind is None:
        return True
    name, texts = _IN_EVERY[kind]
    if method == "GET" and path != kind and path != f"{kind}/{found.get('id')}":
        return False
    members = found.get(name) if method == "GET" and path == kind else [found]
    return isinstance(members, list) and all(
        isinstance(member, dict)
        and is_id(member.get("id"))
        and all(isinstance(member.get(text), str) for text in texts)
        for member in members
    )


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
