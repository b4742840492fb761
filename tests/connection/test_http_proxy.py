"""A connection through an HTTP proxy: CONNECT, its answers, and the errors that tell the proxy from the server."""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio import ConnectFailed, ConnectionOptions, ConnectTimeout, HandshakeRejected, open_connection
from galaxy_trio._transport.http_connect import connect_through
from galaxy_trio._transport.inbound_limits import MAX_HEAD
from galaxy_trio._transport.proxy import parse_proxy
from galaxy_trio._transport.url import parse_url
from galaxy_trio.agent import open_device_connection
from galaxy_trio.testing import FaultyStream, MemoryServer, open_memory_server
from tests.connection.support.cancellation import open_and_cancel_at_step
from tests.connection.support.http_proxy import ESTABLISHED, PROXY_URL, MemoryProxy
from tests.connection.support.leaks import INFO, assert_not_shown
from tests.connection.support.opening import read_head

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

URL = "ws://server.test:5000/ws"
THROUGH = f"no connection to {URL} through the proxy {PROXY_URL}: "

_NO_CREDENTIALS = ": put user and password into its URL, as in http://user:password@host:port (Basic authentication)"
_UNREACHABLE = ": it cannot reach the server; is the server running, and is its URL right?"
_NOT_HTTP = "the proxy does not speak HTTP; is its URL right, and does it begin with https:// if the proxy uses TLS?"
_EXTRA = "the proxy sent data after its answer; is it an HTTP proxy, or does a login page answer?"
_ENDED = "the proxy ended the connection before its answer was complete"


@asynccontextmanager
async def _open_server(token: str | None = None) -> AsyncGenerator[tuple[MemoryServer, MemoryProxy]]:
    """Run a server in memory behind a proxy, with one device."""
    async with open_memory_server(token=token) as server, trio.open_nursery() as nursery:
        async with open_device_connection(URL, "device_001", system_info=INFO, token=token, stream=server.connect()):
            yield server, MemoryProxy(nursery, server.serve_stream)
        nursery.cancel_scope.cancel()


async def _fail(
    answer: bytes,
    *,
    proxy_url: str = PROXY_URL,
    url: str = URL,
    then_close: bool = False,
    connect_timeout: float = 60.0,
) -> ConnectFailed:
    """Open a connection through a proxy that gives this answer. The client must fail, and leave."""
    client_end, proxy_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_end)

    async def serve() -> None:
        await read_head(proxy_end)
        await proxy_end.send_all(answer)
        if then_close:
            await proxy_end.send_eof()
        # The beginning of TLS, if the tunnel is open.
        while await proxy_end.receive_some():
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(ConnectFailed) as caught:
            async with open_connection(
                url,
                "device_001",
                token="t0ken",
                stream=stream,
                options=ConnectionOptions(proxy=proxy_url, connect_timeout=connect_timeout),
            ):
                raise AssertionError("not reached")
        assert stream.closed
    return caught.value


async def test_connection_through_a_proxy_works_like_a_direct_one() -> None:
    async with _open_server(token="t0ken") as (_, proxy):
        options = ConnectionOptions(proxy=PROXY_URL)
        async with open_connection(
            URL, "device_001", token="t0ken", stream=proxy.connect(), options=options
        ) as connection:
            assert (await connection.device_info()).device_id == "device_001"
            assert (await connection.run_task("do it")).unwrap() == {"echo": "do it"}
    # Neither the path nor the token.
    assert proxy.requests == [b"CONNECT server.test:5000 HTTP/1.1\r\nHost: server.test:5000\r\n\r\n"]


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("ws://server.test", b"server.test:80"),
        ("ws://b\u00fccher.example/ws", b"xn--bcher-kva.example:80"),
        ("ws://[2001:db8::1]:5000", b"[2001:db8::1]:5000"),
        ("ws://10.0.0.1", b"10.0.0.1:80"),
        ("ws://localhost:1", b"localhost:1"),
    ],
)
async def test_the_proxy_gets_the_host_as_it_is_given(url: str, authority: bytes) -> None:
    async with _open_server() as (_, proxy):
        options = ConnectionOptions(proxy=PROXY_URL)
        async with open_connection(url, "device_001", stream=proxy.connect(), options=options):
            pass
    assert proxy.requests == [b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority)]


