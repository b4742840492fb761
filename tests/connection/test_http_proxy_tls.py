"""TLS through a proxy, TLS with a proxy, and plain connections through a proxy on real sockets."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import trio

from galaxy_trio import ConnectFailed, ConnectionOptions, open_connection
from galaxy_trio._transport.direct_socket import DirectSocketStream
from galaxy_trio._transport.proxy import parse_proxy
from galaxy_trio._transport.tcp import open_stream
from galaxy_trio._transport.url import parse_url
from galaxy_trio.agent import open_device_connection
from galaxy_trio.server import open_server
from tests.connection.support.http_proxy import ESTABLISHED, LoopbackProxy, open_loopback_proxy
from tests.connection.support.leaks import INFO
from tests.connection.support.opening import listen, read_head
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import trustme

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")


def _certified(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    return context


@asynccontextmanager
async def _open_proxied_server(
    *, server_tls: ssl.SSLContext | None = None, proxy_tls: ssl.SSLContext | None = None
) -> AsyncGenerator[LoopbackProxy]:
    def wrap(stream: trio.SocketStream) -> trio.abc.Stream:
        if proxy_tls is None:
            return stream
        return trio.SSLStream(stream, proxy_tls, server_side=True, https_compatible=True)

    async with open_server(ssl_context=server_tls, token="t0ken", allowed_hosts=["server.test"]) as server:
        async with open_loopback_proxy(urlsplit(server.url).port or 0, wrap) as proxy:
            yield proxy


async def _use(url: str, proxy_url: str, ssl_context: ssl.SSLContext | None = None) -> None:
    """Use a server whose name only the proxy can resolve."""
    options = ConnectionOptions(proxy=proxy_url)
    with trio.fail_after(SECONDS):
        async with (
            open_device_connection(
                url, "device_001", system_info=INFO, token="t0ken", ssl_context=ssl_context, options=options
            ),
            open_connection(url, "device_001", token="t0ken", ssl_context=ssl_context, options=options) as connection,
        ):
            assert (await connection.run_task("x" * 1_000_000)).unwrap() == {"echo": "x" * 1_000_000}


async def _fail(url: str, proxy_url: str, ssl_context: ssl.SSLContext | None = None) -> ConnectFailed:
    with trio.fail_after(SECONDS), pytest.raises(ConnectFailed) as caught:
        async with open_connection(
            url, "device_001", ssl_context=ssl_context, options=ConnectionOptions(proxy=proxy_url)
        ):
            raise AssertionError("not reached")
    return caught.value


async def test_plain_connection_through_a_proxy_on_sockets() -> None:
    async with _open_proxied_server() as proxy:
        await _use("ws://server.test", proxy.url)
    assert proxy.requests == [b"CONNECT server.test:80 HTTP/1.1\r\nHost: server.test:80\r\n\r\n"] * 2


async def test_tls_through_a_proxy_verifies_the_server(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    async with _open_proxied_server(server_tls=_certified(authority, "server.test")) as proxy:
        await _use("wss://server.test", proxy.url, trusting)
        error = await _fail("wss://other.test", proxy.url, trusting)
    assert proxy.requests[0] == b"CONNECT server.test:443 HTTP/1.1\r\nHost: server.test:443\r\n\r\n"
    assert str(error).startswith(
        f"no TLS connection to wss://other.test:443/ws through the proxy {proxy.url}: "
        "the server's certificate is not accepted: Hostname mismatch"
    )
    assert error.proxy is None


async def test_tls_with_the_proxy_and_through_it(
    authority: trustme.CA, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    proxy_tls = _certified(authority, "localhost")
    async with _open_proxied_server(proxy_tls=proxy_tls, server_tls=_certified(authority, "server.test")) as proxy:
        await _use("wss://server.test", f"https://localhost:{proxy.port}", trusting)
        error = await _fail("wss://server.test", f"https://127.0.0.1:{proxy.port}", trusting)
    assert str(error).startswith(
        f"no TLS connection to the proxy https://127.0.0.1:{proxy.port}: the proxy's certificate is not accepted: IP"
    )
    async with _open_proxied_server(proxy_tls=proxy_tls) as proxy:
        await _use("ws://server.test", f"https://localhost:{proxy.port}")


async def test_the_servers_context_is_not_that_of_the_proxy(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    async with _open_proxied_server(proxy_tls=_certified(authority, "localhost")) as proxy:
        error = await _fail("wss://server.test", f"https://localhost:{proxy.port}", trusting)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert error.proxy == f"https://localhost:{proxy.port}"
    assert str(error).endswith(
        "; if your own authority issued it, add the authority to the system's, or set SSL_CERT_FILE"
    )


async def test_https_url_of_a_proxy_without_tls_is_reported() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listen(answer) as listener:
        error = await _fail("ws://server.test", f"https://127.0.0.1:{listener.port}")
    assert str(error).endswith("; if the proxy does not use TLS, its URL begins with http://")


async def test_proxy_that_is_not_running_is_named() -> None:
    async with open_loopback_proxy(1) as proxy:
        url = proxy.url
    error = await _fail("wss://server.test", url)
    assert (type(error), error.proxy) == (ConnectFailed, url)
    assert str(error) == (
        f"cannot connect to the proxy {url}: connection refused; is the proxy running, and at this port?"
    )


async def test_plain_connection_through_a_proxy_writes_directly_to_the_socket() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(ESTABLISHED)

    async with listen(answer) as listener:
        proxy = parse_proxy(f"http://127.0.0.1:{listener.port}")
        stream = await open_stream(parse_url("ws://server.test"), None, None, proxy, SECONDS)
        assert isinstance(stream, DirectSocketStream)
        await stream.aclose()
