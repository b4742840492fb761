"""The errors of a WebSocket: a failed handshake, or an end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

from galaxy_trio._transport.interface import ABNORMAL, SWITCHING_PROTOCOLS, TransportEnded
from galaxy_trio.errors import ConnectFailed, HandshakeRejected

if TYPE_CHECKING:
    from galaxy_trio._transport.inbound_limits import InboundWatch

_HINTS = {
    401: ": is the token right?",
    403: ": is the token right?",
    404: ": is the path of the URL right?",
    426: ": is it a WebSocket server?",
}

_FAULTS = (
    "Bad accept token",
    "Bad HTTP message",
    "Missing header, 'Connection: Upgrade'",
    "Missing header, 'Upgrade: websocket'",
    "unrecognized extension",
    "unrecognized subprotocol",
)


def handshake_error(watch: InboundWatch, peer: str, fault: str | None) -> ConnectFailed:
    """Make the error for a client's failed handshake.

    Args:
        watch: Has parsed the server's answer.
        peer: The server's name.
        fault: The error in the answer in the library's words, empty if it has none; None if the library found no error.
    """
    status = watch.status_code
    if status not in (None, 0, SWITCHING_PROTOCOLS):
        hint = _HINTS.get(status, "")
        return HandshakeRejected(
            f"{peer} answered the WebSocket handshake with HTTP status {status}{hint}", status_code=status
        )
    if status == 0:
        problem = "the server does not speak HTTP"
    elif watch.violation:
        problem = f"it sent {watch.violation}"
    elif fault is not None:
        problem = "its answer breaks the WebSocket protocol" + (f": {fault}" if fault else "")
    else:
        problem = "it ended the connection during the handshake"
    return ConnectFailed(f"no WebSocket at {peer}: {problem}")


def client_rejected(peer: str, status: int | None) -> ConnectFailed:
    """Make the error for a server that opened no WebSocket.

    Args:
        peer: The client's name.
        status: The HTTP status of the rejection; None if the request was not a WebSocket handshake.
    """
    if status is None:
        return ConnectFailed(f"{peer} was rejected: its request is not a WebSocket handshake")
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
