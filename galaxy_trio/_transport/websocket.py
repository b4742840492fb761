"""A WebSocket: open it, send text, receive messages, close it. The one file that knows trio-websocket.

trio-websocket does the handshakes, closes, and reads what is rare. Text frames go round it: out whole and in one step, into the send
buffer of `BufferedStream`; in by way of `TextFrames`, for as long as nothing else comes. What it leaves open is closed here: endings
during the handshake, limits in bytes, errors of its reader, the socket.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, cast

import trio
import trio_websocket
from wsproto.frame_protocol import CloseReason, FrameProtocol
from wsproto.utilities import ProtocolError

from galaxy_trio._transport.frames import NoMessage, Ping, TextFrames, text_frame
from galaxy_trio._transport.inbound_limits import MAX_HEAD, InboundWatch
from galaxy_trio._transport.interface import ABNORMAL, SWITCHING_PROTOCOLS, TransportEnded
from galaxy_trio._transport.send_buffer import BufferedStream
from galaxy_trio._transport.websocket_errors import (
    broke_off,
    closed_by_peer,
    closed_by_us,
    fault_in,
    first_leaf,
    handshake_error,
    not_let_in,
    too_much,
)
from galaxy_trio.errors import MessageTooLarge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from galaxy_trio._transport.url import Target

logger: Final = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 64 * 1024
"""Bytes that are read at once. Above 128 KiB the allocator maps and unmaps memory for each read, which doubles what a read takes."""
_LIBRARY_RECEIVE_BYTES: Final = 2 * MAX_HEAD
"""What trio-websocket reads at once: more than a handshake may have, so that one that is too large is refused before it is parsed."""
_LARGE_RECEIVE_BYTES: Final = 2**20
"""For a message that is known to be large: fewer passes of the scheduler. For small ones the memory would cost more than it saves."""
_AT_ONCE: Final = 64
"""Frames that are read in one step, before other tasks have their turn."""
_LAST_WORDS: Final = 1.0
"""Seconds for the last data to be sent: why a handshake is rejected, why a WebSocket ends."""


class _Host(str):
    """A ``Host`` header, which is ASCII already: as IDNA, its port would count towards the 63 characters of a label."""

    __slots__ = ()

    def encode(self, encoding: str = "ascii", errors: str = "strict") -> bytes:
        del encoding
        return super().encode("ascii", errors)


class Transport:
    """One end of a WebSocket over a stream.

    Its tasks are `run_writer` and one of `run_client` and `run_server`, which the owner runs in a nursery. One task receives.

    Args:
        stream: Belongs to the transport from now on.
        peer: Who is at the other end, for error messages.
        client: Whether this is the client's end, which masks its frames.
        max_message_size: Bytes of a message, both ways.
    """

    def __init__(self, stream: trio.abc.Stream, *, peer: str, client: bool, max_message_size: int) -> None:
        self._peer = peer
        self._max_message_size = max_message_size
        self._watch = InboundWatch(max_message_size)
        self._stream = BufferedStream(stream, self._watch, self._on_inbound, self._on_close)
        self._frames = FrameProtocol(client=client, extensions=[])
        self._websocket: trio_websocket.WebSocketConnection | None = None
        self._opening: trio.CancelScope | None = None
        self._reader_done = trio.Event()
        self._reader_error: Exception | None = None
        self._receiving = False
        self._text_frames = TextFrames(max_message_size, masked=not client)
        self._read_at_once = 0
        self._closing = False
        self._last_words = False

    # ---- opening

    async def run_client(
        self,
        target: Target,
        headers: list[tuple[bytes, bytes]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Open a WebSocket as a client, then read until it ends.

        Args:
            target: Whose host and resource are asked for.
            headers: Sent with the handshake.
            task_status: Told when the WebSocket is open.

        Raises:
            HandshakeRejected: The server answered with another status than 101.
            ConnectFailed: It gave no answer, or one that is no WebSocket's.
        """

        async def shake_hands(nursery: trio.Nursery) -> trio_websocket.WebSocketConnection:
            return await trio_websocket.wrap_client_stream(
                nursery,
                # It is typed for sockets, and takes any stream.
                cast("trio.SocketStream", self._stream),
                _Host(target.host_header),
                target.resource,
                extra_headers=headers,
                max_message_size=self._max_message_size,
                receive_buffer_size=_LIBRARY_RECEIVE_BYTES,
            )

        await self._run(shake_hands, task_status)
        if self._websocket is None:
            # Not from what the library raised: it quotes the server's answer, which may quote the URL and the token in it.
            fault = None if self._reader_error is None else fault_in(self._reader_error)
            raise handshake_error(self._watch, self._peer, fault) from self._stream.end_cause

    async def run_server(
        self,
        judge: Callable[[str, list[tuple[bytes, bytes]]], int],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer a client's handshake, then read until the WebSocket ends.

        Args:
            judge: Given the request's target with its query, and its headers, answers with the HTTP status: 101 to accept.
            task_status: Told when the WebSocket is open.

        Raises:
            ConnectFailed: The client was rejected, or did not ask for a WebSocket.
        """
        rejected: int | None = None

        async def shake_hands(nursery: trio.Nursery) -> trio_websocket.WebSocketConnection | None:
            nonlocal rejected
            request = await trio_websocket.wrap_server_stream(
                nursery,
                self._stream,
                max_message_size=self._max_message_size,
                receive_buffer_size=_LIBRARY_RECEIVE_BYTES,
            )
            # trio-websocket keeps the host apart, and to itself.
            hosts = [] if self._watch.host is None else [(b"host", self._watch.host)]
            status = judge(request.path, [*hosts, *request.headers])
            if status != SWITCHING_PROTOCOLS:
                rejected = status
                await request.reject(status)
                with trio.move_on_after(_LAST_WORDS):
                    await self._stream.flush()
                return None
            return await request.accept()

        await self._run(shake_hands, task_status)
        if self._websocket is None:
            raise not_let_in(self._peer, rejected) from self._reader_error

    async def _run(
        self,
        shake_hands: Callable[[trio.Nursery], Awaitable[trio_websocket.WebSocketConnection | None]],
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Shake hands, then let trio-websocket's reader run in a nursery of its own, where its errors can be told from ours."""
        bug: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as self._opening:
                    self._on_inbound()
                    self._websocket = await shake_hands(nursery)
                self._opening = None
                if self._websocket is None:
                    nursery.cancel_scope.cancel()
                else:
                    task_status.started()
        except* Exception as group:  # noqa: BLE001  # told apart below; bugs are raised again
            # Once our close has begun, a ping or an end that crosses it is an error to trio-websocket, and none to us.
            if not self._closing:
                self._reader_error = error = first_leaf(group)
                bug = error if self._websocket is not None and not isinstance(error, ProtocolError) else None
        finally:
            self._reader_done.set()
        if bug is not None:
            raise bug

    def _on_inbound(self) -> None:
        """End the handshake when nothing good can come any more: trio-websocket itself would wait on."""
        if self._opening is None:
            return
        rejected = self._frames.client and self._watch.status_code not in (None, SWITCHING_PROTOCOLS)
        if rejected or self._watch.violation is not None or self._stream.ended.is_set():
            self._opening.cancel()

    @property
    def is_open(self) -> bool:
        """Whether the WebSocket handshake has succeeded, however long ago."""
        return self._websocket is not None

    # ---- sending

    @property
    def has_room(self) -> bool:
        """Whether a message may be sent now, without waiting."""
        return self._stream.has_room

    async def wait_for_room(self) -> None:
        """Return when a message may be sent, with no checkpoint since; or when nothing more can be. First come, first served."""
        await self._stream.wait_for_room()

    async def wait_stuck(self, seconds: float) -> None:
        """Return when the send buffer has been above its high-water mark for so long without a break: the peer does not read."""
        await self._stream.wait_stuck(seconds)

    def check_size(self, text: str) -> None:
        """Raise `MessageTooLarge` for a message above the limit."""
        size = len(text) if text.isascii() else len(text.encode())
        if size > self._max_message_size:
            raise MessageTooLarge(
                f"a message of {size} bytes to {self._peer} is above the limit of {self._max_message_size}: nothing was sent; "
                "send less, or raise max_message_size at both ends"
            )

    def send_nowait(self, text: str, *, gather: bool = False) -> None:
        """Send a message: whole, in one step; see `WebSocket.send_nowait`."""
        # Messages that came in together are answered together.
        gather = gather or self._stream.is_left or self._text_frames.has_unread
        self._stream.append(text_frame(text, masked=self._frames.client), gather=gather)

    def ping_nowait(self) -> None:
        """Send a WebSocket ping, ahead of what waits. The pong counts as something received, and is not waited for."""
        self._stream.append_ping(self._frames.ping())

    @property
    def bytes_held(self) -> int:
        """Bytes that were sent and are not yet written."""
        return self._stream.held

    async def run_writer(self) -> None:
        """Write what is sent, for as long as the stream lives."""
        await self._stream.run_writer()

    # ---- receiving

    @property
    def may_have_unread(self) -> bool:
        """Whether something may have arrived that was not read yet: True also where that cannot be known."""
        return self._stream.may_have_unread

    @property
    def is_idle(self) -> bool:
        """Whether it is open, and nothing is unwritten, and neither an end nor a close frame has come in, even one not yet reported."""
        # Whatever ends a WebSocket is left to trio-websocket, which takes a few scheduler passes to report it.
        return self._websocket is not None and not (self._stream.is_left or self._stream.dead or self._stream.held)

    @property
    def last_received(self) -> float:
        """When any byte last came in, on trio's clock."""
        return self._stream.last_received

    async def wait_received(self) -> None:
        """Return when bytes next come in, or when none can come any more."""
        await self._stream.wait_received()

    async def receive(self) -> str | bytes:
        """Receive the next message: text, or the bytes of a binary frame. Cancelling loses nothing.

        Raises:
            TransportEnded: The WebSocket has ended.
            trio.BusyResourceError: Another task is receiving. It goes on undisturbed.
        """
        self._check_receiving()
        if self._websocket is None:
            raise TransportEnded("the WebSocket was never opened", ABNORMAL)
        self._receiving = True
        try:
            text = await self._receive_text()
            return await self._websocket.get_message() if text is None else text
        except trio_websocket.ConnectionClosed:
            if self._websocket.closed is None:
                # Its reader is crashing, and has not said yet what with.
                await self._reader_done.wait()
            ended = self._why_it_ended(self._websocket.closed)
        finally:
            self._receiving = False
            if self._closing:
                self._leave_to_library()
        raise ended

    def receive_nowait(self) -> str | None:
        """Receive the next text that has come in already; see `WebSocket.receive_nowait`."""
        self._check_receiving()
        return self._next_text()

    def _check_receiving(self) -> None:
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this connection: there can be one")

    async def _receive_text(self) -> str | None:
        """The next text message, for as long as the peer sends nothing else; None from then on."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._stream.is_left:
            if (text := self._next_text()) is not None:
                return text
            if self._read_at_once >= _AT_ONCE:
                self._read_at_once = 0
                await trio.lowlevel.checkpoint()
            elif not self._stream.is_left:
                self._read_at_once = 0
                await self._receive_more()
        return None

    def _next_text(self) -> str | None:
        """The next text of what has come in, up to so many frames in one step."""
        while self._read_at_once < _AT_ONCE and not self._stream.is_left:
            self._read_at_once += 1
            match self._text_frames.next():
                case str() as text:
                    return text
                case Ping(payload):
                    self._stream.append_pong(self._frames.pong(payload))
                case NoMessage.MORE_NEEDED:
                    return None
                case NoMessage.LEFT:
                    self._leave_to_library()
                case _:
                    # A pong, which tells nobody anything.
                    continue
        return None

    async def _receive_more(self) -> None:
        size = max(RECEIVE_BYTES, min(_LARGE_RECEIVE_BYTES, self._text_frames.missing))
        try:
            data = await self._stream.receive_unread(size)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if data:
            self._text_frames.feed(data)
        else:
            # trio-websocket is to learn of the end, and tells.
            self._leave_to_library()

    def _leave_to_library(self) -> None:
        if not self._stream.is_left:
            self._stream.leave_to_library(self._text_frames.rest())

    def _why_it_ended(self, closed: trio_websocket.CloseReason | None) -> TransportEnded:
        if self._closing:
            return closed_by_us()
        if self._watch.violation is not None:
            self._say_last(CloseReason.MESSAGE_TOO_BIG)
            return too_much(self._watch.violation)
        if self._reader_error is not None:
            if not isinstance(self._reader_error, ProtocolError):
                return TransportEnded("reading crashed", CloseReason.INTERNAL_ERROR, self._reader_error)
            self._say_last(CloseReason.PROTOCOL_ERROR)
            reason = f"the peer broke the WebSocket protocol: {self._reader_error}"
            return TransportEnded(reason, CloseReason.PROTOCOL_ERROR, self._reader_error)
        if closed is None or closed.code == ABNORMAL:
            return broke_off(self._stream.end_cause)
        if not self._stream.close_frame_taken:
            # No close came, but what is no WebSocket frame: trio-websocket stops there and says nothing.
            self._say_last(closed.code)
        return closed_by_peer(closed.code, closed.reason)

    def _say_last(self, code: int) -> None:
        if not self._last_words:
            self._last_words = True
            self._stream.stop_reading()
            self._stream.append(self._frames.close(code))

    def _on_close(self) -> None:
        """trio-websocket closes a server's stream itself, and without a word when the client broke the protocol."""
        closed = None if self._websocket is None else self._websocket.closed
        if not self._closing and closed is not None and closed.code != ABNORMAL and not self._stream.close_frame_taken:
            self._say_last(closed.code)

    # ---- closing

    async def aclose(self, code: int = CloseReason.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close in good order: write what was sent, say goodbye, wait for the answer. Cancelling closes at once."""
        self._closing = True
        if self._websocket is not None:
            if not self._receiving:
                # Somebody has to read the answer.
                self._leave_to_library()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._say_goodbye, self._websocket, code, reason, nursery.cancel_scope)
                # A ping that crosses our close frame ends the reader, and nobody would hear the answer.
                await self._reader_done.wait()
                await self._stream.flush()
                nursery.cancel_scope.cancel()
        await self._stream.force_close()

    async def _say_goodbye(
        self, websocket: trio_websocket.WebSocketConnection, code: int, reason: str, waiting: trio.CancelScope
    ) -> None:
        await websocket.aclose(code, reason or None)
        waiting.cancel()

    async def abort(self) -> None:
        """Close the socket now, also under cancellation; only last words that explain it have a second to go out."""
        self._closing = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * _LAST_WORDS):
            if self._last_words:
                await self._stream.aclose()
            else:
                await self._stream.force_close()
