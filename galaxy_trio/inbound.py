"""What the bytes of a WebSocket tell before any library has read them: the handshake's status, and how large a message will be.

A message that is too large is seen by its header, before its payload takes memory, and in bytes.
"""

from __future__ import annotations

import re
from typing import Final

MAX_HEAD: Final = 64 * 1024
"""Bytes that a handshake may take; the HTTP library behind has a smaller limit of its own."""
MAX_FRAGMENTS: Final = 2**17
"""Frames that one message may consist of: empty ones add nothing to its size, but each takes memory."""

_HTTP = b"HTTP/1."
_HOST = re.compile(rb"\r?\nhost:[ \t]*([^\r\n]*)", re.IGNORECASE)
_STATUS_LINE = re.compile(rb"HTTP/1\.\d (\d{3})[ \r]")


class InboundWatch:
    """Follows the inbound bytes of one end.

    Args:
        max_message_size: Bytes that one message's payload may have.
        strict: Whether a header that cannot be right ends it too, so that none of its payload is waited for: some libraries
            look into a header only when the whole frame is there.
    """

    def __init__(self, max_message_size: int, *, strict: bool = False) -> None:
        self._max_message_size = max_message_size
        self._strict = strict
        self._head: bytearray | None = bytearray()
        self._header = bytearray()
        self._payload = 0
        self._message_size = 0
        self._fragments = 0
        self.status_code: int | None = None
        """The HTTP status of an answer to our handshake, 0 if it is no HTTP; None until its first line is complete."""
        self.host: bytes | None = None
        """The ``Host`` header of a handshake that asks us, once its end has come."""
        self.violation: str | None = None
        """What the peer did that is not allowed."""
        self.malformed: str | None = None
        """What is wrong with a frame's header, if that is looked for. Nothing from that frame on may be handed on."""

    @property
    def in_handshake(self) -> bool:
        """Whether the end of the HTTP head has not come yet."""
        return self._head is not None

    def feed(self, data: bytes | bytearray) -> int:
        """Follow what has come in.

        Returns:
            How much of it may be handed on: less than all only when `violation` is set, or when the handshake ends in the midst
            of it. What comes after is to be fed again.
        """
        if self._head is not None:
            seen = len(self._head)
            self._head += data
            if self.status_code is None and (b"\n" in self._head or not _HTTP.startswith(self._head[: len(_HTTP)])):
                match = _STATUS_LINE.match(self._head)
                self.status_code = int(match[1]) if match else 0
            end = self._head.find(b"\r\n\r\n", max(0, seen - 3))
            if (len(self._head) if end < 0 else end) > MAX_HEAD:
                self.violation = f"a handshake of more than {MAX_HEAD} bytes"
                return 0
            if end < 0:
                return len(data)
            host = _HOST.search(self._head, 0, end)
            self.host = None if host is None else host[1]
            self._head = None
            return end + 4 - seen
        return self.follow_frames(data, 0, len(data))

    @property
    def begins_unlike_http(self) -> bool:
        """Whether what has come of a head begins with a byte that no line of HTTP begins with."""
        return bool(self._head and self._head[0] <= 0x20)

    @property
    def in_frame(self) -> bool:
        """Whether what has come in ends within a frame."""
        return bool(self._payload or self._header)

    @property
    def missing(self) -> int:
        """Bytes of a frame's payload that have not come in."""
        return self._payload

    def follow_frames(self, data: bytes | bytearray, position: int, most: int) -> int:
        """Follow what has come in after the handshake, through no more than so many frames.

        Args:
            data: What has come in.
            position: Where in it to begin.
            most: How many frames may begin.

        Returns:
            Up to where it may be handed on: to its end, unless so many frames have begun, or `violation` or `malformed` is set.
        """
        end = len(data)
        header = self._header
        while position < end:
            if self._payload:
                step = min(self._payload, end - position)
                position += step
                self._payload -= step
                continue
            if not most:
                break
            start = position
            # Two bytes tell how long the header is.
            wanted = 2 if len(header) < 2 else _header_length(header[1])
            taken = data[position : position + wanted - len(header)]
            header += taken
            position += len(taken)
            if len(header) < 2 or len(header) < _header_length(header[1]):
                continue
            if not self._take_header(header):
                return start
            header.clear()
            most -= 1
        return position

    def _take_header(self, header: bytearray) -> bool:
        length = header[1] & 0x7F
        if length >= 126:
            length = int.from_bytes(header[2 : 4 if length == 126 else 10])
        self._payload = length
        opcode = header[0] & 0x0F
        if self._strict:
            self.malformed = _fault(header, length)
            if self.malformed is not None:
                return False
        if opcode >= 8:
            return True
        if opcode:
            self._message_size = self._fragments = 0
        self._message_size += length
        self._fragments += 1
        if self._message_size > self._max_message_size:
            self.violation = f"a message of more than {self._max_message_size} bytes"
        elif self._fragments > MAX_FRAGMENTS:
            self.violation = f"a message in more than {MAX_FRAGMENTS} fragments"
        return self.violation is None


def _fault(header: bytearray, length: int) -> str | None:
    """What cannot be right in a header, whoever sent it, and whatever came before it."""
    if header[0] & 0x70:
        return "a frame with a reserved bit"
    short = header[1] & 0x7F
    if header[0] & 0x08 and (short > 125 or header[0] < 0x80):
        return "a control frame that is too long or in fragments"
    if (short == 126 and length < 126) or (short == 127 and not 2**16 <= length < 2**63):
        return "a length in the wrong number of bytes"
    return None


def _header_length(second_byte: int) -> int:
    length = second_byte & 0x7F
    return 2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if second_byte & 0x80 else 0)
