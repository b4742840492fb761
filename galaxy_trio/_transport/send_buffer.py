"""A stream that takes what is sent in one step, and whose own task writes it.

A cancelled sender can thus never leave half a frame on the wire, and whoever reads from the peer never waits for a slow writer. What is
held is bounded: senders of messages wait for room first; pongs and close frames are small, few, and never wait.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._transport.direct_socket import DirectSocketStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio._transport.inbound_limits import InboundWatch

logger: Final = logging.getLogger(__name__)

HIGH_WATER_MARK: Final = 2**20
"""Bytes held from which on senders wait. At most the mark plus one message is held."""
_BATCH: Final = 64 * 1024
"""Small frames are joined up to this many bytes, so that a burst of them takes one system call."""
_SLICE: Final = 256 * 1024
"""Large frames are written in slices: TLS encrypts what it is given in one go."""
_PASSES: Final = 8
"""For how many scheduler passes the writer lets frames gather while they keep coming."""
_LAST_WORDS: Final = 1.0
"""Seconds for what the peer said last to be read after writing has failed, and for the last frames to be written before closing."""
_FORCED: Final = 1.0
"""Seconds that a forced close of the stream beneath may take."""

_PING, _PONG, _CLOSE = 0x89, 0x8A, 0x88
"""The first byte of a control frame. No handshake begins with one: they are ASCII."""


class BufferedStream(trio.abc.Stream):
    """A stream for a WebSocket: frames out through a buffer, bytes in under watch.

    Args:
        stream: The stream beneath. It belongs to this one from now on.
        watch: Told of what trio-websocket is given.
        on_inbound: Called after each change of `watch` or of `ended` during the handshake.
        on_close: Called when it is to be closed in good order, before what is taken is written.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        watch: InboundWatch,
        on_inbound: Callable[[], None],
        on_close: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._direct = stream if isinstance(stream, DirectSocketStream) else None
        self._on_close = on_close
        self._reading_over = False
        self._unread: bytes | bytearray = b""
        self._left = trio.Event()
        self.is_left: bool = False
        """Whether reading has been left to trio-websocket."""
        self._watch = watch
        self._on_inbound = on_inbound
        self._frames: deque[bytes | bytearray] = deque()
        self._ping: bytes | None = None
        self._pong: bytes | None = None
        self._is_frame_begun = False
        self._wake = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        # One waits for room, and the others for their turn to: there may be very many, so that what each takes counts.
        self._room_is_awaited = False
        self._room_turn = trio.lowlevel.ParkingLot()
        self._flushed = trio.lowlevel.ParkingLot()
        self._full_since: float | None = None
        self._filled = trio.lowlevel.ParkingLot()
        self.held: int = 0
        """Bytes that are taken and not yet written."""
        self.write_failed: bool = False
        self.close_frame_taken: bool = False
        self.ended: trio.Event = trio.Event()
        """Nothing more will come in: the peer's end of stream, an error, or a close of our own."""
        self.end_cause: Exception | None = None
        self._arrival = trio.lowlevel.ParkingLot()
        self.last_received: float = trio.current_time()
        """When bytes last came in, on trio's clock."""

    # ---- out

    @property
    def has_room(self) -> bool:
        """Whether a message may be appended now: there is room, and nobody has waited for it longer."""
        return self.held < HIGH_WATER_MARK and not self._room_is_awaited

    async def wait_for_room(self) -> None:
        """Return when a message may be appended, or when nothing more can be sent. First come, first served.

        There is no checkpoint between this one's turn and its return. Cancelling gives the turn to the next.
        """
        if self._room_is_awaited:
            await self._room_turn.park()
        self._room_is_awaited = True
        try:
            while self.held >= HIGH_WATER_MARK and not self.dead:
                await self._room.park()
        finally:
            if self._room_turn:
                self._room_turn.unpark()
            else:
                self._room_is_awaited = False

    async def wait_stuck(self, seconds: float) -> None:
        """Return when there has been no room for so long without a break."""
        while self._full_since is None or trio.current_time() < self._full_since + seconds:
            if self._full_since is None:
                await self._filled.park()
            else:
                await trio.sleep_until(self._full_since + seconds)

    @property
    def dead(self) -> bool:
        """Whether nothing more can be sent."""
        return self.write_failed or self.ended.is_set()

    def append(self, frame: bytes | bytearray, *, gather: bool = False) -> None:
        """Take a whole frame, in one step. When nothing more can be sent it is dropped.

        Where nothing else waits and the socket takes it, it is written in this step.

        Args:
            frame: The whole frame.
            gather: Leave it to the writer, because others are likely to come with it: one write takes them all.
        """
        if self.dead:
            return
        is_first = not self.held and self._ping is None and self._pong is None
        if is_first and not gather and self._direct is not None and len(frame) <= _BATCH:
            written = self._direct.send_nowait(frame)
            if written == len(frame):
                return
            self._is_frame_begun = written > 0
            frame = frame[written:]
        self._frames.append(frame)
        self.held += len(frame)
        # Waking nobody takes longer than to see that there is nobody.
        if self._wake:
            self._wake.unpark()
        if self.held >= HIGH_WATER_MARK and self._full_since is None:
            self._full_since = trio.current_time()
            self._filled.unpark_all()

    def append_ping(self, frame: bytes | bytearray) -> None:
        """Take a ping; it goes out before waiting messages, and instead of a ping that still waits."""
        self._ping = bytes(frame)
        self._wake.unpark()

    def append_pong(self, frame: bytes | bytearray) -> None:
        """Take a pong. One unsent is enough: it answers all pings before it, and a flood of pings cannot fill the buffer."""
        if not self.close_frame_taken:
            self._pong = bytes(frame)
            self._wake.unpark()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Take what trio-websocket sends: a handshake, a pong or a close frame. Never waits; no checkpoint."""
        frame = bytes(data)
        if frame[0] == _PONG:
            self.append_pong(frame)
            return
        self.close_frame_taken |= frame[0] == _CLOSE
        self.append(frame)

    async def wait_send_all_might_not_block(self) -> None:
        """Never blocks, for sending never does."""

    async def run_writer(self) -> None:
        """Write what is taken, for as long as the stream lives."""
        gather = False
        try:
            while not self.ended.is_set():
                if not self._frames and self._pong is None and self._ping is None:
                    gather = False
                    await self._wake.park()
                    continue
                if gather:
                    # The stream may end meanwhile, and let go of all there was.
                    gather = False
                    await self._let_frames_gather()
                    continue
                gather = True
                await self._write(self._next_batch())
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            logger.debug("writing failed: %s", error)
            self.write_failed = True
            self._die()
            # The peer may have said why before it stopped reading.
            with trio.move_on_after(_LAST_WORDS):
                await self.ended.wait()
            await self.force_close()

    async def _let_frames_gather(self) -> None:
        for _ in range(_PASSES):
            count = len(self._frames)
            await trio.lowlevel.checkpoint()
            if len(self._frames) == count:
                break

    def _next_batch(self) -> bytes | bytearray:
        """Whole frames only: control frames first, then one large frame or as many small ones as fit.

        A frame that was begun comes before all of them.
        """
        batch = bytearray()
        if self._is_frame_begun:
            self._is_frame_begun = False
            batch += self._frames.popleft()
        for control in (self._ping, self._pong):
            if control is not None:
                batch += control
                self.held += len(control)
        self._ping = self._pong = None
        while self._frames and len(batch) + len(self._frames[0]) <= _BATCH:
            batch += self._frames.popleft()
        return batch or self._frames.popleft()

    async def _write(self, batch: bytes | bytearray) -> None:
        if len(batch) <= _SLICE:
            await self._stream.send_all(batch)
        else:
            with memoryview(batch) as view:
                for start in range(0, len(batch), _SLICE):
                    await self._stream.send_all(view[start : start + _SLICE])
        self.held -= len(batch)
        if self.held < HIGH_WATER_MARK:
            self._full_since = None
            self._room.unpark()
        if not self.held:
            self._flushed.unpark_all()

    async def flush(self) -> None:
        """Wait until all that was taken is written, or cannot be."""
        while (self.held or self._pong is not None) and not self.dead:
            await self._flushed.park()

    def _die(self) -> None:
        """Nothing more can be sent: let go of what is held, and tell all who wait."""
        self._frames.clear()
        self._room.unpark_all()
        self._room_turn.unpark_all()
        self._flushed.unpark_all()
        self._wake.unpark_all()

    # ---- in

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What trio-websocket is to read: the handshake, and what comes after `leave_to_library`.

        Bytes beyond the watch's limits are not handed on: the stream ends there.

        Raises:
            trio.BrokenResourceError: The stream broke, or the peer went beyond a limit.
            trio.ClosedResourceError: The stream was closed by this side.
        """
        if not self._watch.in_handshake:
            await self._left.wait()
        self._check_reading()
        data = await self.receive_unread(max_bytes)
        if not data:
            return data
        self._check_reading()
        in_handshake = self._watch.in_handshake
        allowed = self._watch.feed(data)
        if in_handshake:
            self._on_inbound()
        if allowed < len(data):
            if self._watch.violation is None:
                self._unread = data[allowed:]
            data = data[:allowed]
            if not data:
                raise trio.BrokenResourceError(self._watch.violation)
        return data

    async def receive_unread(self, max_bytes: int | None) -> bytes | bytearray:
        """Receive from the stream beneath what nobody has read yet, past the watch. Cancelling loses nothing.

        Raises:
            trio.BrokenResourceError: The stream broke.
            trio.ClosedResourceError: The stream was closed by this side.
        """
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(error)
            raise
        if data:
            self.last_received = trio.current_time()
            if self._arrival:
                self._arrival.unpark_all()
        else:
            self._end(None)
        return data

    @property
    def may_have_unread(self) -> bool:
        """Whether something may have arrived that was not read yet: True also where that cannot be known."""
        return self._direct is None or self._direct.has_unread()

    async def wait_received(self) -> None:
        """Return when bytes next come in, or when none can come any more."""
        if not self.ended.is_set():
            await self._arrival.park()

    def leave_to_library(self, rest: bytes = b"") -> None:
        """Leave all further reading to trio-websocket. It begins with `rest`, the start of a frame that has been received."""
        if rest:
            self._unread = rest
        self.is_left = True
        self._left.set()

    def stop_reading(self) -> None:
        """The peer has broken the rules: nothing that it still sends is handed on."""
        self._reading_over = True

    def _check_reading(self) -> None:
        if self._reading_over or self._watch.violation is not None:
            raise trio.BrokenResourceError(self._watch.violation or "the peer has broken the protocol")

    def _end(self, cause: Exception | None) -> None:
        if not self.ended.is_set():
            self.end_cause = cause
            self.ended.set()
            self._arrival.unpark_all()
            self._die()
            self._on_inbound()

    async def aclose(self) -> None:
        """Write what is taken, within a second, and close. Under cancellation, close at once."""
        self._on_close()
        try:
            with trio.move_on_after(_LAST_WORDS):
                await self.flush()
        finally:
            await self.force_close()

    async def force_close(self) -> None:
        """Close the stream beneath now, whatever is unwritten; also under cancellation."""
        self._end(None)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FORCED):
            await trio.aclose_forcefully(self._stream)
