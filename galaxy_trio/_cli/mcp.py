"""The MCP servers of ``galaxy-trio agent``: their commands and environment, or their URLs, tokens and headers."""

from __future__ import annotations

import functools
import os
import re
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import click

from galaxy_trio._cli.options import seconds, valid_text
from galaxy_trio._config.text import read_text
from galaxy_trio._config.tokens import read_token_file, require_one
from galaxy_trio.agent import McpServer
from galaxy_trio.agent.mcp_server import CALL_TIMEOUT, START_TIMEOUT
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_VARIABLE: Final = re.compile(r"(?:([^=]+):)?([A-Za-z_][A-Za-z0-9_]*)(?:=(.*))?", re.DOTALL)


def mcp_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of MCP servers to a command, and pass it the servers."""

    @functools.wraps(command)
    def with_servers(
        *positional: object,
        mcp: tuple[str, ...],
        mcp_env: tuple[str, ...],
        mcp_token_file: tuple[str, ...],
        mcp_header_file: tuple[str, ...],
        mcp_start_timeout: float,
        mcp_call_timeout: float,
        **others: object,
    ) -> int:
        servers = read_mcp_servers(mcp, mcp_env, mcp_token_file, mcp_header_file)
        limited = [
            attrs.evolve(server, start_timeout=mcp_start_timeout, call_timeout=mcp_call_timeout) for server in servers
        ]
        return command(*positional, servers=limited, **others)

    decorated: Callable[..., int] = with_servers
    # The decorator that is applied last is shown first in the usage.
    for decorator in (
        click.option("--mcp-call-timeout", type=seconds, default=CALL_TIMEOUT, show_default=True, metavar="SECONDS",
                     help="Time limit for a call of an MCP tool without progress."),
        click.option("--mcp-start-timeout", type=seconds, default=START_TIMEOUT, show_default=True, metavar="SECONDS",
                     help="Time limit for an MCP server to start and list its tools."),
        click.option("--mcp-header-file", type=valid_text, multiple=True, metavar="[NAME:]FILE",
                     help="Send the headers in this file, one line \"Header: value\" each, to the MCP server NAME. Repeatable."),
        click.option("--mcp-token-file", type=valid_text, multiple=True, metavar="[NAME:]FILE",
                     help="Send the token in this file to the MCP server NAME, as \"Authorization: Bearer\". Repeatable."),
        click.option("--mcp-env", type=valid_text, multiple=True, metavar="[NAME:]VARIABLE[=VALUE]",
                     help="Pass a variable of this environment to the MCP server NAME, or to all that are commands; or set it to "
                     "VALUE, which every user of this machine can see. Repeatable."),
        click.option("--mcp", type=valid_text, multiple=True, metavar="[NAME=]COMMAND|URL",
                     help="Offer the tools of this MCP server: start a command, or connect to a URL. Words VARIABLE=value before a "
                     "command set its environment. Repeatable."),
    ):  # fmt: skip
        decorated = decorator(decorated)
    return decorated


def read_mcp_servers(
    commands: Sequence[str],
    variables: Sequence[str] = (),
    token_files: Sequence[str] = (),
    header_files: Sequence[str] = (),
) -> list[McpServer]:
    """Read the values of ``--mcp``, ``--mcp-env``, ``--mcp-token-file`` and ``--mcp-header-file``.

    Args:
        commands: As for `McpServer.parse`.
        variables: ``[NAME:]VARIABLE``, whose value is taken from this process's environment, or ``[NAME:]VARIABLE=value``. Without
            a server's name, all that are commands get it.
        token_files: ``[NAME:]FILE``. The file is read again before each connection. Without a server's name, the only one with a URL
            gets it.
        header_files: As `token_files`.

    Raises:
        ConfigError: A value is invalid, or a variable is not set. The message shows no part of it, because it may contain a key.
    """
    servers = [McpServer.parse(command) for command in commands]
    given: dict[str | None, dict[str, str]] = {None: {}, **{server.name: {} for server in servers}}
    for number, text in enumerate(variables, 1):
        which = f"--mcp-env number {number}" if len(variables) > 1 else "--mcp-env"
        found = _VARIABLE.fullmatch(text)
        if found is None:
            raise ConfigError(f"{which} is not of the form [NAME:]VARIABLE or [NAME:]VARIABLE=value")
        name, variable = found[1], found[2]
        value = os.environ.get(variable) if found[3] is None else found[3]
        if name not in given:
            raise ConfigError(f"{which} is for a server that no --mcp starts")
        if value is None:
            raise ConfigError(f"{which} names a variable that is not set")
        given[name][variable] = value
    tokens = _files_of(servers, token_files, "--mcp-token-file")
    headers = _files_of(servers, header_files, "--mcp-header-file")
    return [
        _with_environment(server, given)
        if server.url is None
        else attrs.evolve(
            server,
            env=server.env or given[server.name] or None,
            token=partial(_read_token, tokens[server.name]) if server.name in tokens else None,
            headers=partial(_read_headers, headers[server.name]) if server.name in headers else (),
        )
        for server in servers
    ]


def _with_environment(server: McpServer, given: Mapping[str | None, Mapping[str, str]]) -> McpServer:
    # What is given closest to the server counts.
    environment = {**given[None], **given[server.name], **(server.env or {})}
    return attrs.evolve(server, env=environment or None)


def _files_of(servers: Sequence[McpServer], values: Sequence[str], option: str) -> dict[str, str]:
    """The file for each server by its name."""
    names = [server.name for server in servers]
    with_url = [server.name for server in servers if server.url is not None]
    files: dict[str, str] = {}
    for value in values:
        before, _, after = value.partition(":")
        if before in names and after:
            name, file = before, after
        elif len(with_url) == 1:
            name, file = with_url[0], value
        else:
            needed = "say for which server, as in NAME:FILE" if with_url else "no --mcp has a URL to send it to"
            raise ConfigError(f"{option}: {needed}")
        if name not in with_url:
            raise ConfigError(
                f"{option} is for the server {name!r}, which is a command: pass it variables with --mcp-env"
            )
        if name in files:
            raise ConfigError(f"{option} is given twice for the server {name!r}")
        files[name] = file
    return files


def _read_token(file: str) -> str:
    what = "the token of an MCP server"
    return require_one(read_token_file(file, what), what, file)


def _read_headers(file: str) -> list[tuple[str, str]]:
    failure = f"the headers of an MCP server cannot be read from {file}"
    headers: list[tuple[str, str]] = []
    for number, line in enumerate(read_text(file, failure).splitlines(), 1):
        name, colon, value = line.partition(":")
        if colon:
            headers.append((name.strip(), value.strip()))
        elif line.strip():
            raise ConfigError(f"{failure}: line {number} is not of the form Header: value")
    return headers
