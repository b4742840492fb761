"""A simulated network in memory. A test sets the latency, bandwidth and faults of its streams.

No task runs behind a link: bytes in flight have an arrival time, and the receiver waits for it on trio's clock. With the same seed and a
mocked clock, the network is deterministic.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio._arguments import check_positive
from galaxy_trio._concurrency.cancel_group import CancelGroup
from galaxy_trio.testing.frame_editor import FrameEditor

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

CAPACITY: Final = 64 * 1024
"""Default number of bytes in flight before a sender has to wait, as with a socket's buffers."""


@attrs.frozen(kw_only=True)
class Conditions:
    """Properties of a link, in both directions.

    Attributes:
        latency: Seconds between sending and arrival.
        jitter: Maximum random addition to the latency in seconds; bytes never overtake each other.
        bandwidth: Bytes per second.
        capacity: Bytes in flight before a sender has to wait.
    """

    latency: float = 0.0
    jitter: float = 0.0
    bandwidth: float = math.inf
    capacity: int = CAPACITY

    def __attrs_post_init__(self) -> None:
        check_positive(bandwidth=self.bandwidth, capacity=self.capacity)
        if not (0 <= self.latency < math.inf and 0 <= self.jitter < math.inf):
            raise ValueError(f"latency and jitter are seconds, not {self.latency!r} and {self.jitter!r}")


class _Direction:
    """The bytes in flight from one end to the other."""

    def __init__(self, conditions: Conditions, random: Random) -> None:
        self.conditions = conditions
        self._random = random
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._line_free_at = 0.0
        self._arrives_at = 0.0
        self._waiters = trio.lowlevel.ParkingLot()
        self._ended = False
        self._reset = self._refused = False
        self._sending = self._receiving = False
        self.cut = False
        self.silent = False
        self.held = False
        # Applied to sent bytes, in order.
        self.transforms: list[Callable[[bytes], bytes]] = []

    def wake(self) -> None:
        """Wake both ends after a change."""
        self._waiters.unpark_all()

    def reset(self) -> None:
        self._reset = True
        self._chunks.clear()
        self.wake()

    def refuse(self) -> None:
        """Fail further sends, because the receiver has closed."""
        self._refused = True
        self._chunks.clear()
        self.wake()

    def end(self) -> None:
        """Report the end of the stream to the receiver after the bytes in flight, because the sender has closed."""
        if not self.silent:
            self._ended = True
            self.wake()

    async def wait_room(self) -> None:
        with self._alone("_sending"):
            await self._wait_room()

    async def _wait_room(self) -> None:
        while self._bytes >= self.conditions.capacity and not self.silent:
            self._check()
            await self._waiters.park()
        self._check()

    async def send(self, data: bytes) -> None:
        with self._alone("_sending"):
            await trio.lowlevel.checkpoint()
            rest = memoryview(data)
            while rest:
                await self._wait_room()
                if self.silent:
                    return
                piece, rest = rest[: self.conditions.capacity], rest[self.conditions.capacity :]
                self._put(bytes(piece))

    def _put(self, piece: bytes) -> None:
        now = trio.current_time()
        conditions = self.conditions
        self._line_free_at = max(now, self._line_free_at) + len(piece) / conditions.bandwidth
        delay = conditions.latency + self._random.uniform(0, conditions.jitter)
        self._arrives_at = max(self._arrives_at, self._line_free_at + delay)
        for transform in tuple(self.transforms):
            piece = transform(piece)
        self._bytes += len(piece)
        if piece:
            self._chunks.append((self._arrives_at, piece))
        self.wake()

    async def receive(self, max_bytes: int | None) -> bytes:
        with self._alone("_receiving"):
            await trio.lowlevel.checkpoint()
            while True:
                self._check()
                if self.held or self.cut or self.silent or (not self._chunks and not self._ended):
                    await self._waiters.park()
                elif not self._chunks:
                    return b""
                elif self._chunks[0][0] > trio.current_time():
                    with trio.move_on_at(self._chunks[0][0]):
                        await self._waiters.park()
                else:
                    return self._take(max_bytes)

    def _take(self, max_bytes: int | None) -> bytes:
        arrived, piece = self._chunks.popleft()
        if max_bytes is not None and len(piece) > max_bytes:
            self._chunks.appendleft((arrived, piece[max_bytes:]))
            piece = piece[:max_bytes]
        self._bytes -= len(piece)
        self.wake()
        return piece

    def _check(self) -> None:
        if self._reset:
            raise trio.BrokenResourceError("the connection was reset by the simulated network")
        if self._refused and not self.silent:
            raise trio.BrokenResourceError("the other end was closed")

    @contextmanager
    def _alone(self, what: str) -> Generator[None]:
        if getattr(self, what):
            raise trio.BusyResourceError("another task is using this end of the stream already")
        setattr(self, what, True)
        try:
            yield
        finally:
            setattr(self, what, False)


