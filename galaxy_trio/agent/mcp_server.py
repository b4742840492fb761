"""An MCP server to start, and the session with one that runs."""

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


def _program_of(command: tuple[str, ...]) -> str:
    """What is shown of a command: its arguments may hold keys."""
    return f"({command[0]!r}, …)"


def _copied(env: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if env is None else dict(env)


@attrs.frozen
class McpServer:
    """An MCP server to start, for `open_mcp_tools`.

    Its `repr` shows neither arguments nor environment, for these may hold keys.

    Args:
        name: What its tools have as their namespace; no two servers share one.
        command: The program and its arguments. A text is split as a POSIX shell would.
        env: Environment variables for it. Besides these it gets a few harmless ones, such as ``PATH`` and ``HOME``, and no others.
        cwd: Where it runs, if not here.
        timeout: Seconds that one call may take; `math.inf` for no limit.
        start_timeout: Seconds that it may take to start and to list its tools; `math.inf` for no limit.

    Raises:
        ConfigError: The name or the command is empty, or a number is not above 0.
    """

    name: str
    command: Sequence[str] = attrs.field(converter=_words, repr=_program_of)
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
        """Read what a command line says: ``COMMAND``, or ``name=COMMAND``.

        Without a name it is the program's, without directories and extension.

        Raises:
            ConfigError: There is no command in it.
        """
        named = re.fullmatch(r"\s*([^\s=/\\'\"]+)=(.*)", text, re.DOTALL)
        if named is not None:
            return cls(named[1], named[2])
        words = _words(text)
        if not words or not Path(words[0]).stem:
            raise ConfigError("an MCP server is given as COMMAND or name=COMMAND, and this one has no command")
        return cls(Path(words[0]).stem, words)


@attrs.frozen
class ListedTool:
    """What a server says of one of its tools, as far as it matters here."""

    name: str
    read_only: bool


class Session(Protocol):
    """A server's process that runs, as `_RunningServer` needs it."""

    async def initialize(self) -> None:
        """Shake hands. Raises `ToolError` with the reason if that fails."""
        ...

    async def list_tools(self) -> list[ListedTool]:
        """Ask for the tools. Raises `ToolError` with the reason if that fails."""
        ...

    async def call(self, name: str, parameters: dict[str, JSON]) -> JSON:
        """Call a tool. Raises `ToolError`; cancelling tells the server, and the session goes on."""
        ...

    async def wait_list_changed(self) -> bool:
        """Wait until the server says that its tools have changed: True; False when it has ended."""
        ...


OpenSession: TypeAlias = Callable[[McpServer], AbstractAsyncContextManager[Session]]
