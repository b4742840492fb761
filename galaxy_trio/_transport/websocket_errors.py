"""The errors of a WebSocket: a failed handshake, or an end."""

from __future__ import annotations

import re
import ssl
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

from galaxy_trio._concurrency import wall_clock
from galaxy_trio._transport.interface import (
    ABNORMAL,
    DAEMON,
    NO_WEBSOCKETS,
    REDIRECTS,
    SWITCHING_PROTOCOLS,
    TransportEnded,
)
from galaxy_trio._transport.url import bracketed, shown_redirect
from galaxy_trio.errors import ConnectFailed, HandshakeRejected

if TYPE_CHECKING:
    from collections.abc import Iterable

    from galaxy_trio._transport.inbound_limits import InboundWatch
    from galaxy_trio._transport.url import Target

_PATH: Final = "is the path of the URL right?"
_TOKEN: Final = "is the token right?"  # noqa: S105  # a question
_SERVER_FAILED: Final = "the server failed; its log may say why"
_GATEWAY: Final = "a proxy in front of the server cannot reach it; is the server running?"
_HINTS: Final = {
    **dict.fromkeys(REDIRECTS, "it redirects elsewhere; is the URL right?"),
    401: _TOKEN,
    403: _TOKEN,
    **dict.fromkeys((404, 405, 410), _PATH),
    407: "a proxy on the way requires user and password",
    421: "it does not serve this host name; is the URL right, and the name among the server's allowed hosts (--allow-host)?",
    426: "is it a WebSocket server?",
    429: "it has too many clients or requests",
    **dict.fromkeys((502, 504), _GATEWAY),
    NO_WEBSOCKETS: "it has no WebSockets; is it another web server's port?",
    503: "it is overloaded, or not ready",
}
_HINTS_BY_CLASS: Final = {
    2: f"is it a WebSocket server, and {_PATH}",
    4: "is the URL right?",
    5: _SERVER_FAILED,
}
_BAD_REQUEST: Final = 400
"""The usual answer to plain HTTP at a port for TLS."""
_DAEMON: Final = (
    "this is the HTTP port of a galaxy-trio daemon, which is no AIP server; use the URL of the AIP server, "
    "the server_url in the daemon's devices file"
)
_BUSY: Final = (429, 503)
_WITH_HEADERS: Final = (*REDIRECTS, *_BUSY, NO_WEBSOCKETS)
"""The statuses whose meaning is in the headers."""

_DIGITS: Final = re.compile(r"[0-9]{1,9}")

_EXPLANATION: Final = (
    b"This is an AIP server of galaxy_trio, which has no web pages. Connect device agents and clients to it by its URL, which begins with "
    b"ws:// or wss:// and usually ends with /ws. The web page and the HTTP interface belong to galaxy-trio daemon, on a port of its own.\n"
)
USE_A_WEBSOCKET: Final = (
    b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b" % (len(_EXPLANATION), _EXPLANATION)
)
"""A server's answer to a request that begins no WebSocket."""

_FAULTS = (
    "Bad accept token",
    "Bad HTTP message",
    "Missing header, 'Connection: Upgrade'",
    "Missing header, 'Upgrade: websocket'",
    "unrecognized extension",
    "unrecognized subprotocol",
)


def is_rejection(watch: InboundWatch) -> bool:
    """Whether a server's answer rejects the handshake. The first line is enough, unless the headers say what to do."""
    status = watch.status_code
    return status not in (None, SWITCHING_PROTOCOLS) and not (status in _WITH_HEADERS and watch.in_handshake)


def handshake_error(
    watch: InboundWatch, target: Target, headers: Iterable[tuple[bytes, bytes]], fault: str | None
) -> ConnectFailed:
    """Make the error for a client's failed handshake.

    Args:
        watch: Has parsed the server's answer.
        target: The URL that was requested.
        headers: The headers of the request, which the answer may quote.
        fault: The error in the answer in the library's words, empty if it has none; None if the library found no error.
    """
    status = watch.status_code
    if status not in (None, 0, SWITCHING_PROTOCOLS):
        return _rejection(status, watch, target, headers)
    if status == 0:
        problem = "the server does not speak HTTP"
    elif watch.violation:
        problem = f"it sent {watch.violation}"
    elif fault is not None:
        problem = "its answer breaks the WebSocket protocol" + (f": {fault}" if fault else "")
    else:
        problem = "it ended the connection during the handshake"
    if not status and not target.secure:
        problem += "; if it uses TLS, its URL begins with wss://"
    return ConnectFailed(f"no WebSocket at {target.shown}: {problem}")


