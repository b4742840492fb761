"""A stream that breaks when a test says so."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Generator


class FaultyStream(trio.abc.Stream):
    """Passes bytes through, until it is reset, goes silent, or is stalled.

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
        """From now on this end meets a broken connection, like after a TCP reset; what had arrived is lost."""
        self._reset = True
        self._wake()

    def go_silent(self) -> None:
        """From now on nothing arrives and nothing is sent, and neither end is told, like when a cable is pulled."""
        self._silent = True

    def stall(self) -> None:
        """From now on sending blocks, like when the peer does not read."""
        if self._going.is_set():
            self._going = trio.Event()

    def resume(self) -> None:
        """Sending goes on."""
        self._going.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or break, or wait, or send into the void."""
        with self._woken_by_end():
            await self._going.wait()
        self._check()
        if self._silent:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending goes on."""
        with self._woken_by_end():
            await self._going.wait()
        self._check()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive, or break, or wait for what never comes."""
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
