"""The description of an MCP server to start: its arguments, and its form on a command line."""

from __future__ import annotations

import math
import re
import shlex
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio.agent import McpServer
from galaxy_trio.errors import ConfigError


def test_command_is_split_like_a_shell() -> None:
    assert McpServer("files", "npx -y 'some server' .").command == ("npx", "-y", "some server", ".")


@pytest.mark.parametrize(
    ("text", "name", "command"),
    [
        ("uvx", "uvx", ("uvx",)),
        ("/opt/files.py --root=/", "files", ("/opt/files.py", "--root=/")),
        ("disk=/opt/files.py --root /", "disk", ("/opt/files.py", "--root", "/")),
        ("a=b=c", "a", ("b=c",)),
        ("/opt/a=b/program", "program", ("/opt/a=b/program",)),
    ],
)
def test_name_of_a_server_is_given_before_its_command_or_its_programs(
    text: str, name: str, command: tuple[str, ...]
) -> None:
    assert McpServer.parse(text) == McpServer(name, command)


@pytest.mark.parametrize(
    ("text", "name", "env", "command"),
    [
        ("API_KEY=sk-1 prog", "prog", {"API_KEY": "sk-1"}, ("prog",)),
        ("A=1 B_2='x y' /opt/files.py C=3", "files", {"A": "1", "B_2": "x y"}, ("/opt/files.py", "C=3")),
        ("API_KEY=sk-1 notes=prog --all", "notes", {"API_KEY": "sk-1"}, ("prog", "--all")),
        ("notes=API_KEY=sk-1 prog --all", "notes", {"API_KEY": "sk-1"}, ("prog", "--all")),
        ("A=1 notes=A=2 prog", "notes", {"A": "2"}, ("prog",)),
        ("A= prog", "prog", {"A": ""}, ("prog",)),
        ("notes= prog", "notes", None, ("prog",)),
    ],
)
def test_leading_variables_of_a_command_line_are_the_environment(
    text: str, name: str, env: dict[str, str] | None, command: tuple[str, ...]
) -> None:
    assert McpServer.parse(text) == McpServer(name, command, env)


_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


@given(
    st.from_regex(r"[\w.-]+", fullmatch=True).filter(lambda name: not _VARIABLE.fullmatch(name)),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1).filter(
        lambda words: not _VARIABLE.match(words[0])
    ),
)
def test_named_command_line_round_trips(name: str, words: list[str]) -> None:
    assert McpServer.parse(f"{name}={shlex.join(words)}") == McpServer(name, words)


@pytest.mark.parametrize(
    "text",
    ["", "  ", "name=", "name= ", "'unfinished", "name='unfinished", "API_KEY=sk-1", "name=API_KEY=sk-1", "A=sk-1 'x"],
)
def test_command_line_without_a_command_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="command") as caught:
        McpServer.parse(text)
    assert "sk-1" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("name", "command", "said"),
    [
        ("", "a", "a name of an MCP server has 1 to 1000 characters"),
        ("x" * 1_001, "a", "a name of an MCP server has 1 to 1000 characters"),
        ("a", [], "the command of MCP server 'a' is empty"),
        ("a", [""], "the command of MCP server 'a' is empty"),
    ],
)
def test_server_needs_a_name_and_a_command(name: str, command: str | list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        McpServer(name, command)


@pytest.mark.parametrize("timeout", ["call_timeout", "start_timeout"])
@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_timeout_that_is_not_above_0_is_refused(timeout: str, seconds: float) -> None:
    with pytest.raises(ConfigError, match=f"^{timeout} must be above 0"):
        McpServer("a", "a", **{timeout: seconds})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("command", [["program", "--key=s3cret"], ["s3cret", "program"]])
def test_repr_shows_neither_command_nor_environment(command: list[str]) -> None:
    shown = repr(McpServer("a", command, {"KEY": "s3cret"}))
    assert "name='a'" in shown
    assert "s3cret" not in shown


@pytest.mark.parametrize(
    ("text", "name", "url"),
    [
        ("https://mcp.example/mcp", "mcp.example", "https://mcp.example/mcp"),
        ("search=http://127.0.0.1:8000/mcp?a=b", "search", "http://127.0.0.1:8000/mcp?a=b"),
        ("HTTPS://mcp.example", "mcp.example", "HTTPS://mcp.example"),
    ],
)
def test_url_takes_the_place_of_a_command(text: str, name: str, url: str) -> None:
    assert McpServer.parse(text) == McpServer(name, url=url)


@pytest.mark.parametrize(
    "text",
    ["https://", "https://:80/s3cret", "https://h:port/s3cret", "https://u:s3cret@h/",
     "a=https://h/\u00e9s3cret", "https://h/ s3cret", "A=s3cret https://h/"],
)  # fmt: skip
def test_url_that_cannot_be_used_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="URL") as caught:
        McpServer.parse(text)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "the command of MCP server 'a' is empty: give a program and its arguments, or a URL"),
        ({"url": "ftp://h/"}, "the URL of MCP server 'a' cannot be used: it begins with https:// or http://"),
        ({"command": "a", "url": "https://h/"}, "MCP server 'a' has a URL: it takes no command"),
        ({"env": {}, "url": "https://h/"}, "MCP server 'a' has a URL: it takes no command, no environment"),
        ({"command": "a", "token": "t0ken"}, "MCP server 'a' is a command, which takes no token and no headers"),
        ({"command": "a", "headers": [("A", "b")]}, "MCP server 'a' is a command, which takes no token and no headers"),
    ],
)
def test_server_is_either_a_command_or_a_url(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        McpServer("a", **given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_repr_of_a_url_shows_no_key() -> None:
    server = McpServer("a", url="https://h/s3cret", token="s3cret", headers=[("Key", "s3cret")])
    assert "s3cret" not in repr(server)
    assert (server.where, McpServer("a", "b").where) == ("https://h", "")
