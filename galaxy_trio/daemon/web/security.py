"""Checks every request before it reaches a route: its host, its origin, its token and its size."""

from __future__ import annotations

import hmac
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._config.hosts import Host, parse_host, parse_host_name
from galaxy_trio._transport.interface import DAEMON, NO_WEBSOCKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY: Final = 2**20
"""Maximum bytes of a request's body, unless it is a graph."""
MAX_GRAPH_BODY: Final = 8 * 2**20
"""Maximum bytes of the body of a request that submits or edits a graph."""
_MAX_LARGE: Final = 2
"""The number of requests with more than `MAX_BODY` bytes that are in memory: parsed, they have ten times as many."""
MAX_HEADERS: Final = 16 * 1024
"""Maximum bytes of a request's target and headers."""
_BODY_TIMEOUT: Final = 30.0
"""Maximum seconds until the body has arrived."""
_MAX_PORT_DIGITS: Final = 5
_WRONG_PORT: Final = (
    "this is the HTTP port of a galaxy-trio daemon, which has no WebSockets: connect to the AIP server of its devices, "
    "by the server_url in its devices file"
)
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Added to every response that does not set them itself."""


class Refusal(Exception):
    """A request is refused.

    Args:
        status: The HTTP status of the response.
        reason: The reason, for the client.
        headers: Headers of the response.
    """

    def __init__(self, status: int, reason: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers


class Security:
    """ASGI middleware that refuses requests that are not allowed.

    Args:
        app: The application that gets the allowed requests.
        tokens: Returns the tokens that are valid now. Without any, every client that can connect is allowed.
        hosts: Returns the host names that are allowed now, in addition to ``localhost`` and IP addresses.
        open_paths: The paths that need no token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: Callable[[], Sequence[str]],
        hosts: Callable[[], Sequence[str]],
        open_paths: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._hosts = hosts
        self._open_paths = frozenset(open_paths)
        self._large = trio.CapacityLimiter(_MAX_LARGE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and pass it to the application."""
        if scope["type"] != "http":
            return
        send = _with_headers(send)
        async with AsyncExitStack() as stack:
            try:
                self._check(scope)
                body = await self._read_body(receive, _max_body(scope), stack)
            except Refusal as refusal:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_discard, receive)
                    await _answer(send, refusal)
                    nursery.cancel_scope.cancel()
                return
            await self._app(scope, _replay(body, receive), send)

    async def _read_body(self, receive: Receive, maximum: int, stack: AsyncExitStack) -> bytes:
        """Read a body. A large one takes one of few places, which it keeps until the stack is left."""
        body = bytearray()
        is_large = False
        with trio.move_on_after(_BODY_TIMEOUT):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Refusal(400, "the client closed the connection before the end of the request")
                body += message.get("body", b"")
                if len(body) > maximum:
                    raise _too_large(maximum)
                if len(body) > MAX_BODY and not is_large:
                    is_large = True
                    await stack.enter_async_context(self._large)
                if not message.get("more_body", False):
                    return bytes(body)
        raise Refusal(
            408,
            f"the request's body did not arrive within {_BODY_TIMEOUT:g} s, or other large requests took all places: retry later",
        )

    def _check(self, scope: Scope) -> None:
        if scope["http_version"] not in ("1.0", "1.1"):
            raise Refusal(505, "the daemon supports HTTP/1.1 only")
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        size = (
            len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) for name, value in headers)
        )
        if size > MAX_HEADERS:
            raise Refusal(431, f"the request's target and headers are larger than {MAX_HEADERS} bytes")
        if _first(headers, b"sec-websocket-key"):
            # Checked first: for such a client, the token and the host are not the problem.
            raise Refusal(NO_WEBSOCKETS, _WRONG_PORT, ((b"server", DAEMON),))
        self._check_origin(headers, self._check_host(headers), scope)
        needs_token = scope["path"] not in self._open_paths
        if needs_token:
            self._check_token(headers)
        if _check_content(headers, _max_body(scope)) and not needs_token:
            # Without a token, half a body would keep a connection's place.
            raise Refusal(400, f"a request for {scope['path']} has no body: send none")

    def _check_host(self, headers: list[tuple[bytes, bytes]]) -> Host:
        """Refuse host names that are not allowed, which protects against DNS rebinding. IP addresses cannot be rebound."""
        text = _only(headers, b"host")
        if text is None:
            raise Refusal(400, "the header Host is missing")
        host = parse_host(text)
        if host is None:
            raise Refusal(400, "the header Host is invalid: send a host name or an IP address, and a port")
        if not self._is_allowed(host):
            raise Refusal(421, "the name in the header Host is not allowed: add it to allowed_hosts in galaxy.toml")
        return host

    def _is_allowed(self, host: Host) -> bool:
        return host.is_ip_address or host.name == "localhost" or host.name in self._names()

    def _names(self) -> list[str]:
        return [name for name in map(parse_host_name, self._hosts()) if name is not None]

    def _check_origin(self, headers: list[tuple[bytes, bytes]], host: Host, scope: Scope) -> None:
        """Refuse requests that a page of another site makes through its visitor's browser."""
        origin = _only(headers, b"origin")
        if origin is not None and not any(own.is_origin(origin) for own in self._own_hosts(headers, host)):
            raise Refusal(
                403,
                f"requests from pages of other sites are refused: this page's origin is {origin:.200}. If it is the daemon's own, "
                "let the proxy pass on the header Host, or add the page's host to allowed_hosts in galaxy.toml",
            )
        site = _only(headers, b"sec-fetch-site")
        # Following a link from another site to the page is allowed.
        follows_link = (
            scope["method"] == "GET" and _only(headers, b"sec-fetch-mode") == "navigate" and scope["path"] == "/"
        )
        if site not in (None, "same-origin", "none") and not follows_link:
            raise Refusal(403, "requests from pages of other sites are refused")

    def _own_hosts(self, headers: list[tuple[bytes, bytes]], host: Host) -> Iterator[Host]:
        """The hosts by which a browser may know the daemon: the header ``Host``, what a proxy has put elsewhere, and the configured names.

        No page can add ``X-Forwarded-Host`` to a request for another site unless that site allows it.
        """
        hosts = [host, *map(Host, self._names())]
        forwarded = parse_host(_first(headers, b"x-forwarded-host"))
        if forwarded is not None and self._is_allowed(forwarded):
            hosts.append(forwarded)
        yield from hosts
        port = _first(headers, b"x-forwarded-port")
        if port.isascii() and port.isdecimal() and len(port) <= _MAX_PORT_DIGITS:
            yield from (Host(own.name, int(port)) for own in hosts if own.port is None)

    def _check_token(self, headers: list[tuple[bytes, bytes]]) -> None:
        tokens = self._tokens()
        if not tokens:
            return
        challenge = ((b"www-authenticate", b"Bearer"),)
        given = _only(headers, b"authorization")
        if given is None:
            raise Refusal(401, "a token is needed: send it as Authorization: Bearer TOKEN", challenge)
        scheme, _, credentials = given.partition(" ")
        sent = credentials.encode("latin-1")
        # All tokens are compared, each in constant time, so that the duration reveals nothing.
        matches = [hmac.compare_digest(sent, token.encode("latin-1")) for token in tokens]
        if scheme.lower() != "bearer" or not any(matches):
            raise Refusal(401, "the token is wrong", challenge)


def _only(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The value of a header that must not be repeated."""
    values = [value for key, value in headers if key.lower() == name]
    if len(values) > 1:
        raise Refusal(400, f"the header {name.decode().title()} is repeated: send it once")
    return values[0].decode("latin-1") if values else None


def _first(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """The value that the first of several proxies has given to a header; empty without one."""
    value = next((value for key, value in headers if key.lower() == name), b"")
    return value.decode("latin-1").partition(",")[0].strip()


def _max_body(scope: Scope) -> int:
    path: str = scope["path"]
    is_graph = (scope["method"] == "POST" and path == "/graphs") or (
        scope["method"] == "PATCH" and path.startswith("/graphs/")
    )
    return MAX_GRAPH_BODY if is_graph else MAX_BODY


def _too_large(maximum: int) -> Refusal:
    return Refusal(413, f"the request's body is larger than {maximum} bytes")


def _check_content(headers: list[tuple[bytes, bytes]], maximum: int) -> bool:
    """Check a body's size and type. Returns whether there is one."""
    length = _only(headers, b"content-length")
    if length is not None and int(length) > maximum:
        raise _too_large(maximum)
    encoding = _only(headers, b"transfer-encoding")
    if length is not None and encoding is not None:
        # Its end is ambiguous: a proxy in front of the daemon may see another one (request smuggling).
        raise Refusal(400, "the request has both Content-Length and Transfer-Encoding: send one of them")
    if length in (None, "0") and encoding is None:
        return False
    media_type = (_only(headers, b"content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(415, "the request's body is not declared as JSON: send it with Content-Type: application/json")
    return True


async def _discard(receive: Receive) -> None:
    """Drop the rest of a request: Hypercorn waits until each piece is received, even when it sends the end of the response."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns the body first, and later messages after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in _HEADERS if name not in present]
            message = {**message, "headers": headers}
        await send(message)

    return send_with_headers


async def _answer(send: Send, refusal: Refusal) -> None:
    body = json.dumps({"error": refusal.reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        # The rest of the request is not read.
        (b"connection", b"close"),
        *refusal.headers,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
