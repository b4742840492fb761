"""The interface between a WebSocket and the rest of the package. websocket.py implements it with trio-websocket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from wsproto.frame_protocol import CloseReason

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from galaxy_trio._concurrency.memory_budget import MemoryShare
    from galaxy_trio._transport.url import Target

SWITCHING_PROTOCOLS: Final = 101
REDIRECTS: Final = (301, 302, 303, 307, 308)
NO_WEBSOCKETS: Final = 501
"""The HTTP status of a server that has no WebSockets, such as the daemon."""
DAEMON: Final = b"galaxy-trio-daemon"
"""The ``Server`` header with which the daemon refuses a WebSocket handshake."""
ABNORMAL: Final = 1006
"""The close code of an end without a close frame."""


class TransportEnded(Exception):
    """The WebSocket has ended: the reason in words, and the close code, 1006 if there was no close frame."""

    def __init__(self, reason: str, code: int, cause: Exception | None = None) -> None:
        super().__init__(reason, code)
        self.reason = reason
        self.code = code
        self.cause = cause


class WebSocket(Protocol):
    """One end of a WebSocket over a stream, which it owns.

    The owner runs two tasks in a nursery: `run_writer`, and either `run_client` or `run_server`. Only one task receives.
    """

    @property
    def memory(self) -> MemoryShare:
        """The connection's share of the memory budget."""
        ...

    async def run_client(
        self, target: Target, headers: list[tuple[bytes, bytes]], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Open the WebSocket as a client.

        Args:
            target: The host and resource to request.
            headers: Sent with the handshake.
            task_status: Started when the WebSocket is open.

        Raises:
            HandshakeRejected: The server answered with a status other than 101.
            ConnectFailed: The server did not answer, or its answer is not a WebSocket handshake.
        """

    async def run_server(
        self, judge: Callable[[str, list[tuple[bytes, bytes]]], int], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Answer a client's handshake.

        Args:
            judge: Returns the HTTP status for a request's target, with its query, and its headers: 101 to accept.
            task_status: Started when the WebSocket is open.

        Raises:
            ConnectFailed: The client was rejected, or its request is not a WebSocket handshake.
        """

    async def run_writer(self) -> None:
        """Write the send buffer to the stream until the stream ends."""

    @property
    def is_open(self) -> bool:
        """Whether the WebSocket handshake has succeeded. Stays True after the end."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether a message can be sent now, without waiting."""
        ...

    async def wait_for_room(self) -> None:
        """Wait until a message can be sent, or until nothing more can be sent. Callers wait in FIFO order.

        There is no checkpoint between having room and the return.
        """

    async def wait_stuck(self, seconds: float) -> None:
        """Return when the send buffer has been above its high-water mark for `seconds` without interruption: the peer does not read."""

    def check_size(self, text: str) -> None:
        """Raise `MessageTooLarge` for a message above the limit."""

    def limit_received(self, size: int) -> None:
        """Change the limit of received messages to `size` bytes, for messages that have not begun."""

    def send_nowait(self, text: str, *, gather: bool = False) -> None:
        """Send a whole message in one step. Never blocks: callers bound the send buffer by waiting for room first.

        Args:
            text: The whole message.
            gather: Leave writing to the writer task, because more messages are likely in this step or the next: one write takes them all.
        """

    def ping_nowait(self) -> None:
        """Send a WebSocket ping before the waiting messages, without waiting for the pong, which counts as received bytes."""

    @property
    def bytes_held(self) -> int:
        """Bytes in the send buffer that are not written yet."""
        ...

    @property
    def may_have_unread(self) -> bool:
        """Whether bytes may have arrived that were not read yet. True also if that cannot be known."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether it is open, everything is written, and no end or close frame has arrived, not even an unreported one."""
        ...

    @property
    def last_received(self) -> float:
        """The time of the last received byte, on trio's clock."""
        ...

    @property
    def reads(self) -> int:
        """Number of reads that brought bytes."""
        ...

    async def wait_received(self) -> bool:
        """Wait until bytes arrive, and return True. Returns False when no more can arrive."""
        ...

    async def receive(self) -> str | bytes:
        """Receive the next message: text, or the bytes of a binary frame. Cancelling loses nothing.

        Raises:
            TransportEnded: The WebSocket has ended.
            trio.BusyResourceError: Another task is receiving. It is not affected.
        """
        ...

    def receive_nowait(self) -> str | None:
        """Receive the next text that has already arrived. None means: await `receive`, which lets other tasks run.

        Raises:
            trio.BusyResourceError: Another task is receiving. It is not affected.
        """
        ...

    async def aclose(self, code: int = CloseReason.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close gracefully: write the send buffer, send a close frame, wait for the reply. Cancelling closes immediately."""

    def send_close_nowait(self, code: int, reason: str) -> None:
        """Send a close frame that says why, and read nothing more. Call `abort` next."""

    async def abort(self) -> None:
        """Close the socket now, also under cancellation. Only a close frame that explains the end has a second to be written."""
