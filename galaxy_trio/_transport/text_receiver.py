"""Receives whole text frames from the stream, without trio-websocket, until any other data frame arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._transport.frames import NoMessage, Ping, TextFrames

if TYPE_CHECKING:
    from wsproto.frame_protocol import FrameProtocol

    from galaxy_trio._concurrency.memory_budget import MemoryShare
    from galaxy_trio._transport.send_buffer import BufferedStream

RECEIVE_BYTES: Final = 64 * 1024
"""Bytes per read. Above 128 KiB the allocator maps and unmaps memory for each read, which doubles the time of a read."""
_LARGE_RECEIVE_BYTES: Final = 2**20
"""Bytes per read within a large message: fewer scheduler passes. For small messages the memory would cost more than it saves."""
_FRAMES_PER_STEP: Final = 64
"""Frames that are read in one step, before other tasks can run."""


class TextReceiver:
    """Receives text messages, and answers the pings between them. Then it leaves all further reading to trio-websocket.

    Args:
        stream: The stream to receive from. Pongs are sent on it.
        frames: Parses the received bytes.
        protocol: Makes the pongs.
        memory: The connection's share of the memory budget.
    """

    def __init__(
        self, stream: BufferedStream, frames: TextFrames, protocol: FrameProtocol, memory: MemoryShare
    ) -> None:
        self._stream = stream
        self._frames = frames
        self._protocol = protocol
        self._memory = memory
        self._read_in_step = 0

    async def receive(self) -> str | None:
        """Return the next text message, or None once the peer has sent anything else."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._stream.is_left:
            if (text := self.receive_nowait()) is not None:
                return text
            if self._read_in_step >= _FRAMES_PER_STEP:
                self._read_in_step = 0
                await trio.lowlevel.checkpoint()
            elif not self._stream.is_left:
                self._read_in_step = 0
                await self._receive_more()
        return None

    def receive_nowait(self) -> str | None:
        """Return the next text that has arrived whole, up to the limit of frames per step."""
        while self._read_in_step < _FRAMES_PER_STEP and not self._stream.is_left:
            self._read_in_step += 1
            match self._frames.next():
                case str() as text:
                    return text
                case Ping(payload):
                    self._stream.append_pong(self._protocol.pong(payload))
                case NoMessage.MORE_NEEDED:
                    return None
                case NoMessage.LEFT:
                    self.leave_to_library()
                case _:
                    # A pong, which carries no information.
                    continue
        return None

    async def _receive_more(self) -> None:
        self._memory.set_incoming(self._frames.incomplete)
        size = max(RECEIVE_BYTES, min(_LARGE_RECEIVE_BYTES, self._frames.missing))
        try:
            data = await self._stream.receive_unread(size)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if data:
            self._frames.feed(data)
        else:
            # trio-websocket reads the end of the stream and reports it. A message that is incomplete then is of no use.
            self._frames.rest()
            self.leave_to_library()

    def leave_to_library(self) -> None:
        """Leave all further reading to trio-websocket, from the start of the current frame."""
        if not self._stream.is_left:
            self._stream.leave_to_library(self._frames.rest())
