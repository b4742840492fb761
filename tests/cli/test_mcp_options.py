"""The options of MCP servers: variables for commands, files with tokens and headers for URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from galaxy_trio._cli.mcp import read_mcp_servers
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

URL = "web=https://mcp.example/mcp"


@pytest.mark.parametrize("prefix", ["", "web:"])
def test_files_belong_to_the_named_server_or_to_the_only_one_with_a_url(prefix: str, tmp_path: Path) -> None:
    token, headers = tmp_path / "token", tmp_path / "headers"
    token.write_text("first\n")
    headers.write_text("\ufeffX-Team: blue\n\nX-Key:  a:b \n", "utf-8")
    command, web = read_mcp_servers(["program", URL], [], [f"{prefix}{token}"], [f"{prefix}{headers}"])
    assert (command.token, command.headers) == (None, ())
    assert callable(web.token)
    assert callable(web.headers)
    assert web.token() == "first"
    assert web.headers() == [("X-Team", "blue"), ("X-Key", "a:b")]
    token.write_text("second\n")
    assert web.token() == "second"


def test_variables_belong_to_commands() -> None:
    command, web = read_mcp_servers(["program", URL], ["A=1"])
    assert (command.env, web.env) == ({"A": "1"}, None)
    with pytest.raises(ConfigError, match="MCP server 'web' has a URL"):
        read_mcp_servers([URL], ["web:A=1"])


@pytest.mark.parametrize(
    ("servers", "files", "said"),
    [
        (["program"], ["s3cret"], "--mcp-token-file: no --mcp has a URL to send it to"),
        ([URL, "b=https://b/"], ["s3cret"], "--mcp-token-file: say for which server, as in NAME:FILE"),
        ([URL, "b=program"], ["b:s3cret"], "--mcp-token-file is for the server 'b', which is a command"),
        ([URL], ["s3cret", "web:s3cret"], "--mcp-token-file is given twice for the server 'web'"),
    ],
)
def test_file_for_no_certain_server_is_refused_and_not_shown(servers: list[str], files: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_mcp_servers(servers, [], files)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_line_that_is_no_header_is_named_and_not_shown(tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("A: b\ns3cret\n")
    [web] = read_mcp_servers([URL], [], [], [str(headers)])
    assert callable(web.headers)
    with pytest.raises(ConfigError, match="line 2 is not of the form Header: value") as caught:
        web.headers()
    assert "s3cret" not in str(caught.value)
