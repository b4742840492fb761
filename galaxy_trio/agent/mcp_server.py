"""An MCP server as its supervisor sees it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias
from urllib.parse import urlsplit

import attrs

from galaxy_trio._arguments import MAX_ID, check_name, check_positive
from galaxy_trio._concurrency.memory_budget import MemoryBudget
from galaxy_trio.agent.tool_description import UNDESCRIBED, ToolDescription
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from galaxy_trio.agent.mcp_log import ServerLog
    from galaxy_trio.messages import JSON

CALL_TIMEOUT: Final[float] = 300
"""Default limit of a call without progress in seconds. The caller's own timeout ends a call as well."""
START_TIMEOUT: Final[float] = 120
"""Default limit of a start in seconds: the first one of a package runner such as ``npx`` downloads the server."""


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


Headers: TypeAlias = "Iterable[tuple[str, str]] | Callable[[], Iterable[tuple[str, str]]]"


def _kept(headers: Headers) -> Headers:
    return headers if callable(headers) else tuple(headers)


@attrs.frozen
class McpServer:
    """An MCP server for `open_mcp_tools`: a command to start, or the URL of one that runs.

    Its `repr` shows neither command, environment, URL nor headers, because they may contain keys.

    Args:
        name: The namespace of its tools; must be unique.
        command: The program and its arguments. A string is split as a POSIX shell would split it.
        env: Environment variables for the process. In addition it gets a few harmless ones, such as ``PATH`` and ``HOME``, and no others.
        cwd: The process's working directory; the agent's own if not given.
        url: The ``https`` or ``http`` URL of a server with streamable HTTP, in place of a command.
        token: Sent to the URL as ``Authorization: Bearer``, or a function that returns the current one. The function is called in a
            thread before each connection, so a replaced token is used at the next one.
        headers: Sent with each HTTP request; pairs of name and value, or a function that returns them, called as that of `token`.
        call_timeout: Seconds for one call without progress; `math.inf` for no limit. Each progress notification of the server restarts it.
        start_timeout: Seconds for the server to start and list its tools; `math.inf` for no limit.

    Raises:
        ConfigError: The name is empty, there is no command and no URL or both, the URL cannot be used, or a number is not above 0.
    """

    name: str
    command: Sequence[str] = attrs.field(default=(), converter=_words, repr=False)
    env: Mapping[str, str] | None = attrs.field(default=None, converter=_copied, repr=False, hash=False)
    cwd: str | os.PathLike[str] | None = None
    url: str | None = attrs.field(default=None, kw_only=True, repr=False)
    token: str | Callable[[], str | None] | None = attrs.field(default=None, kw_only=True, repr=False)
    headers: Headers = attrs.field(default=(), kw_only=True, converter=_kept, repr=False)
    call_timeout: float = attrs.field(default=CALL_TIMEOUT, kw_only=True)
    start_timeout: float = attrs.field(default=START_TIMEOUT, kw_only=True)

    def __attrs_post_init__(self) -> None:
        check_name("name of an MCP server", self.name, MAX_ID)
        shown = f"MCP server {self.name!r}"
        if self.url is None:
            if not self.command or not self.command[0]:
                raise ConfigError(f"the command of {shown} is empty: give a program and its arguments, or a URL")
            if self.token is not None or self.headers != ():
                raise ConfigError(
                    f"{shown} is a command, which takes no token and no headers: give it variables in `env`"
                )
        else:
            _host_of(self.url, shown)
            if self.command or self.env is not None or self.cwd is not None:
                raise ConfigError(f"{shown} has a URL: it takes no command, no environment and no working directory")
        check_positive(call_timeout=self.call_timeout, start_timeout=self.start_timeout)

    @property
    def where(self) -> str:
        """The beginning of the URL, which contains no key; empty for a command."""
        if self.url is None:
            return ""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @classmethod
    def parse(cls, text: str) -> McpServer:
        """Read a command line's argument: ``COMMAND``, ``name=COMMAND``, or an ``https`` or ``http`` URL in place of the command.

        The default name is the program's, without directories and extension, or the URL's host. Words ``VARIABLE=value`` before the
        name or the command, in capital letters, digits and underscores, set environment variables, as in a shell.

        Raises:
            ConfigError: The text contains no command, or its URL cannot be used. The message shows nothing of it.
        """
        words = list(_words(text))
        variables = _take_variables(words)
        name = None
        if words and (named := _NAMED.fullmatch(words[0])) is not None:
            name = named[1]
            words[:1] = [named[2]] if named[2] else []
            variables |= _take_variables(words)
        if words and _is_url(words[0]):
            if len(words) > 1:
                raise ConfigError("an MCP server has words after its URL: put the whole URL in quotes")
            return cls(name or _host_of(words[0], "the MCP server"), env=variables or None, url=words[0])
        if not words or not (name or Path(words[0]).stem):
            raise ConfigError("an MCP server has no command: give COMMAND, name=COMMAND or name=URL")
        return cls(name or Path(words[0]).stem, words, variables or None)


@attrs.frozen
class ListedTool:
    """The part of an MCP server's tool description that a device uses."""

    name: str
    read_only: bool
    description: ToolDescription = UNDESCRIBED


def _is_url(word: str) -> bool:
    return word.lower().startswith(("https://", "http://"))


def _host_of(url: str, shown: str) -> str:
    """The host in the URL of an MCP server. The errors show nothing of it."""
    problem = "it begins with https:// or http://"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises if it is not a number
        url.encode("ascii")
    except ValueError:
        problem = "it is not a URL, or has characters that must be escaped in one"
    else:
        if parts.username is not None or parts.password is not None:
            problem = "it takes no user and password: give a token, or a header"
        elif _is_url(url) and parts.hostname:
            return parts.hostname
    # Not chained: the error may show the URL.
    raise ConfigError(f"the URL of {shown} cannot be used: {problem}")


@attrs.frozen
class Limits:
    """What all servers together share.

    Attributes:
        max_message_size: Bytes that one message may have.
        memory: Counts what was received of unfinished messages.
    """

    max_message_size: int
    memory: MemoryBudget

    @property
    def shortage(self) -> str:
        """The reason for ending a session because of the memory."""
        return f"it was stopped because all MCP servers together sent unfinished messages of {self.memory.limit} bytes"


class Session(Protocol):
    """A session with a running MCP server."""

    @property
    def problem(self) -> str | None:
        """Why the session was ended from this side; None if it was not."""
        ...

    async def initialize(self) -> None:
        """Perform the handshake. Raises `ToolError` with the reason if it fails."""
        ...

    async def list_tools(self, deadline: float) -> list[ListedTool]:
        """Request the list of tools. Raises `ToolError` with the reason if there is none by the deadline."""
        ...

    async def call(self, name: str, parameters: dict[str, JSON]) -> JSON:
        """Call a tool. Raises `ToolError`. Cancelling notifies the server; the session continues."""
        ...

    async def wait_list_changed(self) -> bool:
        """Wait until the server reports a changed list of tools. Returns False when the server has ended."""
        ...


OpenSession: TypeAlias = "Callable[[McpServer, Limits, ServerLog], AbstractAsyncContextManager[Session]]"
