"""Direct writes tear no frame, keep the order of frames, and touch no other socket."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio._transport.direct_socket import DirectSocketStream
from galaxy_trio._transport.inbound_limits import InboundWatch
from galaxy_trio._transport.send_buffer import BufferedStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

MB = 1_000_000


async def make_sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Open two ends of a TCP connection with small buffers."""
    await trio.lowlevel.checkpoint()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        ours = socket.socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
    return tuple(trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in (ours, theirs))  # type: ignore[return-value]


async def make_pair() -> tuple[DirectSocketStream, trio.SocketStream]:
    ours, theirs = await make_sockets()
    return DirectSocketStream(ours), theirs


async def make_direct_pair() -> tuple[DirectSocketStream, DirectSocketStream]:
    ours, theirs = await make_sockets()
    return DirectSocketStream(ours), DirectSocketStream(theirs)


async def make_clogged_pair() -> tuple[DirectSocketStream, DirectSocketStream]:
    pair = await make_direct_pair()
    for end in pair:
        while end.send_nowait(bytes(10_000)):
            pass
    return pair


async def test_the_stream_passes_trios_checks() -> None:
    await trio.testing.check_two_way_stream(make_direct_pair, make_clogged_pair)


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    received = bytearray()
    async for piece in stream:
        received += piece
    return bytes(received)


async def test_send_nowait_returns_the_bytes_that_the_socket_accepted() -> None:
    ours, theirs = await make_pair()
    async with theirs:
        async with ours:
            assert ours.send_nowait(b"hello") == 5
            sent = 5
            while taken := ours.send_nowait(bytes(30_000)):
                sent += taken
        assert len(await read_all(theirs)) == sent


async def test_has_unread_needs_no_scheduler_pass() -> None:
    ours, theirs = await make_sockets()
    peer = theirs.socket
    async with DirectSocketStream(ours) as stream:
        assert not stream.has_unread()
        await theirs.send_all(b"one")
        assert stream.has_unread()
        assert await stream.receive_some() == b"one"
        assert not stream.has_unread()
        # The end of the stream counts as unread too.
        peer.close()
        assert stream.has_unread()
    assert stream.has_unread()


async def test_has_unread_reports_a_reset_without_a_scheduler_pass() -> None:
    ours, theirs = await make_sockets()
    async with DirectSocketStream(ours) as stream:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.socket.close()
        assert stream.has_unread()


async def test_after_a_short_read_it_waits_before_reading() -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        for text in (b"one", b"two"):
            await theirs.send_all(text)
            assert await ours.receive_some() == text
        with trio.move_on_after(0) as scope:
            await ours.receive_some()
        assert scope.cancelled_caught
        await theirs.send_all(b"three")
        assert await ours.receive_some(3) == b"thr"
        assert await ours.receive_some(3) == b"ee"
        await theirs.aclose()
        assert await ours.receive_some() == b""


async def test_a_reset_raises_broken_resource_error() -> None:
    ours, theirs = await make_pair()
    async with ours:
        await theirs.send_all(b"one")
        await ours.receive_some()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await theirs.aclose()
        with pytest.raises(trio.BrokenResourceError, match="socket connection broken"):
            await ours.receive_some()
        assert ours.send_nowait(b"two") == 0


@asynccontextmanager
async def when_woken(stream: DirectSocketStream, act: Callable[[], None]) -> AsyncGenerator[list[bytes]]:
    """Receive in one task and act in another that the same bytes wake, in either order. Returns the received bytes."""
    copy = socket.socket(fileno=os.dup(stream._stream.socket.fileno()))
    got: list[bytes] = []

    async def receive() -> None:
        try:
            got.append(await stream.receive_some())
        except trio.ClosedResourceError:
            got.append(b"closed")

    async def wait_and_act() -> None:
        await trio.lowlevel.wait_readable(copy)
        act()

    with copy:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(wait_and_act)
            await trio.testing.wait_all_tasks_blocked()
            yield got


async def test_it_waits_again_when_another_task_has_read_the_bytes() -> None:
    ours, theirs = await make_pair()

    def take_away() -> None:
        with suppress(BlockingIOError):
            os.read(ours._stream.socket.fileno(), 10)

    async with ours, theirs:
        for _ in range(20):
            await theirs.send_all(b"one")
            await ours.receive_some()
            with trio.fail_after(5):
                async with when_woken(ours, take_away) as got:
                    await theirs.send_all(b"two")
                    await trio.testing.wait_all_tasks_blocked()
                    if not got:
                        await theirs.send_all(b"three")
            assert got in ([b"two"], [b"three"])


@attrs.frozen
class Taken:
    """A socket that reuses a descriptor, its other end, and other sockets that had to be opened."""

    stranger: socket.socket
    other: socket.socket
    rest: list[socket.socket]

    def close(self) -> None:
        for each in (self.stranger, self.other, *self.rest):
            each.close()


