"""A stream that breaks when a test says so."""

from __future__ import annotations

import trio


class FaultyStream(trio.abc.Stream):
    """Passes bytes through, until it is reset or goes silent.

    Attributes:
        closed: Whether this end was closed.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._receiving: trio.CancelScope | None = None
        self._reset = False
        self._silent = False
        self.closed = False

    def reset(self) -> None:
        """From now on this end meets a broken connection, like after a TCP reset; what had arrived is lost."""
        self._reset = True
        if self._receiving is not None:
            self._receiving.cancel()

    def go_silent(self) -> None:
        """From now on nothing arrives and nothing is sent, and neither end is told, like when a cable is pulled."""
        self._silent = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or break, or send into the void."""
        self._check()
        if self._silent:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the stream beneath."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive, or break, or wait for what never comes."""
        self._check()
        with trio.CancelScope() as scope:
            self._receiving = scope
            try:
                data = await self._stream.receive_some(max_bytes)
                while self._silent and data:
                    data = await self._stream.receive_some(max_bytes)
                if self._silent:
                    await trio.sleep_forever()
                return data
            finally:
                self._receiving = None
        raise trio.BrokenResourceError("connection reset by a test")

    def _check(self) -> None:
        if self._reset:
            raise trio.BrokenResourceError("connection reset by a test")

    async def aclose(self) -> None:
        """Close this end."""
        self.closed = True
        if self._silent:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.aclose()
