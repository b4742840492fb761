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
    """

    def __init__(self, max_message_size: int) -> None:
        self._max_message_size = max_message_size
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
        return self._follow_frames(data)

    def _follow_frames(self, data: bytes | bytearray) -> int:
        """Follow frames. Returns up to where they may be handed on: to the start of a header that is not allowed, or to the end."""
        position = 0
        end = len(data)
        header = self._header
        while position < end:
            if self._payload:
                step = min(self._payload, end - position)
                position += step
                self._payload -= step
                continue
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
        return position

    def _take_header(self, header: bytearray) -> bool:
        length = header[1] & 0x7F
        if length >= 126:
            length = int.from_bytes(header[2 : 4 if length == 126 else 10])
        self._payload = length
        opcode = header[0] & 0x0F
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


def _header_length(second_byte: int) -> int:
    length = second_byte & 0x7F
    return 2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if second_byte & 0x80 else 0)
