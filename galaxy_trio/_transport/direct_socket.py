"""A TCP stream that can also be written in the caller's step, and that waits before it reads when nothing is there.

A small message of trio's way takes a pass of the scheduler before it is written. Reading tries the socket first, which after a short read
is nearly always in vain. Both cost more than all else that a request takes.
"""

from __future__ import annotations

import os
import select
import sys
from typing import Final

import trio

_RECEIVE_BYTES: Final = 64 * 1024
"""Bytes that a read takes unless told otherwise."""


class DirectSocketStream(trio.abc.Stream):
    """A TCP stream of this package's own: nothing else may use it. Made by `directly`.

    The socket is asked for its file descriptor before each use, and has none once it is closed: one that the system has given to another
    socket since is never touched.

    Args:
        stream: Belongs to this one from now on.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._sending = False
        self._poll: select.poll | None = None
        self._is_drained = False

    def send_nowait(self, data: bytes | bytearray) -> int:
        """Write what the socket takes in this step.

        Returns:
            How many bytes it took. 0 also if it is closed or broken: `send_all` finds the words for that.

        Raises:
            trio.BusyResourceError: `send_all` has not ended, or was cancelled within what it sends. Nothing was written.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        try:
            return os.write(self._descriptor(), data)
        except (trio.ClosedResourceError, OSError):
            return 0

    def has_unread(self) -> bool:
        """Whether the socket has anything to read: bytes, its end, or an error."""
        try:
            descriptor = self._descriptor()
        except trio.ClosedResourceError:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
        return bool(self._poll.poll(0))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it; see `trio.abc.SendStream.send_all`."""
        self._sending = True
        await self._stream.send_all(data)
        # Not in a `finally`: what is sent after a part of it would be taken for the rest.
        self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes something; see `trio.abc.SendStream.wait_send_all_might_not_block`."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what is there, or the next that comes; see `trio.abc.ReceiveStream.receive_some`."""
        size = _RECEIVE_BYTES if max_bytes is None else max_bytes
        if size < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._is_drained:
            data = await self._wait_and_read(size)
        else:
            data = await self._stream.receive_some(size)
        self._is_drained = len(data) < size
        return data

    async def _wait_and_read(self, size: int) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._descriptor())
            try:
                # It may have been closed since this task was woken.
                return os.read(self._descriptor(), size)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(f"socket connection broken: {error}") from error

    def _descriptor(self) -> int:
        descriptor = self._stream.socket.fileno()
        if descriptor < 0:
            raise trio.ClosedResourceError("this socket was already closed")
        return descriptor

    async def aclose(self) -> None:
        """Close the socket; see `trio.abc.AsyncResource.aclose`."""
        await self._stream.aclose()


def directly(stream: trio.SocketStream) -> trio.abc.Stream:
    """A stream that can be written directly; on Windows, where sockets are no files, the stream itself."""
    return stream if sys.platform == "win32" else DirectSocketStream(stream)
