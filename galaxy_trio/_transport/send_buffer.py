"""A stream with a send buffer: sending is one step, and a task of its own writes the buffer.

A cancelled sender therefore never leaves half a frame on the wire, and the receiver never waits for a slow writer. The buffer is bounded:
senders of messages wait for room first; pongs and close frames are small and few, and never wait.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import trio

from galaxy_trio._concurrency.suspension import with_grace
from galaxy_trio._transport.direct_socket import DirectSocketStream
from galaxy_trio._transport.frames import LargeFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio._concurrency.memory_budget import MemoryShare
    from galaxy_trio._transport.inbound_limits import InboundWatch

logger: Final = logging.getLogger(__name__)

HIGH_WATER_MARK: Final = 2**20
"""The size of the send buffer, in bytes, from which senders wait. It holds at most the mark plus one message."""
_BATCH: Final = 64 * 1024
"""Bytes up to which small frames are joined, so that a burst of them takes one system call."""
_PASSES: Final = 8
"""The limit of scheduler passes for which the writer gathers frames while more arrive."""
_LAST_WORDS: Final = 1.0
"""Seconds to read the peer's last bytes after writing has failed, and to write the last frames before closing."""
_FORCED: Final = 1.0
"""Seconds that a forced close of the underlying stream may take."""

_PING, _PONG, _CLOSE = 0x89, 0x8A, 0x88
"""The first bytes of control frames. Handshakes are ASCII, so none begins with one of them."""


