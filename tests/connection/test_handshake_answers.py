"""Only a valid 101 opens a connection; every other answer to the handshake fails it."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing
from wsproto.frame_protocol import FrameProtocol
from wsproto.utilities import generate_accept_token

from galaxy_trio import ConnectFailed, ConnectTimeout, HandshakeRejected, open_connection
from galaxy_trio._transport.inbound_limits import MAX_HEAD
from galaxy_trio.testing import PEER_URL, FaultyStream
from tests.connection.support.opening import Answer, fail_on_answer, fail_to_open, read_head


async def test_the_first_line_is_enough_for_a_rejection(autojump_clock: trio.testing.MockClock) -> None:
    error = await fail_on_answer(lambda _: b"HTTP/1.0 502 Bad Gateway\r\nServer: ")
    assert isinstance(error, HandshakeRejected)
    assert error.status_code == 502


@pytest.mark.parametrize(
    "greeting",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.test ESMTP\r\n",
        b"-ERR unknown command\r\n",
        b"J\x00\x00\x00\n8.0.36\x00\xff\xfe\x80",
        b"\x15\x03\x01\x00\x02\x02\x46",
        bytes(range(256)),
    ],
    ids=["ssh", "smtp", "redis", "mysql", "tls alert", "garbage"],
)
async def test_a_server_that_does_not_speak_http_fails_the_connection_immediately(
    greeting: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    error = await fail_on_answer(lambda _: greeting)
    assert type(error) is ConnectFailed
    assert str(error) == (
        "no WebSocket at ws://peer.test:80/ws: the server does not speak HTTP; if it uses TLS, its URL begins with wss://"
    )


def _accepting(
    *headers: bytes, token: bytes | None = None, upgrade: bytes = b"websocket", connection: bytes = b"Upgrade"
) -> Answer:
    """Make a valid 101, except for the given parts."""

    def answer(request: bytes) -> bytes:
        key = next(
            line.split(b": ")[1] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
        )
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: " + upgrade,
            b"Connection: " + connection,
            b"Sec-WebSocket-Accept: " + (token or generate_accept_token(key)),
            *headers,
        ]
        return b"\r\n".join([*lines, b"", b""])

    return answer


_INVALID_101: list[Answer] = [
    _accepting(token=b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    _accepting(b"Sec-WebSocket-Extensions: permessage-deflate"),
    _accepting(b"Sec-WebSocket-Protocol: aip"),
    _accepting(upgrade=b"h2c"),
    _accepting(connection=b"keep-alive"),
    lambda _: b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    _accepting(b"no header at all"),
]


@pytest.mark.parametrize(
    "answer",
    _INVALID_101,
    ids=["accept", "extension", "subprotocol", "upgrade", "connection", "nothing", "no header"],
)
async def test_an_invalid_101_fails_the_connection_immediately(
    answer: Answer, autojump_clock: trio.testing.MockClock
) -> None:
    error = await fail_on_answer(answer)
    assert type(error) is ConnectFailed
    assert str(error).startswith("no WebSocket at ws://peer.test:80/ws: its answer breaks the WebSocket protocol")


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
async def test_a_valid_101_and_the_confirmation_may_arrive_in_one_piece(line_end: bytes) -> None:
    # This also shows that each answer above fails because of its one fault.
    client_end, server_end = trio.testing.memory_stream_pair()
    confirmation = FrameProtocol(client=False, extensions=[]).send_data('{"type": "heartbeat", "status": "ok"}')

    async def serve() -> None:
        head = _accepting()(await read_head(server_end)).replace(b"\r\n", line_end)
        await server_end.send_all(head + confirmation)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.fail_after(60):
            async with open_connection(PEER_URL, "device_001", stream=client_end) as connection:
                assert not connection.closed
                # The server does not answer a close frame.
                await server_end.aclose()


async def test_an_oversized_head_is_refused_unread(
    autojump_clock: trio.testing.MockClock,
) -> None:
    error = await fail_on_answer(lambda _: b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * MAX_HEAD)
    assert type(error) is ConnectFailed
    assert str(error).endswith(f"it sent a handshake of more than {MAX_HEAD} bytes")


async def test_silence_is_a_timeout_that_closes_the_stream(autojump_clock: trio.testing.MockClock) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_end)
    error = await fail_to_open(PEER_URL, stream=stream, connect_timeout=7, within=8)
    assert trio.current_time() == pytest.approx(7)
    assert isinstance(error, ConnectTimeout)
    assert isinstance(error, trio.TooSlowError)
    assert stream.closed
    await read_head(server_end)
    assert await server_end.receive_some() == b""


async def test_a_slow_answer_does_not_extend_the_timeout(autojump_clock: trio.testing.MockClock) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()

    async def dribble() -> None:
        with suppress(trio.BrokenResourceError):
            for byte in b"HTTP/1.1 101 Switching Protocols\r\n" * 10:
                await server_end.send_all(bytes([byte]))
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        error = await fail_to_open(PEER_URL, stream=client_end, connect_timeout=7, within=8)
        assert trio.current_time() == pytest.approx(7)
        assert isinstance(error, ConnectTimeout)


@pytest.mark.parametrize("garbage", [b"\xff\xfe\x80\x81", b"HELO", b"+OK"])
async def test_garbage_without_a_line_break_fails_the_connection_immediately(
    garbage: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    assert "does not speak HTTP" in str(await fail_on_answer(lambda _: garbage))


async def test_an_invalid_101_is_reported_with_its_fault(autojump_clock: trio.testing.MockClock) -> None:
    answer = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-Websocket-Accept: abc\r\n\r\n"
    assert "breaks the WebSocket protocol: bad accept token" in str(await fail_on_answer(lambda _: answer))
