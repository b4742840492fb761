"""Invalid or slow frames end only their connection."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
import trio
import trio.testing
import trustme

from galaxy_trio._transport import inbound_limits
from galaxy_trio.server import ServerLimits
from galaxy_trio.testing import open_memory_server
from tests.server.support.clients import open_clients, register_constellation
from tests.server.support.evil_client import EVIL, empty_fragments, open_evil
from tests.server.support.raw_client import open_raw_client
from tests.support.passes import counting_passes


async def test_endless_empty_fragments_end_only_their_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    # Reaching the real limit would take seconds.
    monkeypatch.setattr(inbound_limits, "MAX_FRAGMENTS", 1000)
    async with open_clients() as clients, open_evil(clients) as evil:
        await evil.send_bytes(empty_fragments(1000))
        await trio.testing.wait_all_tasks_blocked()
        assert EVIL in clients.server.constellations
        await evil.send_bytes(b"\x00\x80mask")
        assert await evil.close_code() == 1009
        await trio.testing.wait_all_tasks_blocked()
        assert EVIL not in clients.server.constellations
        await clients.check()


async def test_other_tasks_run_while_many_empty_fragments_arrive_together() -> None:
    async with open_clients() as clients, open_evil(clients) as evil, counting_passes() as passes:
        # 128 KiB, which the library would parse in one step.
        fragments = empty_fragments(20_000)
        await evil.send_bytes(fragments)
        before = passes.count
        while clients.server.statistics().memory_held < 20_000 * 100:
            await trio.lowlevel.checkpoint()
        assert passes.count - before > len(fragments) / 4096


_BROKEN_FRAMES: dict[str, tuple[bytes, int]] = {
    "a frame without a mask": (b"\x81\x02{}", 1002),
    "a reserved bit": (b"\xc1\x80mask", 1002),
    "an unknown opcode": (b"\x83\x80mask", 1002),
    "a continuation of nothing": (b"\x80\x80mask", 1002),
    "a ping in fragments": (b"\x09\x80mask", 1002),
    "a ping of 126 bytes": (b"\x89\xfe\x00\x7emask" + bytes(126), 1002),
    "a text that is no UTF-8": (b"\x81\x81\x00\x00\x00\x00\xff", 1007),
    "a message announced as larger than the limit": (b"\x81\xff\x00\x00\x00\x00\x10\x00\x00\x00mask", 1009),
    "a length of 63 bits": (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xffmask", 1009),
    "no frame at all": (b"GET / HTTP/1.1\r\n\r\n", 1002),
}


@pytest.mark.parametrize("what", _BROKEN_FRAMES)
@pytest.mark.parametrize("registered", [True, False])
async def test_bytes_that_break_the_websocket_protocol_end_only_their_connection(
    what: str, registered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    data, code = _BROKEN_FRAMES[what]
    async with open_clients() as clients, open_raw_client(clients.server.connect()) as evil:
        if registered:
            await register_constellation(evil, EVIL)
        await evil.send_bytes(data)
        assert await evil.close_code() == code
        await trio.testing.wait_all_tasks_blocked()
        assert clients.server.statistics().connections == 2
        await clients.check()
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("registered", [True, False])
async def test_binary_frames_are_broken_messages_however_many_fragments_they_have(registered: bool) -> None:
    async with open_clients() as clients, open_raw_client(clients.server.connect()) as evil:
        if registered:
            await register_constellation(evil, EVIL)
        await evil.send_bytes(b"\x02\x82\x00\x00\x00\x00\x01\x02" + b"\x00\x80mask" + b"\x80\x81\x00\x00\x00\x00\x03")
        assert "a binary frame of 3 bytes" in str((await evil.receive())["error"])
        if not registered:
            assert await evil.close_code() == 1008
        await clients.check()


async def _drip(stream: trio.abc.Stream, data: bytes) -> None:
    """Send one byte per second until the stream ends."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for number in range(len(data)):
            await stream.send_all(data[number : number + 1])
            await trio.sleep(1)
        raise AssertionError("all was taken")


async def _closed_at(stream: trio.abc.Stream) -> float:
    with suppress(trio.BrokenResourceError), trio.fail_after(1000):
        while await stream.receive_some():
            pass
    return trio.current_time()


def _tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts of a server and of a client that trusts it."""
    authority = trustme.CA()
    of_server, of_client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("server.test").configure_cert(of_server)  # pyright: ignore[reportUnknownMemberType]
    authority.configure_trust(of_client)  # pyright: ignore[reportUnknownMemberType]
    return of_server, of_client


_REQUEST = b"GET /ws HTTP/1.1\r\nHost: server.test\r\nX: " + b"x" * 200


def _client_hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="server.test")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("what", ["HTTP", "TLS", "HTTP on TLS", "TLS and then nothing"])
async def test_handshake_of_one_byte_per_second_ends_at_the_handshake_timeout(
    what: str, autojump_clock: trio.testing.MockClock
) -> None:
    of_server, of_client = _tls()
    async with open_clients() as clients, trio.open_nursery() as nursery:
        client_end, server_end = trio.testing.memory_stream_pair()
        stream: trio.abc.Stream = client_end
        if what == "HTTP":
            nursery.start_soon(clients.server.serve_stream, server_end)
        else:
            secure = trio.SSLStream(server_end, of_server, server_side=True, https_compatible=True)
            nursery.start_soon(clients.server.serve_stream, secure)
        if what in ("HTTP on TLS", "TLS and then nothing"):
            stream = trio.SSLStream(client_end, of_client, server_hostname="server.test", https_compatible=True)
            await stream.do_handshake()
        if what != "TLS and then nothing":
            nursery.start_soon(_drip, stream, _client_hello(of_client) if what == "TLS" else _REQUEST)
        assert await _closed_at(stream) == 10
        await trio.testing.wait_all_tasks_blocked()
        assert clients.server.statistics().connections == 2
        await clients.check()


_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: server.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

_BEGUN_MESSAGE = b"\x81\xfe\x04\x00\x00\x00\x00\x00" + b" " * 1000

_CLOSE = b"\x88\x02"


def _frame(text: str) -> bytes:
    """A client's frame with a message of less than 126 bytes."""
    return b"\x81" + bytes((0x80 | len(text), 0, 0, 0, 0)) + text.encode()


@pytest.mark.parametrize("registered", [False, True])
async def test_client_that_never_completes_a_message_is_closed_at_its_timeout(
    registered: bool, autojump_clock: trio.testing.MockClock
) -> None:
    limits = ServerLimits(register_timeout=30, idle_timeout=100, liveness_timeout=50)
    async with open_memory_server(limits=limits) as server, trio.open_nursery() as nursery:
        stream = server.connect()
        await stream.send_all(_HANDSHAKE)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        if registered:
            await stream.send_all(_frame('{"type":"register","status":"ok","client_id":"evil"}'))
        nursery.start_soon(_drip, stream, _BEGUN_MESSAGE)
        received = bytearray()
        while _CLOSE + (1000 if registered else 1008).to_bytes(2) not in received:
            received += (data := await stream.receive_some())
            assert data, received
        assert trio.current_time() == (100 if registered else 30)
        assert server.clients() == []
        # The client does not answer the close frame, for which it has 3 s.
        assert await _closed_at(stream) == (103 if registered else 33)
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().connections == 0
