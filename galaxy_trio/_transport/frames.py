"""A fast codec for the frames that AIP uses: whole text messages in both directions, and the pings between them.

It makes a fraction of a general library's copies, and needs no task or channel. All other frames of RFC 6455 (fragments, binary frames,
close frames, invalid ones) are left to trio-websocket, with everything after them.
"""

from __future__ import annotations

import codecs
import enum
import os
import struct
import sys
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXT, _PING, _PONG = 0x81, 0x89, 0x8A
"""The first bytes of whole frames without extensions."""
_MAX_SHORT: Final = 125
"""The longest payload whose length fits into the second byte, and the longest payload of a ping or pong."""
_LENGTH_OF_2_BYTES: Final = 126
_LENGTH_OF_8_BYTES: Final = 127
"""Values of the second byte: the length follows in 2 or 8 bytes."""
_LARGE: Final = 2**16
"""The size from which a text is decoded in pieces as they arrive. A shorter text is decoded when it is complete."""
_LEAST_PIECE: Final = 2**12
"""Bytes of a large text that are decoded together, unless fewer are missing: a peer may send single bytes, and each piece takes memory."""
_MASKED: Final = 0x80
_KEY_SIZE: Final = 4
_MASK_SLICE: Final = 2**16
"""Bytes that are masked as one number, which fits into the processor's cache."""
_SLICE: Final = 2**18
"""Bytes per write of a large frame: TLS encrypts each write in one step."""

_utf8 = codecs.getincrementaldecoder("utf-8")


def text_frame(text: str, *, masked: bool) -> bytes:
    """Make the frame of a message.

    Args:
        text: The whole message.
        masked: Whether to mask it with a fresh random key, as a client must.
    """
    payload = text.encode()
    header = _header(len(payload), masked=masked)
    if not masked:
        return header + payload
    key = os.urandom(4)
    return b"".join((header, key, _mask(payload, key)))


class LargeFrame:
    """The frame of a large message, which is made while it is written: making 100 MiB in one step would block the event loop.

    Args:
        text: The whole message.
        masked: Whether to mask it with a fresh random key, as a client must.
    """

    def __init__(self, text: str, *, masked: bool) -> None:
        self._payload = text.encode()
        self._key = os.urandom(4) if masked else b""
        self._header = _header(len(self._payload), masked=masked) + self._key

    def __len__(self) -> int:
        return len(self._header) + len(self._payload)

    def slices(self) -> Iterator[bytes]:
        """Make the frame's bytes, a slice for each write."""
        header = self._header
        for start in range(0, len(self._payload), _SLICE):
            slice_ = self._payload[start : start + _SLICE]
            yield header + (_mask(slice_, self._key) if self._key else slice_)
            header = b""


def sending_frame(text: str, *, masked: bool) -> bytes | LargeFrame:
    """Make the frame of a message for the send buffer."""
    return text_frame(text, masked=masked) if len(text) <= _SLICE else LargeFrame(text, masked=masked)


def _header(size: int, *, masked: bool) -> bytes:
    """Make the header of a whole text frame, without the mask's key."""
    mask_bit = _MASKED if masked else 0
    if size <= _MAX_SHORT:
        return bytes((_TEXT, mask_bit | size))
    if size < 2**16:
        return struct.pack("!BBH", _TEXT, mask_bit | _LENGTH_OF_2_BYTES, size)
    return struct.pack("!BBQ", _TEXT, mask_bit | _LENGTH_OF_8_BYTES, size)


def _mask(payload: bytes | bytearray, key: bytes) -> bytes:
    """Mask or unmask a payload."""
    if len(payload) > _MASK_SLICE:
        return b"".join(
            _mask(payload[start : start + _MASK_SLICE], key) for start in range(0, len(payload), _MASK_SLICE)
        )
    # As one number of whole words, so that the key need not be cut.
    words = (len(payload) + 3) // 4
    number = int.from_bytes(payload, "little") ^ int.from_bytes(key * words, "little")
    return number.to_bytes(4 * words, "little")[: len(payload)]


@attrs.frozen
class Ping:
    """A ping, to be answered with a pong of the same payload."""

    payload: bytes


class NoMessage(enum.Enum):
    """The reason why `TextFrames.next` returns no message."""

    MORE_NEEDED = enum.auto()
    """The next frame is incomplete."""
    PONG = enum.auto()
    """A pong was read. Its arrival is its only information."""
    LEFT = enum.auto()
    """The next frame is of another kind; `TextFrames.rest` returns it."""


class _LargeText:
    """A text whose frame arrives in many pieces. Each is decoded on arrival, so that the last one does not block the event loop.

    Args:
        header: The frame's header, with the mask's key.
        key: The mask's key; empty without a mask.
        size: Bytes of the payload.
    """

    def __init__(self, header: bytes, key: bytes, size: int) -> None:
        self._header = header
        self._key = key
        self._size = size
        self._decoder = _utf8()
        self._pieces: list[str] = []
        self.memory = 0
        """Bytes of memory that the pieces take: one letter outside of Latin-1 makes each of its piece take 2 or 4."""
        self.missing = size
        """Bytes of the payload that have not arrived."""

    def take(self, piece: bytes | bytearray) -> bytes | None:
        """Decode the next piece, which has at most `missing` bytes.

        Returns:
            None; if the text is not UTF-8, a shorter frame that begins with the piece: enough to be refused for the same reason.
        """
        undecoded, _ = self._decoder.getstate()
        if self._key:
            turned = (self._size - self.missing) % 4
            piece = _mask(piece, self._key[turned:] + self._key[:turned])
        self.missing -= len(piece)
        try:
            decoded = self._decoder.decode(piece, not self.missing)
        except UnicodeDecodeError:
            # Encoding and masking again what was decoded would hold the event loop, and the library would decode it again.
            payload = undecoded + piece
            header = _header(len(payload) + self.missing, masked=bool(self._key))
            return header + self._key + (_mask(payload, self._key) if self._key else payload)
        self._pieces.append(decoded)
        self.memory += sys.getsizeof(decoded)
        return None

    def received(self) -> bytes:
        """Return all received bytes of the frame, unchanged."""
        undecoded, _ = self._decoder.getstate()
        payload = "".join(self._pieces).encode() + undecoded
        return self._header + (_mask(payload, self._key) if self._key else payload)

    def text(self) -> str:
        """Return the text. Call it when nothing is missing."""
        return "".join(self._pieces)


