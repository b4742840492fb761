"""The errors of a WebSocket: why its handshake failed, and why it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

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
    """Why a client's handshake failed.

    Args:
        watch: Has followed what came in.
        peer: Who answered.
        fault: What the library found wrong with the answer, which ends in a word of its own or not; None if it found nothing.
    """
    status = watch.status_code
    if status not in (None, 0, SWITCHING_PROTOCOLS):
        hint = _HINTS.get(status, "")
        return HandshakeRejected(
            f"{peer} answered the WebSocket handshake with HTTP status {status}{hint}", status_code=status
        )
    if status == 0:
        problem = "what answers there does not speak HTTP"
    elif watch.violation:
        problem = f"it sent {watch.violation}"
    elif fault is not None:
        problem = "its answer breaks the WebSocket protocol" + (f": {fault}" if fault else "")
    else:
        problem = "it ended the connection during the handshake"
    return ConnectFailed(f"no WebSocket at {peer}: {problem}")


def not_let_in(peer: str, rejected: int | None) -> ConnectFailed:
    """Why a server has not opened a WebSocket: the status with which it rejected the client, or None for what is no handshake."""
    problem = "its request is no WebSocket handshake" if rejected is None else f"answered with HTTP status {rejected}"
    return ConnectFailed(f"{peer} was not let in: {problem}")


def closed_by_us() -> TransportEnded:
    """The end that this side has made."""
    return TransportEnded("closed by this side", CloseReason.NORMAL_CLOSURE)


def closed_by_peer(code: int, reason: str | None) -> TransportEnded:
    """The end that a close frame made."""
    words = f" {reason!r}" if reason else ""
    return TransportEnded(f"the WebSocket was closed with {code}, {_close_name(code)}{words}", code)


def broke_off(cause: Exception | None) -> TransportEnded:
    """The end of the stream, without a close; `cause` is what it broke with, if it did."""
    if cause is None:
        return TransportEnded("the connection ended without a close", ABNORMAL)
    error = cause.__cause__ or cause
    words = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return TransportEnded(f"the connection broke: {words}", ABNORMAL, cause)


def too_much(violation: str) -> TransportEnded:
    """The end that this side makes of a peer that goes beyond a limit."""
    return TransportEnded(f"the peer sent {violation}", CloseReason.MESSAGE_TOO_BIG)


def _close_name(code: int) -> str:
    try:
        return CloseReason(code).name.lower().replace("_", " ")
    except ValueError:
        # Codes below 1000 and from 5000 on are not for the wire: no library hands them on.
        return "rfc reserved" if code < 3000 else "iana reserved" if code < 4000 else "private reserved"


def first_leaf(error: BaseException) -> Exception:
    """The first exception of a group, however deep."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return cast("Exception", error)


def fault_in(error: BaseException | None) -> str:
    """What wsproto found wrong with a handshake, in words of its own only. Reporting it, trio-websocket's reader crashes."""
    while error is not None and not isinstance(error, RemoteProtocolError):
        error = error.__context__
    return next((fault.lower() for fault in _FAULTS if str(error).startswith(fault)), "")