def take_descriptor(descriptor: int) -> Taken:
    """Open sockets until one reuses the descriptor."""
    rest: list[socket.socket] = []
    while True:
        one, other = socket.socketpair()
        if one.fileno() == descriptor:
            return Taken(one, other, rest)
        if other.fileno() == descriptor:
            return Taken(other, one, rest)
        rest += [one, other]


async def test_a_closed_stream_does_not_touch_a_socket_that_reuses_its_descriptor() -> None:
    ours, theirs = await make_pair()
    await theirs.send_all(b"one")
    await ours.receive_some()
    descriptor = ours._stream.socket.fileno()
    await ours.aclose()
    taken = take_descriptor(descriptor)
    taken.other.send(b"secret")
    assert ours.send_nowait(b"not for a stranger") == 0
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()
    taken.other.setblocking(False)
    with pytest.raises(BlockingIOError):
        taken.other.recv(100)
    assert taken.stranger.recv(100) == b"secret"
    await theirs.aclose()
    taken.close()


async def test_a_reader_woken_before_the_close_does_not_read_another_socket() -> None:
    for _ in range(20):
        ours, theirs = await make_pair()
        await theirs.send_all(b"one")
        await ours.receive_some()
        descriptor = ours._stream.socket.fileno()
        taken: list[Taken] = []

        def replace(ours: DirectSocketStream = ours, descriptor: int = descriptor, taken: list[Taken] = taken) -> None:
            ours._stream.socket.close()
            taken.append(take_descriptor(descriptor))
            taken[0].other.send(b"secret")

        with trio.fail_after(5):
            async with when_woken(ours, replace) as got:
                await theirs.send_all(b"two")
        assert got in ([b"two"], [b"closed"])
        assert taken[0].stranger.recv(100) == b"secret"
        await theirs.aclose()
        taken[0].close()


async def test_send_nowait_raises_during_and_after_an_incomplete_send_all() -> None:
    ours, theirs = await make_pair()
    async with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, bytes(MB))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                ours.send_nowait(b"in the middle")
            nursery.cancel_scope.cancel()
        with pytest.raises(trio.BusyResourceError):
            ours.send_nowait(b"in the middle")


class Sluggish(DirectSocketStream):
    """A stream that accepts a limited number of bytes per direct write, and collects all written bytes in `taken`."""

    def __init__(self, takes: int) -> None:
        self._takes = takes
        self.taken = b""
        self.is_closed = trio.Event()

    def send_nowait(self, data: bytes | bytearray) -> int:
        self.taken += data[: self._takes]
        return min(len(data), self._takes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.taken += bytes(data)

    async def aclose(self) -> None:
        self.is_closed.set()
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_buffered(stream: trio.abc.Stream) -> AsyncGenerator[BufferedStream]:
    buffered = BufferedStream(stream, InboundWatch(MB), lambda: None, lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffered.run_writer)
        yield buffered
        nursery.cancel_scope.cancel()


async def test_the_rest_of_a_partly_written_frame_is_written_first() -> None:
    stream = Sluggish(takes=3)
    async with open_buffered(stream) as buffered:
        buffered.append(b"abcdef")
        assert (stream.taken, buffered.bytes_held) == (b"abc", 3)
        buffered.append_ping(b"PING")
        buffered.append_pong(b"PONG")
        buffered.append(b"ghi")
        await buffered.flush()
        assert stream.taken == b"abcdefPINGPONGghi"
        assert buffered.bytes_held == 0


@pytest.mark.parametrize("control", ["ping", "pong"])
async def test_a_frame_does_not_overtake_a_waiting_control_frame(control: str) -> None:
    stream = Sluggish(takes=100)
    async with open_buffered(stream) as buffered:
        if control == "ping":
            buffered.append_ping(b"CONTROL")
        else:
            buffered.append_pong(b"CONTROL")
        buffered.append(b"frame")
        await buffered.flush()
        assert stream.taken == b"CONTROLframe"


async def test_gathered_frames_and_later_ones_are_written_in_order_by_the_writer() -> None:
    stream = Sluggish(takes=100)
    async with open_buffered(stream) as buffered:
        buffered.append(b"one", gather=True)
        buffered.append(b"two")
        assert stream.taken == b""
        await buffered.flush()
        buffered.append(b"three")
        assert (stream.taken, buffered.bytes_held) == (b"onetwothree", 0)


async def test_a_frame_after_the_end_of_the_stream_is_dropped() -> None:
    stream = Sluggish(takes=100)
    async with open_buffered(stream) as buffered:
        await buffered.force_close()
        buffered.append(b"late")
        assert (stream.taken, buffered.bytes_held) == (b"", 0)


async def test_a_broken_socket_ends_the_stream_after_a_silent_direct_write() -> None:
    ours, theirs = await make_pair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await theirs.aclose()
    with trio.fail_after(5):
        async with open_buffered(ours) as buffered:
            buffered.append(b"x")
            buffered.append(b"y")
            await buffered.flush()
            assert buffered.write_failed
        await ours.aclose()