class TextFrames:
    """Parses the peer's frames: bytes in, messages out, no I/O.

    Args:
        max_message_size: The limit of a message in bytes. A larger one is left as soon as its header has arrived.
        masked: Whether the frames must be masked, as a client's must. A frame that violates this is left.
    """

    def __init__(self, max_message_size: int, *, masked: bool) -> None:
        self.max_message_size = max_message_size
        """The limit of a message in bytes. A change concerns messages that have not begun."""
        self._mask_bit = _MASKED if masked else 0
        self._key_size = _KEY_SIZE if masked else 0
        self._data: bytes | bytearray = b""
        self._position = 0
        self._wanted = 2
        """The number of bytes from the position that `next` needs to make progress."""
        self._large: _LargeText | None = None

    @property
    def missing(self) -> int:
        """Bytes that a large text still lacks; 0 if none has begun."""
        return 0 if self._large is None else self._large.missing

    @property
    def incomplete(self) -> int:
        """Bytes of memory that messages take which have not arrived whole."""
        return len(self._data) - self._position + (0 if self._large is None else self._large.memory)

    @property
    def has_unread(self) -> bool:
        """Whether fed bytes have not been read yet."""
        return self._position < len(self._data)

    def feed(self, data: bytes | bytearray) -> None:
        """Add received bytes, after `next` returned `MORE_NEEDED`."""
        rest = len(self._data) - self._position
        self._data = data if not rest else bytes(self._data[self._position :]) + data
        self._position = 0

    def next(self) -> str | Ping | NoMessage:
        """Return the next message or ping, or the reason for having no message."""
        if self._large is not None:
            return self._next_piece(self._large)
        available = len(self._data) - self._position
        if available < self._wanted:
            return NoMessage.MORE_NEEDED
        first, length = self._data[self._position], self._data[self._position + 1] ^ self._mask_bit
        if first == _TEXT and length <= _LENGTH_OF_8_BYTES:
            return self._next_text(length, available)
        if first in (_PING, _PONG) and length <= _MAX_SHORT:
            return self._next_control(first, length, available)
        return NoMessage.LEFT

    def _next_text(self, length: int, available: int) -> str | NoMessage:
        start, header = self._position, 2
        if length > _MAX_SHORT:
            header, least = (4, _MAX_SHORT + 1) if length == _LENGTH_OF_2_BYTES else (10, 2**16)
            if available < header:
                return self._need(header)
            length = int.from_bytes(self._data[start + 2 : start + header])
            if length < least:
                return NoMessage.LEFT
        if length > self.max_message_size:
            return NoMessage.LEFT
        header += self._key_size
        whole = header + length
        needed = whole if length < _LARGE else header
        if available < needed:
            return self._need(needed)
        key = bytes(self._data[start + header - _KEY_SIZE : start + header]) if self._key_size else b""
        if available < whole:
            self._large = _LargeText(bytes(self._data[start : start + header]), key, length)
            self._advance(header)
            return self._next_piece(self._large)
        payload = self._data[start + header : start + whole]
        try:
            text = str(_mask(payload, key) if key else payload, "utf-8")
        except UnicodeDecodeError:
            return NoMessage.LEFT
        self._advance(whole)
        return text

    def _next_piece(self, large: _LargeText) -> str | NoMessage:
        start, missing = self._position, large.missing
        if len(self._data) - start < min(_LEAST_PIECE, missing):
            return NoMessage.MORE_NEEDED
        piece = self._data if not start and len(self._data) <= missing else self._data[start : start + missing]
        self._advance(len(piece))
        if (broken := large.take(piece)) is not None:
            self._large = None
            self._data, self._position = broken + self._data[self._position :], 0
            return NoMessage.LEFT
        if large.missing:
            return NoMessage.MORE_NEEDED
        self._large = None
        return large.text()

    def _next_control(self, first: int, length: int, available: int) -> Ping | NoMessage:
        start, header = self._position, 2 + self._key_size
        size = header + length
        if available < size:
            return self._need(size)
        key, payload = bytes(self._data[start + 2 : start + header]), bytes(self._data[start + header : start + size])
        if key:
            payload = _mask(payload, key)
        self._advance(size)
        return Ping(payload) if first == _PING else NoMessage.PONG

    def _need(self, size: int) -> NoMessage:
        self._wanted = size
        return NoMessage.MORE_NEEDED

    def _advance(self, size: int) -> None:
        self._position += size
        self._wanted = 2
        if self._position == len(self._data):
            self._data, self._position = b"", 0

    def rest(self) -> bytes:
        """Remove and return the unread bytes, from the start of a frame."""
        begun = b"" if self._large is None else self._large.received()
        rest = begun + self._data[self._position :]
        self._data, self._position, self._wanted, self._large = b"", 0, 2, None
        return rest
