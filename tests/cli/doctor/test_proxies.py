"""The doctor's checks of servers that are reached through the proxy of the environment."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from galaxy_trio import DeviceConfig
from galaxy_trio._cli.doctor.findings import Finding, Level
from galaxy_trio.agent import open_device_connection
from galaxy_trio.server import open_server
from tests.cli.doctor.test_servers import answer, findings, only_problem, open_port, say_nothing
from tests.cli.support.command_line import DEVICE, TOKEN
from tests.cli.support.world import INFO
from tests.connection.support.http_proxy import ESTABLISHED, open_loopback_proxy

if TYPE_CHECKING:
    import trio

REMOTE = DeviceConfig(DEVICE, "ws://server.test", token=TOKEN)


async def test_server_behind_a_proxy_passes_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        open_server(token=TOKEN, allowed_hosts=["server.test"]) as server,
        open_device_connection(server.url, DEVICE, system_info=INFO, token=TOKEN),
        open_loopback_proxy(urlsplit(server.url).port or 0) as proxy,
    ):
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert (await findings(REMOTE))[0] == Finding(Level.OK, "proxy, WebSocket handshake, registration")


async def test_proxy_that_refuses_is_a_problem_of_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_port(partial(answer, b"HTTP/1.1 407 No\r\n\r\n")) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://jane:s3cret@127.0.0.1:{port}")
        problem = await only_problem(REMOTE)
        assert problem.text.startswith("proxy: no connection to ws://server.test:80/ws through the proxy http://127.")
        assert "s3cret" not in str(problem)
        assert "HTTPS_PROXY" in problem.advice


async def test_silent_proxy_and_one_that_is_not_running_are_problems_of_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert (await only_problem(REMOTE)).text.startswith("proxy: cannot connect to the proxy http://127.0.0.1:1: ")
    async with open_port(say_nothing) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        problem = await only_problem(REMOTE, timeout=0.3)
        assert problem.text.startswith("proxy: no connection to ws://server.test:80/ws: the proxy ")


@pytest.mark.parametrize(("scheme", "step"), [("ws", "WebSocket handshake"), ("wss", "TLS")])
async def test_silent_server_behind_a_proxy_is_not_a_problem_of_the_proxy(
    scheme: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def open_and_say_nothing(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(ESTABLISHED)
        await say_nothing(stream)

    async with open_port(open_and_say_nothing) as port:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
        problem = await only_problem(DeviceConfig(DEVICE, f"{scheme}://server.test", token=TOKEN), timeout=2)
        assert problem.text.startswith(f"[proxy] {step}: ")


async def test_proxy_of_another_kind_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    problem = await only_problem(REMOTE)
    assert "ALL_PROXY is a socks5 proxy" in problem.text
