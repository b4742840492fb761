"""An MCP server as its supervisor sees it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import attrs

from galaxy_trio._arguments import MAX_ID, check_name, check_positive
from galaxy_trio.agent.tool_description import UNDESCRIBED, ToolDescription
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON


def _words(command: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(command, str):
        return tuple(command)
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigError(f"the command of an MCP server cannot be split into words: {error}") from error


_VARIABLE = re.compile(r"([A-Z_][A-Z0-9_]*)=(.*)", re.DOTALL)
_NAMED = re.compile(r"([^\s=/\\]+)=(.*)", re.DOTALL)


def _take_variables(words: list[str]) -> dict[str, str]:
    """Remove the leading words that set environment variables."""
    variables: dict[str, str] = {}
    while words and (found := _VARIABLE.fullmatch(words[0])) is not None:
        variables[found[1]] = found[2]
        del words[0]
    return variables


def _copied(env: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if env is None else dict(env)


@attrs.frozen
class McpServer:
    """An MCP server for `open_mcp_tools` to start.

    Its `repr` shows neither command nor environment, because they may contain keys.

    Args:
        name: The namespace of its tools; must be unique.
        command: The program and its arguments. A string is split as a POSIX shell would split it.
        env: Environment variables for the process. In addition it gets a few harmless ones, such as ``PATH`` and ``HOME``, and no others.
        cwd: The process's working directory; the agent's own if not given.
        timeout: Seconds for one call; `math.inf` for no limit.
        start_timeout: Seconds for the server to start and list its tools; `math.inf` for no limit.

    Raises:
        ConfigError: The name or the command is empty, or a number is not above 0.
    """

    name: str
    command: Sequence[str] = attrs.field(converter=_words, repr=False)
    env: Mapping[str, str] | None = attrs.field(default=None, converter=_copied, repr=False, hash=False)
    cwd: str | os.PathLike[str] | None = None
    timeout: float = 60.0
    start_timeout: float = 30.0

    def __attrs_post_init__(self) -> None:
        check_name("name of an MCP server", self.name, MAX_ID)
        if not self.command or not self.command[0]:
            raise ConfigError(f"the command of MCP server {self.name!r} is empty: give a program and its arguments")
        check_positive(timeout=self.timeout, start_timeout=self.start_timeout)

    @classmethod
    def parse(cls, text: str) -> McpServer:
        """Read a command line's argument: ``COMMAND`` or ``name=COMMAND``.

        The default name is the program's, without directories and extension. Words ``VARIABLE=value`` before the name or the
        command, in capital letters, digits and underscores, set environment variables, as in a shell.

        Raises:
            ConfigError: The text contains no command. The message shows nothing of it.
        """
        words = list(_words(text))
        variables = _take_variables(words)
        name = None
        if words and (named := _NAMED.fullmatch(words[0])) is not None:
            name = named[1]
            words[:1] = [named[2]] if named[2] else []
            variables |= _take_variables(words)
        if not words or not (name or Path(words[0]).stem):
            raise ConfigError("an MCP server has no command: give COMMAND or name=COMMAND")
        return cls(name or Path(words[0]).stem, words, variables or None)


@attrs.frozen
class ListedTool:
    """The part of an MCP server's tool description that a device uses."""

    name: str
    read_only: bool
    description: ToolDescription = UNDESCRIBED


class Session(Protocol):
    """A session with a running MCP server process."""

    async def initialize(self) -> None:
        """Perform the handshake. Raises `ToolError` with the reason if it fails."""
        ...

    async def list_tools(self) -> list[ListedTool]:
        """Request the list of tools. Raises `ToolError` with the reason if that fails."""
        ...

    async def call(self, name: str, parameters: dict[str, JSON]) -> JSON:
        """Call a tool. Raises `ToolError`. Cancelling notifies the server; the session continues."""
        ...

    async def wait_list_changed(self) -> bool:
        """Wait until the server reports a changed list of tools. Returns False when the server has ended."""
        ...


OpenSession: TypeAlias = Callable[[McpServer], AbstractAsyncContextManager[Session]]
