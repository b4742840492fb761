"""Every role connects through a proxy, and retries after the proxy's failures as after those of a connection."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectFailed, ConnectionOptions, open_connection
from galaxy_trio.agent import open_agent
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.events import DeviceDisconnected
from galaxy_trio.server import open_server
from galaxy_trio.testing import open_memory_server
from tests.connection.support.http_proxy import ESTABLISHED, PROXY_URL, MemoryProxy, open_loopback_proxy
from tests.connection.support.leaks import INFO
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

URL = "ws://server.test:5000/ws"


async def test_all_roles_use_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ConnectionOptions(proxy=True)
    with trio.fail_after(SECONDS):
        async with (
            open_server(token="t0ken", allowed_hosts=["server.test"]) as server,
            open_loopback_proxy(urlsplit(server.url).port or 0) as proxy,
        ):
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            async with (
                open_agent(URL, "d1", token="t0ken", system_info=INFO, options=options),
                open_connection(URL, "d1", token="t0ken", options=options) as connection,
                open_constellation([DeviceConfig("d1", URL, token="t0ken")], options=options) as constellation,
            ):
                assert (await connection.run_task("one")).unwrap() == {"echo": "one"}
                await constellation.wait_connected()
                assert (await constellation.run_task("two")).unwrap() == {"echo": "two"}
            assert len(proxy.requests) >= 3
            # A server on loopback is reached without it.
            proxy.requests.clear()
            async with open_agent(server.url, "d1", token="t0ken", system_info=INFO, options=options):
                pass
            assert proxy.requests == []


async def test_proxy_of_the_environment_is_read_for_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:s3cret@127.0.0.1:1")
    options = ConnectionOptions(proxy=True)
    with trio.fail_after(SECONDS):
        async with (
            open_server(token="t0ken", allowed_hosts=["server.test"]) as server,
            open_loopback_proxy(urlsplit(server.url).port or 0) as proxy,
            open_agent(server.url, "d1", token="t0ken", system_info=INFO),
            open_constellation(
                [DeviceConfig("d1", URL, token="t0ken")], options=options, reconnect_delay=0.01
            ) as constellation,
            constellation.subscribe() as events,
        ):
            async for event in events:
                if isinstance(event, DeviceDisconnected):
                    assert event.reason.startswith("cannot connect to the proxy http://127.0.0.1:1: ")
                    assert "s3cret" not in repr(event)
                    break
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            await constellation.wait_connected()


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_refusals_of_the_proxy_are_retried_like_failed_connections(
    status: int, autojump_clock: trio.testing.MockClock
) -> None:
    refusal = b"HTTP/1.1 %d No\r\n\r\n" % status
    async with open_memory_server() as server, trio.open_nursery() as nursery:
        proxy = MemoryProxy(nursery, server.serve_stream, answer=refusal)

        async def connect(_: DeviceConfig) -> trio.abc.Stream:
            return proxy.connect()

        async def agent_connect() -> trio.abc.Stream:
            return proxy.connect()

        async def repair() -> None:
            await trio.sleep(30)
            # A refused token would be tried again after 300 s.
            assert len(proxy.requests) > 10
            proxy.answer = ESTABLISHED

        options = ConnectionOptions(proxy=PROXY_URL)
        nursery.start_soon(repair)
        async with (
            open_agent(URL, "d1", system_info=INFO, connect=agent_connect, options=options, random=Random(1)),
            open_constellation(
                [DeviceConfig("d1", URL)], connect=connect, options=options, random=Random(1)
            ) as constellation,
        ):
            await constellation.wait_connected()
            assert trio.current_time() < 100
            result: JSON = (await constellation.run_task("do it")).unwrap()
            assert result == {"echo": "do it"}
        nursery.cancel_scope.cancel()


async def test_agent_reports_the_proxy_when_its_retries_are_used_up(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        proxy = MemoryProxy(nursery, answer=b"HTTP/1.1 407 No\r\n\r\n")

        async def connect() -> trio.abc.Stream:
            return proxy.connect()

        with pytest.raises(ConnectFailed, match="the proxy answered with HTTP status 407"):
            async with open_agent(
                URL,
                "d1",
                system_info=INFO,
                connect=connect,
                max_retries=2,
                options=ConnectionOptions(proxy=PROXY_URL),
            ):
                raise AssertionError("not reached")
        assert len(proxy.requests) == 3
        nursery.cancel_scope.cancel()
