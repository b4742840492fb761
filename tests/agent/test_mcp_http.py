"""MCP servers over HTTP: a real one as a process, on the real clock."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from galaxy_trio.agent import McpServer, mcp_http, open_mcp_tools
from galaxy_trio.errors import ConfigError
from tests.agent.support.http_servers import open_http_server
from tests.agent.test_mcp import call, failure, named, opened, runs, until
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.programs


@pytest.mark.parametrize("option", ["json", "events"])
async def test_tools_of_a_url_are_offered_and_called(option: str) -> None:
    async with open_http_server(option) as server, opened(McpServer("web", url=server.url)) as tools:
        assert {tool.namespace for tool in tools.tools()} == {"web"}
        assert await call(tools, "add", a=1, b=2) == {"result": 3}
        assert "validation" in await failure(tools, "add", a="one")
        assert len(str(await call(tools, "big", size=2_000_000))) > 2_000_000


async def test_changed_list_of_a_url_is_requested_again() -> None:
    async with open_http_server() as server, opened(McpServer("web", url=server.url)) as tools:

        async def plus_is_listed() -> bool:
            # The stream of notifications may not be open yet when the first one is sent.
            await call(tools, "learn", tool="plus")
            return "plus" in {tool.name for tool in tools.tools()}

        await until(plus_is_listed)
        assert await call(tools, "plus", a=1, b=2) == {"result": 3}


async def test_token_and_headers_are_sent_and_read_again_for_the_next_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text("wr0ng")
    async with open_http_server(token="t0ken") as server:
        mcp = McpServer("web", url=server.url, token=file.read_text, headers=[("X-Team", "blue")])
        async with opened(mcp) as tools:
            assert tools.tools() == []
            file.write_text("t0ken")

            async def tools_are_listed() -> bool:
                return bool(tools.tools())

            await until(tools_are_listed)
            assert await named(tools, "header").call({"name": "x-team"}) == {"result": "blue"}
    assert "replied with HTTP status 401 Unauthorized: is the token right?" in caplog.text
    assert f"http://127.0.0.1:{server.port} replied" in caplog.text
    assert "wr0ng" not in caplog.text
    assert "t0ken" not in caplog.text


async def test_restarted_server_is_connected_to_again() -> None:
    async with open_http_server() as first, opened(McpServer("web", url=first.url)) as tools:
        before = await call(tools, "process_id")
        await first.kill()
        reason = await failure(tools, "add", a=1, b=2)
        assert "127.0.0.1" in reason or "is not running" in reason
        async with open_http_server(port=first.port):
            await until(partial(runs, tools))
            assert await call(tools, "process_id") != before


async def test_server_that_forgot_the_session_gets_a_new_one() -> None:
    async with open_http_server() as first, opened(McpServer("web", url=first.url)) as tools:
        await call(tools, "process_id")
        await first.kill()
        # Restarted before anything notices it.
        async with open_http_server(port=first.port):
            await until(partial(runs, tools))
            assert await call(tools, "add", a=1, b=2) == {"result": 3}


async def test_progress_extends_a_call_over_http() -> None:
    async with open_http_server() as server, opened(McpServer("web", url=server.url, call_timeout=2)) as tools:
        assert await call(tools, "wait", seconds=5, steps=20) == {"result": "waited"}
        assert "took longer than 2 s" in await failure(tools, "wait", seconds=SECONDS, steps=1)


async def test_server_that_cannot_be_reached_is_tried_again_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    url = "http://127.0.0.1:9/mcp?key=s3cret"
    async with opened(McpServer("web", url=url)) as tools:
        assert tools.tools() == []

        async def is_logged() -> bool:
            return "trying again" in caplog.text

        await until(is_logged)
    assert "MCP server 'web': cannot connect to http://127.0.0.1:9: connection refused; trying again" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("token", "headers"),
    [("a\nb", ()), ("t0ken", [("X y", "1")]), ("t0ken", [("authorization", "1")]), (lambda: "\ud800", ())],
)
async def test_credentials_that_cannot_be_sent_are_a_config_error(token: str, headers: list[tuple[str, str]]) -> None:
    with pytest.raises(ConfigError, match="MCP server 'web': ") as caught:
        async with open_mcp_tools([McpServer("web", url="http://127.0.0.1:9", token=token, headers=headers)]):
            raise AssertionError
    assert "t0ken" not in str(caught.value)


async def test_headers_may_come_from_a_function_that_is_called_in_a_thread() -> None:
    threads: list[str] = []

    def headers() -> list[tuple[str, str]]:
        threads.append(threading.current_thread().name)
        return [("X-Team", "blue")]

    async with open_http_server() as server, opened(McpServer("web", url=server.url, headers=headers)) as tools:
        assert await named(tools, "header").call({"name": "x-team"}) == {"result": "blue"}
        # A compressed reply could have any size.
        assert await named(tools, "header").call({"name": "accept-encoding"}) == {"result": "identity"}
    assert threads
    assert threading.current_thread().name not in threads


async def test_token_that_takes_too_long_to_read_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_http, "_TIMEOUT", 0.05)
    release = threading.Event()

    def token() -> str:
        release.wait(SECONDS)
        return "t0ken"

    with pytest.raises(ConfigError, match="its token or headers could not be read within"):
        async with open_mcp_tools([McpServer("web", url="http://127.0.0.1:9", token=token)]):
            raise AssertionError
    release.set()