class NetworkStream(trio.abc.Stream):
    """One end of a `NetworkLink`. Made by `Network.connect`."""

    def __init__(self, outward: _Direction, inward: _Direction) -> None:
        self._outward = outward
        self._inward = inward
        self._calls = CancelGroup()

    @property
    def closed(self) -> bool:
        """Whether this end was closed."""
        return self._calls.closed

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; waits while the link is at its capacity."""
        with self._calls.guard():
            await self._outward.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        with self._calls.guard():
            await trio.lowlevel.checkpoint()
            await self._outward.wait_room()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive the bytes that have arrived; empty at the end of the stream."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be at least 1, and is {max_bytes!r}")
        with self._calls.guard():
            return await self._inward.receive(max_bytes)

    async def aclose(self) -> None:
        """Close this end. The other end reads the end of the stream when it arrives."""
        if not self.closed:
            self._calls.close(_closed_error)
            self._calls.stop(_closed_error)
            self._outward.end()
            self._inward.refuse()
        await trio.lowlevel.checkpoint()


def _closed_error() -> Exception:
    return trio.ClosedResourceError("this end was closed")


class NetworkLink:
    """A connection of two streams. Made by `Network.connect`.

    Attributes:
        client: The client's end, for ``stream`` of `open_connection`.
        server: The server's end, for `Server.serve_stream`.
    """

    def __init__(self, conditions: Conditions, random: Random) -> None:
        self._random = random
        self._to_server = _Direction(conditions, random)
        self._to_client = _Direction(conditions, random)
        self.client: NetworkStream = NetworkStream(self._to_server, self._to_client)
        self.server: NetworkStream = NetworkStream(self._to_client, self._to_server)

    @property
    def ended(self) -> bool:
        """Whether both ends are closed."""
        return self.client.closed and self.server.closed

    @property
    def _both(self) -> tuple[_Direction, _Direction]:
        return self._to_server, self._to_client

    def set_conditions(self, conditions: Conditions) -> None:
        """Change the link's conditions. Bytes in flight arrive as planned."""
        for direction in self._both:
            direction.conditions = conditions
            direction.wake()

    def partition(self) -> None:
        """Delay all bytes until `heal`. Nothing is lost, as with packets that are resent until they arrive."""
        for direction in self._both:
            direction.cut = True
            direction.wake()

    def heal(self) -> None:
        """End a partition, and let slow readers read again."""
        for direction in self._both:
            direction.cut = direction.held = False
            direction.wake()

    def go_silent(self) -> None:
        """Lose all bytes without notifying either end: a half-open connection, like a pulled cable."""
        for direction in self._both:
            direction.silent = True
            direction.wake()

    def reset(self) -> None:
        """Break the connection for both ends immediately. Bytes in flight are lost."""
        for direction in self._both:
            direction.reset()

    def slow_reader(self, *, server: bool) -> None:
        """Stop the server or the client from reading until `heal`, so that the other end's sends eventually wait."""
        direction = self._to_server if server else self._to_client
        direction.held = True
        direction.wake()

    def corrupt(self, *, to_server: bool = False) -> None:
        """Flip one bit of the next bytes sent."""
        direction = self._to_server if to_server else self._to_client

        def flip(data: bytes) -> bytes:
            if not data:
                return data
            direction.transforms.remove(flip)
            place = self._random.randrange(len(data))
            return data[:place] + bytes([data[place] ^ (1 << self._random.randrange(8))]) + data[place + 1 :]

        direction.transforms.append(flip)

    def edit_replies(self, edit: Callable[[bytes], Iterable[bytes]]) -> None:
        """Edit the server's messages from now on. The server must not be in the middle of one.

        Args:
            edit: Called with each message; returns the messages to send to the client instead: none, several, or broken ones.
        """
        self._to_client.transforms.append(FrameEditor(edit).take)

    def shuffle_replies(self, count: int) -> None:
        """Deliver the server's next `count` messages in random order, each whole."""
        held: list[bytes] = []

        def hold_back(message: bytes) -> Iterable[bytes]:
            if len(held) == count:
                return (message,)
            held.append(message)
            if len(held) < count:
                return ()
            self._random.shuffle(held)
            return held

        def shuffle(data: bytes) -> bytes:
            data = editor.take(data)
            if len(held) < count:
                return data
            self._to_client.transforms.remove(shuffle)
            return data + editor.rest()

        editor = FrameEditor(hold_back)
        self._to_client.transforms.append(shuffle)


class Network:
    """A simulated network in memory.

    Args:
        seed: Determines everything random in the network.
        conditions: Properties of new links.

    Attributes:
        conditions: Properties of new links.
        links: The open links, oldest first.
    """

    def __init__(self, seed: int | str = 0, conditions: Conditions | None = None) -> None:
        # Nothing here is secret.
        self._random = Random(seed)  # noqa: S311
        self.conditions: Conditions = conditions or Conditions()
        self.links: list[NetworkLink] = []

    def connect(self) -> NetworkLink:
        """Make a new link."""
        link = NetworkLink(self.conditions, Random(self._random.getrandbits(64)))  # noqa: S311
        self.links = [link for link in self.links if not link.ended]
        self.links.append(link)
        return link
