"""A TCP stream that can write in the caller's step, and that waits before reading after a short read.

trio's own stream takes a scheduler pass before it writes a small message. It also tries to read before it waits, which nearly always fails
after a short read. Each costs more than everything else in a request.
"""

from __future__ import annotations

import os
import select
import sys
from typing import Final

import trio

_RECEIVE_BYTES: Final = 64 * 1024
"""The default number of bytes per read."""


class DirectSocketStream(trio.abc.Stream):
    """A TCP stream with direct access to its socket, for exclusive use. Made by `directly`.

    It asks the socket for its file descriptor before each use, and a closed socket has none. It therefore never touches a descriptor that
    the system has reused for another socket.

    Args:
        stream: The underlying stream. This stream owns it from now on.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._sending = False
        self._poll: select.poll | None = None
        self._is_drained = False

    def send_nowait(self, data: bytes | bytearray) -> int:
        """Write as many bytes as the socket accepts in this step.

        Returns:
            The number of bytes written. 0 also if the socket is closed or broken: `send_all` raises the error then.

        Raises:
            trio.BusyResourceError: `send_all` is running, or was cancelled in the middle of its data. Nothing was written.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        try:
            return os.write(self._descriptor(), data)
        except (trio.ClosedResourceError, OSError):
            return 0

    def has_unread(self) -> bool:
        """Whether the socket has something to read: bytes, the end, or an error."""
        try:
            descriptor = self._descriptor()
        except trio.ClosedResourceError:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
        return bool(self._poll.poll(0))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all data; see `trio.abc.SendStream.send_all`."""
        self._sending = True
        await self._stream.send_all(data)
        # Not in a `finally`: after a partial send, the peer would take the next data for the rest.
        self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket may accept data; see `trio.abc.SendStream.wait_send_all_might_not_block`."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive available data, or wait for the next; see `trio.abc.ReceiveStream.receive_some`."""
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
                # The socket may have been closed since this task was woken.
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
    """Wrap a stream for direct writes. On Windows, where sockets are not files, return the stream itself."""
    return stream if sys.platform == "win32" else DirectSocketStream(stream)
