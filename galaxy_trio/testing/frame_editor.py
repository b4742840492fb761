"""Messages of a server changed on their way: left out, sent twice, broken, or held back and sent in another order."""

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
    """Takes a server's bytes, from its handshake or the beginning of a frame on. Handshakes and control frames go on as they are.

    Args:
        edit: Given each message, says which are to be sent in its stead.
    """

    def __init__(self, edit: Callable[[bytes], Iterable[bytes]]) -> None:
        self._edit = edit
        self._bytes = b""
        self._parts: list[bytes] = []

    def take(self, data: bytes) -> bytes:
        """Bytes as they come; returns those to send now."""
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
        """What is not yet a whole frame."""
        return self._bytes


def _first_frame(data: bytes) -> tuple[int, int] | None:
    """Where the payload of the first frame begins, which has no mask, and where it ends; None while it is not whole."""
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
