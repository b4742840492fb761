"""Every role and every command that connects to a server does so through a real HTTP proxy, Debian's tinyproxy."""

from __future__ import annotations

import json
import signal
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from galaxy_trio import ConnectFailed, ConnectionOptions, DeviceInfo, open_connection
from galaxy_trio.agent import open_agent, open_device_connection
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.server import Server, open_server
from tests.cli.support.command_line import DEVICE, EXAMPLE_TOOLS, TOKEN, call_process, open_process
from tests.end_to_end.support.tinyproxy import PASSWORD, USER, Tinyproxy, needs_tinyproxy, open_tinyproxy
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

pytestmark = [needs_tinyproxy, pytest.mark.programs]

HOST = "0.0.0.0"  # noqa: S104  # reaches this machine, and is no loopback address, which would be reached directly
INFO = DeviceInfo(DEVICE, "linux", hostname="behind-the-proxy")


@asynccontextmanager
async def _open_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, tls: ssl.SSLContext | None = None, refused_ports: bool = False
) -> AsyncGenerator[tuple[Server, str, Tinyproxy]]:
    """Run a server and the proxy, which the environment names. Yields the server's URL for the proxy as well."""
    with trio.fail_after(2 * SECONDS):
        async with (
            open_server(token=TOKEN, ssl_context=tls, allowed_hosts=[HOST]) as server,
            open_tinyproxy(folder, refused_ports=refused_ports) as proxy,
        ):
            monkeypatch.setenv("HTTPS_PROXY" if tls else "HTTP_PROXY", proxy.url)
            yield server, server.url.replace("127.0.0.1", HOST), proxy


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
async def test_every_role_works_through_the_proxy(
    secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    server_tls = client_tls = ca_file = None
    if secure:
        server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(HOST).configure_cert(server_tls)  # pyright: ignore[reportUnknownMemberType]
        client_tls = ssl.create_default_context()
        authority.configure_trust(client_tls)  # pyright: ignore[reportUnknownMemberType]
        ca_file = str(tmp_path / "authority.pem")
        authority.cert_pem.write_to_path(ca_file)
    options = ConnectionOptions(proxy=True)
    large = "x" * 2_000_000
    async with _open_both(tmp_path, monkeypatch, tls=server_tls) as (_, url, proxy):
        async with (
            open_agent(url, DEVICE, token=TOKEN, ssl_context=client_tls, options=options, system_info=INFO),
            open_connection(url, DEVICE, token=TOKEN, ssl_context=client_tls, options=options) as connection,
            open_constellation(
                [DeviceConfig(DEVICE, url, token=TOKEN, ca_file=ca_file)], options=options
            ) as constellation,
        ):
            assert (await connection.device_info()).hostname == "behind-the-proxy"
            assert (await connection.run_task(large)).unwrap() == {"echo": large}
            await constellation.wait_connected()
            assert (await constellation.run_task("do it")).unwrap() == {"echo": "do it"}
        targets = proxy.targets()
        assert len(targets) >= 3
        assert set(targets) == {url.split("/")[2]}


async def test_every_command_works_through_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _open_both(tmp_path, monkeypatch) as (_, url, proxy):
        devices = tmp_path / "devices.json"
        devices.write_text(
            json.dumps({"devices": [{"device_id": DEVICE, "server_url": url, "token_env": "GALAXY_TRIO_TOKEN"}]})
        )
        config = tmp_path / "galaxy.toml"
        config.write_text('devices = "devices.json"\nlisten = "127.0.0.1:0"\n')
        async with open_process("agent", url, DEVICE, "--tools", EXAMPLE_TOOLS) as agent:
            await agent.wait_for_output("registered as")
            assert len(proxy.targets()) == 1
            for words in (
                ["info", url, DEVICE],
                ["run", url, DEVICE, "hello"],
                ["devices", str(devices), "--once", "--timeout", "60"],
            ):
                before = len(proxy.targets())
                outcome = await call_process(*words)
                assert outcome.status == 0, outcome
                assert len(proxy.targets()) > before
            before = len(proxy.targets())
            async with open_process("daemon", "--config", str(config)) as daemon:
                address = (await daemon.wait_for_output("\n")).strip()
                outcome = await call_process("task", "submit", "hello", "--device", DEVICE, "--wait", "--url", address)
                assert outcome.status == 0, outcome
                assert len(proxy.targets()) > before
                daemon.send_signal(signal.SIGTERM)
                ended = await daemon.end()
            assert PASSWORD not in ended.err
            assert USER not in ended.err
            # The daemon itself was reached directly.
            assert set(proxy.targets()) == {url.split("/")[2]}


async def test_no_proxy_makes_a_command_connect_directly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _open_both(tmp_path, monkeypatch) as (server, url, proxy):
        monkeypatch.setenv("NO_PROXY", f"example.com,{HOST}")
        async with open_device_connection(server.url, DEVICE, system_info=INFO, token=TOKEN):
            assert (await call_process("info", url, DEVICE)).status == 0
        assert proxy.targets() == []


@pytest.mark.parametrize(
    ("credentials", "hint"),
    [
        ("", "put user and password into its URL, as in http://user:password@host:port (Basic authentication)"),
        (f"{USER}:wr0ng@", "are user and password in its URL right, and does it accept Basic authentication?"),
    ],
)
async def test_command_without_the_right_credentials_says_what_to_do(
    credentials: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _open_both(tmp_path, monkeypatch) as (_, url, proxy):
        monkeypatch.setenv("HTTP_PROXY", f"http://{credentials}127.0.0.1:{proxy.port}")
        outcome = await call_process("info", url, DEVICE)
    assert (outcome.status, outcome.out) == (3, "")
    # Older ones refuse wrong credentials with 401.
    assert outcome.err.replace("status 401", "status 407") == (
        f"error: no connection to {url} through the proxy {proxy.shown}: the proxy answered with HTTP status 407: {hint}\n"
    )


async def test_failures_of_the_proxy_are_reported_as_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ConnectionOptions(proxy=True)

    async def fail(url: str) -> str:
        with pytest.raises(ConnectFailed) as caught:
            async with open_connection(url, DEVICE, token=TOKEN, options=options):
                raise AssertionError("not reached")
        return str(caught.value)

    async with _open_both(tmp_path, monkeypatch, refused_ports=True) as (_, url, proxy):
        through = f"through the proxy {proxy.shown}: the proxy answered with HTTP status"
        assert f"{through} 403: does it allow connections to this host and port?" in await fail(url)
        assert f"{through} 500: it cannot reach the server;" in await fail(f"ws://{HOST}:443")
        assert f"{through} 500: it cannot reach the server;" in await fail("ws://no-such-host.invalid:443")
