"""The places of HTTP connections: how long a client keeps one without a request, and which connection gives way to a newcomer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

import galaxy_trio.daemon.web.http1
import galaxy_trio.daemon.web.security
import galaxy_trio.daemon.web.serving
from galaxy_trio.daemon.web.connections import NoPlace, Places
from tests.daemon.support.http import APP, TOKEN, open_http, parse
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.responses import Response

    from tests.daemon.support.http import Http

pytestmark = pytest.mark.daemon

REQUEST = b"GET /open HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
BODY = (
    b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer " + TOKEN.encode() + b"\r\nContent-Length: 10\r\n\r\n{"
)
HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
IDLE = pytest.mark.parametrize(
    "sent",
    [b"", REQUEST[:20], REQUEST, REQUEST + REQUEST[:20]],
    ids=["nothing sent", "half a head", "idle after a response", "half a head after a response"],
)


async def much(_request: Request) -> Response:
    await trio.lowlevel.checkpoint()

    async def pieces() -> AsyncGenerator[bytes]:
        while True:
            await trio.lowlevel.checkpoint()
            yield b"x" * 65536

    return StreamingResponse(pieces())


async def _connect(http: Http, sent: bytes) -> trio.SocketStream:
    """Connect, send bytes, and read the responses to the complete requests among them."""
    stream = await trio.open_tcp_stream("127.0.0.1", http.port)
    await stream.send_all(sent)
    if REQUEST in sent:
        await _read_until(stream, b'"body":""}')
        # The connection becomes idle a moment after the response was sent.
        await trio.testing.wait_all_tasks_blocked(0.02)
    return stream


async def _read_until(stream: trio.SocketStream, end: bytes) -> None:
    received = b""
    with trio.fail_after(SECONDS):
        while not received.endswith(end):
            piece = await stream.receive_some()
            assert piece, received
            received += piece


async def _read_end(stream: trio.SocketStream) -> None:
    """Wait until the server closes the connection."""
    with trio.fail_after(SECONDS):
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


async def _wait_place(http: Http) -> None:
    """Wait until a request is answered."""
    with trio.fail_after(SECONDS):
        while parse(await http.raw(LAST)).status != 200:  # noqa: ASYNC110
            await trio.sleep(0.01)


@IDLE
async def test_connection_without_a_request_is_closed_after_a_time(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.serving, "_HEADERS_TIMEOUT", 0.3)
    async with open_http() as http, await _connect(http, sent) as stream:
        await _read_end(stream)


@IDLE
async def test_connection_without_a_request_gives_its_place_to_a_newcomer(sent: bytes) -> None:
    async with open_http(max_connections=1) as http, await _connect(http, sent) as stream:
        assert parse(await http.raw(LAST)).status == 200
        await _read_end(stream)


async def test_connection_that_has_been_idle_for_the_longest_time_gives_way_first() -> None:
    async with open_http(max_connections=2) as http:
        async with await _connect(http, REQUEST) as first, await _connect(http, REQUEST) as second:
            await first.send_all(REQUEST)
            await _read_until(first, b'"body":""}')
            await trio.testing.wait_all_tasks_blocked(0.02)
            async with await _connect(http, REQUEST):
                await _read_end(second)
                await first.send_all(REQUEST)
                await _read_until(first, b'"body":""}')


async def test_places_are_counted_correctly_after_they_were_given_away() -> None:
    async with open_http(max_connections=1) as http:
        streams = [await _connect(http, b"") for _ in range(4)]
        async with await _connect(http, BODY):
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert parse(await http.raw(LAST)).status == 503
        for stream in streams:
            await stream.aclose()
        await _wait_place(http)


async def test_two_newcomers_in_the_same_step_get_the_places_of_two_connections() -> None:
    places = Places(2)
    left: list[int] = []

    async def hold(number: int) -> None:
        with places.take():
            await trio.Event().wait()
        left.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, 1)
        nursery.start_soon(hold, 2)
        await trio.testing.wait_all_tasks_blocked()
        with places.take() as set_idle, places.take() as set_other_idle:
            set_idle(False)
            set_other_idle(False)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(left) == [1, 2]
            with pytest.raises(NoPlace):
                places.take().__enter__()


async def test_place_of_a_closed_connection_is_not_given_away_twice() -> None:
    await trio.lowlevel.checkpoint()
    places = Places(1)
    with places.take():
        pass
    with places.take() as set_idle:
        set_idle(False)
        with pytest.raises(NoPlace):
            places.take().__enter__()


async def test_refused_connections_are_limited_too() -> None:
    async with open_http(max_connections=1) as http, await _connect(http, BODY):
        await trio.testing.wait_all_tasks_blocked(0.02)
        async with await _connect(http, b"") as first:
            await _read_until(first, b'retry later"}')
            # While the first one is given time to read its answer, the second one is closed without any.
            assert await http.raw(b"") == b""


async def test_refused_connection_that_is_reset_affects_no_others(caplog: pytest.LogCaptureFixture) -> None:
    async with open_http(max_connections=1) as http:
        async with await _connect(http, BODY):
            await trio.testing.wait_all_tasks_blocked(0.02)
            refused = await _connect(http, b"")
            await _read_until(refused, b'retry later"}')
            refused.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            await refused.aclose()
            await trio.testing.wait_all_tasks_blocked(0.02)
        await _wait_place(http)
    assert caplog.messages == []


async def test_half_a_body_keeps_its_place_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.security, "_BODY_TIMEOUT", 0.5)
    async with open_http(max_connections=1) as http:
        async with await _connect(http, BODY) as stream:
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert parse(await http.raw(LAST)).status == 503
            await _read_end(stream)
            await _wait_place(http)


async def test_unread_response_keeps_its_place_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.http1, "_SEND_TIMEOUT", 0.5)
    app = Starlette(routes=[Route("/much", much), *APP.routes])
    async with open_http(app, secure=False, max_connections=1) as http:
        async with await _connect(http, LAST.replace(b"/open", b"/much")):
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert parse(await http.raw(LAST)).status == 503
            await _wait_place(http)


@pytest.mark.parametrize(
    "sent",
    [
        # Hypercorn passes a body in pieces, and waits until the application has received each.
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 10_000,
        # It answers a handshake without a key, and keeps the connection.
        b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        # No token is needed.
        BODY.replace(b"POST /echo", b"GET /open"),
    ],
    ids=["a body that is not read", "an invalid WebSocket handshake", "half a body for an open path"],
)
async def test_refused_request_leaves_its_place(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    send_all = trio.SocketStream.send_all

    async def send_slowly(stream: trio.SocketStream, data: bytes) -> None:
        await trio.sleep(0.02)
        await send_all(stream, data)

    # So that much of the body arrives while the refusal is sent.
    monkeypatch.setattr(trio.SocketStream, "send_all", send_slowly)
    async with open_http(max_connections=1) as http:
        async with await _connect(http, sent) as stream:
            await _read_end(stream)
            await _wait_place(http)


async def test_http_2_is_refused_at_its_preface_and_takes_no_place() -> None:
    async with open_http(max_connections=1) as http:
        streams = [await _connect(http, HTTP_2) for _ in range(20)]
        assert parse(await http.raw(LAST)).status == 200
        for stream in streams:
            await stream.aclose()
        assert parse(await http.raw(HTTP_2)).status == 505
        assert parse(await http.raw(b"PRI * HTTP/2.0\r\nHost: localhost\r\n\r\n")).status == 505
        after_a_request = await http.raw(REQUEST + HTTP_2)
        assert after_a_request.count(b"HTTP/1.1 200") == 1
        assert after_a_request.count(b"HTTP/1.1 505") == 1


@pytest.mark.parametrize("protocol", [b"h2c", b"H2C", b"websocket"])
async def test_upgrade_to_another_protocol_is_ignored(protocol: bytes) -> None:
    upgrade = b"\r\nConnection: close, Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: " + protocol
    async with open_http() as http:
        received = await http.raw(REQUEST.replace(b"\r\n\r\n", upgrade + b"\r\n\r\n"))
        assert received.startswith(b"HTTP/1.1 200")
        assert parse(received).status == 200


async def test_junk_in_a_refused_body_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with open_http() as http:
        for _ in range(30):
            await http.raw(head + b"10\r\n" + b"x" * 16 + b"\r\nzzz\r\n")
        assert (await http.ask()).status == 200
    assert caplog.messages == []
