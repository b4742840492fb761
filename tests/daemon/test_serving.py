"""The HTTP server's connections: their number, their timeouts and their end."""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

import galaxy_trio._concurrency.limited_log
import galaxy_trio.daemon.web.http1
import galaxy_trio.daemon.web.serving
from galaxy_trio.daemon.web.http1 import Http1Server
from tests.daemon.support.http import Http, open_http, parse
from tests.support.accepting import fail_to_accept
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

pytestmark = pytest.mark.daemon

REQUEST = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


class App:
    """An application with handlers that answer immediately, late, endlessly, or with an error."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.asked = trio.Event()
        self.cancelled = trio.Event()
        self.app = Starlette(
            routes=[
                Route("/hello", self.hello, methods=["GET", "POST"]),
                Route("/wait", self.wait),
                Route("/much", self.much),
                Route("/pieces", self.pieces),
                Route("/fail", self.fail),
            ]
        )

    async def hello(self, request: Request) -> Response:
        return PlainTextResponse(b"hello" + await request.body())

    async def wait(self, _request: Request) -> Response:
        self.asked.set()
        try:
            await self.go.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        return JSONResponse({})

    async def much(self, _request: Request) -> Response:
        await trio.lowlevel.checkpoint()

        async def pieces() -> AsyncGenerator[bytes]:
            try:
                while True:
                    self.asked.set()
                    await trio.lowlevel.checkpoint()
                    yield b"x" * 65536
            finally:
                self.cancelled.set()

        return StreamingResponse(pieces())

    async def pieces(self, _request: Request) -> Response:
        await trio.lowlevel.checkpoint()

        async def pieces() -> AsyncGenerator[bytes]:
            yield b"some "
            await trio.lowlevel.checkpoint()
            yield b"pieces"

        return StreamingResponse(pieces())

    async def fail(self, _request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a bug")


async def _connect(http: Http) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", http.port)


async def _hello(stream: trio.SocketStream) -> None:
    """Send a request on an open connection, and read the response."""
    await stream.send_all(REQUEST)
    received = b""
    with trio.fail_after(SECONDS):
        while not received.endswith(b"hello"):
            received += await stream.receive_some()


async def _read_all(stream: trio.SocketStream) -> bytes:
    received = b""
    with trio.fail_after(SECONDS):
        try:
            async for piece in stream:
                received += piece
        except trio.BrokenResourceError:
            pass
    return received


async def test_too_many_requests_are_refused_immediately_and_the_others_go_on() -> None:
    app = App()
    async with open_http(app.app, secure=False, max_connections=2) as http:
        async with await _connect(http) as first, await _connect(http) as second:
            for stream in (first, second):
                app.asked = trio.Event()
                await stream.send_all(REQUEST.replace(b"/hello", b"/wait"))
                await app.asked.wait()
            answer = parse(await http.raw(b""))
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert "too many connections" in answer.error
            app.go.set()
            for stream in (first, second):
                with trio.fail_after(SECONDS):
                    assert b"HTTP/1.1 200" in await stream.receive_some()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert parse(await http.raw(LAST)).status == 200


async def test_endless_headers_are_refused() -> None:
    async with open_http(App().app, secure=False) as http:
        assert b"200" not in (await http.raw(b"GET /hello HTTP/1.1\r\nX: ", *[b"x" * 50_000] * 3))[:20]
        assert parse(await http.raw(LAST)).status == 200


async def test_connection_with_slow_headers_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.serving, "_HEADERS_TIMEOUT", 0.2)
    async with open_http(App().app, secure=False) as http:
        with trio.fail_after(SECONDS):
            async with await _connect(http) as stream, trio.open_nursery() as nursery:

                async def trickle() -> None:
                    while True:
                        await stream.send_all(b"G")
                        await trio.sleep(0.01)

                nursery.start_soon(trickle)
                with contextlib.suppress(trio.BrokenResourceError):
                    assert await stream.receive_some() == b""
                nursery.cancel_scope.cancel()


async def test_response_in_pieces_to_http_1_0_ends_with_its_connection() -> None:
    async with open_http(App().app, secure=False) as http, await _connect(http) as stream:
        await stream.send_all(b"GET /pieces HTTP/1.0\r\nHost: localhost\r\n\r\n")
        # In less than the limit of an idle connection.
        assert (await _read_all(stream)).endswith(b"\r\n\r\nsome pieces")


async def test_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.serving, "_HEADERS_TIMEOUT", 0.5)
    async with open_http(App().app, secure=False) as http:
        assert parse(await http.raw(REQUEST)).body == b"hello"


async def test_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.http1, "_SEND_TIMEOUT", 0.1)
    app = App()
    async with open_http(app.app, secure=False) as http:
        async with await _connect(http) as stream:
            await stream.send_all(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with trio.fail_after(SECONDS):
                await app.cancelled.wait()


async def test_client_that_does_not_read_does_not_delay_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.http1, "_SEND_TIMEOUT", 0.3)
    monkeypatch.setattr(galaxy_trio.daemon.web.serving, "_GRACE", 0.1)
    app = App()
    with trio.fail_after(SECONDS):
        async with open_http(app.app, secure=False) as http:
            stream = await _connect(http)
            await stream.send_all(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await app.asked.wait()
        await stream.aclose()


async def test_closing_ends_idle_connections_immediately_and_gives_requests_time() -> None:
    app = App()
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            received: list[bytes] = []

            async def read(stream: trio.SocketStream) -> None:
                received.append(await _read_all(stream))

            async with open_http(app.app, secure=False) as http:
                idle, busy = await _connect(http), await _connect(http)
                await _hello(idle)
                await busy.send_all(REQUEST.replace(b"/hello", b"/wait"))
                nursery.start_soon(read, busy)
                await app.asked.wait()

                async def release() -> None:
                    assert await _read_all(idle) == b""
                    app.go.set()

                nursery.start_soon(release)
        assert parse(received[0]).status == 200
        await idle.aclose()
        await busy.aclose()


async def test_request_is_cancelled_when_its_time_to_close_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.serving, "_GRACE", 0.1)
    app = App()
    with trio.fail_after(SECONDS):
        async with open_http(app.app, secure=False) as http:
            stream = await _connect(http)
            await stream.send_all(REQUEST.replace(b"/hello", b"/wait"))
            await app.asked.wait()
        assert app.cancelled.is_set()
        await stream.aclose()


async def test_bug_in_a_handler_is_answered_with_500_and_other_requests_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async with open_http(App().app, secure=False) as http:
        for _ in range(3):
            answer = parse(await http.raw(LAST.replace(b"/hello", b"/fail")))
            assert answer.status == 500
            assert b"a bug" not in answer.body
        assert caplog.text.count("RuntimeError: a bug") == 1
        assert parse(await http.raw(LAST)).status == 200


async def test_failing_connections_are_logged_in_one_line_and_counted_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(galaxy_trio._concurrency.limited_log, "_INTERVAL", 0.5)
    original = Http1Server.run
    failing = [True] * 50

    async def run(server: Http1Server) -> None:
        if failing:
            failing.pop()
            await trio.lowlevel.checkpoint()
            raise ExceptionGroup("", [RuntimeError("a bug of\nanother library")])
        await original(server)

    monkeypatch.setattr(Http1Server, "run", run)
    async with open_http(App().app, secure=False) as http:
        for _ in range(50):
            assert await http.raw(LAST) == b""
        assert parse(await http.raw(LAST)).status == 200
        await until(lambda: "not logged" in caplog.text)
    logged = [
        message
        for message in caplog.messages
        if message == "a connection failed: RuntimeError: a bug of another library"
    ]
    # On a busy machine they take several intervals.
    counted = [
        int(message.split()[0]) for message in caplog.messages if message.endswith(" like the last one not logged")
    ]
    assert len(logged) + len(counted) == len(caplog.messages) < 20
    assert len(logged) + sum(counted) == 50
    assert "Traceback" not in caplog.text


async def test_lack_of_file_descriptors_is_logged_in_one_line_and_requests_are_answered_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail_to_accept(monkeypatch, errno.EMFILE, 3)
    async with open_http(App().app, secure=False) as http:
        assert parse(await http.raw(LAST)).status == 200
    assert caplog.messages == [
        "a connection cannot be accepted: Too many open files: close some, or raise the limit",
        "2 more problems like the last one not logged",
    ]
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x00" * 100,
        b"POST /hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: +3\r\n\r\nabc",
        b"POST /hello HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST /hello HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\x00: c\r\n\r\n",
    ],
)
async def test_malformed_request_is_refused_and_other_requests_go_on(request_: bytes) -> None:
    async with open_http(App().app, secure=False) as http:
        received = await http.raw(request_)
        assert b"hello" not in received
        assert parse(await http.raw(LAST)).status == 200


async def test_connection_reset_by_a_client_does_not_affect_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    app = App()
    async with open_http(app.app, secure=False) as http:
        for path in (b"/hello", b"/much", b"/wait"):
            stream = await _connect(http)
            await stream.send_all(REQUEST.replace(b"/hello", path))
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            await stream.aclose()
        assert parse(await http.raw(LAST)).status == 200
        app.go.set()
    assert caplog.text == ""


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with open_http(App().app, secure=False) as http:
        body = b"POST /hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n"
        received = await http.raw(body + b"1" + body + b"2" + LAST)
        assert [received.find(word) for word in (b"hello1", b"hello2")] == sorted(
            received.find(word) for word in (b"hello1", b"hello2")
        )
        assert received.count(b"HTTP/1.1 200") == 3
