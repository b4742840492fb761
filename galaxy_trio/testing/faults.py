"""A stream that breaks on request."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Generator


class FaultyStream(trio.abc.Stream):
    """Wraps a stream and passes bytes through until it is reset, goes silent, or is stalled.

    Attributes:
        closed: Whether this end was closed.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._waits: set[trio.CancelScope] = set()
        self._reset = False
        self._silent = False
        self._going = trio.Event()
        self._going.set()
        self.closed: bool = False

    def reset(self) -> None:
        """Break the connection for this end, like a TCP reset. Bytes that have arrived are lost."""
        self._reset = True
        self._wake()

    def go_silent(self) -> None:
        """Lose all bytes in both directions without notifying either end, like a pulled cable."""
        self._silent = True

    def stall(self) -> None:
        """Block sending, as if the peer did not read."""
        if self._going.is_set():
            self._going = trio.Event()

    def resume(self) -> None:
        """Let sending continue."""
        self._going.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; blocks while stalled, loses the data after `go_silent`."""
        with self._woken_by_end():
            await self._going.wait()
        self._check()
        if self._silent:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait while stalled."""
        with self._woken_by_end():
            await self._going.wait()
        self._check()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive; waits forever after `go_silent`."""
        self._check()
        data: bytes | bytearray = b""
        with self._woken_by_end():
            data = await self._stream.receive_some(max_bytes)
            while self._silent and data:
                data = await self._stream.receive_some(max_bytes)
            if self._silent:
                await trio.sleep_forever()
        self._check()
        return data

    @contextmanager
    def _woken_by_end(self) -> Generator[None]:
        """Leave the block early when this end is reset or closed."""
        with trio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)

    def _wake(self) -> None:
        for scope in self._waits:
            scope.cancel()

    def _check(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this end was closed")
        if self._reset:
            raise trio.BrokenResourceError("connection reset by a test")

    async def aclose(self) -> None:
        """Close this end."""
        self.closed = True
        self._wake()
        if self._silent:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.aclose()
