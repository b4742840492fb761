"""A failed attempt to connect shows no token."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

import pytest
import trio
import trio.testing

from galaxy_trio import (
    ConfigError,
    ConnectFailed,
    ConnectionOptions,
    ConnectTimeout,
    HandshakeRejected,
    RegistrationRejected,
    open_connection,
)
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._transport.url import check_headers
from galaxy_trio.agent import open_device_connection
from galaxy_trio.server import ServerLimits, open_server
from galaxy_trio.testing import PEER_URL, FaultyStream, ScriptedPeer, open_bare_peer, open_memory_server
from tests.connection.support.leaks import INFO, assert_not_shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.usefixtures("every_log_line")


async def test_a_wrong_token_is_rejected_without_showing_it_or_the_right_one(
    token: str, caplog: pytest.LogCaptureFixture
) -> None:
    right = "the-r1ght-one"
    with trio.fail_after(60):
        async with open_server(token=right) as server:
            for url, given in ((server.url, token), (f"{server.url}?token={quote(token, safe='')}", None)):
                with pytest.raises(HandshakeRejected) as caught:
                    async with open_connection(url, "device_001", token=given):
                        raise AssertionError("not reached")
                assert caught.value.status_code == 403
                assert str(caught.value).endswith("HTTP status 403: is the token right?")
                for secret in (token, right):
                    assert_not_shown(secret, caplog, caught.value, server, server.statistics())
    assert any("was rejected with HTTP status 403" in record.getMessage() for record in caplog.records)
    assert_not_shown(token, caplog)
    assert_not_shown(right, caplog)


async def test_a_device_with_a_wrong_token_is_rejected_without_showing_it(
    token: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_memory_server(token="the-r1ght-one") as server:
        with trio.fail_after(60), pytest.raises(HandshakeRejected) as caught:
            async with open_device_connection(
                server.url, "device_001", system_info=INFO, token=token, stream=server.connect()
            ):
                raise AssertionError("not reached")
    assert caught.value.status_code == 403
    assert_not_shown(token, caplog, caught.value)
    assert_not_shown("the-r1ght-one", caplog, caught.value)


async def test_a_missing_token_is_rejected_without_showing_the_right_one(
    token: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_memory_server(token=token) as server:
        with trio.fail_after(60), pytest.raises(HandshakeRejected) as caught:
            async with open_connection(server.url, "device_001", stream=server.connect()):
                raise AssertionError("not reached")
    assert caught.value.status_code == 403
    assert_not_shown(token, caplog, caught.value, server)


async def test_a_refused_registration_shows_no_token(token: str, caplog: pytest.LogCaptureFixture) -> None:
    async with open_memory_server(token=token) as server:
        with trio.fail_after(60), pytest.raises(RegistrationRejected) as caught:
            async with open_connection(server.url, "unknown", token=token, stream=server.connect()):
                raise AssertionError("not reached")
    assert_not_shown(token, caplog, caught.value)


Fail: TypeAlias = "Callable[[str, str | None], Awaitable[None]]"


async def _no_listener(url: str, token: str | None) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with open_connection(url.replace("peer.test", f"127.0.0.1:{port}"), "device_001", token=token):
        raise AssertionError("not reached")


async def _silence(url: str, token: str | None) -> None:
    client_end, _server_end = trio.testing.memory_stream_pair()
    async with open_connection(
        url, "device_001", token=token, stream=client_end, options=ConnectionOptions(connect_timeout=0.01)
    ):
        raise AssertionError("not reached")


async def _silence_after_the_handshake(url: str, token: str | None) -> None:
    async with (
        open_bare_peer() as peer,
        open_connection(
            url, "device_001", token=token, stream=peer.stream, options=ConnectionOptions(register_timeout=0.01)
        ),
    ):
        raise AssertionError("not reached")


async def _answered(answer: bytes, url: str, token: str | None) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    await server_end.send_all(answer)
    await server_end.send_eof()
    async with open_connection(url, "device_001", token=token, stream=client_end):
        raise AssertionError("not reached")


async def _no_tls(url: str, token: str | None) -> None:
    await _answered(b"HTTP/1.1 400 Bad Request\r\n\r\n", url.replace("ws:", "wss:"), token)


async def _broken(url: str, token: str | None) -> None:
    client_end, _server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_end)
    stream.reset()
    async with open_connection(url, "device_001", token=token, stream=stream):
        raise AssertionError("not reached")


async def _lost_before_the_registration(url: str, token: str | None) -> None:
    async def close(peer: ScriptedPeer) -> None:
        await peer.receive()
        await peer.close(1011, "because")

    async with open_bare_peer() as peer, open_background() as nursery:
        nursery.start_soon(close, peer)
        async with open_connection(url, "device_001", token=token, stream=peer.stream):
            raise AssertionError("not reached")


_FAILURES: dict[str, Fail] = {
    "no listener": _no_listener,
    "silence": _silence,
    "silence after the handshake": _silence_after_the_handshake,
    "lost before the registration": _lost_before_the_registration,
    "no TLS": _no_tls,
    "broken": _broken,
    "end": partial(_answered, b""),
    "end in the head": partial(_answered, b"HTTP/1.1 101 Sw"),
    "rejected": partial(_answered, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    "no HTTP": partial(_answered, b"SSH-2.0-OpenSSH_9.2\r\n"),
    "no WebSocket": partial(_answered, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    "too much": partial(_answered, b"HTTP/1.1 101 Switching Protocols\r\n" + b"x" * 100_000),
}


@pytest.mark.parametrize("failure", _FAILURES)
@pytest.mark.parametrize("in_url", [False, True], ids=["separate", "in the URL"])
async def test_a_failed_connection_shows_no_token(
    failure: str, in_url: bool, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    url, separate = (f"{PEER_URL}?token={quote(token, safe='')}", None) if in_url else (PEER_URL, token)
    with trio.fail_after(60), pytest.raises(ConnectFailed) as caught:
        await _FAILURES[failure](url, separate)
    assert isinstance(caught.value, ConnectTimeout) == failure.startswith("silence")
    assert_not_shown(token, caplog, caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "ws://peer.test/ws?token={}&token=x#there",
        "http://peer.test/ws?token={}",
        "peer.test/ws?token={}",
        "ws://peer.test:99999/ws?token={}",
        "ws://peer.test:port/ws?token={}",
        "ws://peer.test:0/ws?token={}",
        "ws://[::1/ws?token={}",
        "ws:///ws?token={}",
        "ws://user:{}@peer.test/ws",
        "ws://{}@peer.test/ws",
        "ws://..:80/ws?token={}",
        "ws://peer.test/ws#{}",
    ],
)
async def test_an_unusable_url_is_refused_without_showing_its_token(
    url: str, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError) as caught:
        async with open_connection(url.format(quote(token, safe="")), "device_001"):
            raise AssertionError("not reached")
    assert_not_shown(token, caplog, caught.value)


async def test_a_token_given_twice_is_refused_without_showing_it(token: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="given twice") as caught:
        async with open_connection(f"{PEER_URL}?token={quote(token, safe='')}", "device_001", token=token):
            raise AssertionError("not reached")
    assert_not_shown(token, caplog, caught.value)


@pytest.mark.parametrize("breaking", ["\r\n", "\n", "\0", "\u2028"])
async def test_a_token_in_a_refused_header_value_is_not_shown(
    breaking: str, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="the value of the header 'Authorization'") as caught:
        async with open_connection(PEER_URL, "device_001", headers=[("Authorization", f"Bearer {token}{breaking}")]):
            raise AssertionError("not reached")
    assert_not_shown(token, caplog, caught.value)


@pytest.mark.parametrize("name", ["Host", "sec-websocket-key"])
async def test_a_forbidden_header_is_refused_without_showing_its_value(
    name: str, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="belongs to the handshake") as caught:
        check_headers([(name, token)])
    assert_not_shown(token, caplog, caught.value)


async def test_a_server_with_unusable_arguments_shows_no_token(token: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="needs a token"):
        async with open_server("192.0.2.1"):
            raise AssertionError("not reached")
    with pytest.raises(ConfigError) as caught:
        async with open_server(token=token, limits=ServerLimits(max_connections=0)):
            raise AssertionError("not reached")
    assert_not_shown(token, caplog, caught.value)


_ECHOED = "s3cret-T0ken"


def _redirect(head: bytes) -> bytes:
    return b"HTTP/1.1 301 Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % head.split()[1]


def _page(head: bytes) -> bytes:
    body = b"Cannot GET " + head.split()[1]
    return b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _same(head: bytes) -> bytes:
    return head


@pytest.mark.parametrize("answer", [_redirect, _page, _same])
async def test_a_token_that_the_server_echoes_is_not_shown(
    answer: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    # Whether the library has read the answer when opening fails differs from run to run.
    for _ in range(20):
        client_end, server_end = trio.testing.memory_stream_pair()
        await _connect_to_echo(answer, client_end, server_end, caplog)


async def _connect_to_echo(
    answer: Callable[[bytes], bytes],
    client_end: trio.abc.Stream,
    server_end: trio.abc.Stream,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def serve() -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await server_end.receive_some()
        await server_end.send_all(answer(head))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.fail_after(60), pytest.raises(ConnectFailed) as caught:
            async with open_connection(PEER_URL, "device_001", token=_ECHOED, stream=client_end):
                raise AssertionError("not reached")
    assert_not_shown(_ECHOED, caplog, caught.value)
