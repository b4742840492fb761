"""What comes in on an open WebSocket, through the Sans-I/O protocol of websockets: bytes in; messages, answers and the end out. No I/O.

The protocol knows frames. Known here are messages, put together from fragments, and limits: frames are handed to the protocol by their
headers, so that none is waited for that is too large, and never more of them at once than other tasks can wait for. A text in one short
frame that has come in whole, which is nearly every message, is read here: the protocol would come to the same, in four times the time.
"""

from __future__ import annotations

import codecs
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import Side
from wsproto.frame_protocol import CloseReason

from galaxy_trio.text_frames import mask_payload
from galaxy_trio.websocket import TransportEnded, closed_by_peer, too_much

if TYPE_CHECKING:
    from websockets.protocol import Protocol

    from galaxy_trio.inbound import InboundWatch

_AT_ONCE: Final = 64
"""Frames that are read in one step, before other tasks have their turn."""

_TEXT: Final = 0x81
_LENGTH_OF_2_BYTES: Final = 126

_utf8 = codecs.getincrementaldecoder("utf-8")


class IncomingMessages:
    """Reads one end's frames.

    Args:
        protocol: Whose handshake is over. What it has to send is to be asked of it after each step.
        watch: Strict, and has followed the handshake.
        max_message_size: Bytes of a message.
    """

    def __init__(self, protocol: Protocol, watch: InboundWatch, max_message_size: int) -> None:
        self.protocol = protocol
        self._mask_bit, self._key_size = (0x80, 4) if protocol.side is Side.SERVER else (0, 0)
        self._max_message_size = max_message_size
        self._watch = watch
        self._data: bytes | bytearray = b""
        self._position = 0
        self._messages: deque[str | bytes] = deque()
        self._decoder = _utf8()
        self._is_text = False
        self._in_message = False
        self._texts: list[str] = []
        self._pieces: list[bytes] = []
        self.ended: TransportEnded | None = None
        """Why nothing more comes, after the messages that have."""
        self.close_with: int | None = None
        """With which code the peer is to be told of it, in place of what the protocol has to say; None when it has closed itself."""

    def feed(self, data: bytes | bytearray) -> None:
        """Take what has come in, when nothing is left of what came before."""
        self._data, self._position = data, 0

    @property
    def is_unread(self) -> bool:
        """Whether there is more to `step` through."""
        return self._position < len(self._data) and self.ended is None

    def step(self) -> None:
        """Read some frames."""
        at_most = _AT_ONCE
        if not (self._in_message or self._watch.in_frame):
            at_most -= self._read_texts(at_most)
        if at_most and self._position < len(self._data):
            self._read_frames(at_most)
        if self._position == len(self._data):
            self._data, self._position = b"", 0

    def _read_frames(self, at_most: int) -> None:
        start = self._position
        self._position = self._watch.follow_frames(self._data, start, at_most)
        # No copy of a large piece.
        whole = not start and self._position == len(self._data)
        self.protocol.receive_data(self._data if whole else self._data[start : self._position])
        for event in self.protocol.events_received():
            # Requests and responses come no more.
            frame = cast("Frame", event)
            self._take(frame)
            # The protocol's parser holds the frame until the next one comes.
            frame.data = b""
            if self.ended is not None:
                return
        self._look_for_end()

    def next(self) -> str | bytes | None:
        """The next message that has come in whole."""
        return self._messages.popleft() if self._messages else None

    def _read_texts(self, at_most: int) -> int:
        """Read texts of one whole and short frame each, up to the first other frame.

        Returns:
            How many.
        """
        data, position, end = self._data, self._position, len(self._data)
        count = 0
        while count < at_most and end - position > 1 and data[position] == _TEXT:
            start, length = position + 2, data[position + 1] ^ self._mask_bit
            if length == _LENGTH_OF_2_BYTES and end - position > 3:
                start, length = position + 4, data[position + 2] << 8 | data[position + 3]
                if length < _LENGTH_OF_2_BYTES:
                    break
            elif length >= _LENGTH_OF_2_BYTES:
                # A longer one, or one whose mask is not what it must be.
                break
            start += self._key_size
            stop = start + length
            if stop > end or length > self._max_message_size:
                break
            payload = data[start:stop]
            try:
                text = str(mask_payload(payload, data[start - 4 : start]) if self._key_size else payload, "utf-8")
            except UnicodeDecodeError:
                break
            self._messages.append(text)
            position = stop
            count += 1
        self._position = position
        return count

    def clear(self) -> None:
        """Drop the messages that have come in."""
        self._messages.clear()

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            self._is_text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return
        self._in_message = not frame.fin
        if not self._is_text:
            self._take_bytes(bytes(frame.data), last=frame.fin)
            return
        try:
            self._take_text(self._decoder.decode(frame.data, frame.fin), last=frame.fin)
        except UnicodeDecodeError as error:
            self._end(f"it sent a text that is no UTF-8: {error.reason}", CloseReason.INVALID_FRAME_PAYLOAD_DATA, error)

    def _take_text(self, piece: str, *, last: bool) -> None:
        if last and not self._texts:
            self._messages.append(piece)
        else:
            # Empty ones would take memory too.
            if piece:
                self._texts.append(piece)
            if last:
                self._messages.append("".join(self._texts))
                self._texts.clear()

    def _take_bytes(self, piece: bytes, *, last: bool) -> None:
        if piece:
            self._pieces.append(piece)
        if last:
            self._messages.append(b"".join(self._pieces))
            self._pieces.clear()

    def _look_for_end(self) -> None:
        """What the protocol has met comes first: it has not seen what the watch holds back."""
        close, error = self.protocol.close_rcvd, self.protocol.parser_exc
        if close is not None:
            self.ended = closed_by_peer(close.code, close.reason)
        elif isinstance(error, UnicodeDecodeError):
            self._end(
                f"the reason of its close is no UTF-8: {error.reason}", CloseReason.INVALID_FRAME_PAYLOAD_DATA, error
            )
        elif isinstance(error, ProtocolError):
            self._end(str(error), CloseReason.PROTOCOL_ERROR, error)
        elif error is not None:
            raise error
        elif self._watch.violation is not None:
            self.close_with = CloseReason.MESSAGE_TOO_BIG
            self.ended = too_much(self._watch.violation)
        elif self._watch.malformed is not None:
            self._end(self._watch.malformed, CloseReason.PROTOCOL_ERROR)

    def _end(self, what: str, code: int, error: Exception | None = None) -> None:
        self.close_with = code
        self.ended = TransportEnded(f"the peer broke the WebSocket protocol: {what}", code, error)
