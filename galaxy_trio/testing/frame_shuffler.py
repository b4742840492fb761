"""Frames of a WebSocket in another order: a server that answers out of order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_FINAL: Final = 0x80
_CONTROL: Final = 0x08


class FrameShuffler:
    """Holds a server's messages back until there are enough, and lets them go in another order. Control frames go on at once.

    Args:
        count: How many messages.
        random: Decides on their order.
        done: Called when they have gone.
    """

    def __init__(self, count: int, random: Random, done: Callable[[], None]) -> None:
        self._count = count
        self._random = random
        self._done = done
        self._bytes = b""
        self._message = b""
        self._messages: list[bytes] = []

    def take(self, data: bytes) -> bytes:
        """Bytes of a server, from the beginning of a frame on; returns those to send now."""
        self._bytes += data
        now = b""
        while len(self._messages) < self._count and (size := _frame_size(self._bytes)) is not None:
            frame, self._bytes = self._bytes[:size], self._bytes[size:]
            if frame[0] & _CONTROL:
                now += frame
                continue
            self._message += frame
            if frame[0] & _FINAL:
                self._messages.append(self._message)
                self._message = b""
        if len(self._messages) < self._count:
            return now
        self._random.shuffle(self._messages)
        self._done()
        return now + b"".join(self._messages) + self._bytes


def _frame_size(data: bytes) -> int | None:
    """How long the first frame is, which has no mask; None while it is not whole."""
    if len(data) < 2:
        return None
    length = data[1] & 0x7F
    header = {126: 4, 127: 10}.get(length, 2)
    if len(data) < header:
        return None
    if header > 2:
        length = int.from_bytes(data[2:header], "big")
    return header + length if len(data) >= header + length else None