class BufferedStream(trio.abc.Stream):
    """A stream for a WebSocket: buffers outgoing frames, and enforces limits on incoming bytes.

    Args:
        stream: The underlying stream. This stream owns it from now on.
        watch: Parses the bytes that trio-websocket reads.
        memory: The connection's share of the memory budget.
        on_inbound: Called after each change of `watch` or `ended` during the handshake.
        on_close: Called when a graceful close begins, before the buffer is flushed.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        watch: InboundWatch,
        memory: MemoryShare,
        on_inbound: Callable[[], None],
        on_close: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._direct = stream if isinstance(stream, DirectSocketStream) else None
        self._on_close = on_close
        self._reading_over = False
        self._unread = memoryview(b"")
        self._left = trio.Event()
        self.is_left: bool = False
        """Whether reading has been left to trio-websocket."""
        self._watch = watch
        self._memory = memory
        self._reading_paused = False
        self._on_inbound = on_inbound
        self._frames: deque[bytes | bytearray | LargeFrame] = deque()
        self._ping: bytes | None = None
        self._pong: bytes | None = None
        self._is_frame_begun = False
        self._wake = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        # One task waits for room and the others wait for their turn. There may be very many, so each must cost little.
        self._room_is_awaited = False
        self._room_turn = trio.lowlevel.ParkingLot()
        self._flushed = trio.lowlevel.ParkingLot()
        self._full_since: float | None = None
        self._filled = trio.lowlevel.ParkingLot()
        self.bytes_held: int = 0
        """Bytes in the buffer that are not written yet."""
        self.write_failed: bool = False
        self.close_frame_taken: bool = False
        self.ended: trio.Event = trio.Event()
        """Set when nothing more can arrive: after the peer's end of stream, an error, or our own close."""
        self.end_cause: Exception | None = None
        self._arrival = trio.lowlevel.ParkingLot()
        self._last_received: float = trio.current_time()
        self.reads: int = 0
        """Number of reads that brought bytes."""

    @property
    def has_room(self) -> bool:
        """Whether a message may be appended now: there is room, and no task is waiting for it."""
        return self.bytes_held < HIGH_WATER_MARK and not self._room_is_awaited

    async def wait_for_room(self) -> None:
        """Wait until a message may be appended, or until nothing more can be sent. Callers wait in FIFO order.

        There is no checkpoint between having room and the return. Cancelling passes the turn to the next caller.
        """
        if self._room_is_awaited:
            await self._room_turn.park()
        self._room_is_awaited = True
        try:
            while self.bytes_held >= HIGH_WATER_MARK and not self.dead:
                await self._room.park()
        finally:
            if self._room_turn:
                self._room_turn.unpark()
            else:
                self._room_is_awaited = False

    async def wait_stuck(self, seconds: float) -> None:
        """Return when there has been no room for `seconds` without interruption, in which this process was not suspended."""
        granted = 0.0
        while self._full_since is None or trio.current_time() < max(granted, self._full_since + seconds):
            if self._full_since is None:
                await self._filled.park()
            else:
                until = max(granted, self._full_since + seconds)
                await trio.sleep_until(until)
                granted = with_grace(until)

    @property
    def dead(self) -> bool:
        """Whether nothing more can be sent."""
        return self.write_failed or self.ended.is_set()

    def append(self, frame: bytes | bytearray | LargeFrame, *, gather: bool = False) -> None:
        """Append a whole frame in one step. It is dropped if nothing more can be sent.

        If the buffer is empty and the socket accepts the frame, it is written in this step.

        Args:
            frame: The whole frame.
            gather: Leave writing to the writer task, because more frames are likely: one write takes them all.
        """
        if self.dead:
            return
        is_first = not self.bytes_held and self._ping is None and self._pong is None
        if (
            is_first
            and not gather
            and self._direct is not None
            and not isinstance(frame, LargeFrame)
            and len(frame) <= _BATCH
        ):
            written = self._direct.send_nowait(frame)
            if written == len(frame):
                return
            self._is_frame_begun = written > 0
            frame = frame[written:]
        self._frames.append(frame)
        self._hold(len(frame))
        # Checking for a waiter is faster than an unpark without one.
        if self._wake:
            self._wake.unpark()
        if self.bytes_held >= HIGH_WATER_MARK and self._full_since is None:
            self._full_since = trio.current_time()
            self._filled.unpark_all()

    def _hold(self, size: int) -> None:
        self.bytes_held += size
        self._memory.add(size)

    def append_ping(self, frame: bytes | bytearray) -> None:
        """Append a ping. It is written before waiting messages, and replaces an unwritten ping."""
        self._ping = bytes(frame)
        self._wake.unpark()

    def append_pong(self, frame: bytes | bytearray) -> None:
        """Append a pong. It replaces an unwritten pong: one answers all earlier pings, and a flood of pings cannot fill the buffer."""
        if not self.close_frame_taken:
            self._pong = bytes(frame)
            self._wake.unpark()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Append data from trio-websocket: a handshake, a pong or a close frame. Never waits; no checkpoint."""
        frame = bytes(data)
        if frame[0] == _PONG:
            self.append_pong(frame)
            return
        self.close_frame_taken |= frame[0] == _CLOSE
        self.append(frame)

    async def wait_send_all_might_not_block(self) -> None:
        """Return immediately, because sending never blocks."""

    async def run_writer(self) -> None:
        """Write the buffer to the stream until the stream ends."""
        gather = False
        try:
            while not self.ended.is_set():
                if not self._frames and self._pong is None and self._ping is None:
                    gather = False
                    await self._wake.park()
                    continue
                if gather:
                    # The stream may end during this, which clears the buffer.
                    gather = False
                    await self._let_frames_gather()
                    continue
                gather = True
                await self._write(self._next_batch())
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            logger.debug("writing failed: %s", error)
            self.write_failed = True
            self._die()
            # The peer may have sent the reason before it stopped reading.
            with trio.move_on_after(_LAST_WORDS):
                await self.ended.wait()
            await self.force_close()

    async def _let_frames_gather(self) -> None:
        for _ in range(_PASSES):
            count = len(self._frames)
            await trio.lowlevel.checkpoint()
            if len(self._frames) == count:
                break

    def _next_batch(self) -> bytes | bytearray | LargeFrame:
        """Remove and return whole frames: control frames first, then one large frame or as many small ones as fit.

        The rest of a partly written frame comes before all others.
        """
        batch = bytearray()
        if self._is_frame_begun:
            self._is_frame_begun = False
            # Only small frames are begun in `append`.
            batch += cast("bytes", self._frames.popleft())
        for control in (self._ping, self._pong):
            if control is not None:
                batch += control
                self._hold(len(control))
        self._ping = self._pong = None
        while (
            self._frames and not isinstance(first := self._frames[0], LargeFrame) and len(batch) + len(first) <= _BATCH
        ):
            batch += first
            self._frames.popleft()
        return batch or self._frames.popleft()

    async def _write(self, batch: bytes | bytearray | LargeFrame) -> None:
        if isinstance(batch, LargeFrame):
            for slice_ in batch.slices():
                await self._stream.send_all(slice_)
        else:
            await self._stream.send_all(batch)
        if self.dead:
            return
        self._hold(-len(batch))
        if self.bytes_held < HIGH_WATER_MARK:
            self._full_since = None
            self._room.unpark()
        if not self.bytes_held:
            self._flushed.unpark_all()

    async def flush(self) -> None:
        """Wait until the buffer is written, or cannot be written any more."""
        while (self.bytes_held or self._pong is not None) and not self.dead:
            await self._flushed.park()

    def _die(self) -> None:
        """Clear the buffer and wake all waiters, because nothing more can be sent."""
        self._frames.clear()
        self._hold(-self.bytes_held)
        self._room.unpark_all()
        self._room_turn.unpark_all()
        self._flushed.unpark_all()
        self._wake.unpark_all()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:  # noqa: ARG002
        """Receive bytes for trio-websocket: the handshake, and everything after `leave_to_library`, in portions that the watch gives.

        Bytes beyond the watch's limits are not passed on: the stream ends there.

        Raises:
            trio.BrokenResourceError: The stream broke, or the peer exceeded a limit.
            trio.ClosedResourceError: This side closed the stream.
        """
        if not self._watch.in_handshake:
            await self._left.wait()
        self._check_reading()
        self._memory.set_incoming(self._watch.incomplete)
        data = await self.receive_unread(self._watch.portion)
        if not data:
            return data
        self._check_reading()
        in_handshake = self._watch.in_handshake
        allowed = self._watch.feed(data)
        if in_handshake:
            self._on_inbound()
            self._check_reading()
        if allowed < len(data):
            if self._watch.violation is None:
                self._unread = memoryview(data)[allowed:]
            if not (data := data[:allowed]):
                raise trio.BrokenResourceError(self._watch.violation)
        return data

    async def receive_unread(self, max_bytes: int | None) -> bytes | bytearray:
        """Receive unread bytes from the underlying stream, without the watch. Cancelling loses nothing.

        Raises:
            trio.BrokenResourceError: The stream broke.
            trio.ClosedResourceError: This side closed the stream.
        """
        if self._unread:
            await trio.lowlevel.checkpoint()
            data: bytes | bytearray = bytes(self._unread[:max_bytes])
            self._unread = self._unread[len(data) :]
            return data
        if self._memory.has_too_much:
            await self._wait_while_too_much()
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(error)
            raise
        if data:
            self._last_received = trio.current_time()
            self.reads += 1
            if self._arrival:
                self._arrival.unpark_all()
        else:
            self._end(None)
        return data

    async def _wait_while_too_much(self) -> None:
        """Leave what the peer sends in the network while memory is short. This is not the peer's silence."""
        self._reading_paused = True
        try:
            await self._memory.wait_while_too_much()
        finally:
            self._reading_paused = False
            self._last_received = trio.current_time()

    @property
    def last_received(self) -> float:
        """The time of the last received byte, on trio's clock; now, while nothing is read."""
        return trio.current_time() if self._reading_paused else self._last_received

    @property
    def may_have_unread(self) -> bool:
        """Whether bytes may have arrived that were not read yet. True also if that cannot be known."""
        return self._direct is None or self._direct.has_unread()

    async def wait_received(self) -> bool:
        """Wait until bytes arrive, and return True. Returns False when no more can arrive."""
        if not self.ended.is_set():
            await self._arrival.park()
        return not self.ended.is_set()

    def leave_to_library(self, rest: bytes = b"") -> None:
        """Leave all further reading to trio-websocket, which begins with `rest`, the received start of a frame."""
        if rest:
            self._unread = memoryview(rest)
        self.is_left = True
        self._left.set()

    def stop_reading(self) -> None:
        """Discard everything that the peer still sends, because it violated the protocol."""
        self._reading_over = True

    def _check_reading(self) -> None:
        if self._reading_over or self._watch.violation is not None:
            raise trio.BrokenResourceError(self._watch.violation or "the peer broke the WebSocket protocol")

    def _end(self, cause: Exception | None) -> None:
        if not self.ended.is_set():
            self.end_cause = cause
            self.ended.set()
            self._arrival.unpark_all()
            self._die()
            self._on_inbound()

    async def aclose(self) -> None:
        """Flush the buffer, within a second, and close. Under cancellation, close immediately."""
        self._on_close()
        try:
            with trio.move_on_after(_LAST_WORDS):
                await self.flush()
        finally:
            await self.force_close()

    async def force_close(self) -> None:
        """Close the underlying stream now and drop the buffer, also under cancellation."""
        self._end(None)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FORCED):
            await trio.aclose_forcefully(self._stream)

    def free(self) -> None:
        """Free the bytes that were not read, after the end."""
        self._unread = memoryview(b"")
