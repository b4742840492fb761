"""A WebSocket over a trio stream, on trio-websocket. No other file imports it.

trio-websocket does the handshakes, closes, and reads rare frames. Text frames bypass it: outgoing ones are appended whole and in one step
to the send buffer of `BufferedStream`, incoming ones are read by `TextReceiver` until any other data frame arrives. This module handles
what trio-websocket does not: ends during the handshake, limits in bytes, errors of its reader, closing the socket.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, cast

import trio
import trio_websocket
from wsproto.frame_protocol import CloseReason, FrameProtocol
from wsproto.utilities import ProtocolError

from galaxy_trio._arguments import MEMORY_BUDGET
from galaxy_trio._concurrency.background import first_leaf
from galaxy_trio._concurrency.memory_budget import MemoryBudget, MemoryShare
from galaxy_trio._transport.frames import TextFrames, sending_frame
from galaxy_trio._transport.inbound_limits import InboundWatch
from galaxy_trio._transport.interface import ABNORMAL, SWITCHING_PROTOCOLS, TransportEnded
from galaxy_trio._transport.send_buffer import BufferedStream
from galaxy_trio._transport.text_receiver import TextReceiver
from galaxy_trio._transport.websocket_errors import (
    USE_A_WEBSOCKET,
    broke_off,
    client_rejected,
    closed_by_peer,
    closed_by_us,
    fault_in,
    handshake_error,
    is_other_http,
    is_rejection,
    too_much,
)
from galaxy_trio.errors import MessageTooLarge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from galaxy_trio._transport.url import Target

logger: Final = logging.getLogger(__name__)

_LAST_WORDS: Final = 1.0
"""Seconds to send the final data: the rejection of a handshake, or the close frame that explains an end."""


class TrioWebSocket:
    """One end of a WebSocket over a stream: implements `WebSocket`.

    The owner runs two tasks in a nursery: `run_writer`, and either `run_client` or `run_server`. Only one task receives.

    Args:
        stream: The stream. The WebSocket owns it from now on.
        peer: The name of the other end, for error messages.
        client: Whether this is the client's end, which masks its frames.
        max_message_size: The limit of a message in bytes, in both directions.
        memory: The connection's share of a memory budget; by default it has a budget to itself.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        peer: str,
        client: bool,
        max_message_size: int,
        memory: MemoryShare | None = None,
    ) -> None:
        self._peer = peer
        self._max_message_size = max_message_size
        self._watch = InboundWatch(max_message_size)
        self.memory = memory or MemoryBudget(MEMORY_BUDGET).open_share()
        """The connection's share of the memory budget."""
        self._stream = BufferedStream(stream, self._watch, self.memory, self._on_inbound, self._on_close)
        self._frames = FrameProtocol(client=client, extensions=[])
        self._websocket: trio_websocket.WebSocketConnection | None = None
        self.is_open: bool = False
        """Whether the WebSocket handshake has succeeded. Stays True after the end."""
        self._opening: trio.CancelScope | None = None
        self._reader_done = trio.Event()
        self._reader_error: Exception | None = None
        self._receiving = False
        self._text_frames = TextFrames(max_message_size, masked=not client)
        self._texts = TextReceiver(self._stream, self._text_frames, self._frames, self.memory)
        self._closing = False
        self._last_words = False

    async def run_client(
        self,
        target: Target,
        headers: list[tuple[bytes, bytes]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Open a WebSocket as a client, then read until it ends.

        Args:
            target: The host and resource to request.
            headers: Sent with the handshake.
            task_status: Started when the WebSocket is open.

        Raises:
            HandshakeRejected: The server answered with a status other than 101.
            ConnectFailed: The server did not answer, or its answer is not a WebSocket handshake.
        """

        async def shake_hands(nursery: trio.Nursery) -> trio_websocket.WebSocketConnection:
            return await trio_websocket.wrap_client_stream(
                nursery,
                # Typed for sockets, but it accepts any stream.
                cast("trio.SocketStream", self._stream),
                target.host_header,
                target.resource,
                extra_headers=headers,
                max_message_size=self._max_message_size,
            )

        await self._run(shake_hands, task_status)
        if not self.is_open:
            # Not chained to the library's error: it quotes the server's answer, which may quote the URL with its token.
            fault = None if self._reader_error is None else fault_in(self._reader_error)
            raise handshake_error(self._watch, target, headers, fault) from self._stream.end_cause

    async def run_server(
        self,
        judge: Callable[[str, list[tuple[bytes, bytes]]], int],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer a client's handshake, then read until the WebSocket ends.

        Args:
            judge: Returns the HTTP status for a request's target, with its query, and its headers: 101 to accept.
            task_status: Started when the WebSocket is open.

        Raises:
            ConnectFailed: The client was rejected, or its request is not a WebSocket handshake.
        """
        rejected: int | None = None

        async def shake_hands(nursery: trio.Nursery) -> trio_websocket.WebSocketConnection | None:
            nonlocal rejected
            request = await trio_websocket.wrap_server_stream(
                nursery,
                self._stream,
                max_message_size=self._max_message_size,
            )
            # trio-websocket removes the host from the headers.
            host = self._watch.headers.get(b"host")
            hosts = [] if host is None else [(b"host", host)]
            status = judge(request.path, [*hosts, *request.headers])
            if status != SWITCHING_PROTOCOLS:
                rejected = status
                await request.reject(status)
                return None
            return await request.accept()

        await self._run(shake_hands, task_status)
        if not self.is_open:
            with trio.move_on_after(_LAST_WORDS):
                await self._stream.flush()
            raise client_rejected(self._peer, self._watch, rejected, self._stream.end_cause) from self._reader_error

    async def _run(
        self,
        shake_hands: Callable[[trio.Nursery], Awaitable[trio_websocket.WebSocketConnection | None]],
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Run the handshake and trio-websocket's reader in a nursery of their own, which separates its errors from ours."""
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
                    self.is_open = True
                    task_status.started()
        except* Exception as group:  # noqa: BLE001  # classified below; bugs are raised again
            # After our close has begun, trio-websocket raises for a ping or an end that crosses it. That is not an error here.
            if not self._closing:
                self._reader_error = error = cast("Exception", first_leaf(group))
                bug = error if self.is_open and not isinstance(error, ProtocolError) else None
        finally:
            self._reader_done.set()
        if bug is not None:
            raise bug

    def _on_inbound(self) -> None:
        """End the handshake when it cannot succeed any more: trio-websocket would keep waiting."""
        if self._opening is None:
            return
        rejected = is_rejection(self._watch) if self._frames.client else is_other_http(self._watch)
        if rejected and not self._frames.client:
            self._stream.append(USE_A_WEBSOCKET)
            self._stream.stop_reading()
        if rejected or self._watch.violation is not None or self._stream.ended.is_set():
            self._opening.cancel()

    @property
    def has_room(self) -> bool:
        """Whether a message can be sent now, without waiting."""
        return self._stream.has_room

    async def wait_for_room(self) -> None:
        """Wait for room, in FIFO order; see `WebSocket.wait_for_room`."""
        await self._stream.wait_for_room()

    async def wait_stuck(self, seconds: float) -> None:
        """Return when the send buffer has been above its high-water mark for `seconds` without interruption."""
        await self._stream.wait_stuck(seconds)

    def check_size(self, text: str) -> None:
        """Raise `MessageTooLarge` for a message above the limit."""
        size = len(text) if text.isascii() else len(text.encode())
        if size > self._max_message_size:
            raise MessageTooLarge(
                f"a message of {size} bytes to {self._peer} is above the limit of {self._max_message_size}: nothing was sent; "
                "send less, or raise max_message_size at both ends"
            )

    def limit_received(self, size: int) -> None:
        """Change the limit of received messages to `size` bytes, for messages that have not begun."""
        self._watch.max_message_size = size
        self._text_frames.max_message_size = size

    def send_nowait(self, text: str, *, gather: bool = False) -> None:
        """Send a whole message in one step; see `WebSocket.send_nowait`."""
        # Gather the replies to messages that arrived together.
        gather = gather or self._stream.is_left or self._text_frames.has_unread
        self._stream.append(sending_frame(text, masked=self._frames.client), gather=gather)

    def ping_nowait(self) -> None:
        """Send a WebSocket ping before the waiting messages, without waiting for the pong."""
        self._stream.append_ping(self._frames.ping())

    @property
    def bytes_held(self) -> int:
        """Bytes in the send buffer that are not written yet."""
        return self._stream.bytes_held

    async def run_writer(self) -> None:
        """Write the send buffer to the stream until the stream ends."""
        await self._stream.run_writer()

    @property
    def may_have_unread(self) -> bool:
        """Whether bytes may have arrived that were not read yet. True also if that cannot be known."""
        return self._stream.may_have_unread

    @property
    def is_idle(self) -> bool:
        """Whether it is open, everything is written, and no end or close frame has arrived, not even an unreported one."""
        # Every end is left to trio-websocket, which takes a few scheduler passes to report it.
        return self.is_open and not (self._stream.is_left or self._stream.dead or self._stream.bytes_held)

    @property
    def last_received(self) -> float:
        """The time of the last received byte, on trio's clock."""
        return self._stream.last_received

    @property
    def reads(self) -> int:
        """Number of reads that brought bytes."""
        return self._stream.reads

    async def wait_received(self) -> bool:
        """Wait until bytes arrive, and return True. Returns False when no more can arrive."""
        return await self._stream.wait_received()

    async def receive(self) -> str | bytes:
        """Receive the next message: text, or the bytes of a binary frame. Cancelling loses nothing.

        Raises:
            TransportEnded: The WebSocket has ended.
            trio.BusyResourceError: Another task is receiving. It is not affected.
        """
        self._check_receiving()
        websocket = self._websocket
        if websocket is None:
            raise closed_by_us() if self.is_open else TransportEnded("the WebSocket was never opened", ABNORMAL)
        self._receiving = True
        try:
            text = await self._texts.receive()
            return await websocket.get_message() if text is None else text
        except trio_websocket.ConnectionClosed:
            if websocket.closed is None:
                # Its reader is crashing and has not raised yet.
                await self._reader_done.wait()
            ended = self._why_it_ended(websocket.closed)
        finally:
            self._receiving = False
            if self._closing:
                self._texts.leave_to_library()
        try:
            raise ended
        finally:
            # The exception refers to this frame. With the cycle, what has arrived of a message would stay until a garbage collection.
            del ended, websocket

    def receive_nowait(self) -> str | None:
        """Receive the next text that has already arrived; see `WebSocket.receive_nowait`."""
        self._check_receiving()
        return self._texts.receive_nowait()

    def _check_receiving(self) -> None:
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this connection: only one can")

    def _why_it_ended(self, closed: trio_websocket.CloseReason | None) -> TransportEnded:
        if self._closing:
            return closed_by_us()
        if self._watch.violation is not None:
            self._send_last_close(CloseReason.MESSAGE_TOO_BIG)
            return too_much(self._watch.violation)
        if self._reader_error is not None:
            if not isinstance(self._reader_error, ProtocolError):
                return TransportEnded("reading crashed", CloseReason.INTERNAL_ERROR, self._reader_error)
            self._send_last_close(CloseReason.PROTOCOL_ERROR)
            reason = f"the peer broke the WebSocket protocol: {self._reader_error}"
            return TransportEnded(reason, CloseReason.PROTOCOL_ERROR, self._reader_error)
        if closed is None or closed.code == ABNORMAL:
            return broke_off(self._stream.end_cause)
        if not self._stream.close_frame_taken:
            # Invalid bytes arrived instead of a close frame: trio-websocket stops there without sending a close frame.
            self._send_last_close(closed.code)
        return closed_by_peer(closed.code, closed.reason)

    def _send_last_close(self, code: int, reason: str | None = None) -> None:
        if not self._last_words:
            self._last_words = True
            self._stream.stop_reading()
            self._stream.append(self._frames.close(code, reason))

    def _on_close(self) -> None:
        """Send the close frame that trio-websocket omits when it closes a server's stream after a protocol error."""
        closed = None if self._websocket is None else self._websocket.closed
        if not self._closing and closed is not None and closed.code != ABNORMAL and not self._stream.close_frame_taken:
            self._send_last_close(closed.code)

    async def aclose(self, code: int = CloseReason.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close gracefully: write the send buffer, send a close frame, wait for the reply. Cancelling closes immediately."""
        self._closing = True
        try:
            if self._websocket is not None:
                await self._shake_hands_to_close(self._websocket, code, reason)
        finally:
            await self._stream.force_close()
            self._free()

    async def _shake_hands_to_close(
        self, websocket: trio_websocket.WebSocketConnection, code: int, reason: str
    ) -> None:
        if not self._receiving:
            # Without a receiving task, trio-websocket must read the reply.
            self._texts.leave_to_library()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._close_websocket, websocket, code, reason, nursery.cancel_scope)
            # A ping that crosses our close frame ends the reader, so the reply would never be read.
            await self._reader_done.wait()
            await self._stream.flush()
            nursery.cancel_scope.cancel()

    async def _close_websocket(
        self, websocket: trio_websocket.WebSocketConnection, code: int, reason: str, waiting: trio.CancelScope
    ) -> None:
        await websocket.aclose(code, reason or None)
        waiting.cancel()

    def send_close_nowait(self, code: int, reason: str) -> None:
        """Send a close frame that says why, and read nothing more. Call `abort` next."""
        if self.is_open:
            self._send_last_close(code, reason)

    async def abort(self) -> None:
        """Close the socket now, also under cancellation. Only a close frame that explains the end has a second to be written."""
        self._closing = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * _LAST_WORDS):
            if self._last_words:
                await self._stream.aclose()
            else:
                await self._stream.force_close()
        self._free()

    def _free(self) -> None:
        """Free what has arrived of messages. Reference cycles keep this object until the next garbage collection."""
        self._text_frames.rest()
        self._stream.free()
        self._websocket = None
