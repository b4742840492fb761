"""MCP servers over HTTP behind the proxy of the environment, on real sockets and on the real clock."""

from __future__ import annotations

import pytest

from galaxy_trio.agent import McpServer, open_mcp_tools
from galaxy_trio.errors import ConfigError
from tests.agent.support.http_servers import Answer, open_odd_http_server, replies
from tests.agent.test_mcp import opened, until

pytestmark = pytest.mark.programs


def _refuse(method: str, body: bytes) -> Answer:
    del method, body
    return 403, {}, b""


async def test_server_on_this_machine_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    async with open_odd_http_server(replies) as url, opened(McpServer("web", url=url)) as tools:
        assert [tool.name for tool in tools.tools()] == ["answer"]


async def test_other_server_is_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_odd_http_server(replies) as url:
        monkeypatch.setenv("HTTP_PROXY", url.partition("/mcp")[0])
        async with opened(McpServer("web", url="http://mcp.test/mcp")) as tools:
            assert [tool.name for tool in tools.tools()] == ["answer"]


@pytest.mark.parametrize(
    ("scheme", "problem"),
    [
        ("http", "http://mcp.test through the proxy PROXY replied with HTTP status 403 Forbidden"),
        ("https", "cannot connect to https://mcp.test through the proxy PROXY: the proxy answered 403"),
    ],
)
async def test_error_names_the_proxy_without_its_credentials(
    scheme: str, problem: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_odd_http_server(_refuse) as url:
        proxy = url.partition("/mcp")[0]
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy.replace("//", "//jane:s3cret@"))
        async with opened(McpServer("web", url=f"{scheme}://mcp.test/mcp")) as tools:
            assert tools.tools() == []

            async def is_logged() -> bool:
                return "trying again" in caplog.text

            await until(is_logged)
    assert problem.replace("PROXY", proxy) in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("url", "problem"),
    [("socks5://jane:s3cret@h", "is a socks5 proxy, which is"), ("x://jane:s3cret@h", "cannot be used")],
)
async def test_proxy_that_cannot_be_used_is_a_config_error(
    url: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", url)
    with pytest.raises(
        ConfigError, match=f"MCP server 'web': .* in the environment variable HTTP_PROXY {problem}"
    ) as caught:
        async with open_mcp_tools([McpServer("web", url="http://mcp.test/mcp")]):
            raise AssertionError
    assert "s3cret" not in str(caught.value)
