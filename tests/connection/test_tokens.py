"""A token is a secret: whatever happens to a connection, no exception, no log line, no repr, no event and no count shows it."""

from __future__ import annotations

import logging
import traceback
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast
from urllib.parse import quote, quote_plus

import pytest
import trio
import trio.testing

from galaxy_trio import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    DeviceInfo,
    HandshakeRejected,
    RegistrationRejected,
    RequestTimeout,
    open_connection,
)
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._transport.url import check_headers, parse_url
from galaxy_trio.agent import open_device_connection
from galaxy_trio.events import LateReplyReceived
from galaxy_trio.server import ServerLimits, open_server
from galaxy_trio.testing import PEER_URL, FaultyStream, MemoryServer, ScriptedPeer, open_bare_peer, open_memory_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

_INFO = DeviceInfo("device_001", "linux")

TOKENS = ["s3cret-T0ken", "se cret&=?#/%2B+é☃\"'\\"]
"""One as servers make them, and one that is written differently wherever it is quoted."""


@pytest.fixture(params=TOKENS, ids=["plain", "special"])
def token(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture(autouse=True)
def every_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever any library logs is kept, down to the last detail."""
    caplog.set_level(1)
    for name in list(logging.root.manager.loggerDict):
        caplog.set_level(1, logger=name)


def _spellings(token: str) -> set[str]:
    """How a token may be written: as it is, quoted for a URL, in the repr of a string and in that of bytes."""
    spellings = {token, quote(token, safe=""), quote(token), quote_plus(token), quote(token, safe="/?%:@!$&'()*+,;=~")}
    return spellings | {repr(token)[1:-1], repr(token.encode())[2:-1], token.encode().decode("latin-1")}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and all that hangs on it, also what a traceback would not print."""
    if error is None:
        return
    yield error
    yield from _chain(error.__cause__)
    if error.__context__ is not error.__cause__:
        yield from _chain(error.__context__)
    if isinstance(error, BaseExceptionGroup):
        for member in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _chain(member)


def _words_of(thing: object) -> list[str]:
    words = [str(thing), repr(thing)]
    if isinstance(thing, BaseException):
        words += traceback.format_exception(thing)
        for error in _chain(thing):
            words += [str(error), repr(error), repr(error.args), repr(vars(error))]
    return words


def _shown_nowhere(token: str, caplog: pytest.LogCaptureFixture, *things: object) -> None:
    """Nothing of this, and no log line so far, shows the token."""
    words = [word for thing in things for word in _words_of(thing)]
    words.append(caplog.text)
    for record in caplog.records:
        words += [record.getMessage(), repr(record.msg), repr(record.args), record.exc_text or "", repr(vars(record))]
        if record.exc_info:
            words += _words_of(record.exc_info[1])
    shown = [word for word in words for spelling in _spellings(token) if spelling in word]
    assert not shown


# ---- that these tests see what they are for


async def test_these_tests_see_a_token_wherever_it_is(token: str, caplog: pytest.LogCaptureFixture) -> None:
    inner = ValueError("a URL", quote(token, safe="").encode())
    outer = RuntimeError("fine")
    outer.__context__ = inner
    outer.__suppress_context__ = True
    for thing in (
        inner,
        outer,
        ExceptionGroup("fine", [outer]),
        [token],
        {"url": f"/ws?token={quote(token, safe='')}"},
    ):
        with pytest.raises(AssertionError):
            _shown_nowhere(token, caplog, thing)
    _shown_nowhere(token, caplog, ValueError("fine"))
    logging.getLogger("some.library").debug("%r", token)
    with pytest.raises(AssertionError):
        _shown_nowhere(token, caplog)


# ---- connections that succeed


async def _converse(url: str, server: MemoryServer | None, token: str | None, session: str) -> list[object]:
    """Use a connection for all that it is for; what it shows of itself."""
    shown: list[object] = []

    def stream() -> trio.abc.Stream | None:
        return None if server is None else server.connect()

    with ExitStack() as subscription:
        async with (
            open_device_connection(url, "device_001", system_info=_INFO, token=token, stream=stream()) as device,
            open_connection(url, "device_001", token=token, stream=stream()) as connection,
        ):
            events = subscription.enter_context(connection.subscribe())
            shown += [await connection.device_info(), await connection.run_task("do it", task_id=session)]
            with pytest.raises(RequestTimeout) as caught:
                await connection.run_task("given up", timeout=0)
            shown += [caught.value, device, connection, connection.statistics()]
            # A reply to what was given up is an event.
            told = [await anext(events)]
            while not isinstance(told[-1], LateReplyReceived):
                told.append(await anext(events))
        told += [event async for event in events]
        shown += [device.recent_messages, *told]
    return [*shown, connection, await connection.wait_closed()]


async def test_a_connection_that_succeeds_shows_its_token_nowhere(token: str, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(60):
        async with open_server(token=token) as server:
            shown = await _converse(server.url, None, token, "t1")
            shown += [server, server.url, server.statistics()]
        async with open_memory_server(token=token) as memory_server:
            shown += [*await _converse(memory_server.url, memory_server, token, "t2"), memory_server]
    # What was logged is what would have shown it.
    logged = {record.name for record in caplog.records}
    assert {"galaxy_trio._connection.link", "galaxy_trio.server.server", "trio-websocket"} <= logged
    _shown_nowhere(token, caplog, *shown)


async def test_a_token_in_the_url_is_shown_nowhere_either(token: str, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(60):
        async with open_server(token=token) as server:
            url = f"{server.url}?token={quote(token, safe='')}"
            shown = await _converse(url, None, None, "t1")
    assert all(not isinstance(thing, Exception) or isinstance(thing, RequestTimeout) for thing in shown)
    _shown_nowhere(token, caplog, *shown, parse_url(url))


async def test_a_target_shows_no_token(token: str, caplog: pytest.LogCaptureFixture) -> None:
    _shown_nowhere(token, caplog, parse_url(PEER_URL, token), parse_url(PEER_URL, token).shown)


async def test_a_connection_that_is_lost_shows_its_token_nowhere(
    token: str, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    shown: list[object] = []
    for lose in (_reset, _end, _go_silent, _say_nonsense, _close):
        async with open_bare_peer() as peer, trio.open_nursery() as nursery:
            nursery.start_soon(_confirm, peer)
            async with open_connection(
                PEER_URL, "device_001", token=token, stream=peer.stream, heartbeat_interval=1000, liveness_timeout=50
            ) as connection:
                assert quote(token, safe="") in peer.path
                with connection.subscribe() as events:
                    nursery.start_soon(lose, peer)
                    with pytest.raises(ConnectionLost) as caught:
                        await connection.run_task("do it")
                    shown += [caught.value, connection, await connection.wait_closed()]
                    shown += [event async for event in events]
            # Nobody waits for a peer whose cable was pulled.
            nursery.cancel_scope.cancel()
    _shown_nowhere(token, caplog, *shown)


async def test_a_bug_that_comes_out_of_a_connection_shows_no_token(
    token: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Bug(Exception):
        pass

    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_confirm, peer)
        with pytest.raises(Bug) as caught:
            async with open_connection(PEER_URL, "device_001", token=token, stream=peer.stream):
                raise Bug
    _shown_nowhere(token, caplog, caught.value)


async def _confirm(peer: ScriptedPeer) -> None:
    await peer.receive()
    peer.confirm()


async def _reset(peer: ScriptedPeer) -> None:
    await peer.receive()
    peer.reset()


async def _end(peer: ScriptedPeer) -> None:
    await peer.abort()


async def _go_silent(peer: ScriptedPeer) -> None:
    await peer.receive()
    peer.go_silent()


async def _say_nonsense(peer: ScriptedPeer) -> None:
    await peer.receive()
    await peer.send_raw(b"\xff\xff\xff\xff")


async def _close(peer: ScriptedPeer) -> None:
    await peer.close(1011, "because")


# ---- connections that are refused


async def test_a_wrong_token_is_a_403_and_neither_it_nor_the_right_one_is_shown(
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
                    _shown_nowhere(secret, caplog, caught.value, server, server.statistics())
    assert any("was rejected with HTTP status 403" in record.getMessage() for record in caplog.records)
    _shown_nowhere(token, caplog)
    _shown_nowhere(right, caplog)


async def test_a_device_with_a_wrong_token_is_refused_just_so(token: str, caplog: pytest.LogCaptureFixture) -> None:
    async with open_memory_server(token="the-r1ght-one") as server:
        with trio.fail_after(60), pytest.raises(HandshakeRejected) as caught:
            async with open_device_connection(
                server.url, "device_001", system_info=_INFO, token=token, stream=server.connect()
            ):
                raise AssertionError("not reached")
    assert caught.value.status_code == 403
    _shown_nowhere(token, caplog, caught.value)
    _shown_nowhere("the-r1ght-one", caplog, caught.value)


async def test_a_missing_token_is_refused_and_the_right_one_is_not_shown(
    token: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_memory_server(token=token) as server:
        with trio.fail_after(60), pytest.raises(HandshakeRejected) as caught:
            async with open_connection(server.url, "device_001", stream=server.connect()):
                raise AssertionError("not reached")
    assert caught.value.status_code == 403
    _shown_nowhere(token, caplog, caught.value, server)


async def test_a_registration_that_is_refused_shows_no_token(token: str, caplog: pytest.LogCaptureFixture) -> None:
    async with open_memory_server(token=token) as server:
        with trio.fail_after(60), pytest.raises(RegistrationRejected) as caught:
            async with open_connection(server.url, "nobody", token=token, stream=server.connect()):
                raise AssertionError("not reached")
    _shown_nowhere(token, caplog, caught.value)


# ---- connections that fail


Fail: TypeAlias = "Callable[[str, str | None], Awaitable[None]]"


async def _no_listener(url: str, token: str | None) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with open_connection(url.replace("peer.test", f"127.0.0.1:{port}"), "device_001", token=token):
        raise AssertionError("not reached")


async def _silence(url: str, token: str | None) -> None:
    client_end, _server_end = trio.testing.memory_stream_pair()
    async with open_connection(url, "device_001", token=token, stream=client_end, connect_timeout=0.01):
        raise AssertionError("not reached")


async def _silence_after_the_handshake(url: str, token: str | None) -> None:
    async with (
        open_bare_peer() as peer,
        open_connection(url, "device_001", token=token, stream=peer.stream, register_timeout=0.01),
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
@pytest.mark.parametrize("in_url", [False, True], ids=["beside", "in the URL"])
async def test_a_connection_that_fails_shows_its_token_nowhere(
    failure: str, in_url: bool, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    url, beside = (f"{PEER_URL}?token={quote(token, safe='')}", None) if in_url else (PEER_URL, token)
    with trio.fail_after(60), pytest.raises(ConnectFailed) as caught:
        await _FAILURES[failure](url, beside)
    assert isinstance(caught.value, ConnectTimeout) == failure.startswith("silence")
    _shown_nowhere(token, caplog, caught.value)


# ---- what cannot be right


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
async def test_a_url_that_cannot_be_used_is_refused_without_its_token(
    url: str, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError) as caught:
        async with open_connection(url.format(quote(token, safe="")), "device_001"):
            raise AssertionError("not reached")
    _shown_nowhere(token, caplog, caught.value)


async def test_a_token_that_is_given_twice_is_refused_without_it(token: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="given twice") as caught:
        async with open_connection(f"{PEER_URL}?token={quote(token, safe='')}", "device_001", token=token):
            raise AssertionError("not reached")
    _shown_nowhere(token, caplog, caught.value)


@pytest.mark.parametrize("breaking", ["\r\n", "\n", "\0", "\u2028"])
async def test_a_token_in_a_header_value_that_is_refused_is_not_shown(
    breaking: str, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="the value of the header 'Authorization'") as caught:
        async with open_connection(PEER_URL, "device_001", headers=[("Authorization", f"Bearer {token}{breaking}")]):
            raise AssertionError("not reached")
    _shown_nowhere(token, caplog, caught.value)


async def test_a_token_in_a_header_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    async with open_bare_peer() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(_confirm, peer)
        headers = [("Authorization", f"Bearer {TOKENS[0]}")]
        async with open_connection(PEER_URL, "device_001", headers=headers, stream=peer.stream) as connection:
            assert (b"authorization", f"Bearer {TOKENS[0]}".encode()) in peer.headers
    _shown_nowhere(TOKENS[0], caplog, connection)


@pytest.mark.parametrize("name", ["Host", "sec-websocket-key"])
async def test_a_header_that_may_not_be_given_is_refused_without_its_value(
    name: str, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="belongs to the handshake") as caught:
        check_headers([(name, token)])
    _shown_nowhere(token, caplog, caught.value)


async def test_a_server_that_would_be_open_to_all_is_refused_and_one_with_a_token_does_not_show_it(
    token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="needs a token"):
        async with open_server("192.0.2.1"):
            raise AssertionError("not reached")
    with pytest.raises(ConfigError) as caught:
        async with open_server(token=token, limits=ServerLimits(max_connections=0)):
            raise AssertionError("not reached")
    _shown_nowhere(token, caplog, caught.value)


_GIVEN_BACK = "s3cret-T0ken"


def _redirect(head: bytes) -> bytes:
    return b"HTTP/1.1 301 Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % head.split()[1]


def _page(head: bytes) -> bytes:
    body = b"Cannot GET " + head.split()[1]
    return b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _same(head: bytes) -> bytes:
    return head


@pytest.mark.parametrize("answer", [_redirect, _page, _same])
async def test_a_token_that_the_server_gives_back_shows_nowhere(
    answer: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    # Whether the library has read the answer when the opening fails differs from run to run.
    for _ in range(20):
        client_end, server_end = trio.testing.memory_stream_pair()
        await _connect_to_what_answers(answer, client_end, server_end, caplog)


async def _connect_to_what_answers(
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
            async with open_connection(PEER_URL, "device_001", token=_GIVEN_BACK, stream=client_end):
                raise AssertionError("not reached")
    _shown_nowhere(_GIVEN_BACK, caplog, caught.value)
