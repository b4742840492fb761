"""The interface between a WebSocket and the rest of the package. `transport.py` implements it with trio-websocket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from wsproto.frame_protocol import CloseReason

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from galaxy_trio._transport.url import Target

SWITCHING_PROTOCOLS: Final = 101
ABNORMAL: Final = 1006
"""The close code of an end without a close frame."""


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

    def send_nowait(self, text: str, *, gather: bool = False) -> None:
        """Send a message: whole, in one step. Never blocks; who waits for room first keeps what is held bounded.

        Args:
            text: The whole message.
            gather: Others are likely to be sent in the same step or the next: one write is to take them all.
        """

    def ping_nowait(self) -> None:
        """Send a WebSocket ping, ahead of what waits. The pong counts as something received, and is not waited for."""

    @property
    def bytes_held(self) -> int:
        """Bytes that were sent and are not yet written."""
        ...

    @property
    def may_have_unread(self) -> bool:
        """Whether something may have arrived that was not read yet: True also where that cannot be known."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether it is open, and nothing is unwritten, and neither an end nor a close frame has come in, even one not yet reported."""
        ...

    @property
    def last_received(self) -> float:
        """When any byte last came in, on trio's clock."""
        ...

    async def wait_received(self) -> None:
        """Return when bytes next come in, or when none can come any more."""

    async def receive(self) -> str | bytes:
        """Receive the next message: text, or the bytes of a binary frame. Cancelling loses nothing.

        Raises:
            TransportEnded: The WebSocket has ended.
            trio.BusyResourceError: Another task is receiving. It goes on undisturbed.
        """
        ...

    def receive_nowait(self) -> str | None:
        """Receive the next text that has come in already; None where `receive` is to be awaited, because other tasks have a turn, too.

        Raises:
            trio.BusyResourceError: Another task is receiving. It goes on undisturbed.
        """
        ...

    async def aclose(self, code: int = CloseReason.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close in good order: write what was sent, say goodbye, wait for the answer. Cancelling closes at once."""

    async def abort(self) -> None:
        """Close the socket now, also under cancellation; only last words that explain it have a second to go out."""