def _rejection(
    status: int, watch: InboundWatch, target: Target, headers: Iterable[tuple[bytes, bytes]]
) -> HandshakeRejected:
    hint = _HINTS.get(status) or _HINTS_BY_CLASS.get(status // 100)
    retry_after = None
    if status == _BAD_REQUEST and not target.secure:
        hint = "is the URL right, and does it begin with wss:// if the server uses TLS?"
    if status in REDIRECTS:
        # Not followed: the token is for the server that was named.
        location = _shown_location(watch.headers.get(b"location", b""), target, headers)
        if location is not None:
            hint = f"it redirects to {location}; if that is the right server, use this URL"
    if status == NO_WEBSOCKETS and watch.headers.get(b"server", b"").strip() == DAEMON:
        hint = _DAEMON
    if status in _BUSY:
        retry_after = _seconds(watch.headers.get(b"retry-after", b"").decode("latin-1").strip())
        hint = f"{hint}; try again {'later' if retry_after is None else f'in {retry_after:.0f} s'}"
    reason = f": {hint}" if hint else ""
    return HandshakeRejected(
        f"{target.shown} answered the WebSocket handshake with HTTP status {status}{reason}",
        status_code=status,
        retry_after=retry_after,
    )


def _shown_location(location: bytes, target: Target, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the WebSocket URL that a server redirects to; None if there is none."""
    requested = f"{'https' if target.secure else 'http'}://{bracketed(target.host)}:{target.port}{target.resource}"
    secrets = [value for _, value in parse_qsl(urlsplit(target.resource).query)]
    secrets += [word.decode("latin-1") for _, value in headers for word in value.split()]
    shown = shown_redirect(requested, location.decode("latin-1"), secrets)
    return f"ws{shown.removeprefix('http')}" if shown and shown.startswith("http") else shown


def _seconds(retry_after: str) -> float | None:
    """Return the seconds of a ``Retry-After`` header, which is a number or a date; None if it is neither."""
    if _DIGITS.fullmatch(retry_after):
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if date.tzinfo is None:
        return None
    return max(0.0, (date - wall_clock.now()).total_seconds())


def is_other_http(watch: InboundWatch) -> bool:
    """Whether a client's request is whole and begins no WebSocket."""
    return not watch.in_handshake and watch.headers.get(b"upgrade", b"").strip().lower() != b"websocket"


def client_rejected(peer: str, watch: InboundWatch, status: int | None, cause: Exception | None) -> ConnectFailed:
    """Make the error for a server that opened no WebSocket.

    Args:
        peer: The client's name.
        watch: Has parsed the client's request.
        status: The HTTP status of the rejection; None if the request was not a WebSocket handshake.
        cause: The error of the stream.
    """
    if status is None:
        reason = "its request is not a WebSocket handshake"
        if watch.uses_tls:
            reason += ": it uses TLS, and this server does not; with this server, a URL begins with ws://"
        elif cause is not None and isinstance(cause.__cause__, ssl.SSLError):
            reason += ": its TLS handshake failed; with this server, a URL begins with wss://"
        return ConnectFailed(f"{peer} was rejected: {reason}")
    return ConnectFailed(f"{peer} was rejected with HTTP status {status}")


def closed_by_us() -> TransportEnded:
    """Report an end by this side."""
    return TransportEnded("closed by this side", CloseReason.NORMAL_CLOSURE)


def closed_by_peer(code: int, reason: str | None) -> TransportEnded:
    """Report an end by the peer's close frame."""
    words = f" {reason!r}" if reason else ""
    return TransportEnded(f"the WebSocket was closed with {code}, {_close_name(code)}{words}", code)


def broke_off(cause: Exception | None) -> TransportEnded:
    """Report the end of the stream without a close frame. `cause` is the error that broke the stream, if there was one."""
    if cause is None:
        return TransportEnded("the connection ended without a close", ABNORMAL)
    error = cause.__cause__ or cause
    words = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return TransportEnded(f"the connection broke: {words}", ABNORMAL, cause)


def too_much(violation: str) -> TransportEnded:
    """Report an end by this side because the peer exceeded a limit."""
    return TransportEnded(f"the peer sent {violation}", CloseReason.MESSAGE_TOO_BIG)


def _close_name(code: int) -> str:
    try:
        return CloseReason(code).name.lower().replace("_", " ")
    except ValueError:
        # Codes below 1000 and from 5000 are invalid on the wire: no library passes them on.
        return "rfc reserved" if code < 3000 else "iana reserved" if code < 4000 else "private reserved"


def fault_in(error: BaseException | None) -> str:
    """Return wsproto's description of a handshake error, without quotes of the peer, from the crash of trio-websocket's reader."""
    while error is not None and not isinstance(error, RemoteProtocolError):
        error = error.__context__
    return next((fault.lower() for fault in _FAULTS if str(error).startswith(fault)), "")
