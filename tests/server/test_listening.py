"""A server's address, token, path, TLS."""

from __future__ import annotations

import errno
import logging
import ssl

import pytest
import trio
import trio.testing
import trustme

from galaxy_trio import ConfigError, HandshakeRejected, open_connection
from galaxy_trio.agent import open_device_connection
from galaxy_trio.messages import DeviceInfo, Platform
from galaxy_trio.server import ServerStatistics, open_server
from galaxy_trio.testing import open_memory_server
from tests.server.support.clients import DEVICE, device_can_register, register_device
from tests.server.support.raw_client import open_raw_client
from tests.support.accepting import fail_to_accept


@pytest.mark.parametrize("given", [None, "", "wrong", "s3cret/+& ", "s3cret/+& ü?", "S3CRET/+& ü"])
async def test_missing_or_wrong_token_gets_403(given: str | None) -> None:
    async with open_memory_server(token="s3cret/+& ü") as server:
        with pytest.raises(HandshakeRejected) as caught:
            async with open_raw_client(server.connect(), token=given):
                raise AssertionError("was let in")
        assert caught.value.status_code == 403
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics() == ServerStatistics(0, 0, 0, 0)


async def test_correct_token_is_accepted() -> None:
    async with (
        open_memory_server(token="s3cret/+& ü") as server,
        open_raw_client(server.connect(), token="s3cret/+& ü") as client,
    ):
        await register_device(client)


async def test_server_without_a_token_accepts_any() -> None:
    async with open_memory_server() as server, open_raw_client(server.connect(), token="whatever") as client:
        await register_device(client)


async def test_lack_of_file_descriptors_is_logged_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail_to_accept(monkeypatch, errno.EMFILE, 3)
    async with open_server(token="s3cret") as server:
        with trio.fail_after(60), pytest.raises(HandshakeRejected):
            async with open_connection(server.url, DEVICE, token="wrong"):
                raise AssertionError("was let in")
    assert caplog.text.count("a connection cannot be accepted: Too many open files") == 1
    assert "Traceback" not in caplog.text


async def test_token_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_server(token="s3cret") as server:
        assert "s3cret" not in repr(server) + server.url + repr(server.statistics())
        with trio.fail_after(60):
            async with open_device_connection(
                server.url, DEVICE, token="s3cret", system_info=DeviceInfo(DEVICE, Platform.LINUX)
            ):
                pass
            with pytest.raises(HandshakeRejected):
                async with open_connection(server.url, DEVICE, token="s3cret-but-wrong"):
                    raise AssertionError("was let in")
    assert "device 'device_001'" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("path", ["/", "/ws/", "/WS", "/other", "/ws/../ws", "//ws"])
@pytest.mark.parametrize("token", [None, "s3cret"])
async def test_other_path_gets_404(path: str, token: str | None) -> None:
    async with open_memory_server(token=token) as server:
        with pytest.raises(HandshakeRejected) as caught:
            async with open_raw_client(server.connect(), path=path, token=token):
                raise AssertionError("was let in")
        assert caught.value.status_code == 404


EVERYWHERE = "0.0.0.0"  # noqa: S104  # what is tested is that it takes a token


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.1", "example.com", "localhost.example.com", ""])
async def test_server_reachable_from_other_machines_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match=r"needs a token: give one, or listen at 127\.0\.0\.1") as caught:
        async with open_server(host):
            raise AssertionError("listens")
    assert repr(host) in str(caught.value)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("127.1.2.3", "127.1.2.3"), ("localhost", "localhost"), ("::1", "[::1]")],
)
async def test_server_at_loopback_needs_no_token(host: str, shown: str) -> None:
    try:
        async with open_server(host) as server:
            assert await device_can_register(server, token=None)
            assert server.url.startswith(f"ws://{shown}:")
    except OSError:
        if host != "::1":
            raise
        pytest.skip("there is no IPv6 on this machine")


async def test_server_with_a_token_may_listen_at_all_addresses_and_its_url_works() -> None:
    async with open_server(EVERYWHERE, token="s3cret") as server:
        assert server.url.startswith("ws://127.0.0.1:")
        assert await device_can_register(server, token="s3cret")


async def test_it_listens_at_its_url_until_the_block_ends() -> None:
    async with open_server() as server:
        assert repr(server) == f"<Server at {server.url}>"
        port = int(server.url.removeprefix("ws://127.0.0.1:").removesuffix("/ws"))
        with pytest.raises(OSError, match="in use"):
            async with open_server(port=port):
                raise AssertionError("the port is taken")
        assert await device_can_register(server, token=None)
    with trio.fail_after(60), pytest.raises(OSError, match=str(port)):
        await trio.open_tcp_stream("127.0.0.1", port)
    async with open_server(port=port) as again:
        assert again.url == server.url


async def test_it_supports_tls() -> None:
    authority = trustme.CA()
    of_server, of_client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(of_server)  # pyright: ignore[reportUnknownMemberType]
    authority.configure_trust(of_client)  # pyright: ignore[reportUnknownMemberType]
    async with open_server(ssl_context=of_server) as server:
        assert server.url.startswith("wss://127.0.0.1:")
        assert await device_can_register(server, token=None, context=of_client)


async def test_task_runs_over_a_socket() -> None:
    async with open_server() as server:
        with trio.fail_after(60):
            async with (
                open_device_connection(server.url, DEVICE, system_info=DeviceInfo(DEVICE, Platform.LINUX)),
                open_connection(server.url, DEVICE) as connection,
            ):
                assert (await connection.run_task("hello")).unwrap() == {"echo": "hello"}
                assert (await connection.device_info()).device_id == DEVICE
