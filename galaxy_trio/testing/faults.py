"""A stream that breaks on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from galaxy_trio._concurrency.cancel_group import CancelGroup

if TYPE_CHECKING:
    from collections.abc import Callable


class FaultyStream(trio.abc.Stream):
    """Wraps a stream and passes bytes through until it is reset, goes silent, or is stalled.

    Attributes:
        closed: Whether this end was closed.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._calls = CancelGroup()
        self._silent = False
        self._going = trio.Event()
        self._going.set()
        self.closed: bool = False

    def reset(self) -> None:
        """Break the connection for this end, like a TCP reset. Bytes that have arrived are lost."""
        if not self.closed:
            self._end(lambda: trio.BrokenResourceError("connection reset by a test"))

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
        with self._calls.guard():
            await self._going.wait()
            if self._silent:
                await trio.lowlevel.checkpoint()
            else:
                await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait while stalled, and until the wrapped stream has room; not after `go_silent`."""
        with self._calls.guard():
            await self._going.wait()
            if not self._silent:
                await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive; waits for ever after `go_silent`."""
        data: bytes | bytearray = b""
        with self._calls.guard():
            data = await self._stream.receive_some(max_bytes)
            while self._silent and data:
                data = await self._stream.receive_some(max_bytes)
            if self._silent:
                await trio.sleep_forever()
        return data

    async def aclose(self) -> None:
        """Close this end."""
        self.closed = True
        self._end(lambda: trio.ClosedResourceError("this end was closed"))
        if self._silent:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.aclose()

    def _end(self, why: Callable[[], Exception]) -> None:
        """End current and later calls with an error."""
        self._calls.close(why)
        self._calls.stop(why)
