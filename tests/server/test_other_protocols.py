"""Clients of another protocol on a server's port: each learns what the port is, and so does the server's log."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from galaxy_trio import ConnectFailed, open_connection
from galaxy_trio.server import open_server
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from galaxy_trio.server import Server


def _port(server: Server) -> int:
    return int(server.url.rpartition(":")[2].removesuffix("/ws"))


async def _ask(server: Server, request: bytes) -> bytes:
    with trio.fail_after(SECONDS):
        async with await trio.open_tcp_stream("127.0.0.1", _port(server)) as stream:
            await stream.send_all(request)
            received = b""
            async for data in stream:
                received += data
            return received


@pytest.fixture(scope="module")
def certificate() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    return context


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /ws HTTP/1.0\r\n\r\n",
        b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"GET /ws HTTP/1.1\nHost: localhost\n\n",
    ],
)
async def test_request_that_begins_no_websocket_is_answered_once_with_what_the_port_is(request_: bytes) -> None:
    async with open_server(token="abc") as server:
        received = await _ask(server, request_)
    assert received.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert b"\r\nUpgrade: websocket\r\n" in received
    assert received.count(b"HTTP/1.1") == 1
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
    assert body.startswith(b"This is an AIP server of galaxy_trio")


async def test_request_without_websocket_is_answered_over_tls_as_well(certificate: ssl.SSLContext) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with open_server(ssl_context=certificate) as server:
        with trio.fail_after(SECONDS):
            stream = await trio.open_ssl_over_tcp_stream(
                "127.0.0.1", _port(server), ssl_context=context, https_compatible=True
            )
            async with stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 426 ")


async def test_client_with_tls_on_a_port_without_is_reported_at_both_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_server() as server:
        with pytest.raises(ConnectFailed, match="if the server does not use TLS, its URL begins with ws://"):
            async with open_connection(server.url.replace("ws://", "wss://"), "device"):
                pass
        await until(lambda: "it uses TLS, and this server does not" in caplog.text)


async def test_client_without_tls_on_a_port_with_tls_is_reported_at_both_ends(
    certificate: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_server(ssl_context=certificate) as server:
        with pytest.raises(ConnectFailed, match="if it uses TLS, its URL begins with wss://"):
            async with open_connection(server.url.replace("wss://", "ws://"), "device"):
                pass
        await until(lambda: "its TLS handshake failed; with this server, a URL begins with wss://" in caplog.text)
