"""What the rest of the package needs of a WebSocket, whichever library is behind it, and the words in which all of them say why it failed.

`transport.py` does it with trio-websocket, `websockets_transport.py` with the Sans-I/O protocol of websockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from wsproto.frame_protocol import CloseReason

from galaxy_trio.errors import ConnectFailed, HandshakeRejected, MessageTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from galaxy_trio.inbound import InboundWatch
    from galaxy_trio.url import Target

SWITCHING_PROTOCOLS: Final = 101
ABNORMAL: Final = 1006
"""The close code of an end without a close frame."""
LAST_WORDS: Final = 1.0
"""Seconds for what is said last to go out: why a handshake is rejected, why a WebSocket ends."""
_HINTS = {
    401: ": is the token right?",
    403: ": is the token right?",
    404: ": is the path of the URL right?",
    426: ": is it a WebSocket server?",
}


class TransportEnded(Exception):
    """The WebSocket has ended; why, in words, with the close code (1006 where there was no close frame)."""

    def __init__(self, reason: str, code: int, cause: Exception | None = None) -> None:
        super().__init__(reason, code)
        self.reason = reason
        self.code = code
        self.cause = cause


class WebSocket(Protocol):
    """One end of a WebSocket over a stream, which belongs to it.

    Its tasks are `run_writer` and one of `run_client` and `run_server`, which the owner runs in a nursery. One task receives.
    """

    async def run_client(
        self, target: Target, headers: list[tuple[bytes, bytes]], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Open the WebSocket as a client.

        Args:
            target: Whose host and resource are asked for.
            headers: Sent with the handshake.
            task_status: Told when the WebSocket is open.

        Raises:
            HandshakeRejected: The server answered with another status than 101.
            ConnectFailed: It gave no answer, or one that is no WebSocket's.
        """

    async def run_server(
        self, judge: Callable[[str, list[tuple[bytes, bytes]]], int], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Answer a client's handshake.

        Args:
            judge: Given the request's target with its query, and its headers, answers with the HTTP status: 101 to accept.
            task_status: Told when the WebSocket is open.

        Raises:
            ConnectFailed: The client was rejected, or did not ask for a WebSocket.
        """

    async def run_writer(self) -> None:
        """Write what is sent, for as long as the stream lives."""

    @property
    def is_open(self) -> bool:
        """Whether the WebSocket handshake has succeeded, however long ago."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether a message may be sent now, without waiting."""
        ...

    async def wait_for_room(self) -> None:
        """Return when a message may be sent, with no checkpoint since; or when nothing more can be. First come, first served."""

    async def wait_stuck(self, seconds: float) -> None:
        """Return when the send buffer has been above its high-water mark for so long without a break: the peer does not read."""

    def check_size(self, text: str) -> None:
        """Raise `MessageTooLarge` for a message above the limit."""

    def send_nowait(self, text: str) -> None:
        """Send a message: whole, in one step. Never blocks; who waits for room first keeps what is held bounded."""

    def ping_nowait(self) -> None:
        """Send a WebSocket ping, ahead of what waits. The pong counts as something received, and is not waited for."""

    @property
    def bytes_held(self) -> int:
        """Bytes that were sent and are not yet written."""
        ...

    @property
    def last_received(self) -> float:
        """When any byte last came in, on trio's clock."""
        ...

    async def receive(self) -> str | bytes:
        """Receive the next message: text, or the bytes of a binary frame. Cancelling loses nothing.

        Raises:
            TransportEnded: The WebSocket has ended.
            trio.BusyResourceError: Another task is receiving. It goes on undisturbed.
        """
        ...

    async def aclose(self, code: int = CloseReason.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close in good order: write what was sent, say goodbye, wait for the answer. Cancelling closes at once."""

    async def abort(self) -> None:
        """Close the socket now, also under cancellation; only last words that explain it have a second to go out."""


def check_size(text: str, limit: int, peer: str) -> None:
    """Raise `MessageTooLarge` for a message of more bytes than the limit."""
    size = len(text) if text.isascii() else len(text.encode())
    if size > limit:
        raise MessageTooLarge(
            f"a message of {size} bytes to {peer} is above the limit of {limit}: nothing was sent; "
            "send less, or raise max_message_size at both ends"
        )


def is_hopeless(watch: InboundWatch) -> bool:
    """Whether the answer to a client's handshake can be no good any more, though it may go on."""
    return watch.violation is not None or watch.status_code not in (None, SWITCHING_PROTOCOLS)


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
