"""TLS verifies the server by default, and its failures are reported and leave nothing open."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio import ConnectFailed, ConnectionOptions, ConnectTimeout, DeviceInfo, HandshakeRejected, open_connection
from galaxy_trio._arguments import MAX_MESSAGE_SIZE
from galaxy_trio._transport.interface import TransportEnded
from galaxy_trio._transport.websocket import TrioWebSocket
from galaxy_trio.agent import open_device_connection
from galaxy_trio.server import Server, open_server
from galaxy_trio.testing import FaultyStream, open_memory_server
from tests.connection.support.cancellation import open_and_cancel_at_step
from tests.connection.support.leaks import chain
from tests.connection.support.opening import listen
from tests.connection.support.sockets import open_sockets
from tests.support.waiting import close_without_a_limit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trustme

    from galaxy_trio.server.sessions import ServerTask

MB = 1_000_000
_INFO = DeviceInfo("device_001", "linux", hostname="behind-tls")

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")


@attrs.frozen
class Certificates:
    """Contexts for servers."""

    right: ssl.SSLContext
    wrong_name: ssl.SSLContext


@pytest.fixture(scope="module")
def certificates(authority: trustme.CA) -> Certificates:
    def context(*names: str) -> ssl.SSLContext:
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with authority.issue_cert(*names).private_key_and_cert_chain_pem.tempfile() as path:
            made.load_cert_chain(path)
        return made

    return Certificates(context("127.0.0.1", "server.test"), context("other.test"))


async def _fail(
    url: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
    stream: trio.abc.Stream | None = None,
    connect_timeout: float = 600.0,
    within: float = 60.0,
) -> ConnectFailed:
    """Open a connection that must fail, by default long before its timeout. It may leave no socket open."""
    before = open_sockets()
    with trio.fail_after(within), pytest.raises(ConnectFailed) as caught:
        async with open_connection(
            url,
            "device_001",
            ssl_context=ssl_context,
            stream=stream,
            options=ConnectionOptions(connect_timeout=connect_timeout),
        ):
            raise AssertionError("not reached")
    # The server's end, one more socket, may still be open.
    assert len(open_sockets() - before) <= 1
    return caught.value


async def _wait_empty(server: Server) -> None:
    """Wait until the server has no clients."""
    with trio.fail_after(60):
        while server.statistics().connections:
            await trio.testing.wait_all_tasks_blocked(0.001)


async def test_a_verified_server_works_like_any_other(trusting: ssl.SSLContext, certificates: Certificates) -> None:
    with trio.fail_after(60):
        async with open_server(ssl_context=certificates.right, token="abc") as server:
            assert server.url.startswith("wss://127.0.0.1:")
            async with (
                open_device_connection(
                    server.url, "device_001", system_info=_INFO, token="abc", ssl_context=trusting
                ) as device,
                open_connection(server.url, "device_001", token="abc", ssl_context=trusting) as connection,
            ):
                assert (await connection.device_info()).hostname == "behind-tls"
                assert (await connection.run_task("do it")).unwrap() == {"echo": "do it"}
            assert await connection.wait_closed() is None
            assert await device.wait_closed() is None


async def test_a_large_result_is_transferred(trusting: ssl.SSLContext, certificates: Certificates) -> None:
    large = "é" * (5 * MB // 2)

    async def session(task: ServerTask) -> object:
        return task.request

    with trio.fail_after(60):
        async with (
            open_server(ssl_context=certificates.right, session=session) as server,
            open_device_connection(server.url, "device_001", system_info=_INFO, ssl_context=trusting),
            open_connection(server.url, "device_001", ssl_context=trusting) as connection,
        ):
            # Large in both directions: the request is the result.
            assert (await connection.run_task(large)).unwrap() == large


async def test_tls_runs_over_a_given_stream(trusting: ssl.SSLContext, certificates: Certificates) -> None:
    async with open_memory_server() as server, trio.open_nursery() as nursery:

        def connect() -> FaultyStream:
            client_end, server_end = trio.testing.memory_stream_pair()
            secure = trio.SSLStream(server_end, certificates.right, server_side=True, https_compatible=True)
            nursery.start_soon(server.serve_stream, secure)
            return FaultyStream(client_end)

        streams = [connect(), connect()]
        url = "wss://server.test/ws"
        with trio.fail_after(60):
            async with (
                open_device_connection(url, "device_001", system_info=_INFO, ssl_context=trusting, stream=streams[0]),
                open_connection(url, "device_001", ssl_context=trusting, stream=streams[1]) as connection,
            ):
                assert (await connection.run_task("do it")).unwrap() == {"echo": "do it"}
        assert all(stream.closed for stream in streams)


async def test_the_host_header_omits_the_default_port_of_wss(
    trusting: ssl.SSLContext, certificates: Certificates
) -> None:
    for port, host in (("", b"server.test"), (":443", b"server.test"), (":80", b"server.test:80")):
        client_end, server_end = trio.testing.memory_stream_pair()
        secure = trio.SSLStream(server_end, certificates.right, server_side=True, https_compatible=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(_fail, f"wss://server.test{port}/", ssl_context=trusting, stream=FaultyStream(client_end))
            )
            with trio.fail_after(60):
                head = await secure.receive_some()
            assert b"Host: " + host + b"\r\n" in head
            await secure.aclose()


async def test_a_certificate_from_an_unknown_authority_is_refused(certificates: Certificates) -> None:
    async with open_server(ssl_context=certificates.right) as server:
        error = await _fail(server.url)
        assert type(error) is ConnectFailed
        assert str(error).startswith(
            f"no TLS connection to {server.url}: the server's certificate is not accepted: unable to get local issuer"
        )
        assert str(error).endswith("; if your own authority issued it, give the authority's certificate file")
        assert any(isinstance(cause, ssl.SSLCertVerificationError) for cause in chain(error))
        await _wait_empty(server)


async def test_a_certificate_of_another_host_is_refused(trusting: ssl.SSLContext, certificates: Certificates) -> None:
    async with open_server(ssl_context=certificates.wrong_name) as server:
        error = await _fail(server.url, ssl_context=trusting)
        assert type(error) is ConnectFailed
        assert "the server's certificate is not accepted: IP address mismatch" in str(error)
        assert any(isinstance(cause, ssl.SSLCertVerificationError) for cause in chain(error))
        await _wait_empty(server)


async def test_the_urls_host_name_is_verified_over_a_given_stream_too(
    trusting: ssl.SSLContext, certificates: Certificates
) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_end)
    secure = trio.SSLStream(server_end, certificates.right, server_side=True)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await secure.do_handshake()
                await secure.receive_some()

        nursery.start_soon(serve)
        error = await _fail("wss://elsewhere.test/ws", ssl_context=trusting, stream=stream)
        assert "the server's certificate is not accepted: Hostname mismatch" in str(error)
        assert stream.closed


async def test_a_rejection_over_tls_is_reported_as_one(trusting: ssl.SSLContext, certificates: Certificates) -> None:
    async with open_server(ssl_context=certificates.right, token="abc") as server:
        error = await _fail(server.url, ssl_context=trusting)
        assert isinstance(error, HandshakeRejected)
        assert error.status_code == 403
        await _wait_empty(server)


async def test_a_wss_url_of_a_plain_server_fails_immediately() -> None:
    async with open_server() as server:
        error = await _fail(server.url.replace("ws:", "wss:"))
        assert type(error) is ConnectFailed
        assert str(error).startswith(f"no TLS connection to {server.url.replace('ws:', 'wss:')}: ")
        await _wait_empty(server)


async def test_a_plain_answer_to_a_tls_handshake_fails_immediately() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with listen(answer) as listener:
        error = await _fail(listener.url.replace("ws:", "wss:"))
        assert type(error) is ConnectFailed
        assert any(isinstance(cause, ssl.SSLError) for cause in chain(error))
        # The words depend on the version of OpenSSL.
        assert "wrong version number" in str(error) or "record layer failure" in str(error)
        assert str(error).endswith("; if the server does not use TLS, its URL begins with ws://")


async def _close_immediately(stream: trio.SocketStream) -> None:
    await stream.aclose()


async def _close_after_hello(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.aclose()


async def _close_within_the_answer(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    # The head of a record with the server's hello.
    await stream.send_all(b"\x16\x03\x03\x00\x7a\x02\x00")
    await stream.aclose()


async def _end_after_hello(stream: trio.SocketStream) -> None:
    """End the stream, and keep the socket open until the client closes its own."""
    await stream.receive_some()
    await stream.send_eof()


@pytest.mark.parametrize(
    "handler", [_close_immediately, _close_after_hello, _close_within_the_answer, _end_after_hello]
)
async def test_a_server_that_ends_the_connection_in_the_tls_handshake_fails_it_immediately(
    handler: Callable[[trio.SocketStream], Awaitable[None]],
) -> None:
    async with listen(handler) as listener:
        error = await _fail(listener.url.replace("ws:", "wss:"))
        assert type(error) is ConnectFailed
        assert str(error).startswith(f"no TLS connection to {listener.url.replace('ws:', 'wss:')}: ")


async def test_silence_in_the_tls_handshake_is_a_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_end)
    error = await _fail("wss://server.test/ws", stream=stream, connect_timeout=7, within=8)
    assert trio.current_time() == pytest.approx(7)
    assert isinstance(error, ConnectTimeout)
    assert stream.closed
    assert (await server_end.receive_some())[:1] == b"\x16"
    assert await server_end.receive_some() == b""


async def test_a_stream_that_breaks_in_the_tls_handshake_is_closed() -> None:
    client_end, _server_end = trio.testing.memory_stream_pair()
    stream = FaultyStream(client_end)
    stream.reset()
    error = await _fail("wss://server.test/ws", stream=stream)
    assert str(error) == "no TLS connection to wss://server.test:443/ws: connection reset by a test"
    assert stream.closed


async def test_a_plain_client_of_a_tls_server_fails_immediately(certificates: Certificates) -> None:
    async with open_server(ssl_context=certificates.right) as server:
        error = await _fail(server.url.replace("wss:", "ws:"))
        assert type(error) is ConnectFailed
        await _wait_empty(server)


async def test_cancelling_at_any_step_of_opening_leaves_no_stream_open(
    trusting: ssl.SSLContext, certificates: Certificates
) -> None:
    async with open_memory_server() as server, trio.open_nursery() as nursery:
        for step in range(1, 1000):
            client_end, server_end = trio.testing.memory_stream_pair()
            stream = FaultyStream(client_end)
            secure = trio.SSLStream(server_end, certificates.right, server_side=True, https_compatible=True)
            nursery.start_soon(server.serve_stream, secure)
            opening = open_device_connection(
                "wss://server.test/ws", "device_001", system_info=_INFO, ssl_context=trusting, stream=stream
            )
            opened = await open_and_cancel_at_step(step, opening)
            assert stream.closed
            await _wait_empty(server)
            if opened:
                break
        else:
            raise AssertionError("the block was never reached")
        assert step > 20


async def test_cancelling_in_the_tls_handshake_leaves_no_socket_open() -> None:
    async def say_nothing(stream: trio.SocketStream) -> None:
        """Do not answer."""

    async with listen(say_nothing) as listener:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_fail, listener.url.replace("ws:", "wss:"))
                await trio.testing.wait_all_tasks_blocked(0.01)
                scope.cancel()
        assert scope.cancelled_caught


async def test_both_sides_close_gracefully_over_tls(
    trusting: ssl.SSLContext, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_without_a_limit(monkeypatch)
    ended: list[TransportEnded] = []

    def accept(path: str, headers: list[tuple[bytes, bytes]]) -> int:
        del path, headers
        return 101

    async def serve(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, certificates.right, server_side=True, https_compatible=True)
        transport = TrioWebSocket(secure, peer="the client", client=False, max_message_size=MAX_MESSAGE_SIZE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.run_writer)
            await nursery.start(partial(transport.run_server, accept))
            await transport.receive()
            transport.send_nowait('{"type": "heartbeat", "status": "ok"}')
            with pytest.raises(TransportEnded) as caught:
                await transport.receive()
            ended.append(caught.value)
            await transport.abort()
            nursery.cancel_scope.cancel()

    async with listen(serve) as listener:
        with trio.fail_after(60):
            async with open_connection(
                listener.url.replace("ws:", "wss:"), "device_001", ssl_context=trusting
            ) as connection:
                assert not connection.closed
    assert await connection.wait_closed() is None
    [end] = ended
    assert end.code == 1000