async def test_credentials_are_sent_to_the_proxy_and_shown_to_nothing(
    caplog: pytest.LogCaptureFixture, every_log_line: None
) -> None:
    user, password = "corp\\jane", "s3:cret/?#@"
    url = "http://corp%5Cjane:s3%3Acret%2F%3F%23%40@proxy.test:3128"
    expected = base64.b64encode(f"{user}:{password}".encode())
    seen: list[object] = []
    async with _open_server() as (server, proxy):
        options = ConnectionOptions(proxy=url)
        async with open_connection(
            URL, "device_001", stream=proxy.connect(), options=options, on_event=seen.append
        ) as connection:
            await connection.device_info()
            seen += [options, connection, connection.statistics(), server.statistics()]
    [request] = proxy.requests
    assert request.endswith(b"\r\nProxy-Authorization: Basic " + expected + b"\r\n\r\n")
    assert f"reaching {URL} through the proxy {PROXY_URL}" in caplog.text
    for status in (b"407", b"403", b"502", b"200", b"302"):
        answer = b"HTTP/1.1 %b %b\r\nX: %b\r\n\r\n%b" % (status, request, request, expected)
        seen.append(await _fail(answer.replace(b"\r\n\r\nX", b"\r\nX"), proxy_url=url))
    for secret in (user, password, expected.decode(), "jane", "s3%3Acret"):
        assert_not_shown(secret, caplog, *seen)


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        ("407 Proxy Authentication Required", _NO_CREDENTIALS),
        ("403 Forbidden", ": does it allow connections to this host and port? Its operator can tell"),
        ("502 Bad Gateway", _UNREACHABLE),
        ("503 Service Unavailable", _UNREACHABLE),
        ("405 Method Not Allowed", ": does it support the method CONNECT?"),
        ("302 Found", ": does it ask for a login in a browser?"),
        ("429 Too Many Requests", ": it has too many requests; try again later"),
        ("418 I'm a teapot", ""),
        ("101 Switching Protocols", ""),
    ],
)
@pytest.mark.parametrize("then_close", [False, True], ids=["stays", "closes"])
async def test_refusal_of_the_proxy_is_no_refusal_of_the_server(status: str, hint: str, then_close: bool) -> None:
    page = b"<html>" + b"x" * 1000
    error = await _fail(
        b"HTTP/1.1 %b\r\nContent-Type: text/html\r\n\r\n%b" % (status.encode(), page), then_close=then_close
    )
    # Not HandshakeRejected: it would count as a refused token.
    assert (type(error), error.proxy) == (ConnectFailed, PROXY_URL)
    assert str(error) == f"{THROUGH}the proxy answered with HTTP status {status[:3]}{hint}"


@pytest.mark.parametrize("status", [401, 407])
async def test_refused_credentials_differ_from_missing_ones(status: int) -> None:
    error = await _fail(b"HTTP/1.1 %d No\r\n\r\n" % status, proxy_url="http://user:s3cret@proxy.test:3128")
    assert str(error) == (
        f"{THROUGH}the proxy answered with HTTP status {status}: "
        "are user and password in its URL right, and does it accept Basic authentication?"
    )


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://login.test/", "https://login.test:443/"),
        ("/login?user=jane", "http://proxy.test:3128/login"),
        ("http://jane:s3cret@login.test/s3cret", "http://login.test:80/…"),
        ("/jane", "http://proxy.test:3128/…"),
        ("/amFuZTpzM2NyZXQ=", "http://proxy.test:3128/…"),
    ],
)
async def test_redirect_of_the_proxy_says_where_to_without_secrets(location: str, shown: str) -> None:
    answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n<html>".encode()
    error = await _fail(answer, proxy_url="http://jane:s3cret@proxy.test:3128")
    problem = f"it redirects to {shown}; does it ask for a login in a browser?"
    assert str(error) == f"{THROUGH}the proxy answered with HTTP status 302: {problem}"


@pytest.mark.parametrize("head", [b"HTTP/1.0 403 No\r\n", b"HTTP/1.1 407 No\r\nProxy-Authent"])
async def test_first_line_of_a_refusal_is_enough(head: bytes, autojump_clock: trio.testing.MockClock) -> None:
    assert "the proxy answered with HTTP status 40" in str(await _fail(head))
    assert trio.current_time() < 60


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", _ENDED),
        (b"HTTP/1.1 200 O", _ENDED),
        (b"HTTP/1.1 200 OK\r\nVia: x\r\n", _ENDED),
        (b"SSH-2.0-OpenSSH_9.2\r\n", _NOT_HTTP),
        (b"\x15\x03\x01\x00\x02\x02\x46", _NOT_HTTP),
        (b"<html>", _NOT_HTTP),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", _EXTRA),
        (ESTABLISHED + ESTABLISHED, _EXTRA),
        (
            b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * MAX_HEAD,
            f"the proxy sent a handshake of more than {MAX_HEAD} bytes",
        ),
    ],
)
async def test_answer_that_opens_no_tunnel_fails_immediately(
    answer: bytes, problem: str, autojump_clock: trio.testing.MockClock
) -> None:
    error = await _fail(answer, then_close=True)
    assert (type(error), error.proxy) == (ConnectFailed, PROXY_URL)
    assert str(error) == THROUGH + problem
    assert trio.current_time() < 60


