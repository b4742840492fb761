"""A connection through an HTTP proxy: the CONNECT request and the proxy's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._transport.inbound_limits import MAX_HEAD, InboundWatch
from galaxy_trio._transport.interface import REDIRECTS
from galaxy_trio._transport.url import bracketed, shown_redirect
from galaxy_trio.errors import ConnectFailed

if TYPE_CHECKING:
    from galaxy_trio._transport.proxy import Proxy
    from galaxy_trio._transport.url import Target

_HINTS: Final = {
    **dict.fromkeys(REDIRECTS, "does it ask for a login in a browser?"),
    **dict.fromkeys((400, 404, 405, 501), "does it support the method CONNECT?"),
    403: "does it allow connections to this host and port? Its operator can tell",
    429: "it has too many requests; try again later",
    **dict.fromkeys((500, 502, 503, 504), "it cannot reach the server; is the server running, and is its URL right?"),
}
_CREDENTIALS: Final = (401, 407)
"""Tinyproxy answers wrong credentials with 401."""
_NEEDS_CREDENTIALS: Final = (
    "put user and password into its URL, as in http://user:password@host:port (Basic authentication)"
)
_WRONG_CREDENTIALS: Final = "are user and password in its URL right, and does it accept Basic authentication?"


async def connect_through(stream: trio.abc.Stream, proxy: Proxy, target: Target) -> None:
    """Ask a proxy to connect to a server. Afterwards the stream leads to the server. The proxy resolves the server's name.

    After an error or a cancellation the stream cannot be used any more.

    Raises:
        ConnectFailed: The proxy refused, ended the connection, or its answer cannot be used.
    """
    problem, cause = await _ask(stream, proxy, target)
    if problem:
        # The answer itself is not shown: it may quote the request with its credentials.
        raise ConnectFailed(
            f"no connection to {target.shown} through the proxy {proxy.shown}: {problem}", proxy=proxy.shown
        ) from cause


async def _ask(stream: trio.abc.Stream, proxy: Proxy, target: Target) -> tuple[str, Exception | None]:
    """Return the problem in words, empty if there is none, and its cause."""
    watch = InboundWatch(0)
    cause: Exception | None = None
    extra = False
    try:
        await stream.send_all(_request(proxy, target))
        while watch.in_handshake and not watch.violation and not _is_refusal(watch):
            data = await stream.receive_some(MAX_HEAD)
            if not data:
                break
            extra = watch.feed(data) < len(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        cause = error
    status = watch.status_code
    if status is not None and not 200 <= status < 300:
        return _refusal(status, watch, proxy), cause
    if watch.violation:
        return f"the proxy sent {watch.violation}", cause
    if watch.in_handshake:
        return "the proxy ended the connection before its answer was complete", cause
    if extra:
        # In TLS and in WebSockets, the server does not speak first.
        return "the proxy sent data after its answer; is it an HTTP proxy, or does a login page answer?", cause
    return "", cause


def _is_refusal(watch: InboundWatch) -> bool:
    """Whether the first line refuses. A redirect is read to the end of its headers, which say where to."""
    status = watch.status_code
    return status is not None and not 200 <= status < 300 and status not in REDIRECTS


def _request(proxy: Proxy, target: Target) -> bytes:
    authority = f"{bracketed(target.host)}:{target.port}".encode()
    lines = [b"CONNECT %s HTTP/1.1" % authority, b"Host: %s" % authority]
    if proxy.authorization is not None:
        lines.append(b"Proxy-Authorization: " + proxy.authorization)
    return b"\r\n".join([*lines, b"", b""])


def _refusal(status: int, watch: InboundWatch, proxy: Proxy) -> str:
    if status == 0:
        return "the proxy does not speak HTTP; is its URL right, and does it begin with https:// if the proxy uses TLS?"
    hint = _HINTS.get(status, "")
    if status in _CREDENTIALS:
        hint = _NEEDS_CREDENTIALS if proxy.authorization is None else _WRONG_CREDENTIALS
    if status in REDIRECTS:
        location = shown_redirect(proxy.shown, watch.headers.get(b"location", b"").decode("latin-1"), proxy.secrets)
        if location is not None:
            hint = f"it redirects to {location}; {hint}"
    return f"the proxy answered with HTTP status {status}" + (f": {hint}" if hint else "")
