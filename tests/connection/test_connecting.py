"""A failed TCP connection or handshake raises one sentence with the reason, and leaves nothing open."""

from __future__ import annotations

import socket
import ssl
import struct
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, ConnectFailed, ConnectTimeout, DeviceInfo, HandshakeRejected, open_connection
from galaxy_trio.agent import open_device_connection
from galaxy_trio.testing import open_memory_server
from tests.connection.support.opening import Handler, Resolver, fail_to_open, listen, read_head
from tests.connection.support.sockets import open_sockets

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture
def refusing_port() -> Generator[int]:
    """A loopback port that refuses connections, and that no other process can take."""
    with socket.socket() as bound:
        bound.bind(("0.0.0.0", 0))  # noqa: S104  # nothing listens
        yield bound.getsockname()[1]


async def test_a_refused_connection_names_the_url_and_the_cause(refusing_port: int) -> None:
    url = f"ws://127.0.0.1:{refusing_port}/ws"
    before = open_sockets()
    error = await fail_to_open(url)
    assert open_sockets() <= before
    assert type(error) is ConnectFailed
    assert str(error) == f"cannot connect to {url}: connection refused; is the server running, and at this port?"
    assert isinstance(error.__cause__, OSError)


async def test_an_unreachable_address_is_reported_in_the_systems_words() -> None:
    # The broadcast address.
    error = await fail_to_open("ws://255.255.255.255:9/ws")
    assert type(error) is ConnectFailed
    assert str(error).startswith("cannot connect to ws://255.255.255.255:9/ws: ")
    assert not str(error).endswith("?")


@pytest.mark.parametrize("code", [socket.EAI_NONAME, 8], ids=["here", "on macOS"])
async def test_an_unknown_host_name_is_reported_in_the_resolvers_words(code: int) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(code=code))
    before = open_sockets()
    error = await fail_to_open("ws://nowhere.test:8765/ws")
    assert open_sockets() <= before
    assert type(error) is ConnectFailed
    assert (
        str(error)
        == "cannot connect to ws://nowhere.test:8765/ws: name or service not known; is the host's name right?"
    )
    assert isinstance(error.__cause__, socket.gaierror)


async def test_a_resolver_that_does_not_answer_is_a_timeout(autojump_clock: trio.testing.MockClock) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(answers=False))
    error = await fail_to_open("ws://slow.test/ws", connect_timeout=7, within=8)
    assert trio.current_time() == pytest.approx(7)
    assert isinstance(error, ConnectTimeout)
    assert isinstance(error, trio.TooSlowError)
    assert str(error) == "no connection to ws://slow.test:80/ws within 7 s"


async def test_the_second_address_is_tried_when_the_first_refuses() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver("::1", "127.0.0.1"))
    async with open_memory_server() as server, listen(server.serve_stream) as listener:
        with trio.fail_after(60):
            async with open_device_connection(
                f"ws://two.test:{listener.port}/ws", "device_001", system_info=DeviceInfo("device_001", "linux")
            ):
                assert server.devices == ["device_001"]


async def test_the_first_reason_is_reported_when_all_addresses_refuse(refusing_port: int) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver("127.0.0.1", "127.0.0.2", "127.0.0.3"))
    before = open_sockets()
    error = await fail_to_open(f"ws://three.test:{refusing_port}/ws")
    assert open_sockets() <= before
    assert ": connection refused; is the server running" in str(error)
    assert isinstance(error.__cause__, OSError)
    group = cast("ExceptionGroup[Exception] | None", error.__cause__.__cause__)
    assert group is not None
    assert len(group.exceptions) == 3


async def test_a_silent_listener_is_a_timeout(mock_clock: trio.testing.MockClock) -> None:
    async def accept(stream: trio.SocketStream) -> None:
        await read_head(stream)
        mock_clock.jump(7)

    async with listen(accept) as listener:
        error = await fail_to_open(listener.url, connect_timeout=7, within=8)
        assert isinstance(error, ConnectTimeout)
        assert isinstance(error, trio.TooSlowError)
        assert "'device_001'" in str(error)
        await listener.wait_all_gone()
        assert listener.gone == 1


async def _close(stream: trio.SocketStream) -> None:
    await stream.aclose()


async def _reset(stream: trio.SocketStream) -> None:
    await read_head(stream)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


async def _close_after_request(stream: trio.SocketStream) -> None:
    await read_head(stream)
    await stream.aclose()


async def _close_in_head(stream: trio.SocketStream) -> None:
    await read_head(stream)
    await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso")
    await stream.aclose()


async def _end_in_head(stream: trio.SocketStream) -> None:
    """End the stream, and keep the socket open until the client closes its own."""
    await read_head(stream)
    await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso")
    await stream.send_eof()


_MAYBE_TLS = "; if it uses TLS, its URL begins with wss://"


@pytest.mark.parametrize(
    ("handler", "hint"),
    [
        (_close, _MAYBE_TLS),
        (_reset, _MAYBE_TLS),
        (_close_after_request, _MAYBE_TLS),
        (_close_in_head, ""),
        (_end_in_head, ""),
    ],
)
async def test_a_listener_that_ends_the_connection_fails_it_immediately(handler: Handler, hint: str) -> None:
    async with listen(handler) as listener:
        error = await fail_to_open(listener.url)
        assert type(error) is ConnectFailed
        assert str(error) == f"no WebSocket at {listener.url}: it ended the connection during the handshake{hint}"


async def test_a_reset_during_the_handshake_is_the_errors_cause() -> None:
    async with listen(_reset) as listener:
        error = await fail_to_open(listener.url)
        assert isinstance(error.__cause__, trio.BrokenResourceError)


async def test_an_incomplete_403_is_an_immediate_rejection() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n0123456789")

    async with listen(answer) as listener:
        error = await fail_to_open(listener.url)
        assert isinstance(error, HandshakeRejected)
        assert error.status_code == 403
        # The listener's end is still open, so the client has closed its own.
        await listener.wait_all_gone()
        assert listener.gone == 1


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\n", b"X-Padding: and so on\r\n" * 100),
        (b"HTTP/1.1 101 Switching Protocols\r\n", b"x" * 1000),
        (b"", b"x" * 1000),
    ],
    ids=["headers", "one header", "no line"],
)
async def test_an_endless_answer_is_refused_before_it_takes_memory(start: bytes, piece: bytes) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(start)
        while True:
            await stream.send_all(piece)

    async with listen(answer) as listener:
        error = await fail_to_open(listener.url)
        assert type(error) is ConnectFailed
        assert str(error).startswith(f"no WebSocket at {listener.url}: ")


async def test_a_servers_tls_context_is_refused_without_leaving_a_socket_open() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        url = f"wss://127.0.0.1:{listener.socket.getsockname()[1]}/ws"
        with pytest.raises(ConfigError, match="ssl_context cannot be used"):
            async with open_connection(url, "device_001", ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)):
                raise AssertionError("not reached")
        stream = await listener.accept()
        with trio.fail_after(60):
            assert await stream.receive_some() == b""
        await stream.aclose()


async def test_a_default_tls_context_that_cannot_be_made_leaves_no_socket_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A folder, where the keys of TLS sessions should be logged.
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path))
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        url = f"wss://127.0.0.1:{listener.socket.getsockname()[1]}/ws"
        with pytest.raises(ConfigError, match=r"ssl_context cannot be used .*: .*[Ii]s a directory"):
            async with open_connection(url, "device_001"):
                raise AssertionError("not reached")
        stream = await listener.accept()
        with trio.fail_after(60):
            assert await stream.receive_some() == b""
        await stream.aclose()
