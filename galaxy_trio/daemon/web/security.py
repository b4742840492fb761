"""Who may ask the daemon what: before a request reaches a route, it has shown that it may."""

from __future__ import annotations

import hmac
import ipaddress
import json
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY: Final = 2**20
"""Bytes that a request may have."""
MAX_HEADERS: Final = 16 * 1024
"""Bytes of a request's address and headers."""
_BODY_WITHIN: Final = 30.0
"""Seconds for it to come."""
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Of every response that does not say otherwise."""


class Refusal(Exception):
    """A request that goes no further.

    Args:
        status: Of HTTP.
        reason: For whoever sent it.
        headers: Of the response.
    """

    def __init__(self, status: int, reason: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers


class Security:
    """ASGI middleware that lets only those requests through that may go on.

    Args:
        app: What is behind it.
        tokens: Gives those that are right now; none: everybody who can connect may ask.
        hosts: By which names it may be called, beside ``localhost`` and IP addresses.
        open_paths: What can be had without a token.
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and pass it on."""
        if scope["type"] != "http":
            # There is no WebSocket here; Hypercorn answers one that ends without a word with a 500.
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_headers(send)
        try:
            self._check(scope)
            body = await _read_body(receive)
        except Refusal as refusal:
            await _answer(send, refusal)
            return
        await self._app(scope, _replay(body, receive), send)

    def _check(self, scope: Scope) -> None:
        if scope["http_version"] not in ("1.0", "1.1"):
            raise Refusal(505, "this is spoken in HTTP/1.1 here")
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        size = (
            len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) for name, value in headers)
        )
        if size > MAX_HEADERS:
            raise Refusal(431, f"a request's address and headers may have {MAX_HEADERS} bytes")
        host = _only(headers, b"host")
        self._check_host(host)
        _check_origin(headers, host, scope)
        if scope["path"] not in self._open_paths:
            self._check_token(headers)
        _check_content(headers)

    def _check_host(self, host: str | None) -> None:
        """A name that is none of ours is one that was made to lead here: DNS rebinding. An IP address cannot be."""
        if host is None:
            raise Refusal(400, "the header Host is missing")
        name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
        port = host[len(name) :]
        if port and not (port[0] == ":" and port[1:].isascii() and port[1:].isdecimal()):
            raise Refusal(400, "the header Host is no host")
        name = name.lower().removesuffix(".")
        if name == "localhost" or name in (allowed.lower() for allowed in self._hosts()):
            return
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise Refusal(
                421, "the daemon does not go by the name in the header Host: add it to allowed_hosts if it should"
            ) from None

    def _check_token(self, headers: list[tuple[bytes, bytes]]) -> None:
        tokens = self._tokens()
        if not tokens:
            return
        challenge = ((b"www-authenticate", b"Bearer"),)
        given = _only(headers, b"authorization")
        if given is None:
            raise Refusal(401, "a token is needed: give it as Authorization: Bearer TOKEN", challenge)
        scheme, _, token = given.partition(" ")
        sent = token.encode("latin-1")
        # All are compared, and each in constant time: how long this takes tells nothing.
        matches = [hmac.compare_digest(sent, right.encode("latin-1")) for right in tokens]
        if scheme.lower() != "bearer" or not any(matches):
            raise Refusal(401, "the token is not right", challenge)


def _only(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The value of a header that must not be there twice."""
    values = [value for key, value in headers if key.lower() == name]
    if len(values) > 1:
        raise Refusal(400, f"the header {name.decode().title()} is there more than once")
    return values[0].decode("latin-1") if values else None


def _check_origin(headers: list[tuple[bytes, bytes]], host: str | None, scope: Scope) -> None:
    """A page of another site must not act through its visitor's browser."""
    origin = _only(headers, b"origin")
    if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        raise Refusal(403, "requests of other sites' pages are refused")
    site = _only(headers, b"sec-fetch-site")
    # Whoever follows a link to the page comes from another site too.
    follows_link = scope["method"] == "GET" and _only(headers, b"sec-fetch-mode") == "navigate" and scope["path"] == "/"
    if site not in (None, "same-origin", "none") and not follows_link:
        raise Refusal(403, "requests of other sites' pages are refused")


def _check_content(headers: list[tuple[bytes, bytes]]) -> None:
    length = _only(headers, b"content-length")
    if length is not None and int(length) > MAX_BODY:
        raise Refusal(413, f"a request may have {MAX_BODY} bytes")
    encoding = _only(headers, b"transfer-encoding")
    if length is not None and encoding is not None:
        # Where it ends is a matter of opinion: a proxy before the daemon may have another.
        raise Refusal(400, "a request has a length or an encoding, and not both")
    if length in (None, "0") and encoding is None:
        return
    media_type = (_only(headers, b"content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(415, "a request's body is JSON: send it with Content-Type: application/json")


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    with trio.move_on_after(_BODY_WITHIN):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise Refusal(400, "the request has no end")
            body += message.get("body", b"")
            if len(body) > MAX_BODY:
                raise Refusal(413, f"a request may have {MAX_BODY} bytes")
            if not message.get("more_body", False):
                return bytes(body)
    raise Refusal(408, f"the request's body did not come within {_BODY_WITHIN:g} s")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body once, and then what comes."""
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
        # What it has not sent yet is not waited for.
        (b"connection", b"close"),
        *refusal.headers,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
