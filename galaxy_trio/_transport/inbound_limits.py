"""Limits on a WebSocket's received bytes, enforced before any library reads them.

An oversized message is detected by its header, in bytes, before its payload takes memory.
"""

from __future__ import annotations

import re
from typing import Final

MAX_HEAD: Final = 64 * 1024
"""The limit of a handshake in bytes. The HTTP library has a smaller limit of its own."""
MAX_HEAD_LINES: Final = 200
"""The limit of a handshake in lines: its headers are kept as long as the connection, and the shortest ones take 30 times their text."""
MAX_FRAGMENTS: Final = 2**17
"""The limit of frames per message: empty frames add nothing to its size, but each takes memory."""

_LARGE_PORTION: Final = 2 * MAX_HEAD
"""Bytes that are read together in the handshake and within a frame."""
_PORTION: Final = 4 * 1024
"""Bytes that are read together between frames, which may have as few as two: trio-websocket takes about 4 µs for each."""
_FRAGMENT_SIZE: Final = 100
"""About how many bytes trio-websocket takes for a fragment, besides its content."""

_HTTP = b"HTTP/1."
_TLS_HELLO = b"\x16\x03"
_HEAD_END = re.compile(rb"\n\r?\n")
"""An empty line. h11 accepts line feeds alone as well, and both must see the same end: everything after it is frames."""
_HEADER = re.compile(rb"\n(host|location|retry-after|server|upgrade):[ \t]*([^\r\n]*)", re.IGNORECASE)
_STATUS_LINE = re.compile(rb"HTTP/1\.\d (\d{3})[ \r]")


class InboundWatch:
    """Parses the received bytes of one end: the HTTP head, then the frame headers.

    Args:
        max_message_size: The limit of a message's payload in bytes.
    """

    def __init__(self, max_message_size: int) -> None:
        self.max_message_size = max_message_size
        """The limit of a message's payload in bytes. A change concerns frames that have not begun."""
        self._head: bytearray | None = bytearray()
        self._header = bytearray()
        self._payload = 0
        self._message_size = 0
        self._fragments = 0
        self._has_all_fragments = True
        self.status_code: int | None = None
        """The HTTP status of a server's answer, 0 if it is not HTTP; None until its first line is complete."""
        self.headers: dict[bytes, bytes] = {}
        """The headers of the handshake that matter here, once it is complete, with their names in lower case: the first of each."""
        self.uses_tls: bool = False
        """Whether a client begins with TLS. Its TLS has ended before, if this end uses it."""
        self.violation: str | None = None
        """The limit that the peer exceeded, in words; None if it exceeded none."""

    @property
    def in_handshake(self) -> bool:
        """Whether the HTTP head is still incomplete."""
        return self._head is not None

    @property
    def portion(self) -> int:
        """How many bytes to read next for the library, which parses them in one step."""
        if self.in_handshake:
            # More than the limit, so that an oversized handshake is refused before it is parsed.
            return _LARGE_PORTION
        return max(_PORTION, min(_LARGE_PORTION, self._payload))

    @property
    def incomplete(self) -> int:
        """About how many bytes a message takes that has not arrived whole: each of its fragments takes some as well."""
        if self._has_all_fragments and not self._payload:
            return 0
        return max(0, self._message_size - self._payload) + _FRAGMENT_SIZE * self._fragments

    def feed(self, data: bytes | bytearray) -> int:
        """Parse received bytes.

        Returns:
            The number of bytes that may be passed on. It is less than all only if `violation` is set, or if the handshake ends within
            the bytes: feed the rest again.
        """
        if self._head is not None:
            seen = len(self._head)
            self._head += data
            self.uses_tls = self._head.startswith(_TLS_HELLO)
            if self.status_code is None and (b"\n" in self._head or not _HTTP.startswith(self._head[: len(_HTTP)])):
                match = _STATUS_LINE.match(self._head)
                self.status_code = int(match[1]) if match else 0
            found = _HEAD_END.search(self._head, max(0, seen - 2))
            end = len(self._head) if found is None else found.end()
            if end > MAX_HEAD:
                self.violation = f"a handshake of more than {MAX_HEAD} bytes"
                return 0
            if self._head.count(b"\n", 0, end) > MAX_HEAD_LINES:
                self.violation = f"a handshake of more than {MAX_HEAD_LINES} lines"
                return 0
            if found is None:
                return len(data)
            for header in _HEADER.finditer(self._head, 0, end):
                self.headers.setdefault(header[1].lower(), header[2])
            self._head = None
            return end - seen
        return self._follow_frames(data)

    def _follow_frames(self, data: bytes | bytearray) -> int:
        """Parse frames. Returns the number of bytes before the first forbidden header, or of all bytes."""
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
            # The first two bytes contain the length of the header.
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
        self._has_all_fragments = header[0] >= 0x80
        if opcode:
            self._message_size = self._fragments = 0
        self._message_size += length
        self._fragments += 1
        if self._message_size > self.max_message_size:
            self.violation = f"a message of more than {self.max_message_size} bytes"
        elif self._fragments > MAX_FRAGMENTS:
            self.violation = f"a message in more than {MAX_FRAGMENTS} fragments"
        return self.violation is None


def _header_length(second_byte: int) -> int:
    length = second_byte & 0x7F
    return 2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if second_byte & 0x80 else 0)
