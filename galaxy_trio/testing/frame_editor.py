"""Edits a server's WebSocket messages on their way to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_FINAL: Final = 0x80
_CONTROL: Final = 0x08
_TEXT: Final = 0x81
_HANDSHAKE: Final = b"HTTP/1.1 "
_END_OF_HANDSHAKE: Final = b"\r\n\r\n"


class FrameEditor:
    """Edits a server's byte stream, starting at its handshake or a frame. Handshakes and control frames are not changed.

    Args:
        edit: Called with each message; returns the messages to send instead.
    """

    def __init__(self, edit: Callable[[bytes], Iterable[bytes]]) -> None:
        self._edit = edit
        self._bytes = b""
        self._parts: list[bytes] = []

    def take(self, data: bytes) -> bytes:
        """Take the next bytes of the stream and return the bytes to send now."""
        self._bytes += data
        now: list[bytes] = []
        if self._bytes.startswith(_HANDSHAKE):
            handshake, end, self._bytes = self._bytes.partition(_END_OF_HANDSHAKE)
            if not end:
                self._bytes = handshake
                return b""
            now.append(handshake + end)
        while (found := _first_frame(self._bytes)) is not None:
            start, size = found
            frame, self._bytes = self._bytes[:size], self._bytes[size:]
            if frame[0] & _CONTROL:
                now.append(frame)
                continue
            self._parts.append(frame[start:])
            if frame[0] & _FINAL:
                message = b"".join(self._parts)
                self._parts = []
                now.extend(map(_text_frame, self._edit(message)))
        return b"".join(now)

    def rest(self) -> bytes:
        """The bytes that are not a whole frame yet."""
        return self._bytes


def _first_frame(data: bytes) -> tuple[int, int] | None:
    """Start and end of the first frame's payload, which has no mask; None while the frame is incomplete."""
    if len(data) < 2:
        return None
    length = data[1] & 0x7F
    header = {126: 4, 127: 10}.get(length, 2)
    if len(data) < header:
        return None
    if header > 2:
        length = int.from_bytes(data[2:header], "big")
    return (header, header + length) if len(data) >= header + length else None


def _text_frame(message: bytes) -> bytes:
    length = len(message)
    if length < 126:
        return bytes([_TEXT, length]) + message
    if length < 1 << 16:
        return bytes([_TEXT, 126]) + length.to_bytes(2, "big") + message
    return bytes([_TEXT, 127]) + length.to_bytes(8, "big") + message