async def test_stream_that_breaks_during_connect_is_the_errors_cause() -> None:
    client_end, proxy_end = trio.testing.memory_stream_pair()
    await proxy_end.aclose()
    with pytest.raises(ConnectFailed, match="the proxy ended the connection before its answer was complete") as caught:
        async with open_connection(URL, "device_001", stream=client_end, options=ConnectionOptions(proxy=PROXY_URL)):
            raise AssertionError("not reached")
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nVia:"], ids=["nothing", "half a head"])
async def test_silent_proxy_is_a_timeout_that_names_the_proxy(
    answer: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    error = await _fail(answer, connect_timeout=7)
    assert trio.current_time() == pytest.approx(7)
    assert (type(error), error.proxy) == (ConnectTimeout, PROXY_URL)
    assert str(error) == f"no connection to {URL}: the proxy {PROXY_URL} did not answer within 7 s"


async def test_slow_proxy_does_not_extend_the_timeout(autojump_clock: trio.testing.MockClock) -> None:
    client_end, proxy_end = trio.testing.memory_stream_pair()

    async def dribble() -> None:
        with pytest.raises(trio.BrokenResourceError):
            for byte in b"HTTP/1.1 200 OK\r\n" * 100:
                await proxy_end.send_all(bytes([byte]))
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        with pytest.raises(ConnectTimeout):
            async with open_connection(
                URL,
                "device_001",
                stream=client_end,
                options=ConnectionOptions(proxy=PROXY_URL, connect_timeout=7),
            ):
                raise AssertionError("not reached")
        assert trio.current_time() == pytest.approx(7)


async def test_silent_server_behind_a_proxy_is_a_timeout_that_names_the_server(
    autojump_clock: trio.testing.MockClock,
) -> None:
    error = await _fail(ESTABLISHED, url="wss://server.test", connect_timeout=7)
    assert (type(error), error.proxy) == (ConnectTimeout, None)
    assert str(error) == (
        f"no connection to wss://server.test:443/ws through the proxy {PROXY_URL}: the server did not answer within 7 s"
    )


async def test_refusal_of_a_server_behind_a_proxy_is_the_servers() -> None:
    async with _open_server(token="right") as (_, proxy):
        with pytest.raises(HandshakeRejected) as caught:
            async with open_connection(
                URL, "device_001", token="wrong", stream=proxy.connect(), options=ConnectionOptions(proxy=PROXY_URL)
            ):
                raise AssertionError("not reached")
    assert (caught.value.status_code, caught.value.proxy) == (403, None)
    assert str(caught.value).startswith(f"{URL} answered the WebSocket handshake with HTTP status 403")


async def test_proxy_of_the_environment_is_not_asked_on_a_given_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY_URL)
    async with _open_server() as (server, _):
        async with open_connection(
            URL, "device_001", stream=server.connect(), options=ConnectionOptions(proxy=True)
        ) as connection:
            await connection.device_info()


async def test_cancelling_at_any_step_leaves_nothing_open() -> None:
    async with _open_server() as (server, proxy):
        step = 0
        opened = False
        while not opened:
            step += 1
            stream = FaultyStream(proxy.connect())
            opened = await open_and_cancel_at_step(
                step, open_connection(URL, "device_001", stream=stream, options=ConnectionOptions(proxy=PROXY_URL))
            )
            assert stream.closed
            with trio.fail_after(60):
                while server.statistics().connections > 1:
                    await trio.testing.wait_all_tasks_blocked()
        assert step > 5


async def test_endless_answer_of_the_proxy_is_refused_at_its_limit() -> None:
    client_end, proxy_end = trio.testing.memory_stream_pair()
    sent = 0

    async def serve() -> None:
        nonlocal sent
        with pytest.raises(trio.BrokenResourceError):
            await proxy_end.send_all(b"HTTP/1.1 200 OK\r\n")
            while True:
                await proxy_end.send_all(b"X: y\r\n")
                sent += 6

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.fail_after(60), pytest.raises(ConnectFailed, match="the proxy sent a handshake of more than"):
            async with open_connection(
                URL, "device_001", stream=client_end, options=ConnectionOptions(proxy=PROXY_URL)
            ):
                raise AssertionError("not reached")
    assert sent < 2 * MAX_HEAD


class InPieces(FaultyStream):
    """A stream that delivers at most `size` bytes at a time."""

    def __init__(self, stream: trio.abc.Stream, size: int) -> None:
        super().__init__(stream)
        self._size = size

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        del max_bytes
        return await super().receive_some(self._size)


_HEADS = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.0 407 No",
    b"\r\n",
    b"\n",
    b"Via: x",
    b"Content-Length: 9",
    b"<html>",
    b"\x15\x03\x01",
    b"\xff",
]


@given(st.lists(st.sampled_from(_HEADS) | st.binary(max_size=20), max_size=8).map(b"".join), st.integers(1, 50))
async def test_any_answer_opens_a_tunnel_or_is_one_sentence_however_it_is_cut(answer: bytes, size: int) -> None:
    proxy = parse_proxy("http://user:s3cret@proxy.test:3128")

    async def ask(size: int) -> str:
        client_end, proxy_end = trio.testing.memory_stream_pair()
        await proxy_end.send_all(answer)
        await proxy_end.send_eof()
        try:
            await connect_through(InPieces(client_end, size), proxy, parse_url(URL))
        except ConnectFailed as error:
            return str(error)
        return "opened"

    whole = await ask(len(answer) + 1)
    assert whole == "opened" or whole.startswith(THROUGH)
    assert "s3cret" not in whole
    assert whole.isascii()
    assert whole.isprintable()
    in_pieces = await ask(size)
    # Data after the answer may arrive later than the answer.
    assert in_pieces == whole or (in_pieces, whole) == ("opened", THROUGH + _EXTRA)
