"""The MCP servers that ``galaxy-trio agent`` starts: their commands and their environment."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

import attrs

from galaxy_trio.agent import McpServer
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_VARIABLE: Final = re.compile(r"(?:([^=]+):)?([A-Za-z_][A-Za-z0-9_]*)(?:=(.*))?", re.DOTALL)


def read_mcp_servers(commands: Sequence[str], variables: Sequence[str]) -> list[McpServer]:
    """Read the values of ``--mcp`` and ``--mcp-env``.

    Args:
        commands: As for `McpServer.parse`.
        variables: ``[SERVER:]VARIABLE``, whose value is taken from this process's environment, or ``[SERVER:]VARIABLE=value``. Without
            a server's name, all servers get it.

    Raises:
        ConfigError: A value is invalid, or a variable is not set. The message shows no part of it, because it may contain a key.
    """
    servers = [McpServer.parse(command) for command in commands]
    given: dict[str | None, dict[str, str]] = {None: {}, **{server.name: {} for server in servers}}
    for number, text in enumerate(variables, 1):
        which = f"--mcp-env number {number}" if len(variables) > 1 else "--mcp-env"
        found = _VARIABLE.fullmatch(text)
        if found is None:
            raise ConfigError(f"{which} is not of the form [SERVER:]VARIABLE or [SERVER:]VARIABLE=value")
        name, variable = found[1], found[2]
        value = os.environ.get(variable) if found[3] is None else found[3]
        if name not in given:
            raise ConfigError(f"{which} is for a server that no --mcp starts")
        if value is None:
            raise ConfigError(f"{which} names a variable that is not set")
        given[name][variable] = value
    # What is given closest to the server counts.
    environments = [given[None] | given[server.name] | dict(server.env or {}) for server in servers]
    return [
        attrs.evolve(server, env=environment or None) for server, environment in zip(servers, environments, strict=True)
    ]
